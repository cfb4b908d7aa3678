"""robustness gate, as a pipeline calls it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml
from made_reports import make_report
from typer.testing import CliRunner

from robustness_lib.cli import app
from robustness_lib.reports.findings import Finding

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "book" / "gate.md").read_text(encoding="utf-8")


def run(*arguments: object):
    return CliRunner().invoke(app, ["gate", *map(str, arguments)], env={"COLUMNS": "120"})


@pytest.fixture
def main(tmp_path: Path) -> Path:
    return make_report(1000, broken={"pgd": []}).save(tmp_path / "main.json")


@pytest.fixture
def report(tmp_path: Path):
    """A saved report in which the first `broken` of 1,000 images fall."""
    return lambda broken, **more: make_report(1000, broken={"pgd": range(broken)}, **more).save(tmp_path / "now.json")


def test_pass(main: Path, report) -> None:
    result = run(report(20), "--baseline", main, "--max-drop", "2.0", "--min-robust", 45, "--min-class", 20)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith("The gate passes: 4 checks, all met. (exit code 0)\n")
    assert "pass max_drop: on the same 1,000 images robust accuracy fell by 2 points" in result.stdout
    assert "images lost, 0 gained" in result.stdout.replace("\n", " ")


def test_fail(main: Path, report) -> None:
    result = run(report(21), "--baseline", main, "--max-drop", "2.0")
    assert result.exit_code == 1
    assert result.stdout.startswith("The gate fails: max_drop. (exit code 1)\n")


def test_undecided_and_strict(main: Path, report) -> None:
    arguments = [report(4), "--baseline", main, "--max-drop", "0.3"]
    result = run(*arguments)
    assert result.exit_code == 3
    assert "1,250 images would decide" in result.stdout.replace("\n", " ")
    assert run(*arguments, "--strict").exit_code == 1


def test_options_that_change_the_verdict(main: Path, report, tmp_path: Path) -> None:
    assert run(report(600), "--min-robust", 45).exit_code == 1
    assert run(report(400), "--min-robust", 45).exit_code == 0
    assert run(report(900), "--min-class", 20).exit_code == 1
    masked = report(0, findings=(Finding("zero gradient", "…", 0.001, 0.1, 10, 100),))
    assert run(masked, "--min-robust", 45).exit_code == 1
    assert run(masked, "--min-robust", 45, "--allow-findings").exit_code == 0
    other = make_report(1000, broken={"fgsm": []}).save(tmp_path / "other.json")
    refused = run(other, "--baseline", main, "--max-drop", 2)
    assert refused.exit_code == 2
    assert refused.stderr.endswith("or allow different attacks (--force).\n")
    assert run(other, "--baseline", main, "--max-drop", 2, "--force").exit_code == 0


def test_json_and_nothing_else(main: Path, report) -> None:
    result = run(report(21), "--baseline", main, "--max-drop", "2.0", "--json")
    plain = json.loads(result.stdout)
    assert (result.exit_code, plain["exit_code"], plain["outcome"], result.stderr) == (1, 1, "fail", "")
    assert plain["comparison"]["lost"] == list(range(21))


@pytest.mark.parametrize(("arguments", "words"), [
    ([], "a gate needs at least one limit: --max-drop or --max-clean-drop (with a baseline), --min-robust, "
         "--min-class or --min-clean"),
    (["--max-clean-drop", "2"], "--max-clean-drop needs a baseline"), (["--min-clean", "0.5"], "write 50 for 50 %"),
    (["--max-drop", "2"], "--max-drop needs a baseline"), (["--min-robust", "145"], "--min-robust is in percent"),
    (["--min-robust", "0.45"], "write 45 for 45 %"), (["--min-robust", "nan"], "from 0 to 100"),
])
def test_wrong_usage_is_one_line_and_exit_code_2(report, arguments: list[str], words: str) -> None:
    result = run(report(0), *arguments)
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert words in result.stderr


def test_what_cannot_be_read_is_wrong_usage(report, tmp_path: Path) -> None:
    assert run(tmp_path / "none.json", "--min-robust", 45).exit_code == 2
    assert run(report(0), "--baseline", tmp_path / "none.json", "--max-drop", 2).exit_code == 2
    assert run(report(0), "--min-robust", "much").exit_code == 2


def test_the_summary_is_appended(report, tmp_path: Path) -> None:
    summary = tmp_path / "new" / "summary.md"
    run(report(600), "--min-robust", 45, "--markdown", summary)
    run(report(0), "--min-robust", 45, "--markdown", summary)
    text = summary.read_text(encoding="utf-8")
    assert text.index("### Robustness: fail") < text.index("\n\n### Robustness: pass")
    result = run(report(0), "--min-robust", 45, "--markdown", tmp_path)
    assert result.exit_code == 2
    assert "the summary is not written; The gate passes" in result.stderr
    for option in ("--markdown", "--junit"):
        result = run(report(0), "--min-robust", 45, option, summary / "more.md")
        assert result.exit_code == 2
        assert f"{summary} is a file, and a folder is needed; name another, so" in result.stderr


def test_clean_accuracy_is_judged(main: Path, report, tmp_path: Path) -> None:
    fallen = make_report(1000, wrong=range(60), broken={"pgd": []}).save(tmp_path / "fallen.json")
    result = run(fallen, "--baseline", main, "--max-drop", 10)
    assert result.exit_code == 1
    assert "fail max_clean_drop: on the same 1,000 images clean accuracy fell by 6 points" in result.stdout
    assert run(fallen, "--baseline", main, "--max-drop", 10, "--max-clean-drop", 6).exit_code == 0
    assert run(fallen, "--baseline", main, "--max-clean-drop", 2).exit_code == 1
    assert run(fallen, "--min-clean", 94).exit_code == 0
    assert run(fallen, "--min-clean", 95).exit_code == 3
    assert run(fallen, "--min-clean", 97).exit_code == 1
    assert "by default 5" in " ".join(run("--help").output.replace("│", " ").split())


def test_junit_has_a_case_for_each_check(main: Path, report, tmp_path: Path) -> None:
    path = tmp_path / "new" / "gate.xml"
    arguments = [report(4), "--baseline", main, "--max-drop", "0.3", "--min-robust", 45, "--junit", path]
    assert run(*arguments).exit_code == 3
    (suite,) = ElementTree.parse(path).getroot()
    assert [(case.get("name"), [inner.tag for inner in case]) for case in suite.iter("testcase")] == [
        ("max_drop", ["skipped"]), ("max_clean_drop", ["system-out"]), ("min_robust", ["system-out"])]
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("3", "0", "1")
    assert run(*arguments, "--strict", "--json").exit_code == 1
    assert ElementTree.parse(path).getroot().get("failures") == "1"
    assert [entry.name for entry in path.parent.iterdir()] == ["gate.xml"]


def test_an_old_junit_file_stands_for_no_new_verdict(report, tmp_path: Path) -> None:
    path = tmp_path / "gate.xml"
    assert run(report(0), "--min-robust", 45, "--junit", path).exit_code == 0
    assert run(tmp_path / "none.json", "--min-robust", 45, "--junit", path).exit_code == 2
    assert not path.exists()
    if os.name == "posix":
        assert run(report(0), "--min-robust", 45, "--junit", "/dev/null").exit_code == 0
        assert Path("/dev/null").is_char_device()
    (tmp_path / "folder").mkdir()
    refused = run(report(0), "--min-robust", 45, "--junit", tmp_path / "folder")
    assert (refused.exit_code, refused.stderr.count("\n"), refused.stdout) == (2, 1, "")


@pytest.mark.parametrize("option", ["--junit", "--markdown"])
def test_a_report_is_not_written_over(main: Path, report, option: str) -> None:
    now = report(0)
    for path in (now, main):
        before = path.read_bytes()
        refused = run(now, "--baseline", main, "--max-drop", 2, option, path)
        assert (refused.exit_code, "name another file" in refused.stderr) == (2, True)
        assert path.read_bytes() == before


def test_two_files_do_not_become_one(report, tmp_path: Path) -> None:
    refused = run(report(0), "--min-robust", 45, "--junit", tmp_path / "a", "--markdown", tmp_path / "x" / ".." / "a")
    assert (refused.exit_code, "both" in refused.stderr, (tmp_path / "a").exists()) == (2, True, False)


def test_the_process_ends_with_the_code(report) -> None:
    command = [sys.executable, "-c", "from robustness_lib.cli import app; app()", "gate", str(report(600)),
               "--min-robust", "45"]
    ended = subprocess.run(command, capture_output=True, text=True, encoding="utf-8")
    assert (ended.returncode, ended.stderr) == (1, "")


# The page on pipelines.


def test_the_page_names_options_that_exist() -> None:
    known = run("--help").output
    named = {option for command in re.findall(r"robustness gate [^`|]*(?:\|\||`)", PAGE)
             for option in re.findall(r"--[a-z-]+", command)} | set(re.findall(r"`(--[a-z-]+)`", PAGE))
    assert {"--baseline", "--max-drop", "--min-robust", "--min-class", "--strict", "--markdown", "--junit",
            "--max-clean-drop", "--min-clean"} <= named
    assert all(option in known for option in named), named


def test_the_page_uses_the_action_as_it_is() -> None:
    workflow = yaml.safe_load(re.search(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)[1])
    (step,) = [step for step in workflow["jobs"]["gate"]["steps"] if "attack-defend-certify" in step.get("uses", "")]
    inputs = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))["inputs"]
    assert step["with"].keys() <= inputs.keys()
    assert all(isinstance(value, str) for value in step["with"].values())
    assert set(re.findall(r"`([a-z][a-z-]+)`", PAGE.split("## GitHub Actions")[1].split("Other pipelines")[0])) <= (
        inputs.keys() | {"outcome", "exit-code", "sentence"})
