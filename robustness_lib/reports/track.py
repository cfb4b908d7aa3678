"""Robust accuracy over the versions of a model: a history file, a page that draws it, alerts where it fell."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

from robustness_lib.files import read_text, write_whole
from robustness_lib.reports._charts import TrendChart, trend_chart
from robustness_lib.reports.compare import without_seed
from robustness_lib.reports.page import render
from robustness_lib.reports.report import Report
from robustness_lib.statistics import ALPHA, Accuracy, mcnemar

__all__ = ["Tracked", "TrackedVersion", "Trend", "read_history", "track", "trends"]

_SCHEMA = 1


@dataclass(frozen=True)
class TrackedVersion:
    """A version in the history. subject: what makes versions comparable: data, threat model and attacks, as a
    fingerprint and in words. stood: per image 0 or 1, in the order of the data. date: when it was evaluated."""

    version: str
    date: str
    subject: str
    words: str
    model: str
    sentence: str
    clean: int
    stood: str

    @property
    def n(self) -> int:
        return len(self.stood)

    def same_as(self, other: TrackedVersion) -> bool:
        """Of one and the same report?"""
        mine, theirs = ((entry.date, entry.model, entry.subject, entry.stood) for entry in (self, other))
        return mine == theirs

    @property
    def clean_accuracy(self) -> Accuracy:
        return Accuracy(self.clean, self.n)

    @property
    def robust_accuracy(self) -> Accuracy:
        return Accuracy(self.stood.count("1"), self.n)


@dataclass(frozen=True)
class Trend:
    """Versions that can be compared, oldest first. drops: points lost against the version before (0 for the first).
    alerts: the drop is larger than the limit, and McNemar's exact one-sided test on the same images has p < .05."""

    words: str
    entries: tuple[TrackedVersion, ...]
    drops: tuple[Fraction, ...]
    alerts: tuple[bool, ...]

    @property
    def chart(self) -> TrendChart:
        return trend_chart([e.version for e in self.entries], [e.clean_accuracy for e in self.entries],
                           [e.robust_accuracy for e in self.entries], self.alerts)


@dataclass(frozen=True)
class Tracked:
    """trend: the versions that the report can be compared with; at: its place among them; new: it was not there
    before. page: where all is drawn."""

    trend: Trend
    at: int
    new: bool
    page: Path


def track(report: Report, history: str | Path, *, version: str | None = None, alert_drop: float = 2.0) -> Tracked:
    """Append a report to a history (JSON lines), and draw all of it as one static page beside it (.html).

    version: a name for the model, such as a tag or a commit; default: the date of the report. alert_drop: points of
    robust accuracy (2.0 for two points). The same report twice is one entry.
    The history is written whole or not at all; a last line that was cut short (by another program) is dropped.

    Each version is compared with the one before it, so many small losses raise no alert: that is what a gate with a
    fixed baseline is for. Raises ValueError for a report that is not valid, a damaged history, one that is called
    .html, and a negative limit.
    """
    if not alert_drop >= 0:
        raise ValueError(f"alert_drop is a number of points, at least 0; found {alert_drop}")
    if not report.valid:
        raise ValueError(f"there is no verdict to keep track of. {report.sentence}")
    history = Path(history)
    page = history.with_suffix(".html")
    if page == history:
        raise ValueError(f"{history} is where the page goes; call the history .jsonl")
    entries = read_history(history)
    entry = _entry(report, version)
    there = next((old for old in entries if old.same_as(entry)), None)
    if there is None:
        entries.append(entry)
        lines = (json.dumps({"schema": _SCHEMA, **asdict(one)}, ensure_ascii=False) for one in entries)
        write_whole(history, ("\n".join(lines) + "\n").encode())
    all_trends = trends(entries, alert_drop)
    write_whole(page, render("trend.html", trends=all_trends, alert_drop=alert_drop).encode())
    trend = next(trend for trend in all_trends if trend.entries[0].subject == entry.subject)
    return Tracked(trend, trend.entries.index(there or entry), there is None, page)


def read_history(path: str | Path) -> list[TrackedVersion]:
    """All entries, oldest first; none where there is no file. Raises ValueError, which names the line."""
    path = Path(path)
    if not path.exists():
        return []
    lines = read_text(path).split("\n")
    entries = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            entries.append(_read(line))
        except (ValueError, KeyError, TypeError) as error:
            if number == len(lines):  # no newline after it: whoever wrote it was stopped
                break
            raise ValueError(f"{path}, line {number}: this is no entry of a history ({error})") from error
    return entries


def _read(line: str) -> TrackedVersion:
    content = json.loads(line)
    if not isinstance(content, dict) or content.get("schema") != _SCHEMA:
        raise ValueError(f"this version of robustness_lib reads schema {_SCHEMA}")
    entry = TrackedVersion(**{field.name: content[field.name] for field in fields(TrackedVersion)})
    if not entry.stood or set(entry.stood) - {"0", "1"}:
        raise ValueError("its verdicts are not 0 and 1")
    return entry


def _entry(report: Report, version: str | None) -> TrackedVersion:
    attacks = [f"{attack.name} {without_seed(attack.settings)} on {attack.on}" for attack in report.attacks
               if attack.on != "not followed"]
    date = report.environment.get("date", "")
    return TrackedVersion(
        version=version or date or f"n = {report.n}", date=date,
        subject=hashlib.sha256("".join((repr(report.threat), *report.examples.digest, *attacks)).encode()).hexdigest(),
        words=f"{report.threat}, {report.n:,} images, {report.suite} suite",
        model=report.fingerprints.get("model", ""), sentence=report.sentence, clean=report.clean_accuracy.correct,
        stood="".join("01"[stood] for stood in report.robust.tolist()),
    )


def trends(entries: list[TrackedVersion], alert_drop: float) -> tuple[Trend, ...]:
    """Entries in groups that can be compared: the same images, threat model and attacks."""
    groups: dict[str, list[TrackedVersion]] = {}
    for entry in entries:
        groups.setdefault(entry.subject, []).append(entry)
    return tuple(_trend(group, Fraction(str(alert_drop))) for group in groups.values())


def _trend(entries: list[TrackedVersion], limit: Fraction) -> Trend:
    drops, alerts = [Fraction(0)], [False]
    for before, now in pairwise(entries):
        pairs = list(zip(before.stood, now.stood, strict=True))
        lost, gained = pairs.count(("1", "0")), pairs.count(("0", "1"))
        drops.append(Fraction(100 * (lost - gained), now.n))
        alerts.append(drops[-1] > limit and mcnemar(lost, gained, "greater") < ALPHA)
    return Trend(entries[0].words, tuple(entries), tuple(drops), tuple(alerts))
