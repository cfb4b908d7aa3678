"""Nets whose smallest margin around an image is known, and a small problem with every verdict."""

from itertools import product

import torch
from scipy.optimize import linprog
from torch import nn

from robustness_lib import ThreatModel

THREAT = ThreatModel("linf", 0.04)


def linear(weight, bias, dtype=torch.float32):
    """Scores W·x + b. weight: (K, d)."""
    weight, bias = torch.as_tensor(weight, dtype=dtype), torch.as_tensor(bias, dtype=dtype)
    model = nn.Linear(weight.shape[1], len(weight), dtype=dtype)
    with torch.no_grad():
        model.weight.copy_(weight)
        model.bias.copy_(bias)
    return model.eval()


def linear_margins(model, x, y, threat):
    """The smallest margin of each image (N,) in float64: |m| − ε‖w‖, of the box of the pixels under L∞ what is left of
    the ball; under L2 for images that are far from the pixel box's edges."""
    weight, bias, x = model.weight.detach().double(), model.bias.detach().double(), x.double()
    w, b = weight[y][:, None] - weight, bias[y][:, None] - bias
    at_x = (w * x[:, None]).sum(2) + b
    if threat.norm == "linf":
        down, up = x - (x - threat.eps).clamp(min=0), (x + threat.eps).clamp(max=1) - x
        lost = (w.clamp(min=0) * down[:, None] - w.clamp(max=0) * up[:, None]).sum(2)
    else:
        lost = threat.eps * w.norm(dim=2)
    return (at_x - lost).scatter(1, y[:, None], torch.inf).amin(1)


def relu_net(seed, dtype=torch.float32, pixels=3, hidden=5, classes=3):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Linear(pixels, hidden), nn.ReLU(), nn.Linear(hidden, classes)).to(dtype).eval()
    with torch.no_grad():
        net[0].weight.mul_(3)
    return net


def exact_margin(net, x, y, eps):
    """The smallest margin of one image (d,) under L∞ by a linear program for each pattern of the ReLUs."""
    (first, bias), (last, last_bias) = [(layer.weight.detach().double().numpy(), layer.bias.detach().double().numpy())
                                        for layer in (net[0], net[2])]
    x = x.double().numpy()
    box = list(zip((x - eps).clip(0, 1), (x + eps).clip(0, 1), strict=True))
    least = float("inf")
    for pattern in product((0.0, 1.0), repeat=len(bias)):
        sign = [1 - 2 * on for on in pattern]  # of the side where the neuron may not be
        a, b = [s * row for s, row in zip(sign, first, strict=True)], [-s * c for s, c in zip(sign, bias, strict=True)]
        for other in set(range(len(last))) - {y}:
            row = (last[y] - last[other]) * pattern
            found = linprog(row @ first, A_ub=a, b_ub=b, bounds=box)
            if found.status == 0:
                least = min(least, found.fun + row @ bias + last_bias[y] - last_bias[other])
    return least


def problem(n=30, classes=4):
    """A net, images and labels such that under THREAT every verdict occurs, and bounds of several kinds decide."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(64, 12), nn.ReLU(),
                              nn.Linear(12, classes)).eval()
        x = torch.rand(n, 1, 4, 4)
    with torch.no_grad():
        for layer in (model[0], model[3], model[5]):
            layer.weight.mul_(2)
        y = model(x).argmax(1)
    y[::10] = (y[::10] + 1) % classes
    return model, x, y
