"""How a report was made, in words that can go into a paper."""

from __future__ import annotations

import re
from collections.abc import Mapping

from robustness_lib.reports._charts import eps_text
from robustness_lib.reports.report import AttackRecord, Report
from robustness_lib.threat import ThreatModel

__all__ = ["BOUNDS", "INTERVALS", "ON_INTERVALS", "SOURCES", "attack_words", "duration", "made_with", "methods",
           "sources", "sources_named", "what_is_allowed"]

# What a reader who repeats the numbers has to cite, by a pattern in an attack's name or settings.
SOURCES = (
    (r"\bfgsm", "Goodfellow, Shlens and Szegedy (2015), Explaining and harnessing adversarial examples, ICLR (FGSM)."),
    (r"\bpgd", "Madry, Makelov, Schmidt, Tsipras and Vladu (2018), Towards deep learning models resistant to "
               "adversarial attacks, ICLR (PGD)."),
    (r"apgd|auto-?pgd|autoattack", "Croce and Hein (2020), Reliable evaluation of adversarial robustness with an "
                                   "ensemble of diverse parameter-free attacks, ICML (Auto-PGD and AutoAttack)."),
    (r"\bfab\b", "Croce and Hein (2020), Minimally distorted adversarial examples with a fast adaptive boundary "
                 "attack, ICML (FAB)."),
    (r"\bsquare", "Andriushchenko, Croce, Flammarion and Hein (2020), Square Attack: a query-efficient black-box "
                  "adversarial attack via random search, ECCV (Square)."),
    (r"carlini|\bc&w", "Carlini and Wagner (2017), Towards evaluating the robustness of neural networks, IEEE "
                       "Symposium on Security and Privacy (C&W)."),
)
CERTIFICATES = (
    (r"randomized smoothing", "Cohen, Rosenfeld and Kolter (2019), Certified adversarial robustness via randomized "
                              "smoothing, ICML (certificates by votes under noise)."),
)
BOUNDS = (
    (r"\bibp\b", "Gowal, Dvijotham, Stanforth, Bunel, Qin, Uesato, Arandjelovic, Mann and Kohli (2018), On the "
                  "effectiveness of interval bound propagation for training verifiably robust models, arXiv 1810.12715 "
                  "(IBP)."),
    (r"crown-ibp", "Zhang, Chen, Xiao, Gowal, Stanforth, Li, Boning and Hsieh (2020), Towards stable and efficient "
                   "training of verifiably robust neural networks, ICLR (CROWN-IBP)."),
    (r"(?<!α-)crown\b(?!-)", "Zhang, Weng, Chen, Hsieh and Daniel (2018), Efficient neural network robustness "
                             "certification with general activation functions, NeurIPS (CROWN)."),
    (r"α-crown", "Xu, Zhang, Wang, Wang, Jana, Lin and Hsieh (2021), Fast and complete: enabling complete verification "
                 "with rapid and massively parallel incomplete verifiers, ICLR (α-CROWN)."),
)
INTERVALS = ("Clopper and Pearson (1934), The use of confidence or fiducial limits illustrated in the case of the "
             "binomial, Biometrika 26 (intervals).")
ON_INTERVALS = ("Intervals are exact (Clopper and Pearson 1934), at 95\N{NO-BREAK SPACE}%, and cover the draw of the "
                "images.")


def methods(report: Report) -> list[str]:
    """Paragraphs with every setting; `attack_words` follows the last."""
    fingerprints = "; ".join(f"{name} fingerprint {value}" for name, value in report.fingerprints.items())
    paragraphs = [
        f"n = {report.n:,} images of {len(report.classes):,} classes were attacked under "
        f"{what_is_allowed(report.threat)}"
        + (f" ({fingerprints})." if fingerprints else "."),
        "Robust accuracy is the share of images that the model has right and that no attack changed to another class: "
        "the worst case per image over all attacks, and so an upper bound"
        + (", which bounds reach on these images. " if report.decided else ". ") + ON_INTERVALS,
    ]
    if report.curve is not None:
        elsewhere = "the suite's attacks decide" in report.curve.settings  # where earlier versions attacked too
        at = ", ".join(eps_text(eps, report.threat.norm) for eps in report.curve.eps
                       if not (elsewhere and eps == report.threat.eps))
        paragraphs.append(f"The curve over ε: {report.curve.settings}, started afresh at ε = {at}.")
    if report.certified is not None:
        by = f" They were proved by {report.certified_by}." if report.certified_by else ""
        paragraphs.append(f"Certified accuracy counts images that are right and proved not to change within ε.{by}")
    paragraphs.append(made_with(report.environment, f"The evaluation took {duration(report.seconds)}."))
    if report.attacks:
        paragraphs.append(f"The attacks of the suite “{report.suite}”, in this order:")
    return paragraphs


def what_is_allowed(threat: ThreatModel) -> str:
    """The threat model with what it means, without a full stop."""
    return (f"{threat}: pixels lie in [0, 1], and no image may move by more than ε = {threat.eps_text} in the "
            f"{'L∞' if threat.norm == 'linf' else 'L2'} norm or leave [0, 1]")


def made_with(environment: Mapping[str, str], took: str) -> str:
    """What it ran on, where that is known, and then how long."""
    surroundings = "; ".join(f"{name} {value}" for name, value in environment.items())
    return f"Made with: {surroundings}. {took}" if surroundings else took


def attack_words(report: Report) -> list[str]:
    """Each attack: settings, on what, how much."""
    return [_words(record) for record in report.attacks]


def _words(record: AttackRecord) -> str:
    on = "on all images that were right" if record.on == "correct" else "on what the attacks before it left"
    passes = (f"{record.queries:,} forward and {record.gradients:,} backward passes" if record.queries
              else f"{record.calls:,} calls")
    return f"{record.name}: {record.settings}, {on} ({int(record.tried.sum()):,} images; {passes})."


def sources(report: Report) -> list[str]:
    """What to cite: the attacks that were used, the proofs, and the intervals."""
    used = " ".join(f"{record.name} {record.settings}" for record in report.attacks)
    used += f" {report.curve.settings}" if report.curve is not None else ""
    return [*sources_named(used, SOURCES), *sources_named(report.certified_by, CERTIFICATES + BOUNDS),
            INTERVALS]


def sources_named(words: str, among: tuple[tuple[str, str], ...]) -> list[str]:
    """Those whose pattern is found in these words."""
    return [source for pattern, source in among if re.search(pattern, words, re.IGNORECASE)]


def duration(seconds: float) -> str:
    """12.3 s, 2 min 5 s or 1 h 2 min, with a space that does not break inside a value."""
    if seconds < 59.95:
        return f"{seconds:.1f}\N{NO-BREAK SPACE}s"
    minutes, rest = divmod(round(seconds), 60)
    parts = ((minutes, "min"), (rest, "s")) if minutes < 60 else ((minutes // 60, "h"), (minutes % 60, "min"))
    return " ".join(f"{value}\N{NO-BREAK SPACE}{unit}" for value, unit in parts)
