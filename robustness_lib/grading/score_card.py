"""The learner's marks so far, on one card."""

from __future__ import annotations

import html
from collections.abc import Mapping

from robustness_lib.grading.observations import Points
from robustness_lib.grading.steps import marks_so_far

__all__ = ["ScoreCard", "score_card"]


class ScoreCard:
    """Points by check and in all: a table in a notebook, lines of text elsewhere."""

    def __init__(self, marks: Mapping[str, Points]) -> None:
        self.marks = dict(marks)

    @property
    def points(self) -> float:
        return sum(self.marks.values())

    @property
    def of(self) -> float:
        return sum(points.of for points in self.marks.values())

    def __repr__(self) -> str:
        if not self.marks:
            return "No check has been run yet."
        width = max(len(name) for name in self.marks)
        lines = [f"{name:{width}}  {float(points):5g} of {points.of:g}" for name, points in self.marks.items()]
        return "\n".join([*lines, f"{'together':{width}}  {self.points:5g} of {self.of:g}"])

    def _repr_html_(self) -> str:
        if not self.marks:
            return f"<p>{self!r}</p>"
        rows = "".join(f"<tr><td>{html.escape(name)}</td><td>{points._repr_html_()}</td></tr>"
                       for name, points in {**self.marks, "together": Points(self.points, self.of)}.items())
        return f'<table class="robustness-score-card">{rows}</table>'


def score_card() -> ScoreCard:
    """The points of each check that has been run, the latest of each, and their sum. What is checked in
    grading only, and what a person reads, comes on top."""
    return ScoreCard(marks_so_far())
