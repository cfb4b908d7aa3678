"""Checks of `trades_vs_pgd` on the search for a point: beside a linear model's corners, and without a trace."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustness_lib.grading.given import trades_vs_pgd as given
from robustness_lib.grading.linear_models import slope_and_offset
from robustness_lib.grading.observations import Observation, need, wrong
from robustness_lib.grading.returned_values import in_box, not_images, within
from robustness_lib.grading.steps import step
from robustness_lib.grading.trades_vs_pgd.small_nets import line_of_two, with_modes
from robustness_lib.grading.trades_vs_pgd.steps_taken import climbs_step_by_step, so_many_steps
from robustness_lib.grading.trades_vs_pgd.variants import FIRST, TradesVsPgdTask, written_here
from robustness_lib.grading.watched_model import WatchedModel

__all__ = ["ascend", "leaves_no_trace", "trades_point"]


@step(points=3, shares=13, forbidden=("grading/given", "attacks", "training"))
def ascend(mine: Callable[..., Tensor], task: TradesVsPgdTask = FIRST, n: int = 16, side: int = 4,
           steps: int = 5) -> Iterator[Observation]:
    """The search: on a linear model it ends in the worst corner, and it leaves no trace on any model."""
    eps, (line, x, y) = task.eps, line_of_two(task, n, side)
    weight = slope_and_offset(line)[0].detach().reshape(x.shape[1:])
    toward = torch.where(y == 1, -1.0, 1.0)[:, None, None, None] * weight.sign()
    start, images = x - eps * toward, x.clone()
    begun = start.clone()

    def cross_entropy(logits: Tensor) -> Tensor:
        return F.cross_entropy(logits, y, reduction="none")

    x_adv = mine(line, cross_entropy, start, x, eps, steps)
    if (ending := not_images(x_adv, x)) is not None:
        yield ending
        return
    yield need(torch.equal(x, images) and torch.equal(start, begun) and not x_adv.requires_grad,
               "images and start stay as they were, and a plain tensor comes back",
               "what comes back carries a graph along: .detach() it" if x_adv.requires_grad else
               "changes the tensors that it was given")
    stays = mine(line, cross_entropy, x + eps * toward, x, eps, steps)
    far = max((end - x).abs().max().item() for end in (x_adv, stays)) / eps
    yield need(within(x_adv, x, eps) and within(stays, x, eps), "within ε of the images",
               f"ends {far:.2f} ε from its images: after each step go back into [x − ε, x + ε], around x and not "
               "around the start", share=2)
    colours = torch.stack([torch.zeros_like(x), torch.ones_like(x)])
    ends = torch.stack([mine(line, cross_entropy, one, one, eps, steps) for one in colours])
    yield need(in_box(ends), "and in the pixel box", "pixels leave [0, 1]: clamp to the pixel box as well")
    with torch.no_grad():
        begin, end, worst = (cross_entropy(line(at)) for at in (start, x_adv, x + eps * toward))
    share = ((end - begin) / (worst - begin)).mean().item()
    yield need((end >= worst - 1e-6).all(), "finds the worst corner of a linear model, from the opposite one",
               "goes downhill: the loss is to rise, so the step is added" if (end <= begin + 1e-9).all() else
               f"comes {100 * share:.0f} % of the way to a linear model's worst corner: steps of 2.5 ε / steps along "
               "the gradient's sign", share=2)
    yield from so_many_steps(mine, task, n, side, steps)
    yield from leaves_no_trace(lambda model, at: mine(model, lambda z: z.square().sum(1), at, at, eps, steps), task)


def leaves_no_trace(attack: Callable[[nn.Module, Tensor], object], task: TradesVsPgdTask) -> Iterator[Observation]:
    """Four shares: eval mode during the attack, the mode given back, and no gradient added to any parameter."""
    watched, x = with_modes(task), torch.rand(8, 3, 4, 4, generator=task.generator(4))
    watched.remember()
    attack(watched.train(), x)
    back, in_training = watched.training, any(watched.modes)
    yield need(not in_training, "the attack sees the model in eval mode",
               "attacks the model in train mode: dropout blurs what it sees, and the attack's images move the batch "
               "norm. model.eval() first", share=2)
    attack(watched.eval(), x)
    yield need(back and not watched.training, "and the model is given back in the mode in which it came",
               "leaves the model in eval mode: the update that follows is to be taken in train mode" if not back else
               "leaves the model in train mode, though it came in eval mode: remember model.training")
    yield need(not watched.disturbed, "the parameters' gradients stay as they were",
               "the attack changes the parameters' gradients, and the next update would use them: ask for one gradient "
               "only, torch.autograd.grad(..., x_adv), instead of .backward()")


@step(points=2, shares=15, forbidden=written_here("trades_point"))
def trades_point(mine: Callable[..., Tensor], task: TradesVsPgdTask = FIRST, n: int = 64,
                 side: int = 4) -> Iterator[Observation]:
    """Where TRADES looks: as far as possible from the clean answer, whichever way, from a start beside the image."""
    eps, (line, x, _) = task.eps, line_of_two(task, n, side)
    watched = WatchedModel(line)
    try:
        x_adv = mine(watched, x, eps, task.steps, task.generator(2))
    except RuntimeError as error:
        if "second time" not in str(error):
            raise
        yield wrong("the clean logits still carry their graph, and the search cannot go back through it twice: they "
                    "are a constant here, so torch.no_grad() or .detach()")
        return
    if (ending := not_images(x_adv, x)) is not None:
        yield ending
        return
    if watched.start is None:
        yield wrong("asks for no gradient: climb the KL from a start beside the image, given.ascend does it")
        return
    yield from _starts_beside(watched.start - x)
    yield need(within(x_adv, x, eps) and in_box(x_adv), "ends in ball and box", "leaves the ball or the pixel box")
    asked = len(watched.shown)
    yield need(asked <= task.steps + 2, "asks for the clean answer once",
               f"asks the model {asked} times for {task.steps} steps: the clean logits are a constant, computed once",
               share=0.5)
    yield from _is_the_farthest(line, x, x_adv, eps)
    yield from climbs_step_by_step(
        lambda model, at, y, eps, steps: mine(model, at, eps, steps, task.generator(6)), "KL", task, task.steps)
    yield from leaves_no_trace(lambda model, at: mine(model, at, eps, task.steps, task.generator(3)), task)
    yield from _as_far_as_the_given(mine, task)


def _starts_beside(noise: Tensor) -> Iterator[Observation]:
    """Three shares: what was added to the images at the start, a thousand pixels or so, is .001 · N(0, 1)."""
    spread, middle = noise.std().item(), noise.mean().item()
    still = noise.abs().max().item() <= 1e-6
    yield need(not still, "starts beside the image",
               "begins with a gradient at the image itself: there the KL has its minimum, and its gradient is zero. "
               "Start at x + .001 · N(0, 1)", share=2)
    normal = abs(middle) < 2e-4 and abs(spread / 0.001 - 1) < 0.15 and (
        0.01 < (noise.abs() > 0.002).double().mean().item() < 0.1)
    yield need(normal, "at x + .001 · N(0, 1)",
               "adds no noise at the start" if still else
               "the start lies to one side of the image: randn draws a standard normal, rand numbers between 0 and 1"
               if abs(middle) >= 2e-4 and abs(spread / 0.001 - 1) < 0.75 else
               f"the noise at the start has standard deviation {spread:.4f}, mean {middle:.4f}: x + .001 · N(0, 1) is "
               "asked for, .001 times randn")


def _is_the_farthest(line: nn.Sequential, x: Tensor, x_adv: Tensor, eps: float) -> Iterator[Observation]:
    """On a linear model the margin m goes to m + ε‖w‖₁ or m − ε‖w‖₁, as the start falls. Two and a half shares."""
    weight, _ = slope_and_offset(line)
    with torch.no_grad():
        clean, attacked = line(x), line(x_adv)
    margins, reach = (clean[:, 1] - clean[:, 0]), eps * weight.abs().sum().detach()
    moved = (attacked[:, 1] - attacked[:, 0] - margins) / reach
    at_an_end = (moved.abs() - 1).abs() < 1e-3
    still = moved.abs().mean().item() < 0.2
    surer = (moved * margins > 0)[at_an_end]
    yield need(at_an_end.all(), "on a linear model it is as far as ε can move the margin",
               "hardly moves the answer: climb the KL from the clean logits, kept as a constant. KL of an answer "
               "from itself is 0" if still else
               f"moves a linear model's margin by {moved.abs().mean().item():.2f} of what ε allows", share=1.5)
    yield need(bool(surer.any()) and not bool(surer.all()), "surer or less sure, as the start falls",
               "no image is at either end" if not len(surer) else
               "always makes the model less sure: that is cross-entropy. KL asks for any other answer, and half of the "
               "starts lead to a surer one" if not bool(surer.any()) else "always makes the model surer")


def _as_far_as_the_given(mine: Callable[..., Tensor], task: TradesVsPgdTask) -> Iterator[Observation]:
    (x, _), model = task.data(), task.model()
    ends = [point(model, x, task.eps, task.steps, task.generator(5)).to(x) for point in (mine, given.trades_point)]
    with torch.no_grad():
        ours, theirs = (given.kl(model(x), model(x_adv)).mean().item() for x_adv in ends)
    yield need(ours > 0.65 * theirs, f"on a net that reads signs it reaches a KL of {ours:.2f}",
               f"on a net that reads signs it reaches a KL of {ours:.2f}, and {theirs:.2f} can be had")
