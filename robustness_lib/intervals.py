"""How sure is an accuracy? The exact interval for a share of n images."""

from __future__ import annotations

from dataclasses import dataclass

from scipy.stats import beta

__all__ = ["Accuracy", "clopper_pearson"]


def clopper_pearson(correct: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Exact interval for a binomial share (Clopper and Pearson 1934): covers the truth at least `level` of the time,
    for every n. Raises ValueError unless 0 ≤ correct ≤ n, n ≥ 1 and 0 < level < 1."""
    if not (0 <= correct <= n and n >= 1):
        raise ValueError(f"need 0 ≤ correct ≤ n and n ≥ 1; found correct={correct}, n={n}")
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1; found {level}")
    tail = (1 - level) / 2
    low = float(beta.ppf(tail, correct, n - correct + 1)) if correct > 0 else 0.0
    high = float(beta.ppf(1 - tail, correct + 1, n - correct)) if correct < n else 1.0
    return low, high


@dataclass(frozen=True)
class Accuracy:
    """A share of images with what it takes to judge it: printed, it always says n and the 95 % interval."""

    correct: int
    n: int

    @property
    def value(self) -> float:
        return self.correct / self.n

    @property
    def interval(self) -> tuple[float, float]:
        return clopper_pearson(self.correct, self.n)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{100 * self.value:.1f} % (95 %: {100 * low:.1f}–{100 * high:.1f}, n = {self.n:,})"
