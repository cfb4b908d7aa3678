"""Operations drawn at random, one behind the other, with weights between: nothing gets out of any bound."""

import random

import pytest
import torch
from operation_cases import AFFINE, BENT, IMAGE, JUMPS
from torch import nn
from tries import descended, drawn

from robustness_lib import ThreatModel
from robustness_lib.certify import crown_bounds, crown_margins, interval_bounds, interval_margins, trace
from robustness_lib.certify._rounding import rounding_tolerance
from robustness_lib.certify.enclosure import Enclosure
from robustness_lib.certify.input_region import InputRegion

OPERATIONS = [[case for case in kind if case.shape == IMAGE and case.name not in JUMPS] for kind in (BENT, AFFINE)]
METHODS = [{"intermediate": "interval"}, {"slopes": "parallel"}, {"slopes": "adaptive"}, {}, {"alpha_steps": 2}]


class Chain(nn.Module):
    """Operations on images, each followed by a linear layer that makes an image of what it returns: to three logits.
    Some layers are all zero, some so large that what follows is saturated."""

    def __init__(self, seed):
        super().__init__()
        draw = random.Random(seed)
        self.cases = [draw.choice(draw.choice(OPERATIONS)) for _ in range(draw.choice((1, 2, 3)))]
        self.operations = nn.ModuleList(case.call for case in self.cases if isinstance(case.call, nn.Module))
        sizes = [case.size() for case in self.cases]
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.first = nn.Linear(144, 144)
            self.between = nn.ModuleList(nn.Linear(size, 144) for size in sizes)
            self.last = nn.Linear(144, 3)
        for layer in (self.first, *self.between):
            with torch.no_grad():
                layer.weight.mul_(draw.choice((0, 1, 2, 4, 4, 4, 20)))
        self.double().eval()

    def forward(self, x):
        v = self.first(x.flatten(1)).view(-1, *IMAGE)
        for case, layer in zip(self.cases, self.between, strict=True):
            v = layer(case.call(v).reshape(x.shape[0], -1)).view(-1, *IMAGE)
        return self.last(v.flatten(1))


def violations(seed, tries):
    """What got out of the bounds of one chain, and how many images were tried."""
    draw, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    model, x = Chain(seed), torch.rand((2, *IMAGE), generator=generator, dtype=torch.float64)
    x[1] = torch.where(torch.rand(IMAGE, generator=generator) < 0.8, x[1].round(), x[1])
    threat = draw.choice([ThreatModel("linf", eps) for eps in (0.0, 0.01, 0.05, 0.2, 1.0)]
                         + [ThreatModel("l2", eps) for eps in (0.0, 0.1, 0.5, 2.0, 12.0)])
    pixel_box = draw.random() < 0.7
    points = torch.cat([drawn(x, threat, pixel_box, tries, generator),
                        descended(model, x, threat, pixel_box, generator)])
    with torch.no_grad():
        z = model(points.flatten(0, 1)).reshape(len(points), 2, 3)
    y, network, name = z[0].argmax(1), trace(model, x), [case.name for case in model.cases]
    margins = (z.gather(2, y[None, :, None].expand(len(z), -1, 1)) - z)
    # Where huge terms cancel inside, what rounding may do, as `verify` has it.
    size = z[z.isfinite()].abs().amax()  # an exponential may overflow: then any bound is right that is no number either
    enclosure = Enclosure.by_intervals(network, InputRegion(x, threat, pixel_box))
    slack = 1e-9 * size + rounding_tolerance(enclosure, 1e-12)[:, None]
    out = []
    for settings in (None, *METHODS):
        bounds, below = (interval_bounds, interval_margins) if settings is None else (crown_bounds, crown_margins)
        lower, upper = bounds(network, x, threat, pixel_box=pixel_box, **settings or {})
        least = below(network, x, y, threat, pixel_box=pixel_box, **settings or {}).scatter(1, y[:, None], -torch.inf)
        if bool((z < lower - slack).any() | (z > upper + slack).any() | (margins < least - 2 * slack).any()):
            out.append((seed, name, str(threat), pixel_box, settings,
                        float(torch.stack([lower - z, z - upper, least - margins]).max() / size)))
        if threat.eps == 0 and not torch.allclose(lower, z[0], atol=float(100 * slack.amax())):
            out.append((seed, name, "without room, bounds are not the logits", settings))
    return out, 2 * len(points)


@pytest.mark.parametrize("first", range(0, 60, 10))
def test_nothing_gets_out_of_a_chain(first):
    assert [out for seed in range(first, first + 10) for out in violations(seed, 20)[0]] == []


@pytest.mark.slow
def test_nothing_gets_out_of_thousands_of_chains():
    tried, out = 0, []
    for seed in range(1000, 3000):
        found, count = violations(seed, 60)
        out, tried = out + found, tried + count
    print(f"2000 nets, {tried} images tried, {len(out)} violations")
    assert tried >= 100_000
    assert out == []
