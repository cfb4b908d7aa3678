"""A linear net's smoothed share is known: Φ of the signed distance to its line, over σ."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import ndtr
from torch import nn

from robustness_lib import models
from robustness_lib.widgets._smoothed_plane import predicted, smoothed_boundary, smoothed_share

NORMAL, OFFSET = np.array([0.6, 0.8]), 0.65  # class 1 where 0.6 across + 0.8 up > 0.65


@pytest.fixture
def linear() -> nn.Module:
    layer = nn.Linear(2, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.0, 0.0], (3 * NORMAL).tolist()]))
        layer.bias.copy_(torch.tensor([0.0, -3 * OFFSET]))
    return layer


def test_rows_run_up_and_columns_across(linear: nn.Module) -> None:
    across, up = np.linspace(0, 1, 7), np.linspace(0, 1, 5)
    expected = NORMAL[0] * across + NORMAL[1] * up[:, None] > OFFSET
    assert (predicted(linear, across, up) == expected).all()


@pytest.mark.parametrize("sigma", [0.01, 0.06, 0.3])
def test_a_linear_nets_share_is_phi_of_the_distance(linear: nn.Module, sigma: float) -> None:
    ticks = np.linspace(0, 1, 11)
    signed = NORMAL[0] * ticks + NORMAL[1] * ticks[:, None] - OFFSET
    assert np.abs(smoothed_share(linear, sigma, ticks) - ndtr(signed / sigma)).max() < 0.01


def test_smoothing_leaves_a_linear_nets_boundary_where_it_is(linear: nn.Module) -> None:
    (line,) = smoothed_boundary(linear, 0.06)
    assert np.abs(line @ NORMAL - OFFSET).max() < 0.002
    assert (line.min(axis=0) < 0.01).any()
    assert (line.max(axis=0) > 0.99).any()


def test_votes_on_the_boundary_are_tied() -> None:
    model = models.load_pretrained("moons-standard")
    torch.manual_seed(0)
    (line,) = smoothed_boundary(model, 0.12)
    for point in line[20:-1:40]:
        votes = torch.from_numpy(point).float() + 0.12 * torch.randn(20_000, 2)
        with torch.no_grad():
            share = model(votes).argmax(1).double().mean().item()
        assert abs(share - 0.5) < 0.02  # the bare net says one thing there, and the noise another


def test_more_than_two_classes_are_refused() -> None:
    with pytest.raises(ValueError, match="two classes"):
        smoothed_boundary(nn.Linear(2, 3), 0.1)
