"""What a check found, and what that is worth."""

from __future__ import annotations

import html
from dataclasses import dataclass

__all__ = ["Observation", "Points", "need", "wrong"]


@dataclass(frozen=True)
class Observation:
    """One thing that was looked at: whether it is right, in which words, and its share of the step."""

    right: bool
    words: str
    share: float

    def __str__(self) -> str:
        return f"{'✓' if self.right else '✗'} {self.words}"


def need(right: object, says: str, mistake: str, share: float = 1.0) -> Observation:
    """A observation that says one thing where something is right, and names the mistake where it is not.

    Args:
        right: a truth value, or an array or tensor of one element.
        says: what is right then. "the start lies within ε"
        mistake: what is wrong otherwise, and what to look at. "the start leaves the box: clamp it to [0, 1]"
        share: what it weighs beside the other observations of its step.
    """
    fine = bool(right)
    return Observation(fine, says if fine else mistake, share)


def wrong(mistake: str) -> Observation:
    """A observation on something without which there is nothing more to look at."""
    return Observation(False, mistake, 0)


class Points(float):
    """The points of a step: a number that says in a notebook how many there were to get.

    nbgrader reads the number from the text, so that is the number and nothing else.
    """

    of: float

    def __new__(cls, points: float, of: float) -> Points:
        made = super().__new__(cls, points)
        made.of = of
        return made

    def __repr__(self) -> str:
        return repr(float(self))

    def _repr_html_(self) -> str:
        full = self >= self.of
        name, colour = ("success", "#24863c") if full else ("warning", "#9a6700") if self > 0 else ("danger", "#c0392b")
        style = f"color: var(--pst-color-{name}, {colour}); font-weight: 600"
        words = html.escape(f"{float(self):g} of {self.of:g} points")
        return f'<div class="robustness-points" data-full="{str(full).lower()}" style="{style}">{words}</div>'
