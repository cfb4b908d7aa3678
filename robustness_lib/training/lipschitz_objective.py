"""Training for Lipschitz certificates: what is minimized is the loss of logits that no change within ε can surpass."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from torch import Tensor, nn

from robustness_lib.inputs import check_real
from robustness_lib.training.objectives import Objective, WithinThreat, step_logits

__all__ = ["LipschitzMargin"]


@dataclass(frozen=True)
class LipschitzMargin(WithinThreat):
    """Cross-entropy with √2·K·ε added to every logit but the label's: as much as a change of length ε can close of a
    margin, where the logits are K-Lipschitz (Tsuzuku, Sato and Sugiyama 2018, arXiv 1802.04034).

    threat: in L2. constant: K, in logits per pixel unit, which the network's layers must hold by themselves (that of
    `models.lipschitz_cnn` is its `scale`): here it is a number, and is not looked for. A step costs what one on clean
    images does. ε is often taken well above what is to be certified. Raises ValueError for another norm, and for a K
    that is not positive.
    """

    constant: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.threat.norm != "l2":
            raise ValueError(f'a Lipschitz constant in L2 certifies L2 balls: write ThreatModel("l2", ε); found '
                             f"{self.threat}")
        if not 0 < check_real("constant", self.constant, "the logits' Lipschitz constant") < math.inf:
            raise ValueError(f"constant must be positive and finite; found {self.constant}")

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, index: Tensor | None = None,
                 seed: int = 0) -> Tensor:
        logits = step_logits(model, x)
        raised = logits + math.sqrt(2) * self.constant * self.threat.eps
        return self._cross_entropy(raised.scatter(1, y[:, None], logits.gather(1, y[:, None])), y)

    def with_share(self, share: float) -> Objective:
        return replace(self, threat=self.threat.with_eps(self.threat.eps * share))
