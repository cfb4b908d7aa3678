"""Checks of `trades_vs_pgd` on who is robust: after one attack, and after every one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache

import torch
from torch import Tensor, nn

from robustness_lib.attacks import AutoPGD
from robustness_lib.grading.given import trades_vs_pgd as given
from robustness_lib.grading.observations import Observation, need, wrong
from robustness_lib.grading.returned_values import not_a_tensor
from robustness_lib.grading.steps import step
from robustness_lib.grading.trades_vs_pgd.training import given_nets
from robustness_lib.grading.trades_vs_pgd.variants import FIRST, TradesVsPgdTask

__all__ = ["judged", "robust", "trap"]


@step(points=2, shares=5, forbidden=("evaluation", "grading/given/trades_vs_pgd.py:robust"))
def robust(mine: Callable[..., Tensor], task: TradesVsPgdTask = FIRST, n: int = 24) -> Iterator[Observation]:
    """Who is robust: right as it is, and right after each attack. On images whose fate is known."""
    draw = task.generator()
    fate = torch.rand(n, 4, generator=draw) < 0.6  # what the model reads: at first, and after each of three attacks
    fate[:5] = torch.tensor([[1, 1, 1, 1], [0, 1, 1, 1], [1, 0, 1, 1], [1, 1, 0, 1], [1, 1, 1, 0]]).bool()
    fate = fate[torch.randperm(n, generator=draw)]
    x = torch.cat([torch.zeros(n, 1), fate.float()], 1)[:, :, None, None]  # which reading is due, and the readings
    y = torch.randint(2, (n,), generator=draw)
    x = torch.where((torch.arange(5) > 0)[:, None, None] & (y == 0)[:, None, None, None], 1 - x, x)
    attacks = [_Turned(number) for number in (1, 2, 3)]
    found = mine(_Oracle(), x, y, attacks)
    if (ending := not_a_tensor(found)) is not None:
        yield ending
        return
    if found.shape != (n,) or found.dtype != torch.bool:
        yield wrong(f"returns {found.dtype} {tuple(found.shape)}: a verdict for each image, bool ({n},). Averages over "
                    "attacks hide that each image has its own worst one")
        return
    mistake = "these are not the images that are right as they are and after every attack"
    only = "looks at the first attack only"
    for other, words in ((fate[:, 1:].all(1), "counts images that are wrong without any attack: an attack that happens "
                                              "to repair one makes it no more robust"),
                         (fate[:, 0], "runs no attack"),
                         (fate[:, :2].all(1), f"{only}, and that may be the one of the training"),
                         (fate[:, 1], f"{only}, and that may be the one of the training"),
                         (fate[:, 0] & fate[:, 3], "looks at the last attack only"),
                         (fate[:, 0] & fate[:, 1:].any(1), "counts an image that resists any of the attacks: it has to "
                                                           "resist every one")):
        if torch.equal(found, other):
            mistake = words
    yield need(torch.equal(found, fate.all(1)), "right as it is, and after every attack", mistake, share=3)
    begun = [given for attack in attacks for given in attack.given_to]
    chained = any((given[:, 0] != 0).any() for given in begun)
    yield need(bool(begun) and not chained, "every attack begins at the images themselves",
               "an attack is given the images that the one before it made: each of them begins at x" if chained else
               "no attack is run", share=2)


class _Oracle(nn.Module):
    """Two classes. Of an image's five values the first says which of the others is the answer."""

    def forward(self, x: Tensor) -> Tensor:
        values = x.flatten(1)
        answer = values.gather(1, values[:, :1].long() + 1)[:, 0]
        return torch.stack([1 - answer, answer], 1)


@dataclass(frozen=True)
class _Turned:
    """An attack on `_Oracle`, whose effect stands in the image. It notes what it was given."""

    number: int
    given_to: list[Tensor] = field(default_factory=list)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        self.given_to.append(x.clone())
        x_adv = x.clone()
        x_adv[:, 0] = self.number
        return x_adv


@dataclass(frozen=True)
class _Kept:
    """An attack that was run on images x before. Asked about some of them, in any order, it hands out what it found."""

    x: Tensor
    x_adv: Tensor

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        same = (x[:, None] == self.x).flatten(2).all(2)
        if not same.any(1).all():
            raise ValueError("the attacks are for the images of the test set: hand them on as they are")
        return self.x_adv[same.int().argmax(1)]


@lru_cache(maxsize=8)
def _attacks(task: TradesVsPgdTask) -> dict[str, tuple[nn.Module, list[_Kept]]]:
    """Of each training the net, the attack that it was trained with, and two short Auto-PGD."""
    x, y = task.data()
    first, second = given_nets(task)
    own = {"TRADES": (first, given.trades_point(first, x, task.eps, task.steps, task.generator(10))),
           "PGD training": (second, given.pgd_point(second, x, y, task.eps, task.steps, task.generator(10)))}
    judges = (AutoPGD(task.threat, loss="ce", steps=20),
              AutoPGD(task.threat, loss="targeted-dlr", steps=10, target_classes=5))
    return {name: (net, [_Kept(x, x_adv), *(_Kept(x, judge(net, x, y)) for judge in judges)])
            for name, (net, x_adv) in own.items()}


def judged(mine: Callable[..., Tensor], task: TradesVsPgdTask = FIRST) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
    """By the name of its training, each net's verdicts (N,): without an attack, by the attack that it was trained with,
    and by that and two short Auto-PGD."""
    mine(_Oracle(), torch.ones(1, 5, 1, 1), torch.ones(1).long(), [_Turned(1)])  # is it written? The rest takes long
    x, y = task.data()
    return {name: (given.robust(net, x, y, []), mine(net, x, y, attacks[:1]), mine(net, x, y, attacks))
            for name, (net, attacks) in _attacks(task).items()}


@step(points=2, shares=4, forbidden=("evaluation", "grading/given/trades_vs_pgd.py:robust"))
def trap(mine: Callable[..., Tensor], task: TradesVsPgdTask = FIRST) -> Iterator[Observation]:
    """Each net by the attack of its own training, and both by the same judges."""
    found = judged(mine, task)
    rightly = judged(given.robust, task)
    for name, columns in found.items():
        if not all(isinstance(one, Tensor) and one.shape == (task.images,) for one in columns):
            yield wrong(f"a verdict for each of the {task.images} images is needed")
            return
        clean, own, both = (int(one.sum()) for one in columns)
        words = (f"{name}: of {task.images} images {clean} are right unattacked, {own} after the attack of its own "
                 f"training, {both} after Auto-PGD as well")
        off = max(int((a != b).sum()) for a, b in zip(columns, rightly[name], strict=True))
        yield need(not off, words, f"{words}: {off} verdicts are not the right ones", share=2)
