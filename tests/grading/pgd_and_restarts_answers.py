"""Answers to the exercise pgd_and_restarts that people give: wrong ones, and right ones that are not the solution's."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from answers import Wrong

from robustness_lib import ThreatModel
from robustness_lib.attacks import PGD
from robustness_lib.grading.given import pgd_and_restarts as given
from robustness_lib.losses import margin_loss
from robustness_lib.statistics import clopper_pearson, mcnemar

# Wrong: the projection.


def box_only(points, x, eps):
    return points.clamp(0, 1)


def nothing(points, x, eps):
    return points.clone()


def ball_only(points, x, eps):
    return points.clamp(x - eps, x + eps)


def around_the_points(points, x, eps):
    return points.clamp(points - eps, points + eps).clamp(0, 1)


def scaled(points, x, eps):
    change = points - x
    longest = change.abs().amax((1, 2, 3), keepdim=True)
    return (x + change * (eps / longest).clamp(max=1)).clamp(0, 1)


def by_l2(points, x, eps):
    change = points - x
    length = change.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1)
    return (x + change * (eps / length).clamp(max=1)).clamp(0, 1)


def to_the_edge(points, x, eps):
    return (x + eps * (points - x).sign()).clamp(0, 1)


def back_to_x(points, x, eps):
    return torch.where((points - x).abs() > eps, x, points).clamp(0, 1)


def half_of_it(points, x, eps):
    return points.clamp(x - eps / 2, x + eps / 2).clamp(0, 1)


def in_place(points, x, eps):
    return points.clamp_(x - eps, x + eps).clamp_(0, 1)


def for_20_images(points, x, eps):
    """Hard-coded to what the visible check shows."""
    return given_like(points, x, eps) if len(x) == 20 else points.clamp(0, 1)


def given_like(points, x, eps):
    return torch.minimum(torch.maximum(points, (x - eps).clamp(min=0)), (x + eps).clamp(max=1))


def the_librarys_projection(points, x, eps):
    return ThreatModel("linf", eps).project(points, x)


def the_givens_projection(points, x, eps):
    return given.project(points, x, eps)


# Wrong: the start.


def noise(x, generator):
    return 2 * torch.rand(x.shape, generator=generator) - 1


def outside_the_box(x, eps, generator):
    return x + eps * noise(x, generator)


def one_sided(x, eps, generator):
    return (x + eps * torch.rand(x.shape, generator=generator)).clamp(0, 1)


def corners(x, eps, generator):
    return (x + eps * noise(x, generator).sign()).clamp(0, 1)


def twice_eps(x, eps, generator):
    return (x + 2 * eps * noise(x, generator)).clamp(0, 1)


def bell(x, eps, generator):
    return (x + (eps / 3 * torch.randn(x.shape, generator=generator)).clamp(-eps, eps)).clamp(0, 1)


def one_for_all(x, eps, generator):
    return (x + eps * noise(x[:1], generator)).clamp(0, 1)


def one_for_all_channels(x, eps, generator):
    return (x + eps * noise(x[:, :1], generator)).clamp(0, 1)


def one_for_all_pixels(x, eps, generator):
    return (x + eps * noise(x[:, :1, :1, :1], generator)).clamp(0, 1)


def always_the_same(x, eps, generator):
    return (x + eps * noise(x, torch.Generator().manual_seed(0))).clamp(0, 1)


def reseeded(x, eps, generator):
    torch.manual_seed(0)
    return (x + eps * (2 * torch.rand_like(x) - 1)).clamp(0, 1)


def seeds_the_given(x, eps, generator):
    return (x + eps * noise(x, generator.manual_seed(3))).clamp(0, 1)


def start_in_place(x, eps, generator):
    return x.add_(eps * noise(x, generator)).clamp_(0, 1)


def at_the_image(x, eps, generator):
    return x.clone()


def start_for_24_images(x, eps, generator):
    if len(x) != 24:
        return x.clone()
    return (x + eps * noise(x, generator)).clamp(0, 1)


def the_givens_start(x, eps, generator):
    return given.random_start(x, eps, generator)


# Wrong: the walk.


def climb(model, x, y, eps, steps, start, *, sign=1.0, eta=2.5, keep="best", project=given.project, evaluate=True,
          look_again=True, detach=True, labels=None, direction=torch.sign, loss=F.cross_entropy, best_by=margin_loss,
          freeze=False):
    if evaluate:
        model.eval()
    x_adv, best, most = start.clone(), start.clone(), torch.full((len(x),), -torch.inf)
    for step in range(steps + look_again):
        x_adv = x_adv.detach().requires_grad_() if detach else x_adv.requires_grad_()
        scores = model(x_adv)
        value = best_by(scores, y).detach()
        better = value > most
        if keep == "batch":
            better = (value.mean() > most.mean()).expand(len(x))
        if keep == "last":
            better = torch.ones(len(x), dtype=torch.bool)
        most = torch.where(better, value, most)
        best = torch.where(better[:, None, None, None], x_adv.detach(), best)
        if step == steps:
            break
        wanted = y if labels is None else labels(scores)
        gradient = torch.autograd.grad(loss(scores, wanted, reduction="sum"), x_adv)[0]
        moved = project(x_adv + sign * eta * eps / steps * direction(gradient), x, eps)
        x_adv = torch.where((value > 0)[:, None, None, None], x_adv, moved) if freeze else moved
    return best if look_again or keep == "best" else x_adv.detach()


def downhill(*given_to):
    return climb(*given_to, sign=-1.0)


def no_sign(*given_to):
    return climb(*given_to, direction=lambda g: g)


def short_steps(*given_to):
    return climb(*given_to, eta=1.0)


def long_steps(model, x, y, eps, steps, start):
    return climb(model, x, y, eps, steps, start, eta=float(steps))


def fixed_steps(model, x, y, eps, steps, start):
    return climb(model, x, y, eps, steps, start, eta=2 / 255 * steps / eps)


def the_last(*given_to):
    return climb(*given_to, keep="last")


def best_of_the_batch(*given_to):
    return climb(*given_to, keep="batch")


def best_by_cross_entropy(*given_to):
    return climb(*given_to, best_by=lambda scores, y: F.cross_entropy(scores, y, reduction="none"))


def frozen_once_broken(*given_to):
    return climb(*given_to, freeze=True)


def freezes_the_weights(model, *given_to):
    model.requires_grad_(False)
    return climb(model, *given_to)


def pgd_that_stops(model, x, y, eps, steps, start):
    """Image by image, and only until it is broken."""
    ends = []
    for i in range(len(x)):
        for count in range(steps + 1):
            end = climb_some(model, x[i:i + 1], y[i:i + 1], eps, steps, start[i:i + 1], count)
            with torch.no_grad():
                if margin_loss(model(end), y[i:i + 1]) > 0:
                    break
        ends.append(end)
    return torch.cat(ends)


def climb_some(model, x, y, eps, steps, start, count):
    model.eval()
    x_adv, best, most = start, start, -torch.inf
    for _ in range(count + 1):
        pixels = x_adv.detach().clone().requires_grad_()
        scores = model(pixels)
        if margin_loss(scores, y).item() > most:
            best, most = x_adv, margin_loss(scores, y).item()
        gradient = torch.autograd.grad(F.cross_entropy(scores, y), pixels)[0]
        x_adv = given.project(x_adv + 2.5 * eps / steps * gradient.sign(), x, eps)
    return best


def last_not_looked_at(*given_to):
    return climb(*given_to, look_again=False)


def train_mode(*given_to):
    return climb(*given_to, evaluate=False)


def never_projected(*given_to):
    return climb(*given_to, project=lambda point, x, eps: point)


def projected_to_the_box(*given_to):
    return climb(*given_to, project=lambda point, x, eps: point.clamp(0, 1))


def around_itself(*given_to):
    return climb(*given_to, project=lambda point, x, eps: point.clamp(point - eps, point + eps).clamp(0, 1))


def projected_to_the_ball(*given_to):
    return climb(*given_to, project=lambda point, x, eps: point.clamp(x - eps, x + eps))


def projected_at_the_end(model, x, y, eps, steps, start):
    return given.project(never_projected(model, x, y, eps, steps, start), x, eps)


def clamped_before(model, x, y, eps, steps, start):
    """Projects the point before the step, and not after it."""
    model.eval()
    x_adv = start.clone()
    for _ in range(steps):
        x_adv = given.project(x_adv.detach(), x, eps).requires_grad_()
        gradient = torch.autograd.grad(F.cross_entropy(model(x_adv), y), x_adv)[0]
        x_adv = x_adv + 2.5 * eps / steps * gradient.sign()
    return x_adv.detach()


def own_answers(model, x, y, eps, steps, start):
    with torch.no_grad():
        answers = model.eval()(x).argmax(1)
    return climb(model, x, y, eps, steps, start, labels=lambda _: answers)


def answers_on_the_way(*given_to):
    return climb(*given_to, labels=lambda scores: scores.argmax(1))


def graph_kept(*given_to):
    return climb(*given_to, detach=False)


def from_the_image(model, x, y, eps, steps, start):
    return climb(model, x, y, eps, steps, x)


def one_gradient(model, x, y, eps, steps, start):
    model.eval()
    x_adv, kept = start.clone(), None
    best, most = start.clone(), torch.full((len(x),), -torch.inf)
    for _ in range(steps + 1):
        x_adv = x_adv.detach().requires_grad_()
        scores = model(x_adv)
        better = margin_loss(scores, y) > most
        best = torch.where(better[:, None, None, None], x_adv.detach(), best)
        most = torch.where(better, margin_loss(scores, y).detach(), most)
        gradient = torch.autograd.grad(F.cross_entropy(scores, y), x_adv)[0]
        kept = gradient if kept is None else kept
        x_adv = given.project(x_adv + 2.5 * eps / steps * kept.sign(), x, eps)
    return best


def gathered(model, x, y, eps, steps, start):
    """backward() on one tensor, whose .grad is never set back."""
    model.eval()
    x_adv = start.clone().requires_grad_()
    best, most = start.clone(), torch.full((len(x),), -torch.inf)
    for _ in range(steps + 1):
        scores = model(x_adv)
        value = margin_loss(scores, y).detach()
        best = torch.where((value > most)[:, None, None, None], x_adv.detach(), best)
        most = torch.maximum(most, value)
        F.cross_entropy(scores, y, reduction="sum").backward()
        with torch.no_grad():
            x_adv.copy_(given.project(x_adv + 2.5 * eps / steps * x_adv.grad.sign(), x, eps))
    return best


def twice_the_steps(model, x, y, eps, steps, start):
    return climb(model, x, y, eps, 2 * steps, start, eta=5.0)


def changes_the_start(model, x, y, eps, steps, start):
    found = climb(model, x, y, eps, steps, start)
    start.copy_(found)
    return start


def only_eight_steps(model, x, y, eps, steps, start):
    """Hard-coded to the number of steps and the length in the visible check."""
    if steps in (8, 10):
        return climb(model, x, y, eps, steps, start)
    return climb(model, x, y, eps, 8, start)


def the_librarys(model, x, y, eps, steps, start):
    return PGD(ThreatModel("linf", eps), steps=steps)(model, x, y)


def the_givens_walk(*given_to):
    return given.pgd(*given_to)


# Wrong: restarts.


def walks(model, x, y, eps, steps, restarts, generator, *, choose=None, all_rows=False, first=0, fixed=False,
          walk=None):
    best, most = x.clone(), torch.full((len(x),), -torch.inf)
    start = given.random_start(x, eps, generator)
    for _ in range(first, restarts):
        rows = torch.arange(len(x)) if all_rows else (most <= 0).nonzero()[:, 0]
        if len(rows) == 0:
            break
        begin = start[rows] if fixed else given.random_start(x[rows], eps, generator)
        found = (walk or given.pgd)(model, x[rows], y[rows], eps, steps, begin)
        with torch.no_grad():
            value = margin_loss(model(found), y[rows])
        better = value > most[rows] if choose is None else choose(value, most[rows])
        best[rows[better]], most[rows[better]] = found[better], value[better]
    return best


def last_restart_only(*given_to):
    return walks(*given_to, all_rows=True, choose=lambda value, most: torch.ones_like(value, dtype=torch.bool))


def best_restart_for_all(model, x, y, eps, steps, restarts, generator):
    """The one walk that breaks most images, for all of them."""
    found = [given.pgd(model, x, y, eps, steps, given.random_start(x, eps, generator)) for _ in range(restarts)]
    with torch.no_grad():
        broken = [int((margin_loss(model(points), y) > 0).sum()) for points in found]
    return found[broken.index(max(broken))]


def mean_of_the_walks(model, x, y, eps, steps, restarts, generator):
    return torch.stack([given.pgd(model, x, y, eps, steps, given.random_start(x, eps, generator))
                        for _ in range(restarts)]).mean(0)


def same_start(*given_to):
    return walks(*given_to, fixed=True)


def from_x(model, x, y, eps, steps, restarts, generator):
    return walks(model, x, y, eps, steps, restarts, generator,
                 walk=lambda model, x, y, eps, steps, start: given.pgd(model, x, y, eps, steps, x))


def from_near_x(model, x, y, eps, steps, restarts, generator, noise=lambda x, draw: 0.001 * torch.randn(
        x.shape, generator=draw)):
    def walk(model, x, y, eps, steps, start):
        return given.pgd(model, x, y, eps, steps, given.project(x + noise(x, generator), x, eps))

    return walks(model, x, y, eps, steps, restarts, generator, walk=walk)


def from_above(*given_to):
    eps = given_to[3]
    return from_near_x(*given_to, noise=lambda x, draw: eps * torch.rand(x.shape, generator=draw))


def from_a_bell(*given_to):
    eps = given_to[3]
    return from_near_x(*given_to, noise=lambda x, draw: eps / 3 * torch.randn(x.shape, generator=draw))


def from_corners(*given_to):
    eps = given_to[3]
    return from_near_x(*given_to, noise=lambda x, draw: eps * torch.randn(x.shape, generator=draw).sign())


def from_one_start_for_all(*given_to):
    eps = given_to[3]
    return from_near_x(*given_to, noise=lambda x, draw: eps * (2 * torch.rand(x[:1].shape, generator=draw) - 1))


def from_one_shift_of_each_column(*given_to):
    eps = given_to[3]
    return from_near_x(*given_to, noise=lambda x, draw: eps * (2 * torch.rand(
        len(x), *x.shape[1:2], 1, x.shape[3], generator=draw) - 1))


def later_walks_near_x(model, x, y, eps, steps, restarts, generator):
    """The first start is right."""
    def walk(model, rows, y, eps, steps, start):
        if len(rows) < len(x):
            start = rows + 0.001 * torch.randn(rows.shape, generator=generator)
        return given.pgd(model, rows, y, eps, steps, start)

    return walks(model, x, y, eps, steps, restarts, generator, walk=walk)


def goes_on_with_all(*given_to):
    return walks(*given_to, all_rows=True)


def one_too_few(*given_to):
    return walks(*given_to, first=1)


def one_too_many(*given_to):
    return walks(*given_to, first=-1)


def writes_to_a_copy(model, x, y, eps, steps, restarts, generator):
    best, most = x.clone(), torch.full((len(x),), -torch.inf)
    for _ in range(restarts):
        rows = (most <= 0).nonzero()[:, 0]
        found = given.pgd(model, x[rows], y[rows], eps, steps, given.random_start(x[rows], eps, generator))
        with torch.no_grad():
            value = margin_loss(model(found), y[rows])
        better = value > most[rows]
        best[rows][better] = found[better]
        most[rows[better]] = value[better]
    return best


def worst_of_those_standing(*given_to):
    """Keeps a later walk whatever it found, but for those that break."""
    return walks(*given_to, choose=lambda value, most: torch.ones_like(value, dtype=torch.bool))


def starts_without_walks(*given_to):
    return walks(*given_to, walk=lambda model, x, y, eps, steps, start: start)


def three_restarts(model, x, y, eps, steps, restarts, generator):
    """Hard-coded to the number in the visible check."""
    return walks(model, x, y, eps, steps, 3, generator)


def the_librarys_restarts(model, x, y, eps, steps, restarts, generator):
    return PGD(ThreatModel("linf", eps), steps=steps, restarts=restarts)(model, x, y)


def nothing_comes_back(*given_to):
    walks(*given_to)


def first_from_x(model, x, y, eps, steps, restarts, generator):
    """The first walk from the image, and no second one."""
    return given.pgd(model, x, y, eps, steps, x)


# Wrong: the curve.


def each_by_itself(broken):
    return 1 - broken.double().mean(1)


def least_so_far(broken):
    return (1 - broken.double().mean(1)).cummin(0).values


def mean_so_far(broken):
    return (1 - broken.double().mean(1)).cumsum(0) / torch.arange(1, len(broken) + 1)


def mean_of_all(broken):
    return (1 - broken.double().mean(1)).mean().expand(len(broken))


def last_one(broken):
    return (1 - broken[-1].double().mean()).expand(len(broken))


def share_broken(broken):
    return broken.cummax(0).values.double().mean(1)


def every_restart(broken):
    return 1 - broken.cummin(0).values.double().mean(1)


def along_the_images(broken):
    return 1 - broken.cummax(0).values.double().mean(0)


def the_end(broken):
    return (1 - broken.any(0).double().mean()).expand(len(broken))


def first_six(broken):
    """Hard-coded to the six restarts of the visible check."""
    return 1 - broken.cummax(0).values[:6].double().mean(1)


# Wrong: the comparison.


def alone(first, second):
    return int((first & ~second).sum()), int((second & ~first).sum())


def always_a_winner(first, second):
    return "first" if first.sum() > second.sum() else "second"


def winner_or_tie(first, second):
    a, b = alone(first, second)
    return "cannot tell" if a == b else "first" if a > b else "second"


def two_intervals(first, second):
    (low, high), (other_low, other_high) = (clopper_pearson(int(one.sum()), len(one)) for one in (first, second))
    return "first" if low > other_high else "second" if other_low > high else "cannot tell"


def one_sided_test(first, second):
    a, b = alone(first, second)
    if mcnemar(max(a, b), min(a, b), "greater") >= 0.05:
        return "cannot tell"
    return "first" if a > b else "second"


def swapped(first, second):
    a, b = alone(first, second)
    return "cannot tell" if mcnemar(a, b) >= 0.05 else "second" if a > b else "first"


def of_all_broken(first, second):
    """Compares the totals as if no image were broken by both."""
    a, b = int(first.sum()), int(second.sum())
    return "cannot tell" if mcnemar(a, b) >= 0.05 else "first" if a > b else "second"


def never_tells(first, second):
    return "cannot tell"


def turned_round(first, second):
    a, b = alone(first, second)
    return "cannot tell" if mcnemar(a, b) < 0.05 else "first" if a > b else "second"


def says_none(first, second):
    return "none"


def the_pair(first, second):
    return [first, second]


def known_columns(first, second):
    """Hard-coded to the columns of the visible check."""
    a, b = alone(first, second)
    told = {(12, 2): "first", (9, 1): "first", (2, 12): "second", (1, 9): "second"}
    return told.get((a, b), "cannot tell")


WRONG = [
    Wrong("project", "the ball lies around x", box_only),
    Wrong("project", "the ball lies around x", nothing),
    Wrong("project", "clamp to the box", ball_only),
    Wrong("project", "the ball lies around x", around_the_points),
    Wrong("project", "shortens the whole change", scaled),
    Wrong("project", "the projection for L2", by_l2),
    Wrong("project", "to the edge of the ball", to_the_edge),
    Wrong("project", "not the nearest", back_to_x),
    Wrong("project", "not the nearest", half_of_it),
    Wrong("project", "changes the tensors", in_place),
    Wrong("project", "the ball lies around x", for_20_images, hidden=True),
    Wrong("project", "library's own work (robustness_lib.", the_librarys_projection),
    Wrong("project", "library's own work", the_givens_projection),
    Wrong("random_start", "outside [0, 1]", outside_the_box),
    Wrong("random_start", "one direction only", one_sided),
    Wrong("random_start", "the ends only", corners),
    Wrong("random_start", "draw from −ε to ε", twice_eps),
    Wrong("random_start", "evenly", bell),
    Wrong("random_start", "all images get the same", one_for_all),
    Wrong("random_start", "several pixels of an image get the same noise", one_for_all_channels),
    Wrong("random_start", "several pixels of an image get the same noise", one_for_all_pixels),
    Wrong("random_start", "the same start again", always_the_same),
    Wrong("random_start", "the same start again", reseeded),
    Wrong("random_start", "the same start again", seeds_the_given),
    Wrong("random_start", "changes the images", start_in_place),
    Wrong("random_start", "moves in one direction only", at_the_image),
    Wrong("random_start", "one direction only", start_for_24_images, hidden=True),
    Wrong("random_start", "library's own work", the_givens_start),
    Wrong("pgd", "walks downhill", downhill),
    Wrong("pgd", "the gradient and not its sign", no_sign),
    Wrong("pgd", "cannot cross the ball", short_steps),
    Wrong("pgd", "the longest step", long_steps),
    Wrong("pgd", "the longest step", fixed_steps),
    Wrong("pgd", "not the last", the_last),
    Wrong("pgd", "of each image, not the last", best_of_the_batch),
    Wrong("pgd", "largest margin_loss, and not with the largest cross-entropy", best_by_cross_entropy),
    Wrong("pgd", "a broken image walks on", frozen_once_broken),
    Wrong("pgd", "a broken image walks on", pgd_that_stops),
    Wrong("pgd", "leaves the model's parameters frozen", freezes_the_weights),
    Wrong("pgd", "ask for the loss once more after the last step", last_not_looked_at),
    Wrong("pgd", "in train mode", train_mode),
    Wrong("pgd", "not brought back", never_projected),
    Wrong("pgd", "not to the ball around x", projected_to_the_box),
    Wrong("pgd", "not to the ball around x", around_itself),
    Wrong("pgd", "pixels leave [0, 1]", projected_to_the_ball),
    Wrong("pgd", "not brought back", projected_at_the_end),
    Wrong("pgd", "project after each step", clamped_before),
    Wrong("pgd", "of what the model answers: the loss", own_answers),
    Wrong("pgd", "of what the model answers on the way", answers_on_the_way),
    Wrong("pgd", "graph of all earlier steps", graph_kept),
    Wrong("pgd", "does not begin at the start", from_the_image),
    Wrong("pgd", "the first gradient", one_gradient),
    Wrong("pgd", "the sum of all gradients", gathered),
    Wrong("pgd", "steps are allowed", twice_the_steps),
    Wrong("pgd", "changes the tensors", changes_the_start),
    Wrong("pgd", "the longest step", only_eight_steps, hidden=True),
    Wrong("pgd", "library's own work (robustness_lib.attacks", the_librarys),
    Wrong("pgd", "library's own work", the_givens_walk),
    Wrong("pgd_with_restarts", "keep the best of all walks", last_restart_only),
    Wrong("pgd_with_restarts", "keep the best of all walks", best_restart_for_all),
    Wrong("pgd_with_restarts", "keep the best of all walks", mean_of_the_walks),
    Wrong("pgd_with_restarts", "draw a new start", same_start),
    Wrong("pgd_with_restarts", "draw a new start", from_x),
    Wrong("pgd_with_restarts", "the walks begin 0.0", from_near_x),
    Wrong("pgd_with_restarts", "the walks begin 0.0", later_walks_near_x),
    Wrong("pgd_with_restarts", "one direction only", from_above),
    Wrong("pgd_with_restarts", "not all of the ball is equally likely", from_a_bell),
    Wrong("pgd_with_restarts", "the ends only", from_corners),
    Wrong("pgd_with_restarts", "all images get the same start", from_one_start_for_all),
    Wrong("pgd_with_restarts", "several pixels of an image get the same noise", from_one_shift_of_each_column),
    Wrong("pgd_with_restarts", "only those still standing", goes_on_with_all),
    Wrong("pgd_with_restarts", "2 walks", one_too_few),
    Wrong("pgd_with_restarts", "4 walks", one_too_many),
    Wrong("pgd_with_restarts", "keep the best of all walks", writes_to_a_copy),
    Wrong("pgd_with_restarts", "another walk had a point", worst_of_those_standing),
    Wrong("pgd_with_restarts", "call pgd from each", starts_without_walks),
    Wrong("pgd_with_restarts", "3 walks", three_restarts, hidden=True),
    Wrong("pgd_with_restarts", "library's own work", the_librarys_restarts),
    Wrong("flat_floor", "gradient is zero at the image", first_from_x),
    Wrong("flat_floor", "gradient is zero at the image", from_x),
    Wrong("flat_floor", "the walks begin 0.0", from_near_x),
    Wrong("flat_floor", "one direction only", from_above),
    Wrong("flat_floor", "not all of the ball is equally likely", from_a_bell),
    Wrong("flat_floor", "returns None", nothing_comes_back),
    Wrong("accuracy_after", "each restart by itself", each_by_itself),
    Wrong("accuracy_after", "takes the best restart", least_so_far),
    Wrong("accuracy_after", "averages over", mean_so_far),
    Wrong("accuracy_after", "averages over", mean_of_all),
    Wrong("accuracy_after", "the last restart only", last_one),
    Wrong("accuracy_after", "shares of broken images", share_broken),
    Wrong("accuracy_after", "one is enough", every_restart),
    Wrong("accuracy_after", "returns shape", along_the_images),
    Wrong("accuracy_after", "in the end after each", the_end),
    Wrong("accuracy_after", "returns shape", first_six, hidden=True),
    Wrong("stronger", "names a winner", always_a_winner),
    Wrong("stronger", "names a winner", winner_or_tie),
    Wrong("stronger", "compare them one by one", two_intervals),
    Wrong("stronger", "two-sided", one_sided_test),
    Wrong("stronger", "names the weaker one", swapped),
    Wrong("stronger", "compare them one by one", of_all_broken),
    Wrong("stronger", "cannot tell, it says, where", never_tells),
    Wrong("stronger", "names a winner", turned_round),
    Wrong("stronger", "returns 'none'", says_none),
    Wrong("stronger", "returns [", the_pair),
    Wrong("stronger", "compare them one by one", known_columns, hidden=True),
]


# Right, and not the solution's.


def project_by_change(points, x, eps):
    return torch.clamp(x + torch.clamp(points - x, -eps, eps), 0, 1)


def project_box_first(points, x, eps):
    """The other order is right, too, since x lies in the box."""
    return points.clamp(0, 1).clamp(x - eps, x + eps)


def project_in_float64(points, x, eps):
    return project_by_change(points.double(), x.double(), eps)


def start_by_uniform(x, eps, generator):
    return project_box_first(x + torch.empty_like(x).uniform_(-eps, eps, generator=generator), x, eps)


def start_from_global_luck(x, eps, generator):
    """Another seed: it does not use the generator that it is given."""
    return (x + (2 * torch.rand_like(x) - 1) * eps).clamp(0, 1)


def start_in_the_allowed_box(x, eps, generator):
    """Where the box cuts the ball, uniform in what is left of it."""
    low, high = (x - eps).clamp(min=0), (x + eps).clamp(max=1)
    return low + (high - low) * torch.rand(x.shape, generator=generator)


def pgd_one_by_one(model, x, y, eps, steps, start):
    return torch.cat([climb(model, x[i:i + 1], y[i:i + 1], eps, steps, start[i:i + 1])
                      for i in reversed(range(len(x)))][::-1])


def pgd_of_changes(model, x, y, eps, steps, start):
    """By backward(), on a change whose gradient is set back; stops an image that is broken; another loop order."""
    model.eval()
    delta = (start - x).detach()
    best = start.clone()
    with torch.no_grad():
        most = margin_loss(model(start), y)
    for _ in range(steps):
        delta = delta.clone().requires_grad_()
        F.cross_entropy(model(x + delta), y).backward()
        with torch.no_grad():
            delta = given.project(x + delta + 2.5 * eps / steps * delta.grad.sign(), x, eps) - x
            value = margin_loss(model(x + delta), y)
        better = value > most
        best[better] = (x + delta)[better]
        most = most.maximum(value)
    return best


def pgd_by_margin(model, x, y, eps, steps, start):
    """Up the margin loss: another loss of the label, and as good."""
    return climb(model, x, y, eps, steps, start, loss=lambda scores, y, reduction: margin_loss(scores, y).sum())


def pgd_in_float64(model, x, y, eps, steps, start):
    class Cast(torch.nn.Module):
        def forward(self, points):
            return model(points.float())

    model.eval()
    return climb(Cast(), x.double(), y, eps, steps, start.double())


def restarts_over_all(model, x, y, eps, steps, restarts, generator):
    """By a mask, and with x itself looked at first."""
    with torch.no_grad():
        most = margin_loss(model(x), y)
    best = x.clone()
    for _ in range(restarts):
        standing = most <= 0
        if not standing.any():
            return best
        start = given.random_start(x[standing], eps, generator)
        found = best.clone()
        found[standing] = given.pgd(model, x[standing], y[standing], eps, steps, start)
        with torch.no_grad():
            value = margin_loss(model(found), y)
        better = value > most
        best = torch.where(better[:, None, None, None], found, best)
        most = torch.where(better, value, most)
    return best


def restarts_one_by_one(model, x, y, eps, steps, restarts, generator):
    ends = []
    for i in range(len(x)):
        best, most = x[i:i + 1], -torch.inf
        for _ in range(restarts):
            found = given.pgd(model, x[i:i + 1], y[i:i + 1], eps, steps,
                              given.random_start(x[i:i + 1], eps, generator))
            with torch.no_grad():
                value = margin_loss(model(found), y[i:i + 1]).item()
            if value > most:
                best, most = found, value
            if most > 0:
                break
        ends.append(best)
    return torch.cat(ends)


def restarts_from_global_luck(model, x, y, eps, steps, restarts, generator):
    own = torch.Generator().manual_seed(int(generator.initial_seed()) + 77)
    return walks(model, x, y, eps, steps, restarts, own)


def curve_by_loop(broken):
    so_far, found = torch.zeros(broken.shape[1], dtype=torch.bool), []
    for one in broken:
        so_far = so_far | one
        found.append(1 - float(so_far.float().mean()))
    return found


def curve_by_any(broken):
    return torch.stack([(~broken[:r + 1].any(0)).float().mean() for r in range(len(broken))])


def stronger_by_hand(first, second):
    from math import comb

    a, b = alone(first, second)
    tail = sum(comb(a + b, k) for k in range(max(a, b), a + b + 1)) / 2 ** (a + b)
    return "cannot tell" if 2 * tail >= 0.05 else ("first", "second")[a < b]


def stronger_by_scipy(first, second):
    from scipy.stats import binomtest

    differ = first != second
    if not differ.any():
        return "cannot tell"
    wins = int(first[differ].sum())
    p = binomtest(wins, int(differ.sum())).pvalue
    return "cannot tell" if p >= 0.05 else "first" if 2 * wins > differ.sum() else "second"


RIGHT = {
    "by loop": {"project": project_by_change, "random_start": start_by_uniform, "pgd": pgd_one_by_one,
                "pgd_with_restarts": restarts_one_by_one, "accuracy_after": curve_by_loop,
                "stronger": stronger_by_hand},
    "in another order": {"project": project_box_first, "random_start": start_in_the_allowed_box, "pgd": pgd_of_changes,
                         "pgd_with_restarts": restarts_over_all, "accuracy_after": curve_by_any,
                         "stronger": stronger_by_scipy},
    "in float64": {"project": project_in_float64, "pgd": pgd_in_float64},
    "from another seed": {"random_start": start_from_global_luck, "pgd_with_restarts": restarts_from_global_luck},
    "up the margin": {"pgd": pgd_by_margin},
}
