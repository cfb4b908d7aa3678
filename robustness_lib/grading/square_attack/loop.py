"""Checks of `square_attack` on the rule of acceptance, and on the loop with its count of queries."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from robustness_lib.attacks import PGD, SquareAttack
from robustness_lib.defenses import BitDepth
from robustness_lib.grading.observations import Observation, need, wrong
from robustness_lib.grading.returned_values import SLACK, in_box, misread, not_images, within
from robustness_lib.grading.square_attack.scores_only import ScoresOnly
from robustness_lib.grading.square_attack.variants import FIRST, FORBIDDEN, SquareTask
from robustness_lib.grading.steps import step
from robustness_lib.losses import margin_loss
from robustness_lib.threat import ThreatModel

__all__ = ["accept", "attack", "counted_run", "masked"]


@step(points=2, shares=5, forbidden=FORBIDDEN)
def accept(mine: Callable[..., tuple[Tensor, Tensor]], task: SquareTask = FIRST,
           n: int = 12) -> Iterator[Observation]:
    """The rule: keep a proposal where its loss is larger, and only there."""
    draw = task.generator()
    old, new = torch.rand(n, 3, 4, 4, generator=draw), torch.rand(n, 3, 4, 4, generator=draw)
    loss = torch.linspace(-2, 1, n)
    change = torch.where(torch.rand(n, generator=draw) < 0.5, 1.0, -1.0)
    change[:2] = torch.tensor([1.0, -1.0])
    new_loss = loss + 0.1 * change
    inputs = old.clone(), loss.clone(), new.clone(), new_loss.clone()
    kept, value = mine(*inputs)
    if kept.shape != old.shape or value.shape != loss.shape:
        yield wrong(f"returns shapes {tuple(kept.shape)} and {tuple(value.shape)}: the points and their "
                    f"losses have {tuple(old.shape)} and {tuple(loss.shape)}")
        return
    took = [bool(torch.equal(kept[i], new[i])) for i in range(n)]
    stayed = [bool(torch.equal(kept[i], old[i])) for i in range(n)]
    rises = (change > 0).tolist()
    fell_taken = any(t for t, up in zip(took, rises, strict=True) if not up)
    rose_left = any(s for s, up in zip(stayed, rises, strict=True) if up)
    neither = not all(t or s for t, s in zip(took, stayed, strict=True))
    yield need(not rose_left and not neither, "takes a proposal where the loss rises",
               "mixes two points of an image: take the whole of one" if neither else
               "leaves a proposal whose loss is larger: decide for each image by itself", share=1.5)
    yield need(not fell_taken and not neither, "leaves a proposal where the loss falls",
               "takes every proposal: decide for each image by itself, and leave those whose loss is smaller"
               if all(took) else
               "takes a proposal whose loss is smaller: decide for each image by itself, and mind the direction",
               share=1.5)
    best = torch.maximum(loss, new_loss)
    yield need((value - best).abs().max() < 1e-6, "hands on the loss of what it kept",
               "the loss that it returns is not that of the points it kept")
    same = all(torch.equal(a, b) for a, b in zip(inputs, (old, loss, new, new_loss), strict=True))
    yield need(same, "what it is given stays as it was", "changes the tensors it was given")


def counted_run(mine: Callable[..., Any], model: nn.Module, x: Tensor, y: Tensor, task: SquareTask,
                seed: int = 0) -> tuple[ScoresOnly, Any]:
    """An attack on a model that gives scores only: what it asked, and what it returned."""
    asked = ScoresOnly(model, x.clone(), y.clone())
    return asked, mine(asked, x.clone(), y.clone(), task.eps, task.queries, task.generator(seed))


@step(points=6, shares=12, forbidden=("attacks",))
def attack(mine: Callable[..., Tensor], task: SquareTask = FIRST) -> Iterator[Observation]:
    """The loop: on all images within ε and the box, no query too many, none wasted, and about as good as it gets."""
    (x, y), model = task.data(), task.model()
    runs = []
    for seed in range(task.seeds):
        asked, x_adv = counted_run(mine, model, x, y, task, seed)
        if (ending := not_images(x_adv, x)) is not None:
            yield ending
            return
        runs.append((asked, x_adv.float()))
    yield from _kept_to_the_rules([asked for asked, _ in runs], [x_adv for _, x_adv in runs], x, task)
    with torch.no_grad():
        final = [margin_loss(model(x_adv), y) for _, x_adv in runs]
    worse = [int((end < asked.best - 1e-3).sum()) for end, (asked, _) in zip(final, runs, strict=True)]
    yield need(not any(worse), "the best point that was found is what comes back",
               f"on {max(worse)} of {len(x)} images a better point was found on the way than the one that came back: "
               "accept only what raises the loss, and return the best", share=2)
    late = max(int(asked.after.max()) for asked, _ in runs)
    yield need(late == 0, "an image that is solved is asked no more",
               f"an image was asked {late} times more after it had been solved: ask only for those still standing",
               share=2)
    yield from _as_good_as_the_library([end > 0 for end in final], model, x, y, task)


def _kept_to_the_rules(asked: list[ScoresOnly], ends: list[Tensor], x: Tensor,
                       task: SquareTask) -> Iterator[Observation]:
    """Ball, box and budget, on all images."""
    most = max(int(one.queries.max()) for one in asked)
    yield need(0 < most <= task.queries, f"no image is asked more than {task.queries} times, the start included",
               "asks the model nothing" if most == 0 else
               f"asks {most} times about one image, and {task.queries} are allowed: the start is a query, too", share=2)
    shown = max(one.farthest for one in asked)
    end = max((x_adv - x).abs().max().item() for x_adv in ends)
    yield need(max(shown, end) <= task.eps * (1 + SLACK) + 1e-6, "every point lies within ε of its image",
               f"a point lies {max(shown, end) / task.eps:.2f} ε from its image: windows are set to x ± ε, and rows of "
               "points and images must fit")
    out = any(one.outside for one in asked) or not in_box(torch.stack(ends))
    yield need(not out, "and in the pixel box", "pixels leave [0, 1]: clamp every proposal")


def _as_good_as_the_library(broken: list[Tensor], model: nn.Module, x: Tensor, y: Tensor,
                            task: SquareTask) -> Iterator[Observation]:
    mine = torch.stack(broken).float().mean().item()
    peers = SquareAttack(ThreatModel("linf", task.eps), queries=task.queries).run(model, x, y)
    peer = peers.success.float().mean().item()
    words = (f"{100 * mine:.0f} % of {len(x)} images broken by {task.queries} queries, "
             f"by the library's Square attack {100 * peer:.0f} %")
    yield need(mine >= peer - task.behind, words,
               f"{words}: too few. Do windows shrink, is the best point kept, are all images followed?", share=4)


@step(points=2, shares=2, forbidden=("attacks",))
def masked(mine: Callable[..., Tensor], task: SquareTask = FIRST) -> Iterator[Observation]:
    """Where gradients are masked, scores still lead somewhere."""
    model = BitDepth(task.model(), bits=4).eval()
    x, y = task.data()
    right = ~misread(model, x, y)
    x, y = x[right], y[right]
    threat = ThreatModel("linf", task.eps)
    pgd = PGD(threat, steps=20).run(model, x, y).success.float().mean().item()
    _, x_adv = counted_run(mine, model, x, y, task)
    square = misread(model, x_adv, y).float().mean().item()
    legal = within(x_adv.float(), x, task.eps) and in_box(x_adv)
    words = f"pixels of 16 levels: yours breaks {100 * square:.0f} % of {len(x)} images, PGD {100 * pgd:.0f} %"
    yield need(legal and square > pgd + 0.2, words,
               f"{words}. PGD gets no gradient through the rounding; scores do not mind it" if legal else
               "the points that come back lie outside ball or box", share=2)
