"""The report of an evaluation: per-example verdicts, and every figure derived from them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from robustness_lib.files import read_text, write_whole
from robustness_lib.reports import plain_json
from robustness_lib.reports.export import Exported, export_images
from robustness_lib.reports.findings import Finding
from robustness_lib.statistics import Accuracy
from robustness_lib.threat import ThreatModel

__all__ = ["CLASS_FLOOR", "AttackRecord", "BoundRecord", "ClassVerdict", "Column", "Curve", "Doubt", "Examples",
           "Failure", "Picture", "Report"]

Column = NDArray[Any]  # of length n, one entry per image

CLASS_FLOOR = 0.2  # a class of which fewer images resist is flagged


@dataclass(frozen=True)
class Examples:
    """What is known of each of the n images evaluated. Columns of length n, in the order of the data: numpy
    arrays, so that reading, comparing and gating a report needs no torch.

    index: (n,) int64, number in the data given. digest: of pixels and label, so that the images of two reports can be
    paired. label, predicted: (n,) int64. top5: (n,) bool, the label is among the five largest logits (of all, where
    there are fewer). broken_by: the first attack that broke it, or None (also where it was wrong without any attack).
    mistaken_for: (n,) int64, the class that its adversarial image gets, −1 where there is none. distance:
    (n,) float64 of that image in the threat model's norm, NaN without one.
    """

    index: Column
    digest: tuple[str, ...]
    label: Column
    predicted: Column
    top5: Column
    broken_by: tuple[str | None, ...]
    mistaken_for: Column
    distance: Column


@dataclass(frozen=True)
class AttackRecord:
    """One attack: what it was tried on, what it broke, what it spent.

    on: "correct" where it was tried on every image that the model had right, "survivors" where only on what the
    attacks before it left standing, "not followed" where only on those of them on which none could follow a gradient
    (its own accuracy is then unknown). tried, broke: (n,) bool.
    calls: batches sent through the model; queries, gradients: forward and backward passes over all images (0 for a
    foreign attack, whose passes are not counted). seconds: of the attack and the check of what it found.
    """

    name: str
    settings: str
    on: str
    tried: Column
    broke: Column
    calls: int
    queries: int
    gradients: int
    seconds: float


@dataclass(frozen=True)
class BoundRecord:
    """One way to bound: what it was tried on, what it proved, what it cost. tried, proved: (n,) bool. passes: forward
    passes over one image that would have taken as long, about."""

    name: str
    tried: Column
    proved: Column
    passes: float
    seconds: float


@dataclass(frozen=True)
class Curve:
    """Accuracy over ε. eps: ascending. stood: (len(eps), n) bool, right and not broken by this attack, started afresh
    at each ε; at the threat model's own ε, right and not broken by any attack of the suite."""

    settings: str
    eps: tuple[float, ...]
    stood: Column


@dataclass(frozen=True)
class Doubt:
    """Something that voids the verdict. kind: a short name. message: what was seen, and what would decide."""

    kind: str
    message: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}"


@dataclass(frozen=True)
class Failure:
    """Images first to last (numbers in the data) have no verdict: the model or an attack raised `error` in `step`."""

    first: int
    last: int
    step: str
    error: str


@dataclass(frozen=True)
class Picture:
    """An example to look at: PNG files in base64. change: magnified, mid-grey is none; the scale is filled by ±ε
    (L∞) or by the largest change of this image (L2)."""

    index: int
    label: int
    mistaken_for: int
    attack: str
    clean: str
    change: str
    adversarial: str


@dataclass(frozen=True)
class ClassVerdict:
    """A class: its images, how many are right and how many resist, and what the others are mistaken for under attack:
    (class number, how often), most frequent first. flagged: fewer than a fifth of its images resist."""

    number: int
    name: str
    clean: Accuracy
    robust: Accuracy
    mistaken_for: tuple[tuple[int, int], ...]

    @property
    def flagged(self) -> bool:
        return self.robust.value < CLASS_FLOOR


@dataclass(frozen=True, repr=False)
class Report:
    """What `evaluate` returns. Data first: the columns of `examples` and `attacks` decide every figure.

    doubts: what voids the verdict. Where there is any, the report is not `valid`: the columns say what was found, but
    no accuracy under attack may be told of them.
    classes: their names. curve: None where none was computed. findings: signs of masked gradients; None where nobody
    looked for them. notes: warnings of the attacks, in words. certified: (n,) bool, proved, or None; certified_by: how,
    where that is known. bounds: those that the evaluation itself proved images by, before any attack.
    failures: images without a verdict; they are in no column. fingerprints: "model", "data".
    environment: versions, device, precision, seed, date: what a reader needs to do it again. provenance: what was
    evaluated, as whoever called it named it: model, weights and their checksum, normalization, data, command line,
    commit; empty where nobody says. drawn: of each image its file or row in the data; () where nobody says. seconds: of
    all steps, over all processes, also of the parts that an earlier, killed run did. images: the folder with the
    adversarial images that were kept, for `export`; not written.
    """

    threat: ThreatModel
    suite: str
    classes: tuple[str, ...]
    examples: Examples
    attacks: tuple[AttackRecord, ...]
    curve: Curve | None = None
    findings: tuple[Finding, ...] | None = None
    notes: tuple[str, ...] = ()
    certified: Column | None = None
    certified_by: str = field(default="", metadata={"added": True})
    bounds: tuple[BoundRecord, ...] = field(default=(), metadata={"added": True})
    failures: tuple[Failure, ...] = ()
    pictures: tuple[Picture, ...] = ()
    doubts: tuple[Doubt, ...] = field(default=(), metadata={"added": True})
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    provenance: Mapping[str, str] = field(default_factory=dict, metadata={"added": True})
    drawn: tuple[str, ...] = field(default=(), metadata={"added": True})
    seconds: float = 0.0
    images: str | None = field(default=None, compare=False, metadata={"written": False})

    view: ClassVar[Callable[[Report], str] | None] = None  # how a notebook shows it; page.py says

    def __post_init__(self) -> None:
        columns: dict[str, Any] = {f"examples.{name}": column for name, column in vars(self.examples).items()}
        columns |= {f"{a.name}.{name}": column for a in self.attacks
                    for name, column in (("tried", a.tried), ("broke", a.broke))}
        columns |= {f"{b.name}.{name}": column for b in self.bounds
                    for name, column in (("tried", b.tried), ("proved", b.proved))}
        columns |= {"drawn": self.drawn} if self.drawn else {}
        columns |= {} if self.certified is None else {"certified": self.certified}
        columns |= {} if self.curve is None else {f"curve at {eps:g}": row
                                                             for eps, row in zip(self.curve.eps, self.curve.stood,
                                                                                 strict=True)}
        for name, column in columns.items():
            if not isinstance(column, (np.ndarray, tuple)):
                raise TypeError(f"{name} must be a numpy array; found {type(column).__name__}")
            if len(column) != self.n:
                raise ValueError(f"{name} has {len(column)} entries for {self.n} examples")
        if self.n == 0:
            raise ValueError("a report needs at least one example")
        for least, label in ((0, self.examples.label), (0, self.examples.predicted), (-1, self.examples.mistaken_for)):
            if not least <= int(label.min()) <= int(label.max()) < len(self.classes):
                raise ValueError(f"classes {int(label.min())} to {int(label.max())} are not all among the "
                                 f"{len(self.classes)} that have a name")
        names = [attack.name for attack in self.attacks]
        if len(set(names)) < len(names):
            raise ValueError(f"two attacks have one name: {', '.join(names)}")
        for attack in self.attacks:
            if (attack.broke & ~attack.tried).any() or (attack.tried & ~self.clean).any():
                raise ValueError(f"{attack.name} broke images that it was not tried on, or that were wrong before")

    @property
    def n(self) -> int:
        return len(self.examples.label)

    @property
    def clean(self) -> Column:
        """(n,) bool: right without an attack."""
        right: Column = self.examples.predicted == self.examples.label
        return right

    @cached_property
    def robust(self) -> Column:
        """(n,) bool: right, and broken by no attack. The worst case per example; the headline counts these."""
        standing = self.clean
        for attack in self.attacks:
            standing = standing & ~attack.broke
        return standing

    @property
    def clean_accuracy(self) -> Accuracy:
        return Accuracy.of(self.clean)

    @property
    def top5_accuracy(self) -> Accuracy:
        return Accuracy.of(self.examples.top5)

    @property
    def valid(self) -> bool:
        """There is a verdict: nothing voids it."""
        return not self.doubts

    @property
    def robust_accuracy(self) -> Accuracy:
        """An upper bound on the true robust accuracy: the attacks may have missed something. Where the report is not
        `valid` it says how many images were left standing, and nothing of the model."""
        return Accuracy.of(self.robust)

    @property
    def certified_accuracy(self) -> Accuracy | None:
        """A lower bound on it: right, and proved constant."""
        return None if self.certified is None else Accuracy.of(self.certified & self.clean)

    @property
    def open_images(self) -> int | None:
        """Right, and neither proved by the bounds nor broken: how many. None where no bounds were asked."""
        return int((self.robust & ~self.certified).sum()) if self.bounds and self.certified is not None else None

    @property
    def decided(self) -> bool:
        """Each image is proved by bounds, broken or wrong, so that the robust accuracy is no upper bound but itself."""
        return self.valid and self.open_images == 0 and not self.failures

    def own(self, name: str) -> Accuracy | None:
        """Accuracy under this attack alone; None where it was tried on survivors only."""
        record = self.attack(name)
        return None if record.on != "correct" else Accuracy.of(self.clean & ~record.broke)

    def cumulative(self, name: str) -> Accuracy:
        """Accuracy under this attack and all before it, worst case per example."""
        standing = self.clean
        for record in self.attacks:
            standing = standing & ~record.broke
            if record.name == name:
                return Accuracy.of(standing)
        raise self._unknown(name)

    def attack(self, name: str) -> AttackRecord:
        for record in self.attacks:
            if record.name == name:
                return record
        raise self._unknown(name)

    def _unknown(self, name: str) -> ValueError:
        return ValueError(f"no attack is called {name!r} here; there are {', '.join(a.name for a in self.attacks)}")

    @property
    def strongest(self) -> str | None:
        """The attack that did most. Where attacks on survivors broke anything: the one of them that broke most, since
        it went beyond all before. Else the one that broke most on its own. None where nothing was broken."""
        for beyond in (True, False):
            broke = {record.name: int(record.broke.sum()) for record in self.attacks
                     if (record.on != "correct") == beyond}
            if broke and max(broke.values()) > 0:
                return max(broke, key=lambda name: broke[name])
        return None

    @property
    def per_class(self) -> tuple[ClassVerdict, ...]:
        """Each class that the data hold."""
        label, mistaken = self.examples.label, self.examples.mistaken_for
        verdicts = []
        for number in sorted(set(label.tolist())):
            of = label == number
            others = Counter(mistaken[of & (mistaken >= 0)].tolist())
            verdicts.append(ClassVerdict(number, self.classes[number], Accuracy.of(self.clean[of]),
                                         Accuracy.of(self.robust[of]), tuple(others.most_common())))
        return tuple(verdicts)

    @property
    def confusion(self) -> Column:
        """(K, K) int64: row the label, column the class under attack (the predicted one where no attack succeeded)."""
        mistaken = self.examples.mistaken_for
        seen = np.where(mistaken >= 0, mistaken, self.examples.predicted)
        k = len(self.classes)
        return np.bincount(self.examples.label * k + seen, minlength=k * k).reshape(k, k)

    @property
    def curve_alone(self) -> tuple[Accuracy, ...]:
        """Accuracy at each ε of the curve, by what attacked at that ε alone: the suite at the threat model's own, else
        the curve's attack."""
        return () if self.curve is None else tuple(Accuracy.of(stood) for stood in self.curve.stood)

    @property
    def curve_carried(self) -> tuple[Accuracy, ...]:
        """The same after what broke at a smaller ε is counted at the larger ones too, as it should be: the smaller
        ball lies in the larger. Whatever the suite's attacks broke at ε counts from ε on."""
        if self.curve is None:
            return ()
        standing, carried = self.clean, []
        for eps, stood in zip(self.curve.eps, self.curve.stood, strict=True):
            standing = standing & stood
            if eps >= self.threat.eps:
                standing = standing & self.robust
            carried.append(Accuracy.of(standing))
        return tuple(carried)

    @property
    def sentence(self) -> str:
        """The report in one sentence."""
        robust, n, certified = self.robust_accuracy, self.n, self.certified_accuracy
        if not self.valid:
            return f"Not evaluated under {self.threat}: " + " Besides: ".join(doubt.message for doubt in self.doubts)
        parts = [f"Under {self.threat} at most {_with_interval(robust)} of {n:,} images resist"]
        if self.decided:
            return (f"Under {self.threat} {_with_interval(robust)} of {n:,} images are proved to resist, and each of "
                    f"the others is wrong or broken.")
        if certified is not None:
            parts[0] += f" and at least {_with_interval(certified)} are proved to"
        parts.append(f"strongest attack {self.strongest}" if self.strongest else "no attack broke any")
        if self.findings is None:
            parts.append("masked gradients were not looked for")
        elif self.findings:
            parts.append(f"do not trust it: {', '.join(finding.kind for finding in self.findings)}")
        else:
            parts.append("no sign of masked gradients")
        if self.suite == "quick":
            parts.append("a quick look, not a verdict")
        if self.failures:
            lost = sum(failure.last - failure.first + 1 for failure in self.failures)
            parts.append(f"{lost:,} images have no verdict")
        return "; ".join(parts) + "."

    def __str__(self) -> str:
        return self.sentence

    def __repr__(self) -> str:
        return f"<Report: {self.sentence}>"  # not every verdict: a notebook keeps this text beside the page

    def to_json(self) -> str:
        """The whole report; `from_json` gives it back. Its first entries are the sentence and whether it is valid."""
        first = {"sentence": self.sentence, "valid": self.valid, "schema": plain_json.SCHEMA}
        return json.dumps({**first, **plain_json.encode(self)}, indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Report:
        """Raises ValueError for anything but a report of a schema that this version knows."""
        report: Report = plain_json.decode(cls, text)
        return report

    def save(self, path: str | Path) -> Path:
        """Write the JSON, whole or not at all."""
        write_whole(Path(path), self.to_json().encode())
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> Report:
        """Read what `save` wrote. Raises ValueError, which names the file, where that is not what it holds."""
        try:
            return cls.from_json(read_text(Path(path)))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    def export(self, folder: str | Path, images: str | Path | None = None) -> Exported:
        """Write the adversarial images that the evaluation kept: PNG files of 8 bits (of other than 1 or 3 channels
        .npy), each beside its clean image, and a table of them, adversarial.csv. Only images that the model was asked
        about as they are written, and erred on, inside the threat model; distances are theirs.

        images: the folder of `evaluate(..., keep_images=...)`, for a report that was loaded. Raises ValueError where
        no images were kept, where they are of other data, and for a folder that holds other files.
        """
        source = images or self.images
        if source is None:
            raise ValueError("this report knows of no images: evaluate(..., keep_images=FOLDER) keeps them, and for a "
                             "report that was loaded, export(folder, images=FOLDER) says where they are")
        return export_images(Path(source), Path(folder), self.examples, (self.clean & ~self.robust).nonzero()[0])

    def _repr_html_(self) -> str | None:
        return None if Report.view is None else Report.view(self)


def _with_interval(accuracy: Accuracy) -> str:
    """62 % (95 %: 52–72)."""
    low, high = accuracy.interval
    return f"{_percent(accuracy)} (95 %: {100 * low:.0f}–{100 * high:.0f})"


def _percent(accuracy: Accuracy) -> str:
    """62 %, 2.5 %: not rounded further, since "at most 2 %" would be wrong of 2.5."""
    return f"{100 * accuracy.value:.1f}".removesuffix(".0") + " %"
