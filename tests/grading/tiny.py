"""A tiny exercise in two steps, without torch: 1 + 2 + 1 + 2 points by checks, 2 by hand; and ways to break it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

CHECKS = '''
"""Checks that students get too."""


def report(points, name, right):
    """Print a finding for each case, and give all points if every one is right."""
    good = True
    for case in right:
        try:
            fine = bool(case())
        except Exception as error:
            fine = False
            print(f"✗ {name} raises {type(error).__name__}")
        else:
            print(f"✓ {name} is right" if fine else f"✗ {name} is wrong by 0.25")
        good = good and fine
    return float(points) if good else 0.0


def check_add(add):
    return report(1, "add", [lambda: add(2, 3) == 5])


def check_double(double):
    return report(1, "double", [lambda: double(2) == 4])
'''

HIDDEN = '''
"""Checks that students do not get."""

from checks import report


def check_add(add, variant):
    return report(2, "add", [lambda: add(-1, 1) == 0, lambda: add(variant, 1) == variant + 1])


def check_double(double):
    return report(2, "double", [lambda: double(-3) == -6])
'''

SOLUTIONS = {
    "add": "def add(a, b):\n    ### BEGIN SOLUTION\n    return a + b\n    ### END SOLUTION",
    "double": "### BEGIN SOLUTION\ndef double(a):\n    return add(a, a)\n### END SOLUTION",
}
ADD = "def add(a, b):\n    return a + b"
DOUBLE = "def double(a):\n    return add(a, a)"
WHY = "Because a sum has two terms."


def marked(cell: NotebookNode, grade_id: str, points: float | None = None, solution: bool = False) -> NotebookNode:
    """Give a cell an id and nbgrader's entry."""
    cell.id = grade_id.replace("_", "-")
    entry = {"grade_id": grade_id, "grade": points is not None, "solution": solution, "locked": not solution,
             "schema_version": 3, "task": False, "cell_type": cell.cell_type}  # fmt: skip
    cell.metadata.nbgrader = entry if points is None else {**entry, "points": points}
    return cell


def hidden(call: str) -> str:
    return f"### BEGIN HIDDEN TESTS\nimport hidden_checks\n\nhidden_checks.{call}\n### END HIDDEN TESTS"


def master() -> NotebookNode:
    cells = [
        new_markdown_cell("# Sums", id="title"),
        new_code_cell("VARIANT = 0\nfrom checks import check_add, check_double", id="setup"),
        marked(new_code_cell(SOLUTIONS["add"]), "add", solution=True),
        marked(new_code_cell("check_add(add)"), "check_add", 1),
        marked(new_code_cell(hidden("check_add(add, VARIANT)")), "hidden_add", 2),
        new_markdown_cell("Now twice as much.", id="text"),
        marked(new_code_cell(SOLUTIONS["double"]), "double", solution=True),
        marked(new_code_cell("check_double(double)"), "check_double", 1),
        marked(new_code_cell(hidden("check_double(double)")), "hidden_double", 2),
        marked(new_markdown_cell(WHY), "why", 2, solution=True),
    ]
    notebook = new_notebook(cells=cells)
    notebook.metadata.kernelspec = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return notebook


def write_source(folder: Path, name: str = "sums") -> Path:
    """Write the teacher's version below a folder, as solutions/NAME would be."""
    (folder / name).mkdir(parents=True)
    nbformat.write(master(), folder / name / f"{name}.ipynb")
    (folder / name / "checks.py").write_text(CHECKS, encoding="utf-8")
    (folder / name / "hidden_checks.py").write_text(HIDDEN, encoding="utf-8")
    return folder


def cell(notebook: NotebookNode, grade_id: str) -> NotebookNode:
    return next(c for c in notebook.cells if c.metadata.get("nbgrader", {}).get("grade_id") == grade_id)


def place(notebook: NotebookNode, grade_id: str) -> int:
    return notebook.cells.index(cell(notebook, grade_id))


def copied(notebook: NotebookNode, grade_id: str, new_id: str = "copied") -> NotebookNode:
    """A copy of a cell as JupyterLab makes it: nbgrader's entry stays, the id is new."""
    copy = nbformat.from_dict(json.loads(json.dumps(cell(notebook, grade_id))))
    copy.id = new_id
    return copy


def solved(release: NotebookNode) -> NotebookNode:
    """What a good student hands in."""
    notebook = nbformat.from_dict(json.loads(json.dumps(release)))
    cell(notebook, "add").source, cell(notebook, "double").source = ADD, DOUBLE
    cell(notebook, "why").source = "There are two terms."
    return notebook


def content(notebook: Any) -> bytes:
    return json.dumps(notebook).encode()


def hand_in(folder: Path, student: str, handed_in: NotebookNode | bytes, name: str = "sums") -> None:
    path = folder / student / name / f"{name}.ipynb"
    path.parent.mkdir(parents=True)
    path.write_bytes(handed_in if isinstance(handed_in, bytes) else content(handed_in))
