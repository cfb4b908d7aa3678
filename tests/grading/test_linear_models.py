"""Linear models are what they say, and draw no random numbers but their own."""

import pytest
import torch

from robustness_lib.grading.linear_models import (
    linear_classifier,
    linear_layer,
    linear_scores,
    points_at,
    slope_and_offset,
)


def test_a_layer_has_the_numbers_that_it_is_given_and_draws_none():
    weight, bias = torch.arange(6.0, dtype=torch.float64).reshape(3, 2).T, torch.tensor([1.0, -1.0]).double()
    before = torch.get_rng_state()
    layer = linear_layer(weight, bias)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(layer(torch.tensor([[1.0, 2.0, 3.0]]).double()), torch.tensor([[17.0, 21.0]]).double())
    layer.weight.data.zero_()
    assert weight.any()


def test_points_lie_at_the_distance_that_they_should():
    w, distances = torch.randn(3, 5, 5, generator=torch.Generator().manual_seed(1)), torch.tensor([0.1, -0.4, 0.0])
    x = points_at(distances, w, 0.7)
    assert ((x * w).sum((1, 2, 3)) + 0.7).div(w.norm()).tolist() == pytest.approx(distances.tolist(), abs=1e-5)
    logits = linear_classifier(w, 0.7)(x)
    assert (logits[:, 1] - logits[:, 0]).div(w.norm()).tolist() == pytest.approx(distances.tolist(), abs=1e-5)


def test_slope_and_offset_are_those_of_the_margin():
    w, b = slope_and_offset(linear_classifier(torch.tensor([[2.0, -1.0]]), 0.3))
    assert w.tolist() == [2, -1]
    assert b.item() == pytest.approx(0.3)
    model = linear_scores((1, 2, 3), 2, torch.Generator().manual_seed(0)).eval()
    x, (w, b) = torch.rand(4, 1, 2, 3), slope_and_offset(model)
    scores = model(x)
    assert torch.allclose(scores[:, 1] - scores[:, 0], x.flatten(1) @ w + b, atol=1e-6)
