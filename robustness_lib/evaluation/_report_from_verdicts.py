"""From the verdicts on the parts to the report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from robustness_lib.attacks.ensemble import NamedAttack
from robustness_lib.attacks.ensemble_run import AttackColumns, Verdicts
from robustness_lib.attacks.ensemble_warnings import ensemble_warnings, voiding_warnings
from robustness_lib.certify.proof_steps import PIECES
from robustness_lib.diagnosis.masked_gradients import found_beyond_the_suite, judge
from robustness_lib.diagnosis.observations import join_observations
from robustness_lib.evaluation._proofs import Proofs
from robustness_lib.evaluation._steps import DiagnosisStep, curve_attack, curve_step_name, misleading_gradients
from robustness_lib.evaluation.suites import Suite, attack_settings
from robustness_lib.querying.first_look import FirstLook
from robustness_lib.querying.frozen import Classifier, Mode
from robustness_lib.reports.findings import Finding
from robustness_lib.reports.report import (
    AttackRecord,
    BoundRecord,
    Column,
    Curve,
    Doubt,
    Examples,
    Failure,
    Picture,
    Report,
)
from robustness_lib.state import fingerprint, model_fingerprint
from robustness_lib.threat import ThreatModel

__all__ = ["Ran", "class_names", "report_from_verdicts"]

_PICTURES = 6
_SAID_BY = {  # findings, and the warnings of attacks that say the same in other words
    "no gradient": ("no gradient",), "outputs vary": ("random answers", "not confirmed"),
    "zero gradients": ("zero gradient", "one loss blind"), "gradients not a number": ("not a number",),
    "black box ahead": ("Square ahead", "Square found more"),
}
_TOO_FEW = 20  # images: on fewer, no sign test of the diagnostics comes near significance unless nearly all agree


@dataclass(frozen=True)
class Ran:
    """What was run. attacks: of the suite, one by one, on the model looked at. epsilons: of the curve."""

    model: Classifier
    threat: ThreatModel
    suite: Suite
    attacks: Sequence[NamedAttack]
    epsilons: tuple[float, ...]
    look: FirstLook
    proofs: Proofs
    seed: int
    mode: Mode

    @property
    def curve_settings(self) -> str:
        return repr(curve_attack(self.threat, self.threat.eps, self.seed, self.mode))

    @property
    def within(self) -> list[str]:
        """Names of the steps of the curve at a smaller ε, whose finds count."""
        return [curve_step_name(eps) for eps in self.epsilons if eps < self.threat.eps]


FoundVerdicts = Sequence[tuple[int, Verdicts]]  # by the number of each part's first image


def report_from_verdicts(found: FoundVerdicts, ran: Ran, *, classes: Sequence[str] | None, notes: tuple[str, ...],
                         failures: tuple[Failure, ...], environment: Mapping[str, str]) -> Report:
    """found: the first image's number and the verdicts of each part that has them, in order.

    Raises ValueError for a wrong number of class names, Contradiction for proofs that cannot all hold."""
    index = torch.cat([torch.arange(first, first + len(verdicts.right)) for first, verdicts in found])
    label, predicted, top5 = (torch.cat([verdicts.clean[name] for _, verdicts in found])
                              for name in ("label", "predicted", "top5"))
    digest = tuple(one for _, verdicts in found for one in verdicts.clean["digest"])
    columns = {name: _joined(found, name) for name in found[0][1].attacks}
    broken_by, mistaken_for, distance = _first_broken(ran, columns, len(label))
    findings, too_few = _findings(ran, found)
    certified, of_proofs = ran.proofs.judged(found, label, index)
    proved = () if certified is None else index[torch.from_numpy(certified)].tolist()
    doubts = tuple(voiding_warnings(found, ran.attacks, ran.look, set(proved))) or misleading_gradients(found)
    kinds = {kind for finding in findings or () for kind in _SAID_BY.get(finding.kind, ())}
    kinds |= {doubt.kind for doubt in doubts}
    warned = [str(warning) for warning in ensemble_warnings(found, ran.attacks)
              if warning.about or warning.kind not in kinds | {odd.kind for odd in ran.look.warnings}]
    # What the first look said, before anything was attacked, may be said by then in other words.
    said = {str(warning) for warning in ran.look.warnings if warning.kind in kinds}
    notes = tuple(note for note in notes if note not in said)
    return Report(
        threat=ran.threat, suite=ran.suite.name, classes=class_names(classes, ran.look.classes),
        examples=Examples(index.numpy(), digest, label.numpy(), predicted.numpy(), top5.numpy(), broken_by,
                          mistaken_for, distance),
        attacks=tuple(_records(ran, columns)), curve=_curve(ran, columns, (label == predicted).numpy()),
        findings=findings, notes=tuple(dict.fromkeys((*notes, *of_proofs, *too_few, *warned))),
        certified=certified, certified_by=ran.proofs.words, bounds=tuple(_bounds(found)), failures=failures,
        pictures=_pictures(found), doubts=tuple(Doubt(doubt.kind, doubt.message) for doubt in doubts),
        fingerprints={"model": model_fingerprint(ran.model), "data": fingerprint("".join(digest))},
        environment=environment, seconds=round(sum(verdicts.seconds for _, verdicts in found), 3),
    )


def class_names(classes: Sequence[str] | None, k: int) -> tuple[str, ...]:
    if classes is None:
        return tuple(map(str, range(k)))
    if len(classes) != k:
        raise ValueError(f"the model tells {k} classes apart, and {len(classes)} names were given")
    return tuple(name.encode("utf-8", "replace").decode() for name in classes)  # names of folders may be anything


def _joined(found: FoundVerdicts, name: str) -> AttackColumns:
    """An attack's columns over all parts."""
    parts = [verdicts.attacks[name] for _, verdicts in found]
    tried, broke, mistaken_for, distance = (torch.cat([getattr(part, column) for part in parts])
                                            for column in ("tried", "broke", "mistaken_for", "distance"))
    return AttackColumns(tried, broke, mistaken_for, distance, sum((part.spent for part in parts), Counter()))


def _bounds(found: FoundVerdicts) -> list[BoundRecord]:
    """Of evaluations that prove."""
    records = []
    for name in [name for names in PIECES for name in names if name in found[0][1].other]:
        parts = [verdicts.other[name] for _, verdicts in found]
        tried, proved, seconds = (torch.cat([part[column] for part in parts]) for column in (
            "tried", "proved", "seconds"))
        records.append(BoundRecord(name, tried.numpy(), proved.numpy(), passes=round(sum(
            float(part.get("passes", 0.0)) for part in parts), 1), seconds=round(float(seconds.sum()), 3)))
    return records


def _records(ran: Ran, columns: Mapping[str, AttackColumns]) -> list[AttackRecord]:
    records = [_record(named.name, attack_settings(named.attack), named.on, columns[named.name].tried,
                       columns[named.name].broke, columns[named.name].spent) for named in ran.attacks
               if named.on != "not followed" or columns[named.name].tried.any()]
    others = [columns[name] for name in map(curve_step_name, ran.epsilons) if name in columns]
    if others:
        tried = torch.stack([one.tried for one in others]).any(0)
        broke = torch.stack([columns[name].broke for name in ran.within]).any(0) if ran.within else \
            torch.zeros_like(tried)
        spent: Counter[str] = sum((one.spent for one in others), Counter())
        records.append(_record("curve", ran.curve_settings, "correct", tried, broke, spent))
    return records


def _record(name: str, settings: str, on: str, tried: Tensor, broke: Tensor, spent: Counter[str]) -> AttackRecord:
    return AttackRecord(name, settings, on, tried.numpy(), broke.numpy(), calls=spent["calls"],
                        queries=spent["queries"], gradients=spent["gradients"],
                        seconds=round(float(spent["seconds"]), 3))


def _first_broken(ran: Ran, columns: Mapping[str, AttackColumns],
                  n: int) -> tuple[tuple[str | None, ...], Column, Column]:
    """Per image, of the first attack in order that broke it: its name, the class it led to, the distance."""
    broken_by: list[str | None] = [None] * n
    mistaken_for, distance = np.full(n, -1), np.full(n, np.nan)
    called = {named.name: named.name for named in ran.attacks} | dict.fromkeys(ran.within, "curve")
    for name in called:
        for row in columns[name].broke.nonzero()[:, 0].tolist():
            if broken_by[row] is None:
                broken_by[row] = called[name]
                mistaken_for[row], distance[row] = columns[name].mistaken_for[row], columns[name].distance[row]
    return tuple(broken_by), mistaken_for, distance


def _curve(ran: Ran, columns: Mapping[str, AttackColumns], right: Column) -> Curve | None:
    """At the threat model's own ε the suite has spoken; elsewhere an attack has."""
    if not ran.epsilons:
        return None
    suite = right & ~np.any([columns[named.name].broke.numpy() for named in ran.attacks], axis=0)
    stood = [suite if eps == ran.threat.eps else right & ~columns[curve_step_name(eps)].broke.numpy()
             for eps in ran.epsilons]
    settings = f"{ran.curve_settings} at each ε"
    if ran.threat.eps in ran.epsilons:
        settings += " but the threat model's own, where the suite's attacks decide"
    return Curve(settings, ran.epsilons, np.stack(stood))


def _findings(ran: Ran, found: FoundVerdicts) -> tuple[tuple[Finding, ...] | None, tuple[str, ...]]:
    """What was observed bears out, and what to say where it is too little to tell."""
    observed = join_observations([verdicts.other[DiagnosisStep.name] for _, verdicts in found
                                  if DiagnosisStep.name in verdicts.other])
    if not observed:
        return None, ()
    findings = judge(observed)
    if ran.suite.name == "random" or ran.look.averages:  # made for a model that answers at random, or for its mean
        findings = tuple(finding for finding in findings if finding.kind != "outputs vary")
    total, said = found_beyond_the_suite(observed)
    beyond = (f"a note only: in the diagnostics {said}. They do not count, since only these images were looked at; a "
              f"few are usual on honest models.",) if total else ()
    if any(finding.kind == "suite too weak" for finding in findings):
        beyond = ()
    right = int(observed["right"].sum())
    if not findings and right < _TOO_FEW:
        return None, (f"diagnostics: {right} images that the model has right are too few to look for masked gradients; "
                      f"give at least {_TOO_FEW}.", *beyond)
    return findings, beyond


def _pictures(found: FoundVerdicts) -> tuple[Picture, ...]:
    """A few examples, of as many classes as there are."""
    taken = [Picture(**one) for _, verdicts in found for columns in verdicts.attacks.values()
             for _, kept in columns.kept for one in kept.get("pictures", ())]
    once = {one.index: one for one in reversed(taken)}  # the first attack's of each image
    by_label: dict[int, list[Picture]] = {}
    for one in sorted(once.values(), key=lambda one: one.index):
        by_label.setdefault(one.label, []).append(one)
    rounds = [each[k] for k in range(_PICTURES) for each in by_label.values() if k < len(each)]
    return tuple(rounds[:_PICTURES])
