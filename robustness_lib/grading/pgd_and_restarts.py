"""Checks of the exercise `pgd_and_restarts`: many steps, projected, from several starts (Madry et al. 2018)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

import torch
from torch import Generator, Tensor, nn

from robustness_lib import data, models
from robustness_lib.grading.given import pgd_and_restarts as given
from robustness_lib.grading.images import in_box, not_images, within
from robustness_lib.grading.observations import Observation, need, wrong
from robustness_lib.grading.points_seen import PointsSeen, distinct
from robustness_lib.grading.small_models import FlatFloor, ForkedSlope, bumpy_scores, linear_scores
from robustness_lib.grading.steps import step
from robustness_lib.grading.tasks import RoadSignTask
from robustness_lib.grading.walks import Walk, matched, walk
from robustness_lib.losses import margin_loss
from robustness_lib.statistics import mcnemar

__all__ = ["PgdAndRestartsTask", "accuracy_after", "broken_by_each", "flat_floor", "given", "pgd", "pgd_with_restarts",
           "project", "random_start", "stronger", "task", "two_walks"]

_LIBRARY = ("attacks", "threat.py", "norm_balls.py", "querying", "evaluation")
_GIVEN = "grading/given/pgd_and_restarts/"


@dataclass(frozen=True)
class PgdAndRestartsTask(RoadSignTask):
    """What the exercise is about, in one of its variants: a model, ε and a seed. images: how many are attacked."""

    variants = (("signs-tiny-pgd", 12), ("signs-tiny-standard", 5),
                ("signs-tiny-pgd", 14), ("signs-tiny-standard", 6))


def task(variant: int = 0) -> PgdAndRestartsTask:
    """The exercise in one of its variants."""
    return PgdAndRestartsTask(variant)


def _broken(model: nn.Module, points: Tensor, y: Tensor) -> Tensor:
    """Which points the model misreads, (N,) bool."""
    with torch.no_grad():
        scores: Tensor = model.eval()(points.float())
    return scores.argmax(1) != y


# The ball.


@step(points=2, shares=5, forbidden=("grading/given", *_LIBRARY))
def project(mine: Callable[..., Tensor], task: PgdAndRestartsTask = PgdAndRestartsTask(),
            shape: tuple[int, ...] = (20, 3, 5, 5)) -> Iterator[Observation]:
    """The nearest point within ε of the image and in the pixel box: every pixel is brought back by itself."""
    eps, draw = task.eps, task.generator()
    x = torch.rand(shape, generator=draw)
    x[:, :, 0], x[:, :, 1] = 0.0, 1.0
    points = x + 3 * eps * (2 * torch.rand(shape, generator=draw) - 1)
    points[:2] = x[:2] + 0.5 * eps * (2 * torch.rand((2, *shape[1:]), generator=draw) - 1)
    inputs = points.clone(), x.clone()
    found = mine(*inputs, eps)
    if (ending := not_images(found, x)) is not None:
        yield ending
        return
    low, high = (x - eps).clamp(min=0), (x + eps).clamp(max=1)
    nearest = torch.minimum(torch.maximum(points, low), high)
    yield need(torch.equal(inputs[0], points) and torch.equal(inputs[1], x), "what it is given stays as it was",
               "changes the tensors it was given: return new ones")
    yield need(within(found, x, eps), "within ε of the image", _not_in_the_ball(found, points, x, eps))
    yield need(in_box(found), "in the pixel box", "pixels leave [0, 1]: clamp to the box as well")
    yield need((found - nearest).abs().max() < 1e-6, "and the nearest such point, pixel by pixel",
               _not_nearest(found, points, x, eps), share=2)


def _not_in_the_ball(found: Tensor, points: Tensor, x: Tensor, eps: float) -> str:
    if (found - points.clamp(0, 1)).abs().max() < 1e-6 or (found - points).abs().max() < 1e-6:
        return ("points stay farther than ε from the image: the ball lies around x, and not around the points that are "
                "to be brought back")
    return f"a pixel is {((found - x).abs().max() / eps).item():.2f} ε from the image: at least x − ε, at most x + ε"


def _not_nearest(found: Tensor, points: Tensor, x: Tensor, eps: float) -> str:
    change = points - x
    longest = change.abs().amax((1, 2, 3), keepdim=True)
    length = change.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1)
    for other, words in (
            (x + change * (eps / longest).clamp(max=1), "shortens the whole change until its largest pixel fits: in L∞ "
             "each pixel is cut off by itself"),
            (x + change * (eps / length).clamp(max=1), "this is the projection for L2: in L∞ each pixel is cut off by "
             "itself"),
            (x + eps * change.sign(), "moves every pixel to the edge of the ball: what lies inside stays where it is"),
            (x, "returns the images: a point comes back to the nearest allowed one, not to the centre")):
        if (found - other.clamp(0, 1)).abs().max() < 1e-5:
            return words
    return "this is not the nearest allowed point: what lies inside stays, what sticks out comes back to the edge"


@step(points=2, shares=6, forbidden=("grading/given/pgd_and_restarts/first_points.py", *_LIBRARY))
def random_start(mine: Callable[..., Tensor], task: PgdAndRestartsTask = PgdAndRestartsTask(),
                 shape: tuple[int, ...] = (24, 3, 8, 8)) -> Iterator[Observation]:
    """A start that is uniform in the ball, in the pixel box, for each image another, and another one each time."""
    eps, x = task.eps, torch.rand(shape, generator=task.generator())
    before = x.clone()
    start = mine(x, eps, task.generator(1))
    if (ending := not_images(start, x)) is not None:
        yield ending
        return
    yield need(torch.equal(x, before), "the images themselves stay as they were",
               "changes the images it was given: x + ..., and not x += ...")
    yield need(within(start, x, eps), "within ε of the image",
               f"a pixel starts {((start - x).abs().max() / eps).item():.2f} ε from its image: draw from −ε to ε")
    edges = torch.cat([mine(x.round(), eps, task.generator(2)), start])
    yield need(in_box(edges), "in the pixel box", "starts outside [0, 1]: clamp after adding the noise")
    share = (mine(torch.full(shape, 0.5), eps, task.generator(3)).double() - 0.5).flatten() / eps
    yield need(_uniform(share) is None, "uniform from −ε to ε", str(_uniform(share)))
    grey = torch.full(shape, 0.5)
    first, second = (mine(grey, eps, task.generator(number)) for number in (4, 5))
    alike = all(torch.equal(first[0], one) for one in first[1:])
    yield need(not alike, "another one for each image", "all images get the same noise: draw it in the shape of x")
    draw = task.generator(6)
    again = torch.equal(first, second) or torch.equal(mine(grey, eps, draw), mine(grey, eps, draw))
    yield need(not again, "and another one each time", "the same start again: draw from the generator that you are "
               "given, and set no seed, else every restart repeats the first")


def _uniform(share: Tensor) -> str | None:
    """What is wrong with the spread of a start, as shares of ε; None where it is uniform from −1 to 1."""
    if share.min() >= 0 or share.max() <= 0:
        return "moves in one direction only: torch.rand lies between 0 and 1, so 2 · rand − 1 lies between −1 and 1"
    if (share.abs() > 0.999).double().mean() > 0.9:
        return "takes the ends only, −ε and ε: a start may lie anywhere between them"
    wanted = torch.linspace(-1, 1, len(share), dtype=share.dtype)
    if (share.sort().values - wanted).abs().max() > 0.1:
        return "not all of the ball is equally likely: draw each pixel's change evenly from −ε to ε"
    return None


# One walk.


@step(points=6, shares=15, forbidden=(f"{_GIVEN}walk.py", f"{_GIVEN}starts.py", *_LIBRARY))
def pgd(mine: Callable[..., Tensor], task: PgdAndRestartsTask = PgdAndRestartsTask(), n: int = 24,
        steps: int = 8) -> Iterator[Observation]:
    """The walk: from the start it was given, uphill by steps that can cross the ball, projected, and the best kept."""
    track = _bumpy_walk(task, n, steps)
    asked = PointsSeen(track.model.train(), track.x)
    inputs = track.x.clone(), track.start.clone()
    found = mine(asked, inputs[0], track.y.clone(), track.eps, steps, inputs[1])
    if (ending := not_images(found, track.x)) is not None:
        yield ending
        return
    found = found.detach().float()
    yield need(not asked.in_train_mode and any(asked.seen), "the model is asked in eval mode",
               "the model is asked in train mode, where dropout is at work: model.eval() before the walk"
               if asked.in_train_mode else "the model is never asked")
    yield need(torch.equal(inputs[0], track.x) and torch.equal(inputs[1], track.start),
               "what it is given stays as it was", "changes the tensors it was given: begin with start.clone()")
    yield _in_ball_and_box(asked, found, track.x, track.eps)
    yield from _the_way(asked, track)
    yield _the_best(asked, found, track)
    grown = max(asked.graphs, default=0) - min(asked.graphs, default=0) > steps
    yield need(not grown, "each step begins with a graph of its own", "the graph of all earlier steps is kept, and "
               "memory grows with each: detach the point before the next step, x_adv = x_adv.detach()")
    yield _corner(mine, task)
    yield _on_the_task(mine, task)


def _bumpy_walk(task: PgdAndRestartsTask, n: int, steps: int) -> Walk:
    """Images of 4 × 4 pixels, some of them black or white, on a model whose slope turns within the ball; a third of
    them it misreads."""
    draw, eps = task.generator(), task.eps
    model = bumpy_scores((1, 4, 4), 4, draw, bumps=0.5 / eps)
    x = (1.2 * torch.rand(n, 1, 4, 4, generator=draw) - 0.1).clamp(0, 1)
    with torch.no_grad():
        read = model.eval()(x).argmax(1)
    y = torch.where(torch.arange(n) % 3 == 0, (read + 1) % 4, read)
    return Walk(model, x, y, eps, steps, given.random_start(x, eps, draw))


def _in_ball_and_box(asked: PointsSeen, found: Tensor, x: Tensor, eps: float) -> Observation:
    points = torch.stack([point for points in asked.seen for point in points] or [x[0]])
    images = torch.stack([x[i] for i, points in enumerate(asked.seen) for _ in points] or [x[0]])
    far = max((points - images).abs().max().item(), (found - x).abs().max().item()) / eps
    box = in_box(points) and in_box(found)
    return need(box and within(points, images, eps) and within(found, x, eps),
                "every point lies within ε and in the box",
                f"a point lies {far:.2f} ε from its image: project after each step, onto the ball around x"
                if far > 1.001 else "pixels leave [0, 1]: project after each step, onto ball and box", share=2)


def _the_way(asked: PointsSeen, track: Walk) -> Iterator[Observation]:
    """Whether the points that were looked at are those of the walk, and all of them."""
    paths = [distinct([point for point in points if not torch.equal(point, image)])
             for points, image in zip(asked.seen, track.x, strict=True)]
    right = max(matched(paths, walk(track)), matched(paths, walk(track, loss=margin_loss)))
    yield need(right > 0.9, "each step goes uphill by 2.5 ε/steps, from where the walk stands",
               _which_way(paths, track), share=4)
    longest = max(len(path) for path in paths)
    yield need(longest == track.steps + 1 and asked.gradients.max() <= track.steps + 1,
               f"{track.steps} steps, and the last point is looked at, too",
               f"takes {int(asked.gradients.max())} gradients of an image, and {track.steps} steps are allowed"
               if asked.gradients.max() > track.steps + 1 else
               f"looks at {longest} points of an image: the start and one after each of {track.steps} steps are "
               f"{track.steps + 1}, so ask for the loss once more after the last step", share=1)


def _which_way(paths: list[list[Tensor]], track: Walk) -> str:
    """What the walk did instead."""
    if sum(len(path) > 0 and bool((path[0] - start).abs().max() < 1e-5)
           for path, start in zip(paths, track.start, strict=True)) < 0.9 * len(paths):
        return "the walk does not begin at the start that it is given"
    if max(len(path) for path in paths) < 2:
        return "the walk stays at its start"
    for words, other in _OTHER_WALKS.items():
        if matched(paths, other(track)) > 0.9:
            return words
    lengths = torch.stack([path[1] - path[0] for path in paths if len(path) > 1]).abs()
    longest = lengths.max().item() * track.steps / track.eps
    if lengths.std() > 0 and abs(longest - 2.5) < 0.01:
        return "the steps have the right length and go another way: up the label's loss, from where the walk stands"
    return (f"the longest step is {longest:.3g} ε/steps, and each should be 2.5 ε/steps times the gradient's sign"
            + (": steps of ε/steps cannot cross the ball, which is 2 ε wide" if abs(longest - 1) < 0.01 else ""))


_OTHER_WALKS: dict[str, Callable[[Walk], list[Tensor]]] = {
    "walks downhill: the attacker wants a larger loss, so plus": lambda track: walk(track, way=lambda g, _: -g.sign()),
    "adds the gradient and not its sign: pixels hardly move": lambda track: walk(track, way=lambda g, _: g),
    "follows the sum of all gradients so far: .grad adds up over the steps. Take torch.autograd.grad(loss, x_adv)[0], "
    "or a new tensor for each step": lambda track: walk(track, way=lambda _, gathered: gathered.sign()),
    "goes on in the direction of the first gradient: ask for a new one where the walk stands":
        lambda track: walk(track, stay=True),
    "climbs the loss of what the model answers: the loss is that of the label y":
        lambda track: walk(track, labels=track.answers()),
    "climbs the loss of what the model answers on the way: the loss is that of the label y":
        lambda track: walk(track, labels="answers"),
    "steps are not brought back: project after each step": lambda track: walk(track, bring_back=lambda point, _: point),
    "steps are brought back to the pixel box and not to the ball around x":
        lambda track: walk(track, bring_back=lambda point, _: point.clamp(0, 1)),
}


def _the_best(asked: PointsSeen, found: Tensor, track: Walk) -> Observation:
    """What comes back is the best point that was looked at, image by image."""
    model = track.model.eval()
    with torch.no_grad():
        value = margin_loss(model(found), track.y)
        most = torch.stack([margin_loss(model(torch.stack(points or [image])), label.expand(max(len(points), 1))).max()
                            for points, image, label in zip(asked.seen, track.x, track.y, strict=True)])
    worse = int((value < most - 1e-4).sum())
    last = all(not points or torch.equal(end, points[-1]) for end, points in zip(found, asked.seen, strict=True))
    return need(worse == 0, "the best point of the walk comes back, image by image",
                f"on {worse} of {len(found)} images an earlier point had a larger margin_loss than the one that comes "
                "back: " + ("keep the best of each image, not the last" if last else "decide for each image by itself"),
                share=2)


def _corner(mine: Callable[..., Tensor], task: PgdAndRestartsTask) -> Observation:
    """On a linear model the best point is a corner; from the opposite one there is the whole ball to cross."""
    draw, eps = task.generator(7), task.eps
    model = linear_scores((1, 4, 4), 2, draw).eval()
    x, y = 0.3 + 0.4 * torch.rand(10, 1, 4, 4, generator=draw), torch.arange(10) % 2
    layer = model[-1]
    assert isinstance(layer, nn.Linear)
    slope = (layer.weight[1] - layer.weight[0]).detach() * (1 - 2 * y)[:, None]
    opposite = x - eps * slope.sign().reshape(x.shape)
    end = mine(model, x.clone(), y.clone(), eps, 10, opposite.clone()).detach().float()
    with torch.no_grad():
        gain = margin_loss(model(end), y) - margin_loss(model(x), y)
    share = (gain / (eps * slope.abs().sum(1))).min().item()
    return need(0.999 < share < 1.001, "on a linear model it reaches the corner, and ε‖w‖₁",
                f"on a linear model the loss rises by {share:.2f} ε‖w‖₁, and 1 is reached at the corner, also from the "
                "opposite one: can your steps cross the ball?")


def _on_the_task(mine: Callable[..., Tensor], task: PgdAndRestartsTask) -> Observation:
    (x, y), model = task.data(), task.model()
    start = given.random_start(x, task.eps, task.generator(8))
    found = mine(model, x.clone(), y.clone(), task.eps, 10, start.clone()).detach().float()
    count = int(_broken(model, found, y).sum())
    peer = int(_broken(model, given.pgd(model, x, y, task.eps, 10, start), y).sum())
    words = f"{count} of {len(x)} signs broken on {task.name} at ε = {255 * task.eps:g}/255 with 10 steps"
    legal = within(found, x, task.eps) and in_box(found)
    return need(legal and count >= peer - 2, words, f"{words}, and {peer} can be" if legal else
                "the points that come back lie outside ball or box", share=2)


# Restarts.


@step(points=4, shares=9, forbidden=(f"{_GIVEN}starts.py", *_LIBRARY))
def pgd_with_restarts(mine: Callable[..., Tensor], task: PgdAndRestartsTask = PgdAndRestartsTask(), n: int = 40,
                      restarts: int = 3) -> Iterator[Observation]:
    """Restarts: as many walks as are wanted, from new starts, of those still standing; what is broken stays broken."""
    steps, eps = 2, task.eps
    model = ForkedSlope(eps / 0.45)
    x, y = model.images(n, task.generator())
    asked, images = PointsSeen(model, x), x.clone()
    found = mine(asked, images, y.clone(), eps, steps, restarts, task.generator(1))
    if (ending := not_images(found, x)) is not None:
        yield ending
        return
    found = found.detach().float()
    yield _in_ball_and_box(asked, found, x, eps)
    paths = [distinct([point for point in points if not torch.equal(point, image)])
             for points, image in zip(asked.seen, x, strict=True)]
    errs = [_broken(model, torch.stack(path), y[i].expand(len(path))) if path else torch.zeros(0, dtype=torch.bool)
            for i, path in enumerate(paths)]
    ever = torch.tensor([bool(one.any()) for one in errs])
    yield _as_many_walks(paths, x, eps, ever, restarts)
    lost = int((ever & ~_broken(model, found, y)).sum())
    yield need(not lost and ever.any(), "an image that was broken once stays broken",
               f"{lost} of {n} images were broken in an earlier walk and come back unbroken: keep the best of all walks"
               if lost else "no walk breaks an image, and half of all starts lead to a mistake: call pgd from each",
               share=3)
    after = [len(one) - 1 - int(one.int().argmax()) for one in errs if one.any()]
    again = sum(late > steps for late in after)
    yield need(not again, "and is left alone from then on",
               f"{again} images go on with new walks although they are broken: restart only those still standing",
               share=1)
    yield _best_of_all(paths, found, model, y, ever)


def _as_many_walks(paths: list[list[Tensor]], x: Tensor, eps: float, ever: Tensor, restarts: int) -> Observation:
    """Images that never break show how many walks there were: a start lies inside the ball with nearly all its pixels,
    and after the first step hardly any point does."""
    starts = [sum(bool(((point - image).abs() < 0.999 * eps).float().mean() > 0.85) for point in path)
              for path, image in zip(paths, x, strict=True)]
    standing = [count for count, broken in zip(starts, ever.tolist(), strict=True) if not broken]
    if not standing or set(standing) == {restarts}:
        return need(True, f"{restarts} walks, each from a start of its own", "", share=2)
    if max(standing) <= 1 < restarts:
        return need(False, "", "all walks are one and the same, or there is only one: draw a new start for each from "
                    "the generator", share=2)
    off = next(count for count in standing if count != restarts)
    return need(False, "", f"{off} walks of an image that stands to the end, and there should be {restarts}, from a "
                "start of its own each", share=2)


def _best_of_all(paths: list[list[Tensor]], found: Tensor, model: nn.Module, y: Tensor, ever: Tensor) -> Observation:
    """Also of the images that stand, the best point of all walks comes back."""
    with torch.no_grad():
        value = margin_loss(model(found), y)
        most = torch.stack([margin_loss(model(torch.stack(path)), label.expand(len(path))).max() if path else value[i]
                            for i, (path, label) in enumerate(zip(paths, y, strict=True))])
    worse = int(((value < most - 1e-4) & ~ever).sum())
    return need(worse == 0, "of those that stand, the best point of all walks comes back",
                f"on {worse} images that stand, another walk had a point with a larger margin_loss")


@step(points=2, shares=2, forbidden=(f"{_GIVEN}starts.py", *_LIBRARY))
def flat_floor(mine: Callable[..., Tensor], task: PgdAndRestartsTask = PgdAndRestartsTask()) -> Iterator[Observation]:
    """Where the gradient is zero at the image, a walk from the image stands still, and one from elsewhere does not."""
    x, y = task.data()
    model, x = FlatFloor(task.model()).eval(), (16 * x).round() / 16
    read = ~_broken(model, x, y)
    x, y = x[read], y[read]
    still = _broken(model, given.pgd(model, x, y, task.eps, 10, x), y).double().mean().item()
    found = mine(model, x.clone(), y.clone(), task.eps, 10, 2, task.generator(3)).detach().float()
    share = _broken(model, found, y).double().mean().item()
    legal = within(found, x, task.eps) and in_box(found)
    words = f"flat at every image: from there PGD breaks {100 * still:.0f} % of {len(x)}, yours {100 * share:.0f} %"
    yield need(legal and share > still + 0.2, words,
               f"{words}. There is no slope at the image itself: begin each walk, also the first, at a random point"
               if legal else "the points that come back lie outside ball or box", share=2)


# What it says.


@step(points=2, shares=4)
def accuracy_after(mine: Callable[..., Tensor], task: PgdAndRestartsTask = PgdAndRestartsTask(), n: int = 50,
                   restarts: int = 6) -> Iterator[Observation]:
    """The accuracy after 1, 2, ... restarts: an image is right as long as none of them broke it."""
    draw = task.generator()
    broken = torch.rand(restarts, n, generator=draw) < 0.6 * torch.rand(n, generator=draw)
    found = torch.as_tensor(mine(broken.clone())).double()
    if found.shape != (restarts,):
        yield wrong(f"returns shape {tuple(found.shape)}: one accuracy after each of {restarts} restarts")
        return
    share = broken.double().mean(1)
    right = 1 - broken.cummax(0).values.double().mean(1)
    yield need((found >= 0).all() and (found <= 1).all() and (found.diff() < 1e-9).all(), "never rises",
               "rises, or leaves [0, 1]: a further restart can only break more images")
    mistake = "these are not the shares of images that no restart so far has broken"
    for other, words in (
            (1 - right, "these are the shares of broken images: accuracy is the rest"),
            (1 - share, "each restart by itself: an image that an earlier restart broke stays broken"),
            ((1 - share).cummin(0).values, "takes the best restart so far: restarts break different images, so put "
             "together which ones they broke"),
            ((1 - share).cumsum(0) / torch.arange(1, restarts + 1), "averages over the restarts: the attacker needs "
             "one that works, so an image counts as broken if any restart broke it"),
            ((1 - share).mean().expand(restarts), "averages over the restarts: the attacker needs one that works, so "
             "an image counts as broken if any restart broke it"),
            ((1 - share[-1]).expand(restarts), "counts the last restart only"),
            (right[-1].expand(restarts), "gives what is left in the end after each restart: the first knows nothing of "
             "the others"),
            (1 - broken.cummin(0).values.double().mean(1), "counts an image as broken only if every restart broke it: "
             "one is enough")):
        if torch.allclose(found, other, atol=1e-6):
            mistake = words
    yield need(torch.allclose(found, right, atol=1e-6), "an image is right as long as no restart broke it", mistake,
               share=3)


_CASES = (  # broken by the first alone, by the second alone, by both, by neither, and what can be said
    (12, 2, 20, 26, "first"), (2, 12, 20, 26, "second"), (5, 2, 30, 23, "cannot tell"), (9, 1, 40, 40, "first"),
    (1, 9, 40, 40, "second"), (7, 1, 10, 42, "cannot tell"), (0, 0, 31, 29, "cannot tell"),
    (15, 14, 10, 21, "cannot tell"))
_MORE_CASES = ((11, 1, 50, 60, "first"), (0, 7, 44, 40, "second"), (1, 7, 10, 70, "cannot tell"),
               (3, 0, 30, 40, "cannot tell"), (20, 6, 100, 90, "first"), (24, 40, 60, 55, "cannot tell"),
               (0, 5, 20, 20, "cannot tell"), (2, 14, 60, 60, "second"))


@step(points=2, shares=6)
def stronger(mine: Callable[..., str], task: PgdAndRestartsTask = PgdAndRestartsTask(), more: bool = False,
             measure: bool = True) -> Iterator[Observation]:
    """Which of two attacks breaks more, on the same images; and when one cannot tell."""
    seen = {case: mine(*_columns(case, task.generator())) for case in (_MORE_CASES if more else _CASES)}
    odd = {answer for answer in seen.values() if answer not in ("first", "second", "cannot tell")}
    if odd:
        yield wrong(f'returns {next(iter(odd))!r}: return "first", "second" or "cannot tell"')
        return
    tell = {case: answer for case, answer in seen.items() if case[4] != "cannot tell"}
    swapped = bool(tell) and all({answer, case[4]} == {"first", "second"} for case, answer in tell.items())
    shy = [case for case, answer in tell.items() if answer == "cannot tell"]
    yield need(all(answer == case[4] for case, answer in tell.items()), "names the stronger one where one can tell",
               "names the weaker one: who breaks more images that the other does not is the stronger" if swapped else
               _too_shy(shy[0]) if shy else "names the wrong one on some columns", share=2)
    bold = [case for case, answer in seen.items() if case[4] == "cannot tell" != answer]
    yield need(not bold, "and says so where one cannot", _too_bold(bold[0]) if bold else "", share=3)
    if not measure:
        yield need(True, "on columns that were not seen before", "")
        return
    one, five = _equal_cost(task.variant % len(task.variants))
    only_one, only_five = int((one & ~five).sum()), int((five & ~one).sum())
    p = mcnemar(only_one, only_five)
    right = "cannot tell" if p >= 0.05 else "first" if only_one > only_five else "second"
    answer = mine(one.clone(), five.clone())
    words = (f"{task.name}, {len(one)} images: 1 × 100 steps broke {int(one.sum())}, 5 × 20 broke {int(five.sum())}; "
             f"alone {only_one} and {only_five}, p = {p:.2g}: {answer}")
    yield need(answer == right, words, f"{words}, and it should be: {right}")


def _columns(case: tuple[int, int, int, int, str], draw: Generator) -> tuple[Tensor, Tensor]:
    """Which images two attacks broke, (N,) bool each, in some order."""
    kinds = torch.repeat_interleave(torch.arange(4), torch.tensor(case[:4]))
    kinds = kinds[torch.randperm(len(kinds), generator=draw)]
    return (kinds == 0) | (kinds == 2), (kinds == 1) | (kinds == 2)


def _too_shy(case: tuple[int, int, int, int, str]) -> str:
    p = mcnemar(case[0], case[1])
    return (f"cannot tell, it says, where {case[0]} images fall to the first alone and {case[1]} to the second alone: "
            f"p = {p:.2g}. The images are the same, so compare them one by one; what both broke says nothing")


def _too_bold(case: tuple[int, int, int, int, str]) -> str:
    p = mcnemar(case[0], case[1])
    return (f"names a winner where {case[0]} images fall to the first alone and {case[1]} to the second alone: p = "
            f"{p:.2g}, two-sided, so luck would do that as well. Below .05 one can tell")


@cache
def _equal_cost(variant: int) -> tuple[Tensor, Tensor]:
    """Which images 1 walk of 100 steps breaks, and 5 walks of 20."""
    task = PgdAndRestartsTask(variant)
    (x, y), model = task.data(), task.model()
    one, five = (given.pgd_with_restarts(model, x, y, task.eps / 2, steps, restarts, task.generator(steps))
                 for steps, restarts in ((100, 1), (20, 5)))
    return _broken(model, one, y), _broken(model, five, y)


# The picture.


def two_walks(mine: Callable[..., Tensor], eps: float = 0.15, steps: int = 8) -> tuple[nn.Module, Tensor, list[Tensor]]:
    """For the picture: the model of the two moons, one of their points (2,), and two walks from it, (steps, 2) each."""
    model = models.load_pretrained("moons-standard").eval()
    points, labels, _ = data.load("moons", "test", n=1000)
    point, y = points[910:911].reshape(1, 1, 1, 2), labels[910:911]
    paths = []
    for seed in (3, 8):
        asked = PointsSeen(nn.Sequential(nn.Flatten(), model), point)
        start = given.random_start(point, eps, torch.Generator().manual_seed(seed))
        mine(asked, point.clone(), y.clone(), eps, steps, start)
        paths.append(torch.stack(distinct(asked.seen[0])).reshape(-1, 2))
    return model, point.flatten(), paths


def broken_by_each(mine: Callable[..., Tensor], restarts: int,
                   task: PgdAndRestartsTask = PgdAndRestartsTask()) -> dict[str, Tensor]:
    """For the picture: which of so many walks broke which image, (restarts, N) bool, each walk over all images; on the
    task's network at half of its ε, and on a slope that is forked, where half of all starts lead nowhere."""
    forked = ForkedSlope(task.eps / 0.45)
    tried: dict[str, tuple[nn.Module, tuple[Tensor, Tensor], float]] = {
        task.name: (task.model(), task.data(), task.eps / 2),
        "forked slope": (forked, forked.images(200, task.generator(9)), task.eps)}
    found = {}
    for name, (model, (x, y), eps) in tried.items():
        starts = [given.random_start(x, eps, task.generator(20 + number)) for number in range(restarts)]
        found[name] = torch.stack([_broken(model, mine(model, x, y, eps, 10, start).detach(), y) for start in starts])
    return found
