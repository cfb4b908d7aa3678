"""The report: figures derived from verdicts, and its form on disk."""

from __future__ import annotations

import json

import numpy as np
import pytest
from made_reports import make_report, yes

from robustness_lib import ThreatModel
from robustness_lib.reports.findings import Finding
from robustness_lib.reports.page import inline
from robustness_lib.reports.report import Failure, Report


@pytest.fixture
def report() -> Report:
    """Ten images, one wrong; FGSM breaks two, PGD another two and one of those, APGD-T one of the survivors."""
    return make_report(10, wrong=[0], broken={"fgsm": [1, 2], "pgd-20": [2, 3, 4], "apgd-t": [5]},
                       survivors=["apgd-t"], classes=5, curve={0.0: range(1, 10), 4 / 255: [1, 4, 5, 6, 7, 8, 9],
                                                               8 / 255: [1, 6], 0.5: [7]}, findings=())


def test_the_headline_is_the_worst_case_per_example(report: Report) -> None:
    assert report.robust.tolist() == [False] * 6 + [True] * 4
    assert (report.robust_accuracy.correct, report.robust_accuracy.n) == (4, 10)
    assert report.robust_accuracy.correct < min(report.own("fgsm").correct, report.own("pgd-20").correct)


def test_own_and_cumulative(report: Report) -> None:
    assert [report.own(name) and report.own(name).correct for name in ("fgsm", "pgd-20", "apgd-t")] == [7, 6, None]
    assert [report.cumulative(name).correct for name in ("fgsm", "pgd-20", "apgd-t")] == [7, 5, 4]
    with pytest.raises(ValueError, match="no attack is called 'square' here; there are fgsm, pgd-20, apgd-t"):
        report.own("square")
    with pytest.raises(ValueError, match="no attack"):
        report.cumulative("square")


def test_the_strongest_attack() -> None:
    broken = {"fgsm": [1], "pgd-20": [1, 2, 3], "apgd-ce": [4], "apgd-t": [5, 6], "square": [7]}
    assert make_report(10, broken=broken, survivors=["apgd-ce", "apgd-t", "square"]).strongest == "apgd-t"
    assert make_report(10, broken={"fgsm": [1], "pgd-20": [1, 2], "square": []},
                       survivors=["square"]).strongest == "pgd-20"
    assert make_report(10, broken={"fgsm": []}).strongest is None


def test_the_sentence(report: Report) -> None:
    assert report.sentence == ("Under L∞ 4/255 at most 40 % (95 %: 12–74) of 10 images resist; strongest attack "
                               "apgd-t; no sign of masked gradients.")
    assert str(report) == report.sentence
    assert repr(report) == f"<Report: {report.sentence}>"
    finding = Finding("zero gradient", "…", 0.001, 0.1, 10, 100)
    doubtful = make_report(1000, broken={"fgsm": []}, findings=(finding,), certified=yes([1, 2], 1000),
                           failures=(Failure(1000, 1063, "fgsm", "RuntimeError: no"),))
    assert doubtful.sentence == (
        "Under L∞ 4/255 at most 100 % (95 %: 100–100) of 1,000 images resist and at least 0.2 % (95 %: 0–1) are "
        "proved to; no attack broke any; do not trust it: zero gradient; 64 images have no verdict.")
    assert "not looked for" in make_report(findings=None).sentence


def test_per_class_and_what_it_is_mistaken_for() -> None:
    report = make_report(12, wrong=[0], labels=[0] * 6 + [2] * 6, classes=4, names=["a", "b", "c", "d"],
                         broken={"pgd": [1, 2, 3, 4, 6]})
    first, second = report.per_class  # no verdict on classes that the data do not hold
    assert (first.name, first.clean.correct, first.robust.correct, first.robust.n) == ("a", 5, 1, 6)
    assert first.mistaken_for == ((1, 4),)
    assert first.flagged
    assert (second.name, second.robust.correct, second.mistaken_for, second.flagged) == ("c", 5, ((3, 1),), False)


def test_confusion_counts_every_image_once(report: Report) -> None:
    confusion = report.confusion
    assert confusion.sum() == report.n
    assert confusion.diagonal().sum() == report.robust_accuracy.correct
    assert confusion[0].tolist() == [0, 2, 0, 0, 0]  # image 0 is misread, image 5 broken: both as class 1


def test_the_curve_is_carried(report: Report) -> None:
    assert [a.correct for a in report.curve_alone] == [9, 7, 2, 1]
    # At 4/255 image 4 stood under the curve's attack but fell to the suite, and so did 1 and 5. At .5 image 7 stands
    # alone, but it fell at 8/255.
    assert [a.correct for a in report.curve_carried] == [9, 4, 1, 0]
    assert make_report().curve_carried == ()


def same(a: Report, b: Report) -> bool:
    return a.to_json() == b.to_json()


def test_json_round_trip(report: Report, tmp_path) -> None:
    again = Report.from_json(report.to_json())
    assert same(report, again)
    assert isinstance(again.threat, ThreatModel)
    assert again.examples.label.dtype == np.int64
    assert again.examples.distance.dtype == np.float64
    assert np.isnan(again.examples.distance).sum() == 5
    assert np.array_equal(again.robust, report.robust)
    assert np.array_equal(again.curve.stood, report.curve.stood)
    assert again.attacks[0].tried.dtype == np.bool_
    assert again.findings == ()
    full = make_report(findings=(Finding("a", "b", 0.5, 0.1, 1, 2),), failures=(Failure(1, 2, "clean", "e"),),
                       certified=yes([1], 10))
    assert same(full, Report.load(full.save(tmp_path / "deep" / "report.json")))
    assert Report.from_json(full.to_json()).findings == full.findings
    assert Report.from_json(make_report(findings=None).to_json()).findings is None


def test_the_first_line_is_the_sentence(report: Report) -> None:
    content = json.loads(report.to_json())
    assert next(iter(content)) == "sentence"
    assert content["sentence"] == report.sentence
    assert content["schema"] == 1
    assert "NaN" not in report.to_json()


@pytest.mark.parametrize(("text", "words"), [
    ("{", "this is not JSON"),
    ("[]", "not a report of an evaluation"),
    ('{"a": 1}', "not a report of an evaluation"),
    ('{"schema": 2}', "schema 2, and this version of robustness_lib reads 1"),
    ('{"schema": 1}', "damaged"),
    ('{"schema": 1, "threat": 3}', "damaged"),
])
def test_other_files_are_refused_with_words(text: str, words: str, tmp_path) -> None:
    with pytest.raises(ValueError, match=words):
        Report.from_json(text)
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match=r"a\.json: .*" + words):
        Report.load(tmp_path / "a.json")


def test_a_damaged_column_is_refused(report: Report) -> None:
    content = json.loads(report.to_json())
    content["attacks"][0]["broke"] = "01x"
    with pytest.raises(ValueError, match="damaged"):
        Report.from_json(json.dumps(content))
    content = json.loads(report.to_json())
    content["attacks"][0]["broke"] = "01"
    with pytest.raises(ValueError, match="damaged"):
        Report.from_json(json.dumps(content))
    for spoil in (lambda c: c["examples"]["label"].__setitem__(0, 99),
                  lambda c: c["examples"]["label"].__setitem__(0, -1),
                  lambda c: c["attacks"][0].update(broke="1" * 10, tried="0" * 10),
                  lambda c: c["attacks"][0].update(tried="1" * 10),
                  lambda c: c["attacks"][1].update(name="fgsm"),
                  lambda c: c.update(fingerprints=None),
                  lambda c: c.update(classes="abcde"),
                  lambda c: c["threat"].update(eps="8"),
                  lambda c: c.update(seconds=None)):
        content = json.loads(report.to_json())
        spoil(content)
        with pytest.raises(ValueError, match="damaged"):
            Report.from_json(json.dumps(content))


def test_nesting_without_end_is_no_report() -> None:
    with pytest.raises(ValueError, match="not JSON"):
        Report.from_json("[" * 100_000)


def test_at_most_is_not_rounded_down() -> None:
    assert "at most 2.5 % (95 %: 0–13) of 40 images" in make_report(40, broken={"f": range(39)}).sentence


def test_a_notebook_shows_the_page(report: Report) -> None:
    assert report._repr_html_() == inline(report)
