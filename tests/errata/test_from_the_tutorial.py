"""The page for those who come from a tutorial: every name has its section, run in both ways and compared."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode

PAGE = Path(__file__).resolve().parents[2] / "book" / "from_the_tutorial.ipynb"
CELLS = nbformat.read(PAGE, as_version=4).cells
# The names of the tutorial; whether there is a function of that name, or an argument.
FUNCTIONS = ("attack_with_restarts", "targeted_attack", "train_step", "certify", "certified_accuracy",
             "robustness_curve")
ARGUMENTS = ("epsilon", "alpha", "num_iter", "kappa", "c")


def anchor(name: str) -> str:
    return "tutorial-" + name.replace("_", "-")


def sections() -> dict[str, list[NotebookNode]]:
    """The code cells of the page under each anchor."""
    found: dict[str, list[NotebookNode]] = {}
    here: list[NotebookNode] = []
    for cell in CELLS:
        if cell.cell_type == "markdown":
            for name in re.findall(r"^\((.+)\)=$", cell.source, flags=re.M):
                assert name not in found, f"two anchors are called {name}"
                here = found[name] = []
        else:
            here.append(cell)
    return found


def calls() -> dict[str, str]:
    """The table at the head of the page, as its cell writes it."""
    (cell,) = [cell for cell in CELLS if cell.source.startswith("# What each name is here.")]
    return ast.literal_eval(next(node.value for node in ast.walk(ast.parse(cell.source))
                                 if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict)))


@pytest.mark.parametrize("name", [*FUNCTIONS, *ARGUMENTS])
def test_each_name_has_a_section_that_compares(name: str) -> None:
    cells = sections()[anchor(name)]
    said = [output.get("data", {}).get("text/plain", "") for cell in cells for output in cell.outputs]
    assert any(text.startswith("checked: ") for text in said)


@pytest.mark.parametrize("name", [*FUNCTIONS, *ARGUMENTS])
def test_the_call_in_the_table_is_run_in_its_section(name: str) -> None:
    visible = [cell.source for cell in sections()[anchor(name)] if not cell.metadata.get("tags")]
    assert any(calls()[name] in source for source in visible)


def test_the_table_has_these_names_and_no_others() -> None:
    assert sorted(calls()) == sorted([*FUNCTIONS, *ARGUMENTS])
    (shown,) = [output.data["text/markdown"] for cell in CELLS for output in cell.get("outputs", ())
                if "text/markdown" in output.get("data", {})]
    assert re.findall(r"\(#(.+?)\)", shown) == [anchor(name) for name in calls()]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_tutorials_function_is_written_in_its_section_and_called(name: str) -> None:
    own, run = [], []
    for cell in sections()[anchor(name)]:
        nodes = list(ast.walk(ast.parse(cell.source)))
        own += [node.name for node in nodes if isinstance(node, ast.FunctionDef)]
        run += [node.func.id for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    assert name in own
    assert name in run


@pytest.mark.parametrize("name", ARGUMENTS)
def test_the_tutorials_argument_is_one_of_its_functions(name: str) -> None:
    arguments = {argument.arg for cell in CELLS if cell.cell_type == "code" for node in ast.walk(ast.parse(cell.source))
                 if isinstance(node, ast.FunctionDef) for argument in node.args.args}
    assert name in arguments
