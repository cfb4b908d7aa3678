"""The history of a model, its page, and its alerts."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from made_reports import make_report

from robustness_lib import ThreatModel
from robustness_lib.reports.mlflow_log import log_to_mlflow, mlflow_wanted
from robustness_lib.reports.track import read_history, track


def version(broken: int, n: int = 100, first: int = 0, date: str = "2026-01-01", **more):
    return make_report(n, wrong=[n - 1], broken={"pgd": range(first, first + broken)}, environment={"date": date},
                       fingerprints={"model": f"{broken}{first}", "data": "d"}, **more)


def test_versions_are_appended_and_drawn(tmp_path: Path) -> None:
    history = tmp_path / "deep" / "h.jsonl"
    for number, broken in enumerate((20, 19, 30)):
        tracked = track(version(broken), history, version=f"v{number}")
    trend, page = tracked.trend, tracked.page
    assert [entry.version for entry in trend.entries] == ["v0", "v1", "v2"]
    assert [entry.robust_accuracy.correct for entry in trend.entries] == [79, 80, 69]
    assert [entry.clean_accuracy.correct for entry in trend.entries] == [99] * 3
    assert [float(drop) for drop in trend.drops] == [0, -1, 11]
    assert trend.alerts == (False, False, True)
    assert len(history.read_text(encoding="utf-8").splitlines()) == 3
    text = page.read_text(encoding="utf-8")
    assert page == tmp_path / "deep" / "h.html"
    assert text.count("<strong>alert</strong>") == 1
    assert "69.0 (59.0–77.9)" in text
    for words in ("http:", "https:", "src=", "<script"):
        assert words not in text


@pytest.mark.parametrize(("lost", "gained", "n", "limit", "alert"), [
    (20, 0, 1000, 2.0, False),  # exactly at the limit is within it
    (21, 0, 1000, 2.0, True),
    (4, 0, 100, 2.0, False),  # p = 1/16: four of four may be chance
    (5, 0, 100, 2.0, True),  # p = 1/32
    (40, 30, 100, 2.0, False),  # ten points, but no more than chance between the two
    (21, 0, 1000, 3.0, False),
])
def test_an_alert_needs_the_drop_and_the_test(tmp_path: Path, lost: int, gained: int, n: int, limit: float,
                                              alert: bool) -> None:
    before = make_report(n, broken={"pgd": range(lost, lost + gained)}, environment={"date": "1"})
    now = make_report(n, broken={"pgd": range(lost)}, environment={"date": "2"})
    track(before, tmp_path / "h.jsonl", alert_drop=limit)
    trend = track(now, tmp_path / "h.jsonl", alert_drop=limit).trend
    assert trend.alerts == (False, alert)


def test_only_the_same_images_threat_and_attacks_are_compared(tmp_path: Path) -> None:
    history = tmp_path / "h.jsonl"
    track(version(10), history)
    others = [version(30, threat=ThreatModel("l2", 0.5)), version(30, digests=[f"x{i}" for i in range(100)]),
              make_report(100, broken={"square": range(30)})]
    for other in others:
        trend = track(other, history).trend
        assert len(trend.entries) == 1
        assert trend.alerts == (False,)
    tracked = track(version(11, date="2026-01-02"), history)
    assert len(tracked.trend.entries) == 2
    assert tracked.page.read_text(encoding="utf-8").count("<h2") == 4


def test_the_same_report_twice_is_one_entry(tmp_path: Path) -> None:
    history = tmp_path / "h.jsonl"
    assert track(version(10), history, version="v1").new
    track(version(30, date="2026-01-02"), history, version="v2")
    again = track(version(10), history, version="v1")  # the answer is about v1, not about the last one
    assert (again.new, again.at, again.trend.entries[again.at].version) == (False, 0, "v1")
    assert len(again.trend.entries) == len(read_history(history)) == 2
    later = track(version(10, date="2026-01-03"), history, version="v1")  # evaluated again
    assert (later.new, later.at) == (True, 2)


def test_another_seed_is_the_same_trend(tmp_path: Path) -> None:
    first, second = (version(10, date=str(seed)) for seed in (1, 2))
    for report, seed in ((first, 1), (second, 2)):
        object.__setattr__(report.attacks[0], "settings", f"PGD(steps=20, seed={seed})")
        trend = track(report, tmp_path / "h.jsonl").trend
    assert len(trend.entries) == 2
    object.__setattr__(second.attacks[0], "settings", "PGD(steps=40, seed=2)")
    assert len(track(second, tmp_path / "h.jsonl").trend.entries) == 1


def test_the_page_never_overwrites_the_history(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"call the history \.jsonl"):
        track(version(10), tmp_path / "h.html")
    assert not (tmp_path / "h.html").exists()


def test_a_half_written_last_line_is_dropped_and_a_damaged_one_named(tmp_path: Path) -> None:
    history = tmp_path / "h.jsonl"
    track(version(10), history)
    whole = history.read_text(encoding="utf-8")
    history.write_text(whole + whole[: len(whole) // 2], encoding="utf-8")
    assert len(track(version(11), history).trend.entries) == 2
    assert len(read_history(history)) == 2
    for damaged in ("{}\n" + whole, '{"schema": 2}\n' + whole, "no\n", whole.replace('"stood": "', '"stood": "2')):
        history.write_text(damaged, encoding="utf-8")
        with pytest.raises(ValueError, match=r"h\.jsonl, line 1: this is no entry of a history"):
            track(version(12), history)
        assert history.read_text(encoding="utf-8") == damaged  # what cannot be read is not overwritten


def test_names_of_strangers_do_no_harm(tmp_path: Path) -> None:
    page = track(version(3), tmp_path / "h.jsonl", version="<script>alert(1)</script>").page
    assert "<script" not in page.read_text(encoding="utf-8")


def test_a_limit_below_zero_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 0"):
        track(version(3), tmp_path / "h.jsonl", alert_drop=-1)


# MLflow, on a store in a folder.


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{tmp_path / 'mlruns'}")
    return tmp_path / "mlruns"


def test_a_report_is_logged_to_mlflow(store: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    report = version(20)
    assert mlflow_wanted(None)
    runs = [mlflow.MlflowClient().get_run(log_to_mlflow(report, name)) for name in ("v1", "v2")]
    assert runs[0].info.experiment_id == runs[1].info.experiment_id
    metrics = runs[0].data.metrics
    assert (metrics["robust"], metrics["clean"], metrics["n"], metrics["cumulative/pgd"]) == (0.79, 0.99, 100, 0.79)
    assert metrics["robust_low"] < 0.79 < metrics["robust_high"]
    assert runs[1].data.params["version"] == "v2"
    assert runs[0].data.params["threat"] == "L∞ 4/255"
    assert runs[0].data.tags["sentence"] == report.sentence
    assert runs[0].info.status == "FINISHED"
    (kept,) = store.glob(f"*/{runs[0].info.run_id}/artifacts/report.json")
    assert json.loads(kept.read_text(encoding="utf-8"))["sentence"] == report.sentence
    assert kept.with_name("report.html").is_file()


def test_mlflow_is_used_only_where_it_is_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert not mlflow_wanted(None)
    assert mlflow_wanted(True)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "file:x")
    assert not mlflow_wanted(False)
    monkeypatch.setitem(sys.modules, "mlflow", None)  # as if it were not installed
    assert not mlflow_wanted(None)
    with pytest.raises(ValueError, match="MLflow is not installed"):
        mlflow_wanted(True)


def test_mlflows_own_refusal_is_passed_on(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "false")
    with pytest.raises(ValueError, match=r"MLflow: .*maintenance"):
        log_to_mlflow(version(20), "v1")
