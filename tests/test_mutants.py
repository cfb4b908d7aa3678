"""The list of known mistakes cannot rot, and the script that makes them tells what is noticed from what is not."""

from __future__ import annotations

import importlib
import re
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

TESTS = Path(__file__).parent
ROOT = TESTS.parent
TABLES: dict[str, dict[str, Any]] = tomllib.loads((TESTS / "mutants.toml").read_text(encoding="utf-8"))


@pytest.fixture
def mutants(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, which imports its neighbour as scripts do."""
    monkeypatch.syspath_prepend(str(TESTS))
    for name in ("mutants", "run_all"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module("mutants")


@pytest.mark.parametrize("name", TABLES)
def test_the_mistake_can_still_be_made_and_its_tests_still_exist(mutants: ModuleType, name: str) -> None:
    mutant = mutants.Mutant(name, **TABLES[name])
    right = (ROOT / "robustness_lib" / mutant.file).read_text(encoding="utf-8")
    wrong = mutant.made_in(right)  # raises unless its old text stands there once
    assert wrong != right
    if mutant.file.endswith(".py"):
        compile(wrong, mutant.file, "exec")
    assert mutant.tests
    for test in mutant.tests:
        file, _, function = test.partition("::")
        source = (ROOT / file).read_text(encoding="utf-8")
        assert not function or f"\ndef {function.partition('[')[0]}(" in source, test


# The script, on a package of one file.

RIGHT = '''def larger(a, b):
    return a if a > b else b
'''
CHECKS = """
from robustness_lib.pick import larger
def test_it(): assert larger(1, 2) == 2
def test_equals(): assert larger(1, 1) == 1
"""
LIST = """
[noticed]
file = "pick.py"
old = "a if a > b else b"
new = "a if a < b else b"
tests = ["tests/test_pick.py"]

[survives]
file = "pick.py"
old = "a > b"
new = "a >= b"
tests = ["tests/test_pick.py::test_equals"]

[gone]
file = "pick.py"
old = "a == b"
new = "a != b"
tests = ["tests/test_pick.py"]

[untested]
file = "pick.py"
old = "a > b"
new = "a < b"
tests = ["tests/test_pick.py::test_equals", "tests/test_pick.py::test_gone"]
"""


@pytest.fixture
def small(mutants: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script beside a package, tests and a list of its own."""
    for name, text in (("robustness_lib/__init__.py", ""), ("robustness_lib/pick.py", RIGHT),
                       ("tests/test_pick.py", CHECKS), ("tests/mutants.toml", LIST)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(mutants, "ROOT", tmp_path)
    monkeypatch.setattr(mutants, "LIST", tmp_path / "tests/mutants.toml")
    return mutants


def test_it_says_who_noticed_and_what_survived(
        small: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert small.main(["noticed"]) == 0
    assert small.main(["noticed", "survives", "gone"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == lines[3] == "on the unchanged library: 2 passed, 0 failed, 0 skipped"
    assert all(re.fullmatch(r"noticed: caught by tests\.test_pick::test_it \(\d+ s\)", line) for line in lines[1:5:3])
    assert lines[2] == "1 of 1 caught"
    assert lines[5:] == ["survives: SURVIVED",
                         "gone: ERROR: gone: its old text stands 0 times in pick.py, and not once", "1 of 3 caught"]
    assert (tmp_path / "robustness_lib/pick.py").read_text() == RIGHT


def test_tests_that_fail_anyway_notice_nothing(
        small: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "tests/test_pick.py").write_text(CHECKS + "def test_bad(): assert larger(1, 2) == 3\n")
    assert small.main(["noticed"]) == 1
    said, failure = capsys.readouterr().out.splitlines()
    assert said == "on the unchanged library: 2 passed, 1 failed, 0 skipped"
    assert failure.startswith("tests.test_pick::test_bad: ")


def test_tests_that_are_not_there_are_an_error(small: ModuleType) -> None:
    with pytest.raises(RuntimeError, match=r"exit code 4(.|\n)*test_gone"):
        small.main(["untested"])


def test_a_mistake_that_never_ends_is_not_counted(
        small: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(small.Copy.test, "__kwdefaults__", {"seconds": 3})
    copy = small.Copy.of_package(tmp_path / "copy")
    endless = small.Mutant("endless", "pick.py", "return a", "while True: pass\n    return a", ["tests/test_pick.py"])
    assert small.verdict(copy, endless) == (False, "ERROR: the tests came to no end within 3 s")


def test_an_unknown_name_is_refused(small: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        small.main(["nobody"])
    assert "there is no nobody in mutants.toml" in capsys.readouterr().err
