"""The workflows: files that GitHub can read, that call what exists, and that may do no more than they must."""

from __future__ import annotations

import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
FILES = sorted((ROOT / ".github").rglob("*.yml"))
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


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_step_runs_or_uses_something_that_exists(path: Path) -> None:
    assert list(steps(path))
    for step in steps(path):
        assert ("run" in step) != ("uses" in step), step
        used = step.get("uses", "a/b@v1")
        if used.startswith("./"):
            inputs = read(ROOT / used / "action.yml")["inputs"]
            assert step.get("with", {}).keys() <= inputs.keys()
        else:
            assert re.fullmatch(r"[\w-]+/[\w-]+@(v\d+|release/v\d+)", used), f"no version: {used}"


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
    for path in FILES:
        assert "://" not in path.read_text(encoding="utf-8"), path.name
