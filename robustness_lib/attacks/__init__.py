"""Attacks: each a frozen dataclass that you call."""

from robustness_lib.attacks._attack import Attack, AttackResult, AttackWarning
from robustness_lib.attacks._search import Step
from robustness_lib.attacks._victim import held_still
from robustness_lib.attacks.fgsm import FGSM
from robustness_lib.attacks.pgd import PGD

__all__ = ["FGSM", "PGD", "Attack", "AttackResult", "AttackWarning", "Step", "held_still"]
