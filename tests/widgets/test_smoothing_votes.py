"""What Python sends to the page, and what it refuses; the numbers and the controls are tested in a browser
(tests/book)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from robustness_lib import data, models, plotting, widgets
from robustness_lib.widgets import smoothing_votes

FOLDER = Path(widgets.__file__).parent


def mlp(*layers: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(*layers) if layers else nn.Sequential(
        nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 4, bias=False), nn.ReLU(), nn.Linear(4, 2))


def test_weights_arrive_bit_for_bit() -> None:
    net = mlp()
    widget = smoothing_votes(net)
    assert widget.widths == [2, 3, 4, 2]
    expected = [net[0].weight, net[0].bias, net[2].weight, torch.zeros(4), net[4].weight, net[4].bias]
    numbers = np.frombuffer(widget.weights, "<f4")
    assert numbers.tolist() == torch.cat([value.detach().flatten() for value in expected]).tolist()


def test_without_arguments_it_shows_the_moons() -> None:
    widget = smoothing_votes()
    x, y, classes = data.load("moons", "test", n=200)
    assert np.frombuffer(widget.points, "<f4").tolist() == x.flatten().tolist()
    assert widget.labels == y.tolist()
    assert widget.classes == list(classes)
    assert widget.widths == [2, 64, 64, 2]
    assert len(widget.boundaries) == len(widget.sigmas) == 3
    assert all(0 <= value <= 1 for lines in widget.boundaries for line in lines for point in line for value in point)


def test_regions_are_the_bare_nets_answers_row_by_row_from_above() -> None:
    bits = np.unpackbits(np.frombuffer(smoothing_votes().regions, np.uint8)).reshape(256, 256)
    model = models.load_pretrained("moons-standard")
    for row, column in ((0, 0), (10, 128), (128, 40), (128, 90), (200, 170), (255, 255)):
        point = torch.tensor([[(column + 0.5) / 256, 1 - (row + 0.5) / 256]])
        assert bits[row, column] == model(point).argmax(1).item()
    assert 0.3 < bits.mean() < 0.7


def test_the_page_stays_light() -> None:
    widget = smoothing_votes()
    sent = sum(len(part) for part in (widget.weights, widget.regions, widget.points, widget._esm, widget._css))
    assert sent + len(json.dumps(widget.boundaries)) < 100_000


def test_the_model_and_the_points_are_as_they_were() -> None:
    net = mlp().train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    x = torch.rand(5, 2)
    kept = x.clone()
    smoothing_votes(net, x, [0, 1, 0, 1, 0])
    assert torch.equal(x, kept)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert net.training
    assert all(parameter.requires_grad and parameter.grad is None for parameter in net.parameters())


@pytest.mark.parametrize(
    "net",
    [
        nn.Linear(2, 3), mlp(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), mlp(nn.Linear(2, 4), nn.Linear(4, 2)),
        mlp(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 2)), mlp(nn.Linear(2, 2), nn.ReLU()), mlp(nn.Flatten()),
        nn.Sequential(), mlp(nn.Linear(2, 4), nn.ReLU(), nn.ReLU(), nn.Linear(4, 2)), models.tiny_cnn(),
    ],
)
def test_another_net_than_an_mlp_of_the_plane_is_refused(net: nn.Module) -> None:
    with pytest.raises(TypeError, match=r"MLP of the plane.* found"):
        smoothing_votes(net)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.rand(4, 2)}, "both points and labels"),
        ({"x": torch.rand(4, 3), "y": [0, 1, 0, 1]}, r"points \(N, 2\)"),
        ({"x": torch.rand(4, 2), "y": [0, 1]}, "2 labels"),
        ({"x": torch.rand(2, 2), "y": [0, 2]}, r"among \[0, 2\]"),
        ({"x": torch.full((1, 2), 1.5), "y": [0]}, "unit square"),
        ({"classes": ["one", "two", "three"]}, "two class names"),
        ({"sigmas": []}, "sigmas"),
        ({"sigmas": [0.1, 0]}, "sigmas"),
        ({"counting": [100, 9]}, "10 must count"),
        ({"counting": []}, "10 must count"),
        ({"choosing": 0}, "at least 1 vote must choose"),
        ({"alpha": 0.0}, "alpha"),
        ({"alpha": 1.0}, "alpha"),
        ({"start": (0.5, 1.5)}, "start"),
    ],
)
def test_wrong_input_is_refused_in_words(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        smoothing_votes(**change)


def test_the_least_number_of_votes_can_certify() -> None:
    smoothing_votes(mlp(), counting=[10], alpha=0.001)  # 0.001^(1/10) = 0.501


def test_colours_are_the_books() -> None:
    code = (FOLDER / "smoothing_picture.js").read_text(encoding="utf-8")
    style = (FOLDER / "smoothing_votes.css").read_text(encoding="utf-8")
    strip = (FOLDER / "smoothing_strip.py").read_text(encoding="utf-8")
    for text in (code, style, strip):
        assert plotting.BLUE in text
        assert plotting.ORANGE in text
    assert plotting.RED in code
