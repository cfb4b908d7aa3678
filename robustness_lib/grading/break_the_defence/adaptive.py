"""Checks of `break_the_defence` on the adaptive attack."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from robustness_lib.defenses import BitDepth
from robustness_lib.grading.break_the_defence.random_answers import NotedResizePad
from robustness_lib.grading.break_the_defence.variants import FIRST, DefenseTask
from robustness_lib.grading.observations import Observation, need, wrong
from robustness_lib.grading.returned_values import SLACK, in_box, not_images
from robustness_lib.grading.steps import step

__all__ = ["adaptive_attack"]


@step(points=6, shares=20, forbidden=("attacks",))
def adaptive_attack(mine: Callable[..., Tensor], task: DefenseTask = FIRST) -> Iterator[Observation]:
    """PGD through rounding and randomness, judged by answers that it has not seen."""
    (x, y), defense = task.data(), task.defense()
    log, off, top = _noting(defense).log, [0.0], 2**defense.bits - 1
    _noting(defense).register_forward_pre_hook(
        lambda _, given_to: off.append((given_to[0].detach() * top).frac().sub(0.5).abs().sub(0.5).abs().max().item()))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(task.seed)
        x_adv = mine(defense, x.clone(), y.clone(), task.eps, task.steps, task.draws)
    climbed, repeated, answers = log.climbed, log.repeated, len(log.states)
    if (ending := not_images(x_adv, x)) is not None:
        yield ending
        return
    x_adv = x_adv.detach().float()
    far = (x_adv - x).abs().max().item()
    if far == 0:
        yield wrong("hands back the images as they came. Is the gradient zero? torch.round has none")
        return
    legal = far <= task.eps * (1 + SLACK) + 1e-6 and in_box(x_adv)
    yield need(legal, "every point lies within ε of its image, and in the pixel box",
               "pixels leave [0, 1]: clamp after each step" if not in_box(x_adv) else
               f"a point lies {far / task.eps:.2f} ε from its image: project onto the ball after each step", share=2)
    each = climbed / (len(x) * task.steps)
    yield need(0.75 * task.draws <= each <= task.draws * (task.steps + 1) / task.steps,
               f"{task.draws} gradients of the defense for each image and step",
               "never asks the defense for a gradient: that is an attack on the bare network, which does not know it"
               if not climbed else
               f"{each:.1f} gradients for each image and step, and {task.draws} are to be: take all draws, and all "
               "steps, since a stop at the first success is a stop at a lucky draw", share=4)
    yield need(answers and repeated < 0.1 * answers, "fresh draws at each step",
               "the same draws in every step: the attack fits these, and fails on others" if answers else
               "never asks the defense at all", share=4)
    yield need(answers and max(off) < 1e-3, "the network gets rounded images on the way forward",
               "the network gets images that were not rounded: forward, take the defense as it is" if answers else
               "rounds nothing", share=2)
    yield from _breaks(defense, x, x_adv, legal, task)


def _noting(defense: BitDepth) -> NotedResizePad:
    assert isinstance(defense.model, NotedResizePad)
    return defense.model


def _breaks(defense: BitDepth, x: Tensor, x_adv: Tensor, legal: bool, task: DefenseTask) -> Iterator[Observation]:
    (before, clean_loss), (after, loss) = task.judge(defense, x), task.judge(defense, x_adv)
    left, clean = after.double().mean().item(), before.double().mean().item()
    words = (f"{100 * left:.0f} % of {len(x)} images stand ({100 * clean:.0f} % without an attack), by the majority of "
             f"{task.judged} fresh answers")
    moved = (x_adv - x).abs().mean().item() / task.eps
    why = ("it does not count, outside of ball or box" if not legal else
           "the points look like noise: does any gradient come back through the rounding, and can all steps together "
           "cross the ball?" if moved < 0.6 else
           "the loss falls where it should rise: climb, x + η·sign" if loss < clean_loss else
           f"more than {100 * task.most:.0f} %: does the gradient go through the defense, and over fresh draws?")
    yield need(legal and left <= task.most, words, f"{words}: {why}", share=8)
