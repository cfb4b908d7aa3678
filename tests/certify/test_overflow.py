"""Numbers too large for their type: then nothing is known, and nothing is proved."""

import pytest
import torch
from torch import nn

from robustness_lib import ThreatModel
from robustness_lib.certify import crown_bounds, crown_margins, interval_bounds, interval_margins, verify

LINF = ThreatModel("linf", 0.1)


@pytest.fixture(params=[nn.ReLU, nn.Tanh, nn.GELU])
def overflowing(request):
    """Bounds of its logits overflow float32; the logits themselves do not."""
    torch.manual_seed(0)
    layers = [nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 16), request.param()]
    for _ in range(6):
        layers += [nn.Linear(16, 16), nn.ReLU()]
    model, x = nn.Sequential(*layers, nn.Linear(16, 3)).eval(), torch.rand(3, 2)
    with torch.no_grad():
        for layer in layers[-2::-2][:3]:
            layer.weight.mul_(1e9)
        layers[-2].weight.mul_(1e38 / model(x).abs().max())
        assert model(x).isfinite().all()
    assert not interval_bounds(model, x, LINF).upper.isfinite().all()
    return model, x


def test_bounds_are_numbers_and_hold(overflowing):
    model, x = overflowing
    points = LINF.project(x + LINF.eps * torch.randn(200, *x.shape), x)
    with torch.no_grad():
        z = model(points.flatten(0, 1)).reshape(200, *x.shape[:1], 3)
    for bounds in (interval_bounds, crown_bounds):
        lower, upper = bounds(model, x, LINF)
        assert not lower.isnan().any()
        assert not upper.isnan().any()
        slack = 1e-5 * z.abs().amax()
        assert (lower <= z + slack).all()
        assert (z <= upper + slack).all()


def test_nothing_is_proved_that_is_not_so(overflowing):
    model, x = overflowing
    y = model(x).argmax(1)
    for margins in (interval_margins, crown_margins):
        assert not margins(model, x, y, LINF).isnan().any()
    exact = verify(model.double(), x.double(), y, LINF)
    found = verify(model.float(), x, y, LINF)
    assert not (found.are("robust") & ~exact.are("robust")).any()
