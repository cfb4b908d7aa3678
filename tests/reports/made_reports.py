"""Reports made by hand, for tests of what is done with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from robustness_lib.reports.report import AttackRecord, Curve, Examples, Report
from robustness_lib.threat import ThreatModel


def yes(positions: Sequence[int], n: int) -> np.ndarray:
    """(n,) bool: true at these positions."""
    column = np.zeros(n, dtype=np.bool_)
    column[list(positions)] = True
    return column


def make_report(n: int = 10, *, wrong: Sequence[int] = (), broken: Mapping[str, Sequence[int]] | None = None,
                survivors: Sequence[str] = (), labels: Sequence[int] | None = None, classes: int = 2,
                names: Sequence[str] | None = None, digests: Sequence[str] | None = None,
                curve: Mapping[float, Sequence[int]] | None = None, threat: ThreatModel | None = None,
                **more: Any) -> Report:
    """n images, of which `wrong` are misread without an attack. broken: by attack, in order, the positions that it
    broke; those in `survivors` were tried only on what the ones before left. labels: default 0, 1, ... over the
    classes. Every wrong answer and adversarial image is read as the next class. curve: by ε, the positions that
    stood. more: fields of Report (suite, findings, notes, certified, failures, ...)."""
    threat = threat or ThreatModel("linf", 4 / 255)
    label = np.array(labels if labels is not None else [i % classes for i in range(n)])
    off = (label + 1) % classes
    clean = ~yes(wrong, n)
    standing, broken_by, records = clean.copy(), [None] * n, []
    for name, positions in (broken or {}).items():
        tried = (standing if name in survivors else clean).copy()
        broke = yes(positions, n)
        assert not (broke & ~tried).any(), f"{name} cannot break what it was not tried on"
        for row in (broke & standing).nonzero()[0].tolist():
            broken_by[row] = name
        standing &= ~broke
        records.append(AttackRecord(name, f"{name}()", "survivors" if name in survivors else "correct", tried, broke,
                                    calls=1, queries=n, gradients=n, seconds=0.5))
    fell = clean & ~standing
    examples = Examples(
        index=np.arange(n), digest=tuple(digests or (f"{i:016x}" for i in range(n))), label=label,
        predicted=np.where(clean, label, off), top5=np.ones(n, dtype=np.bool_), broken_by=tuple(broken_by),
        mistaken_for=np.where(fell, off, -1),
        distance=np.where(fell, threat.eps, np.nan),
    )
    drawn = None if curve is None else Curve("PGD()", tuple(curve), np.stack([yes(p, n) for p in curve.values()]))
    fields: dict[str, Any] = {
        "suite": "standard", "findings": (), "fingerprints": {"model": "m" * 64, "data": "d" * 64},
        "environment": {"robustness_lib": "0.1.0", "seed": "0", "date": "2026-01-01T00:00:00+00:00"}, "seconds": 1.0,
    } | more
    return Report(threat=threat, classes=tuple(names or (f"class {i}" for i in range(classes))), examples=examples,
                  attacks=tuple(records), curve=drawn, **fields)
