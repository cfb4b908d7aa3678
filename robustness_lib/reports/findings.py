"""A finding: a sign that a number is better than the model, with the test that it passed."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["EFFECT", "P_VALUE", "Finding"]

# A finding needs both: more than chance would do once in a hundred times, and large enough to matter.
P_VALUE = 0.01
EFFECT = 0.02


@dataclass(frozen=True)
class Finding:
    """Something that masks gradients, or looks like it.

    kind: a short name. message: what was seen, why it matters, what to do. p: of the exact test. effect: share of
    images (0.02 is two points). images, of: the counts behind the effect.
    """

    kind: str
    message: str
    p: float
    effect: float
    images: int
    of: int

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}"
