"""What every exercise keeps to: how it opens, how its steps are cut, where it is listed."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
import yaml
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parents[2]
NAMES = sorted(path.parent.name for path in (ROOT / "solutions").glob("*/*.ipynb"))
COLUMNS = 72
SOLUTION_LINES = 15
SOLVED = re.compile(r"### BEGIN SOLUTION\n(.*?)\n\s*### END SOLUTION", re.DOTALL)


def about(cell: NotebookNode) -> NotebookNode:
    return cell.metadata.get("nbgrader", NotebookNode())


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def cells(name: str) -> list[NotebookNode]:
    notebook = nbformat.read(ROOT / "solutions" / name / f"{name}.ipynb", as_version=4)
    nbformat.validate(notebook)
    found: list[NotebookNode] = notebook.cells
    return found


def graded(cells: list[NotebookNode]) -> list[NotebookNode]:
    return [cell for cell in cells if about(cell).get("grade")]


def test_there_are_exercises() -> None:
    assert "square_attack" in NAMES
    assert sorted(path.parent.name for path in (ROOT / "exercises").glob("*/*.ipynb")) == NAMES


def test_opens_with_difficulty_minutes_and_the_points_that_there_are(cells: list[NotebookNode]) -> None:
    first = cells[0].source
    assert first.startswith("# Exercise: ")
    said = re.search(r"\*\*Difficulty\*\* [●○]{5} · \*\*about (\d+) minutes\*\* · (\d+) points, (\d+) of them", first)
    assert said is not None
    points = sum(about(cell).points for cell in graded(cells))
    by_hand = sum(about(cell).points for cell in graded(cells) if about(cell).solution)
    assert (points, by_hand) == (int(said[2]), int(said[3]))


def test_its_first_code_says_how_to_install_and_holds_the_variant(cells: list[NotebookNode]) -> None:
    code = next(cell.source for cell in cells if cell.cell_type == "code")
    assert "robustness_lib is missing: run `pip install" in code
    assert re.search(r"^VARIANT = 0$", code, re.MULTILINE)


def test_steps_are_short_and_have_hints(cells: list[NotebookNode]) -> None:
    steps = [cell for cell in cells if about(cell).get("solution") and cell.cell_type == "code"]
    assert len(steps) >= 3
    for cell in steps:
        solved = SOLVED.findall(cell.source)
        assert len(solved) == 1, cell.id
        assert len(solved[0].splitlines()) <= SOLUTION_LINES, cell.id
        assert '"""' in cell.source.split("### BEGIN")[0], f"{cell.id} says not what it is to do"
        assert "->" in cell.source.split("### BEGIN")[0], f"{cell.id} has no types"
    hints = [cell.source for cell in cells if "<summary>Hint: " in cell.source]
    assert len(hints) >= len(steps) - 1


def test_every_step_is_checked_where_it_is_written(cells: list[NotebookNode]) -> None:
    for place, cell in enumerate(cells):
        if about(cell).get("solution") and cell.cell_type == "code":
            follower = cells[place + 1]
            assert about(follower).get("grade"), cell.id
            assert "HIDDEN" not in follower.source, f"{cell.id} has no check that the learner sees"


def test_checks_are_small_and_some_are_hidden(cells: list[NotebookNode]) -> None:
    checks = [cell for cell in graded(cells) if cell.cell_type == "code"]
    assert all(1 <= about(cell).points <= 6 for cell in checks)
    assert all(about(cell).locked for cell in checks)
    hidden = [cell for cell in checks if "### BEGIN HIDDEN TESTS\nimport hidden_checks\n" in cell.source]
    assert len(hidden) >= 3


def test_one_explanation_is_read_by_a_person(cells: list[NotebookNode]) -> None:
    words = [cell for cell in graded(cells) if cell.cell_type == "markdown"]
    assert len(words) == 1
    assert "For whoever reads it" in words[0].source


def test_shows_a_picture_and_the_marks_in_the_end(cells: list[NotebookNode]) -> None:
    assert any("with grading.once_written(" in cell.source for cell in cells)
    assert cells[-1].source == "grading.score_card()"


def test_solved_it_has_full_marks_and_a_picture(cells: list[NotebookNode]) -> None:
    """In the outputs that are saved with it."""
    for cell in graded(cells):
        if cell.cell_type == "code":
            assert float(cell.outputs[-1].data["text/plain"]) == about(cell).points, cell.id
    assert any("image/png" in output.get("data", {}) for cell in cells for output in cell.get("outputs", ()))
    assert not any(output.get("name") == "stderr" for cell in cells for output in cell.get("outputs", ()))


def test_code_fits_a_phone(cells: list[NotebookNode]) -> None:
    for cell in cells:
        if cell.cell_type == "code" and "HIDDEN" not in cell.source:
            assert all(len(line) <= COLUMNS for line in cell.source.splitlines()), cell.id


def test_it_is_listed_where_people_look(name: str) -> None:
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    pages = {page["file"]: page.get("sections", []) for part in toc["parts"] for page in part["chapters"]}
    assert [page["file"] for page in pages[f"exercises/{name}/{name}"]] == [f"solutions/{name}/{name}"]
    assert f"../exercises/{name}/{name}.ipynb" in (ROOT / "book" / "exercises.md").read_text(encoding="utf-8")
    assert f"| `{name}` |" in (ROOT / "book" / "teaching.md").read_text(encoding="utf-8")
    chapters = [path.read_text(encoding="utf-8") for path in (ROOT / "book").glob("[0-9]*.ipynb")]
    assert any(f"(../exercises/{name}/{name}.ipynb)" in text for text in chapters)
