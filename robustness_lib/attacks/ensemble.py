"""Ensembles: several attacks under one name, and how each of them is run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Protocol

from torch import Tensor

from robustness_lib.attacks._attack import Attack, AttackResult
from robustness_lib.attacks._bounded import BoundedAttack
from robustness_lib.querying.first_look import FirstLook
from robustness_lib.querying.frozen import Classifier
from robustness_lib.querying.warnings import AttackWarning, attack_warning
from robustness_lib.threat import ThreatModel

__all__ = ["AttackEnsemble", "NamedAttack", "RunnableAttack", "with_all_steps"]


class RunnableAttack(Protocol):
    """What the loop asks of an attack: this library's attacks have it, others are wrapped (`foreign.ForeignAttack`)."""

    @property
    def knows_success(self) -> bool:
        """Whether it looks at the model's answer itself: a success of its own that is not confirmed is then said."""

    @property
    def follows_gradients(self) -> bool:
        """Whether it climbs along gradients of the model under attack, and knows where it found none."""

    def run(self, model: Classifier, x: Tensor, y: Tensor, *, index: Tensor, batch_size: int) -> AttackResult: ...


@dataclass(frozen=True)
class NamedAttack:
    """An attack in the loop. on: "correct", it meets every image that the model has right; "survivors", only those that
    all before it left standing; "not followed", only those of them on which none before it could follow a gradient.
    draws: answers averaged when its successes are confirmed."""

    name: str
    attack: RunnableAttack
    on: str = "survivors"
    draws: int = 1


class AttackEnsemble(ABC):
    """Several attacks under one name, such as `AutoAttack`: each meets only what those before it left standing.

    draws: answers averaged at each point, where they are made for a model that answers at random; else 1.
    least_classes: with fewer, the attacks are not those of the paper.
    """

    threat: ThreatModel

    @property
    @abstractmethod
    def draws(self) -> int: ...

    @property
    @abstractmethod
    def least_classes(self) -> int: ...

    @abstractmethod
    def attacks(self, classes: int) -> dict[str, Attack]:
        """The attacks by name, in their order, for a model of this many classes."""

    def named_attacks(self, look: FirstLook, prefix: str = "") -> list[NamedAttack]:
        """The same as they are run on the model looked at. prefix: stands before their names."""
        attacks = self.attacks(look.classes)
        attacks = with_all_steps(attacks) if look.stochastic else attacks
        return [NamedAttack(prefix + name, attack, draws=self.draws) for name, attack in attacks.items()]

    def warnings(self, look: FirstLook) -> tuple[AttackWarning, ...]:
        """What makes these other attacks than the paper's, on the model looked at."""
        return (attack_warning("few classes", of=look.classes),) if look.classes < self.least_classes else ()


def with_all_steps(attacks: dict[str, Attack]) -> dict[str, Attack]:
    """As they are run on a model that answers at random: none stops at a lucky draw."""
    return {name: replace(attack, stop="keep-success") if isinstance(attack, BoundedAttack) else attack
            for name, attack in attacks.items()}
