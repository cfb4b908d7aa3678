"""From the columns of the parts to the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from robustness_lib.attacks._doubts import doubt, square_ahead
from robustness_lib.attacks._victim import Victim
from robustness_lib.evaluation._evidence import join
from robustness_lib.evaluation._part_run import PartRun
from robustness_lib.evaluation.diagnose import judge
from robustness_lib.evaluation.findings import Finding
from robustness_lib.evaluation.report import AttackRecord, Curve, Examples, Failure, Picture, Report
from robustness_lib.evaluation.suites import Entry
from robustness_lib.state import Content, fingerprint

__all__ = ["assemble", "class_names"]

_PICTURES = 6
_SAID_BY = {  # findings, and the warnings of attacks that say the same in other words
    "no gradient": ("no gradient",), "outputs vary": ("random answers", "not confirmed"),
    "zero gradients": ("zero gradient", "one loss blind"), "gradients not a number": ("not a number",),
    "black box ahead": ("Square ahead", "Square found more"),
}
_TOO_FEW = 20  # images: on fewer, no sign test of the diagnostics comes near significance unless nearly all agree


def assemble(found: Sequence[tuple[int, Content]], run: PartRun, *, classes: Sequence[str] | None,
             notes: tuple[str, ...], failures: tuple[Failure, ...], model: str,
             environment: Mapping[str, str]) -> Report:
    """found: the first image's number and the columns of each part that has a verdict, in order.

    Raises ValueError for a wrong number of class names."""
    index = torch.cat([torch.arange(first, first + len(columns["label"])) for first, columns in found])
    names = class_names(classes, found[0][1]["classes"])
    random = Victim(run.model).random
    records = [record for entry in run.entries for record in _records(entry, found, len(names), random)]
    label, predicted = _join(found, "label"), _join(found, "predicted")
    broken_by, mistaken_for, distance = _first_broken(run.entries, found, label == predicted, len(names))
    findings, too_few = _findings(run, found)
    if any(finding.kind == "outputs vary" for finding in findings or ()):  # which says more
        notes = tuple(note for note in notes if note != str(doubt("random answers")))
    digest = tuple(one for _, columns in found for one in columns["digest"])
    examples = Examples(index, digest, label, predicted, _join(found, "top5"), broken_by, mistaken_for, distance)
    return Report(
        threat=run.threat, suite=run.suite.name, classes=names, examples=examples, attacks=tuple(records),
        curve=_curve(run, found), findings=findings,
        notes=tuple(dict.fromkeys((*notes, *too_few, *_notes(run, found, index, examples, records, findings or ())))),
        certified=None if run.certified is None else run.certified.cpu()[index], failures=failures,
        pictures=_pictures(found), fingerprints={"model": model, "data": fingerprint("".join(digest))},
        environment=environment, seconds=round(sum(columns["took"] for _, columns in found), 3),
    )


def _join(found: Sequence[tuple[int, Content]], name: str) -> Tensor:
    return torch.cat([columns[name] for _, columns in found])


def class_names(classes: Sequence[str] | None, k: int) -> tuple[str, ...]:
    if classes is None:
        return tuple(map(str, range(k)))
    if len(classes) != k:
        raise ValueError(f"the model tells {k} classes apart, and {len(classes)} names were given")
    return tuple(name.encode("utf-8", "replace").decode() for name in classes)  # names of folders may be anything


def _trials(found: Sequence[tuple[int, Content]], entry: Entry, name: str) -> Tensor:
    return torch.cat([columns["trials"][entry.name][name] for _, columns in found])


def _records(entry: Entry, found: Sequence[tuple[int, Content]], classes: int, random: bool) -> list[AttackRecord]:
    stage, tried = _trials(found, entry, "stage"), _trials(found, entry, "tried")
    records = []
    for number, (name, settings) in enumerate(entry.stages(classes, random).items()):
        spent = {cost: sum(columns["trials"][entry.name]["spent"][name][cost] for _, columns in found)
                 for cost in ("calls", "queries", "gradients", "seconds")}
        records.append(AttackRecord(
            name, settings, entry.on, tried=tried & ~((stage >= 0) & (stage < number)), broke=stage == number,
            calls=int(spent["calls"]), queries=int(spent["queries"]), gradients=int(spent["gradients"]),
            seconds=round(spent["seconds"], 3)))
    return records


def _first_broken(entries: Sequence[Entry], found: Sequence[tuple[int, Content]], clean: Tensor,
                  classes: int) -> tuple[tuple[str | None, ...], Tensor, Tensor]:
    """Per image, of the first attack in order that broke it: its name, the class it led to, the distance (of what the
    diagnostics broke neither is kept)."""
    broken_by: list[str | None] = [None] * len(clean)
    mistaken_for = torch.full((len(clean),), -1)
    distance = torch.full((len(clean),), torch.nan, dtype=torch.float64)
    standing = clean.clone()
    for entry in entries:
        stage, names = _trials(found, entry, "stage"), list(entry.stages(classes))
        new = standing & (stage >= 0)
        for row in new.nonzero()[:, 0].tolist():
            broken_by[row] = names[int(stage[row])]
        mistaken_for = torch.where(new, _trials(found, entry, "mistaken_for"), mistaken_for)
        distance = torch.where(new, _trials(found, entry, "distance"), distance)
        standing &= ~new
    return tuple(broken_by), mistaken_for, distance


def _curve(run: PartRun, found: Sequence[tuple[int, Content]]) -> Curve | None:
    if "curve" not in found[0][1]:
        return None
    at = run.curve_at(found[0][1]["pixels"])
    return Curve(f"{run.curve_attack(run.threat.eps)!r} at each ε", at,
                 torch.cat([columns["curve"] for _, columns in found], dim=1))


def _findings(run: PartRun, found: Sequence[tuple[int, Content]]) -> tuple[tuple[Finding, ...] | None, tuple[str, ...]]:
    """What the evidence bears out, and what to say where it is too little to tell."""
    evidence = join([columns["evidence"] for _, columns in found if columns.get("evidence")])
    if not evidence:
        return None, ()
    findings = judge(evidence)
    if run.suite.name == "random":  # a model that answers at random is what this suite is for
        findings = tuple(finding for finding in findings if finding.kind != "outputs vary")
    right = int(evidence["right"].sum())
    if not findings and right < _TOO_FEW:
        return None, (f"diagnostics: {right} images that the model has right are too few to look for masked gradients; "
                      f"give at least {_TOO_FEW}.",)
    return findings, ()


def _notes(run: PartRun, found: Sequence[tuple[int, Content]], index: Tensor, examples: Examples,
           records: Sequence[AttackRecord], findings: Sequence[Finding]) -> tuple[str, ...]:
    """Warnings of the attacks, each said once for all parts; only where the image still stands, and where no finding
    says it already."""
    said = {kind for finding in findings for kind in _SAID_BY.get(finding.kind, ())}
    right = (examples.label == examples.predicted).tolist()
    standing = {number for number, was_right, by in zip(index.tolist(), right, examples.broken_by, strict=True)
                if was_right and by is None}
    rows: dict[tuple[str, str], set[int]] = {}
    tried: dict[str, int] = {record.name: int(record.tried.sum()) for record in records}
    for first, columns in found:
        for entry in run.entries:
            for during, kind, at in columns["trials"][entry.name]["doubts"]:
                rows.setdefault((during, kind), set()).update(first + row for row in at)
    notes = []
    for (during, kind), images in rows.items():
        if kind in said:
            continue
        if not images:  # about the model, not about an image
            notes.append(str(doubt(kind)))
        elif left := sorted(images & standing):
            notes.append(str(doubt(kind, left, tried.get(during, len(index)), during=during)))
    for record in records:
        if record.name.endswith("square") and record.on == "survivors" and "Square ahead" not in said:
            notes += map(str, square_ahead(record.broke.nonzero()[:, 0].tolist(), len(index)))
    return tuple(dict.fromkeys(notes))


def _pictures(found: Sequence[tuple[int, Content]]) -> tuple[Picture, ...]:
    """A few examples, of as many classes as there are."""
    taken = [Picture(**one) for _, columns in found for trial in columns["trials"].values()
             for one in trial["pictures"]]
    once = {one.index: one for one in reversed(taken)}  # the first attack's of each image
    by_label: dict[int, list[Picture]] = {}
    for one in sorted(once.values(), key=lambda one: one.index):
        by_label.setdefault(one.label, []).append(one)
    rounds = [each[k] for k in range(_PICTURES) for each in by_label.values() if k < len(each)]
    return tuple(rounds[:_PICTURES])
