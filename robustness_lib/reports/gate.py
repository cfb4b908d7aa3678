"""The gate: does this report pass? Pass, fail, or too few images to say."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from numbers import Real
from typing import Any

from robustness_lib.reports.compare import Comparison, compare, p_value, points
from robustness_lib.reports.report import ClassVerdict, Report
from robustness_lib.statistics import ALPHA, Accuracy, images_to_show_a_drop, images_to_show_below, mcnemar

__all__ = ["EXIT_CODES", "MAX_CLEAN_DROP", "Check", "GateVerdict", "floor_check", "gate"]

# Percent points of clean accuracy that may be lost against a baseline where nobody says: a model that came apart is
# seen although its robust accuracy hardly had anything to lose. A convention of this library, not a result.
MAX_CLEAN_DROP = 5.0
EXIT_CODES = {"pass": 0, "fail": 1, "undecided": 3}  # 2 is wrong usage, as everywhere
_NAMED = 5  # classes named in the words; the report has them all


@dataclass(frozen=True)
class Check:
    """One criterion. outcome: "pass", "fail" or "undecided". images: how many would decide, where that is known."""

    criterion: str
    outcome: str
    words: str
    images: int | None = None


@dataclass(frozen=True)
class GateVerdict:
    """What `gate` returns. checks: one per criterion. comparison: with the baseline, where there was one. diagnosed:
    somebody looked for masked gradients."""

    checks: tuple[Check, ...]
    comparison: Comparison | None = None
    strict: bool = False
    diagnosed: bool = True

    @property
    def outcome(self) -> str:
        """ "fail" where any check fails, else "undecided" where any is, else "pass". Strict: undecided is a fail."""
        found = {check.outcome for check in self.checks}
        if "fail" in found or (self.strict and "undecided" in found):
            return "fail"
        return "undecided" if "undecided" in found else "pass"

    @property
    def exit_code(self) -> int:
        """0 pass, 1 fail, 3 undecided."""
        return EXIT_CODES[self.outcome]

    @property
    def reasons(self) -> tuple[str, ...]:
        """In words, why it is not a pass: the checks that failed, then those that are undecided."""
        return tuple(check.words for outcome in ("fail", "undecided") for check in self.checks
                     if check.outcome == outcome)

    @property
    def sentence(self) -> str:
        """The verdict in one sentence."""
        if self.outcome == "pass":
            blind = "" if self.diagnosed else " Nobody looked for masked gradients (the standard suite does)."
            return f"The gate passes: {_count(len(self.checks), 'check')}, all met.{blind}"
        names = {outcome: ", ".join(check.criterion for check in self.checks if check.outcome == outcome)
                 for outcome in ("fail", "undecided")}
        if names["fail"]:
            return f"The gate fails: {names['fail']}."
        if self.strict:
            return f"The gate fails, because it is strict and this is undecided: {names['undecided']}."
        return f"The gate is undecided: {names['undecided']}."

    def __str__(self) -> str:
        return self.sentence

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values, for JSON."""
        return {
            "sentence": self.sentence, "outcome": self.outcome, "exit_code": self.exit_code, "strict": self.strict,
            "checks": [vars(check) for check in self.checks],
            "comparison": None if self.comparison is None else self.comparison.to_dict(),
        }

    def to_markdown(self) -> str:
        """A short summary, for the page that a pipeline shows."""
        lines = [f"### Robustness: {self.outcome}", "", _markdown(self.sentence), ""]
        lines += [f"- **{check.outcome}** `{check.criterion}`: {_markdown(check.words)}" for check in self.checks]
        if self.comparison is not None:
            low, high = self.comparison.interval
            lines += ["", f"| {self.comparison.n:,} shared images | baseline | now |", "| --- | --- | --- |",
                      *(f"| {name} accuracy | {before} | {after} |" for name, (before, after) in
                        (("clean", self.comparison.clean), ("robust", self.comparison.robust))), "",
                      f"Change {points(100 * self.comparison.change)} points (95 %: {points(100 * low)} to "
                      f"{points(100 * high)}), two-sided exact McNemar {_markdown(p_value(self.comparison.p))}.", "",
                      *(f"- {_markdown(note)}" for note in self.comparison.notes)]
        return "\n".join(lines).rstrip() + "\n"


def gate(report: Report, baseline: Report | None = None, *, max_drop: float | None = None,
         max_clean_drop: float | None = None, min_robust: float | None = None, min_class: float | None = None,
         min_clean: float | None = None, strict: bool = False, allow_findings: bool = False,
         allow_different_attacks: bool = False) -> GateVerdict:
    """Judge a report by limits, all in percent points (45 is 45 %), and only as far as its images allow.

    max_drop: by how much robust accuracy may be below that of `baseline` on the images that both hold. Fails where
        the drop is larger and a one-sided exact McNemar test shows one (p < 0.05); undecided where it is larger but
        chance could do as much.
    max_clean_drop: the same for clean accuracy, which no attack is needed to lose. With a baseline it is always
        judged: by default 5 points, and 100 allows anything.
    min_robust: least robust accuracy, of all images. Fails where the whole 95 % interval lies below; undecided where
        the accuracy does but the interval reaches it.
    min_class: the same for each class. Each is judged by its own interval, so with many classes close to the floor
        one may fail by chance.
    min_clean: least clean accuracy, judged as min_robust is.
    Exactly at a limit is within it. What is undecided says how many images would decide, if the shares stay.
    Signs of masked gradients (`report.findings`) fail the gate, whatever the numbers, unless allow_findings. Images
    without a verdict (`report.failures`) leave it undecided at best. So does a report that is not `valid`, or a
    baseline that is not: no limit can be held against it, and none is.
    strict: undecided is a fail. allow_different_attacks: see `compare`.

    Raises ValueError without any limit, for a limit that is not one, for a largest drop without a baseline or a
    baseline without one, and where `compare` refuses.
    """
    drop, clean_drop, robust, of_class, clean = (_limit(name, value) for name, value in (
        ("max_drop", max_drop), ("max_clean_drop", max_clean_drop), ("min_robust", min_robust),
        ("min_class", min_class), ("min_clean", min_clean)))
    if {drop, clean_drop, robust, of_class, clean} == {None} and baseline is None:
        raise ValueError("a gate needs at least one limit: max_drop or max_clean_drop (with a baseline), min_robust, "
                         "min_class or min_clean")
    if baseline is None and (drop is not None or clean_drop is not None):
        raise ValueError(f"{'max_clean_drop' if drop is None else 'max_drop'} needs a baseline to drop from")
    if baseline is not None and drop is None and clean_drop is None:
        raise ValueError("a baseline needs max_drop: by how many percent points may robust accuracy fall?")
    comparison = None
    checks = [_check_valid(which, one) for which, one in (("report", report), ("baseline", baseline))
              if one is not None and not one.valid]
    if baseline is not None and not checks:
        comparison = compare(baseline, report, allow_different_attacks=allow_different_attacks)
        checks += _check_drops(comparison, drop, Fraction(MAX_CLEAN_DROP) if clean_drop is None else clean_drop)
    if not report.attacks:
        raise ValueError("the report holds no attack, so there is nothing to judge")
    if report.valid:
        checks += _check_numbers(report, robust, of_class, clean, allow_findings)
    if report.failures:
        checks.append(_check_failures(report))
    return GateVerdict(tuple(checks), comparison, strict, report.findings is not None)


def floor_check(kind: str, accuracy: Accuracy, minimum: float) -> Check:
    """One accuracy held against a least value in percent points: as `gate` does it. Raises ValueError for a limit that
    is not one."""
    floor = _limit(f"min_{kind}", minimum)
    assert floor is not None
    return _check_floor(kind, accuracy, floor)


def _limit(name: str, value: float | None) -> Fraction | None:
    """The limit exactly as written in decimals: 0.1 is a tenth. Counts are compared with it without rounding."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= value <= 100:
        raise ValueError(f"{name} is in percent points, from 0 to 100; found {value!r}")
    if name.startswith("min") and 0 < value < 1:
        raise ValueError(f"{name} is in percent points, and {value!r} of a percent is hardly meant: "
                         f"write {100 * value:g} for {100 * value:g} %")
    return Fraction(str(float(value)))


def _check_numbers(report: Report, robust: Fraction | None, of_class: Fraction | None, clean: Fraction | None,
                   allow_findings: bool) -> Iterator[Check]:
    """What is asked of the report alone."""
    if robust is not None:
        yield _check_floor("robust", report.robust_accuracy, robust)
    if of_class is not None:
        yield _check_classes(report.per_class, of_class)
    if clean is not None:
        yield _check_floor("clean", report.clean_accuracy, clean)
    if report.findings:
        yield _check_findings(report, allow_findings)


def _check_drops(comparison: Comparison, robust: Fraction | None, clean: Fraction) -> list[Check]:
    """Of robust accuracy, where it has a limit, and of clean accuracy."""
    checks = []
    if robust is not None:
        checks.append(_check_drop("max_drop", "robust", len(comparison.lost), len(comparison.gained),
                                  comparison.robust, robust))
    return [*checks, _check_drop("max_clean_drop", "clean", len(comparison.clean_lost), len(comparison.clean_gained),
                                 comparison.clean, clean)]


def _check_drop(criterion: str, kind: str, lost: int, gained: int, accuracies: tuple[Accuracy, Accuracy],
                limit: Fraction) -> Check:
    n = accuracies[0].n
    drop = Fraction(100 * (lost - gained), n)
    before, after = (f"{100 * accuracy.value:.1f} %" for accuracy in accuracies)
    went = f"fell by {_number(drop, limit)} points" if drop > 0 else f"rose by {_number(-drop)} points"
    seen = (f"on the same {_count(n, 'image')} {kind} accuracy {went if drop else 'stayed'} ({before} → {after}; "
            f"{lost:,} lost, {gained:,} gained)")
    allowed = f"{_number(limit)} allowed"
    if drop <= limit:
        return Check(criterion, "pass", f"{seen}, within the {allowed}.")
    p = mcnemar(lost, gained, "greater")
    if p < ALPHA:
        return Check(criterion, "fail", f"{seen}, more than the {allowed}, and chance would rarely do it: "
                                        f"one-sided exact McNemar {p_value(p)}.")
    images = images_to_show_a_drop(lost, gained, n)
    return Check(criterion, "undecided", f"{seen}, more than the {allowed}, but chance could do it: one-sided exact "
                                         f"McNemar {p_value(p)}. {_would_decide(images)}.", images)


def _check_floor(kind: str, accuracy: Accuracy, floor: Fraction) -> Check:
    outcome, images = _against(accuracy, floor)
    words = {
        "pass": f"{kind} accuracy {accuracy} is not below the floor of {_number(floor)} %.",
        "fail": f"{kind} accuracy {accuracy} is below the floor of {_number(floor)} %, its whole interval too.",
        "undecided": f"{kind} accuracy {accuracy} is below the floor of {_number(floor)} %, but its interval reaches "
                     f"it. {_would_decide(images)}.",
    }[outcome]
    return Check(f"min_{kind}", outcome, words, images)


def _check_classes(verdicts: Sequence[ClassVerdict], floor: Fraction) -> Check:
    judged = [(verdict, *_against(verdict.robust, floor)) for verdict in verdicts]
    judged.sort(key=lambda one: one[0].robust.value)
    failed = [verdict for verdict, outcome, _ in judged if outcome == "fail"]
    if failed:
        names = [f"{verdict.name} {verdict.robust}" for verdict in failed]
        return Check("min_class", "fail", f"{_count(len(failed), 'class', 'classes')} of {len(judged)} below the floor "
                                          f"of {_number(floor)} %, the whole interval too: {_listed(names)}.")
    unsure = [(verdict, images) for verdict, outcome, images in judged if outcome == "undecided"]
    if unsure:
        # Any one of them below the floor fails the gate: the least number of images decides.
        names = [f"{verdict.name} {verdict.robust}, {images:,} images of it would decide" for verdict, images in unsure]
        return Check("min_class", "undecided",
                     f"{_count(len(unsure), 'class', 'classes')} of {len(judged)} below the floor of "
                     f"{_number(floor)} %, but the interval reaches it: {_listed(names)}. These numbers hold if the "
                     f"shares stay as they are.", min(images for _, images in unsure if images is not None))
    least = judged[0][0]
    return Check("min_class", "pass", f"no class of {len(judged)} is below the floor of {_number(floor)} %; lowest "
                                      f"{least.name} {least.robust}.")


def _check_valid(which: str, report: Report) -> Check:
    return Check("verdict", "undecided", f"the {which} holds no verdict, so no limit can be held against it. "
                                         f"{report.sentence}")


def _check_findings(report: Report, allowed: bool) -> Check:
    kinds = ", ".join(finding.kind for finding in report.findings or ())
    if allowed:
        return Check("findings", "pass", f"signs of masked gradients ({kinds}) were allowed; the numbers may be too "
                                         f"high.")
    return Check("findings", "fail", f"signs of masked gradients ({kinds}): the numbers may be too high, so no limit "
                                     f"on them can be met. See the findings in the report.")


def _check_failures(report: Report) -> Check:
    missing = sum(failure.last - failure.first + 1 for failure in report.failures)
    first = report.failures[0]
    have = "has" if missing == 1 else "have"
    return Check("failures", "undecided", f"{_count(missing, 'image')} {have} no verdict, which the numbers leave out; "
                                          f"images {first.first:,} to {first.last:,} because of "
                                          f"{' '.join(first.error.split())} in step {first.step}.")


def _against(accuracy: Accuracy, floor: Fraction) -> tuple[str, int | None]:
    """The outcome for an accuracy and a floor in percent, and how many images would decide."""
    if Fraction(100 * accuracy.correct, accuracy.n) >= floor:
        return "pass", None
    if 100 * accuracy.interval[1] < floor:
        return "fail", None
    return "undecided", images_to_show_below(accuracy.correct, accuracy.n, floor / 100)


def _would_decide(images: int | None) -> str:
    return f"{images:,} images would decide, if the shares stay as they are" if images else "More images would decide"


def _number(value: Fraction, beside: Fraction = Fraction(0)) -> str:
    """Percent points without needless zeros: to two decimals, or to as many as tell them from `beside`."""
    digits = next((d for d in range(2, 12) if value == beside or round(value, d) != round(beside, d)), 12)
    return f"{float(value):.{digits}f}".rstrip("0").rstrip(".")


def _count(n: int, one: str, many: str | None = None) -> str:
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def _listed(names: list[str]) -> str:
    more = f"; and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return "; ".join(names[:_NAMED]) + more


def _markdown(text: str) -> str:
    """Text that Markdown shows as it is, in one line."""
    return re.sub(r"([\\`*_\[\]<>|#~&])", r"\\\1", " ".join(text.split()))
