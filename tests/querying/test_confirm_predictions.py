"""Fresh passes that a verdict rests on."""

import torch
from torch import nn

from robustness_lib import ThreatModel
from robustness_lib.querying.confirm_predictions import confirm_predictions, predict_logits


def threshold_at(value):
    """Two classes: 1 where the only pixel is above `value`."""
    return lambda x: torch.stack((torch.zeros(len(x)), x[:, 0] - value), 1)


def test_a_point_that_only_rounding_put_outside_is_judged_inside():
    x, y, threat = torch.tensor([[0.5], [0.5]], dtype=torch.float64), torch.tensor([0, 0]), ThreatModel("linf", 0.1)
    x_adv = x + threat.eps + 5e-7  # inside the tolerance of `within`
    assert threat.allows(threat.distance(x_adv, x)).all()
    assert (threshold_at(0.6 + 2e-7)(x_adv).argmax(1) != y).all()
    points, logits, wrong = confirm_predictions(threshold_at(0.6 + 2e-7), x_adv, x, y, threat, size=1)
    assert not wrong.any()  # not within ε
    assert points.max() <= 0.6
    assert logits.equal(threshold_at(0.6 + 2e-7)(points))
    assert confirm_predictions(threshold_at(0.55), x_adv, x, y, threat, size=1)[2].all()


def test_nan_is_never_wrong():
    x, y = torch.full((2, 1), 0.5), torch.tensor([1, 1])

    def model(x):
        return torch.stack((torch.full((len(x),), torch.nan), x[:, 0]), 1)

    assert not confirm_predictions(model, x, x, y, ThreatModel("linf", 0.1), size=2)[2].any()


def test_within_allows_rounding_and_no_more():
    threat = ThreatModel("linf", 0.1)
    distances = torch.tensor([0.0, 0.1, 0.1 + 1e-6, 0.1 + 3e-6, torch.nan], dtype=torch.float64)
    assert threat.allows(distances).tolist() == [True, True, True, False, False]


def test_batches_modes_and_means():
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 3))
    x = torch.rand(7, 4)
    torch.testing.assert_close(predict_logits(model, x, size=2), predict_logits(model, x, size=7))
    assert model.training
    one, many = predict_logits(model, x, size=7, mode="keep"), predict_logits(model, x, size=7, mode="keep", draws=400)
    exact = predict_logits(model, x, size=7)
    assert (many - exact).abs().mean() < (one - exact).abs().mean() / 4
