"""robustness compare, as a user calls it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from made_reports import make_report
from typer.testing import CliRunner

from robustness_lib import ThreatModel
from robustness_lib.cli import app
from robustness_lib.reports.report import Report


def run(*arguments: object):
    return CliRunner().invoke(app, ["compare", *map(str, arguments)], env={"COLUMNS": "120"})


@pytest.fixture
def saved(tmp_path: Path):
    """Saves reports under a name."""
    return lambda name, report: report.save(tmp_path / f"{name}.json")


def large(broken: range, names: list[str], **more: object) -> Report:
    return make_report(240, classes=12, names=names, broken={"pgd": broken}, **more)


def test_the_tables(saved) -> None:
    names = [f"sign {i}" if i != 3 else "[red]stop" for i in range(12)]
    a, b = saved("a", large(range(3), names)), saved("b", large(range(1, 60), names, environment={"seed": "9"}))
    result = run(a, b)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    words = " ".join(result.stdout.split())
    assert "robust accuracy went from 98.8 % to 75.4 % (change −23.3 points" in words
    assert "[red]stop" in result.stdout
    assert "2 more classes changed; --json lists them." in words
    assert "Images lost (numbers in the data of B): 3, 4, 5," in words
    assert " 22 and 37 more" in words
    assert "Note: seed differs: 0, then 9." in words
    robust = next(line for line in result.stdout.splitlines() if "robust" in line and "98.8 % (" in line)
    assert "75.4 % (69.5–80.7)" in robust
    assert "−23.3" in robust


def test_no_change(saved) -> None:
    a = saved("a", make_report())
    words = run(a, a).stdout
    assert "stayed at 100.0 %" in words
    assert "Images lost" not in words
    assert "per class" not in words  # no table without a row


def test_json_and_nothing_else(saved) -> None:
    result = run(saved("a", make_report(broken={"pgd": []})), saved("b", make_report(broken={"pgd": [3]})), "--json")
    plain = json.loads(result.stdout)
    assert (plain["n"], plain["lost"], plain["change"], result.stderr) == (10, [3], -0.1, "")


@pytest.mark.parametrize(("other", "words"), [
    (make_report(threat=ThreatModel("l2", 1)), "the threat models differ"),
    (make_report(digests=list("abcdefghij")), "share 0 images"),
    (make_report(broken={"pgd": []}), "allow different attacks (--force)."),
])
def test_a_refusal_is_one_line_and_exit_code_2(saved, other: Report, words: str) -> None:
    result = run(saved("a", make_report()), saved("b", other))
    assert (result.exit_code, result.stdout) == (2, "")
    assert words in result.stderr
    assert result.stderr.count("\n") == 1


def test_force(saved) -> None:
    a, b = saved("a", make_report()), saved("b", make_report(broken={"pgd": [1]}))
    result = run(a, b, "--force")
    assert result.exit_code == 0
    assert "Note: The attacks differ" in result.stdout


def test_files_that_cannot_be_read(saved, tmp_path: Path) -> None:
    a, broken = saved("a", make_report()), tmp_path / "broken.json"
    broken.write_text("{", encoding="utf-8")
    for path, words in ((tmp_path / "none.json", "No such file"), (tmp_path, "Name the report.json"),
                        (broken, "this is not JSON")):
        result = run(a, path)
        assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1), result.output
        assert str(path) in result.stderr
        assert words in result.stderr
