"""The runner: it counts rightly, runs every part, and fails when a part does."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

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
    outcome = runner.pytest(".")
    assert (outcome.passed, outcome.failed) == (1, 2)
    assert outcome.failures[0] == "test_some::test_bad: assert False"
    assert outcome.failures[1].startswith("test_some::test_error: ")
    assert outcome.skipped == Counter({"needs a mac": 2, "not yet": 1})
    assert str(outcome) == "1 passed, 2 failed, 3 skipped"


@pytest.mark.parametrize("arguments", [("--no-such-option",), ("nowhere",), (".",)])
def test_a_pytest_that_runs_nothing_has_failed(runner: ModuleType, arguments: tuple[str, ...]) -> None:
    assert runner.pytest(*arguments).failed == 1


def test_a_part_that_fails_does_not_stop_the_next(
    runner: ModuleType, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    parts = {
        "first": lambda: runner.commands(("-c", "raise SystemExit(3)")),
        "second": lambda: runner.Outcome(passed=4, skipped=Counter({"no chromium": 2})),
    }
    monkeypatch.setattr(runner, "PARTS", parts)
    assert runner.main([]) == 1
    lines = capfd.readouterr().out.splitlines()
    assert lines[-1] == "4 passed, 1 failed, 2 skipped"
    assert "skipped 2: no chromium" in lines
    assert "failed: python -c raise SystemExit(3): exit code 3" in lines
    assert [line.split()[0] for line in lines if line.endswith("skipped")][-3:-1] == ["first", "second"]
    assert runner.main(["--only", "second"]) == 0
    assert capfd.readouterr().out.splitlines()[-1] == "4 passed, 0 failed, 2 skipped"


def test_a_book_without_notebooks_has_failed(runner: ModuleType) -> None:
    assert runner.notebooks().failed == 1


def test_notebooks_are_run(runner: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD")
    (tmp_path / "book").mkdir()
    cells = [new_code_cell("assert 1 + 1 == 2"), new_code_cell("assert 1 + 1 == 3")]
    nbformat.write(new_notebook(cells=cells), tmp_path / "book" / "page.ipynb")
    outcome = runner.notebooks()
    assert (outcome.passed, outcome.failed) == (1, 1)


def test_an_unknown_part_is_refused() -> None:
    ran = subprocess.run([sys.executable, SCRIPT, "--only", "nothing"], capture_output=True, text=True)
    assert ran.returncode == 2
    assert "lint" in ran.stderr
