"""Asking a model for answers that a verdict rests on: fresh passes, outside any attack, in full float32."""

from __future__ import annotations

import torch
from torch import Tensor

from robustness_lib.precision import full_precision
from robustness_lib.querying.batch_size import cut
from robustness_lib.querying.frozen import Classifier, Mode, frozen
from robustness_lib.querying.queried_model import QueriedModel
from robustness_lib.threat import ThreatModel

__all__ = ["confirm_predictions", "predict_logits", "predict_logits_per_draw"]


def predict_logits(model: Classifier, x: Tensor, *, size: int, mode: Mode = "eval", draws: int = 1,
                   labels: Tensor | None = None) -> Tensor:
    """Logits (N, K) on the CPU, in batches of `size`; means over `draws` passes. labels: to hold against K.

    x (N, ...) with N ≥ 1 stays where it is. Raises TypeError or ValueError for a model without (N, K) logits.
    """
    queried = QueriedModel(model, draws, mode)
    if labels is not None:
        queried.expect((labels,))
    with frozen(model, mode), full_precision():
        return torch.cat([queried.logits(x[part].to(queried.device(x), copy=True)).cpu()
                          for part in cut(len(x), size)])


def predict_logits_per_draw(model: Classifier, x: Tensor, *, size: int, mode: Mode = "eval", draws: int) -> Tensor:
    """`draws` answers of a model that answers at random (draws, N, K), on the CPU, one after the other: what moves in
    the model from pass to pass (a counter, a seed in a buffer) moves on, and is put back at the end."""
    queried = QueriedModel(model, mode=mode)
    with frozen(model, mode), full_precision():
        return torch.stack([torch.cat([queried.logits(x[part].to(queried.device(x), copy=True)).cpu()
                                       for part in cut(len(x), size)]) for _ in range(draws)])


def confirm_predictions(model: Classifier, x_adv: Tensor, x: Tensor, y: Tensor, threat: ThreatModel, *, size: int,
                        mode: Mode = "eval", draws: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Points that an attack calls adversarial, asked about again: put strictly inside the threat model (an attack's
    rounding is not the attacker's due), their logits (N, K), and whether they are wrong (N,) bool, NaN never is.
    Logits and verdicts on the CPU."""
    x_adv = threat.project(x_adv, x)
    logits = predict_logits(model, x_adv, size=size, mode=mode, draws=draws)
    return x_adv, logits, (logits.argmax(1) != y.cpu()) & ~logits.isnan().any(1)
