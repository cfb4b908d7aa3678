"""Answers to the exercises, and how they are marked here: in this process, by the checks that nbgrader runs."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

SOLUTIONS = Path(__file__).resolve().parents[2] / "solutions"


@dataclass(frozen=True)
class Wrong:
    """A wrong answer that people give, to a step, with words of the remark that must name the mistake.

    hidden: the mistake is one that only the checks in grading can see.
    """

    step: str
    words: str
    answer: Callable[..., Any]
    hidden: bool = False

    @property
    def name(self) -> str:
        return f"{self.step}-{self.answer.__name__}"


def notebook_cells(exercise: str) -> list[dict[str, Any]]:
    cells: list[dict[str, Any]] = json.loads((SOLUTIONS / exercise / f"{exercise}.ipynb").read_text("utf-8"))["cells"]
    return [cell | {"source": "".join(cell["source"])} for cell in cells]


def solved(exercise: str) -> dict[str, Any]:
    """The names that the solution notebook defines: its first cell and its solution cells, executed."""
    names: dict[str, Any] = {}
    for cell in notebook_cells(exercise):
        about = cell["metadata"].get("nbgrader", {})
        if cell["cell_type"] == "code" and (cell["id"] == "setup" or about.get("solution")):
            exec(compile(cell["source"], f"{exercise}: {cell['id']}", "exec"), names)
    return names


def hidden_checks(exercise: str, source: Path = SOLUTIONS) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"hidden_{exercise}", source / exercise / "hidden_checks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def marked(check: Callable[..., Any], *answers: Any, **tried_on: Any) -> tuple[float, float, str]:
    """Points, of how many, and what the learner reads."""
    with contextlib.redirect_stdout(io.StringIO()) as said:
        points = check(*answers, **tried_on)
    return float(points), points.of, said.getvalue()


def graded_cells(exercise: str) -> Iterator[tuple[str, str, float]]:
    """Id, source and points of each cell that is graded without a person."""
    for cell in notebook_cells(exercise):
        about = cell["metadata"].get("nbgrader", {})
        if about.get("grade") and not about["solution"]:
            yield cell["id"], cell["source"], about["points"]


def run_graded(exercise: str, names: dict[str, Any]) -> dict[str, tuple[float, float]]:
    """Run each graded cell over these names, as nbgrader does: points by cell, and of how many."""
    import sys

    sys.modules["hidden_checks"] = hidden_checks(exercise)
    found = {}
    try:
        for cell, source, points in graded_cells(exercise):
            body = source.splitlines()
            last = max(i for i, line in enumerate(body) if line.strip() and not line.startswith("#"))
            with contextlib.redirect_stdout(io.StringIO()):
                exec("\n".join(body[:last]), names)
                found[cell] = float(eval(body[last], names)), points
    finally:
        del sys.modules["hidden_checks"]
    return found
