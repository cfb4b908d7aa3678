"""robustness track, as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from made_reports import make_report
from typer.testing import CliRunner

from robustness_lib.cli import app


@pytest.fixture(autouse=True)
def _no_mlflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def call(*arguments: object, code: int = 0):
    result = CliRunner().invoke(app, ["track", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result


def test_a_drop_is_an_alert_and_still_code_0(tmp_path: Path) -> None:
    history = tmp_path / "h.jsonl"
    for number, broken in enumerate((10, 30)):
        report = make_report(100, broken={"pgd": range(broken)}, environment={"date": str(number)})
        report.save(tmp_path / "report.json")
        said = call(tmp_path / "report.json", "--history", history, "--version", f"v{number}").stdout
    assert "v1: robust 70.0 %" in said
    assert "alert: -20.0 points against v0" in said
    assert "2 versions in" in said
    assert (tmp_path / "h.html").is_file()
    as_json = json.loads(call(tmp_path / "report.json", "--history", history, "--version", "v1", "--json").stdout)
    assert (as_json["versions"], as_json["drop"], as_json["alert"], as_json["mlflow_run"]) == (2, 20.0, True, None)
    calm = json.loads(call(tmp_path / "report.json", "--history", history, "--alert-drop", 25, "--json").stdout)
    assert not calm["alert"]


def test_mlflow_where_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{tmp_path / 'mlruns'}")
    make_report(10).save(tmp_path / "report.json")
    assert "MLflow run" in call(tmp_path / "report.json", "--history", tmp_path / "h.jsonl").stdout
    assert len(list((tmp_path / "mlruns").glob("*/*/artifacts/report.html"))) == 1
    assert "MLflow" not in call(tmp_path / "report.json", "--history", tmp_path / "h.jsonl", "--no-mlflow").stdout


def test_wrong_input_is_code_2(tmp_path: Path) -> None:
    (tmp_path / "h.jsonl").write_text("no\n")
    make_report(10).save(tmp_path / "report.json")
    assert "line 1" in call(tmp_path / "report.json", "--history", tmp_path / "h.jsonl", code=2).stderr
    assert "report.json" in call(tmp_path / "none.json", "--history", tmp_path / "h2.jsonl", code=2).stderr
