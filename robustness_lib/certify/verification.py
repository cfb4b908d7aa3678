"""What is known of each image in a threat model: proved, broken, or neither."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from robustness_lib.inputs import check_labels
from robustness_lib.statistics import Accuracy
from robustness_lib.threat import ThreatModel

__all__ = ["VERDICTS", "ProofStage", "Verdict", "Verification"]

Verdict = Literal["robust", "unknown", "broken", "wrong"]
VERDICTS: tuple[Verdict, ...] = ("robust", "unknown", "broken", "wrong")


@dataclass(frozen=True)
class ProofStage:
    """One method of the cascade: on how many images it was tried, how many of them it decided (proved, or broken), and
    the seconds that it took, also in an earlier, killed run."""

    name: str
    attempted: int
    decided: int
    seconds: float


@dataclass(frozen=True, eq=False, repr=False)
class Verification:
    """A verdict for each image, in the order given. Printed, a sentence.

    verdicts: "robust", no image that the threat model allows gets another answer than the label, proved; "broken", one
    does, and is there; "unknown", neither was shown; "wrong", the image itself gets another answer. decided_by: what
    decided that: a bound or an attack, "clean" for "wrong", None for "unknown".
    margin: (N,) float64. Of "robust" and "unknown", the best lower bound found of the label's smallest margin, z_y less
    the largest other logit, in the threat model, −∞ where time ran out before there was one (null in JSON); of "broken"
    and "wrong", the margin at the image that shows it.
    x_adv: (N, ...) the adversarial image where there is one, else x. stages: what each method did. seconds: that an
    image could take, or None. out_of_time: (N,) bool, undecided, with methods that were not begun on it, or were cut
    short. model, images: fingerprints. notes: what else should be known.
    """

    verdicts: tuple[Verdict, ...]
    decided_by: tuple[str | None, ...]
    margin: Tensor
    x_adv: Tensor
    threat: ThreatModel
    stages: tuple[ProofStage, ...]
    seconds: float | None
    out_of_time: Tensor
    model: str
    images: tuple[str, ...] = field(repr=False)
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.verdicts)

    @property
    def n(self) -> int:
        return len(self.verdicts)

    def are(self, verdict: Verdict) -> Tensor:
        """(N,) bool: those with this verdict. Raises ValueError for another word."""
        if verdict not in VERDICTS:
            raise ValueError(f"a verdict is one of {', '.join(VERDICTS)}; found {verdict!r}")
        return torch.tensor([one == verdict for one in self.verdicts], dtype=torch.bool)

    def share(self, verdict: Verdict) -> Accuracy:
        """How many have this verdict, with n and the 95 % interval. Raises ValueError where there is no image, and for
        another word."""
        return self._of_all(int(self.are(verdict).sum()))

    @property
    def certified(self) -> Tensor:
        """(N,) bool: proved, for `evaluate(certified=...)`."""
        return self.are("robust")

    @property
    def accuracy(self) -> Accuracy:
        """Certified accuracy: at least so many keep their label under every attack."""
        return self.share("robust")

    @property
    def at_most(self) -> Accuracy:
        """No more than these can keep their label: those neither wrong nor broken."""
        return self._of_all(self.verdicts.count("robust") + self.verdicts.count("unknown"))

    def _of_all(self, count: int) -> Accuracy:
        if self.n == 0:
            raise ValueError("there was no image to verify, and so there is no share")
        return Accuracy(count, self.n)

    @property
    def sentence(self) -> str:
        if self.n == 0:
            return f"There was no image to verify under {self.threat}."
        count = Counter(self.verdicts)
        return (f"Under {self.threat}, {self.accuracy} are proved to keep their label; the rest: "
                f"{count['broken']:,} broken, {count['unknown']:,} undecided, {count['wrong']:,} wrong without an "
                f"attack.")

    def __str__(self) -> str:
        return self.sentence

    def __repr__(self) -> str:
        return f"<Verification: {self.sentence}>"

    def to_dict(self, y: Tensor | None = None) -> dict[str, Any]:
        """Everything but the images as plain values, for JSON: figures first, then image by image; no margin where
        there is no bound. y: (N,) labels, to stand beside them."""
        if y is not None:
            check_labels(y, self.margin[:, None])
        figures = {} if self.n == 0 else {str(verdict): _figures(self.share(verdict)) for verdict in VERDICTS}
        return {
            "sentence": self.sentence, "n": self.n, "threat": self.threat.text, "seconds an image": self.seconds,
            **figures, "out of time": int(self.out_of_time.sum()),
            "notes": list(self.notes),
            "methods": [vars(stage) | {"seconds": round(stage.seconds, 3)} for stage in self.stages],
            "model": self.model, "images": list(self.images), "verdicts": list(self.verdicts),
            "decided by": list(self.decided_by),
            "margin": [value if math.isfinite(value) else None for value in self.margin.tolist()],
        } | ({} if y is None else {"label": y.tolist()})


def _figures(accuracy: Accuracy) -> dict[str, Any]:
    return {"value": accuracy.value, "interval": list(accuracy.interval), "images": accuracy.correct}
