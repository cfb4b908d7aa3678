"""Each step ends in what to do next."""

from __future__ import annotations

import pytest
from made_reports import make_report

from robustness_lib.evaluation import Finding, advice


def advised(report) -> dict[str, str]:
    return {step.name: step.advice for step in advice(report)}


def test_no_robustness_to_one_step_says_stop_and_train() -> None:
    words = advised(make_report(100, broken={"fgsm": range(95), "pgd-20": range(97)}))
    assert "stop here and train" in words["fgsm"]
    assert words["pgd-20"] == "As before."
    assert "stop here" not in advised(make_report(100, broken={"fgsm": range(20)}))["fgsm"]


def test_an_attack_that_found_much_more_is_pointed_out() -> None:
    report = make_report(100, broken={"fgsm": range(10), "pgd-20": range(40), "apgd-ce": range(40, 42), "square": []},
                         survivors=["apgd-ce", "square"])
    words = advised(report)
    assert "found 30.0 points more than all before it" in words["pgd-20"]
    assert words["apgd-ce"] == "Little or nothing new."
    assert "upper bound" in words["square"]


@pytest.mark.parametrize("pgd", [range(10), range(12), range(40)])
def test_a_quick_look_is_never_to_be_reported(pgd: range) -> None:
    report = make_report(100, broken={"fgsm": range(10), "pgd-20": pgd}, suite="quick", findings=None)
    words = advised(report)
    assert not any("Report this number" in step for step in words.values())
    assert words["pgd-20"].endswith('An upper bound from a quick look, which is no verdict. For one: the suite '
                                    '"standard" (`robustness evaluate`, with `--suite standard`).')
    assert ("found 30.0 points more" in words["pgd-20"]) == (len(pgd) == 40)
    assert "a quick look, not a verdict" in report.sentence
    assert "quick look" not in make_report(100, broken={"fgsm": range(10)}).sentence


@pytest.mark.parametrize("before", ["--suite quick", "--suite=quick", "--minutes 3", "--minutes=3 --suite quick"])
def test_a_quick_look_names_the_command_for_a_verdict(before: str) -> None:
    command = f"robustness evaluate --model 'my net.py:make' {before} --data quick -n 50"
    report = make_report(100, broken={"pgd-20": []}, suite="quick", provenance={"command": command})
    assert "`robustness evaluate --model 'my net.py:make' --data quick -n 50 --suite standard`" in \
        advised(report)["pgd-20"]


def test_clean_accuracy_is_looked_at_first() -> None:
    assert "No better than chance" in advised(make_report(100, wrong=range(95), classes=10, broken={"f": []}))["clean"]
    assert "robustness check" in advised(make_report(100, wrong=range(60), classes=10, broken={"f": []}))["clean"]
    assert "attacked" in advised(make_report(100, wrong=range(5), classes=10, broken={"f": []}))["clean"]
    figures = {step.name: step.figures for step in advice(make_report(100, classes=10, broken={"f": []}))}
    assert "top-5" in figures["clean"]
    assert "n = 100" in figures["clean"]


def test_the_curve_names_where_half_is_lost() -> None:
    report = make_report(10, broken={"f": [0]}, curve={1 / 255: range(10), 2 / 255: range(3), 0.5: []})
    assert "Half of what was right is lost at ε = 2/255" in advised(report)["curve"]
    stubborn = make_report(10, broken={"f": []}, curve={1 / 255: range(10), 0.5: range(9)})
    assert "suspect the attack" in advised(stubborn)["curve"]
    assert "curve" not in advised(make_report(10, broken={"f": []}))


def test_weak_classes_and_findings_are_named() -> None:
    report = make_report(20, labels=[0] * 10 + [1] * 10, names=["cat", "dog"], broken={"f": range(9)},
                         findings=(Finding("zero gradient", "…", 0.001, 0.1, 2, 20),))
    words = advised(report)
    assert "resists: cat." in words["per class"]
    assert "not to be trusted" in words["diagnostics"]
    assert "diagnostics" not in advised(make_report(findings=None, broken={"f": []}))
    assert "does not prove" in advised(make_report(findings=(), broken={"f": []}))["diagnostics"]
