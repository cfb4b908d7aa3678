"""Losses that attacks climb: per example, on logits, never averaged over the batch.

Each of `LOSSES` takes logits (N, K) and labels (N,) int64 and returns (N,). Larger is worse for the model. Those of
`PAIR_LOSSES` take a second class as well, the one to be pulled toward.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["LOSSES", "PAIR_LOSSES", "Loss", "PairLoss", "cross_entropy", "dlr_loss", "margin_loss",
           "targeted_dlr_loss", "targeted_margin_loss"]

Loss = Callable[[Tensor, Tensor], Tensor]
PairLoss = Callable[[Tensor, Tensor, Tensor], Tensor]

_TINY = 1e-12  # keeps the ratios finite where the leading logits are equal


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """−log p_y. Its gradient fades where the model is certain. In float32, once the other logits lie about 17 below
    z_y, p_y rounds to 1 and the label's own logit drops out of the gradient; about 100 below, the others underflow
    too, the gradient is exactly zero, and no first-order attack on this loss can start."""
    return F.cross_entropy(logits, y, reduction="none")


def margin_loss(logits: Tensor, y: Tensor) -> Tensor:
    """max over i ≠ y of z_i, minus z_y: positive exactly where the model errs (Carlini and Wagner 2017)."""
    own = logits.gather(1, y[:, None]).squeeze(1)
    others = logits.scatter(1, y[:, None], -torch.inf)
    return others.amax(1) - own


def targeted_margin_loss(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """z_target − z_y: positive where the target beats the label."""
    pair = logits.gather(1, torch.stack((y, target), 1))
    return pair[:, 1] - pair[:, 0]


def dlr_loss(logits: Tensor, y: Tensor) -> Tensor:
    """Difference of logits ratio, −(z_y − max over i ≠ y of z_i) / (z_π1 − z_π3 + 1e-12), where π sorts the logits
    downwards (Croce and Hein 2020, arXiv 2003.01690). Logits scaled by 100 or shifted leave it as it is, so a model
    cannot hide its gradient by being certain. Raises ValueError for fewer than 3 classes, where it is constant."""
    top = _leading(logits, 3, "DLR")
    return margin_loss(logits, y) / (top[:, 0] - top[:, 2] + _TINY)


def targeted_dlr_loss(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """−(z_y − z_target) / (z_π1 − ½(z_π3 + z_π4) + 1e-12) (Croce and Hein 2020). Raises ValueError for fewer than
    4 classes."""
    top = _leading(logits, 4, "targeted DLR")
    return targeted_margin_loss(logits, y, target) / (top[:, 0] - 0.5 * (top[:, 2] + top[:, 3]) + _TINY)


def _leading(logits: Tensor, count: int, name: str) -> Tensor:
    """The largest logits, downwards. topk and not a sort: of 1000 classes it needs four."""
    if logits.shape[1] < count:
        raise ValueError(
            f"the {name} loss needs at least {count} classes; found {logits.shape[1]}. "
            f'Use loss="{"targeted-margin" if "targeted" in name else "margin"}".'
        )
    return logits.topk(count, dim=1).values


LOSSES: dict[str, Loss] = {"ce": cross_entropy, "dlr": dlr_loss, "margin": margin_loss}
PAIR_LOSSES: dict[str, PairLoss] = {"targeted-dlr": targeted_dlr_loss, "targeted-margin": targeted_margin_loss}
