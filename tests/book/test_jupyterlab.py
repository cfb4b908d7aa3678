"""The same widgets in a real JupyterLab, with a kernel."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest

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
def lab(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """Address and token of a JupyterLab that keeps everything it writes in a temporary folder."""
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(text) for text in (CELL, SLIDER, LIVE, VOTES)],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
    )
    nbformat.write(notebook, tmp_path / "widgets.ipynb")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex(16)
    folders = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTERLAB_SETTINGS_DIR",
               "JUPYTERLAB_WORKSPACES_DIR", "IPYTHONDIR")
    environment = {**os.environ, **{name: str(tmp_path / "jupyter" / name) for name in folders}}
    log = (tmp_path / "lab.log").open("w")
    server = subprocess.Popen(
        [sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", f"--port={port}", "--allow-root",
         f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={tmp_path}",
         "--LabApp.news_url=", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"],
        env=environment, cwd=tmp_path, stdout=log, stderr=subprocess.STDOUT,
    )
    address = f"http://127.0.0.1:{port}/"
    try:
        until(lambda: api(address, token, "status") is not None, 60, "JupyterLab did not start")
        yield address, token
    finally:
        server.terminate()
        server.wait(20)
        log.close()


def api(address: str, token: str, what: str) -> Any:
    try:
        with urllib.request.urlopen(f"{address}api/{what}?token={token}", timeout=5) as reply:
            return json.load(reply)
    except OSError:
        return None


def until(true: Any, seconds: float, otherwise: str) -> None:
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            pytest.fail(otherwise)
        time.sleep(0.3)


def kernel_is_idle(address: str, token: str) -> bool:
    sessions = api(address, token, "sessions") or []
    return any(s["kernel"]["execution_state"] == "idle" and s["kernel"]["connections"] > 0 for s in sessions)


def test_the_widgets_move_in_jupyterlab(chromium: Any, lab: tuple[str, str]) -> None:
    address, token = lab
    context = chromium.new_context(viewport={"width": 1280, "height": 1600})
    page = context.new_page()
    page.goto(f"{address}lab/tree/widgets.ipynb?token={token}")
    # "Run All" before the kernel is up would open a dialog instead.
    until(lambda: kernel_is_idle(address, token), 90, "the kernel did not start")
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
