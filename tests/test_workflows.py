"""The workflows: files that GitHub can read, that call what exists, and that may do no more than they must."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from made_reports import make_report

from robustness_lib.reports.report import Doubt

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
FILES = sorted((ROOT / ".github").rglob("*.yml"))
ACTION = ROOT / "action.yml"  # what others use
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
# What a run step may call besides make: on every runner, or put into .venv by a step before.
COMMANDS = {"grep", "python", "sudo", ".venv/bin/python", ".venv/bin/robustness"}
MODULES = {"pip", "build"}
WRITES = {"book.yml": {"publish": {"pages", "id-token"}}, "wheel.yml": {"publish": {"id-token"}}}

each_workflow = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)


def read(path: Path) -> dict[str, Any]:
    content: dict[Any, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return {("on" if key is True else key): value for key, value in content.items()}  # YAML 1.1 takes `on` for true


def steps(path: Path) -> Iterator[dict[str, Any]]:
    """All steps of a workflow or an action."""
    content = read(path)
    for holder in (*content.get("jobs", {}).values(), content.get("runs", {})):
        yield from holder.get("steps", ())


def scripts() -> list[Any]:
    """All run steps of all files, each as it stands."""
    return [pytest.param(step["run"], id=f"{path.stem}-{step.get('name')}")
            for path in FILES for step in steps(path) if "run" in step]


def test_there_are_the_three() -> None:
    assert {path.name for path in WORKFLOWS} == {"test.yml", "book.yml", "wheel.yml"}


@each_workflow
def test_github_finds_the_keys_that_it_needs(path: Path) -> None:
    workflow = read(path)
    assert workflow.keys() - {"concurrency"} == {"name", "on", "permissions", "jobs"}
    assert set(workflow["on"]) <= {"push", "pull_request", "workflow_dispatch"}
    for name, job in workflow["jobs"].items():
        assert {"runs-on", "timeout-minutes", "steps"} <= job.keys(), name
        assert job.get("needs", name) in workflow["jobs"]


@pytest.mark.parametrize("path", [*FILES, ACTION], ids=lambda path: path.stem)
def test_every_step_runs_or_uses_something_that_exists(path: Path) -> None:
    assert list(steps(path))
    for step in steps(path):
        assert ("run" in step) != ("uses" in step), step
        used = step.get("uses", "a/b@v1")
        if used.startswith("./"):
            inputs = read(ROOT / used / "action.yml")["inputs"]
            assert step.get("with", {}).keys() <= inputs.keys()
        else:
            assert re.fullmatch(r"[\w-]+/[\w-]+(/[\w-]+)?@(v\d+|release/v\d+)", used), f"no version: {used}"


@pytest.mark.parametrize("script", scripts())
def test_every_command_is_one_that_exists(script: str) -> None:
    assert subprocess.run(["bash", "-n"], input=script, text=True).returncode == 0
    targets = set(re.findall(r"^([a-z]+):", MAKEFILE, flags=re.MULTILINE))
    for line in script.splitlines():
        command, *words = shlex.split(line)
        if command == "make":
            assert words[0] in targets
            assert words[1:] in ([], ["PYTHON=python"])
            continue
        assert command in COMMANDS, line
        if words[0] == "-m":
            assert words[1] in MODULES, line
        files = [word for word in words if re.fullmatch(r"[\w./-]+\.(py|toml|yml)", word)]
        assert all((ROOT / word).is_file() for word in files), line


def test_the_pythons_are_those_that_the_project_takes() -> None:
    oldest = PROJECT["requires-python"].removeprefix(">=")
    tested = read(ROOT / ".github/workflows/test.yml")["jobs"]["test"]["strategy"]["matrix"]["python"]
    default = read(ROOT / ".github/actions/python/action.yml")["inputs"]["python"]["default"]
    assert tested[0] == oldest
    for version in (*tested, default):
        assert isinstance(version, str), "without quotes 3.10 would be 3.1"
        assert [int(part) for part in version.split(".")] >= [int(part) for part in oldest.split(".")]


@each_workflow
def test_nothing_may_do_more_than_it_must(path: Path) -> None:
    workflow = read(path)
    assert workflow["permissions"] == {"contents": "read"}
    for name, job in workflow["jobs"].items():
        may = WRITES.get(path.name, {}).get(name, set())
        assert job.get("permissions", {}) == dict.fromkeys(may, "write"), name
        if may:  # with such a right, nothing of the repository is run
            assert not any("run" in step or step["uses"].startswith("./") for step in job["steps"])
    assert "secrets." not in path.read_text(encoding="utf-8")


def test_what_is_published_was_built_and_tried_before() -> None:
    wheel, book = (read(ROOT / ".github/workflows" / name)["jobs"] for name in ("wheel.yml", "book.yml"))
    assert (wheel["publish"]["needs"], book["publish"]["needs"]) == ("build", "build")
    assert wheel["publish"]["if"] == "github.ref_type == 'tag'"


def test_no_host_is_named() -> None:
    for path in (*FILES, ACTION):
        assert "://" not in path.read_text(encoding="utf-8"), path.name


# The action that others use.

needs_bash = pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")


def action_step(name: str) -> dict[str, Any]:
    (step,) = [step for step in steps(ACTION) if step.get("name") == name]
    return step


def run_step(name: str, folder: Path, command: str, **given: str) -> subprocess.CompletedProcess[str]:
    """A step of the action as the runner runs it, with these inputs; `command` is what `robustness` does."""
    inputs = {key: str(value.get("default", "")) for key, value in read(ACTION)["inputs"].items()}
    inputs |= {key.replace("_", "-"): value for key, value in given.items()}
    step = action_step(name)
    environment = {key: re.sub(r"\$\{\{ inputs\.([\w-]+) \}\}", lambda found: inputs[found[1]], value)
                   for key, value in step["env"].items()}
    (folder / "bin").mkdir(exist_ok=True)
    (folder / "bin" / "robustness").write_text(f"#!/bin/sh\n{command}\n", encoding="utf-8")
    (folder / "bin" / "robustness").chmod(0o755)
    environment |= {"PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
                    "GITHUB_OUTPUT": str(folder / "output"), "GITHUB_STEP_SUMMARY": str(folder / "summary.md")}
    return subprocess.run(["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "-c", step["run"]], cwd=folder,
                          env=os.environ | environment, capture_output=True, text=True, timeout=120)


def outputs(folder: Path) -> dict[str, str]:
    return dict(line.split("=", 1) for line in (folder / "output").read_text(encoding="utf-8").splitlines())


def test_the_action_has_what_a_composite_action_needs() -> None:
    action = read(ACTION)
    assert {"name", "description", "inputs", "outputs", "runs"} == action.keys()
    assert action["runs"]["using"] == "composite"
    used = set(re.findall(r"inputs\.([\w-]+)", ACTION.read_text(encoding="utf-8")))
    assert used == action["inputs"].keys()
    assert all("description" in entry and isinstance(entry["default"], str) for entry in action["inputs"].values())
    for step in steps(ACTION):
        if "run" in step:
            assert step["shell"] == "bash"
            assert "${{" not in step["run"], "an input in a script could be a command"
            assert subprocess.run(["bash", "-n"], input=step["run"], text=True).returncode == 0
    names = set(re.findall(r"steps\.gate\.outputs\.([\w-]+)", ACTION.read_text(encoding="utf-8")))
    assert all(f"{name}=" in action_step("Gate")["run"] for name in names)


@needs_bash
@pytest.mark.parametrize(("code", "job", "outcome"), [(0, 0, "pass"), (1, 1, "fail"), (2, 2, None),
                                                      (3, 0, "undecided")])
def test_the_action_ends_as_the_verdict_says(tmp_path: Path, code: int, job: int, outcome: str | None) -> None:
    ended = run_step("Gate", tmp_path, f"echo 'The gate, one sentence.'; echo more; exit {code}", min_robust="45")
    assert ended.returncode == job, ended.stderr
    assert ("::warning::" in ended.stdout) == (code == 3)
    found = outputs(tmp_path)
    assert found["page"] == "run/report.html"
    assert (found.get("outcome"), found.get("sentence")) == (
        (outcome, "The gate, one sentence.") if outcome else (None, None))


@needs_bash
def test_the_action_hands_every_limit_on(tmp_path: Path) -> None:
    record = 'printf "%s\\n" "$@" > arguments'
    everything = {"report": "a b.json", "baseline": "main $(x).json", "max_drop": "2.0", "max_clean_drop": "3",
                  "min_robust": "45", "min_class": "20", "min_clean": "60", "strict": "true",
                  "allow_findings": "true", "junit": "gate.xml"}
    assert run_step("Gate", tmp_path, record, **everything).returncode == 0
    assert (tmp_path / "arguments").read_text(encoding="utf-8").splitlines() == [
        "gate", "a b.json", "--baseline", "main $(x).json", "--max-drop", "2.0", "--max-clean-drop", "3",
        "--min-robust", "45", "--min-class", "20", "--min-clean", "60", "--junit", "gate.xml", "--strict",
        "--allow-findings", "--markdown", str(tmp_path / "summary.md")]
    assert run_step("Gate", tmp_path, record, min_robust="0").returncode == 0
    assert (tmp_path / "arguments").read_text(encoding="utf-8").splitlines()[:4] == [
        "gate", "run/report.json", "--min-robust", "0"]


@needs_bash
def test_the_action_evaluates_first_where_a_model_is_given(tmp_path: Path) -> None:
    record = 'printf "%s\\n" "$@" > arguments; exit 3'
    given = {"model": "m.py:make", "weights": "w 1.pt", "data": "val.npz", "threat": "linf:8/255"}
    assert run_step("Evaluate", tmp_path, record, **given).returncode == 0
    words = (tmp_path / "arguments").read_text(encoding="utf-8").splitlines()
    assert words == ["evaluate", "--model", "m.py:make", "--weights", "w 1.pt", "--data", "val.npz", "--threat",
                     "linf:8/255", "--state", ".robustness-state", "--out", "run", "--force", "-n", "1000"]
    assert run_step("Evaluate", tmp_path, "exit 2", **given).returncode == 2


@needs_bash
def test_the_action_judges_the_report_that_it_has_made_whatever_its_name(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.json").write_text("of another day", encoding="utf-8")
    given = {"model": "m.py:make", "data": "val.npz", "threat": "linf:8/255", "report": "out/a.json"}
    assert run_step("Evaluate", tmp_path, "echo new > out/report.json", **given).returncode == 0
    assert (tmp_path / "out" / "a.json").read_text(encoding="utf-8") == "new\n"


@needs_bash
def test_the_action_fails_where_there_is_no_verdict(tmp_path: Path) -> None:
    """Too few images is a warning; a model that could not be evaluated is none."""
    command = f"exec '{sys.executable}' -c 'from robustness_lib.cli import app; app()' \"$@\""
    void = make_report(200, broken={"pgd": []}, findings=None, doubts=(Doubt("not followed", "200 of 200 stand."),))
    void.save(tmp_path / "run" / "report.json")
    ended = run_step("Gate", tmp_path, command, min_robust="45")
    assert ended.returncode == 3, ended.stderr
    assert "::error::robustness not evaluated" in ended.stdout
    assert outputs(tmp_path)["outcome"] == "undecided"


@needs_bash
def test_the_action_with_the_real_gate(tmp_path: Path) -> None:
    command = f"exec '{sys.executable}' -c 'from robustness_lib.cli import app; app()' \"$@\""
    make_report(200, broken={"pgd": range(180)}, findings=None).save(tmp_path / "run" / "report.json")
    ended = run_step("Gate", tmp_path, command, min_robust="45", min_clean="50", junit="gate.xml")
    assert ended.returncode == 1, ended.stderr
    assert outputs(tmp_path) == {"page": "run/report.html", "outcome": "fail", "exit-code": "1",
                                 "sentence": "The gate fails: min_robust. (exit code 1)"}
    assert "Robustness: fail" in (tmp_path / "summary.md").read_text(encoding="utf-8")
    assert (tmp_path / "gate.xml").is_file()
