"""For teachers who call nbgrader themselves: `nbgrader generate_assignment NAME`, `nbgrader autograde NAME`.

`make release` and `make grade` do not read this file; they do the same in a temporary folder (solutions/course.py).
"""

from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent


def take_out_hidden_checks(assignment: str, **_: Any) -> None:
    """Students do not get the hidden checks. (`CourseDirectory.ignore` would keep them from `autograde` too.)"""
    (ROOT / "exercises" / assignment / "hidden_checks.py").unlink(missing_ok=True)


(ROOT / "_grading").mkdir(exist_ok=True)  # the database makes no folders

c = get_config()  # type: ignore[name-defined]  # noqa: F821  # nbgrader puts it there

c.CourseDirectory.root = str(ROOT)
c.CourseDirectory.source_directory = "solutions"  # the teacher's version: solutions, hidden checks
c.CourseDirectory.release_directory = "exercises"  # generated from it, for students
c.CourseDirectory.submitted_directory = "_grading/submitted"  # put STUDENT/NAME/NAME.ipynb here
c.CourseDirectory.autograded_directory = "_grading/autograded"
c.CourseDirectory.feedback_directory = "_grading/feedback"
c.CourseDirectory.solution_directory = "_grading/solution"
c.CourseDirectory.source_with_tests_directory = "_grading/source_with_tests"
c.CourseDirectory.db_url = f"sqlite:///{ROOT / '_grading' / 'gradebook.db'}"

c.GenerateAssignment.post_convert_hook = take_out_hidden_checks
c.OverwriteCells.add_missing_cells = True  # grade cells that a student deleted
c.Execute.timeout = 180  # seconds for one cell; nbgrader's own 30 are short for training a network
c.Execute.interrupt_on_timeout = True
