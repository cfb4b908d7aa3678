"""When an attack breaks what is proved: the one finding that ends an evaluation."""

from __future__ import annotations

from torch import Tensor

from robustness_lib.attacks.ensemble_run import Refused
from robustness_lib.threat import ThreatModel

__all__ = ["Contradiction"]


class Contradiction(Refused):
    """An image was proved constant and broken all the same: the certificate or the check of the attack is wrong.

    Where each proof may be wrong with a small probability, more were broken than chance would do; this is one of them.
    index: its number in the data. x, x_adv: (...) the image and the one that breaks it (None where it was not kept:
    `diagnose` finds it again). label, mistaken_for: classes. attack: what found it. distance: in the threat model's
    norm. chance: how many were broken, in words, where there was a chance of some.
    """

    def __init__(self, index: int, x: Tensor, x_adv: Tensor | None, label: int, mistaken_for: int, attack: str,
                 distance: float, threat: ThreatModel, chance: str = "") -> None:
        end = "Either these certificates or the check of the attack" if chance else "One of the two"
        super().__init__(f"{chance}image {index} is certified under {threat}, and {attack} found a point at distance "
                         f"{distance:.6g} that the model takes for class {mistaken_for} instead of {label}. {end} is "
                         f"wrong, and no number can be given before that is known: the error carries x and x_adv.")
        self.index, self.x, self.x_adv, self.label = index, x, x_adv, label
        self.mistaken_for, self.attack, self.distance = mistaken_for, attack, distance
