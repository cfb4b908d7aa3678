"""Asking a model for answers that a verdict rests on: fresh passes, outside any attack, in full float32."""

from __future__ import annotations

import torch
from torch import Tensor

from robustness_lib.attacks._victim import Classifier, Mode, Victim, held_still
from robustness_lib.precision import full_precision
from robustness_lib.threat import ThreatModel

__all__ = ["ask", "ask_each", "confirm", "within"]


def ask(model: Classifier, x: Tensor, *, size: int, mode: Mode = "eval", draws: int = 1,
        labels: Tensor | None = None) -> Tensor:
    """Logits (N, K) on the CPU, in batches of `size`; means over `draws` passes. labels: to hold against K.

    x (N, ...) with N ≥ 1 stays where it is. Raises TypeError or ValueError for a model without (N, K) logits.
    """
    victim = Victim(model, draws)
    if labels is not None:
        victim.expect((labels,))
    with held_still(model, mode), full_precision():
        return torch.cat([victim.logits(part.to(victim.device(x), copy=True)).cpu() for part in torch.split(x, size)])


def ask_each(model: Classifier, x: Tensor, *, size: int, mode: Mode = "eval", draws: int) -> Tensor:
    """`draws` answers of a model that answers at random (draws, N, K), on the CPU, one after the other: what moves in
    the model from pass to pass (a counter, a seed in a buffer) moves on, and is put back at the end."""
    victim = Victim(model)
    with held_still(model, mode), full_precision():
        return torch.stack([torch.cat([victim.logits(part.to(victim.device(x), copy=True)).cpu()
                                       for part in torch.split(x, size)]) for _ in range(draws)])


def within(threat: ThreatModel, distance: Tensor) -> Tensor:
    """Is a point at this distance (N,) inside the threat model, up to the rounding of float32 images?"""
    return distance <= threat.eps * (1 + 1e-5) + 1e-6


def confirm(model: Classifier, x_adv: Tensor, x: Tensor, y: Tensor, threat: ThreatModel, *, size: int,
            mode: Mode = "eval", draws: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Points that an attack calls adversarial, asked about again: put strictly inside the threat model (an attack's
    rounding is not the attacker's due), their logits (N, K), and whether they are wrong (N,) bool, NaN never is.
    Logits and verdicts on the CPU."""
    x_adv = threat.project(x_adv, x)
    logits = ask(model, x_adv, size=size, mode=mode, draws=draws)
    return x_adv, logits, (logits.argmax(1) != y.cpu()) & ~logits.isnan().any(1)
