"""What is said where no terminal shows a bar: a line for each attack, and one a minute."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from moons_recipe import write_moons_recipe
from typer.testing import CliRunner

from robustness_lib.cli import _progress, app

SLOW = """
import time
import torch
from robustness_lib import models
class Slow(torch.nn.Sequential):
    def forward(self, x):
        time.sleep(0.03)
        return super().forward(x)
def make():
    return Slow(models.load_pretrained("signs-tiny-pgd"))
"""


@pytest.fixture
def slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    Path("slow.py").write_text(SLOW, encoding="utf-8")
    return ["--model", "slow.py:make", "--data", "signs", "-n", "20"]


def call(*words: str, code: int = 0):
    result = CliRunner().invoke(app, list(words))
    assert result.exit_code == code, result.output
    return result


def test_a_line_for_each_attack_and_what_stands(slow: list[str]) -> None:
    result = call("evaluate", *slow, "--threat", "linf:1/255", "--suite", "quick", "--batch-size", "10", "--json")
    assert json.loads(result.stdout)["n"] == 20
    told = [line for line in result.stderr.splitlines() if ", after " in line]
    assert [line.split(":")[0] for line in told] == ["clean", "fgsm", "pgd-20", "square probe", "done"]
    assert re.fullmatch(r"clean: 0 of 20 images, after \d+ seconds", told[0])
    assert re.fullmatch(r"pgd-20: 4 of 20 images, after \d+ seconds", told[2])
    assert re.fullmatch(r"done: 20 of 20 images, \d+ of 20 stand so far, after \d+ seconds", told[4])


def test_at_least_a_line_a_minute(slow: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_progress, "_MINUTE", 0.05)
    result = call("evaluate", *slow, "--threat", "linf:1/255", "--suite", "quick", "--batch-size", "10")
    told = [line.split(",")[0] for line in result.stderr.splitlines() if ", after " in line]
    assert told.count("pgd-20: 4 of 20 images") >= 3
    assert any(line.startswith("pgd-20: 14 of 20 images, ") and " of 10 stand so far, after " in line
               for line in result.stderr.splitlines())  # the second part, which has no line of its own


def test_check_and_train_say_that_they_go_on(slow: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_progress, "_MINUTE", 0.05)
    told = CliRunner().invoke(app, ["check", *slow]).stderr
    assert told.count("asking and attacking the model, after ") >= 2
    assert json.loads(CliRunner().invoke(app, ["check", *slow, "--json"]).stdout)
    write_moons_recipe(Path("moons.toml"), epochs=40, batch_size=8, every=40)
    trained = call("train", "moons.toml", "--out", "made", "--json")
    assert json.loads(trained.stdout)["epochs"] == 40
    assert re.search(r"^training: \d+ of 40 epochs done, after ", trained.stderr, flags=re.M)
    assert "\r" not in trained.stderr  # no bar, of which a file would keep every state


def test_the_clock_stops_with_the_work(slow: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_progress, "_MINUTE", 0.01)
    before = _progress.threading.active_count()
    call("evaluate", *slow, "--threat", "linf:1/255", "--suite", "none", code=2)
    assert _progress.threading.active_count() == before
    with _progress.lines_without_terminal("words", speaks=False) as lines:
        assert _progress.threading.active_count() == before  # not the first process
        lines.say("nothing")


@pytest.mark.parametrize(("kind", "moves"), [("xterm", True), ("dumb", False)])
def test_a_terminal_shows_the_bar_and_no_lines(slow: list[str], kind: str, moves: bool) -> None:
    mine, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", "from robustness_lib.cli import app; app()", "evaluate", *slow, "--threat",
         "linf:1/255", "--suite", "quick"], stdout=subprocess.DEVNULL, stderr=theirs,
        env=os.environ | {"OMP_NUM_THREADS": "1", "TERM": kind})
    os.close(theirs)
    said = b""
    while True:
        try:
            part = os.read(mine, 4096)
        except OSError:
            break
        if not part:
            break
        said += part
    assert process.wait(120) == 0
    assert (b", after " in said) == (not moves)
    assert ("━".encode() in said) == moves
