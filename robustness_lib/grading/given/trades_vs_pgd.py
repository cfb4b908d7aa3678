"""The parts of TRADES (Zhang et al. 2019, arXiv 1901.08573) and of PGD training (Madry et al. 2018, arXiv 1706.06083),
the loop that trains with either, and how two nets are judged."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from robustness_lib.statistics import mcnemar

__all__ = ["ascend", "kl", "pgd_loss", "pgd_point", "robust", "sign_verdicts", "trades_loss", "trades_point", "train",
           "which_is_better"]

_OfBatch = Callable[[nn.Module, Tensor, Tensor], Tensor]  # a loss, or an attack: of a model, images and labels


def kl(clean: Tensor, attacked: Tensor) -> Tensor:
    """KL(p ‖ q) of each image (N,), for p and q the softmax of the two logits (N, K)."""
    log_p, log_q = clean.log_softmax(1), attacked.log_softmax(1)
    return (log_p.exp() * (log_p - log_q)).sum(1)


def ascend(model: nn.Module, loss: Callable[[Tensor], Tensor], start: Tensor, x: Tensor, eps: float,
           steps: int) -> Tensor:
    """Sign steps of 2.5 ε / steps that raise loss(logits) (N,), from start, within ε of x and the pixel box."""
    before, x_adv = model.training, start
    model.eval()
    for _ in range(steps):
        x_adv = x_adv.detach().requires_grad_()
        gradient, = torch.autograd.grad(loss(model(x_adv)).sum(), x_adv)
        x_adv = x_adv + 2.5 * eps / steps * gradient.sign()
        x_adv = x_adv.clamp(x - eps, x + eps).clamp(0, 1)
    model.train(before)
    return x_adv.detach()


def trades_point(model: nn.Module, x: Tensor, eps: float, steps: int, generator: Generator) -> Tensor:
    """Near each image a point whose answer is as far as possible from the image's, in KL."""
    before = model.training
    model.eval()
    with torch.no_grad():
        clean = model(x)
    model.train(before)
    start = x + 0.001 * torch.randn(x.shape, generator=generator)
    return ascend(model, lambda logits: kl(clean, logits), start.clamp(0, 1), x, eps, steps)


def trades_loss(model: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor, beta: float) -> Tensor:
    """Cross-entropy on the images, and β times the mean KL from their answers to those at x_adv."""
    clean = model(x)
    return F.cross_entropy(clean, y) + beta * kl(clean, model(x_adv)).mean()


def pgd_point(model: nn.Module, x: Tensor, y: Tensor, eps: float, steps: int, generator: Generator) -> Tensor:
    """Near each image a point of large cross-entropy, from a uniform start in the ball."""
    start = x + eps * (2 * torch.rand(x.shape, generator=generator) - 1)
    return ascend(model, lambda z: F.cross_entropy(z, y, reduction="none"), start.clamp(0, 1), x, eps, steps)


def pgd_loss(model: nn.Module, x: Tensor, y: Tensor, eps: float, steps: int, generator: Generator) -> Tensor:
    """Cross-entropy at the points that PGD finds, and nowhere else."""
    return F.cross_entropy(model(pgd_point(model, x, y, eps, steps, generator)), y)


def train(model: nn.Module, loss: _OfBatch, batches: Iterable[tuple[Tensor, Tensor]], lr: float = 2e-3) -> nn.Module:
    """Adam on loss(model, x, y), one update for each batch. The model comes back in eval mode."""
    model.train().requires_grad_()
    optimizer = torch.optim.Adam(model.parameters(), lr)
    for x, y in batches:
        value = loss(model, x, y)
        optimizer.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return model.eval()


def robust(model: nn.Module, x: Tensor, y: Tensor, attacks: Iterable[_OfBatch]) -> Tensor:
    """(N,) bool: classified correctly as it is, and after every one of the attacks."""
    standing = torch.ones(len(x), dtype=torch.bool)
    for shown in (x, *(attack(model, x, y) for attack in attacks)):
        with torch.no_grad():
            standing &= model(shown).argmax(1) == y
    return standing


def which_is_better(first: Tensor, second: Tensor) -> str:
    """"first", "second" or "cannot tell", by McNemar's exact test at 5 % on verdicts (N,) on the same images."""
    lost, gained = int((first & ~second).sum()), int((second & ~first).sum())
    if mcnemar(lost, gained) >= 0.05:
        return "cannot tell"
    return "second" if gained > lost else "first"


def sign_verdicts(kind: str = "robust") -> dict[str, Tensor]:
    """Verdicts (1000,) bool on the shipped nets that read signs, on the first 1,000 test images.

    kind: "clean" or "robust", which is at ε = 4/255, worst case per image over Auto-PGD on cross-entropy and on the
    targeted DLR loss. They are those of benchmarks/results/report-4-signs-*.json, packed.
    """
    packed = json.loads(Path(__file__).with_name("sign_verdicts.json").read_text("utf-8"))
    return {name: torch.from_numpy(np.unpackbits(np.frombuffer(bytes.fromhex(kinds[kind]), np.uint8))).bool()
            for name, kinds in packed.items()}
