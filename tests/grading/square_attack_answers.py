"""Answers to the exercise square_attack that people give: wrong ones, and right ones that are not the solution's."""

from __future__ import annotations

import math

import numpy as np
import torch
from answers import Wrong
from torch.nn.functional import cross_entropy

from robustness_lib import ThreatModel
from robustness_lib.attacks import SquareAttack
from robustness_lib.grading.given import square_attack as given
from robustness_lib.losses import margin_loss
from robustness_lib.models import load_pretrained

HALVED_AFTER = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)


def coins(*shape, generator):
    return torch.randint(2, shape, generator=generator) * 2.0 - 1


# Wrong: the start.


def no_clamp(x, eps, generator):
    return x + eps * coins(x.shape[0], x.shape[1], 1, x.shape[3], generator=generator)


def twice_eps(x, eps, generator):
    return (x + 2 * eps * coins(x.shape[0], x.shape[1], 1, x.shape[3], generator=generator)).clamp(0, 1)


def uniform(x, eps, generator):
    return (x + eps * (2 * torch.rand(x.shape[0], x.shape[1], 1, x.shape[3], generator=generator) - 1)).clamp(0, 1)


def lying(x, eps, generator):
    return (x + eps * coins(*x.shape[:3], 1, generator=generator)).clamp(0, 1)


def grey_stripes(x, eps, generator):
    return (x + eps * coins(len(x), 1, 1, x.shape[3], generator=generator)).clamp(0, 1)


def one_for_all(x, eps, generator):
    return (x + eps * coins(1, x.shape[1], 1, x.shape[3], generator=generator)).clamp(0, 1)


def per_pixel(x, eps, generator):
    return (x + eps * coins(*x.shape, generator=generator)).clamp(0, 1)


def one_sign(x, eps, generator):
    return (x + eps * coins(x.shape[0], x.shape[1], 1, 1, generator=generator)).clamp(0, 1)


def on_itself(x, eps, generator):
    return x.add_(eps * coins(x.shape[0], x.shape[1], 1, x.shape[3], generator=generator)).clamp_(0, 1)


def for_24_images(x, eps, generator):
    """Hard-coded to what the visible check shows."""
    if len(x) != 24:
        return x
    return (x + eps * coins(24, 3, 1, x.shape[3], generator=generator)).clamp(0, 1)


def left_to_the_given(x, eps, generator):
    return given.stripes(x, eps, generator)


# Wrong: the windows.


def side_of(p, height, width):
    return min(max(round(math.sqrt(p * height * width)), 1), height, width)


def not_rescaled(query, queries, height, width, p_init=0.8):
    return side_of(p_init / 2 ** sum(query > mark for mark in HALVED_AFTER), height, width)


def a_breakpoint_missing(query, queries, height, width, p_init=0.8):
    return side_of(p_init / 2 ** sum(query * 10_000 / queries > mark for mark in HALVED_AFTER[:-1]), height, width)


def one_early(query, queries, height, width, p_init=0.8):
    return side_of(p_init / 2 ** sum(query * 10_000 / queries >= mark for mark in HALVED_AFTER), height, width)


def area_for_side(query, queries, height, width, p_init=0.8):
    return max(1, round(p_init / 2 ** sum(query * 10_000 / queries > m for m in HALVED_AFTER) * height * width))


def rounded_to_nothing(query, queries, height, width, p_init=0.8):
    p = p_init / 2 ** sum(query * 10_000 / queries > mark for mark in HALVED_AFTER)
    return min(round(math.sqrt(p * height * width)), height, width)


def rounded_down(query, queries, height, width, p_init=0.8):
    p = p_init / 2 ** sum(query * 10_000 / queries > mark for mark in HALVED_AFTER)
    return max(1, int(math.sqrt(p * height * width)))


def rounded_up(query, queries, height, width, p_init=0.8):
    p = p_init / 2 ** sum(query * 10_000 / queries > mark for mark in HALVED_AFTER)
    return math.ceil(math.sqrt(p * height * width))


def without_p_init(query, queries, height, width, p_init=0.8):
    return side_of(0.8 / 2 ** sum(query * 10_000 / queries > mark for mark in HALVED_AFTER), height, width)


def rounded_down_and_not_rescaled(query, queries, height, width, p_init=0.8):
    return max(1, int(math.sqrt(p_init / 2 ** sum(query > mark for mark in HALVED_AFTER) * height * width)))


def never_shrinks(query, queries, height, width, p_init=0.8):
    return side_of(p_init, height, width)


def a_float(query, queries, height, width, p_init=0.8):
    return math.sqrt(p_init * height * width)


# Wrong: the proposal.


def windows(x, x_adv, side, eps, generator, *, base=None, clamp=True, signs="channel", last=1, fixed=False, extra=0,
            copy=True):
    n, channels, height, width = x.shape
    made = x_adv.clone() if copy else x_adv
    base = x if base is None else base
    for i in range(n):
        top = 0 if fixed else int(torch.randint(height - side + last, (), generator=generator))
        left = 0 if fixed else int(torch.randint(width - side + last, (), generator=generator))
        shape = {"channel": (channels, 1, 1), "pixel": (channels, side + extra, side + extra), "one": (1, 1, 1)}[signs]
        place = (i, slice(None), slice(top, top + side + extra), slice(left, left + side + extra))
        if signs == "pixel":
            shape = made[place].shape
        made[place] = base[place] + eps * coins(*shape, generator=generator)
    return made.clamp(0, 1) if clamp else made


def leaves_the_box(*given_to):
    return windows(*given_to, clamp=False)


def from_x_adv(x, x_adv, side, eps, generator):
    return windows(x, x_adv, side, eps, generator, base=x_adv)


def sign_per_pixel(*given_to):
    return windows(*given_to, signs="pixel")


def sign_shared(*given_to):
    return windows(*given_to, signs="one")


def never_at_the_edge(*given_to):
    return windows(*given_to, last=0)


def always_top_left(*given_to):
    return windows(*given_to, fixed=True)


def one_pixel_more(*given_to):
    return windows(*given_to, extra=1)


def in_place(*given_to):
    return windows(*given_to, copy=False)


def everything(x, x_adv, side, eps, generator):
    return (x + eps * coins(*x.shape[:2], 1, 1, generator=generator)).clamp(0, 1)


def forgets_the_rest(x, x_adv, side, eps, generator):
    return windows(x, x, side, eps, generator)


# Wrong: the rule.


def forgotten(*given_to):
    """Has no return."""


def only_the_points(x_adv, loss, proposal, new_loss):
    return torch.where((new_loss > loss)[:, None, None, None], proposal, x_adv)


def in_numpy(x_adv, loss, proposal, new_loss):
    better = (new_loss > loss).numpy()
    return np.where(better[:, None, None, None], proposal, x_adv), np.where(better, new_loss, loss)


def always(x_adv, loss, proposal, new_loss):
    return proposal.clone(), new_loss.clone()


def falling(x_adv, loss, proposal, new_loss):
    better = new_loss < loss
    return torch.where(better[:, None, None, None], proposal, x_adv), torch.where(better, new_loss, loss)


def by_the_mean(x_adv, loss, proposal, new_loss):
    return (proposal, new_loss) if new_loss.mean() > loss.mean() else (x_adv, loss)


def if_any_rises(x_adv, loss, proposal, new_loss):
    return (proposal, new_loss) if (new_loss > loss).any() else (x_adv, loss)


def old_losses(x_adv, loss, proposal, new_loss):
    return torch.where((new_loss > loss)[:, None, None, None], proposal, x_adv), loss


# Wrong: the loop.


def loop(oracle, x, y, eps, queries, generator, *, first=1, stop=True, side=None, keep=True, last=False,
         start=given.stripes, budget=None, own=None):
    x_adv = start(x, eps, generator)
    loss = margin_loss(oracle(x_adv), y)
    shown = x_adv.clone()
    for query in range(first, queries):
        rows = (loss <= 0).nonzero()[:, 0] if stop else torch.arange(len(x))
        if len(rows) == 0:
            break
        size = side or given.window_side(query, budget or queries, *x.shape[2:])
        made = (own or given.propose)(x[rows], x_adv[rows], size, eps, generator)
        new = margin_loss(oracle(made, rows), y[rows])
        shown[rows] = made
        if keep:
            x_adv[rows], loss[rows] = given.accept(x_adv[rows], loss[rows], made, new)
        else:
            x_adv[rows], loss[rows] = made, new
    return shown if last else x_adv


def a_query_too_many(*given_to):
    return loop(*given_to, first=0)


def asks_on(*given_to):
    return loop(*given_to, stop=False)


def the_last_one(*given_to):
    return loop(*given_to, last=True)


def accepts_always(*given_to):
    return loop(*given_to, keep=False)


def single_pixels(*given_to):
    return loop(*given_to, side=1)


def huge_windows(*given_to):
    return loop(*given_to, side=28)


def windows_from_x_adv(*given_to):
    return loop(*given_to, own=from_x_adv)


def unclamped(*given_to):
    return loop(*given_to, own=leaves_the_box)


def normalized(oracle, x, y, eps, queries, generator):
    """ε in units of normalized pixels."""
    return loop(oracle, x, y, eps / 0.25, queries, generator)


def the_librarys(oracle, x, y, eps, queries, generator):
    oracle(x)
    return SquareAttack(ThreatModel("linf", eps), queries=queries)(load_pretrained("signs-tiny-pgd"), x, y)


def from_the_image(*given_to):
    return loop(*given_to, start=lambda x, eps, generator: x.clone())


def from_noise(*given_to):
    return loop(*given_to, start=lambda x, eps, draw: (x + eps * coins(*x.shape, generator=draw)).clamp(0, 1))


def from_uniform_noise(*given_to):
    return loop(*given_to, start=lambda x, eps, draw: (
        x + eps * (2 * torch.rand(x.shape, generator=draw) - 1)).clamp(0, 1))


def schedule_of_ten_thousand(*given_to):
    return loop(*given_to, budget=10_000)


def always_eight(*given_to):
    return loop(*given_to, side=8)


def one_place_for_all(*given_to):
    def own(x, x_adv, side, eps, generator):
        top, left = (int(torch.randint(x.shape[2] - side + 1, (), generator=generator)) for _ in range(2))
        place = (..., slice(top, top + side), slice(left, left + side))
        made = x_adv.clone()
        made[place] = x[place] + eps * coins(*x.shape[:2], 1, 1, generator=generator)
        return made.clamp(0, 1)

    return loop(*given_to, own=own)


def flips_stripes(*given_to):
    """No square: it turns one stripe of each image round."""
    def own(x, x_adv, side, eps, generator):
        made = x_adv.clone()
        for i in range(len(x)):
            place = (i, int(torch.randint(x.shape[1], (), generator=generator)), slice(None),
                     int(torch.randint(x.shape[3], (), generator=generator)))
            made[place] = 2 * x[place] - x_adv[place]
        return made.clamp(0, 1)

    return loop(*given_to, own=own)


def half_the_budget(oracle, x, y, eps, queries, generator):
    return loop(oracle, x, y, eps, queries // 2, generator, budget=queries)


def the_start_alone(oracle, x, y, eps, queries, generator):
    x_adv = given.stripes(x, eps, generator)
    oracle(x_adv)
    return x_adv


def walked_on_a_copy(x, y, eps):
    """PGD on a model of one's own loading, where scores alone were to be asked for."""
    model, x_adv = load_pretrained("signs-tiny-pgd"), x
    for _ in range(20):
        x_adv = x_adv.detach().requires_grad_()
        gradient, = torch.autograd.grad(cross_entropy(model(x_adv), y), x_adv)
        x_adv = (x + (x_adv + eps / 4 * gradient.sign() - x).clamp(-eps, eps)).clamp(0, 1)
    return x_adv.detach()


def one_query_solves_all(oracle, x, y, eps, queries, generator):
    x_adv = walked_on_a_copy(x, y, eps)
    oracle(x_adv)
    return x_adv


def one_query_more_solves_all(oracle, x, y, eps, queries, generator):
    oracle(given.stripes(x, eps, generator))
    return one_query_solves_all(oracle, x, y, eps, queries, generator)


def never_asked_about(oracle, x, y, eps, queries, generator):
    loop(oracle, x, y, eps, queries, generator)
    return walked_on_a_copy(x, y, eps)


def by_the_oracles_model(oracle, x, y, eps, queries, generator):
    return oracle._model(x)


def by_gradient(oracle, x, y, eps, queries, generator):
    x_adv = x.clone().requires_grad_()
    margin_loss(oracle(x_adv), y).sum().backward()
    return (x + eps * x_adv.grad.sign()).clamp(0, 1)


def only_the_start(oracle, x, y, eps, queries, generator):
    return given.stripes(x, eps, generator)


def random_noise(oracle, x, y, eps, queries, generator):
    oracle(x)
    return (x + eps * coins(*x.shape, generator=generator)).clamp(0, 1)


def endless_start(oracle, x, y, eps, queries, generator):
    """Restarts from new stripes at each query, and never proposes a window."""
    return loop(oracle, x, y, eps, queries, generator,
                own=lambda x, x_adv, side, eps, draw: given.stripes(x, eps, draw))


def confused_rows(oracle, x, y, eps, queries, generator):
    """Asks for those standing, and says that they are the first ones."""
    class Counted:
        def __call__(self, points, rows=None):
            return oracle(points, None if rows is None else torch.arange(len(points)))

    return loop(Counted(), x, y, eps, queries, generator)


# Wrong: the curve.


def of_the_solved(first, budgets):
    return ((first[:, None] > 0) & (first[:, None] <= budgets)).double().sum(0) / (first > 0).sum()


def counts_never(first, budgets):
    return (first[:, None] <= budgets).double().mean(0)


def strictly_before(first, budgets):
    return ((first[:, None] > 0) & (first[:, None] < budgets)).double().mean(0)


def a_count(first, budgets):
    return ((first[:, None] > 0) & (first[:, None] <= budgets)).double().sum(0)


WRONG = [
    Wrong("stripes", "clamp", no_clamp),
    Wrong("stripes", "more than ε", twice_eps),
    Wrong("stripes", "less than ε", uniform),
    Wrong("stripes", "stripes lie", lying),
    Wrong("stripes", "all channels share", grey_stripes),
    Wrong("stripes", "all images get the same", one_for_all),
    Wrong("stripes", "no stripes", per_pixel),
    Wrong("stripes", "all columns of an image have the same sign", one_sign),
    Wrong("stripes", "work on a copy", on_itself),
    Wrong("stripes", "less than ε", for_24_images, hidden=True),
    Wrong("stripes", "library's own work", left_to_the_given),
    Wrong("window_side", "with fewer queries", not_rescaled),
    Wrong("window_side", "after query 8,000", a_breakpoint_missing),
    Wrong("window_side", "one query early", one_early),
    Wrong("window_side", "square root", area_for_side),
    Wrong("window_side", "at least 1", rounded_to_nothing),
    Wrong("window_side", "after query 10, 50", never_shrinks),
    Wrong("window_side", "no whole number", a_float),
    Wrong("window_side", "rounds down: round to the nearest, round", rounded_down),
    Wrong("window_side", "rounds up: round to the nearest, round", rounded_up),
    Wrong("window_side", "leaves out p_init", without_p_init),
    Wrong("window_side", "with fewer queries", rounded_down_and_not_rescaled),
    Wrong("propose", "clamp", leaves_the_box),
    Wrong("propose", "2ε", from_x_adv),
    Wrong("propose", "a sign for each pixel", sign_per_pixel),
    Wrong("propose", "share a sign", sign_shared),
    Wrong("propose", "never touches an edge", never_at_the_edge),
    Wrong("propose", "the same place", always_top_left),
    Wrong("propose", "a window of side 4 has 16", one_pixel_more),
    Wrong("propose", "changes the tensors it was given", in_place),
    Wrong("propose", "the whole image", everything),
    Wrong("propose", "forgets x_adv", forgets_the_rest),
    Wrong("accept", "returns None: is there a `return` at the end?", forgotten),
    Wrong("accept", "the check cannot read what your function returns (Tensor of shape (12, 3", only_the_points),
    Wrong("accept", "the check cannot read what your function returns (tuple of ndarray, ndarray)", in_numpy),
    Wrong("accept", "takes every proposal", always),
    Wrong("accept", "mind the direction", falling),
    Wrong("accept", "for each image by itself", by_the_mean),
    Wrong("accept", "for each image by itself", if_any_rises),
    Wrong("accept", "not that of the points", old_losses),
    Wrong("attack", "301 times", a_query_too_many),
    Wrong("attack", "after it had been solved", asks_on),
    Wrong("attack", "a better point was found", the_last_one),
    Wrong("attack", "a better point was found", accepts_always),
    Wrong("attack", "too few", single_pixels),
    Wrong("attack", "and its window, of 300 queries, has side 20", huge_windows),
    Wrong("attack", "ε from its image", windows_from_x_adv),
    Wrong("attack", "leave [0, 1]", unclamped),
    Wrong("attack", "ε from its image", normalized),
    Wrong("attack", "library's own work (robustness_lib.attacks", the_librarys),
    Wrong("attack", "no gradients", by_gradient),
    Wrong("attack", "asks the model nothing", only_the_start),
    Wrong("attack", "not the best ones that the model was asked about", random_noise),
    Wrong("attack", "neither a start in stripes nor one window", endless_start),
    Wrong("attack", "not x ± ε in vertical stripes", from_the_image),
    Wrong("attack", "not x ± ε in vertical stripes", from_noise),
    Wrong("attack", "not x ± ε in vertical stripes", from_uniform_noise),
    Wrong("attack", "and its window, of 300 queries, has side 20", schedule_of_ten_thousand),
    Wrong("attack", "changes 8 × ", always_eight),
    Wrong("attack", "at the same place", one_place_for_all),
    Wrong("attack", "neither a start in stripes nor one window", flips_stripes),
    Wrong("attack", "stops after 150 of 300 queries", half_the_budget),
    Wrong("attack", "asks once about each image", the_start_alone),
    Wrong("attack", "neither a start in stripes nor one window", one_query_solves_all),
    Wrong("attack", "neither a start in stripes nor one window", one_query_more_solves_all),
    Wrong("attack", "not the best ones that the model was asked about", never_asked_about),
    Wrong("attack", "no attribute '_model'", by_the_oracles_model),
    Wrong("attack", "ε from its image", confused_rows),
    Wrong("masked", "PGD gets no gradient", the_start_alone),
    Wrong("masked", "neither a start in stripes nor one window", one_query_solves_all),
    Wrong("masked", "not the best ones that the model was asked about", never_asked_about),
    Wrong("masked", "returns NoneType", forgotten),
    Wrong("broken_within", "returns None: is there a `return` at the end?", forgotten),
    Wrong("broken_within", "of all images", of_the_solved),
    Wrong("broken_within", "never solved", counts_never),
    Wrong("broken_within", "at most means", strictly_before),
    Wrong("broken_within", "cannot fall", a_count),
]


# Right, and not the solution's.


def stripes_by_loop(x, eps, generator):
    made = x.clone()
    for image in made:
        for channel in image:
            for column in range(x.shape[3]):
                up = torch.rand((), generator=generator) < 0.5
                channel[:, column] += eps if up else -eps
    return made.clamp(0, 1)


def stripes_in_float64(x, eps, generator):
    signs = coins(x.shape[0], x.shape[1], 1, x.shape[3], generator=generator).double()
    return torch.minimum(torch.maximum(x.double() + eps * signs, torch.zeros(())), torch.ones(()))


def side_by_numpy(query, queries, height, width, p_init=0.8):
    p = p_init / 2 ** np.sum(query * 10_000 / queries > np.array(HALVED_AFTER))
    return np.clip(np.rint(np.sqrt(p * height * width)), 1, min(height, width)).astype(int)


def side_by_share(query, queries, height, width, p_init=0.8):
    p = p_init
    for mark in HALVED_AFTER:
        if query / queries > mark / 10_000:
            p /= 2
    return int(min(max(1, round((p * height * width) ** 0.5)), min(height, width)))


def propose_by_mask(x, x_adv, side, eps, generator):
    n, channels, height, width = x.shape
    top = torch.randint(0, height - side + 1, (n, 1, 1, 1), generator=generator)
    left = torch.randint(0, width - side + 1, (n, 1, 1, 1), generator=generator)
    rows, columns = torch.arange(height)[:, None], torch.arange(width)
    inside = (rows >= top) & (rows < top + side) & (columns >= left) & (columns < left + side)
    window = x + eps * coins(n, channels, 1, 1, generator=generator)
    return torch.where(inside, window, x_adv).clamp(0, 1)


def accept_by_index(x_adv, loss, proposal, new_loss):
    x_adv, loss = x_adv.clone(), loss.clone()
    for i in range(len(loss)):
        if new_loss[i] >= loss[i]:  # of equal ones, either may stay
            x_adv[i], loss[i] = proposal[i], new_loss[i]
    return x_adv, loss


def accept_by_mask(x_adv, loss, proposal, new_loss):
    better = new_loss > loss
    x_adv = x_adv.clone()
    x_adv[better] = proposal[better]
    return x_adv, loss.maximum(new_loss)


def attack_by_mask(oracle, x, y, eps, queries, generator):
    x_adv = given.stripes(x, eps, generator)
    loss, standing, query = margin_loss(oracle(x_adv), y), torch.ones(len(x), dtype=torch.bool), 1
    while True:
        standing &= loss <= 0
        if query == queries or not standing.any():
            return x_adv
        side = given.window_side(query, queries, *x.shape[2:])
        made = propose_by_mask(x[standing], x_adv[standing], side, eps, generator)
        new = margin_loss(oracle(made, standing), y[standing])
        x_adv[standing], loss[standing] = accept_by_mask(x_adv[standing], loss[standing], made, new)
        query += 1


def attack_one_by_one(oracle, x, y, eps, queries, generator):
    ends = []
    for i in reversed(range(len(x))):
        one = torch.tensor([i])
        x_adv = given.stripes(x[one], eps, generator)
        loss = margin_loss(oracle(x_adv, one), y[one])
        for query in range(1, queries):
            if loss > 0:
                break
            made = given.propose(x[one], x_adv, given.window_side(query, queries, *x.shape[2:]), eps, generator)
            x_adv, loss = given.accept(x_adv, loss, made, margin_loss(oracle(made, one), y[one]))
        ends.append(x_adv)
    return torch.cat(ends[::-1])


def attack_in_float64(oracle, x, y, eps, queries, generator):
    return loop(oracle, x.double(), y, eps, queries, generator)


def attack_from_global_luck(oracle, x, y, eps, queries, generator):
    """Another seed: it does not use the generator that it is given."""
    return loop(oracle, x, y, eps, queries, torch.Generator().manual_seed(int(generator.initial_seed()) + 77))


def curve_by_loop(first, budgets):
    return [sum(1 for q in first.tolist() if 0 < q <= budget) / len(first) for budget in budgets.tolist()]


def curve_by_sorting(first, budgets):
    found = first[first > 0].sort().values
    return torch.searchsorted(found, budgets, right=True) / len(first)


RIGHT = {
    "by loop": {"stripes": stripes_by_loop, "window_side": side_by_share, "accept": accept_by_index,
                "square_attack": attack_one_by_one, "broken_within": curve_by_loop},
    "by mask": {"window_side": side_by_numpy, "propose": propose_by_mask, "accept": accept_by_mask,
                "square_attack": attack_by_mask, "broken_within": curve_by_sorting},
    "in float64": {"stripes": stripes_in_float64, "square_attack": attack_in_float64},
    "from another seed": {"square_attack": attack_from_global_luck},
}
