"""The real command behind a reader that stops reading, with a closed output, and on a full disk."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from made_reports import make_report
from moons_recipe import write_moons_recipe

from robustness_lib.reports.report import Report

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
COMMAND = "from robustness_lib.cli import app; app()"
NET = ["--model", "zoo:signs-tiny-pgd", "--data", "signs", "-n", "20"]


def shell(script: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run in bash with pipefail, where `robustness` is this package's command."""
    command = folder / "bin" / "robustness"
    command.parent.mkdir(exist_ok=True)
    command.write_text(f"#!/bin/sh\nexec '{sys.executable}' -c '{COMMAND}' \"$@\"\n", encoding="utf-8")
    command.chmod(0o755)
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {script}"], cwd=folder, capture_output=True, text=True, timeout=240,
        env=os.environ | {"PATH": f"{command.parent}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1",
                          "COLUMNS": "100", **environment})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Reports of which `good.json` passes a floor of 45 % and `bad.json` fails it, and a recipe."""
    make_report(200, broken={"pgd": []}).save(tmp_path / "good.json")
    make_report(200, broken={"pgd": range(180)}).save(tmp_path / "bad.json")
    write_moons_recipe(tmp_path / "moons.toml", epochs=1)
    return tmp_path


def quiet(ended: subprocess.CompletedProcess[str]) -> bool:
    return not any(word in ended.stderr for word in ("Broken pipe", "Traceback", "Exception", "Errno"))


@pytest.mark.parametrize("reader", ["| head -1", "| grep -q passes", "| true", ">&-", "2>&1 | true", ">&- 2>&-"])
def test_the_gate_ends_with_its_verdict_and_writes_its_files(folder: Path, reader: str) -> None:
    ended = shell(f"robustness gate good.json --min-robust 45 --markdown s.md {reader}", folder)
    assert (ended.returncode, quiet(ended)) == (0, True), ended.stderr
    assert "Robustness: pass" in (folder / "s.md").read_text(encoding="utf-8")
    ended = shell(f"robustness gate bad.json --min-robust 45 --markdown t.md --json {reader.replace('passes', 'a')}",
                  folder)
    assert (ended.returncode, quiet(ended)) == (1, True), ended.stderr
    assert "Robustness: fail" in (folder / "t.md").read_text(encoding="utf-8")


def test_without_a_buffer_too(folder: Path) -> None:
    ended = shell("robustness gate bad.json --min-robust 45 | true", folder, PYTHONUNBUFFERED="1")
    assert (ended.returncode, quiet(ended)) == (1, True), ended.stderr


@pytest.mark.parametrize("command", [
    "compare bad.json good.json", "compare bad.json good.json --json", "track good.json --history h.jsonl",
    "track good.json --history h.jsonl --json", "zoo list", "zoo list --json", "zoo show signs-pgd", "data list",
    "train --list", "train --example", "--help", "gate --help",
])
def test_what_only_prints_ends_with_0(folder: Path, command: str) -> None:
    ended = shell(f"robustness {command} | true", folder)
    assert (ended.returncode, quiet(ended)) == (0, True), ended.stderr


def test_the_history_is_written_first(folder: Path) -> None:
    assert shell("robustness track good.json --history h.jsonl | true", folder).returncode == 0
    assert (folder / "h.jsonl").is_file()
    assert (folder / "h.html").is_file()


@pytest.mark.parametrize("reader", ["| true", "2>&1 | true", ">&- 2>&-"])
def test_a_run_outlives_its_reader(folder: Path, reader: str) -> None:
    ended = shell(f"robustness evaluate {' '.join(NET)} --threat linf:4/255 --suite quick --json {reader}", folder)
    assert (ended.returncode, quiet(ended)) == (0, True), ended.stderr
    assert Report.load(folder / "run" / "report.json").n == 20


def test_a_training_and_a_look_outlive_theirs(folder: Path) -> None:
    ended = shell("robustness train moons.toml --out made 2>&1 | true", folder)
    assert (ended.returncode, quiet(ended)) == (0, True), ended.stderr
    assert (folder / "made" / "kept.safetensors").is_file()
    assert shell(f"robustness check {' '.join(NET)} 2>&1 | true", folder).returncode == 0
    assert shell("robustness check --model zoo:none --data signs 2>&1 | true", folder).returncode == 2


def test_the_doctor_outlives_its_reader(folder: Path) -> None:
    whole = shell("robustness doctor", folder, ROBUSTNESS_DATA="")
    assert shell("robustness doctor | head -1", folder, ROBUSTNESS_DATA="").returncode == whole.returncode
    ended = shell(f"'{sys.executable}' -m robustness_lib.doctor | true", folder, ROBUSTNESS_DATA="")
    assert (ended.returncode, quiet(ended)) == (whole.returncode, True), ended.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_an_error_of_one_line(folder: Path) -> None:
    ended = shell("robustness gate good.json --min-robust 45 --markdown s.md > /dev/full", folder)
    assert (ended.returncode, ended.stderr) == (
        2, "standard output: No space left on device, so the answer there is not whole\n")
    assert (folder / "s.md").is_file()
    ended = shell("robustness zoo list --json > /dev/full", folder)
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)
    ended = shell(f"robustness evaluate {' '.join(NET)} --threat linf:4/255 --suite quick --json 2> /dev/full", folder)
    assert (ended.returncode, json.loads(ended.stdout)["n"]) == (0, 20)  # what it says on the way may be lost
