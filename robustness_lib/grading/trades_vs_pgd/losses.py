"""Checks of `trades_vs_pgd` on KL and the two losses: beside closed forms, scipy and autograd of the formulas."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from scipy.special import rel_entr, softmax
from torch import Tensor, nn

from robustness_lib.grading.linear_models import slope_and_offset
from robustness_lib.grading.observations import Observation, need, wrong
from robustness_lib.grading.random_starts import not_uniform
from robustness_lib.grading.returned_values import in_box, not_a_tensor, within
from robustness_lib.grading.steps import step
from robustness_lib.grading.trades_vs_pgd.small_nets import (
    line_of_two,
    near,
    one_hidden_layer,
    slopes_at,
    weights_gradient,
    with_modes,
)
from robustness_lib.grading.trades_vs_pgd.steps_taken import climbs_step_by_step
from robustness_lib.grading.trades_vs_pgd.variants import FIRST, TradesVsPgdTask, written_here
from robustness_lib.grading.watched_model import WatchedModel

__all__ = ["kl", "pgd_loss", "trades_formulas", "trades_loss"]


@step(points=2, shares=5, forbidden=("grading/given", "attacks", "training"))
def kl(mine: Callable[[Tensor, Tensor], Tensor], task: TradesVsPgdTask = FIRST,
       shape: tuple[int, int] = (7, 5)) -> Iterator[Observation]:
    """KL(p ‖ q) of each image, its gradient in both logits, and what it does where a probability rounds to 0."""
    draw, (n, classes) = task.generator(), shape
    clean, attacked = (2 * torch.randn(shape, generator=draw, dtype=torch.float64) for _ in range(2))
    clean.requires_grad_()
    attacked.requires_grad_()
    found = mine(clean, attacked)
    if (ending := not_a_tensor(found)) is not None:
        yield ending
        return
    if found.shape != (n,):
        yield wrong(f"returns {tuple(found.shape)} for logits {shape}: one number for each image, ({n},). Add up over "
                    "the classes, and take no mean here: reduction='mean' divides by images and classes")
        return
    p, q = (softmax(logits.detach().numpy(), axis=1) for logits in (clean, attacked))
    right, swapped = (torch.from_numpy(rel_entr(a, b).sum(1)) for a, b in ((p, q), (q, p)))
    mistake = "these are not the KL divergences of the two softmaxes: Σ p (log p − log q)"
    for other, words in ((swapped, "the arguments are swapped: this is KL(q ‖ p), and p, the clean answer, weighs the "
                                   "logarithms. F.kl_div takes log q first, then p"),
                         (right / classes, "takes the mean over the classes: KL is their sum"),
                         (right / math.log(2), "counts in bits: take the natural logarithm"),
                         (-right, "has the wrong sign: a KL is never negative")):
        if torch.allclose(found.detach(), other, atol=1e-9):
            mistake = words
    yield need(torch.allclose(found.detach(), right, atol=1e-6), "KL(p ‖ q) of each image, as scipy has it", mistake,
               share=2)
    slopes = slopes_at(found.sum(), (clean, attacked))
    log_ratio = torch.from_numpy(p).log() - torch.from_numpy(q).log()
    wanted = torch.from_numpy(p) * (log_ratio - right[:, None]), torch.from_numpy(q - p)
    fits = [torch.allclose(slope, one, atol=1e-6) for slope, one in zip(slopes, wanted, strict=True)]
    cut = [not slope.any() for slope in slopes]
    yield need(all(fits), "with the right gradient in both logits",
               "no gradient reaches the clean logits: whoever calls decides what is detached, not this function"
               if cut[0] else "no gradient reaches the attacked logits" if cut[1] else
               "the gradient in the logits is not that of Σ p (log p − log q)", share=2)
    sure = torch.tensor([[200.0, 0.0, 0.0], [0.0, 0.0, 0.0]], requires_grad=True)
    other_sure = torch.tensor([[0.0, 200.0, 0.0], [0.0, 0.0, 0.0]], requires_grad=True)
    value = mine(sure, other_sure)
    finite = bool(value.isfinite().all()) and abs(value[0].item() - 200) < 0.1
    finite &= all(bool(slope.isfinite().all()) for slope in slopes_at(value.sum(), (sure, other_sure)))
    yield need(finite, "finite where a probability rounds to 0, the gradient as well",
               "NaN or infinite where a probability rounds to 0, in value or gradient: stay with log_softmax, and give "
               "F.kl_div the logarithms (log_target=True)")


@step(points=4, shares=9, forbidden=written_here("trades_loss"))
def trades_loss(mine: Callable[..., Tensor], task: TradesVsPgdTask = FIRST,
                n: int = 12) -> Iterator[Observation]:
    """TRADES' loss and its gradient in the weights, beside autograd's of the formula, on a small net."""
    net, x, x_adv, y = one_hidden_layer(task, n)
    beta, asked = task.beta + 1.5, WatchedModel(net)
    wanted = trades_formulas(net, x, x_adv, y)
    plain, right = wanted["clean"](0.0), wanted["right"](beta)
    loss = mine(asked, x, x_adv, y, beta)
    if (ending := _no_loss(loss, asked)) is not None:
        yield ending
        return
    nothing = mine(asked, x, x_adv, y, 0.0)
    cross = near(nothing, wanted["no clean term"](0.0))
    yield need(near(nothing, plain), "with β = 0 it is the clean loss",
               "with β = 0 it is the cross-entropy at x_adv: that is PGD training. In TRADES the label is for the "
               "clean image" if cross else "with β = 0 it is not the clean loss: β stands before the KL alone")
    mistake = next((words for name, words in _TRADES_MISTAKES.items() if near(loss, wanted[name](beta))),
                   "this is not CE(z(x), y) + β · mean KL(p(x) ‖ p(x_adv))")
    fits = near(loss, right)
    yield need(fits, f"with β = {beta:g} it is cross-entropy and β times the mean KL", mistake, share=3)
    slopes, expected = (weights_gradient(net, value) for value in (loss, right))
    mistake = next((words for name, words in _CUT_BRANCHES.items()
                    if near(slopes, weights_gradient(net, wanted[name](beta)))),
                   "the gradient in the weights is not that of the formula" if fits else
                   "with another loss goes another gradient")
    yield need(near(slopes, expected), "and its gradient is the formula's, through both answers", mistake, share=3)
    watched = with_modes(task)
    images = torch.rand(8, 3, 4, 4, generator=task.generator(6))
    mine(watched.train(), images, images, torch.arange(8) % 3, 1.0)
    yield need(bool(watched.shown) and all(watched.modes) and watched.training, "in train mode, as the model came",
               "switches the model to eval mode: the update is taken in the mode in which the model comes", share=2)


_TRADES_MISTAKES = {
    "on the wrong term": "β multiplies the cross-entropy: it belongs to the KL",
    "without β": "leaves β out",
    "no clean term": "takes the cross-entropy at x_adv: the label belongs to the clean image, and x_adv to the KL",
    "PGD": "this is the cross-entropy at x_adv: PGD training's loss. TRADES compares two answers there",
    "swapped": "the KL's arguments are swapped: KL(p(x) ‖ p(x_adv)), the clean answer first",
    "sum": "adds the KL up over the images: take the mean, as cross-entropy does",
    "over elements": "the KL is divided by the number of classes as well (reduction='mean'): sum over the classes, "
                     "mean over the images",
    "minus": "subtracts the KL: the update is to make it small",
}

_CUT_BRANCHES = {
    "clean detached": "the clean answer is detached: in the attack it is a constant, in the loss the gradient goes "
                      "through it, too",
    "attacked detached": "the answer at x_adv is detached: nothing teaches it to stay",
    "all detached": "the KL is detached: it changes the number and teaches nothing",
}


def trades_formulas(net: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor) -> dict[str, Callable[[float], Tensor]]:
    """The loss by its formula, and what is often written instead, each by β."""
    def entropy(at: Tensor) -> Tensor:
        log_p: Tensor = net(at).log_softmax(1)
        return -log_p[torch.arange(len(y)), y].mean()

    def divergence(p: Tensor, q: Tensor) -> Tensor:
        return (p.softmax(1) * (p.log_softmax(1) - q.log_softmax(1))).sum(1).mean()

    n, classes = len(y), net(x).shape[1]
    return {
        "clean": lambda beta: entropy(x),
        "right": lambda beta: entropy(x) + beta * divergence(net(x), net(x_adv)),
        "on the wrong term": lambda beta: beta * entropy(x) + divergence(net(x), net(x_adv)),
        "without β": lambda beta: entropy(x) + divergence(net(x), net(x_adv)),
        "no clean term": lambda beta: entropy(x_adv) + beta * divergence(net(x), net(x_adv)),
        "PGD": lambda beta: entropy(x_adv),
        "swapped": lambda beta: entropy(x) + beta * divergence(net(x_adv), net(x)),
        "sum": lambda beta: entropy(x) + beta * n * divergence(net(x), net(x_adv)),
        "over elements": lambda beta: entropy(x) + beta / classes * divergence(net(x), net(x_adv)),
        "minus": lambda beta: entropy(x) - beta * divergence(net(x), net(x_adv)),
        "clean detached": lambda beta: entropy(x) + beta * divergence(net(x).detach(), net(x_adv)),
        "attacked detached": lambda beta: entropy(x) + beta * divergence(net(x), net(x_adv).detach()),
        "all detached": lambda beta: entropy(x) + beta * divergence(net(x), net(x_adv)).detach(),
    }


def _no_loss(loss: object, asked: WatchedModel) -> Observation | None:
    """An observation that ends a check: what came back is no loss of this model."""
    if not isinstance(loss, Tensor) or loss.ndim:
        return wrong(f"returns {tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__}: a loss is one "
                     "number, the mean over the batch, in a tensor with its gradient")
    if not asked.shown:
        return wrong("never asks the model: the loss follows from its answers")
    return None


@step(points=3, shares=13, forbidden=written_here("pgd_loss", "pgd_point"))
def pgd_loss(mine: Callable[..., Tensor], task: TradesVsPgdTask = FIRST, n: int = 32,
             side: int = 4) -> Iterator[Observation]:
    """PGD training: on a linear model its loss and gradient have a closed form."""
    eps, (line, x, y) = task.eps, line_of_two(task, n, side)
    watched = WatchedModel(line)
    loss = mine(watched, x, y, eps, task.steps, task.generator(2))
    if (ending := _no_loss(loss, watched)) is not None:
        yield ending
        return
    weight, bias = slope_and_offset(line)
    margins = (2 * y - 1) * (x.flatten(1) @ weight + bias)
    clean, right = (F.softplus(-(margins - lost)).mean() for lost in (0.0, eps * weight.abs().sum()))
    mistake = "on a linear model with margins m it is not the mean of log(1 + exp(−(m − ε‖w‖₁)))"
    for other, words in ((clean, "the loss at the images as they are: nothing was attacked"),
                         ((clean + right) / 2, "mixes clean images in: PGD training learns from x_adv alone"),
                         (clean + right, "adds the clean loss: PGD training learns from x_adv alone"),
                         (n * right, "adds up over the images: take the mean")):
        if near(loss, other):
            mistake = words
    yield need(near(loss, right, 1e-4), "a linear model's loss at its worst corners", mistake, share=2)
    slopes, expected = (weights_gradient(line, value) for value in (loss, right))
    yield need(near(slopes, expected, 1e-3), "with the closed form's gradient in the weights",
               "no gradient reaches the weights: only x_adv is a constant" if not slopes.any() else
               "its gradient in the weights is not that of the closed form, with x_adv a constant", share=2)
    yield _starts_in_the_ball(mine, task)
    yield from climbs_step_by_step(
        lambda model, at, label, eps, steps: mine(model, at, label, eps, steps, task.generator(3)), "cross-entropy",
        task, task.steps)
    yield from _update_after_attack(mine, task)


def _starts_in_the_ball(mine: Callable[..., Tensor], task: TradesVsPgdTask) -> Observation:
    """Whether the search begins at a uniform random point of the ball."""
    line, x, y = line_of_two(task, 100, 5)  # so many that chance alone is never taken for a mistake
    watched = WatchedModel(line)
    mine(watched, x, y, task.eps, task.steps, task.generator(9))
    if watched.start is None:
        return need(False, "", "asks for no gradient at any point: climb the cross-entropy from a start in the ball")
    share = (watched.start - x).flatten(1) / task.eps
    gone = share.abs().max().item()
    mistake = f"starts {gone:.2f} ε from the image" if not 0.5 < gone <= 1 + 1e-4 else not_uniform(share)
    return need(mistake is None, "starts anywhere in the ball",
                f"{mistake}. Begin at a uniform random point of the ball, x + ε · (2 · rand − 1)")


def _update_after_attack(mine: Callable[..., Tensor], task: TradesVsPgdTask) -> Iterator[Observation]:
    """Five shares: the attack in eval mode, the step in train mode, nothing added to the parameters' gradients."""
    watched, x = with_modes(task), torch.rand(8, 3, 4, 4, generator=task.generator(7))
    watched.remember()
    mine(watched.train(), x, torch.arange(8) % 3, task.eps, task.steps, task.generator(8))
    attacked = [mode for mode, followed in zip(watched.modes, watched.followed, strict=True) if followed]
    yield need(not any(attacked), "the attack sees the model in eval mode", "attacks the model in train mode")
    if not watched.shown:
        yield wrong("never asks the model")
        return
    yield need(watched.training and watched.modes[-1], "the update is taken in train mode",
               "takes the update in eval mode: the model's mode is to be given back after the attack", share=2)
    yield need(not watched.disturbed, "the parameters' gradients stay as they were",
               "changes the parameters' gradients: a loss is handed back, and whoever trains calls .backward()")
    last = watched.shown[-1]
    yield need(last.shape == x.shape and within(last, x, task.eps) and in_box(last), "x_adv lies in ball and box",
               "x_adv lies outside ball or box")
