"""A learner's first minutes: open an exercise in JupyterLab, fill in a cell, run it, and see the check turn green."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from from_book import from_book
from lab import jupyterlab

pytestmark = pytest.mark.browser

ROOT = Path(__file__).resolve().parents[2]
EXERCISE = ROOT / "exercises" / "square_attack" / "square_attack.ipynb"
WRITTEN = "def stripes(x, eps, generator): return (x + eps * ({signs} * 2 - 1)).clamp(0, 1)"
LYING = "torch.randint(2, (*x.shape[:3], 1), generator=generator)"
UPRIGHT = "torch.randint(2, (*x.shape[:2], 1, x.shape[3]), generator=generator)"


def cell(page: Any, text: str) -> Any:
    return page.locator(".jp-CodeCell", has_text=text).first


def write(page: Any, into: Any, text: str) -> None:
    into.locator(".cm-content").click()
    page.keyboard.press("ControlOrMeta+a")
    page.keyboard.insert_text(text)
    page.keyboard.press("Shift+Enter")


def run(page: Any, found: Any) -> None:
    found.locator(".cm-content").click()
    page.keyboard.press("Shift+Enter")


def test_a_check_turns_green(chromium: Any, tmp_path: Path) -> None:
    shutil.copy(EXERCISE, tmp_path)
    with jupyterlab(tmp_path) as lab:
        context = chromium.new_context(viewport={"width": 1280, "height": 2400})
        page = context.new_page()
        lab.open(page, EXERCISE.name)
        run(page, cell(page, "VARIANT = 0"))
        check = cell(page, "checks.stripes(stripes")
        points = check.locator(".robustness-points")
        solution = cell(page, "def stripes(")

        run(page, solution)
        run(page, check)
        points.wait_for(timeout=60_000)
        assert points.inner_text() == "0 of 2 points"
        assert "not written yet" in check.inner_text()

        write(page, solution, WRITTEN.format(signs=LYING))
        run(page, check)
        check.get_by_text("stripes lie: one sign along each row").wait_for(timeout=20_000)
        assert points.get_attribute("data-full") == "false"
        half = points.evaluate("(element) => getComputedStyle(element).color")

        write(page, solution, WRITTEN.format(signs=UPRIGHT))
        run(page, check)
        check.get_by_text("2 of 2 points").wait_for(timeout=20_000)
        assert points.get_attribute("data-full") == "true"
        red, green, blue = (int(n) for n in points.evaluate(
            "(element) => getComputedStyle(element).color.match(/\\d+/g).slice(0, 3)"))
        assert green > red
        assert green > blue
        assert half != f"rgb({red}, {green}, {blue})"
        page.screenshot(path=tmp_path / "green.png")
        context.close()


def test_make_lab_opens_a_chapter_and_its_exercise_side_by_side(chromium: Any, tmp_path: Path) -> None:
    """From a copy, since what is open in JupyterLab may be saved."""
    for path in ("book/lab.py", "book/01_fgsm.ipynb", "exercises/fgsm_first_steps/fgsm_first_steps.ipynb"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, tmp_path / path)
    with jupyterlab(tmp_path, str(tmp_path / "book" / "lab.py")) as lab:
        context = chromium.new_context(viewport={"width": 1600, "height": 1000})
        page = context.new_page()
        page.goto(f"{lab.address}?token={lab.token}")
        titles = page.locator(".jp-NotebookPanel h1")
        titles.nth(1).wait_for(timeout=60_000)
        left, right = (titles.nth(place).bounding_box() for place in (0, 1))
        if left["x"] > right["x"]:
            left, right = right, left
        assert left["x"] + left["width"] <= right["x"]
        shown = " ".join(titles.all_inner_texts())
        assert "Exercise: first steps with FGSM" in shown
        assert "FGSM: one step" in shown
        page.screenshot(path=tmp_path / "side_by_side.png")
        context.close()
    assert list((tmp_path / "_build" / "lab").glob("course*.jupyterlab-workspace"))


def test_windows_stay_as_the_learner_left_them(tmp_path: Path) -> None:
    lab = from_book("lab")
    lab.prepare(tmp_path)
    (left,) = tmp_path.iterdir()
    left.write_text(left.read_text().replace("0.5, 0.5", "0.3, 0.7"))
    lab.prepare(tmp_path)
    assert "0.3, 0.7" in left.read_text()
    assert (ROOT / lab.CHAPTER).is_file()
    assert (ROOT / lab.EXERCISE).is_file()
