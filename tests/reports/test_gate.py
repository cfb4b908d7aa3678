"""The gate, at its boundaries."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import numpy as np
import pytest
from made_reports import make_report

from robustness_lib import ThreatModel
from robustness_lib.reports.findings import Finding
from robustness_lib.reports.gate import gate
from robustness_lib.reports.junit import junit_xml
from robustness_lib.reports.report import Failure
from robustness_lib.statistics import clopper_pearson, images_to_show_a_drop, images_to_show_below, mcnemar

FINDING = Finding("zero gradient", "…", 0.001, 0.1, 10, 100)
FAILURE = Failure(10, 13, "fgsm", "RuntimeError: out of\nmemory")


def standing(robust: int, n: int = 1000, **more):
    """A report in which the first `robust` of n images resist."""
    return make_report(n, broken={"pgd": range(robust, n)}, **more)


def fall(lost: int, gained: int = 0, n: int = 1000):
    """Two reports of n images, of which `lost` stand in the first only and `gained` in the second only."""
    return (make_report(n, broken={"pgd": range(gained)}),
            make_report(n, broken={"pgd": range(gained, gained + lost)}))


# The drop.


@pytest.mark.parametrize(("lost", "n", "limit"), [(20, 1000, 2.0), (1, 1000, 0.1), (3, 1000, 0.3), (7, 1000, 0.7),
                                                  (29, 1000, 2.9), (57, 1000, 5.7), (10, 10, 100)])
def test_a_drop_of_exactly_the_limit_passes(lost: int, n: int, limit: float) -> None:
    before, now = fall(lost, n=n)
    assert gate(now, before, max_drop=limit).outcome == "pass"
    assert gate(now, before, max_drop=np.float64(limit)).outcome == "pass"
    if limit < 100:
        before, now = fall(lost + 1, n=n)
        assert gate(now, before, max_drop=limit).outcome != "pass"


def test_a_drop_that_chance_would_rarely_do_fails() -> None:
    before, now = fall(21)
    verdict = gate(now, before, max_drop=2.0)
    assert (verdict.outcome, verdict.exit_code) == ("fail", 1)
    assert verdict.reasons == (
        "on the same 1,000 images robust accuracy fell by 2.1 points (100.0 % → 97.9 %; 21 lost, 0 gained), more than "
        "the 2 allowed, and chance would rarely do it: one-sided exact McNemar p < 0.0001.",)
    assert verdict.comparison is not None
    assert verdict.comparison.drop * 10 == 21


def test_the_line_between_fail_and_undecided_is_one_sided_p() -> None:
    assert mcnemar(5, 0, "greater") < 0.05 < mcnemar(4, 0, "greater")
    assert mcnemar(5, 0) > 0.05  # two-sided it would not do
    assert gate(*reversed(fall(5, n=100)), max_drop=2).outcome == "fail"
    verdict = gate(*reversed(fall(4, n=100)), max_drop=2)
    assert (verdict.outcome, verdict.exit_code) == ("undecided", 3)
    assert verdict.checks[0].images == images_to_show_a_drop(4, 0, 100) == 125
    assert verdict.reasons[0].endswith("but chance could do it: one-sided exact McNemar p = 0.0625. 125 images would "
                                       "decide, if the shares stay as they are.")
    strict = gate(*reversed(fall(4, n=100)), max_drop=2, strict=True)
    assert (strict.outcome, strict.exit_code, strict.checks[0].outcome) == ("fail", 1, "undecided")
    assert strict.reasons == verdict.reasons
    assert "strict" in strict.sentence


def test_gains_count_against_losses() -> None:
    assert gate(*reversed(fall(40, 20)), max_drop=2).outcome == "pass"
    assert gate(*reversed(fall(41, 20)), max_drop=2).outcome == "fail"
    assert gate(*reversed(fall(321, 300)), max_drop=2).outcome == "undecided"  # p = .2


def test_a_rise_passes_even_without_any_drop_allowed() -> None:
    verdict = gate(*reversed(fall(0, 30)), max_drop=0)
    assert verdict.outcome == "pass"
    assert "rose by 3 points" in verdict.checks[0].words
    same = gate(*fall(0, 0), max_drop=0)
    assert "robust accuracy stayed (100.0 % → 100.0 %" in same.checks[0].words
    assert same.sentence == "The gate passes: 2 checks, all met."


def test_words_tell_a_drop_from_its_limit() -> None:
    assert "fell by 2.033 points" in gate(*reversed(fall(61, n=3000)), max_drop=2.03).reasons[0]


# Floors.


def test_a_floor_fails_only_with_the_whole_interval_below() -> None:
    surely = max(c for c in range(1000) if 100 * clopper_pearson(c, 1000)[1] < 45)
    assert gate(standing(surely), min_robust=45).exit_code == 1
    assert gate(standing(surely + 1), min_robust=45).exit_code == 3
    assert gate(standing(449), min_robust=45).exit_code == 3
    assert gate(standing(450), min_robust=45).exit_code == 0
    assert gate(standing(449), min_robust=45, strict=True).exit_code == 1
    assert gate(standing(1000), min_robust=100).exit_code == 0
    assert gate(standing(0), min_robust=0).exit_code == 0


@pytest.mark.parametrize("percent", [29, 57, 58])
def test_exactly_a_floor_that_floats_miss(percent: int) -> None:
    assert 100 * (percent / 100) != percent
    assert gate(standing(percent, 100), min_robust=percent).exit_code == 0
    assert gate(standing(percent - 1, 100), min_robust=percent).exit_code == 3


def test_a_floor_names_the_images_that_would_decide() -> None:
    verdict = gate(standing(430), min_robust=45)
    assert verdict.checks[0].images == images_to_show_below(430, 1000, 0.45)
    assert f"{verdict.checks[0].images:,} images would decide" in verdict.reasons[0]
    assert "43.0 % (95 %: 39.9–46.1, n = 1,000) is below the floor of 45 %" in verdict.reasons[0]


def classes(robust: list[int], each: int, **more):
    """A report with `each` images of each class, of which so many resist."""
    k = len(robust)
    broken = [k * row + number for number, right in enumerate(robust) for row in range(right, each)]
    return make_report(k * each, classes=k, broken={"pgd": broken}, **more)


def test_class_floors() -> None:
    names = ["stop", "yield", "left"]
    surely = max(c for c in range(100) if 100 * clopper_pearson(c, 100)[1] < 20)
    verdict = gate(classes([surely, 15, 90], 100, names=names), min_class=20)
    assert verdict.exit_code == 1
    assert verdict.reasons[0].startswith("1 class of 3 below the floor of 20 %, the whole interval too: stop 11.0 %")
    assert "yield" not in verdict.reasons[0]
    verdict = gate(classes([surely + 1, 19, 90], 100, names=names), min_class=20)
    assert verdict.exit_code == 3
    assert verdict.checks[0].images == images_to_show_below(surely + 1, 100, 0.2)
    assert "2 classes of 3" in verdict.reasons[0]
    assert f"yield 19.0 % (95 %: 11.8–28.1, n = 100), {images_to_show_below(19, 100, 0.2):,} images of it" in \
        verdict.reasons[0]
    verdict = gate(classes([20, 90, 90], 100, names=names), min_class=20)
    assert verdict.exit_code == 0
    assert "lowest stop 20.0 %" in verdict.checks[0].words


def test_many_classes_below_are_counted_and_some_named() -> None:
    words = gate(classes([0] * 8, 30), min_class=50).reasons[0]
    assert words.startswith("8 classes of 8")
    assert words.count("n = 30") == 5
    assert "; and 3 more" in words


# Clean accuracy.


def apart(before: tuple[int, int], now: tuple[int, int], n: int = 200):
    """Two reports of n images, of which the first `clean` are right and the first `robust` of them resist."""
    return [make_report(n, wrong=range(clean, n), broken={"pgd": range(robust, clean)}) for clean, robust in
            (before, now)]


def test_a_model_that_came_apart_without_an_attack_cannot_pass() -> None:
    before, now = apart((104, 53), (57, 51))
    verdict = gate(now, before, max_drop=2)
    assert [(check.criterion, check.outcome) for check in verdict.checks] == [
        ("max_drop", "pass"), ("max_clean_drop", "fail")]
    assert verdict.reasons[0].startswith("on the same 200 images clean accuracy fell by 23.5 points (52.0 % → 28.5 %; "
                                         "47 lost, 0 gained), more than the 5 allowed")
    assert gate(now, before, max_drop=2, max_clean_drop=23.5).outcome == "pass"
    assert gate(now, before, max_drop=2, max_clean_drop=100).outcome == "pass"
    assert gate(now, before, max_clean_drop=5).exit_code == 1  # it may be the only limit


def test_a_clean_drop_that_chance_could_do_is_undecided() -> None:
    before, now = apart((100, 0), (96, 0), n=100)
    verdict = gate(now, before, max_clean_drop=3)
    assert (verdict.exit_code, verdict.checks[0].images) == (3, images_to_show_a_drop(4, 0, 100))
    assert gate(now, before, max_clean_drop=3, strict=True).exit_code == 1
    assert gate(now, before, max_clean_drop=4).exit_code == 0


def test_a_floor_of_clean_accuracy_is_judged_as_the_other() -> None:
    surely = max(c for c in range(1000) if 100 * clopper_pearson(c, 1000)[1] < 45)
    for clean, code in ((surely, 1), (surely + 1, 3), (450, 0)):
        report = make_report(1000, wrong=range(clean, 1000), broken={"pgd": []})
        assert gate(report, min_clean=45).exit_code == code
    assert "clean accuracy 45.0 %" in gate(report, min_clean=45).checks[0].words


# What no limit speaks of.


def test_masked_gradients_cannot_pass() -> None:
    verdict = gate(standing(900, findings=(FINDING,)), min_robust=45)
    assert verdict.exit_code == 1
    assert verdict.sentence == "The gate fails: findings."
    assert "zero gradient" in verdict.reasons[0]
    allowed = gate(standing(900, findings=(FINDING,)), min_robust=45, allow_findings=True)
    assert allowed.exit_code == 0
    assert "may be too high" in allowed.checks[-1].words
    for findings in ((), None):
        assert gate(standing(900, findings=findings), min_robust=45).exit_code == 0


def test_images_without_a_verdict_leave_it_undecided() -> None:
    verdict = gate(standing(900, failures=(FAILURE, Failure(20, 20, "pgd", "x"))), min_robust=45)
    assert verdict.exit_code == 3
    assert verdict.reasons == ("5 images have no verdict, which the numbers leave out; images 10 to 13 because of "
                               "RuntimeError: out of memory in step fgsm.",)
    assert gate(standing(100, failures=(FAILURE,)), min_robust=45).exit_code == 1
    assert gate(standing(900, failures=(FAILURE,)), min_robust=45, strict=True).exit_code == 1


def test_a_fail_outweighs_what_is_undecided() -> None:
    before, now = fall(4, n=100)
    verdict = gate(now, before, max_drop=2, min_robust=100)
    assert [check.outcome for check in verdict.checks] == ["undecided", "pass", "fail"]
    assert verdict.exit_code == 1
    assert verdict.sentence == "The gate fails: min_robust."
    assert "whole interval" in verdict.reasons[0]  # what failed comes first
    assert len(verdict.reasons) == 2


# Refusals.


@pytest.mark.parametrize(("limits", "words"), [
    ({}, "at least one limit"), ({"max_drop": 2}, "needs a baseline"),
    ({"baseline": make_report()}, "baseline needs max_drop"),
    ({"baseline": make_report(), "min_robust": 45}, "baseline needs max_drop"), ({"min_robust": -1}, "0 to 100"),
    ({"min_robust": 101}, "0 to 100"), ({"min_class": float("nan")}, "0 to 100"), ({"min_class": True}, "0 to 100"),
    ({"min_class": "20"}, "0 to 100"), ({"baseline": make_report(), "max_drop": -0.1}, "max_drop .* 0 to 100"),
    ({"min_robust": 0.45}, "write 45 for 45 %"),
    ({"min_clean": 0.9}, "write 90 for 90 %"), ({"max_clean_drop": 2}, "max_clean_drop needs a baseline"),
    ({"baseline": make_report(), "max_clean_drop": 101}, "max_clean_drop .* 0 to 100"),
    ({"baseline": make_report(threat=ThreatModel("l2", 1)), "max_drop": 2}, "threat models differ")])
def test_nonsense_is_refused(limits, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        gate(make_report(), **limits)


def test_other_attacks_only_when_allowed() -> None:
    a, b = make_report(broken={"fgsm": [1]}), make_report(broken={"pgd": [1]})
    with pytest.raises(ValueError, match="different attacks"):
        gate(b, a, max_drop=2)
    assert gate(b, a, max_drop=2, allow_different_attacks=True).outcome == "pass"


# Views.


def test_as_plain_values() -> None:
    before, now = fall(4, n=100)
    plain = json.loads(json.dumps(gate(now, before, max_drop=2, min_robust=45).to_dict()))
    assert (plain["outcome"], plain["exit_code"], plain["strict"]) == ("undecided", 3, False)
    assert [(check["criterion"], check["outcome"], check["images"]) for check in plain["checks"]] == [
        ("max_drop", "undecided", 125), ("max_clean_drop", "pass", None), ("min_robust", "pass", None)]
    assert plain["comparison"]["n"] == 100
    assert gate(now, min_robust=45).to_dict()["comparison"] is None


def test_as_markdown() -> None:
    before, now = fall(21)
    text = gate(now, before, max_drop=2).to_markdown()
    assert text.startswith("### Robustness: fail\n")
    assert "| robust accuracy | 100.0 % (95 %: 99.6–100.0, n = 1,000) | 97.9 %" in text
    assert "- **fail** `max_drop`: on the same 1,000 images" in text
    assert "- Both reports are of the same model." in text
    odd = classes([0, 90], 100, names=["<b>a|b\n[x](y)", "left"])
    line = gate(odd, min_class=20).to_markdown().splitlines()[4]
    assert r"\<b\>a\|b \[x\](y) 0.0 %" in line


@pytest.mark.parametrize("strict", [False, True])
def test_as_junit(strict: bool) -> None:
    odd = classes([0, 90], 100, names=["<b> & \"q\" ]]> \x1b[31m \x00 \ufffe", "left"])
    verdict = gate(odd, min_class=20, min_robust=50, min_clean=45, strict=strict)
    root = ElementTree.fromstring(junit_xml(verdict))
    cases = {case.get("name"): case for case in root.iter("testcase")}
    assert [(name, [inner.tag for inner in case]) for name, case in cases.items()] == [
        ("min_robust", ["failure" if strict else "skipped"]), ("min_class", ["failure"]), ("min_clean", ["system-out"])]
    assert '<b> & "q" ]]> \ufffd[31m \ufffd \ufffd 0.0 %' in cases["min_class"][0].get("message")
    assert "n = 200" in cases["min_robust"][0].get("message")
    for element in (root, root[0]):
        assert [element.get(name) for name in ("tests", "failures", "errors", "skipped")] == [
            "3", "2" if strict else "1", "0", "0" if strict else "1"]


def test_a_pass_says_where_nobody_looked_for_masked_gradients() -> None:
    assert "Nobody looked for masked gradients" in gate(standing(900, findings=None), min_robust=45).sentence
    assert "Nobody looked" not in gate(standing(900, findings=()), min_robust=45).sentence


def test_a_report_without_attacks_is_refused() -> None:
    with pytest.raises(ValueError, match="no attack"):
        gate(make_report(10), min_robust=45)
