"""Every exercise, unsolved, solved and answered in other ways, in this process and by nbgrader itself. What is tried on
one exercise alone stands in the file that bears its name."""

from __future__ import annotations

import copy
import csv
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import grade
import nbformat
import pytest
from answers import SOLUTIONS, Wrong, hidden_checks, run_graded, solved
from exercise_table import EXERCISES, Exercise, assert_right, assert_wrong
from isolation import without_network
from nbformat import NotebookNode

from robustness_lib.grading import GradedStep

STUDENTS = SOLUTIONS.parent / "exercises"
NAMES = sorted(path.parent.name for path in SOLUTIONS.glob("*/*.ipynb"))
QUICKEST = "fgsm_first_steps"


def notebook(folder: Path, name: str) -> NotebookNode:
    return nbformat.read(folder / name / f"{name}.ipynb", as_version=4)


def is_step(cell: NotebookNode) -> bool:
    return bool(cell.metadata.get("nbgrader", {}).get("solution")) and cell.cell_type == "code"


@pytest.mark.parametrize("name", NAMES)
def test_unsolved_it_is_worth_nothing(name: str) -> None:
    names = {}
    for cell in notebook(STUDENTS, name).cells:
        if cell.cell_type == "code" and (cell.id == "setup" or is_step(cell)):
            exec(cell.source, names)
    found = run_graded(name, names)
    assert found
    assert {points for points, _ in found.values()} == {0}


@pytest.mark.parametrize("name", NAMES)
def test_solved_it_has_full_marks(name: str) -> None:
    found = run_graded(name, solved(name))
    assert all(points == of for points, of in found.values()), found


# Answers: wrong ones lose marks in words that name the mistake, right ones get all.

WRONG = [pytest.param(exercise, wrong, id=f"{name}-{wrong.name}")
         for name, exercise in EXERCISES.items() for wrong in exercise.wrong]
RIGHT = [pytest.param(exercise, kind, id=f"{name}-{kind}")
         for name, exercise in EXERCISES.items() for kind in exercise.right]
STEPS = [pytest.param(exercise, step, id=f"{name}-{step}")
         for name, exercise in EXERCISES.items() for step in exercise.steps]
ABRIDGED = [name for name, exercise in EXERCISES.items() if exercise.settings or exercise.solved]
OTHER_VARIANTS = {"fgsm_first_steps": range(1, 11), "pgd_and_restarts": (1, 2, 7)}


def test_every_exercise_has_answers() -> None:
    assert list(EXERCISES) == NAMES


@pytest.mark.parametrize(("exercise", "wrong"), WRONG)
def test_a_wrong_answer_loses_marks_and_reads_why(exercise: Exercise, wrong: Wrong) -> None:
    assert_wrong(exercise, wrong, 0)


@pytest.mark.slow
@pytest.mark.parametrize(("exercise", "wrong"), [case for case in WRONG if case.values[0].name in OTHER_VARIANTS])
def test_a_wrong_answer_loses_marks_in_other_variants(exercise: Exercise, wrong: Wrong) -> None:
    for variant in OTHER_VARIANTS[exercise.name]:
        assert_wrong(exercise, wrong, variant)


def assert_solved(exercise: Exercise, task: object) -> None:
    found = run_graded(exercise.name, solved(exercise.name) | {"task": task})
    assert all(points == of for points, of in found.values()), found
    assert len(found) == exercise.cells


@pytest.mark.parametrize("variant", range(4))
@pytest.mark.parametrize("name", EXERCISES)
def test_the_solution_gets_full_marks_in_every_variant(name: str, variant: int) -> None:
    assert_solved(EXERCISES[name], EXERCISES[name].task(variant, **EXERCISES[name].solved))


@pytest.mark.slow
@pytest.mark.parametrize("variant", range(4))
@pytest.mark.parametrize("name", ABRIDGED)
def test_the_solution_gets_full_marks_in_every_variant_unabridged(name: str, variant: int) -> None:
    assert_solved(EXERCISES[name], EXERCISES[name].checks.task(variant))


@pytest.mark.parametrize("rerun", range(3))
@pytest.mark.parametrize(("exercise", "kind"), RIGHT)
def test_right_answers_of_other_kinds_get_full_marks(exercise: Exercise, kind: str, rerun: int) -> None:
    assert_right(exercise, exercise.right[kind], exercise.task(exercise.variants[rerun]), without=exercise.long)


@pytest.mark.slow
@pytest.mark.parametrize("variant", range(50))
@pytest.mark.parametrize("name", EXERCISES)
def test_fifty_reruns_of_right_answers(name: str, variant: int) -> None:
    """One variant after the other: what a task counts once serves all answers."""
    exercise, later = EXERCISES[name], variant >= 3
    task = exercise.task(variant, **(exercise.later if later else {}))
    for answers in exercise.right.values():
        assert_right(exercise, answers, task, without=(*exercise.long, *exercise.long_later) if later else ())


@pytest.mark.parametrize(("exercise", "step"), STEPS)
def test_nothing_written_is_worth_nothing_and_says_so(exercise: Exercise, step: str) -> None:
    def mine(*given_to: object) -> None:
        raise NotImplementedError

    nothing, task = [mine] * exercise.takes(step), exercise.task(**exercise.of_step.get(step, {}))
    assert exercise.marked(step, *nothing, task=task)[0::2] == (0, "✗ not written yet\n")
    if hasattr(exercise.hidden, step):
        assert exercise.marked_in_grading(step, *nothing, task=task)[0::2] == (0, "✗ not written yet\n")


class Shown(Exception):
    """What a check in grading would be tried on."""


@pytest.mark.parametrize("name", EXERCISES)
def test_checks_in_grading_take_the_variant_from_a_task_and_nothing_else(
        name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a task that was changed in the notebook would make them easy."""
    def show(step: GradedStep, *answers: object, task: object, **tried_on: object) -> None:
        raise Shown(task)

    monkeypatch.setattr(GradedStep, "in_grading", show)
    exercise, hidden = EXERCISES[name], hidden_checks(name)
    honest = exercise.checks.task(2)
    changed = replace(honest, **{one.name: 1 for one in fields(honest) if one.name != "variant"})
    steps = [step for step in exercise.steps if hasattr(hidden, step)]
    assert steps
    for step in steps:
        tried_on = []
        for task in (honest, changed):
            with pytest.raises(Shown) as shown:
                getattr(hidden, step)(*[None] * exercise.takes(step), task)
            tried_on.append(shown.value.args[0])
        assert tried_on[0] == tried_on[1]
        assert tried_on[0].variant in (2, 7)


# As students hand it in.


def blank(name: str) -> NotebookNode:
    return notebook(STUDENTS, name)


def full(name: str) -> NotebookNode:
    """Every step as the solution has it, in the students' notebook."""
    made, source = blank(name), notebook(SOLUTIONS, name)
    for cell, right in zip(made.cells, source.cells, strict=True):
        if is_step(cell):
            cell.source = right.source
    return made


def half(name: str) -> NotebookNode:
    made, steps = full(name), [cell.id for cell in blank(name).cells if is_step(cell)]
    for cell, empty in zip(made.cells, blank(name).cells, strict=True):
        if cell.id in steps[1::2]:
            cell.source = empty.source
    return made


def copied(name: str) -> NotebookNode:
    """With a step and a check twice, as Ctrl-C and Ctrl-V leave them."""
    made = full(name)
    place = next(i for i, cell in enumerate(made.cells) if is_step(cell))
    made.cells[place + 2:place + 2] = copy.deepcopy(made.cells[place:place + 2])
    return made


def retyped(name: str) -> NotebookNode:
    """With a check turned into text."""
    made = full(name)
    place = next(i for i, cell in enumerate(made.cells) if is_step(cell)) + 1
    made.cells[place] = NotebookNode(cell_type="markdown", id=made.cells[place].id,
                                     metadata=made.cells[place].metadata, source=made.cells[place].source)
    return made


def deleted(name: str) -> NotebookNode:
    """Without its first check."""
    made = full(name)
    del made.cells[next(i for i, cell in enumerate(made.cells) if is_step(cell)) + 1]
    return made


SUBMISSIONS: dict[str, Callable[[str], NotebookNode]] = {
    "blank": blank, "copied": copied, "deleted": deleted, "full": full, "half": half, "retyped": retyped}
QUICK = [pytest.param(name, marks=() if name == QUICKEST else pytest.mark.slow) for name in NAMES]


@pytest.mark.parametrize("name", QUICK)
def test_nbgrader_grades_what_students_hand_in(name: str, tmp_path: Path) -> None:
    for student, made in SUBMISSIONS.items():
        (tmp_path / "in" / student).mkdir(parents=True)
        (tmp_path / "in" / student / f"{name}.ipynb").write_text(str(nbformat.writes(made(name))), encoding="utf-8")
    network = [] if without_network() is not None else ["--allow-network"]
    assert grade.main([str(tmp_path / "in"), "--out", str(tmp_path / "out"), *network]) == 0
    with (tmp_path / "out" / "grades.csv").open(encoding="utf-8", newline="") as file:
        rows = {row["student"]: row for row in csv.DictReader(file)}
    by_hand = sum(cell.metadata.nbgrader.points for cell in blank(name).cells
                  if cell.cell_type == "markdown" and cell.metadata.get("nbgrader", {}).get("grade"))
    most = float(rows["full"]["of"]) - by_hand
    points = {student: float(row["points"]) for student, row in rows.items()}
    assert points == {"blank": 0, "copied": most, "deleted": most, "full": most, "half": points["half"],
                      "retyped": most}
    assert 0 < points["half"] < most
    remarks = {student: row["remarks"] for student, row in rows.items()}
    assert not remarks["full"] + remarks["half"] + remarks["blank"]
    assert "stands there 2 times" in remarks["copied"]
    assert "was gone and was put back" in remarks["deleted"]
    assert "another type of cell" in remarks["retyped"]
    for student in SUBMISSIONS:
        assert (tmp_path / "out" / "feedback" / student / f"{name}.html").is_file()
