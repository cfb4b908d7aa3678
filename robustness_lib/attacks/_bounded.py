"""Attacks inside a threat model: how wrong can the model be within ε?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from torch import Tensor

from robustness_lib.attacks._attack import Attack
from robustness_lib.attacks._search import Goal, Run, Search, StepObserver
from robustness_lib.losses import LOSSES, Loss, PairLoss
from robustness_lib.querying.queried_model import QueriedModel
from robustness_lib.querying.warnings import AttackWarning
from robustness_lib.threat import ThreatModel

__all__ = ["BoundedAttack", "Stop"]

Stop = Literal["success", "never", "keep-success"]


@dataclass(frozen=True)
class BoundedAttack(Attack):
    """An attack that looks for errors inside a threat model.

    threat: what the attacker may do. loss: a name ("ce", "dlr", "margin"), or any function (logits, labels) -> (N,)
    to climb. stop: "success" ends an example's search at its first success (evaluation); "never" lets every example
    take all its steps and returns the iterate of highest loss (training, transfer, curves); "keep-success" takes all
    steps too and returns the success of highest loss where there is one (models that answer at random, whose first
    success is a lucky draw; cross-entropy may be higher at a point that is read rightly). mode: see `Attack`.
    """

    threat: ThreatModel
    loss: Loss | str = field(default="ce", kw_only=True)
    stop: Stop = field(default="success", kw_only=True)

    _named_losses: ClassVar[Mapping[str, Loss | PairLoss]] = LOSSES

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.threat, ThreatModel):
            raise TypeError(f'threat must be a ThreatModel, such as ThreatModel("linf", 8/255); found {self.threat!r}')
        if isinstance(self.loss, str) and self.loss not in self._named_losses:
            raise ValueError(f"loss must be one of {sorted(self._named_losses)} or a function; found {self.loss!r}")
        if self.stop not in ("success", "never", "keep-success"):
            raise ValueError(f'stop must be "success", "never" or "keep-success"; found {self.stop!r}')

    def _search(self, queried: QueriedModel, x: Tensor, y: Tensor, target: Tensor | None, index: Tensor,
                on_step: StepObserver | None, offset: int) -> Search:
        goal = Goal(self._named_losses[self.loss] if isinstance(self.loss, str) else self.loss, y, target)
        return Search(queried, self.threat, x, goal, index, self.stop, on_step, offset)

    def _distance(self, x_adv: Tensor, x: Tensor, success: Tensor) -> Tensor:
        return self.threat.distance(x_adv, x)

    def _odd_settings(self, x: Tensor) -> tuple[AttackWarning, ...]:
        doubt = self.threat.doubt_about_eps(x[0].numel()) if len(x) else None
        return () if doubt is None else (AttackWarning("large ε", doubt),)

    def _random_start(self, run: Run, *, seed: int, step: int) -> Tensor:
        point = self.threat.random_point(run.x, seed=seed, index=run.index, step=step)
        return run.search.queried.layout.arrange(point)

    def _given_start(self, run: Run, start: Tensor) -> Tensor:
        return run.search.queried.layout.arrange(run.project(start[run.rows]))


