"""The runner: it counts rightly, runs every part, and fails when a part does."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import TextIO

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

SCRIPT = Path(__file__).parent / "run_all.py"


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """run_all.py, loaded, with an empty folder in place of the repository."""
    spec = importlib.util.spec_from_file_location("run_all", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "run_all", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # main sets it, and this puts it back
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # the plugins take seconds to load
    return module


TESTS = """
import pytest
def test_good(): pass
def test_bad(): assert False
def test_needs_a_mac(): pytest.skip('needs a mac')
def test_needs_a_mac_too(): pytest.skip('needs a mac')
@pytest.mark.xfail(reason='not yet')
def test_known(): assert False
@pytest.fixture
def broken(): raise OSError
def test_error(broken): pass
"""


def test_every_kind_of_result_is_counted(runner: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "test_some.py").write_text(TESTS)
    outcome = runner.pytest(sys.stdout, ".")
    assert (outcome.passed, outcome.failed) == (1, 2)
    assert outcome.failures[0] == "test_some::test_bad: assert False"
    assert outcome.failures[1].startswith("test_some::test_error: ")
    assert outcome.skipped == Counter({"needs a mac": 2, "not yet": 1})
    assert str(outcome) == "1 passed, 2 failed, 3 skipped"
    assert {name for _, name in outcome.seconds} >= {"test_some::test_good", "test_some::test_bad"}
    assert len(outcome.seconds) == 6


@pytest.mark.parametrize("arguments", [("--no-such-option",), ("nowhere",), (".",)])
def test_a_pytest_that_runs_nothing_has_failed(runner: ModuleType, arguments: tuple[str, ...]) -> None:
    assert runner.pytest(sys.stdout, *arguments).failed == 1


def pretend(runner: ModuleType, monkeypatch: pytest.MonkeyPatch, stages: tuple[tuple[str, ...], ...],
            **parts: object) -> None:
    """These parts in place of the real ones."""
    monkeypatch.setattr(runner, "PARTS", parts)
    monkeypatch.setattr(runner, "STAGES", stages)


@pytest.mark.parametrize("stages", [(("first",), ("second",)), (("first", "second"),)], ids=["in turn", "side by side"])
def test_a_part_that_fails_does_not_stop_the_others(
    runner: ModuleType, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str],
    stages: tuple[tuple[str, ...], ...],
) -> None:
    pretend(
        runner, monkeypatch, stages,
        first=lambda out: runner.commands(out, ("-c", "raise SystemExit(3)")),
        second=lambda out: runner.Outcome(passed=4, skipped=Counter({"no chromium": 2})),
    )  # fmt: skip
    assert runner.main([]) == 1
    lines = capfd.readouterr().out.splitlines()
    assert lines[-1] == "4 passed, 1 failed, 2 skipped"
    assert "skipped 2: no chromium" in lines
    assert "failed: python -c raise SystemExit(3): exit code 3" in lines
    assert {line.split()[0] for line in lines if line.endswith("skipped")} >= {"first", "second"}
    assert [line.split()[1] for line in lines if line.endswith("by the clock")] == ["0.0"]
    assert runner.main(["--only", "second"]) == 0
    assert capfd.readouterr().out.splitlines()[-1] == "4 passed, 0 failed, 2 skipped"


def test_parts_side_by_side_run_at_once_and_each_is_printed_whole(
    runner: ModuleType, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Each waits for the other after each line, which would mix them; one after the other, none would ever end."""
    together = threading.Barrier(2, timeout=60)

    def talks(name: str, out: TextIO) -> object:
        for line in range(3):
            together.wait()
            says = f"print('{name} {line}', flush=True); print('{name} aloud {line}', file=sys.stderr)"
            runner.run(out, "-c", f"import sys; {says}")
        return runner.Outcome(passed=1)

    pretend(
        runner, monkeypatch, (("left", "right"),), left=lambda out: talks("left", out),
        right=lambda out: talks("right", out),
    )  # fmt: skip
    assert runner.main([]) == 0
    said, loose = capfd.readouterr()
    lines = [line for line in said.splitlines() if line.startswith(("left ", "right "))][:12]
    left, right = (
        [f"{name} {word}{line}" for line in range(3) for word in ("", "aloud ")] for name in ("left", "right")
    )
    assert lines in (left + right, right + left)
    assert loose == ""


def test_the_slowest_tests_of_all_parts_are_named(
    runner: ModuleType, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    quick, slow = ([(begin + k / 10, f"{name}::{k}") for k in range(20)] for begin, name in ((0.0, "q"), (9.0, "s")))
    pretend(
        runner, monkeypatch, (("first",), ("second",)), first=lambda out: runner.Outcome(seconds=quick),
        second=lambda out: runner.Outcome(seconds=slow),
    )  # fmt: skip
    runner.main([])
    lines = capfd.readouterr().out.splitlines()
    at = lines.index("the 30 slowest tests, in seconds") + 1
    named = [line.split()[1] for line in lines[at : at + 30]]
    assert named == [f"s::{k}" for k in reversed(range(20))] + [f"q::{k}" for k in reversed(range(10, 20))]
    assert lines[at].split()[0] == "10.9"


def test_every_part_stands_in_one_stage_and_the_browser_after_the_book(runner: ModuleType) -> None:
    order = [name for stage in runner.STAGES for name in stage]
    assert sorted(order) == sorted(runner.PARTS)
    stage_of = {name: place for place, stage in enumerate(runner.STAGES) for name in stage}
    assert stage_of["notebooks"] < stage_of["book"] < stage_of["browser"]


def test_a_book_without_notebooks_has_failed(runner: ModuleType) -> None:
    assert runner.notebooks(sys.stdout).failed == 1


def test_notebooks_are_run(runner: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD")
    (tmp_path / "book").mkdir()
    cells = [new_code_cell("assert 1 + 1 == 2"), new_code_cell("assert 1 + 1 == 3")]
    nbformat.write(new_notebook(cells=cells), tmp_path / "book" / "page.ipynb")
    outcome = runner.notebooks(sys.stdout)
    assert (outcome.passed, outcome.failed) == (1, 1)


@pytest.mark.parametrize("chosen", [["book"], ["notebooks", "book"]])
def test_the_book_shows_what_the_notebooks_gave_in_this_run_and_no_other(
    runner: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, chosen: list[str]
) -> None:
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "page.ipynb").touch()
    earlier = tmp_path / runner.EXECUTED / "page.ipynb"
    earlier.parent.mkdir(parents=True)
    earlier.touch()
    ran = []
    monkeypatch.setattr(runner, "run", lambda out, *command: ran.append(command) or 0)
    assert runner.main([word for part in chosen for word in ("--only", part)]) == 0
    assert not earlier.exists()
    own = ("--executed", runner.EXECUTED) if "notebooks" in chosen else ()
    assert ran[-1] == ("book/build.py", "--strict", *own)


def test_an_unknown_part_is_refused() -> None:
    ran = subprocess.run([sys.executable, SCRIPT, "--only", "nothing"], capture_output=True, text=True)
    assert ran.returncode == 2
    assert "lint" in ran.stderr
