"""Checks of the exercise `fgsm_first_steps`: one step along the gradient's sign (Goodfellow et al. 2015)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustness_lib import data
from robustness_lib.grading.given import fgsm_first_steps as given
from robustness_lib.grading.images import in_box, not_images
from robustness_lib.grading.observations import Observation, need, wrong
from robustness_lib.grading.small_models import Waves, linear_gradient, linear_scores, modes_noted
from robustness_lib.grading.steps import step
from robustness_lib.grading.tasks import RoadSignTask
from robustness_lib.statistics import Accuracy

__all__ = ["FgsmFirstStepsTask", "fgsm", "given", "input_gradient", "margin_drops", "one_broken", "smallest_eps",
           "still_right", "task"]

_LIBRARY = ("attacks", "threat.py", "norm_balls.py", "querying", "evaluation")


@dataclass(frozen=True)
class FgsmFirstStepsTask(RoadSignTask):
    """What the exercise is about, in one of its variants: a model, ε and a seed. images: how many are attacked."""

    images: int = 200

    variants = (("signs-tiny-pgd", 8), ("signs-tiny-standard", 3),
                ("signs-tiny-pgd", 6), ("signs-tiny-standard", 4))

    def data(self) -> tuple[Tensor, Tensor]:
        """Test images (N, C, H, W), also those that the model misreads, and their labels (N,)."""
        x, y, _ = data.load("signs", "test", n=self.images)
        return x, y


def task(variant: int = 0) -> FgsmFirstStepsTask:
    """The exercise in one of its variants."""
    return FgsmFirstStepsTask(variant)


# The gradient.


@step(points=3, shares=6, forbidden=("grading/given", *_LIBRARY))
def input_gradient(mine: Callable[..., Tensor], task: FgsmFirstStepsTask = FgsmFirstStepsTask(),
                   shape: tuple[int, ...] = (12, 3, 6, 6)) -> Iterator[Observation]:
    """The gradient of the loss by the pixels: upwards, of the label's loss, in eval mode, and nothing else touched."""
    model, x, y = _half_misread(task, shape)
    gathered = {name: torch.full_like(weights, 0.5) for name, weights in model.named_parameters()}
    for name, weights in model.named_parameters():
        weights.grad = gathered[name].clone()
    images = x.clone()
    with modes_noted(model.train()) as modes:
        try:
            found = mine(model, images, y.clone())
        except NotImplementedError:  # one of the RuntimeErrors
            raise
        except RuntimeError as error:
            yield wrong(_asked_in_vain(error))
            return
    if found is None:
        yield wrong("returns None: only the tensor that you called requires_grad_() on gets a .grad, and only if the "
                    "model is then given that very tensor. torch.autograd.grad(loss, pixels)[0] returns it directly")
        return
    if (ending := not_images(found, x)) is not None:
        yield ending
        return
    yield need(modes and not any(modes), "the model is in eval mode while it is asked",
               "the model is asked in train mode, where dropout is at work: call model.eval() before" if modes else
               "the model is never asked")
    mistake = _which_gradient(found, model, x, y)
    yield need(mistake is None, "the gradient of each image's own loss, pointing uphill", str(mistake), share=3)
    grads = [weights.grad for weights in model.parameters()]
    kept = all(grad is not None and torch.equal(grad, before)
               for grad, before in zip(grads, gathered.values(), strict=True))
    wiped = all(grad is None or not grad.any() for grad in grads)
    yield need(kept, "the gradients of the model's parameters stay as they were",
               "wipes the gradients that somebody had gathered in the model's parameters: torch.autograd.grad(loss, "
               "pixels) touches none, so that there is nothing to clean" if wiped else
               "adds to the gradients of the model's parameters: backward() writes into every one of them. "
               "torch.autograd.grad(loss, pixels) asks for the pixels' alone")
    yield need(torch.equal(images, x) and not images.requires_grad, "the images themselves stay as they were",
               "changes the tensor it was given: begin with x.clone().requires_grad_()")


def _half_misread(task: FgsmFirstStepsTask, shape: tuple[int, ...],
                  edges: bool = False) -> tuple[nn.Sequential, Tensor, Tensor]:
    """A linear model, images, and labels of which the model reads every second one wrongly. edges: whether a row of
    each image is black and another one white, where the pixel box binds."""
    draw = task.generator()
    model, x = linear_scores(shape[1:], 5, draw), torch.rand(shape, generator=draw)
    if edges:
        x[:, :, 0], x[:, :, 1] = 0.0, 1.0
    with torch.no_grad():
        read = model.eval()(x).argmax(1)
    return model, x, torch.where(torch.arange(len(x)) % 2 == 0, read, (read + 1) % 5)


def _alike(a: Tensor, b: Tensor) -> bool:
    """Whether two gradients have the same direction, image by image: a sum and a mean of losses are alike."""
    return bool((F.cosine_similarity(a.double().flatten(1), b.double().flatten(1)) > 0.9999).all())


def _which_gradient(found: Tensor, model: nn.Sequential, x: Tensor, y: Tensor) -> str | None:
    """What is wrong with a gradient, in words; None for the right one."""
    right = linear_gradient(model, x, y)
    if _alike(found, right):
        return None
    pixels = x.clone().requires_grad_()
    scores = model.eval()(pixels)
    read = scores.argmax(1)
    twice = torch.autograd.grad(F.cross_entropy(scores.softmax(1), y, reduction="sum"), pixels, retain_graph=True)[0]
    label = torch.autograd.grad(scores.gather(1, y[:, None]).sum(), pixels)[0]
    for other, words in (
            (-right, "this gradient points downhill, so that your loss goes down instead of up: no minus sign"),
            (linear_gradient(model, x, read), "this is the gradient for what the model answers, and the loss is that "
             "of the label: F.cross_entropy(model(x), y)"),
            (twice, "the softmax was taken twice: F.cross_entropy wants the model's scores as they are"),
            (label, "this is the gradient of the label's score: take that of the loss, F.cross_entropy(model(x), y)"),
            (-label, "this is the gradient of the label's score: take that of the loss, F.cross_entropy(model(x), y)"),
            (right.sign(), "this is the gradient's sign already: that comes in step 3, and here it is the gradient")):
        if _alike(found, other):
            return words
    if not found.any():
        return "this gradient is zero everywhere, and the right one is not"
    return "this is not the gradient of F.cross_entropy(model(x), y) by the pixels, with the model in eval mode"


def _asked_in_vain(error: RuntimeError) -> str:
    """What autograd meant, for those who meet it for the first time."""
    words = str(error)
    if "does not require grad" in words:
        return ("autograd was not told to follow the pixels: x.clone().requires_grad_(), before the model is asked, "
                "and no detach(), .data or no_grad() on the way to the loss")
    if "not have been used" in words:
        return "the loss does not come from the tensor that you ask for: give the model the one with requires_grad_()"
    if "scalar outputs" in words:
        return "a loss for each image has no single gradient: add them up, F.cross_entropy(..., reduction=\"sum\")"
    return f"your code raises RuntimeError: {words}"


# By hand.


@step(points=1, shares=2, forbidden=_LIBRARY)
def margin_drops(mine: Callable[..., tuple[float, float]], task: FgsmFirstStepsTask = FgsmFirstStepsTask(),
                 w: tuple[float, ...] = (2.0, -1.0), eps: float = 0.1) -> Iterator[Observation]:
    """By how much the margin w·x falls at most: ε‖w‖₁ in the square, ε‖w‖₂ in the circle."""
    given_w = torch.tensor(w)
    found = mine(given_w.clone(), eps)
    if not isinstance(found, tuple | list) or len(found) != 2:
        yield wrong("returns no pair: return two numbers, the fall in L∞ and the fall in L2")
        return
    square, circle = (float(value) for value in found)
    l1, l2 = sum(abs(value) for value in w), math.hypot(*w)
    yield need(math.isclose(square, eps * l1, rel_tol=1e-4), f"L∞: the margin falls by {eps * l1:.3g}",
               f"L∞: {square:.3g}, and it is {eps * l1:.3g}. " + _which_fall(square / eps, "L∞", w))
    yield need(math.isclose(circle, eps * l2, rel_tol=1e-4), f"L2: the margin falls by {eps * l2:.3g}",
               f"L2: {circle:.3g}, and it is {eps * l2:.3g}. " + _which_fall(circle / eps, "L2", w))


def _which_fall(found: float, norm: str, w: tuple[float, ...]) -> str:
    """What a wrong fall is instead, divided by ε."""
    l1, l2 = sum(abs(value) for value in w), math.hypot(*w)
    is_it = {"the two are swapped": l2 if norm == "L∞" else l1,
             "a fall is counted as a positive number": -l1 if norm == "L∞" else -l2,
             "each pixel moves against its own weight, so that |w| is added up and not w": sum(w),
             "all pixels move, not only the one of the largest weight": max(abs(value) for value in w),
             "a root is missing: the length of w is √(w·w)": l2**2,
             "in the circle not every pixel can move by ε at once": l2 * math.sqrt(len(w))}
    for words, value in is_it.items():
        if math.isclose(found, value, rel_tol=1e-4):
            return words
    return "Write down δ, pixel by pixel, and then w·δ"


# The step.


@step(points=4, shares=10, forbidden=("grading/given/fgsm_first_steps/one_step.py", *_LIBRARY))
def fgsm(mine: Callable[..., Tensor], task: FgsmFirstStepsTask = FgsmFirstStepsTask(),
         shape: tuple[int, ...] = (16, 3, 8, 8), images: int = 60) -> Iterator[Observation]:
    """One step of ε along the gradient's sign, in the pixel box."""
    model, x, y = _half_misread(task, shape, edges=True)
    eps, pixels = task.eps, x.clone()
    with modes_noted(model.train()) as modes:
        found = mine(model, pixels, y.clone(), eps)
    if (ending := not_images(found, x)) is not None:
        yield ending
        return
    found = found.detach()
    yield need(torch.equal(pixels, x), "the images themselves stay as they were",
               "changes the images it was given: x + ..., and not x += ...")
    yield need(modes and not any(modes), "the model is asked, and in eval mode",
               "the model is asked in train mode: given.input_gradient sees to it, and so should yours" if modes else
               "the model is never asked for a gradient")
    yield need(in_box(found), "pixels stay in [0, 1]",
               "pixels leave [0, 1]: clamp the result, (x + ...).clamp(0, 1), after adding")
    uphill = linear_gradient(model, x, y)
    room = (x > eps) & (x < 1 - eps) & (uphill.abs() > 1e-6)
    moved = (found - x).double()
    far = _how_far(found[room], moved[room].abs(), eps)
    yield need(far is None, "each pixel moves by ε, where it has room", str(far), share=2)
    along = (moved.sign() == uphill.sign()) & room
    shares = [(along[half].sum() / room[half].sum()).item() for half in (slice(0, None, 2), slice(1, None, 2))]
    yield need(min(shares) == 1, "uphill, on images that are read rightly and on those that are not",
               _which_way(*shares), share=3)
    yield _loss_rises(mine, task, images)


def _how_far(ends: Tensor, lengths: Tensor, eps: float) -> str | None:
    """What is wrong with how far pixels move, and where they end; None where all move by ε."""
    if (lengths - eps).abs().max() < 1e-4 * eps + 1e-6:
        return None
    if (torch.minimum(ends.abs(), (ends - eps).abs()) < 1e-6).all():
        return "this is the change alone: return the image with it, x + ..."
    if not lengths.any():
        return "moves no pixel at all"
    free = lengths[(ends > 0) & (ends < 1)]
    if len(free) < 0.1 * len(lengths):
        return "nearly all pixels end at 0 or 1: ε is a number for pixels in [0, 1] already, so leave 255 out"
    ratio = free.median().item() / eps
    if free.std() > 0.02 * free.mean():
        return "pixels move by different lengths: take the gradient's sign, so that each moves by ε, and clamp last"
    if abs(ratio * 255 - 1) < 0.02:
        return f"pixels move by {ratio:.3g} ε: ε is a number for pixels in [0, 1] already, so leave 255 out"
    return (f"pixels move by {ratio:.3g} ε, and it should be ε: images stay pixels in [0, 1], and if a model "
            "wants them normalized, it does that inside")


def _which_way(read: float, misread: float) -> str:
    """In words, from the shares of pixels that go uphill on images that are read rightly, and on the others."""
    if max(read, misread) == 0:
        return "every pixel goes the wrong way, so that your loss goes down instead of up: x plus ε times the sign"
    if read == 1:
        return ("images that the model misreads are pushed towards their label: the loss is that of the label y, not "
                "of what the model answers")
    return f"{100 * (1 - (read + misread) / 2):.0f} % of the pixels do not go uphill: each goes the way of its own sign"


def _loss_rises(mine: Callable[..., Tensor], task: FgsmFirstStepsTask, images: int) -> Observation:
    """On a real model the loss rises by as much as FGSM can make it."""
    (x, y), model = task.data(), task.model().eval()
    x, y = x[:images], y[:images]
    moved = mine(model, x.clone(), y.clone(), task.eps).detach().float()
    farthest = given.fgsm(model, x, y, task.eps)
    with torch.no_grad():
        before, after, best = (F.cross_entropy(model(at), y).item() for at in (x, moved, farthest))
    words = f"{len(x)} images of the test set on {task.name}: the mean loss goes from {before:.2f} to {after:.2f}"
    legal = in_box(moved) and (moved - x).abs().max() <= task.eps * 1.001
    return need(legal and abs(after - best) < 0.02 * (best - before), words,
                f"{words}, and should go to {best:.2f}, within ε and [0, 1]", share=2)


# Accuracy.


@step(points=3, shares=6, forbidden=_LIBRARY)
def still_right(mine: Callable[..., Accuracy], task: FgsmFirstStepsTask = FgsmFirstStepsTask(),
                n: int = 60) -> Iterator[Observation]:
    """Accuracy under attack: who was right before and still is, among all images."""
    model, x, y = _waves(task, n)
    try:
        found = mine(model, x.clone(), y.clone(), task.eps)
    except RuntimeError as error:
        if "must match the size" not in str(error):
            raise
        yield wrong(f"{error}. Scores are (N, classes): the answer is the largest in each row, argmax(1), and there is "
                    "one for each label")
        return
    if not isinstance(found, Accuracy):
        yield wrong(f"returns {type(found).__name__}: return Accuracy(correct, n) or Accuracy.of(right), so that "
                    "nobody has to ask “of how many?”")
        return
    yield need(found.n == n, "of all images", f"n is {found.n}, and there are {n} images: an image that is misread "
               "without an attack counts, as one that is not right")
    counted = {int(column.sum()): words for words, column in _countable(*_answers(model, x, y, task.eps), y).items()}
    right = next(count for count, words in counted.items() if words == _RIGHT)
    yield need(found.correct == right, "counts who was right before and still is",
               counted.get(found.correct, f"counts {found.correct}, and {right} were right before and still are"),
               share=3)
    yield _on_the_task(mine, task)


def _waves(task: FgsmFirstStepsTask, n: int) -> tuple[nn.Module, Tensor, Tensor]:
    """A model on which one step can go too far, images, and labels of which it reads about two thirds rightly; such
    that no two of the things that people count come to the same number."""
    draw, model = task.generator(n), Waves(task.eps / 0.8)
    for _ in range(1000):
        x = (0.3 + 0.4 * torch.rand(n, 1, 1, 1, generator=draw)).expand(n, 3, 4, 4).contiguous()
        read = model(x).argmax(1)
        other = (read + torch.randint(1, 4, (n,), generator=draw)) % 4
        y = torch.where(torch.arange(n) % 3 == 0, other, read)
        counted = _countable(*_answers(model, x, y, task.eps), y)
        if len({int(column.sum()) for column in counted.values()}) == len(counted):
            return model, x, y
    raise AssertionError("no images on which all that people count differs")


def _answers(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """What the model answers before the attack and after it, (N,)."""
    moved = given.fgsm(model, x, y, eps)
    with torch.no_grad():
        return model(x).argmax(1), model(moved).argmax(1)


_RIGHT = "right before, and still"


def _countable(before: Tensor, after: Tensor, y: Tensor) -> dict[str, Tensor]:
    """What people count, (N,) bool, by what is to be said to them. before, after: the model's answers."""
    was, still = before == y, after == y
    return {
        _RIGHT: was & still,
        "counts images that were misread before the attack and are right after it by accident: right is who was right "
        "before and still is": still,
        "counts who is right without an attack: ask the model about the attacked images": was,
        "counts the images that the attack broke: accuracy counts those it did not break": was & ~still,
        "counts mistakes: accuracy counts who is right": ~(was & still),
        "counts where the model did not change its answer: compare it with the label y": before == after,
    }


def _on_the_task(mine: Callable[..., Accuracy], task: FgsmFirstStepsTask) -> Observation:
    """Several ε on a real model; rounding may cost an image."""
    (x, y), model = task.data(), task.model()
    epsilons = [0.0, task.eps / 2, task.eps]
    found = [mine(model, x.clone(), y.clone(), eps) for eps in epsilons]
    right = [int(torch.stack([answer == y for answer in _answers(model, x, y, eps)]).all(0).sum()) for eps in epsilons]
    words = "; ".join(f"{one} at ε = {255 * eps:g}/255" for one, eps in zip(found, epsilons, strict=True))
    close = all(abs(one.correct - count) <= 1 and one.n == len(x) for one, count in zip(found, right, strict=True))
    return need(close, words, f"{words}, and {' and '.join(map(str, right))} of {len(x)} images are right", share=2)


def one_broken(mine: Callable[..., Tensor],
               task: FgsmFirstStepsTask = FgsmFirstStepsTask()) -> tuple[Tensor, Tensor, float, tuple[str, str]]:
    """For the picture: an image (C, H, W) that one's own step breaks, the image after it, ε, and what the model says of
    both. Where it breaks none, the first image that was read rightly."""
    (x, y), model = task.data(), task.model()
    _, _, classes = data.load("signs", "test", n=1)
    x_adv = mine(model, x.clone(), y.clone(), task.eps).detach().float()
    with torch.no_grad():
        before, after = model(x).argmax(1), model(x_adv).argmax(1)
    read, broken = before == y, after != y
    i = int((read.int() + (read & broken).int()).argmax())
    return x[i], x_adv[i], task.eps, (classes[before[i]], classes[after[i]])


# The model that can be solved.


@step(points=2, shares=4, forbidden=_LIBRARY)
def smallest_eps(mine: Callable[..., Tensor], task: FgsmFirstStepsTask = FgsmFirstStepsTask(),
                 shape: tuple[int, int] = (12, 6)) -> Iterator[Observation]:
    """The linear model, where one step is exact: |m| / ‖w‖₁ flips the answer, and what is wrong needs nothing."""
    draw = task.generator()
    x = torch.rand(shape, generator=draw, dtype=torch.float64)
    w = torch.randn(shape[1], generator=draw, dtype=torch.float64)
    w[:3] = torch.tensor([1.5, -0.7, 0.0])
    b = 0.15 - (x @ w).median()
    score = x @ w + b
    y = (score > 0).long()
    misread = torch.arange(shape[0]) % 4 == 3
    y[misread] = 1 - y[misread]
    found = torch.as_tensor(mine(x.clone(), y.clone(), w.clone(), b.clone())).double()
    if found.shape != y.shape:
        yield wrong(f"returns shape {tuple(found.shape)}: one ε for each image, {tuple(y.shape)}")
        return
    right = score.abs() / w.abs().sum()
    read = ~misread
    mistake = _which_eps(found[read], x[read], y[read], w, b)
    yield need(torch.allclose(found[read], right[read], rtol=1e-4), "|m| / ‖w‖₁, where the model is right", mistake,
               share=3)
    yield need((found[misread].abs() < 1e-9).all(), "and 0 where it is wrong already",
               "an image that is misread needs no change: its smallest ε is 0, and .clamp(min=0) says so")


def _which_eps(found: Tensor, x: Tensor, y: Tensor, w: Tensor, b: Tensor) -> str:
    """What was computed instead of the smallest ε in L∞."""
    score = x @ w + b
    for other, words in (
            (score.abs() / w.norm(), "this is the smallest change in L2: in L∞ divide by ‖w‖₁, the sum of all |w|"),
            (score.abs() / w.abs().max(), "divides by the largest |w|: in L∞ all pixels move, so divide by their sum"),
            (score.abs() / w.sum(), "divides by the sum of w: weights of both signs cancel, so add up |w|"),
            (score.abs() / w.sum().abs(), "divides by the sum of w: weights of both signs cancel, so add up |w|"),
            ((x @ w).abs() / w.abs().sum(), "leaves out b: the margin is w·x + b"),
            (score.abs(), "this is the margin: a step of ε lowers it by ε‖w‖₁, so divide"),
            (score / w.abs().sum(), "on images of class 0 the score is negative and the model right: turn its sign"),
            ((score / w.abs().sum()).clamp(min=0), "on images of class 0 the score is negative and the model right: "
             "turn its sign")):
        if torch.allclose(found, other, rtol=1e-4):
            return words
    return "these are not the smallest ε that flip the answers: a step of ε lowers the margin by ε‖w‖₁, down to 0"
