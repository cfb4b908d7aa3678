"""A learner's first minutes: open an exercise in JupyterLab, fill in a cell, run it, and see the check turn green."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from lab import jupyterlab

pytestmark = pytest.mark.browser

EXERCISE = Path(__file__).resolve().parents[2] / "exercises" / "square_attack" / "square_attack.ipynb"
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
