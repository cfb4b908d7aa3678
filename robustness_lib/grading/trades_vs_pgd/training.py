"""Checks of `trades_vs_pgd` on both losses at work, and the nets that they train."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import NamedTuple

from torch import Tensor, nn

from robustness_lib.attacks import PGD
from robustness_lib.grading.given import trades_vs_pgd as given
from robustness_lib.grading.observations import Observation, need
from robustness_lib.grading.steps import step
from robustness_lib.grading.trades_vs_pgd.variants import FIRST, TradesVsPgdTask, written_here
from robustness_lib.grading.watched_model import gradients_noted

__all__ = ["Trained", "given_nets", "nets_of", "trained"]


class Trained(NamedTuple):
    """A net, and how often an attack asked for a gradient in each update of its training."""

    net: nn.Module
    gradients: float


def nets_of(point: Callable[..., Tensor], loss: Callable[..., Tensor], pgd: Callable[..., Tensor],
            task: TradesVsPgdTask) -> tuple[Trained, Trained]:
    """The net of TRADES and that of PGD training: one start, the same batches, random starts from equal seeds."""
    draw = task.generator(9)

    def trades(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        x_adv = point(model, x, task.eps, task.steps, draw).to(x)
        return loss(model, x, x_adv, y, task.beta)

    def madry(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return pgd(model, x, y, task.eps, task.steps, draw)

    def train(update: Callable[..., Tensor]) -> Trained:
        draw.manual_seed(task.generator(9).initial_seed())
        model = task.model()
        with gradients_noted(model) as asked:
            given.train(model, update, task.batches())
        return Trained(model, sum(asked) / task.updates)

    return train(trades), train(madry)


@lru_cache(maxsize=8)
def given_nets(task: TradesVsPgdTask) -> tuple[nn.Module, nn.Module]:
    """The nets that the given losses train."""
    first, second = nets_of(given.trades_point, given.trades_loss, given.pgd_loss, task)
    return first.net, second.net


@step(points=3, shares=6, forbidden=written_here("trades_point", "trades_loss", "pgd_loss", "pgd_point"))
def trained(point: Callable[..., Tensor], loss: Callable[..., Tensor], pgd: Callable[..., Tensor],
            task: TradesVsPgdTask = FIRST) -> Iterator[Observation]:
    """Both losses at work: nets trained for some updates resist about as much as those of the given losses."""
    nets = nets_of(point, loss, pgd, task)
    before, peers = _standing(task.model(), task), _given_standing(task)
    for name, (net, gradients), peer in zip(("TRADES", "PGD training"), nets, peers, strict=True):
        yield need(task.steps <= gradients <= task.steps + 1, f"{name} searches in {task.steps} steps for each update",
                   f"{name} asks for {gradients:g} gradients in each update, and steps = {task.steps}")
        ours = _standing(net, task)
        words = (f"{name}, {task.updates} updates: {ours} of {task.images} images stand PGD, {before} before the "
                 f"training and {peer} with the given losses")
        yield need(ours >= min(peer, before + 0.6 * (peer - before)), words, f"{words}: too few", share=2)


def _standing(net: nn.Module, task: TradesVsPgdTask) -> int:
    """On how many images PGD of ten steps finds no error."""
    x, y = task.data()
    return len(x) - int(PGD(task.threat, steps=10).run(net, x, y).success.sum())


@lru_cache(maxsize=8)
def _given_standing(task: TradesVsPgdTask) -> list[int]:
    return [_standing(net, task) for net in given_nets(task)]
