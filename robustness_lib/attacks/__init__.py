"""Attacks: each a frozen dataclass that you call."""

from robustness_lib.attacks._attack import Attack, AttackResult
from robustness_lib.attacks._bounded import BoundedAttack
from robustness_lib.attacks._minimum_norm import MinimumNormAttack
from robustness_lib.attacks._search import Step
from robustness_lib.attacks.auto_attack import AutoAttack, AutoAttackResult, StageReport
from robustness_lib.attacks.auto_pgd import AutoPGD
from robustness_lib.attacks.carlini_wagner import CarliniWagnerL2
from robustness_lib.attacks.fab import FAB
from robustness_lib.attacks.fgsm import FGSM
from robustness_lib.attacks.pgd import PGD
from robustness_lib.attacks.quantized import GridImages, Quantized, quantize
from robustness_lib.attacks.square import SquareAttack
from robustness_lib.attacks.transfer import Transfer
from robustness_lib.querying.warnings import AttackWarning

__all__ = ["FAB", "FGSM", "PGD", "Attack", "AttackResult", "AttackWarning", "AutoAttack", "AutoAttackResult", "AutoPGD",
           "BoundedAttack", "CarliniWagnerL2", "GridImages", "MinimumNormAttack", "Quantized", "SquareAttack",
           "StageReport", "Step", "Transfer", "quantize"]
