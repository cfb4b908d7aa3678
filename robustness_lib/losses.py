"""Losses that attacks climb: per example, on logits, never averaged over the batch.

Each takes logits (N, K) and labels (N,) int64 and returns (N,). Larger is worse for the model.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["LOSSES", "Loss", "cross_entropy", "margin_loss"]

Loss = Callable[[Tensor, Tensor], Tensor]


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


LOSSES: dict[str, Loss] = {"ce": cross_entropy, "margin": margin_loss}
