"""Nets so small that the truth is known: by a linear program for each pattern of active neurons, or at once."""

from itertools import product

import numpy as np
import pytest
import torch
from scipy.optimize import linprog, minimize
from torch import nn

from robustness_lib import ThreatModel, norm_balls
from robustness_lib.certify import crown_bounds, crown_margins, interval_bounds, interval_margins

LINF = ThreatModel("linf", 0.25)
METHODS = {
    "interval": interval_margins,
    "CROWN-IBP": lambda *args, **more: crown_margins(*args, intermediate="interval", **more),
    "parallel": lambda *args, **more: crown_margins(*args, slopes="parallel", **more),
    "adaptive": lambda *args, **more: crown_margins(*args, slopes="adaptive", **more),
    "CROWN": crown_margins,
    "α-CROWN": lambda *args, **more: crown_margins(*args, alpha_steps=20, **more),
}


def relu_net(seed, hidden=(4, 3), leak=0.0):
    """Three pixels to three logits."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers, width = [], 3
        for size in hidden:
            layers += [nn.Linear(width, size), nn.LeakyReLU(leak) if leak else nn.ReLU()]
            width = size
        model = nn.Sequential(*layers, nn.Linear(width, 3)).double()
        for parameter in model.parameters():
            parameter.data.mul_(2)
    return model.eval()


def true_margins(model, x, y, eps, pixel_box=True):
    """The least z_y − z_j over the box around x (3,), by j: the least over all patterns of active neurons, within each
    of which the net is linear."""
    layers = [part for part in model if isinstance(part, nn.Linear)]
    leak = getattr(model[1], "negative_slope", 0.0)
    weights = [layer.weight.detach().numpy() for layer in layers]
    biases = [layer.bias.detach().numpy() for layer in layers]
    centre = x.numpy()
    low, high = centre - eps, centre + eps
    if pixel_box:
        low, high = low.clip(0, 1), high.clip(0, 1)
    ranges, least = list(zip(low, high, strict=True)), np.full(3, np.inf)
    sizes = [len(bias) for bias in biases[:-1]]
    for pattern in product((0, 1), repeat=sum(sizes)):
        matrix, constant, left, right, start = np.eye(3), np.zeros(3), [], [], 0
        for weight, bias, size in zip(weights, biases, sizes, strict=False):
            active = np.array(pattern[start:start + size], dtype=float)
            matrix, constant, start = weight @ matrix, weight @ constant + bias, start + size
            sign = 1 - 2 * active  # active: −(matrix·v + constant) ≤ 0
            left.append(sign[:, None] * matrix)
            right.append(-sign * constant)
            slopes = np.where(active > 0, 1, leak)
            matrix, constant = slopes[:, None] * matrix, slopes * constant
        matrix, constant = weights[-1] @ matrix, weights[-1] @ constant + biases[-1]
        for j in {0, 1, 2} - {y}:
            found = linprog(matrix[y] - matrix[j], np.concatenate(left), np.concatenate(right), bounds=ranges)
            if found.status == 2:  # no image has this pattern
                break
            least[j] = min(least[j], found.fun + constant[y] - constant[j])
    return torch.from_numpy(least)


@pytest.fixture(scope="module")
def problems():
    """Nets, images and labels, with the true margins: with two images each, one of them on the edge of the box."""
    found = []
    for seed, (hidden, leak) in enumerate([((4, 3), 0.0), ((5,), 0.0), ((3, 2, 2), 0.0), ((4, 2), 0.2)]):
        model = relu_net(seed, hidden, leak)
        x = torch.rand(2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        x[1, :2] = torch.tensor([0.0, 1.0])
        y = torch.tensor([seed % 3, 1])
        truth = torch.stack([true_margins(model, image, int(label), LINF.eps)
                             for image, label in zip(x, y, strict=True)])
        found.append((model, x, y, truth))
    return found


def test_the_truth_is_reached(problems):
    """The linear programs are right: no image is below, and one comes near."""
    for model, x, y, truth in problems:
        noise = torch.rand(20_000, 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 - 1
        noise[:10_000] = noise[:10_000].sign()
        with torch.no_grad():
            z = model((x + LINF.eps * noise).clamp(0, 1))
        margins = (z.gather(2, y[None, :, None].expand(len(z), -1, 1)) - z).amin(0)
        others = truth.isfinite()
        assert (margins[others] >= truth[others] - 1e-9).all()
        assert (margins[others] <= truth[others] + 0.3).all()


def test_no_bound_is_above_the_truth(problems):
    for model, x, y, truth in problems:
        for name, margins in METHODS.items():
            found = margins(model, x, y, LINF)
            assert torch.equal(found.isinf(), truth.isinf())
            assert (found <= truth + 1e-9).all(), name


def test_the_dearer_the_method_the_nearer_to_the_truth(problems):
    mean = dict.fromkeys(METHODS, 0.0)
    for model, x, y, truth in problems:
        found = {name: margins(model, x, y, LINF) for name, margins in METHODS.items()}
        for worse, better in (("interval", "CROWN-IBP"), ("interval", "CROWN"), ("parallel", "CROWN"),
                              ("adaptive", "CROWN"), ("CROWN", "α-CROWN")):
            assert (found[better] >= found[worse] - 1e-9).all(), (worse, better)
        for name, margins in found.items():
            mean[name] += float((truth - margins)[truth.isfinite()].mean()) / len(problems)
    assert 0 < mean["α-CROWN"] < 0.9 * mean["CROWN"] < mean["CROWN"] < mean["CROWN-IBP"] < mean["interval"], mean


def test_one_hidden_layer_with_every_sign_known_is_exact():
    model, x = relu_net(7, (4,)), torch.full((1, 3), 0.5, dtype=torch.float64)
    with torch.no_grad():
        model[0].bias.copy_(torch.tensor([9.0, -9, 9, 9]))
    truth = true_margins(model, x[0], 0, LINF.eps)
    for name in ("CROWN-IBP", "parallel", "adaptive", "CROWN", "α-CROWN"):
        assert torch.allclose(METHODS[name](model, x, torch.tensor([0]), LINF)[0], truth, rtol=1e-9), name


# ------------------------------------------------------------------------------------------------------- linear models


def linear_net(pixels=5, classes=4):
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return nn.Sequential(nn.Linear(pixels, 6), nn.Identity(), nn.Linear(6, classes)).double().eval()


def rows_of(model):
    weight = model[2].weight @ model[0].weight
    return weight.detach(), (model[2].weight @ model[0].bias + model[2].bias).detach()


def images():
    x = torch.rand(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    x[1], x[2, :3] = x[1].round(), 0.02
    return x


@pytest.mark.parametrize("eps", [0.0, 0.07, 0.6])
@pytest.mark.parametrize("pixel_box", [True, False])
def test_linear_nets_under_linf(eps, pixel_box):
    """|m| − ε‖w‖₁, of which the box cuts off what leads out of it."""
    model, x, y = linear_net(), images(), torch.tensor([0, 1, 2, 3])
    weight, bias = rows_of(model)
    w, b = weight[y][:, None] - weight, bias[y][:, None] - bias
    down, up = (x.clamp(max=eps), (1 - x).clamp(max=eps)) if pixel_box else (torch.full_like(x, eps),) * 2
    truth = (w * x[:, None]).sum(2) + b - (w.clamp(min=0) * down[:, None] - w.clamp(max=0) * up[:, None]).sum(2)
    truth[torch.arange(4), y] = torch.inf
    for name in ("CROWN-IBP", "parallel", "CROWN", "α-CROWN", "interval"):
        found = METHODS[name](model, x, y, ThreatModel("linf", eps), pixel_box=pixel_box)
        assert torch.allclose(found, truth, atol=1e-12), name


def least_in_ball_and_box(row, x, eps):
    """By a solver of convex problems, from several starts."""
    best = np.inf
    for start in (x, np.clip(x - 0.5 * eps * row / np.linalg.norm(row), 0, 1)):
        found = minimize(lambda v: row @ v, start, jac=lambda v: row, method="SLSQP", bounds=[(0, 1)] * len(x),
                         constraints={"type": "ineq", "fun": lambda v: eps**2 - ((v - x)**2).sum(),
                                      "jac": lambda v: -2 * (v - x)}, options={"ftol": 1e-13, "maxiter": 500})
        best = min(best, found.fun)
    return best


@pytest.mark.parametrize("eps", [0.0, 0.2, 0.6, 3.0])
@pytest.mark.parametrize("pixel_box", [True, False])
def test_linear_nets_under_l2(eps, pixel_box):
    """|m| − ε‖w‖₂; in ball and box together, what a solver says."""
    model, x = linear_net(), images()
    weight, bias = rows_of(model)
    truth = x @ weight.t() + bias - eps * weight.norm(dim=1)
    if pixel_box and eps:
        truth = torch.tensor([[least_in_ball_and_box(row, image, eps) for row in weight.numpy()]
                              for image in x.numpy()], dtype=torch.float64) + bias
    found = crown_bounds(model, x, ThreatModel("l2", eps), pixel_box=pixel_box).lower
    assert torch.allclose(found, truth, atol=1e-6)
    assert (found <= truth + 1e-7).all()
    whole = interval_bounds(model, x, ThreatModel("l2", eps), pixel_box=pixel_box).lower
    assert (whole <= found + 1e-12).all()


def test_a_scale_that_is_not_the_best_gives_a_bound_nevertheless(monkeypatch):
    """Where the search for it ends early: then the dual is below the truth, and not above."""
    model, x, threat = linear_net(), images(), ThreatModel("l2", 0.6)
    expected = crown_bounds(model, x, threat).lower
    monkeypatch.setattr(norm_balls, "_PROJECTION_ROUNDS", 0)
    found = crown_bounds(model, x, threat).lower
    assert (found <= expected + 1e-12).all()
    assert (found < expected - 1e-3).any()


@pytest.mark.parametrize("eps", [2.3, 10.0])
def test_an_l2_ball_around_the_whole_box_is_the_box(eps):
    model, x = linear_net(), images()
    inside = crown_bounds(model, torch.full_like(x, 0.5), ThreatModel("linf", 0.5))
    for found, expected in zip(crown_bounds(model, x, ThreatModel("l2", eps)), inside, strict=True):
        assert torch.allclose(found, expected, atol=1e-9)
