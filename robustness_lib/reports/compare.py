"""Two reports side by side, on the images that both of them hold."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Mapping, Set
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from robustness_lib.reports.report import Column, Report
from robustness_lib.statistics import Accuracy, mcnemar, paired_interval
from robustness_lib.threat import ThreatModel

__all__ = ["AS_BUILT", "ClassChange", "Comparison", "compare"]

_EPS_TOLERANCE = 1e-5  # relative; what every attack is allowed
# Differ between two runs that were made alike.
AS_BUILT = "model fingerprint as built"  # in a report's provenance
_PASSING = frozenset({"date", "command", "decided", AS_BUILT})
# In an attack's settings these do not change what it is: another draw, another place in memory.
_INCIDENTAL = re.compile(r"\bseed=-?\d+| at 0x[0-9a-fA-F]+")


@dataclass(frozen=True)
class ClassChange:
    """A class on the shared images: its robust accuracy before and now, and how many verdicts changed which way."""

    number: int
    name: str
    before: Accuracy
    after: Accuracy
    lost: int
    gained: int

    @property
    def change(self) -> float:
        """Share of the class's images; negative where fewer resist now."""
        return (self.gained - self.lost) / self.after.n


@dataclass(frozen=True)
class Comparison:
    """What `compare` returns: report a (before) and b (after), both on the n images that they share.

    of: how many images a and b hold. clean, robust: accuracy in a and in b. lost, gained: the images that were robust
    in a only and in b only, as numbers in the data of b, ascending. clean_lost, clean_gained: the same of those that
    are right without an attack. per_class: each class, largest change of its robust accuracy first. notes: in words,
    what a reader has to know before believing it.
    """

    threat: ThreatModel
    n: int
    of: tuple[int, int]
    clean: tuple[Accuracy, Accuracy]
    robust: tuple[Accuracy, Accuracy]
    lost: tuple[int, ...]
    gained: tuple[int, ...]
    clean_lost: tuple[int, ...]
    clean_gained: tuple[int, ...]
    per_class: tuple[ClassChange, ...]
    notes: tuple[str, ...]

    @property
    def drop(self) -> Fraction:
        """By how many percent points robust accuracy fell, exactly; negative where it rose."""
        return Fraction(100 * (len(self.lost) - len(self.gained)), self.n)

    @property
    def change(self) -> float:
        """Of robust accuracy, as a share; negative where it fell."""
        return (len(self.gained) - len(self.lost)) / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of `change`, see `paired_interval`."""
        return paired_interval(len(self.lost), len(self.gained), self.n)

    @property
    def p(self) -> float:
        """Of the exact McNemar test, two-sided: that the number of images that resist changed."""
        return mcnemar(len(self.lost), len(self.gained))

    @property
    def p_drop(self) -> float:
        """The same one-sided: that it fell."""
        return mcnemar(len(self.lost), len(self.gained), "greater")

    @property
    def sentence(self) -> str:
        """The comparison in one sentence."""
        low, high = self.interval
        before, after = (100 * accuracy.value for accuracy in self.robust)
        went = f"went from {before:.1f} % to {after:.1f} %" if self.drop else f"stayed at {after:.1f} %"
        return (f"Under {self.threat}, on the same {self.n:,} images, robust accuracy {went} (change "
                f"{points(100 * self.change)} points, 95 %: {points(100 * low)} to {points(100 * high)}): "
                f"{len(self.lost):,} images lost, {len(self.gained):,} gained; exact McNemar {p_value(self.p)}.")

    def __str__(self) -> str:
        return self.sentence

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values, for JSON. Accuracies and changes are shares, not percent."""
        return {
            "sentence": self.sentence, "threat": {"norm": self.threat.norm, "eps": self.threat.eps}, "n": self.n,
            "of": list(self.of), "clean": [_plain(accuracy) for accuracy in self.clean],
            "robust": [_plain(accuracy) for accuracy in self.robust], "change": self.change,
            "interval": list(self.interval), "p": self.p, "p_drop": self.p_drop, "lost": list(self.lost),
            "gained": list(self.gained), "clean_lost": list(self.clean_lost),
            "clean_gained": list(self.clean_gained), "notes": list(self.notes),
            "per_class": [{"number": one.number, "name": one.name, "before": _plain(one.before),
                           "after": _plain(one.after), "change": one.change, "lost": one.lost, "gained": one.gained}
                          for one in self.per_class],
        }


def compare(a: Report, b: Report, *, allow_different_attacks: bool = False) -> Comparison:
    """What changed from report a to report b, image by image.

    Images are paired by pixels and label; the k-th copy of an image in a with its k-th copy in b. Images that only one
    report holds, or that have no verdict in one, are left out.
    allow_different_attacks: compare although other attacks were run, or the same ones with other settings. A model
    seems to lose robustness when a better attack comes. Another seed, version or device is a note and no obstacle.

    Raises ValueError when a report is not valid, when the threat models differ, when the attacks do, and when the
    reports share less than half of the images of the smaller one: what is left would then say little about either.
    """
    _check_valid(a, b)
    _check_threats(a.threat, b.threat)
    different = _different_attacks(a, b)
    if different and not allow_different_attacks:
        raise ValueError(f"the reports come from different attacks, so their verdicts do not mean the same: "
                         f"{'; '.join(different)}. Evaluate both with the same suite, or allow different attacks")
    rows_a, rows_b = _pairs(a.examples.digest, b.examples.digest)
    n = len(rows_a)
    if 2 * n < min(a.n, b.n):
        raise ValueError(f"the reports share {n:,} images of {a.n:,} and {b.n:,} (paired by pixels and label); at "
                         f"least half of the smaller report is needed. Evaluate both on the same data")
    before, after = a.robust[rows_a], b.robust[rows_b]
    right = a.clean[rows_a], b.clean[rows_b]
    number = b.examples.index[rows_b]
    (lost, gained), (clean_lost, clean_gained) = _changed(number, before, after), _changed(number, *right)
    return Comparison(
        threat=b.threat, n=n, of=(a.n, b.n), clean=(Accuracy.of(right[0]), Accuracy.of(right[1])),
        robust=(Accuracy.of(before), Accuracy.of(after)), lost=lost, gained=gained, clean_lost=clean_lost,
        clean_gained=clean_gained,
        per_class=_per_class(b.examples.label[rows_b], b.classes, before, after),
        notes=tuple(_notes(a, b, n, different)),
    )


def points(value: float) -> str:
    """Percent points with a sign, and a true minus."""
    return f"{value:+.1f}".replace("-", "−") if round(value, 1) else "0.0"


def p_value(p: float) -> str:
    """p in words, to three digits."""
    return f"p = {p:.3g}" if p >= 1e-4 else "p < 0.0001"


def _pairs(a: tuple[str, ...], b: tuple[str, ...]) -> tuple[Column, Column]:
    """Rows of a and of b that hold the same image, in the order of b."""
    places: dict[str, list[int]] = defaultdict(list)
    for row in reversed(range(len(a))):
        places[a[row]].append(row)
    pairs = [(places[digest].pop(), row) for row, digest in enumerate(b) if places.get(digest)]
    first, second = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    return first, second


def _changed(number: Column, before: Column, after: Column) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Numbers of the images that were so before only, and of those that are so now only."""
    lost, gained = (tuple(sorted(number[rows].tolist())) for rows in (before & ~after, after & ~before))
    return lost, gained


def _per_class(label: Column, names: tuple[str, ...], before: Column, after: Column) -> tuple[ClassChange, ...]:
    changes = []
    for number in sorted(set(label.tolist())):
        of = label == number
        changes.append(ClassChange(number, names[number], Accuracy.of(before[of]), Accuracy.of(after[of]),
                                   int((before & ~after)[of].sum()), int((after & ~before)[of].sum())))
    return tuple(sorted(changes, key=lambda one: (-abs(one.change), one.number)))


def _check_valid(*reports: Report) -> None:
    for which, report in zip(("first", "second"), reports, strict=True):
        if not report.valid:
            raise ValueError(f"the {which} report holds no verdict, so there is nothing to compare. {report.sentence}")


def _check_threats(a: ThreatModel, b: ThreatModel) -> None:
    if a.norm != b.norm or not math.isclose(a.eps, b.eps, rel_tol=_EPS_TOLERANCE):
        raise ValueError(f"the threat models differ: {a} and {b}. Robust accuracies under different threat models "
                         f"cannot be compared; evaluate both under the same one")


def without_seed(settings: str) -> str:
    """An attack's settings without what may differ between two runs that can be compared."""
    return _INCIDENTAL.sub("", settings)


def _different_attacks(a: Report, b: Report) -> list[str]:
    """In words, how the attacks of the two reports differ, apart from the seed. Their order does not matter."""
    # In reports of earlier versions what the diagnostics broke counted, as an attack of its own.
    first, second = ({record.name: (without_seed(record.settings), record.on) for record in report.attacks
                      if (record.name != "diagnostics" or record.broke.any()) and record.on != "not followed"}
                     for report in (a, b))
    words = [f"{name} was run only for the {which} report" for here, there, which in
             ((first, second, "first"), (second, first, "second")) for name in here if name not in there]
    was = [f"{name} was " + ", then ".join(f"{report.attack(name).settings} on {report.attack(name).on} images"
                                           for report in (a, b))
           for name in first if name in second and first[name] != second[name]]
    return words + was


def _notes(a: Report, b: Report, n: int, different: list[str]) -> list[str]:
    notes = []
    if n < max(a.n, b.n):
        notes.append(f"Only the {n:,} images that both reports hold are compared, of {a.n:,} and {b.n:,}.")
    if different:
        notes.append(f"The attacks differ, and so may the verdicts for that reason alone: {'; '.join(different)}.")
    for which, report in (("first", a), ("second", b)):
        if report.findings:
            kinds = ", ".join(finding.kind for finding in report.findings)
            notes.append(f"The {which} report shows signs of masked gradients ({kinds}): its robust accuracy may be "
                         f"too high.")
        if report.failures:
            missing = sum(failure.last - failure.first + 1 for failure in report.failures)
            notes.append(f"{missing:,} images of the {which} report have no verdict and are left out.")
    if a.classes != b.classes:
        notes.append("The names of the classes differ; those of the second report are used.")
    model = a.fingerprints.get("model")
    if model and model == b.fingerprints.get("model"):
        notes.append("Both reports are of the same model.")
    notes += _differences(a.environment, b.environment, a.environment.keys() | b.environment.keys())
    # Where only one says what it was made from, as reports of earlier versions do not, nothing is known to differ.
    notes += _differences(a.provenance, b.provenance, a.provenance.keys() & b.provenance.keys())
    return notes


def _differences(a: Mapping[str, str], b: Mapping[str, str], keys: Set[str]) -> list[str]:
    """In words. A checksum is said where nothing else tells two files apart."""
    differing = {key for key in keys - _PASSING if a.get(key) != b.get(key)}
    differing -= {f"{key} sha256" for key in differing}
    return [f"{key} differs: {a.get(key, 'not recorded')}, then {b.get(key, 'not recorded')}."
            for key in sorted(differing)]


def _plain(accuracy: Accuracy) -> dict[str, Any]:
    return {"correct": accuracy.correct, "n": accuracy.n, "value": accuracy.value, "interval": list(accuracy.interval)}
