"""Where things go in the charts of a report: geometry here, drawing in templates/charts.html.

All lengths are in the units of the charts' viewBox, 360 wide, so that a phone shows text at nearly its own size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from robustness_lib.reports.report import Report
from robustness_lib.statistics import Accuracy
from robustness_lib.threat import ThreatModel

__all__ = ["BOTTOM", "GREY", "HEIGHT", "LEFT", "RIGHT", "TOP", "WIDTH", "CurveChart", "Far", "Mark", "Segment", "Tick",
           "TrendChart", "curve_chart", "eps_text", "grey_limit", "percent", "segments", "trend_chart"]

WIDTH, HEIGHT = 360, 240
LEFT, RIGHT, TOP, BOTTOM = 44.0, 350.0, 20.0, 196.0
BREAK = 288.0  # where the axis stops when there is a point far away
FAR = (312.0, 344.0)
LETTER = 7.4  # width of a digit or letter
NARROWEST = 16.0  # percent of a bar's width, in which a share such as 45.0 % can be read on a phone
GREY = 0.5  # from this L∞ ε on, every image can become the same grey


@dataclass(frozen=True)
class Tick:
    at: float
    text: str

    @property
    def text_at(self) -> float:
        """The middle of the text: the tick, or where the text still ends inside the picture."""
        return min(self.at, WIDTH - LETTER * len(self.text) / 2)

    def overlaps(self, other: Tick) -> bool:
        return abs(self.text_at - other.text_at) < LETTER * (len(self.text) + len(other.text)) / 2 + 5


@dataclass(frozen=True)
class Mark:
    """A value with its interval. x, y, low, high: coordinates (low is the lower end of the interval, so the larger
    y). text: what a pointer resting on it sees."""

    x: float
    y: float
    low: float
    high: float
    text: str


@dataclass(frozen=True)
class Far:
    """The points beyond the break of the axis. limit: y of the largest class's share."""

    left: float
    right: float
    ticks: tuple[Tick, ...]
    alone: tuple[Mark, ...]
    carried: tuple[Mark, ...]
    limit: float


@dataclass(frozen=True)
class CurveChart:
    """Accuracy over ε, on a square-root scale: the small ε, where accuracy falls, get the room. axis_end: where the
    axis stops. at: x of the report's ε; text_at: of its name, which stays inside the picture."""

    ticks: tuple[Tick, ...]
    axis_end: float
    alone: tuple[Mark, ...]
    carried: tuple[Mark, ...]
    band: str
    at: float
    text_at: float
    at_text: str
    unit: str
    far: Far | None
    description: str


@dataclass(frozen=True)
class TrendChart:
    """Clean and robust accuracy over versions. alerts: x of those with an alert."""

    ticks: tuple[Tick, ...]
    clean: tuple[Mark, ...]
    robust: tuple[Mark, ...]
    alerts: tuple[Mark, ...]
    description: str


@dataclass(frozen=True)
class Segment:
    """A part of a bar. kind: which, as its class of report.css has it. left, width: in percent of the bar. text: what
    stands in it; none where it is too narrow."""

    kind: str
    left: float
    width: float
    text: str | None

    @property
    def middle(self) -> float:
        return self.left + self.width / 2


def segments(shares: Sequence[tuple[str, Accuracy]]) -> tuple[Segment, ...]:
    """Parts of one whole, from left to right, as a bar; those that are empty have no segment."""
    found, left = [], 0.0
    for kind, share in shares:
        width = 100 * share.value
        if width > 0:
            found.append(Segment(kind, left, width, percent(share.value) if width >= NARROWEST else None))
        left += width
    return tuple(found)


def percent(value: float) -> str:
    return f"{100 * value:.1f}\N{NO-BREAK SPACE}%"


def eps_text(eps: float, norm: str) -> str:
    """8/255 where it is a whole number of grey levels, else the number."""
    return ThreatModel(norm, eps).eps_text


def grey_limit(report: Report) -> Accuracy:
    """Share of the largest class. At L∞ ε ≥ .5 every image can become the same grey, which is read as one class, so
    no more than this can resist an attack that works."""
    labels = report.examples.label
    return Accuracy(int(np.bincount(labels).max()), len(labels))


def curve_chart(report: Report) -> CurveChart | None:
    """The report's curve as geometry; None without one. It starts at ε = 0, where accuracy is the clean one."""
    if report.curve is None or not report.curve.eps:
        return None
    norm, here = report.threat.norm, report.threat.eps
    rows = list(zip(report.curve.eps, report.curve_alone, report.curve_carried, strict=True))
    if rows[0][0] > 0:
        rows.insert(0, (0.0, report.clean_accuracy, report.clean_accuracy))
    near, far = _split([row[0] for row in rows], norm, here)
    end = BREAK if far else RIGHT
    widest = max(here, *near) or 1.0

    def across(eps: float) -> float:
        return LEFT + (end - LEFT) * math.sqrt(eps / widest)

    carried = tuple(_mark(across(eps), accuracy, eps_text(eps, norm)) for eps, _, accuracy in rows if eps in near)
    levels = norm == "linf" and all(abs(eps * 255 - round(eps * 255)) < 1e-6 for eps in (here, *near))
    ticks = [Tick(across(eps), f"{eps * 255:.0f}" if levels else f"{eps:.3g}") for eps in near]
    return CurveChart(
        ticks=_thinned(ticks, keep=across(here)), axis_end=end, carried=carried, band=_band(carried),
        alone=tuple(_mark(across(eps), accuracy, eps_text(eps, norm)) for eps, accuracy, _ in rows if eps in near),
        at=across(here), text_at=min(max(across(here), LEFT + 36), end - 36),
        at_text=f"ε = {eps_text(here, norm)}",
        unit="ε in 255ths of the pixel range" if levels else "ε (pixels from 0 to 1)",
        far=_far([row for row in rows if row[0] in far], report) if far else None,
        description="; ".join(f"at ε = {eps_text(eps, norm)}: {percent(alone.value)} alone, {percent(carried.value)} "
                              f"carried" for eps, alone, carried in rows) + ".",
    )


def _split(epsilons: Sequence[float], norm: str, here: float) -> tuple[list[float], list[float]]:
    """Near and far: a point at L∞ ε = .5 would press the others into a corner, so the axis breaks before it."""
    near = [eps for eps in epsilons if eps < GREY]
    if norm != "linf" or here >= GREY:
        return list(epsilons), []
    return near, [eps for eps in epsilons if eps >= GREY]


def _far(rows: Sequence[tuple[float, Accuracy, Accuracy]], report: Report) -> Far:
    left, right = FAR
    places = [left + (right - left) * (i + 1) / (len(rows) + 1) for i in range(len(rows))]
    ticks = [Tick(at, f"{row[0]:.3g}".removeprefix("0")) for at, row in zip(places, rows, strict=True)]
    return Far(
        left, right, _thinned(ticks),
        alone=tuple(_mark(at, row[1], f"{row[0]:.3g}") for at, row in zip(places, rows, strict=True)),
        carried=tuple(_mark(at, row[2], f"{row[0]:.3g}") for at, row in zip(places, rows, strict=True)),
        limit=_up(grey_limit(report).value),
    )


def trend_chart(names: Sequence[str], clean: Sequence[Accuracy], robust: Sequence[Accuracy],
                alerts: Sequence[bool]) -> TrendChart:
    """One place per version, oldest on the left."""
    room = (RIGHT - LEFT) / len(names)
    places = [LEFT + room * (i + 0.5) for i in range(len(names))]
    marks = tuple(_mark(at, accuracy, name) for at, accuracy, name in zip(places, robust, names, strict=True))
    ticks = [Tick(at, name if len(name) <= 9 else name[:8] + "…") for at, name in zip(places, names, strict=True)]
    return TrendChart(
        # The newest version is the one that a reader looks for: its name stays.
        ticks=_thinned(ticks, keep=places[-1]), robust=marks,
        clean=tuple(_mark(at, accuracy, name) for at, accuracy, name in zip(places, clean, names, strict=True)),
        alerts=tuple(mark for mark, alert in zip(marks, alerts, strict=True) if alert),
        description="; ".join(
            f"{name}: clean {percent(a.value)}, robust {percent(b.value)}{', alert' if alert else ''}"
            for name, a, b, alert in zip(names, clean, robust, alerts, strict=True)) + ".",
    )


def _up(value: float) -> float:
    return BOTTOM - (BOTTOM - TOP) * value


def _mark(at: float, accuracy: Accuracy, name: str) -> Mark:
    low, high = accuracy.interval
    return Mark(at, _up(accuracy.value), _up(low), _up(high), f"{name}: {accuracy}")


def _band(marks: Sequence[Mark]) -> str:
    """The points of the polygon between the interval ends."""
    there = [f"{mark.x:.1f},{mark.high:.1f}" for mark in marks]
    back = [f"{mark.x:.1f},{mark.low:.1f}" for mark in reversed(marks)]
    return " ".join(there + back)


def _thinned(ticks: Sequence[Tick], keep: float | None = None) -> tuple[Tick, ...]:
    """As many ticks as fit side by side, that at `keep` first, then from the outside in."""
    order = sorted(ticks, key=lambda tick: (tick.at != keep, tick.at != ticks[-1].at, tick.at))
    shown: list[Tick] = []
    for tick in order:
        if not any(tick.overlaps(other) for other in shown):
            shown.append(tick)
    return tuple(sorted(shown, key=lambda tick: tick.at))
