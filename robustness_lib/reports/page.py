"""The report as a page: the sentence first, then what it does not say, then every figure behind it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from robustness_lib.files import write_whole
from robustness_lib.reports import _charts
from robustness_lib.reports._methods import attack_words, duration, methods, sources
from robustness_lib.reports.advice import advice
from robustness_lib.reports.report import CLASS_FLOOR, AttackRecord, ClassVerdict, Report
from robustness_lib.statistics import Accuracy

__all__ = ["SHOWN_IMAGES", "Figure", "VerdictRow", "VerdictTable", "inline", "page", "render", "save_page"]

SHOWN_CLASSES = 20  # with more, the worst of them, and the rest in a table that folds out
WHOLE_CONFUSION = 12  # with more classes, the most frequent confusions as a list
SHOWN_CONFUSIONS = 20
SHOWN_IMAGES = 200  # by name; report.json has them all


@dataclass(frozen=True)
class Figure:
    """An accuracy as the page writes and draws it; value, low, high in percent."""

    accuracy: Accuracy
    low: float
    high: float

    @classmethod
    def of(cls, accuracy: Accuracy) -> Figure:
        low, high = accuracy.interval  # computed once: it is what a page of a thousand classes waits for
        return cls(accuracy, 100 * low, 100 * high)

    @property
    def value(self) -> float:
        return 100 * self.accuracy.value

    @property
    def text(self) -> str:
        return _charts.percent(self.accuracy.value)

    @property
    def interval(self) -> str:
        return f"{self.low:.1f}–{self.high:.1f}"


@dataclass(frozen=True)
class AttackRow:
    record: AttackRecord
    own: Figure | None
    cumulative: Figure | None  # none where nothing may be told
    tried: int
    broke: int


@dataclass(frozen=True)
class VerdictRow:
    """How many images are proved, open, broken or wrong. kind: names its colour."""

    kind: str
    name: str
    meaning: str
    figure: Figure


@dataclass(frozen=True)
class VerdictTable:
    """Of a report that proves: the rows, as one bar too."""

    rows: tuple[VerdictRow, ...]

    @property
    def segments(self) -> tuple[_charts.Segment, ...]:
        return _charts.segments([(row.kind, row.figure.accuracy) for row in self.rows])

    @property
    def description(self) -> str:
        return ", ".join(f"{row.name} {row.figure.text}" for row in self.rows) + "."


@dataclass(frozen=True)
class ClassRow:
    verdict: ClassVerdict
    clean: Figure
    robust: Figure
    mistaken_for: str


@dataclass(frozen=True)
class Confusion:
    label: str
    seen: str
    count: int
    of: int


def page(report: Report) -> str:
    """The whole report as one HTML file that needs nothing else: no network, no script, no other file."""
    return render("page.html", report=report, **_figures(report), **_classes(report), **_confusions(report),
                  verdicts=_verdicts(report), summary=_summary(report), methods=methods(report),
                  attack_words=attack_words(report), sources=sources(report), shown_images=SHOWN_IMAGES)


def save_page(report: Report, path: str | Path) -> Path:
    """Write `page(report)`, whole or not at all."""
    write_whole(Path(path), page(report).encode())
    return Path(path)


def inline(report: Report) -> str:
    """The short form for notebooks and the book: the sentence, the attacks, the curve, flagged classes, findings.
    Its styles reach nothing outside it, and its colours are those of the page around it."""
    flagged = [verdict for verdict in report.per_class if verdict.flagged and report.valid]
    flagged.sort(key=lambda verdict: (verdict.robust.value, verdict.number))
    return render("inline.html", report=report, **_figures(report), flagged_total=len(flagged),
                  flagged=[_class_row(report, verdict) for verdict in flagged[:SHOWN_CLASSES]])


Report.view = staticmethod(inline)


def render(name: str, **values: object) -> str:
    """A template of this package with these values, every one of them escaped."""
    return _environment().get_template(name).render(**values)


@cache
def _environment() -> Environment:
    environment = Environment(loader=PackageLoader("robustness_lib.reports"), autoescape=True,
                              undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["duration"] = duration
    environment.filters["percent"] = _charts.percent
    environment.filters["p_value"] = _p_value
    environment.globals["plot"] = {"width": _charts.WIDTH, "height": _charts.HEIGHT, "left": _charts.LEFT,
                                   "right": _charts.RIGHT, "top": _charts.TOP, "bottom": _charts.BOTTOM}
    return environment


def _figures(report: Report) -> dict[str, object]:
    """What both forms show."""
    chart = _charts.curve_chart(report) if report.valid else None
    rows = [AttackRow(record, None if (own := report.own(record.name)) is None or not report.valid else Figure.of(own),
                      Figure.of(report.cumulative(record.name)) if report.valid else None, int(record.tried.sum()),
                      int(record.broke.sum())) for record in report.attacks]
    return {"attacks": rows, "chart": chart, "curve_rows": _curve_rows(report), "grey": _grey(report),
            "advice": advice(report), "class_floor": CLASS_FLOOR}


def _curve_rows(report: Report) -> list[tuple[str, Figure, Figure]]:
    if report.curve is None:
        return []
    return [(_charts.eps_text(eps, report.threat.norm), Figure.of(alone), Figure.of(carried)) for eps, alone, carried
            in zip(report.curve.eps, report.curve_alone, report.curve_carried, strict=True)]


def _grey(report: Report) -> str | None:
    """What the curve's points at L∞ ε ≥ .5 say of the attack; None where it has none."""
    if report.curve is None or report.threat.norm != "linf" or max(report.curve.eps, default=0) < _charts.GREY:
        return None
    limit = _charts.grey_limit(report)
    says = (f"At ε = .5 every image can become the same grey, and one grey image has one answer: no more than the "
            f"largest class, {_charts.percent(limit.value)} of the images, can resist an attack that works. ")
    worst = max(alone.correct for eps, alone in zip(report.curve.eps, report.curve_alone, strict=True)
                if eps >= _charts.GREY)
    found = _charts.percent(worst / limit.n)
    if worst > limit.correct:
        return says + (f"Here {found} resist, so the attack of this curve failed: at smaller ε, too, “alone” may be "
                       f"too high.")
    return says + f"Here {found} resist, which is no more than that."


def _summary(report: Report) -> list[tuple[str, Figure]]:
    rows = [("Right without an attack (top-1)", Figure.of(report.clean_accuracy))]
    if len(report.classes) > 5:
        rows.append(("Label among the first five (top-5)", Figure.of(report.top5_accuracy)))
    if report.valid:
        rows.append(("Right and broken by no attack", Figure.of(report.robust_accuracy)))
    if report.certified_accuracy is not None:
        rows.append(("Right and proved not to change", Figure.of(report.certified_accuracy)))
    return rows


def _verdicts(report: Report) -> VerdictTable | None:
    """Each image's, where bounds were asked too, and the report can bear a number."""
    if report.certified is None or not report.bounds or not report.valid:
        return None
    proved, stood = report.certified & report.clean, report.robust
    rows = (("robust", "proved", "no allowed change alters the answer", proved),
            ("unknown", "open", "neither proved nor broken", stood & ~proved),
            ("broken", "broken", "an adversarial image was found", report.clean & ~stood),
            ("wrong", "wrong", "another answer than the label, without an attack", ~report.clean))
    return VerdictTable(tuple(VerdictRow(kind, name, meaning, Figure.of(Accuracy.of(column)))
                              for kind, name, meaning, column in rows))


def _classes(report: Report) -> dict[str, object]:
    rows = [_class_row(report, verdict) for verdict in report.per_class]
    worst = sorted(rows, key=lambda row: (row.verdict.robust.value, row.verdict.number))
    return {"worst_classes": worst[:SHOWN_CLASSES], "all_classes": rows if len(rows) > SHOWN_CLASSES else [],
            "flagged_total": sum(row.verdict.flagged for row in rows), "class_total": len(rows)}


def _class_row(report: Report, verdict: ClassVerdict) -> ClassRow:
    listed = [f"{report.classes[number]} ({count:,}×)" for number, count in verdict.mistaken_for[:3]]
    rest = sum(count for _, count in verdict.mistaken_for[3:])
    return ClassRow(verdict, Figure.of(verdict.clean), Figure.of(verdict.robust),
                    ", ".join(listed + ([f"others ({rest:,}×)"] if rest else [])))


def _confusions(report: Report) -> dict[str, object]:
    """The whole table where it is small; the most frequent confusions in any case."""
    counts = report.confusion
    whole = counts.tolist() if len(report.classes) <= WHOLE_CONFUSION else []
    of = counts.sum(1).tolist()
    places = zip(*(axis.tolist() for axis in counts.nonzero()), strict=True)
    pairs = Counter({(label, seen): int(counts[label, seen]) for label, seen in places if label != seen})
    return {"confusion": whole, "confusion_of": of,
            "confused": [Confusion(report.classes[label], report.classes[seen], count, of[label])
                         for (label, seen), count in pairs.most_common(SHOWN_CONFUSIONS)]}


def _p_value(p: float) -> str:
    return f"p = {p:.2g}" if p > 0 else "p < 1e-300"  # smaller than a float can say
