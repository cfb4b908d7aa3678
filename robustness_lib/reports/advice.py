"""What to make of a report: step by step, what was found and what to do next."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from robustness_lib.reports.report import AttackRecord, Report
from robustness_lib.statistics import Accuracy

__all__ = ["Advice", "advice"]

# Where advice changes. Shares of the images; conventions of this library, not results.
_NEARLY_NONE = 0.1  # robust accuracy below a tenth: there is nothing to measure more finely
_GAP = 0.05  # two attacks that should agree differ by this much
_OF_QUICK = {"--suite", "--minutes"}  # options that made it a quick look
_BESIDES = {"curve", "diagnostics"}  # (in reports of earlier versions the diagnostics counted too)


@dataclass(frozen=True)
class Advice:
    """name: of a step of the evaluation. figures: what it found, with n and intervals. advice: one
    sentence on what to do next."""

    name: str
    figures: str
    advice: str

    def __str__(self) -> str:
        return f"{self.name}: {self.figures} {self.advice}"


def advice(report: Report) -> tuple[Advice, ...]:
    """In order: clean, bounds, each attack, the curve, the classes, the diagnostics; those that the report has. Of a
    report without a verdict: clean, and what voids it."""
    if not report.valid:
        doubts = (Advice(doubt.kind, doubt.message, "There is no number to report before this is mended.")
                  for doubt in report.doubts)
        return _clean(report), *doubts, *_diagnostics(report)
    return (_clean(report), *_bounds(report), *_attacks(report), *_curve(report), _classes(report),
            *_diagnostics(report))


def _clean(report: Report) -> Advice:
    clean = report.clean_accuracy
    figures = f"top-1 {clean}"
    if len(report.classes) > 5:
        figures += f", top-5 {100 * report.top5_accuracy.value:.1f} %"
    if clean.interval[0] <= 1 / len(report.classes):
        advice = "No better than chance: run `robustness check` before anything else (normalization, order of classes)."
    elif clean.value < 0.5:
        advice = "Half of the images or more are wrong without an attack: make sure that the model gets the input " \
                 "that it was trained on (`robustness check`)."
    else:
        advice = "What is wrong here is wrong before any attack; the rest is attacked."
    return Advice("clean", figures + ".", advice)


def _bounds(report: Report) -> Iterator[Advice]:
    certified = report.certified_accuracy
    if not report.bounds or certified is None:
        return
    each = ", ".join(f"{bound.name} {int(bound.proved.sum())} of {int(bound.tried.sum())}" for bound in report.bounds)
    left = report.open_images
    if report.decided:
        said = "Every image is decided: this is the robust accuracy itself."
    elif left:
        said = (f"On {left:,} image{'' if left == 1 else 's'} neither a bound nor an attack decides: the truth lies "
                f"between the two numbers.")
    else:
        said = "Every image that has a verdict is decided. Of those that failed nothing is known."
    yield Advice("bounds", f"{certified} proved ({each}).", said)


def _attacks(report: Report) -> Iterator[Advice]:
    # What the curve broke besides is worth a line of its own only where it broke something new.
    shown = [record for record in report.attacks if record.name not in _BESIDES or _news(report, record)]
    before, last = report.clean_accuracy, len(shown) - 1
    for number, record in enumerate(shown):
        own, cumulative = report.own(record.name), report.cumulative(record.name)
        figures = f"{cumulative} cumulative, {int(record.broke.sum())} of {int(record.tried.sum())} survivors broken." \
            if own is None else f"{own} alone, {100 * cumulative.value:.1f} % cumulative."
        yield Advice(record.name, figures, _after(record.name, cumulative, before, number, number == last,
                                                  _quick_look(report) if number == last else "",
                                                  report.decided))
        before = cumulative


def _news(report: Report, record: AttackRecord) -> bool:
    return record.name in report.examples.broken_by


def _quick_look(report: Report) -> str:
    """What the last number of a quick look is, and the command for a verdict; "" of another suite."""
    if report.suite != "quick" or report.decided:
        return ""
    command = _verdict_command(report.provenance.get("command", ""))
    return f"An upper bound from a quick look, which is no verdict. For one: {command}."


def _verdict_command(command: str) -> str:
    """The command that made a report, with the suite that gives a verdict; where it is not known, what to call."""
    words = shlex.split(command)
    kept = [word for before, word in zip(["", *words], words, strict=False)
            if not {before, word} & _OF_QUICK and not word.startswith(tuple(f"{option}=" for option in _OF_QUICK))]
    return f"`{shlex.join([*kept, '--suite', 'standard'])}`" if words else \
        'the suite "standard" (`robustness evaluate`, with `--suite standard`)'


def _after(name: str, now: Accuracy, before: Accuracy, number: int, last: bool, quick_look: str, decided: bool) -> str:
    if before.value < _NEARLY_NONE:
        return "As before." if number else "Nothing is left to attack."
    if now.value < _NEARLY_NONE:
        return "There is next to no robustness to measure: stop here and train the model against attacks."
    if name == "fgsm":
        return "One step decides nothing: it is here to be compared with many steps."
    fell = before.value - now.value
    more = f"This attack found {100 * fell:.1f} points more than all before it: do not report those alone."
    if quick_look:
        return f"{more} {quick_look}" if fell > _GAP else quick_look
    if number and fell > _GAP:
        return more
    if last:
        return "Report this number, with n and the interval" + (
            ": each image is proved or broken." if decided else ", as an upper bound.")
    return "Little or nothing new." if fell else "Nothing new."


def _curve(report: Report) -> Iterator[Advice]:
    if report.curve is None:
        return
    carried = report.curve_carried
    figures = ", ".join(f"{100 * accuracy.value:.1f} % at {report.threat.with_eps(eps).eps_text}"
                        for eps, accuracy in zip(report.curve.eps, carried, strict=True))
    half = report.clean_accuracy.value / 2
    fallen = [eps for eps, accuracy in zip(report.curve.eps, carried, strict=True) if accuracy.value <= half]
    advice = f"Half of what was right is lost at ε = {report.threat.with_eps(fallen[0]).eps_text} or before." if \
        fallen else ("It never falls to half of the clean accuracy, not even at the largest ε: suspect the attack, not "
                     "the model.")
    yield Advice("curve", f"{figures}.", advice)


def _classes(report: Report) -> Advice:
    worst, *_ = sorted(report.per_class, key=lambda verdict: verdict.robust.value)
    flagged = [verdict for verdict in report.per_class if verdict.flagged]
    figures = f"the weakest of {len(report.per_class)} is {worst.name}: {worst.robust}."
    if not flagged:
        return Advice("per class", figures, "No class is left without protection.")
    names = ", ".join(verdict.name for verdict in flagged[:5]) + (" and others" if len(flagged) > 5 else "")
    return Advice("per class", figures, f"The average hides where fewer than one image in five resists: {names}.")


def _diagnostics(report: Report) -> Iterator[Advice]:
    if report.findings is None or report.decided:  # of proofs, gradients say nothing
        return
    if not report.findings:
        yield Advice("diagnostics", "no sign of masked gradients.",
                   "This does not prove that there is none: an attack made for this model may still do better.")
        return
    kinds = ", ".join(finding.kind for finding in report.findings)
    yield Advice("diagnostics", f"{kinds}.", "The number is not to be trusted before this is understood.")
