"""Checks of the exercise `trades_vs_pgd` on the two losses: beside closed forms, scipy and autograd of the formulas."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from scipy.special import rel_entr, softmax
from torch import Tensor, nn

from robustness_lib.grading._trades_task import FIRST, TradesVsPgdTask, written_here
from robustness_lib.grading.given import trades_vs_pgd as given
from robustness_lib.grading.images import in_box, not_images, within
from robustness_lib.grading.observations import Observation, need, wrong
from robustness_lib.grading.steps import step
from robustness_lib.grading.watched_model import WatchedModel

__all__ = ["ascend", "kl", "pgd_loss", "trades_loss", "trades_point"]


@step(points=2, shares=5, forbidden=("grading/given", "attacks", "training"))
def kl(mine: Callable[[Tensor, Tensor], Tensor], task: TradesVsPgdTask = FIRST,
       shape: tuple[int, int] = (7, 5)) -> Iterator[Observation]:
    """KL(p ‖ q) of each image, its gradient in both logits, and what it does where a probability rounds to 0."""
    draw, (n, classes) = task.generator(), shape
    clean, attacked = (2 * torch.randn(shape, generator=draw, dtype=torch.float64) for _ in range(2))
    clean.requires_grad_()
    attacked.requires_grad_()
    found = mine(clean, attacked)
    if not isinstance(found, Tensor) or found.shape != (n,):
        shown = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        yield wrong(f"returns {shown} for logits {shape}: one number for each image, ({n},). Add up over the classes, "
                    "and take no mean here: reduction='mean' divides by images and classes")
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
    slopes = _slopes(found.sum(), (clean, attacked))
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
    finite &= all(bool(slope.isfinite().all()) for slope in _slopes(value.sum(), (sure, other_sure)))
    yield need(finite, "finite where a probability rounds to 0, the gradient as well",
               "NaN or infinite where a probability rounds to 0, in value or gradient: stay with log_softmax, and give "
               "F.kl_div the logarithms (log_target=True)")


@step(points=3, shares=10, forbidden=("grading/given", "attacks", "training"))
def ascend(mine: Callable[..., Tensor], task: TradesVsPgdTask = FIRST, n: int = 16, side: int = 4,
           steps: int = 5) -> Iterator[Observation]:
    """The search: on a linear model it ends in the worst corner, and it leaves no trace on any model."""
    eps, (line, x, y) = task.eps, _linear(task, n, side)
    weight = _slope_and_offset(line)[0].detach().reshape(x.shape[1:])
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
    yield from _leaves_no_trace(lambda model, at: mine(model, lambda z: z.square().sum(1), at, at, eps, steps), task)


def _leaves_no_trace(attack: Callable[[nn.Module, Tensor], object], task: TradesVsPgdTask) -> Iterator[Observation]:
    """Four shares: eval mode during the attack, the mode given back, and no gradient added to any parameter."""
    watched, x = _trainable(task), torch.rand(8, 3, 4, 4, generator=task.generator(4))
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


@step(points=2, shares=11, forbidden=written_here("trades_point"))
def trades_point(mine: Callable[..., Tensor], task: TradesVsPgdTask = FIRST, n: int = 64,
                 side: int = 4) -> Iterator[Observation]:
    """Where TRADES looks: as far as possible from the clean answer, whichever way, from a start beside the image."""
    eps, (line, x, _) = task.eps, _linear(task, n, side)
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
    start = watched.start
    gone = 0.0 if start is None else (start - x).abs().max().item()
    yield need(start is None or gone > 1e-6, "starts beside the image",
               "begins with a gradient at the image itself: there the KL has its minimum, and its gradient is zero. "
               "Start at x + .001 · N(0, 1)", share=2)
    yield need(within(x_adv, x, eps) and in_box(x_adv), "ends in ball and box", "leaves the ball or the pixel box")
    asked = len(watched.shown)
    yield need(asked <= task.steps + 2, "asks for the clean answer once",
               f"asks the model {asked} times for {task.steps} steps: the clean logits are a constant, computed once",
               share=0.5)
    yield from _is_the_farthest(line, x, x_adv, eps)
    yield from _leaves_no_trace(lambda model, at: mine(model, at, eps, task.steps, task.generator(3)), task)
    yield from _as_far_as_the_given(mine, task)


def _is_the_farthest(line: nn.Sequential, x: Tensor, x_adv: Tensor, eps: float) -> Iterator[Observation]:
    """On a linear model the margin m goes to m + ε‖w‖₁ or m − ε‖w‖₁, as the start falls. Two and a half shares."""
    weight, _ = _slope_and_offset(line)
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


@step(points=4, shares=9, forbidden=written_here("trades_loss"))
def trades_loss(mine: Callable[..., Tensor], task: TradesVsPgdTask = FIRST,
                n: int = 12) -> Iterator[Observation]:
    """TRADES' loss and its gradient in the weights, beside autograd's of the formula, on a small net."""
    net, x, x_adv, y = _small(task, n)
    beta = task.beta + 1.5
    wanted = _trades_formulas(net, x, x_adv, y)
    plain, right = wanted["clean"](0.0), wanted["right"](beta)
    loss = mine(net, x, x_adv, y, beta)
    if not isinstance(loss, Tensor) or loss.ndim:
        yield wrong(f"returns {tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__}: a loss is one "
                    "number, the mean over the batch")
        return
    nothing = mine(net, x, x_adv, y, 0.0)
    cross = _near(nothing, wanted["no clean term"](0.0))
    yield need(_near(nothing, plain), "with β = 0 it is the clean loss",
               "with β = 0 it is the cross-entropy at x_adv: that is PGD training. In TRADES the label is for the "
               "clean image" if cross else "with β = 0 it is not the clean loss: β stands before the KL alone")
    mistake = next((words for name, words in _TRADES_MISTAKES.items() if _near(loss, wanted[name](beta))),
                   "this is not CE(z(x), y) + β · mean KL(p(x) ‖ p(x_adv))")
    fits = _near(loss, right)
    yield need(fits, f"with β = {beta:g} it is cross-entropy and β times the mean KL", mistake, share=3)
    slopes, expected = (_gradient(net, value) for value in (loss, right))
    mistake = next((words for name, words in _CUT_BRANCHES.items()
                    if _near(slopes, _gradient(net, wanted[name](beta)))), "the gradient in the weights is not that of "
                   "the formula" if fits else "with another loss goes another gradient")
    yield need(_near(slopes, expected), "and its gradient is the formula's, through both answers", mistake, share=3)
    watched = _trainable(task)
    images = torch.rand(8, 3, 4, 4, generator=task.generator(6))
    mine(watched.train(), images, images, torch.arange(8) % 3, 1.0)
    yield need(all(watched.modes) and watched.training, "in train mode, as the model came",
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


def _trades_formulas(net: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor) -> dict[str, Callable[[float], Tensor]]:
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


@step(points=3, shares=10, forbidden=written_here("pgd_loss", "pgd_point"))
def pgd_loss(mine: Callable[..., Tensor], task: TradesVsPgdTask = FIRST, n: int = 32,
             side: int = 4) -> Iterator[Observation]:
    """PGD training: on a linear model its loss and gradient have a closed form."""
    eps, (line, x, y) = task.eps, _linear(task, n, side)
    watched = WatchedModel(line)
    loss = mine(watched, x, y, eps, task.steps, task.generator(2))
    if not isinstance(loss, Tensor) or loss.ndim:
        yield wrong(f"returns {tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__}: a loss is one "
                    "number, the mean over the batch")
        return
    weight, bias = _slope_and_offset(line)
    margins = (2 * y - 1) * (x.flatten(1) @ weight + bias)
    clean, right = (F.softplus(-(margins - lost)).mean() for lost in (0.0, eps * weight.abs().sum()))
    mistake = "on a linear model with margins m it is not the mean of log(1 + exp(−(m − ε‖w‖₁)))"
    for other, words in ((clean, "the loss at the images as they are: nothing was attacked"),
                         ((clean + right) / 2, "mixes clean images in: PGD training learns from x_adv alone"),
                         (clean + right, "adds the clean loss: PGD training learns from x_adv alone"),
                         (n * right, "adds up over the images: take the mean")):
        if _near(loss, other):
            mistake = words
    yield need(_near(loss, right, 1e-4), "a linear model's loss at its worst corners", mistake, share=2)
    slopes, expected = (_gradient(line, value) for value in (loss, right))
    yield need(_near(slopes, expected, 1e-3), "with the closed form's gradient in the weights",
               "no gradient reaches the weights: only x_adv is a constant" if not slopes.any() else
               "its gradient in the weights is not that of the closed form, with x_adv a constant", share=2)
    start = watched.start
    gone = eps if start is None else (start - x).abs().max().item()
    yield need(eps / 2 < gone <= eps * (1 + 1e-5), "starts anywhere in the ball",
               f"starts {gone / eps:.2f} ε from the image: begin at a uniform random point of the ball, "
               "x + ε · (2 · rand − 1)")
    yield from _update_after_attack(mine, task)


def _update_after_attack(mine: Callable[..., Tensor], task: TradesVsPgdTask) -> Iterator[Observation]:
    """Five shares: the attack in eval mode, the step in train mode, nothing added to the parameters' gradients."""
    watched, x = _trainable(task), torch.rand(8, 3, 4, 4, generator=task.generator(7))
    watched.remember()
    mine(watched.train(), x, torch.arange(8) % 3, task.eps, task.steps, task.generator(8))
    attacked = [mode for mode, followed in zip(watched.modes, watched.followed, strict=True) if followed]
    yield need(not any(attacked), "the attack sees the model in eval mode", "attacks the model in train mode")
    yield need(watched.training and watched.modes[-1], "the update is taken in train mode",
               "takes the update in eval mode: the model's mode is to be given back after the attack", share=2)
    yield need(not watched.disturbed, "the parameters' gradients stay as they were",
               "changes the parameters' gradients: a loss is handed back, and whoever trains calls .backward()")
    last = watched.shown[-1]
    yield need(last.shape == x.shape and within(last, x, task.eps) and in_box(last), "x_adv lies in ball and box",
               "x_adv lies outside ball or box")


# Small things that several checks ask.


def _linear(task: TradesVsPgdTask, n: int, side: int) -> tuple[nn.Sequential, Tensor, Tensor]:
    """A linear model of two classes in float64, images far from black and white, and labels."""
    draw = task.generator(11)
    layer = nn.Linear(side * side, 2).double()
    line = nn.Sequential(nn.Flatten(), layer)
    with torch.no_grad():
        layer.weight.copy_(3 * torch.randn(layer.weight.shape, generator=draw))
        layer.bias.copy_(-layer.weight.sum(1) / 2)
    x = 0.3 + 0.4 * torch.rand(n, 1, side, side, generator=draw, dtype=torch.float64)
    return line, x, torch.randint(2, (n,), generator=draw)


def _slope_and_offset(line: nn.Sequential) -> tuple[Tensor, Tensor]:
    """w and b of the margin w · x + b by which the second class leads."""
    layer = line[1]
    assert isinstance(layer, nn.Linear)
    return layer.weight[1] - layer.weight[0], layer.bias[1] - layer.bias[0]


def _small(task: TradesVsPgdTask, n: int) -> tuple[nn.Module, Tensor, Tensor, Tensor]:
    """A net with one hidden layer in float64, images, points beside them and labels."""
    draw = task.generator(12)
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 9), nn.Tanh(), nn.Linear(9, 5)).double()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=draw))
    x, shift = (torch.rand(n, 3, 2, 2, generator=draw, dtype=torch.float64) for _ in range(2))
    return net, x, (x + shift - 0.5).clamp(0, 1), torch.randint(5, (n,), generator=draw)


def _trainable(task: TradesVsPgdTask) -> WatchedModel:
    """A net whose answers depend on its mode."""
    with torch.random.fork_rng():
        torch.manual_seed(task.variant)
        return WatchedModel(nn.Sequential(nn.Flatten(), nn.Linear(48, 16), nn.BatchNorm1d(16), nn.ReLU(),
                                          nn.Dropout(0.2), nn.Linear(16, 3)))


def _slopes(value: Tensor, at: tuple[Tensor, ...]) -> list[Tensor]:
    """The gradient in each of these; zero where none goes, or none is left after a .backward() of the learner's."""
    found: tuple[Any, ...] = (None,) * len(at)
    if value.requires_grad:
        with contextlib.suppress(RuntimeError):
            found = torch.autograd.grad(value, at, allow_unused=True, retain_graph=True)
    return [torch.zeros_like(one) if slope is None else slope for one, slope in zip(at, found, strict=True)]


def _gradient(net: nn.Module, loss: Tensor) -> Tensor:
    return torch.cat([slope.flatten() for slope in _slopes(loss, tuple(net.parameters()))])


def _near(found: Tensor, wanted: Tensor, slack: float = 1e-6) -> bool:
    return bool((found.detach() - wanted.detach()).norm() <= slack * (1 + wanted.detach().norm()))
