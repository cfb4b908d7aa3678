"""Checks of `pgd_and_restarts` on one walk uphill."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from robustness_lib.grading.given import pgd_and_restarts as given
from robustness_lib.grading.library_calls import ATTACKING
from robustness_lib.grading.linear_models import linear_scores, slope_and_offset
from robustness_lib.grading.observations import Observation, need
from robustness_lib.grading.pgd_and_restarts.points_seen import PointsSeen
from robustness_lib.grading.pgd_and_restarts.slopes import bumpy_scores
from robustness_lib.grading.pgd_and_restarts.variants import FIRST, GIVEN, PgdAndRestartsTask
from robustness_lib.grading.pgd_and_restarts.walks import Walk, matched, walk
from robustness_lib.grading.returned_values import LEFT_FROZEN, in_box, misread, not_images, within
from robustness_lib.grading.steps import step
from robustness_lib.losses import Loss, cross_entropy, margin_loss

__all__ = ["bumpy_walk", "in_ball_and_box", "pgd"]


@step(points=6, shares=15, forbidden=(f"{GIVEN}walk.py", f"{GIVEN}starts.py", *ATTACKING))
def pgd(mine: Callable[..., Tensor], task: PgdAndRestartsTask = FIRST, n: int = 24,
        steps: int = 8) -> Iterator[Observation]:
    """The walk: from the start it was given, uphill by steps that can cross the ball, projected, and the best kept."""
    track = bumpy_walk(task, n, steps)
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
    frozen = not all(weights.requires_grad for weights in track.model.parameters())
    yield need(torch.equal(inputs[0], track.x) and torch.equal(inputs[1], track.start) and not frozen,
               "what it is given stays as it was",
               LEFT_FROZEN if frozen else "changes the tensors it was given: begin with start.clone()")
    yield in_ball_and_box(asked, found, track.x, track.eps)
    yield from _the_way(asked, track)
    yield _the_best(asked, found, track)
    grown = max(asked.graphs, default=0) - min(asked.graphs, default=0) > steps
    yield need(not grown, "each step begins with a graph of its own", "the graph of all earlier steps is kept, and "
               "memory grows with each: detach the point before the next step, x_adv = x_adv.detach()")
    yield _corner(mine, task)
    yield _on_the_task(mine, task)


def bumpy_walk(task: PgdAndRestartsTask, n: int, steps: int) -> Walk:
    """Images of 4 × 4 pixels, some of them black or white, on a model whose slope turns within the ball; a third of
    them it misreads."""
    draw, eps = task.generator(), task.eps
    model = bumpy_scores((1, 4, 4), 4, draw, bumps=0.5 / eps)
    x = (1.2 * torch.rand(n, 1, 4, 4, generator=draw) - 0.1).clamp(0, 1)
    with torch.no_grad():
        read = model.eval()(x).argmax(1)
    y = torch.where(torch.arange(n) % 3 == 0, (read + 1) % 4, read)
    return Walk(model, x, y, eps, steps, given.random_start(x, eps, draw))


def in_ball_and_box(asked: PointsSeen, found: Tensor, x: Tensor, eps: float) -> Observation:
    """Whether what was looked at and what came back, found, lies within ε of its image and in the pixel box."""
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
    paths = asked.paths()
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
    if _stops_where_broken(paths, track):
        return ("images stand still once the model misreads them: a broken image walks on, since a later point may be "
                "better, and all take all steps")
    lengths = torch.stack([path[1] - path[0] for path in paths if len(path) > 1]).abs()
    longest = lengths.max().item() * track.steps / track.eps
    if lengths.std() > 0 and abs(longest - 2.5) < 0.01:
        return "the steps have the right length and go another way: up the label's loss, from where the walk stands"
    return (f"the longest step is {longest:.3g} ε/steps, and each should be 2.5 ε/steps times the gradient's sign"
            + (": steps of ε/steps cannot cross the ball, which is 2 ε wide" if abs(longest - 1) < 0.01 else ""))


def _stops_where_broken(paths: list[list[Tensor]], track: Walk) -> bool:
    """Whether the walk is the right one, but for images that have come to where the model errs."""
    points = torch.stack(walk(track))
    with torch.no_grad():
        errs = torch.stack([margin_loss(track.model(at), track.y) > 0 for at in points])
    until = torch.where(errs.any(0), errs.int().argmax(0) + 1, len(points))
    return all(len(path) == count and (torch.stack(path) - points[:count, i]).abs().max() < 1e-5
               for i, (path, count) in enumerate(zip(paths, until.tolist(), strict=True)))


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
    def most(loss: Loss) -> Tensor:
        """Of each image the largest loss at any point that was looked at."""
        with torch.no_grad():
            return torch.stack([loss(model(torch.stack(points or [image])), label.expand(max(len(points), 1))).max()
                                for points, image, label in zip(asked.seen, track.x, track.y, strict=True)])

    with torch.no_grad():
        value, entropy = (loss(model(found), track.y) for loss in (margin_loss, cross_entropy))
    worse = int((value < most(margin_loss) - 1e-4).sum())
    last = all(not points or torch.equal(end, points[-1]) for end, points in zip(found, asked.seen, strict=True))
    instead = ("keep the best of each image, not the last" if last else
               "the best is the one with the largest margin_loss, and not with the largest cross-entropy"
               if (entropy >= most(cross_entropy) - 1e-4).all() else "decide for each image by itself")
    return need(worse == 0, "the best point of the walk comes back, image by image",
                f"on {worse} of {len(found)} images another point had a larger margin_loss than the one that comes "
                f"back: {instead}", share=2)


def _corner(mine: Callable[..., Tensor], task: PgdAndRestartsTask) -> Observation:
    """On a linear model the best point is a corner; from the opposite one there is the whole ball to cross."""
    draw, eps = task.generator(7), task.eps
    model = linear_scores((1, 4, 4), 2, draw).eval()
    x, y = 0.3 + 0.4 * torch.rand(10, 1, 4, 4, generator=draw), torch.arange(10) % 2
    slope = slope_and_offset(model)[0].detach() * (1 - 2 * y)[:, None]
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
    count = int(misread(model, found, y).sum())
    peer = int(misread(model, given.pgd(model, x, y, task.eps, 10, start), y).sum())
    words = f"{count} of {len(x)} signs broken on {task.name} at ε = {255 * task.eps:g}/255 with 10 steps"
    legal = within(found, x, task.eps) and in_box(found)
    return need(legal and count >= peer - 2, words, f"{words}, and {peer} can be" if legal else
                "the points that come back lie outside ball or box", share=2)
