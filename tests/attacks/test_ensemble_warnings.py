"""Warnings of an ensemble: about images that still stand, by their places in all of the data."""

from __future__ import annotations

import torch

from robustness_lib import ThreatModel
from robustness_lib.attacks import PGD
from robustness_lib.attacks.ensemble import NamedAttack
from robustness_lib.attacks.ensemble_run import AttackColumns, Verdicts
from robustness_lib.attacks.ensemble_warnings import ensemble_warnings
from robustness_lib.querying.warnings import AttackWarning, attack_warning


def part(broken: list[int], **warnings: list[int]) -> Verdicts:
    """Four images, all right, that one attack has tried. warnings: places by kind, with _ for a space."""
    columns = AttackColumns.empty(4)
    columns.tried[:] = True
    columns.broke[broken] = True
    columns.warnings.update({kind.replace("_", " "): rows for kind, rows in warnings.items()})
    return Verdicts(torch.ones(4, dtype=torch.bool), ~columns.broke, columns.broke.clone(), columns.broke & False,
                    attacks={"pgd": columns})


def test_a_success_needs_no_excuse() -> None:
    found = [(0, part([1], not_a_number=[1, 2], zero_gradient=[1, 3])), (4, part([0], not_a_number=[0, 3]))]
    warnings = list(ensemble_warnings(found, [NamedAttack("pgd", PGD(ThreatModel("linf", 0.1)))]))
    assert [(warning.kind, warning.rows) for warning in warnings] == [("not a number", (2, 7)), ("zero gradient", (3,))]
    assert all(" of 8 images" in warning.message for warning in warnings)


def test_what_an_attack_says_in_its_own_words_or_of_another_model_is_handed_on() -> None:
    mine = AttackWarning("mine", "seven of the images frighten me", (1, 3))
    model_wide = AttackWarning("few classes", "a note only: the model has 2 classes")
    theirs = attack_warning("zero gradient", [0, 3], 4, about="the surrogate")
    one, two = part([1]), part([])
    one.attacks["pgd"].others += [mine, model_wide, theirs]
    two.attacks["pgd"].others += [model_wide, theirs]
    warnings = list(ensemble_warnings([(0, one), (4, two)], [NamedAttack("pgd", PGD(ThreatModel("linf", 0.1)))]))
    assert [(w.kind, w.rows, w.about, w.during) for w in warnings] == [
        ("mine", (3,), "", "pgd"), ("few classes", (), "", "pgd"),
        ("zero gradient", (0, 3, 4, 7), "the surrogate", "pgd")]
    assert warnings[0].message == "pgd: seven of the images frighten me"
    assert warnings[2].message.startswith("pgd: on the surrogate: for 4 of 8 images ")
