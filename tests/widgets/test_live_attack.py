"""What Python sends to the page, and what it refuses; the numbers are tested in a browser (tests/book)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from robustness_lib.widgets import live_attack


def test_weights_and_images_arrive_bit_for_bit(model: nn.Sequential, image: Tensor) -> None:
    widget = live_attack({"one": model, "two": nn.Sequential(nn.Flatten(), nn.Linear(432, 5, bias=False))},
                         image[None], torch.tensor([3]))
    assert widget.names == ["one", "two"]
    assert widget.shape == [3, 12, 12]
    assert widget.classes == list("01234")
    assert np.frombuffer(widget.images, np.uint8).tolist() == (image * 255).round().flatten().int().tolist()
    numbers = np.frombuffer(widget.weights, "<f4")
    conv, relu, flatten, linear = widget.networks[0]
    assert [layer["kind"] for layer in widget.networks[0]] == ["conv", "relu", "flatten", "linear"]
    assert (conv["inShape"], conv["outShape"]) == ([3, 12, 12], [4, 5, 5])
    assert (conv["kernel"], conv["stride"], conv["padding"]) == ([3, 3], [2, 2], [0, 0])
    for layer, module in ((conv, model[0]), (linear, model[3])):
        for name in ("weight", "bias"):
            offset, length = layer[name]
            assert (numbers[offset : offset + length] == getattr(module, name).detach().numpy().ravel()).all()
    offset, length = widget.networks[1][1]["bias"]
    assert (numbers[offset : offset + length] == np.zeros(5)).all()
    assert "weight" not in relu
    assert "weight" not in flatten


@pytest.mark.parametrize(
    ("layer", "named"),
    [
        (nn.BatchNorm2d(3), "broken.0: BatchNorm2d"),
        (nn.Conv2d(3, 3, 3, dilation=2), "broken.0: Conv2d"),
        (nn.Conv2d(3, 3, 3, groups=3), "broken.0: Conv2d"),
        (nn.Conv2d(3, 3, 3, padding="same"), "broken.0: Conv2d"),
        (nn.Conv2d(3, 3, 3, padding=1, padding_mode="reflect"), "broken.0: Conv2d"),
        (nn.Sequential(nn.ReLU(), nn.MaxPool2d(2)), "broken.0.1: MaxPool2d"),
    ],
)
def test_a_layer_that_the_page_cannot_run_is_named(image: Tensor, layer: nn.Module, named: str) -> None:
    broken = nn.Sequential(layer, nn.Flatten(), nn.LazyLinear(5))
    with pytest.raises(TypeError, match=named):
        live_attack({"broken": broken}, image[None], [0])


class Scaled(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward((x - 0.5) / 0.02)


class OwnLinear(nn.Linear):
    pass


def hooked() -> nn.Sequential:
    net = nn.Sequential(nn.Flatten(), nn.Linear(432, 5))
    net[1].register_forward_hook(lambda layer, inputs, output: 2 * output)
    return nn.Sequential(net)


@pytest.mark.parametrize(("net", "message"), [
    (Scaled(nn.Flatten(), nn.Linear(432, 5)), "forward of its own"),
    (nn.Sequential(Scaled(nn.Flatten(), nn.Linear(432, 5))), "forward of its own"),
    (nn.Sequential(nn.Flatten(), OwnLinear(432, 5)), "OwnLinear"),
    (nn.Sequential(nn.Linear(12, 3), nn.ReLU(), nn.Flatten(), nn.Linear(108, 5)), "the page cannot run layer net.0"),
    (nn.Sequential(nn.Flatten()), "float32 or float64; found None"),
    (nn.Sequential(nn.Flatten(), nn.Linear(432, 5)).bfloat16(), "float32 or float64; found torch.bfloat16"),
], ids=["own-forward", "inside", "own-layer", "linear-on-axes", "no-weights", "bfloat16"])
def test_what_is_more_than_its_layers_is_refused(image: Tensor, net: nn.Module, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        live_attack({"net": net}, image[None], [0])


def test_a_hook_is_part_of_a_model_that_the_page_does_not_know(image: Tensor) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(432, 5))
    net.register_forward_hook(lambda model, inputs, output: 2 * output)
    with pytest.raises(TypeError, match="forward of its own, or hooks"):
        live_attack({"net": net}, image[None], [0])
    with pytest.raises(TypeError, match=r"layer net\.0\.1 has hooks"):
        live_attack({"net": hooked()}, image[None], [0])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e39])
def test_weights_that_are_no_numbers_are_refused(image: Tensor, value: float) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(432, 5)).double()
    with torch.no_grad():
        net[1].weight[0, 0] = value
    with pytest.raises(ValueError, match=r"layer net\.1 are no finite numbers"):
        live_attack({"net": net}, image[None], [0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"models": {}}, "at least one model"),
        ({"images": torch.zeros(3, 12, 12)}, "N labels"),
        ({"labels": [0, 1]}, "2 labels"),
        ({"labels": [5]}, "fit together"),
        ({"labels": [0.7]}, "labels must be whole numbers"),
        ({"labels": torch.tensor([0.7])}, "labels must be whole numbers"),
        ({"models": {"one": nn.Sequential(nn.Flatten(), nn.Linear(432, 1))}}, "1 class names"),
        ({"images": torch.full((1, 3, 12, 12), torch.nan)}, "normalization"),
        ({"classes": ["stop", "go"]}, "fit together"),
        ({"images": torch.full((1, 3, 12, 12), 1.5)}, "normalization"),
        ({"images": torch.zeros(1, 3, 12, 12, dtype=torch.uint8)}, "floating point"),
        ({"max_level": 0}, "max_level"),
        ({"level": -1}, "level must be at least 0"),
        ({"level": 9, "max_level": 8}, "0 to max_level = 8; found 9"),
    ],
)
def test_wrong_input_is_refused_in_words(
    model: nn.Sequential, image: Tensor, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        live_attack(**{"models": {"m": model}, "images": image[None], "labels": [0], **change})


def test_the_images_are_as_they_were_and_may_be_left_outside_by_rounding(image: Tensor) -> None:
    """Also where the first layer works in place; its answers are the labels."""
    shape = image.shape if image.ndim == 3 else image.shape[1:]
    net = nn.Sequential(nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(int(torch.tensor(shape).prod()), 3)).eval()
    images = image.reshape(1, *shape).clamp(0.01, 0.99)
    images[0, 0, 0, 0], images[0, 0, 0, 1] = -3e-8, 1.0000001
    before = images.clone()
    widget = live_attack({"net": net}, images)
    assert torch.equal(images, before)
    assert np.frombuffer(widget.images, np.uint8)[:2].tolist() == [0, 255]
