"""Warnings of an ensemble: about images that still stand, by their places in all of the data."""

from __future__ import annotations

import torch

from robustness_lib import ThreatModel
from robustness_lib.attacks import PGD
from robustness_lib.attacks.ensemble import NamedAttack
from robustness_lib.attacks.ensemble_run import AttackColumns, Verdicts
from robustness_lib.attacks.ensemble_warnings import ensemble_warnings


def part(broken: list[int], **warnings: list[int]) -> Verdicts:
    """Four images, all right, that one attack has tried. warnings: places by kind, with _ for a space."""
    columns = AttackColumns.empty(4)
    columns.tried[:] = True
    columns.broke[broken] = True
    columns.warnings.update({kind.replace("_", " "): rows for kind, rows in warnings.items()})
    return Verdicts(torch.ones(4, dtype=torch.bool), ~columns.broke, attacks={"pgd": columns})


def test_a_success_needs_no_excuse() -> None:
    found = [(0, part([1], not_a_number=[1, 2], zero_gradient=[1, 3])), (4, part([0], not_a_number=[0, 3]))]
    warnings = list(ensemble_warnings(found, [NamedAttack("pgd", PGD(ThreatModel("linf", 0.1)))]))
    assert [(warning.kind, warning.rows) for warning in warnings] == [("not a number", (2, 7)), ("zero gradient", (3,))]
    assert all(" of 8 images" in warning.message for warning in warnings)
