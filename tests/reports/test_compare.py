"""Two reports, image by image."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from made_reports import make_report
from scipy.special import gammaln, xlogy

from robustness_lib import ThreatModel
from robustness_lib.reports.compare import compare, p_value, paired_interval, points
from robustness_lib.reports.findings import Finding
from robustness_lib.reports.report import Failure
from robustness_lib.statistics import mcnemar


def test_it_counts_what_changed() -> None:
    a = make_report(20, wrong=[0], broken={"pgd": [1, 2, 3]})  # robust: 4 ... 19
    b = make_report(20, wrong=[4], broken={"pgd": [0, 1, 5, 6]})  # robust: 2, 3, 7 ... 19
    both = compare(a, b)
    assert (both.n, both.of) == (20, (20, 20))
    assert [accuracy.correct for accuracy in both.robust] == [16, 15]
    assert [accuracy.correct for accuracy in both.clean] == [19, 19]
    assert both.lost == (4, 5, 6)
    assert both.gained == (2, 3)
    assert (both.drop, both.change) == (Fraction(5), -0.05)
    assert (both.p, both.p_drop) == (mcnemar(3, 2), mcnemar(3, 2, "greater"))
    assert both.interval == paired_interval(3, 2, 20)
    back = compare(b, a)
    assert (back.lost, back.gained, back.drop) == (both.gained, both.lost, -both.drop)
    assert back.p_drop > both.p_drop


def test_the_sentence() -> None:
    a = make_report(1000, broken={"pgd": range(380)})
    b = make_report(1000, broken={"pgd": range(5, 410)})
    assert compare(a, b).sentence == (
        "Under L∞ 4/255, on the same 1,000 images, robust accuracy went from 62.0 % to 59.5 % (change −2.5 points, "
        "95 %: −3.7 to −1.3): 30 images lost, 5 gained; exact McNemar p < 0.0001.")
    assert "stayed at 62.0 % (change 0.0 points, 95 %: −0.3 to +0.3): 0 images lost" in str(compare(a, a))


def test_images_are_paired_wherever_they_stand() -> None:
    """b holds the images of a in reverse, and some of its own in between; indices are those of b."""
    a = make_report(6, digests=list("uvwxyz"), labels=[0] * 6, broken={"pgd": [0]})
    b = make_report(8, digests=list("zy1xwv2u"), labels=[0] * 8, broken={"pgd": [0, 2, 6]})
    b = replace(b, examples=replace(b.examples, index=b.examples.index + 100))
    both = compare(a, b)
    assert (both.n, both.of, both.lost, both.gained) == (6, (6, 8), (100,), (107,))
    assert both.notes[0] == "Only the 6 images that both reports hold are compared, of 6 and 8."


def test_the_kth_copy_is_paired_with_the_kth_copy() -> None:
    a = make_report(5, digests=["s", "s", "t", "s", "u"], labels=[0] * 5, broken={"pgd": [1]})
    b = make_report(4, digests=["t", "s", "s", "v"], labels=[0] * 4, broken={"pgd": [1]})
    both = compare(a, b)
    assert both.n == 3  # t, and two of the three copies of s
    assert (both.lost, both.gained) == ((1,), (2,))
    assert compare(b, a).n == 3
    a = make_report(5, digests=["s", "s", "t", "s", "u"], labels=[0] * 5, broken={"pgd": [0]})
    assert compare(a, b).lost == compare(a, b).gained == ()  # the first copy fell in both, the second in neither
    assert compare(a, a).lost == compare(a, a).gained == ()


def test_classes_with_the_largest_change_come_first() -> None:
    labels = [0] * 4 + [1] * 10 + [2] * 4 + [3] * 2
    a = make_report(20, labels=labels, classes=4, names="abcd", broken={"pgd": [0, 14]})
    b = make_report(20, labels=labels, classes=4, names="abcd", broken={"pgd": [0, 4, 5, 15, 16, 17]})
    both = compare(a, b)
    assert [(one.name, one.number, one.lost, one.gained) for one in both.per_class] == [
        ("c", 2, 3, 1), ("b", 1, 2, 0), ("a", 0, 0, 0), ("d", 3, 0, 0)]
    first = both.per_class[0]
    assert (first.before.correct, first.after.correct, first.after.n, first.change) == (3, 1, 4, -0.5)
    assert [one.name for one in compare(b, a).per_class] == ["c", "b", "a", "d"]  # large rises as well


# Refusals.


def test_other_threat_models_are_refused() -> None:
    a = make_report()
    with pytest.raises(ValueError, match=r"threat models differ: L∞ 4/255 and L2 0\.0156863"):
        compare(a, make_report(threat=ThreatModel("l2", 4 / 255)))
    with pytest.raises(ValueError, match="threat models differ: L∞ 4/255 and L∞ 8/255"):
        compare(a, make_report(threat=ThreatModel("linf", 8 / 255)))
    with pytest.raises(ValueError, match=r"differ: L∞ 0\.1 and L∞ 0\.100002"):
        compare(make_report(threat=ThreatModel("linf", 0.1)), make_report(threat=ThreatModel("linf", 0.100_002)))
    compare(a, make_report(threat=ThreatModel("linf", 0.015_686_27)))  # the same ε, typed with fewer digits


def test_too_few_shared_images_are_refused() -> None:
    a = make_report(10, digests=list("abcdefghij"))
    assert compare(a, make_report(10, digests=list("abcde12345"))).n == 5
    with pytest.raises(ValueError, match=r"share 4 images of 10 and 10 .*half"):
        compare(a, make_report(10, digests=list("abcd123456")))
    assert compare(a, make_report(2, digests=list("ab"))).n == 2
    with pytest.raises(ValueError, match="share 0 images"):
        compare(a, make_report(1, digests=["!"]))


def with_settings(settings: str, **more):
    report = make_report(10, broken={"fgsm": [], "pgd": [1]}, **more)
    return replace(report, attacks=(report.attacks[0], replace(report.attacks[1], settings=settings)))


def test_other_attacks_are_refused_unless_allowed() -> None:
    a, b = with_settings("PGD(steps=20)"), with_settings("PGD(steps=40)")
    with pytest.raises(ValueError, match=r"pgd was PGD\(steps=20\) on correct images, then PGD\(steps=40\)"):
        compare(a, b)
    assert any("The attacks differ" in note and "steps=40" in note
               for note in compare(a, b, allow_different_attacks=True).notes)
    fewer = make_report(10, broken={"fgsm": []})
    with pytest.raises(ValueError, match="pgd was run only for the second report"):
        compare(fewer, a)
    with pytest.raises(ValueError, match="pgd was run only for the first report"):
        compare(a, fewer)
    with pytest.raises(ValueError, match=r"on correct images, then .* on survivors images"):
        compare(make_report(broken={"pgd": []}), make_report(broken={"pgd": []}, survivors=["pgd"]))


def test_seed_place_in_memory_order_and_name_of_the_suite_are_no_obstacle() -> None:
    compare(with_settings("PGD(steps=20, seed=0)"), with_settings("PGD(steps=20, seed=17)", suite="mine"))
    compare(with_settings("<f at 0x7fa0>"), with_settings("<f at 0x7fb8>"))
    compare(make_report(broken={"fgsm": [1], "pgd": [2]}), make_report(broken={"pgd": [2], "fgsm": [1]}))
    with pytest.raises(ValueError, match="different attacks"):
        compare(with_settings("PGD(steps=20, seed=0)"), with_settings("PGD(steps=21, seed=0)"))


def test_notes_say_what_else_differs() -> None:
    finding = Finding("zero gradient", "…", 0.001, 0.1, 10, 100)
    a = make_report(environment={"seed": "0", "date": "then", "torch": "2.15"}, findings=(finding,),
                    failures=(Failure(10, 12, "fgsm", "RuntimeError: no"),))
    b = make_report(environment={"seed": "1", "date": "now", "device": "cpu", "torch": "2.15"}, names=["p", "q"])
    notes = compare(a, b).notes
    assert "seed differs: 0, then 1." in notes
    assert "device differs: not recorded, then cpu." in notes
    assert "Both reports are of the same model." in notes
    assert any("first report shows signs of masked gradients (zero gradient)" in note for note in notes)
    assert "3 images of the first report have no verdict and are left out." in notes
    assert any("names of the classes" in note for note in notes)
    assert not any("date" in note or "torch" in note for note in notes)
    other = replace(make_report(), fingerprints={"model": "n" * 64})
    assert compare(make_report(), other).notes == ()


# The interval.


def coverage(n: int, steps: int) -> np.ndarray:
    """How often the interval holds the truth, exactly, for each truth on a grid of (share lost, share gained)."""
    lost, gained = (column[np.add(*np.indices((n + 1, n + 1))) <= n] for column in np.indices((n + 1, n + 1)))
    ends = np.array([paired_interval(int(down), int(up), n) for down, up in zip(lost, gained, strict=True)])
    ways = gammaln(n + 1) - gammaln(lost + 1) - gammaln(gained + 1) - gammaln(n - lost - gained + 1)
    found = []
    for p in np.linspace(0, 1, steps):
        for q in np.linspace(0, p, steps):
            if p + q < 1:
                weight = np.exp(ways + xlogy(lost, p) + xlogy(gained, q) + xlogy(n - lost - gained, 1 - p - q))
                inside = (ends[:, 0] <= q - p + 1e-12) & (q - p - 1e-12 <= ends[:, 1])
                found.append(weight[inside].sum())
    return np.array(found)


@pytest.mark.parametrize(("n", "worst"), [(20, 0.925), (100, 0.934)])
def test_the_interval_covers_the_truth(n: int, worst: float) -> None:
    covered = coverage(n, 21)
    assert covered.min() >= worst
    assert 0.95 <= covered.mean() <= 0.97


def test_the_interval_is_symmetric_and_stays_in_range() -> None:
    low, high = paired_interval(7, 3, 50)
    assert paired_interval(3, 7, 50) == pytest.approx((-high, -low))
    assert low < -4 / 50 < high
    assert paired_interval(1, 0, 1)[0] == -1
    assert paired_interval(0, 1, 1)[1] == 1
    for nonsense in ((-1, 0, 5), (0, -1, 5), (3, 3, 5), (0, 0, 0)):
        with pytest.raises(ValueError, match="found"):
            paired_interval(*nonsense)


def test_words_for_numbers() -> None:
    assert [points(value) for value in (2.04, -0.26, 0.0, -0.001)] == ["+2.0", "−0.3", "0.0", "0.0"]
    assert [p_value(p) for p in (1.0, 0.0499, 0.000_1, 0.000_099)] == ["p = 1", "p = 0.0499", "p = 0.0001",
                                                                         "p < 0.0001"]


def test_as_plain_values() -> None:
    both = compare(make_report(broken={"pgd": []}), make_report(broken={"pgd": [3]}))
    plain = json.loads(json.dumps(both.to_dict()))
    assert (plain["n"], plain["lost"], plain["gained"], plain["change"]) == (10, [3], [], -0.1)
    assert [one["correct"] for one in plain["robust"]] == [10, 9]
    assert plain["per_class"][0] | {"before": 0, "after": 0} == {
        "number": 1, "name": "class 1", "before": 0, "after": 0, "change": -0.2, "lost": 1, "gained": 0}
    assert plain["sentence"] == both.sentence
