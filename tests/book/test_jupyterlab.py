"""The same widgets in a real JupyterLab, with a kernel."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from lab import Lab, jupyterlab

pytestmark = pytest.mark.browser

CELL = """
import torch
from torch import nn
from robustness_lib import ThreatModel, widgets
from robustness_lib.attacks import PGD
torch.manual_seed(0)
model = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(100, 5)).eval()
x = torch.rand(2, 3, 12, 12)
"""
SLIDER = """
attack = PGD(ThreatModel("linf", 8/255), steps=2)
widgets.epsilon_slider(model, x[0], 0, attack, [0, 4/255, 8/255, 16/255])
"""
LIVE = """widgets.live_attack({"one": model, "two": model}, x, labels=[0, 1])"""
VOTES = """widgets.smoothing_votes()"""
PICTURE = "() => [...document.querySelectorAll('.epsilon-picture')].filter((i) => i.offsetParent)[2]?.src"


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(text) for text in (CELL, SLIDER, LIVE, VOTES)],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
    )
    nbformat.write(notebook, tmp_path / "widgets.ipynb")
    with jupyterlab(tmp_path) as lab:
        yield lab


def test_the_widgets_move_in_jupyterlab(chromium: Any, lab: Lab) -> None:
    context = chromium.new_context(viewport={"width": 1280, "height": 1600})
    page = context.new_page()
    lab.open(page, "widgets.ipynb")
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_text("Run All Cells", exact=True).click()
    page.wait_for_selector(".epsilon-slider .noUi-handle", timeout=90_000)
    page.wait_for_selector(".live-attack", timeout=60_000)

    clean = page.evaluate(PICTURE)
    page.locator(".epsilon-slider .noUi-handle").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.wait_for_function(f"(clean) => ({PICTURE})() !== clean", arg=clean, timeout=10_000)

    canvas = "document.querySelectorAll('.live-attack figure canvas')[2].toDataURL()"
    before = page.evaluate(canvas)
    page.locator(".live-attack input[type=range]").focus()
    for _ in range(8):
        page.keyboard.press("ArrowRight")
    assert page.evaluate(canvas) != before

    point = page.locator(".smoothing-votes canvas")
    point.scroll_into_view_if_needed()
    point.focus()
    page.keyboard.press("ArrowUp")
    assert "is 0.50 across and 0.67 up" in page.locator(".smoothing-votes [role=status]").inner_text()
    page.get_by_role("button", name="Skip").click()
    assert "All 1,000 votes are in" in page.locator(".smoothing-votes [role=status]").inner_text()
    context.close()
