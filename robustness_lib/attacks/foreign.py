"""Somebody else's attack among this library's: held to the rules, and what it returns is verified."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from robustness_lib.attacks._attack import AttackResult
from robustness_lib.attacks.ensemble_run import Refused
from robustness_lib.counter_random import uniform
from robustness_lib.querying.batch_size import cut
from robustness_lib.querying.frozen import Classifier, Mode, frozen
from robustness_lib.querying.queried_model import QueriedModel
from robustness_lib.querying.warnings import attack_warning
from robustness_lib.threat import ThreatModel

__all__ = ["ForeignAttack", "ForeignFunction"]

ForeignFunction = Callable[[Any, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class ForeignAttack:
    """A function (model, x, y) -> x_adv, run as an attack of this library is.

    name: for what is said of it. threat: it may not leave. seed: of the global generator, which it may draw from: it is
    set for each call, so that a resumed run ends alike, and put back afterwards.
    """

    name: str
    function: ForeignFunction
    threat: ThreatModel
    seed: int = 0
    mode: Mode = "eval"

    follows_gradients: ClassVar[bool] = False  # as far as one can tell
    knows_success: ClassVar[bool] = False  # it returns images for all; whether they are wrong is found out afterwards

    def __repr__(self) -> str:
        return re.sub(r" at 0x[0-9a-f]+", "", repr(self.function))  # without addresses, so that two runs agree

    def run(self, model: Classifier, x: Tensor, y: Tensor, *, index: Tensor, batch_size: int) -> AttackResult:
        """Attack the images x (N, ...) with labels y (N,) and numbers index (N,), batch_size at a time (and one alone,
        if the model only takes two, twice over). Every image counts as a success until it is asked about; passes are
        not counted. Where none was moved, a warning says so.

        Raises Refused for anything but images of x's shape, inside the threat model and the pixel box.
        """
        queried = QueriedModel(model, mode=self.mode)
        device, made = queried.device(x), []
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), frozen(model, self.mode):
            parts = cut(len(x), batch_size)
            if any(part.stop - part.start == 1 for part in parts):
                queried.logits(x[:1].to(device, copy=True))  # does it take one?
            torch.manual_seed(int(uniform((), seed=self.seed, index=index[:1], step=0).item() * 2**31))
            for part in parts:
                images, times = x[part], 2 if queried.one_as_two and part.stop - part.start == 1 else 1
                answer = self.function(model, torch.cat([images] * times).to(device, copy=True),
                                       torch.cat([y[part]] * times).to(device))
                if times == 2 and isinstance(answer, Tensor):
                    answer = answer[:1]
                made.append(_checked(self.name, answer, images, index[part], self.threat))
        x_adv, nothing = torch.cat(made), torch.zeros(len(x), dtype=torch.int64)
        distance = self.threat.distance(x_adv, x)
        idle = len(x) > 0 and self.threat.eps > 0 and not distance.any()
        return AttackResult(x_adv, torch.ones(len(x), dtype=torch.bool), distance, 0, nothing, nothing,
                            torch.zeros(len(x), dtype=torch.bool),
                            (attack_warning("moved nothing", range(len(x)), len(x)),) if idle else ())


def _checked(name: str, x_adv: Any, x: Tensor, index: Tensor, threat: ThreatModel) -> Tensor:
    if not isinstance(x_adv, Tensor) or x_adv.shape != x.shape:
        found = f"a tensor of shape {tuple(x_adv.shape)}" if isinstance(x_adv, Tensor) else type(x_adv).__name__
        raise Refused(f"attack {name!r} must return images of shape {tuple(x.shape)}; found {found}")
    x_adv = x_adv.detach().to(x)
    rows = x_adv.flatten(1)
    outside = rows.isnan().any(1) | (rows < -1e-6).any(1) | (rows > 1 + 1e-6).any(1)
    if outside.any():
        raise Refused(f"attack {name!r} left the pixel box [0, 1], or returned NaN, on image "
                      f"{int(index[outside.cpu()][0])}")
    distance = threat.distance(x_adv, x).cpu()
    worst = int(distance.argmax())
    boxed: Tensor = x_adv.clamp(0, 1)
    if not threat.allows(distance).all():
        raise Refused(f"attack {name!r} left the threat model {threat}: image {int(index[worst])} moved by "
                      f"{float(distance[worst]):.5g}, and ε is {threat.eps:.5g}. Does it count ε in other units "
                      f"(grey levels of 255, or normalized pixels)?")
    return boxed
