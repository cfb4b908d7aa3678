"""Small problems that the tests of attacks share, and exact answers to hold attacks against."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import brentq, linprog
from torch import nn


class Net(nn.Module):
    """Small, nonlinear, with the two layers whose mode matters."""

    def __init__(self, seed=0, classes=5):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(),
                                      nn.Dropout(0.5), nn.Linear(8 * 6 * 4, classes))
            self.body[1].running_mean.normal_(0, 0.1)
            self.body[1].running_var.uniform_(0.5, 2)

    def forward(self, x):
        return 3 * self.body(x)


def problem(dtype=torch.float32, n=24, targeted=False):
    """Images of which the net has some wrong already, some breakable, some not."""
    model = Net().to(dtype).eval()
    generator = torch.Generator().manual_seed(1)
    x = torch.rand((n, 3, 8, 6), generator=generator, dtype=dtype)
    x = torch.where(torch.rand(x.shape, generator=generator) < 0.2, x.round(), x)
    with torch.no_grad():
        order = model(x).argsort(1, descending=True)
    y = order[:, 0].clone()
    y[:3] = order[:3, 1]  # misclassified from the start
    target = order[:, 1].clone() if targeted else None
    if targeted:
        target[:3] = order[:3, 2]  # the label is no target
        y[3:5], target[3:5] = order[3:5, 1], order[3:5, 0]  # reached from the start
    return model, x, y, target


def snapshot(model):
    return ({k: v.clone() for k, v in model.state_dict().items()}, [m.training for m in model.modules()],
            [p.requires_grad for p in model.parameters()],
            [None if p.grad is None else p.grad.clone() for p in model.parameters()])


def same(a, b):
    return (all(torch.equal(a[0][k], b[0][k]) for k in a[0]) and a[1:3] == b[1:3]
            and all((g is None and h is None) or torch.equal(g, h) for g, h in zip(a[3], b[3], strict=True)))


def bad_inputs():
    model, x, y, _ = problem()
    nan = x.clone()
    nan[0, 0, 0, 0] = torch.nan
    return {
        "normalized": ((model, x * 4 - 2, y), ValueError, "normalization outside the model"),
        "integers": ((model, (x * 255).to(torch.uint8), y), TypeError, "Divide 8-bit images by 255"),
        "half": ((model, x.half(), y), TypeError, "Half precision"),
        "nan": ((model, nan, y), ValueError, "NaN"),
        "array": ((model, x.numpy(), y), TypeError, "torch.Tensor"),
        "one image": ((model, x[0, 0, 0], y), ValueError, "batch dimension"),
        "float labels": ((model, x, y.float()), TypeError, "int64"),
        "one-hot labels": ((model, x, F.one_hot(y, 5)), ValueError, "one label per image"),
        "label too large": ((model, x, y + 4), ValueError, "0 ... 4"),
        "label negative": ((model, x, y - 5), ValueError, "0 ... 4"),
        "target too large": ((model, x, y, y + 4), ValueError, "0 ... 4"),
        "tuple": ((lambda z: (model(z), None), x, y), TypeError, "as_classifier"),
        "one logit": ((lambda z: model(z)[:, :1], x, y * 0), ValueError, "binary"),
        "flat": ((lambda z: model(z)[:, 0], x, y), ValueError, "as_classifier"),
        "decisions": ((lambda z: F.one_hot(model(z).argmax(1), 5), x, y), TypeError, "logits"),
        "nan logits": ((lambda z: model(z) * torch.nan, x, y), ValueError, "NaN"),
        "detached": ((lambda z: model(z.detach()), x, y), ValueError, "autograd"),
        "constant": ((lambda z: torch.ones(len(z), 5, requires_grad=True), x, y * 0), ValueError, "does not depend"),
    }


def check_the_model_is_as_it_was(attack, fails_at=None):
    """After an attack, also one that fails at this call of the model: to the last mode, flag and gradient."""
    model, x, y, _ = problem()
    model.train()
    model.body[4].eval()  # a mixed state, to be restored module by module
    model.body[0].weight.requires_grad_(False)
    F.cross_entropy(model(x), y).backward()  # gradients that belong to the caller
    before = snapshot(model)
    if fails_at is None:
        attack.run(model, x, y)
    else:
        calls = []

        def explode(module, inputs):
            calls.append(1)
            if len(calls) == fails_at:
                raise RuntimeError("out of luck")

        hook = model.register_forward_pre_hook(explode)
        with pytest.raises(RuntimeError, match="out of luck"):
            attack.run(model, x, y)
        hook.remove()
    assert same(snapshot(model), before)


def check_the_mode(in_eval_mode, as_it_is):
    """Two attacks, with mode="eval" and mode="keep"."""
    model, x, y, _ = problem()
    seen = []
    model.body[1].register_forward_hook(lambda module, *_: seen.append(module.training))
    model.train()
    in_eval_mode.run(model, x, y)
    assert not any(seen)
    seen.clear()
    as_it_is.run(model, x, y)
    assert all(seen)


def check_no_global_draw(attack):
    model, x, y, _ = problem()
    torch.manual_seed(11)
    before = torch.get_rng_state()
    attack.run(model, x, y)
    assert torch.equal(torch.get_rng_state(), before)


def check_it_works_with_autograd_off(attack):
    model, x, y, _ = problem()
    expected = attack(model, x, y)
    with torch.no_grad():
        assert torch.equal(attack(model, x, y), expected)
    with torch.inference_mode():
        assert torch.equal(attack(model, x.clone(), y.clone()), expected)


def attacked_where_only_clean_images_have_answers(attack):
    """The result on a model that answers NaN off the clean images, of which the first three are wrong."""
    model, x, y, _ = problem()

    def breaks_off_the_clean_images(z):
        moved = (z != x).flatten(1).any(1) if z.shape == x.shape else torch.ones(len(z), dtype=torch.bool)
        return torch.where(moved[:, None], torch.nan, 1.0) * model(z)

    result = attack.run(breaks_off_the_clean_images, x, y)
    assert result.success.tolist() == [True] * 3 + [False] * (len(x) - 3)
    assert not result.x_adv.isnan().any()
    return result


def mlp_problem(scale, n, classes, seed=0, d=12):
    """A net of two layers, images for it (n, d), and what it says of them."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(d, 24), nn.Tanh(), nn.Linear(24, classes)).double()
        for p in model.parameters():
            p.data.mul_(scale)
    x = torch.rand((n, d), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return model, x, model(x).argmax(1)


class Counting(nn.Module):
    """Counts, of the model that it wraps, batches forward and backward, and the rows of each."""

    def __init__(self, model):
        super().__init__()
        self.model, self.forwards, self.backwards, self.rows = model, 0, 0, 0

    def forward(self, x):
        self.forwards += 1
        self.rows += len(x)
        logits = self.model(x)
        if logits.requires_grad:
            logits.register_hook(self._went_back)
        return logits

    def _went_back(self, gradient):
        self.backwards += 1


def linear(w, bias=0.0):
    """Logits (0, w·z + bias): class 1 where the score is positive."""
    def model(z):
        score = z.flatten(1) @ w + bias
        return torch.stack([torch.zeros_like(score), score], 1)

    return model


def bound_problem(n=10, d=20):
    """A linear model and images of class 1 with pixels at and near 0 and 1, so far from the boundary that the box is
    in the way. Returns model, w (d,), x (n, d), height (n,): w·z must fall by that much. Pixel 0 decides it: the
    boundary of each image is another one."""
    g = torch.Generator().manual_seed(4)
    w = torch.randn(d, generator=g, dtype=torch.float64)
    x = torch.rand((n, d), generator=g, dtype=torch.float64)
    x = torch.where(torch.rand(x.shape, generator=g) < 0.3, x.round(), x)
    w[0], x[:, 0] = 0, torch.linspace(0.1, 0.9, n, dtype=torch.float64)
    height = (x * w.clamp(min=0) + (1 - x) * -w.clamp(max=0)).sum(1) * torch.linspace(0.1, 0.7, n, dtype=torch.float64)
    at = x @ w

    def model(z):
        which = ((z[:, 0].detach() - 0.1) / 0.8 * (n - 1)).round().long().clamp(0, n - 1)
        score = (z @ w) - (at - height)[which]
        return torch.stack([torch.zeros_like(score), score], 1)

    return model, w, x, height


def exact_distance(norm, z, w, height):
    """The length of the shortest change of z (d,) inside [0, 1] that lowers w·z by `height`, by solvers that share
    nothing with the library: a linear program, and a root of the optimality conditions. ∞ where there is none."""
    z, w, height = z.double().numpy(), w.double().numpy(), float(height)
    w, height = (w, height) if height >= 0 else (-w, -height)
    best = abs(w) @ (z * (w > 0) + (1 - z) * (w < 0))
    if best < height:
        return float("inf")
    d = len(z)
    if norm == "linf":  # minimize t, with −t ≤ change ≤ t
        eye, one = np.eye(d), np.ones((d, 1))
        solution = linprog([0] * d + [1], A_ub=np.block([[eye, -one], [-eye, -one]]), b_ub=[0] * 2 * d,
                           A_eq=[[*w, 0]], b_eq=[-height], bounds=[*zip(-z, 1 - z, strict=True), (0, None)])
        return float(solution.fun)

    def change(t):
        return (z - t * w).clip(0, 1) - z

    t = brentq(lambda t: w @ change(t) + height, 0, 1e9, xtol=1e-14, rtol=1e-14)
    return float(np.linalg.norm(change(t)))
