"""Points that break a smoothing certificate, as it seems: asked about again, and counted against chance.

An attack's own vote has few draws, and it looks until they are lucky. So a break counts only where many fresh votes say
so; and since each certificate may be wrong with probability alpha, one break proves nothing, and too many do.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from robustness_lib.certify import ABSTAINED, RandomizedSmoothing
from robustness_lib.state import fingerprint
from robustness_lib.statistics import binomial_test

__all__ = ["LEVEL", "VOTES", "BrokenCertificates", "seed_of_its_own", "seen_broken"]

VOTES, LEVEL = 10_000, 1e-6  # of a break's confirmation: so rarely is a class named that is not the answer
_IMPROBABLE = 0.001


def seen_broken(smoothing: RandomizedSmoothing, x_adv: Tensor, prediction: Tensor, index: Tensor, seed: int,
                batch_size: int | None = None) -> tuple[Tensor, Tensor]:
    """Whether fresh votes at x_adv (m, ...) name another class than is certified, prediction (m,): (m,) bool; and the
    class that they name, (m,) int64, −1 where they do not tell."""
    said = smoothing.predict(x_adv, VOTES, LEVEL, index=index, seed=seed, batch_size=batch_size, progress=False)
    return (said != ABSTAINED) & (said != prediction.cpu()), said


def seed_of_its_own(seed: int, *names: str) -> int:
    """For votes that nobody has seen who made certificates by this seed."""
    return int(fingerprint(f"fresh votes {seed}", *names)[:15], 16)


@dataclass(frozen=True)
class BrokenCertificates:
    """How many of the certified images that were attacked are broken. Printed, a sentence.

    asked: of how many images a certificate was asked for. Each of these gets a wrong one with probability alpha at
    most, before anybody knows which get one at all: so these are the ones to count from, and not the certified among
    them, where the wrong ones have gathered.
    """

    broken: int
    attacked: int
    asked: int
    alpha: float

    @property
    def p(self) -> float:
        """The probability of so many or more if every certificate were as likely to be wrong as is allowed."""
        return binomial_test(self.broken, self.asked, self.alpha)

    @property
    def contradict(self) -> bool:
        """More than chance does."""
        return self.p < _IMPROBABLE

    def __str__(self) -> str:
        return (f"{self.broken:,} of {self.attacked:,} certified images that were attacked are broken within their "
                f"certificate, confirmed by {VOTES:,} fresh votes each. At alpha = {self.alpha:g}, of {self.asked:,} "
                f"images asked about up to {self.alpha * self.asked:.2g} were to be expected (p = {self.p:.2g}).")
