"""A teacher's own exercise, kept back: released and graded by the same commands, and no page of the book."""

from __future__ import annotations

import csv
import importlib.util
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import grade
import nbformat
import pytest
import release
import torch
from isolation import without_network
from torch import Tensor

ROOT = Path(__file__).resolve().parents[2]
COURSE = ROOT / "solutions" / "my_course"
ALLOWED = [] if without_network() is not None else ["--allow-network"]
BALL = "ball"


@pytest.fixture(scope="module")
def checks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("l2_ball_checks", COURSE / "l2_ball" / "checks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def solution(name: str) -> str:
    notebook = nbformat.read(COURSE / "l2_ball" / "l2_ball.ipynb", as_version=4)
    return str(next(cell.source for cell in notebook.cells if cell.id == name))


def test_it_is_released_and_graded_like_the_others(tmp_path: Path) -> None:
    assert release.main(["--source", str(COURSE), "--variant", "7", "--to", str(tmp_path / "release")]) == 0
    given = tmp_path / "release" / "l2_ball"
    assert sorted(path.name for path in given.iterdir()) == ["checks.py", "l2_ball.ipynb"]
    text = (given / "l2_ball.ipynb").read_text(encoding="utf-8")
    assert "VARIANT = 7" in text
    for student, solved in {"full": ("lengths", BALL), "half": ("lengths",), "unsolved": ()}.items():
        notebook = nbformat.read(given / "l2_ball.ipynb", as_version=4)
        for cell in notebook.cells:
            cell.source = solution(cell.id) if cell.id in solved else cell.source
            cell.source = "No: x is in the box." if cell.id == "words" and solved else cell.source
        (tmp_path / "in" / student).mkdir(parents=True)
        nbformat.write(notebook, tmp_path / "in" / student / "l2_ball.ipynb")
    called = [str(tmp_path / "in"), "--source", str(COURSE), "--variant", "7", "--out", str(tmp_path / "out"), *ALLOWED]
    assert grade.main(called) == 0
    with (tmp_path / "out/grades.csv").open(newline="") as file:
        rows = {row["student"]: (row["points"], row["of"], row["open"]) for row in csv.DictReader(file)}
    assert rows == {"full": ("7", "9", "2"), "half": ("3", "9", "2"), "unsolved": ("0", "9", "0")}


WRONG: dict[str, tuple[str, Callable[..., object], str]] = {
    "one for the batch": ("lengths", lambda d: d.norm(), "one number for each"),
    "L1": ("lengths", lambda d: d.flatten(1).abs().sum(1), "root of the sum"),
    "of each channel": ("lengths", lambda d: d.flatten(2).norm(dim=2), "one number for each"),
    "pixel by pixel": ("into_ball", lambda a, x, e: x + (a - x).clamp(-e, e), "leaves the ball"),
    "always onto the sphere": ("into_ball", lambda a, x, e: x + e * unit(a - x, 1e-9), "in the ball already"),
    "divided by zero": ("into_ball", lambda a, x, e: x + e * unit(a - x, 0), "NaN"),
    "by the batch's length": ("into_ball", lambda a, x, e: x + (a - x) * min(1, e / float((a - x).norm())), "already"),
    "back to the start": ("into_ball", lambda a, x, e: torch.where(within(a - x, e), a, x), "not to the nearest"),
}


def unit(change: Tensor, least: float) -> Tensor:
    return change / change.flatten(1).norm(dim=1).clamp(min=least).reshape(-1, 1, 1, 1)


def within(change: Tensor, eps: float) -> Tensor:
    return (change.flatten(1).norm(dim=1) <= eps).reshape(-1, 1, 1, 1)


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_answer_loses_marks_with_words(
    name: str, checks: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    step, mine, says = WRONG[name]
    points = getattr(checks, step)(mine)
    assert points < points.of
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("✗")]
    assert any(says in line for line in said), said


def test_it_is_no_page_of_the_book() -> None:
    assert "my_course" not in (ROOT / "_toc.yml").read_text(encoding="utf-8")
    assert "only_build_toc_files: true" in (ROOT / "_config.yml").read_text(encoding="utf-8")
    assert not (ROOT / "exercises" / "l2_ball").exists()


def test_the_check_on_the_teachers_page_works() -> None:
    page = (ROOT / "book" / "teaching.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    doubles = names["doubles"]
    assert doubles(lambda n: 2 * n) == 2
    assert doubles(lambda n: n + 1) == 1
    assert doubles.in_grading(lambda n: 2 * n, numbers=(3, 8), points=1) == 1
    assert doubles.in_grading(lambda n: n + 1, numbers=(3, 8), points=1) == 0
