"""Networks in which a value is one number for each image, (N,), with no axis of entries: bends, products, constants."""

import pytest
import torch
from torch import nn

from robustness_lib import ThreatModel
from robustness_lib.certify import crown_bounds, crown_margins, interval_bounds, interval_margins, verify
from robustness_lib.notebook import linear_model


class Scalars(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.left, self.right = nn.Linear(6, 5), nn.Parameter(torch.randn(5)), nn.Parameter(torch.randn(5))

    def forward(self, x):
        hidden = self.first(x.flatten(1)).relu()
        one, other = (hidden @ self.left + 0.1).relu(), torch.tanh(hidden @ self.right - 0.1)
        return torch.stack([one, other, one * other, one - other], 1)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("seed", range(3))
def test_bounds_hold(norm, seed):
    torch.manual_seed(seed)
    model, x = Scalars().double(), torch.rand(7, 1, 2, 3, dtype=torch.float64)
    y, threat = model(x).argmax(1), ThreatModel(norm, 0.1)
    boxes = [interval_bounds(model, x, threat), crown_bounds(model, x, threat)]
    margins = [interval_margins(model, x, y, threat), crown_margins(model, x, y, threat),
               crown_margins(model, x, y, threat, slopes="parallel"), crown_margins(model, x, y, threat, alpha_steps=3)]
    for _ in range(500):
        way = 2 * torch.rand(x.shape, dtype=torch.float64) - 1
        if norm == "l2":
            way = nn.functional.normalize(way.flatten(1)).reshape(x.shape)
        with torch.no_grad():
            z = model((x + 0.1 * way).clamp(0, 1))
        found = z.gather(1, y[:, None]) - z
        assert all(((low - 1e-9 <= z) & (z <= high + 1e-9)).all() for low, high in boxes)
        assert all((bound.nan_to_num(posinf=-9) <= found + 1e-9).all() for bound in margins)
    assert all(bound.isfinite().sum() == 3 * 7 for bound in margins)
    verify(model, x, y, threat)


def test_a_linear_model_is_solved():
    w = torch.tensor([2.0, -1.0], dtype=torch.float64)
    x = 0.2 + 0.6 * torch.rand(20, 2, dtype=torch.float64)
    m = x @ w - 0.2
    y = (m > 0).long()
    for threat, size in ((ThreatModel("linf", 0.1), w.abs().sum()), (ThreatModel("l2", 0.1), w.norm())):
        for how in (interval_margins, crown_margins):
            torch.testing.assert_close(how(linear_model(w, -0.2), x, y, threat).amin(1), m.abs() - 0.1 * size)
