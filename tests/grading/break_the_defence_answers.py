"""Answers to the exercise break_the_defence that people give: wrong ones, and right ones unlike the solution's."""

from __future__ import annotations

import torch
from answers import Wrong
from torch import nn

from robustness_lib import ThreatModel
from robustness_lib.attacks import PGD
from robustness_lib.attacks.adaptive import BPDA, EOT
from robustness_lib.grading.given import break_the_defence as given
from robustness_lib.losses import margin_loss


def votes(defense, x, y, draws):
    with torch.no_grad():
        return torch.stack([defense(x).argmax(1) == y for _ in range(draws)]).double().mean(0)


# Wrong: the count.


def one_lucky_answer(defense, x, y, draws):
    return votes(defense, x, y, draws) > 0


def one_unlucky_answer(defense, x, y, draws):
    return votes(defense, x, y, draws) == 1


def asked_once(defense, x, y, draws):
    return votes(defense, x, y, 1) > 0.5


def the_last_answer(defense, x, y, draws):
    for _ in range(draws):
        right = defense(x).argmax(1) == y
    return right


def one_answer_many_times(defense, x, y, draws):
    scores = torch.stack([defense(x)] * draws)
    return (scores.argmax(2) == y).double().mean(0) > 0.5


def mean_scores(defense, x, y, draws):
    with torch.no_grad():
        return torch.stack([defense(x) for _ in range(draws)]).mean(0).argmax(1) == y


def broken_for_standing(defense, x, y, draws):
    return votes(defense, x, y, draws) < 0.5


def with_a_seed(defense, x, y, draws):
    torch.manual_seed(0)
    return votes(defense, x, y, draws) > 0.5


def a_share(defense, x, y, draws):
    return votes(defense, x, y, draws)


def as_numpy(defense, x, y, draws):
    return (votes(defense, x, y, draws) > 0.5).numpy()


def all_together(defense, x, y, draws):
    return votes(defense, x, y, draws).mean() > 0.5


def the_given_count(defense, x, y, draws):
    return given.stands(defense, x, y, draws)


def for_nine_draws(defense, x, y, draws):
    """Hard-coded to what the visible check shows."""
    return votes(defense, x, y, 9) > 0.5


# Wrong: straight through.


def undefended_forward(transform, x):
    return transform(x) + (x - transform(x)).detach()


def identity_only(transform, x):
    return x


def by_autograd(transform, x):
    return transform(x)


def both_slopes(transform, x):
    return transform(x) + x - x.detach()


def detached(transform, x):
    return transform(x).detach()


def in_place(transform, x):
    x.data = transform(x).detach()
    return x


def twice_the_change(transform, x):
    return x + 2 * (transform(x) - x).detach()


def rounds_to_eight(transform, x):
    """Hard-coded to what the visible check shows."""
    return x + ((7 * x).round() / 7 - x).detach()


# Wrong: the mean of the gradients.


def gradients(answer, x, y, draws, loss=margin_loss, total=torch.sum):
    found = []
    for _ in range(draws):
        point = x.detach().requires_grad_()
        found.append(torch.autograd.grad(total(loss(answer(point), y)), point)[0])
    return torch.stack(found)


def a_single_draw(answer, x, y, draws):
    return gradients(answer, x, y, 1)[0]


def one_draw_many_times(answer, x, y, draws):
    return gradients(answer, x, y, 1).expand(draws, *x.shape).mean(0)


def the_sum(answer, x, y, draws):
    return gradients(answer, x, y, draws).sum(0)


def mean_over_the_batch(answer, x, y, draws):
    return gradients(answer, x, y, draws, total=torch.mean).mean(0)


def downwards(answer, x, y, draws):
    return -gradients(answer, x, y, draws).mean(0)


def of_mean_scores(answer, x, y, draws, sign=1):
    point = x.detach().requires_grad_()
    loss = sign * margin_loss(torch.stack([answer(point) for _ in range(draws)]).mean(0), y).sum()
    return torch.autograd.grad(loss, point)[0]


def of_mean_scores_downwards(*given_to):
    return of_mean_scores(*given_to, sign=-1)


def mean_of_signs(*given_to):
    return gradients(*given_to).sign().mean(0)


def the_last_draw(*given_to):
    return gradients(*given_to)[-1]


def already_the_sign(*given_to):
    return gradients(*given_to).mean(0).sign()


def seeded(answer, x, y, draws):
    torch.manual_seed(0)
    return gradients(answer, x, y, draws).mean(0)


def left_on_the_images(answer, x, y, draws):
    x.requires_grad_()
    for _ in range(draws):
        margin_loss(answer(x), y).sum().backward()
    return x.grad / draws


def cross_entropy(answer, x, y, draws):
    return gradients(answer, x, y, draws, loss=lambda z, y: nn.functional.cross_entropy(z, y, reduction="none")).mean(0)


def six_draws(answer, x, y, draws):
    """Hard-coded to what the visible check shows."""
    return gradients(answer, x, y, 6).mean(0)


# Wrong: the attack.


def climb(defense, x, y, eps, steps, draws, *, ask=None, sign=1, eta=6, project=True, box=True, seed=None, around=None,
          stop=False, random_start=True, gradient=given.eot_gradient):
    def through(images):
        return defense.model(given.straight_through(defense.transform, images))

    ask = ask or through
    x_adv = (x + eps * (2 * torch.rand_like(x) - 1)).clamp(0, 1) if random_start else x.clone()
    for _ in range(steps):
        if seed is not None:
            torch.manual_seed(seed)
        rows = torch.arange(len(x))
        if stop:
            with torch.no_grad():
                rows = (defense(x_adv).argmax(1) == y).nonzero()[:, 0]
        if not len(rows):
            break
        slope = gradient(ask, x_adv[rows], y[rows], draws)
        moved = x_adv[rows] + sign * eps / eta * slope.sign()
        if project:
            centre = (x if around is None else x_adv)[rows]
            moved = centre + (moved - centre).clamp(-eps, eps)
        x_adv[rows] = moved.clamp(0, 1) if box else moved
    return x_adv


def on_the_bare_net(defense, x, y, eps, steps, draws):
    return climb(defense, x, y, eps, steps, draws, ask=defense.model.model)


def without_the_dice(defense, x, y, eps, steps, draws):
    """BPDA through the rounding, and the network behind it."""
    return climb(defense, x, y, eps, steps, draws,
                 ask=lambda images: defense.model.model(given.straight_through(defense.transform, images)))


def without_the_rounding(defense, x, y, eps, steps, draws):
    """EOT through the random size and place alone."""
    return climb(defense, x, y, eps, steps, draws, ask=defense.model)


def no_bpda(defense, x, y, eps, steps, draws):
    return climb(defense, x, y, eps, steps, draws, ask=defense)


def no_bpda_from_the_image(defense, x, y, eps, steps, draws):
    return climb(defense, x, y, eps, steps, draws, ask=defense, random_start=False)


def one_draw_a_step(defense, x, y, eps, steps, draws):
    return climb(defense, x, y, eps, steps, 1)


def one_draw_with_a_seed(defense, x, y, eps, steps, draws):
    return climb(defense, x, y, eps, steps, 1, seed=0)


def the_same_draws(*given_to):
    return climb(*given_to, seed=0)


def going_down(*given_to):
    return climb(*given_to, sign=-1)


def no_projection(*given_to):
    return climb(*given_to, project=False)


def projected_around_itself(*given_to):
    return climb(*given_to, around="x_adv")


def out_of_the_box(*given_to):
    return climb(*given_to, box=False)


def tiny_steps(*given_to):
    return climb(*given_to, eta=600)


def stops_at_a_lucky_draw(*given_to):
    return climb(*given_to, stop=True)


def twice_epsilon(defense, x, y, eps, steps, draws):
    return climb(defense, x, y, 2 * eps, steps, draws)


def only_noise(defense, x, y, eps, steps, draws):
    return (x + eps * (2 * torch.rand_like(x) - 1)).clamp(0, 1)


def the_librarys(defense, x, y, eps, steps, draws):
    attack = PGD(ThreatModel("linf", eps), steps=steps, loss="margin", stop="never")
    return attack.run(EOT(BPDA(defense), draws), x, y).x_adv


# Wrong: the bars.


def bars(defense, x, y, unaware, adaptive, draws, *, worst=True, of_right=False):
    clean, first, second = (given.stands(defense, images, y, draws) for images in (x, unaware, adaptive))
    rows = torch.stack([clean, clean & first, clean & first & second]) if worst else torch.stack([clean, first, second])
    shares = rows.double().mean(1)
    return shares / shares[0] if of_right else shares


def each_attack_alone(*given_to):
    return bars(*given_to, worst=False)


def among_the_right(*given_to):
    return bars(*given_to, of_right=True)


def right_clean_aside(*given_to):
    shares = bars(*given_to)
    return torch.cat([shares[:1], shares[1:] / shares[0]])


def defense_switched_off(defense, x, y, unaware, adaptive, draws):
    return bars(defense.model.model, x, y, unaware, adaptive, draws)


def a_single_answer(defense, x, y, unaware, adaptive, draws):
    return bars(defense, x, y, unaware, adaptive, 1)


def bars_turned_round(*given_to):
    return 1 - bars(*given_to)


def what_the_picture_showed(*given_to):
    return torch.tensor([0.98, 0.83, 0.03])


WRONG = [
    Wrong("stands", "one lucky draw", one_lucky_answer),
    Wrong("stands", "one unlucky draw", one_unlucky_answer),
    Wrong("stands", "asks 1 times", asked_once),
    Wrong("stands", "the last answer decides", the_last_answer),
    Wrong("stands", "asks 1 times", one_answer_many_times),
    Wrong("stands", "mean of the scores", mean_scores),
    Wrong("stands", "where an image is broken", broken_for_standing),
    Wrong("stands", "a seed that is set inside", with_a_seed),
    Wrong("stands", "return bool", a_share),
    Wrong("stands", "returns shape (): one truth value for each image", all_together),
    Wrong("stands", "returns ndarray", as_numpy),
    Wrong("stands", "library's own work", the_given_count),
    Wrong("stands", "asks 9 times about an image, and 15", for_nine_draws, hidden=True),
    Wrong("straight_through", "hands on the images without the defense", undefended_forward),
    Wrong("straight_through", "hands on the images without the defense", identity_only),
    Wrong("straight_through", "through a rounding is zero", by_autograd),
    Wrong("straight_through", "adds the slope of a transform", both_slopes),
    Wrong("straight_through", "no gradient goes back", detached),
    Wrong("straight_through", "changes the images", in_place),
    Wrong("straight_through", "not the values of transform(x)", twice_the_change),
    Wrong("straight_through", "a transform with a slope of its own", rounds_to_eight),
    Wrong("straight_through", "library's own work", given.straight_through),
    Wrong("eot_gradient", "asks 1 times", a_single_draw),
    Wrong("eot_gradient", "asks 1 times", one_draw_many_times),
    Wrong("eot_gradient", "divide by the number of draws", the_sum),
    Wrong("eot_gradient", "divided by the number of images", mean_over_the_batch),
    Wrong("eot_gradient", "the sign is turned round", downwards),
    Wrong("eot_gradient", "another estimator", of_mean_scores),
    Wrong("eot_gradient", "the sign is turned round, and", of_mean_scores_downwards),
    Wrong("eot_gradient", "a mean of signs", mean_of_signs),
    Wrong("eot_gradient", "the last draw alone", the_last_draw),
    Wrong("eot_gradient", "the sign of the gradient", already_the_sign),
    Wrong("eot_gradient", "a seed that is set inside", seeded),
    Wrong("eot_gradient", "leaves a gradient on the images", left_on_the_images),
    Wrong("eot_gradient", "not the mean of the gradients of the margin loss", cross_entropy),
    Wrong("eot_gradient", "library's own work", given.eot_gradient),
    Wrong("eot_gradient", "asks 6 times about an image, and 3", six_draws, hidden=True),
    Wrong("adaptive_attack", "does not know it", on_the_bare_net),
    Wrong("adaptive_attack", "does not know it", without_the_dice),
    Wrong("adaptive_attack", "not rounded", without_the_rounding),
    Wrong("adaptive_attack", "look like noise", no_bpda),
    Wrong("adaptive_attack", "torch.round has none", no_bpda_from_the_image),
    Wrong("adaptive_attack", "1.0 gradients for each image and step", one_draw_a_step),
    Wrong("adaptive_attack", "the same draws in every step", the_same_draws),
    Wrong("adaptive_attack", "the same draws in every step", one_draw_with_a_seed),
    Wrong("adaptive_attack", "the loss falls", going_down),
    Wrong("adaptive_attack", "project onto the ball", no_projection),
    Wrong("adaptive_attack", "project onto the ball", projected_around_itself),
    Wrong("adaptive_attack", "pixels leave [0, 1]", out_of_the_box),
    Wrong("adaptive_attack", "look like noise", tiny_steps),
    Wrong("adaptive_attack", "a stop at a lucky draw", stops_at_a_lucky_draw),
    Wrong("adaptive_attack", "ε from its image", twice_epsilon),
    Wrong("adaptive_attack", "never asks the defense", only_noise),
    Wrong("adaptive_attack", "library's own work (robustness_lib.attacks", the_librarys),
    Wrong("three_bars", "counts this attack alone", each_attack_alone),
    Wrong("three_bars", "divides by the images that", among_the_right),
    Wrong("three_bars", "divides by the images that are right", right_clean_aside),
    Wrong("three_bars", "switched off", defense_switched_off),
    Wrong("three_bars", "not the share of images that stand", a_single_answer),
    Wrong("three_bars", "not the share of images that stand", bars_turned_round),
    Wrong("three_bars", "not the share of images that stand", what_the_picture_showed),
]


# Right, and not the solution's.


def stands_in_one_batch(defense, x, y, draws):
    with torch.no_grad():
        named = defense(x.repeat(draws, 1, 1, 1)).argmax(1).reshape(draws, len(x))
    return (named == y).sum(0) * 2 > draws


def stands_one_by_one(defense, x, y, draws):
    found = []
    for image, label in zip(x, y, strict=True):
        found.append(sum(int(defense(image[None]).argmax()) == int(label) for _ in range(draws)) > draws // 2)
    return torch.tensor(found)


class Through(torch.autograd.Function):
    """A gradient of one's own in place of a detached sum."""

    @staticmethod
    def forward(ctx, x, transform):
        return transform(x)

    @staticmethod
    def backward(ctx, slope):
        return slope, None


def straight_by_function(transform, x):
    return Through.apply(x, transform)


def straight_without_grad(transform, x):
    with torch.no_grad():
        change = transform(x) - x
    return x + change


def straight_in_float64(transform, x):
    double = x.double()
    return double + (transform(double) - double).detach()


def eot_in_one_batch(answer, x, y, draws):
    point = x.detach().repeat(draws, 1, 1, 1).requires_grad_()
    margin_loss(answer(point), y.repeat(draws)).sum().backward()
    return point.grad.reshape(draws, *x.shape).mean(0)


def eot_of_a_sum(answer, x, y, draws):
    """One graph over all draws."""
    point = x.detach().clone().requires_grad_()
    loss = sum(margin_loss(answer(point), y).sum() for _ in range(draws)) / draws
    return torch.autograd.grad(loss, point)[0]


def eot_in_float64(answer, x, y, draws):
    point = x.detach().double().requires_grad_()
    total = 0
    for _ in range(draws):
        total = total + torch.autograd.grad(margin_loss(answer(point).double(), y).sum(), point)[0]
    return total / draws


def attack_in_one_batch(*given_to):
    return climb(*given_to, gradient=eot_in_one_batch)


def attack_by_mean_scores(*given_to):
    """The other estimator: it attacks as well."""
    return climb(*given_to, gradient=of_mean_scores)


def attack_in_float64(defense, x, y, eps, steps, draws):
    def through(images):
        return defense.model(given.straight_through(defense.transform, images.float())).double()

    return climb(defense, x.double(), y, eps, steps, draws, ask=through)


def attack_from_the_image(*given_to):
    return climb(*given_to, random_start=False, eta=8)


def attack_by_large_steps(*given_to):
    return climb(*given_to, eta=1)


def attack_by_cross_entropy(*given_to):
    return climb(*given_to, gradient=cross_entropy)


def attack_that_keeps_the_best(defense, x, y, eps, steps, draws):
    """Of the points on the way the one with the largest mean of the margin losses in its draws."""
    best, most = x.clone(), torch.full((len(x),), -torch.inf)

    def gradient(answer, points, y, draws):
        found, losses = [], []
        for _ in range(draws):
            point = points.detach().requires_grad_()
            losses.append(margin_loss(answer(point), y))
            found.append(torch.autograd.grad(losses[-1].sum(), point)[0])
        value = torch.stack(losses).mean(0).detach()
        better = value > most
        best[better], most[better] = points[better], value[better]
        return torch.stack(found).mean(0)

    climb(defense, x, y, eps, steps, draws, gradient=gradient)
    return best


def attack_in_halves(defense, x, y, *given_to):
    """From another seed, too."""
    torch.manual_seed(int(torch.randint(10**6, ())) + 77)
    half = len(x) // 2
    return torch.cat([climb(defense, x[part], y[part], *given_to) for part in (slice(half), slice(half, None))])


def bars_as_a_list(defense, x, y, unaware, adaptive, draws):
    standing, found = torch.ones(len(x), dtype=torch.bool), []
    for images in (x, unaware, adaptive):
        standing &= stands_in_one_batch(defense, images, y, draws)
        found.append(standing.sum().item() / len(x))
    return found


def bars_in_another_order(defense, x, y, unaware, adaptive, draws):
    last, middle, first = (given.stands(defense, images, y, draws).float() for images in (adaptive, unaware, x))
    return torch.stack([first.mean(), (first * middle).mean(), (first * middle * last).mean()])


RIGHT = {
    "in one batch": {"stands": stands_in_one_batch, "straight_through": straight_by_function,
                     "eot_gradient": eot_in_one_batch, "adaptive_attack": attack_in_one_batch,
                     "three_bars": bars_as_a_list},
    "by other means": {"stands": stands_one_by_one, "straight_through": straight_without_grad,
                       "eot_gradient": eot_of_a_sum, "adaptive_attack": attack_by_mean_scores,
                       "three_bars": bars_in_another_order},
    "in float64": {"straight_through": straight_in_float64, "eot_gradient": eot_in_float64,
                   "adaptive_attack": attack_in_float64},
    "from the image": {"adaptive_attack": attack_from_the_image},
    "from another seed, in halves": {"adaptive_attack": attack_in_halves},
    "by large steps": {"adaptive_attack": attack_by_large_steps},
    "up the cross-entropy": {"adaptive_attack": attack_by_cross_entropy},
    "the best on the way": {"adaptive_attack": attack_that_keeps_the_best},
}
