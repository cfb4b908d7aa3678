"""Whatever lies in the threat model lies in the bounds: nets of all layer kinds, points that try to get out."""

import pytest
import torch
from random_nets import ACTIVATIONS, random_net
from tries import drawn

from robustness_lib import ThreatModel
from robustness_lib.attacks import PGD
from robustness_lib.certify import crown_bounds, crown_margins, interval_bounds, interval_margins, trace

METHODS = {
    "interval": interval_bounds,
    "CROWN-IBP": lambda *args, **more: crown_bounds(*args, intermediate="interval", **more),
    "parallel": lambda *args, **more: crown_bounds(*args, slopes="parallel", **more),
    "adaptive": lambda *args, **more: crown_bounds(*args, slopes="adaptive", **more),
    "best": crown_bounds,
    "α": lambda *args, **more: crown_bounds(*args, alpha_steps=4, **more),
}
THREATS = [ThreatModel("linf", 0.03), ThreatModel("linf", 0.2), ThreatModel("l2", 0.3), ThreatModel("l2", 1.5)]


def images(seed, n=2):
    """At the edges of the box too."""
    x = torch.rand(n, 2, 6, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (x * 1.4 - 0.2).clamp(0, 1)


def violations(activation, seed, threat, count, cut=True):
    """How many points get out of the bounds, method by method; and how many were tried."""
    model, x = random_net(activation, seed), images(seed)
    network = trace(model, x)
    tried = drawn(x, threat, cut, count, torch.Generator().manual_seed(seed))
    with torch.no_grad():
        z = model(tried.flatten(0, 1)).reshape(count, len(x), -1)
        if cut:
            worst = torch.stack([PGD(threat, steps=10, stop="never")(model, x, torch.full((len(x),), label))
                                 for label in range(z.shape[2])])
            z = torch.cat([z, model(worst.flatten(0, 1)).reshape(len(worst), len(x), -1)])
    y = torch.arange(len(x)) % z.shape[2]
    margins = z.gather(2, y[None, :, None].expand(len(z), -1, 1)) - z
    out = {}
    for name, bounds in METHODS.items():
        lower, upper = bounds(network, x, threat, pixel_box=cut)
        slack = 1e-9 * torch.maximum(lower.abs(), upper.abs()).amax()
        out[name] = int(((z < lower - slack) | (z > upper + slack)).sum())
    for name, found in (("interval margins", interval_margins(network, x, y, threat, pixel_box=cut)),
                        ("margins", crown_margins(network, x, y, threat, alpha_steps=2, pixel_box=cut))):
        slack = 1e-9 * found[found.isfinite()].abs().amax()
        found[torch.arange(len(y)), y] = -torch.inf
        out[name] = int((margins < found - slack).sum())
    return out, len(z) * len(x)


@pytest.mark.parametrize("threat", THREATS, ids=str)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_nothing_gets_out(activation, threat):
    for seed in range(2):
        out, _ = violations(activation, seed + 2 * (threat.norm == "l2"), threat, 60)
        assert not any(out.values()), (seed, out)


@pytest.mark.parametrize("threat", THREATS, ids=str)
def test_nothing_gets_out_of_the_whole_ball(threat):
    for seed, activation in enumerate(("relu", "gelu", "tanh", "leaky")):
        out, _ = violations(activation, seed, threat, 60, cut=False)
        assert not any(out.values()), (seed, out)


@pytest.mark.slow
def test_nothing_gets_out_in_a_hundred_thousand_tries():
    nets = tried = 0
    for seed in range(30):
        for activation in ACTIVATIONS:
            for threat in THREATS:
                out, count = violations(activation, seed, threat, 40)
                assert not any(out.values()), (activation, seed, threat, out)
                nets, tried = nets + 1, tried + count
    assert tried >= 100_000
    print(f"{nets} nets and threats, {tried} points, no violation")


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_without_a_budget_bounds_are_the_logits(activation, norm):
    for seed in range(2):
        model, x = random_net(activation, seed), images(seed)
        with torch.no_grad():
            z = model(x)
        for name, bounds in METHODS.items():
            for bound in bounds(model, x, ThreatModel(norm, 0.0)):
                assert torch.allclose(bound, z, rtol=1e-7, atol=1e-9), name


def test_the_better_method_has_the_better_bounds():
    """By construction: CROWN's boxes are cut by intervals, α-CROWN starts from CROWN."""
    for seed in range(8):
        model, x = random_net("relu", seed), images(seed, 3)
        network, threat = trace(model, x), ThreatModel("linf", 0.05)
        width = {name: (lambda box: box.upper - box.lower)(bounds(network, x, threat))
                 for name, bounds in METHODS.items()}
        slack = 1e-9 * width["interval"].amax()
        for worse, better in (("interval", "CROWN-IBP"), ("best", "α"), ("interval", "best")):
            assert (width[better] <= width[worse] + slack).all(), (seed, worse, better)
        assert width["α"].mean() < width["best"].mean()
        assert width["best"].mean() < width["CROWN-IBP"].mean() < width["interval"].mean()


@pytest.mark.parametrize("eps", [1.0, 5.0])
def test_a_ball_as_wide_as_the_box_is_the_box(eps):
    """Then all images are allowed, whatever the ball."""
    model, x = random_net("relu", 0), images(0)
    with pytest.warns() if eps > 1 else pytest.MonkeyPatch.context():
        threat = ThreatModel("linf", eps)
    whole = interval_bounds(model, torch.full_like(x, 0.5), ThreatModel("linf", 0.5))
    for found, all_ in zip(interval_bounds(model, x, threat), whole, strict=True):
        assert torch.allclose(found, all_)


def test_the_box_counts():
    """At the edge of the box, half of the ball is no image."""
    model, x = random_net("relu", 3), torch.zeros(1, 2, 6, 6, dtype=torch.float64)
    for norm, eps in (("linf", 0.1), ("l2", 0.5)):
        cut, whole = (crown_bounds(model, x, ThreatModel(norm, eps), pixel_box=box) for box in (True, False))
        assert ((cut.upper - cut.lower) < 0.9 * (whole.upper - whole.lower)).all()
