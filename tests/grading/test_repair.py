"""Broken notebooks are made gradable, in words that say what was found; no kernel runs here."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable

import nbformat
import pytest
import tiny
from course import Exercise
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell
from nbgrader.nbgraderformat import MetadataValidator
from repair import name, repair
from submitted import Unreadable

GIVEN = ("check_add", "hidden_add", "check_double", "hidden_double")


def repaired(handed_in: NotebookNode | bytes, exercise: Exercise, *others: Exercise) -> tuple[NotebookNode, str]:
    """The repaired notebook, having seen that it is one that nbgrader takes, and the remarks."""
    content = handed_in if isinstance(handed_in, bytes) else tiny.content(handed_in)
    notebook, remarks = repair(content, exercise, others)
    nbformat.validate(notebook)
    MetadataValidator().validate_nb(notebook)
    names = [name(cell) for cell in notebook.cells if name(cell)]
    assert len(set(names)) == len(names)
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)
    for given in GIVEN:
        assert tiny.cell(notebook, given).source == tiny.cell(exercise.master, given).source
        assert tiny.cell(notebook, given).cell_type == "code"
    assert [given for given in names if given in GIVEN] == list(GIVEN)
    return notebook, "; ".join(remarks)


def code(notebook: NotebookNode) -> list[str]:
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


def test_a_sound_notebook_stays_as_it_is(solved: NotebookNode, exercise: Exercise) -> None:
    solved.cells.insert(3, new_code_cell("print(add(1, 1))"))
    notebook, remarks = repaired(solved, exercise)
    assert remarks == ""
    for before, after in zip(solved.cells, notebook.cells, strict=True):
        assert name(before) == name(after)
        if name(after) not in GIVEN:
            assert before.source == after.source


def test_the_same_notebook_gives_the_same_one(solved: NotebookNode, exercise: Exercise) -> None:
    solved.cells.insert(3, tiny.copied(solved, "add"))
    assert repaired(solved, exercise) == repaired(solved, exercise)


def test_all_copies_of_a_solution_run_and_the_check_follows(solved: NotebookNode, exercise: Exercise) -> None:
    copy = tiny.copied(solved, "add")
    copy.source = "def add(a, b):\n    return b + a"
    solved.cells.insert(tiny.place(solved, "add") + 1, copy)
    notebook, remarks = repaired(solved, exercise)
    assert remarks == "the solution `add` stands there 2 times; all of them ran, in their order"
    assert code(notebook)[1:4] == [tiny.ADD, copy.source, "check_add(add)"]
    assert tiny.cell(notebook, "add").source == copy.source


@pytest.mark.parametrize("where", [0, 3, -1])
def test_a_copied_check_runs_once_where_it_was(where: int, solved: NotebookNode, exercise: Exercise) -> None:
    copy = tiny.copied(solved, "check_add")
    copy.source = "check_add(lambda a, b: 5)"
    solved.cells.insert(where % (len(solved.cells) + 1), copy)
    notebook, remarks = repaired(solved, exercise)
    assert "the check `check_add` stood there 2 times; it counts once" in remarks
    assert tiny.place(notebook, "add") < tiny.place(notebook, "check_add") < tiny.place(notebook, "double")
    assert not any("lambda" in source for source in code(notebook))


def test_a_check_above_its_solution_is_moved_below(solved: NotebookNode, exercise: Exercise) -> None:
    solved.cells.insert(0, solved.cells.pop(tiny.place(solved, "check_add")))
    notebook, remarks = repaired(solved, exercise)
    assert remarks == "the check `check_add` stood above its solution and was moved"
    assert tiny.place(notebook, "check_add") == tiny.place(notebook, "add") + 1


@pytest.mark.parametrize("cell_type", ["markdown", "raw"])
@pytest.mark.parametrize("cell", ["add", "check_add"])
def test_a_retyped_cell_is_code_again(cell: str, cell_type: str, solved: NotebookNode, exercise: Exercise) -> None:
    changed = tiny.cell(solved, cell)
    changed.cell_type = cell_type
    for key in ("outputs", "execution_count"):
        changed.pop(key)
    notebook, remarks = repaired(solved, exercise)
    assert tiny.cell(notebook, cell).cell_type == "code"
    assert code(notebook)[1:3] == [tiny.ADD, "check_add(add)"]
    assert f"`{cell}`" in remarks
    assert "cell" in remarks


def test_an_answer_that_became_code_is_text_again(solved: NotebookNode, exercise: Exercise) -> None:
    answer = tiny.cell(solved, "why")
    answer.update(cell_type="code", outputs=[], execution_count=None)
    notebook, remarks = repaired(solved, exercise)
    assert tiny.cell(notebook, "why").cell_type == "markdown"
    assert remarks == "the answer `why` had become a code cell; it was made a markdown cell again"


def test_an_attempt_set_aside_as_text_is_not_run(solved: NotebookNode, exercise: Exercise) -> None:
    attempt = tiny.copied(solved, "add")
    attempt.update(cell_type="raw", source="def add(a, b): return 0")
    solved.cells.insert(tiny.place(solved, "add") + 1, attempt)
    notebook, _ = repaired(solved, exercise)
    assert tiny.cell(notebook, "add").source == tiny.ADD
    assert "def add(a, b): return 0" not in code(notebook)


@pytest.mark.parametrize("gone", [["check_add"], ["hidden_add"], ["check_add", "hidden_add"], list(GIVEN)])
def test_deleted_checks_are_put_back_in_their_places(
    gone: list[str], solved: NotebookNode, exercise: Exercise
) -> None:
    whole = repaired(solved, exercise)[0]
    solved.cells = [cell for cell in solved.cells if name(cell) not in gone]
    notebook, remarks = repaired(solved, exercise)
    assert [name(cell) or cell.source for cell in notebook.cells] == [name(c) or c.source for c in whole.cells]
    assert all(f"the check `{cell}` was gone and was put back" in remarks for cell in gone)


def test_a_deleted_solution_is_not_put_over_what_the_student_wrote(solved: NotebookNode, exercise: Exercise) -> None:
    solved.cells.pop(tiny.place(solved, "add"))
    solved.cells[1].source += "\n" + tiny.ADD
    notebook, remarks = repaired(solved, exercise)
    assert remarks == "the solution `add` is gone; what other cells define counts"
    assert not any("NotImplementedError" in source for source in code(notebook))


def test_a_deleted_answer_is_put_back_without_the_model_answer(solved: NotebookNode, exercise: Exercise) -> None:
    solved.cells.pop(tiny.place(solved, "why"))
    notebook, remarks = repaired(solved, exercise)
    assert remarks == "the answer `why` was gone; there is nothing to grade"
    assert tiny.cell(notebook, "why").source == tiny.cell(exercise.release, "why").source != tiny.WHY


def lose_metadata(cell: NotebookNode) -> None:
    cell.metadata = NotebookNode()


def lose_id(cell: NotebookNode) -> None:
    cell.id = "other"


def lose_both(cell: NotebookNode) -> None:
    lose_metadata(cell)
    lose_id(cell)


def as_colab(cell: NotebookNode) -> None:
    cell.metadata = NotebookNode(id=cell.id)
    cell.pop("id")


@pytest.mark.parametrize("lose", [lose_metadata, lose_id, lose_both, as_colab])
@pytest.mark.parametrize("cell", ["add", "why", "check_double"])
def test_a_cell_that_lost_its_name_is_found(
    cell: str, lose: Callable[[NotebookNode], None], solved: NotebookNode, exercise: Exercise
) -> None:
    whole = repaired(solved, exercise)[0]
    lose(tiny.cell(solved, cell))
    notebook, _ = repaired(solved, exercise)
    assert [(name(c), c.source) for c in notebook.cells] == [(name(c), c.source) for c in whole.cells]


@pytest.mark.parametrize("lose", [lose_metadata, lose_id, as_colab])
def test_so_are_all_cells(lose: Callable[[NotebookNode], None], solved: NotebookNode, exercise: Exercise) -> None:
    whole = repaired(solved, exercise)[0]
    for cell in solved.cells:
        lose(cell)
    notebook, remarks = repaired(solved, exercise)
    assert [(name(c), c.source) for c in notebook.cells] == [(name(c), c.source) for c in whole.cells]
    assert remarks == ""


def test_a_changed_check_is_the_original_again(solved: NotebookNode, exercise: Exercise) -> None:
    tiny.cell(solved, "check_add").source = "1.0"
    tiny.cell(solved, "hidden_add").metadata.nbgrader["points"] = 100
    notebook, remarks = repaired(solved, exercise)
    assert remarks == "the check `check_add` had been changed; the original was put back"
    assert tiny.cell(notebook, "hidden_add").metadata.nbgrader["points"] == 2


@pytest.mark.parametrize("line", ["VARIANT = 3", "VARIANT = 0"])
def test_the_variant_is_the_one_that_is_graded(line: str, solved: NotebookNode, exercise: Exercise) -> None:
    solved.cells[1].source = f"{line}\nimport math"
    notebook, remarks = repaired(solved, exercise)
    assert notebook.cells[1].source == "VARIANT = 7\nimport math"
    assert remarks == f"the notebook said `{line}`; it was graded with `VARIANT = 7`"


def test_a_lost_variant_is_put_back(solved: NotebookNode, exercise: Exercise) -> None:
    solved.cells.pop(1)
    notebook, remarks = repaired(solved, exercise)
    assert code(notebook)[0] == "VARIANT = 7"
    assert remarks == "the line `VARIANT = 7` was gone and was put back"


@pytest.fixture
def locked(exercise: Exercise) -> Exercise:
    """The exercise with a first code cell that students may not change."""
    made = copy.deepcopy(exercise)
    for notebook in (made.master, made.release):
        tiny.marked(notebook.cells[1], "setup").metadata.nbgrader.update(solution=False, locked=True)
    return made


def test_a_lost_setup_is_put_back(locked: Exercise) -> None:
    handed_in = tiny.solved(locked.release)
    handed_in.cells.pop(1)
    notebook, remarks = repaired(handed_in, locked)
    assert code(notebook)[0] == locked.master.cells[1].source
    assert remarks == "the given cell `setup` was gone and was put back"


@pytest.mark.parametrize("more", ["", "import math\n"])
def test_a_changed_setup_runs_before_the_original(more: str, locked: Exercise) -> None:
    handed_in = tiny.solved(locked.release)
    handed_in.cells[1].source = f"{more}{handed_in.cells[1].source}".replace("VARIANT = 7", "VARIANT = 0")
    notebook, remarks = repaired(handed_in, locked)
    given = locked.master.cells[1].source
    wrote = [f"import math\n{given}"] if more else []  # in the variant that is graded
    assert code(notebook)[:len(wrote) + 1] == [*wrote, given]
    said = ["the given cell `setup` had been changed; it ran, and then the original"] if more else []
    assert remarks == "; ".join([*said, "the notebook said `VARIANT = 0`; it was graded with `VARIANT = 7`"])


def test_outputs_tags_and_unknown_names_do_not_get_in(solved: NotebookNode, exercise: Exercise) -> None:
    tiny.cell(solved, "add").outputs = [{"output_type": "stream", "name": "stdout", "text": "x" * 1_000_000}]
    tiny.cell(solved, "check_add").metadata.tags = ["skip-execution"]
    own = new_code_cell("1", metadata={"tags": ["skip-execution"], "nbgrader": {"grade_id": "mine", "grade": True}})
    solved.cells.append(own)
    notebook, _ = repaired(solved, exercise)
    assert len(tiny.content(notebook)) < 10_000
    assert not any("tags" in cell.metadata for cell in notebook.cells)
    assert notebook.cells[-1].metadata == {}


def test_what_was_attached_to_an_answer_stays(solved: NotebookNode, exercise: Exercise) -> None:
    tiny.cell(solved, "why").attachments = {"photo.png": {"image/png": "AAAA"}}
    solved.cells.append(new_markdown_cell("own"))
    solved.cells[-1].attachments = {"broken": "x"}
    notebook, _ = repaired(solved, exercise)
    assert tiny.cell(notebook, "why").attachments == {"photo.png": {"image/png": "AAAA"}}
    assert "attachments" not in notebook.cells[-1]


def test_an_old_format_and_a_byte_order_mark(solved: NotebookNode, exercise: Exercise) -> None:
    assert repaired(b"\xef\xbb\xbf" + tiny.content(solved), exercise)[1] == ""
    old = {"nbformat": 3, "nbformat_minor": 0, "metadata": {}, "worksheets": [{"metadata": {}, "cells": [
        {"cell_type": c.cell_type, "metadata": c.metadata, ("input" if c.cell_type == "code" else "source"): c.source}
        | ({"outputs": [], "language": "python", "collapsed": False} if c.cell_type == "code" else {})
        for c in solved.cells
    ]}]}  # fmt: skip
    assert tiny.cell(repaired(tiny.content(old), exercise)[0], "add").source == tiny.ADD


def another_notebook() -> bytes:
    return tiny.content(nbformat.v4.new_notebook(cells=[new_code_cell("print('my diary')")]))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "the file is empty"),
        (b" \n", "the file is empty"),
        (b"<html>not found</html>", "it is not JSON"),
        (b"\xff\xfe\x00", "it is not JSON"),
        (b"[" * 100_000, "it is not JSON"),
        (b'{"cells": [}', "it is not JSON"),
        (b"[1, 2]", "it holds no cells"),
        (b'{"cells": 3}', "it holds no cells"),
        (b'{"nbformat": 3, "worksheets": 5}', "cannot be converted"),
        (b'{"cells": [1, {"cell_type": "odd"}, {"cell_type": "code"}]}', "another notebook"),
        (another_notebook(), "another notebook"),
    ],
    ids=lambda value: "" if isinstance(value, bytes) else value,
)
def test_what_cannot_be_graded_is_said(content: bytes, says: str, exercise: Exercise) -> None:
    with pytest.raises(Unreadable, match=says):
        repair(content, exercise)


def test_the_notebook_of_another_exercise_is_named(solved: NotebookNode, exercise: Exercise) -> None:
    text = json.dumps([exercise.master, exercise.release]).replace("add", "sub").replace("double", "halve")
    text = text.replace("why", "because")
    other = Exercise("differences", *(nbformat.from_dict(notebook) for notebook in json.loads(text)))
    with pytest.raises(Unreadable, match="the notebook of another exercise, differences"):
        repair(tiny.content(other.release), exercise, [exercise, other])
    assert repaired(solved, exercise, exercise, other)[1] == ""


def test_half_a_character_does_not_stop_the_writing(solved: NotebookNode, exercise: Exercise) -> None:
    solved.cells.append(new_code_cell("print('\ud83d')"))
    notebook, _ = repaired(solved, exercise)
    assert notebook.cells[-1].source.encode("utf-8") == b"print('?')"


@pytest.mark.parametrize("junk", [None, 5, "text", [], {"grade_id": 7}, {"grade_id": ["add"]}, {"solution": "yes"}])
def test_junk_in_the_metadata(junk: object, solved: NotebookNode, exercise: Exercise) -> None:
    raw = json.loads(tiny.content(solved))
    raw["cells"][2]["metadata"]["nbgrader"] = junk
    raw["cells"][5]["metadata"] = junk
    raw["cells"][6]["id"] = junk
    notebook, _ = repaired(json.dumps(raw).encode(), exercise)
    assert code(notebook)[1:3] == [tiny.ADD, "check_add(add)"]
