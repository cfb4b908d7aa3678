"""Grade what students handed in: `python solutions/grade.py SUBMISSIONS [--source FOLDER] [--variant N]`.

SUBMISSIONS holds STUDENT/NAME/NAME.ipynb or STUDENT/NAME.ipynb; a notebook by another name is known by its cells.
Each is repaired (repair.py) and graded in a process of its own, with a time limit and without a network (isolation.py),
over its own copy of the gradebook. The results are `grades.csv`, `cells.csv`, `checks.csv`, a page of feedback for each
student (pages.py), and `by_hand.csv` for answers that a person reads (by_hand.py). What has been graded is kept: a
batch that was stopped goes on where it was, and only what has changed is graded again.

Students' code runs as you: it can read and write your files, and a student who means to can give herself points. What
the notebooks load must be on this machine already.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
from by_hand import Mark, Place, read_marks, with_marks, write_marks
from course import Exercise, Problem, cell_names, content_hash, exercises, make_course, read_exercise
from isolation import end, without_network
from pages import page_for
from repair import kind, name, repair
from submitted import Submission, Unreadable, find_submissions
from tables import Result, printed_checks, short, total, write_tables

from robustness_lib.files import write_whole

ROOT = Path(__file__).resolve().parent.parent
COUNTED = ("check", "answer", "task")
GRACE = 90  # seconds beyond the notebook's own limit for starting, stopping and writing the page
NO_ISOLATION = """This system cannot cut students' code off from the network (Linux can). Nothing was graded.
--allow-network grades all the same; then the notebooks can send away what they read here, and fetch answers."""


@dataclass
class Batch:
    """What all submissions of one call share."""

    course: Path
    source: Path
    out: Path
    variant: int | None
    minutes: float
    isolation: list[str]
    exercises: dict[str, Exercise] = field(default_factory=dict)
    hashes: dict[str, str] = field(default_factory=dict)
    program: str = ""
    running: set[subprocess.Popen[str]] = field(default_factory=set)
    stopping: threading.Event = field(default_factory=threading.Event)

    def prepare(self, names: list[str]) -> None:
        """Make the course, with its gradebook and the teacher's versions."""
        make_course(self.course, self.source, names, self.variant, gradebook=True)
        self.exercises = {name: read_exercise(self.course, name) for name in names}

    def state(self, student: str, exercise: str) -> Path:
        return self.out / "state" / student / f"{exercise}.json"

    def page(self, student: str, exercise: str) -> Path:
        """nbgrader's page; the one for the student is made of it when all are graded."""
        return self.state(student, exercise).with_suffix(".html")

    def key(self, submission: Submission) -> str:
        """Changes when the notebook, the exercise, its variant or the grading program does."""
        content = hashlib.sha256(submission.path.read_bytes()).hexdigest()
        parts = (content, self.hashes[submission.exercise], self.variant, self.program)
        return hashlib.sha256(" ".join(map(str, parts)).encode()).hexdigest()


# One submission.


def read_result(path: Path) -> Result | None:
    """A result that an earlier call kept."""
    try:
        result: Result = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return result if "answers" in result else None


def kept_result(batch: Batch, submission: Submission) -> Result | None:
    """The result of an earlier call, if it still holds; one that ran out of time does not hold for more minutes."""
    result = read_result(batch.state(submission.student, submission.exercise))
    if result is None:
        return None
    longer = result["cut_short"] and batch.minutes > result["minutes"]
    there = batch.page(submission.student, submission.exercise).is_file() or not result["page"]
    return result if result["key"] == batch.key(submission) and there and not longer else None


def fresh_result(batch: Batch, submission: Submission) -> Result:
    """A result without any points yet. Answers count as open: a person can read them."""
    cells = [cell for cell in batch.exercises[submission.exercise].master.cells if cell.metadata.get("nbgrader")]
    points = {name(cell): float(cell.metadata.nbgrader.get("points", 0)) for cell in cells if kind(cell) in COUNTED}
    checks = [name(cell) for cell in cells if kind(cell) == "check"]
    return {
        "key": batch.key(submission),
        "student": submission.student,
        "exercise": submission.exercise,
        "cells": {n: {"points": 0.0, "of": of, "open": 0.0 if n in checks else of} for n, of in points.items()},
        "checks": checks,
        "answers": {},
        "findings": [],
        "remarks": [] if submission.path.stem == submission.exercise else [f"it was called {submission.path.name}"],
        "unreadable": False,
        "cut_short": False,
        "page": False,
        "minutes": batch.minutes,
        "seconds": 0.0,
    }


def grade(batch: Batch, submission: Submission) -> Result:
    """Grade one submission and keep the result. Raises nothing that is the submission's fault."""
    start = time.monotonic()
    result = fresh_result(batch, submission)
    batch.page(submission.student, submission.exercise).unlink(missing_ok=True)
    exercise = batch.exercises[submission.exercise]
    try:
        notebook, remarks = repair(submission.path.read_bytes(), exercise, batch.exercises.values())
        result["remarks"] += remarks
    except Unreadable as reason:
        result.update(unreadable=True, remarks=[*result["remarks"], f"it was not graded: {reason}"])
        for cell in result["cells"].values():
            cell["open"] = 0.0
    else:
        result["answers"] = answers(notebook)
        with tempfile.TemporaryDirectory(prefix="grading-", ignore_cleanup_errors=True) as folder:
            make_job(batch, submission, notebook, Path(folder))
            run_job(batch, submission, Path(folder), result)
    result["seconds"] = time.monotonic() - start
    if not batch.stopping.is_set():
        kept = json.dumps(result, ensure_ascii=False, indent=1).encode()
        write_whole(batch.state(submission.student, submission.exercise), kept)
    return result


def answers(notebook: nbformat.NotebookNode) -> dict[str, str]:
    """What a person is to read: the text of each such cell."""
    return {str(name(cell)): cell.source for cell in notebook.cells if kind(cell) in ("answer", "task")}


def make_job(batch: Batch, submission: Submission, notebook: nbformat.NotebookNode, folder: Path) -> None:
    """Copy of the course what one exercise needs, and the repaired notebook, into a folder."""
    name = submission.exercise
    # Without the solution: the student's code could read it.
    shutil.copytree(batch.course / "source" / name, folder / "source" / name, ignore=lambda *_: [f"{name}.ipynb"])
    shutil.copy(batch.course / "gradebook.db", folder)
    (folder / "submitted" / "student" / name).mkdir(parents=True)
    nbformat.write(notebook, folder / "submitted" / "student" / name / f"{name}.ipynb")
    job = {"exercise": name, "minutes": batch.minutes, "isolated": bool(batch.isolation)}
    (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")


def environment(folder: Path) -> dict[str, str]:
    """One thread for each notebook, and Jupyter's own files in the job's folder instead of at home."""
    (folder / "tmp").mkdir()
    places = {"IPYTHONDIR": "ipython", "JUPYTER_RUNTIME_DIR": "run", "JUPYTER_CONFIG_DIR": "config", "TMPDIR": "tmp"}
    kept = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}
    return {**kept, "OMP_NUM_THREADS": "1", **{name: str(folder / place) for name, place in places.items()}}


def run_job(batch: Batch, submission: Submission, folder: Path, result: Result) -> None:
    """Run the job in a process of its own, and take over what it found."""
    command = [*batch.isolation, sys.executable, str(ROOT / "solutions" / "grade_one.py"), str(folder / "job.json")]
    process = subprocess.Popen(
        command, cwd=folder, env=environment(folder), text=True, start_new_session=True,
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    batch.running.add(process)
    try:
        process.wait(timeout=60 * batch.minutes + GRACE)
        reason = f"its process ended by itself (code {process.returncode})"
    except subprocess.TimeoutExpired:
        reason = f"it did not end in {batch.minutes:g} minutes and could not be stopped in an orderly way"
        result["cut_short"] = True
    finally:
        end(process)
        batch.running.discard(process)
    try:
        if process.returncode:  # a student's code can end it, and write what it likes
            raise ValueError
        found = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        said = folder / "failed.txt"
        reason = said.read_text(encoding="utf-8") if said.is_file() else reason
        result["remarks"].append(f"no check counts: {reason}")
        return
    result["cells"].update({name: cell for name, cell in found["cells"].items() if name in result["cells"]
                            and not (name in result["answers"] and cell["points"])})  # fmt: skip
    result["findings"], result["cut_short"] = found["findings"], found["cut_short"]
    result["remarks"] += found["remarks"]
    page = folder / "feedback" / "student" / submission.exercise / f"{submission.exercise}.html"
    if page.is_file():
        write_whole(batch.page(submission.student, submission.exercise), page.read_bytes())
        result["page"] = True


# The batch.


def graded(batch: Batch, submissions: list[Submission], workers: int) -> Generator[Result, None, None]:
    """Grade the submissions side by side; results come as they are ready."""
    pool = ThreadPoolExecutor(workers)
    try:
        futures = {pool.submit(grade, batch, submission): submission for submission in submissions}
        for future in as_completed(futures):
            try:
                yield future.result()
            except Exception as error:  # ours, or the system's: the others are graded all the same
                result = fresh_result(batch, futures[future])
                yield {**result, "remarks": [f"grading broke off: {type(error).__name__}: {error}"]}
    finally:
        batch.stopping.set()
        pool.shutdown(wait=False, cancel_futures=True)
        for process in list(batch.running):
            end(process)


def progress(number: int, count: int, result: Result) -> str:
    points = f"{short(total(result, 'points'))} of {short(total(result, 'of'))}"
    still_open = f" ({short(total(result, 'open'))} to be graded by hand)" if total(result, "open") else ""
    line = f"{number}/{count} {result['student']} {result['exercise']} {points}{still_open}, {result['seconds']:.0f} s"
    return "\n".join([line, *(f"    {remark}" for remark in result["remarks"])])


def program_hash() -> str:
    """Changes when the library or one of these scripts does: then what was graded before counts no more."""
    scripts = b"".join(path.read_bytes() for path in sorted((ROOT / "solutions").glob("*.py")))
    return content_hash(ROOT / "robustness_lib") + hashlib.sha256(scripts).hexdigest()


def grade_all(batch: Batch, folder: Path, workers: int) -> int:
    names = exercises(batch.source)
    submissions, skipped = find_submissions(folder, {name: cell_names(batch.source, name) for name in names})
    print("\n".join([*skipped, f"{len(submissions)} notebooks to grade"]), flush=True)
    marks = read_marks(batch.out / "by_hand.csv")
    batch.hashes = {name: content_hash(batch.source / name) for name in names}
    batch.program = program_hash()
    results = {s: kept for s in submissions if (kept := kept_result(batch, s)) is not None}
    if results:
        print(f"{len(results)} of them were graded before, and nothing about them has changed", flush=True)
    todo = [submission for submission in submissions if submission not in results]
    batch.prepare(sorted({submission.exercise for submission in todo}))
    by_name = {(s.student, s.exercise): s for s in submissions}
    with closing(graded(batch, todo, workers)) as ready:
        for result in ready:
            results[by_name[result["student"], result["exercise"]]] = result
            print(progress(len(results), len(submissions), result), flush=True)
    publish(batch, [results[submission] for submission in submissions], marks)
    return 0


def publish(batch: Batch, results: list[Result], marks: dict[Place, Mark]) -> None:
    """Write the tables and the students' pages, with the points that a person gave.

    results: of this call. Those of earlier calls, for notebooks that are not among these, stay in the tables.
    """
    batch.out.mkdir(parents=True, exist_ok=True)
    here = {(result["student"], result["exercise"]) for result in results}
    earlier = [kept for path in (batch.out / "state").glob("*/*.json") if (path.parent.name, path.stem) not in here
               and (kept := read_result(path)) is not None]  # fmt: skip
    everybody = sorted([*results, *earlier], key=lambda result: (result["student"], result["exercise"]))
    write_marks(batch.out / "by_hand.csv", everybody, marks)
    counted = [with_marks(result, marks) for result in everybody]
    write_tables(batch.out, counted)
    for result in counted:
        student, exercise = result["student"], result["exercise"]
        text = batch.page(student, exercise).read_text(encoding="utf-8") if result["page"] else None
        page = batch.out / "feedback" / student / f"{exercise}.html"
        write_whole(page, page_for(result, text).encode())
    print(f"\n{printed_checks(counted)}\n\nGrades: {batch.out / 'grades.csv'}, each cell: cells.csv, failed checks: "
          f"checks.csv, pages for students: {batch.out / 'feedback'}")  # fmt: skip
    if still := sum(cell["open"] > 0 for result in counted for cell in result["cells"].values()):
        print(f"Answers for a person to read: {still}. Write points and words into {batch.out / 'by_hand.csv'}, and "
              "call again.")  # fmt: skip


def isolation(allow_network: bool) -> list[str]:
    if allow_network:
        return []
    words = without_network()
    if words is None:
        raise Problem(NO_ISOLATION)
    return words


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("submissions", type=Path, metavar="SUBMISSIONS", help="holds STUDENT/NAME/NAME.ipynb")
    parser.add_argument("--source", type=Path, default=ROOT / "solutions", metavar="FOLDER", help="has NAME/NAME.ipynb")
    parser.add_argument("--variant", type=int, metavar="N", help="the variant that was released")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="_grading/graded, or graded-… for another source")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="notebooks at the same time")
    parser.add_argument("--minutes", type=float, default=10, metavar="N", help="for one notebook")
    parser.add_argument("--allow-network", action="store_true", help="do not cut students' code off from the network")
    chosen = parser.parse_args(arguments)
    try:
        if chosen.workers < 1 or not chosen.minutes > 0:
            raise Problem("--workers must be at least 1, and --minutes more than 0")
        own = "" if chosen.source.resolve() == ROOT / "solutions" else f"-{chosen.source.resolve().name}"
        out = chosen.out or ROOT / "_grading" / f"graded{own}"
        with tempfile.TemporaryDirectory(prefix="course-") as course:
            batch = Batch(Path(course), chosen.source, out, chosen.variant, chosen.minutes,
                          isolation(chosen.allow_network))  # fmt: skip
            return grade_all(batch, chosen.submissions, chosen.workers)
    except Problem as problem:
        print(problem, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nStopped. What has been graded is kept: call again to go on.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
