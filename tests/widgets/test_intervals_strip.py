"""The printed twin of the live intervals."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from robustness_lib import ThreatModel
from robustness_lib.certify import interval_bounds, interval_margins
from robustness_lib.widgets import intervals_strip

CLASSES = ["a", "b", "c", "d", "e"]


def test_bars_are_the_boxes_and_hold_the_dots(model: nn.Sequential, image: Tensor) -> None:
    label = int(model(image[None]).argmax())
    epsilons = (0.0, 1e-4, 0.01)
    figure = intervals_strip({"net": model}, image, label, CLASSES, epsilons)
    assert figure.get_figwidth() == 4.5
    assert figure._repr_png_().startswith(b"\x89PNG")
    for eps, axes in zip(epsilons, figure.axes, strict=True):
        lower, upper = interval_bounds(model, image[None], ThreatModel("linf", eps))
        low, high = axes.get_xlim()
        for bar, a, b in zip(axes.patches, lower[0], upper[0], strict=True):
            assert bar.get_x() == pytest.approx(max(low, float(a)), abs=1e-5)
            assert bar.get_x() + bar.get_width() == pytest.approx(min(high, float(b)), abs=1e-5)
        for dot, a, b in zip(axes.collections[0].get_offsets(), lower[0], upper[0], strict=True):
            assert float(a) - 1e-5 <= dot[0] <= float(b) + 1e-5


def test_its_words_are_the_bounds(model: nn.Sequential, image: Tensor) -> None:
    label = int(model(image[None]).argmax())
    small, large = 1e-4, 1.0
    assert bool(interval_margins(model, image[None], torch.tensor([label]), ThreatModel("linf", small)).amin() > 0)
    figure = intervals_strip({"net": model}, image, label, CLASSES, (small, large))
    assert figure.axes[0].get_title() == "net: proved"
    assert figure.axes[1].get_title() in ("open", "broken")
    assert "net: proved up to ε = 0.0255/255" in " ".join(figure.texts[0].get_text().split())
    wrong = intervals_strip({"net": model}, image, (label + 1) % 5, CLASSES, (0.0,))
    assert wrong.axes[0].get_title() == "net: wrong"
    assert "never proved" in " ".join(wrong.texts[0].get_text().split())


def test_open_where_the_bound_does_not_decide(image: Tensor) -> None:
    """The same value comes by two ways and goes out again: intervals take it for two."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(432, 2), nn.ReLU(), nn.Linear(2, 1), nn.ReLU(), nn.Linear(1, 5))
    with torch.no_grad():
        for layer in (net[1], net[3], net[5]):
            layer.bias.zero_()
        net[1].weight.fill_(1 / 432)
        net[3].weight.copy_(torch.tensor([[1.0, -1.0]]))  # always 0
        net[5].weight.copy_(torch.tensor([[-1.0], [0.0], [0.0], [0.0], [0.0]]))
        net[5].bias[0] = 0.1
    figure = intervals_strip({"net": net}, image, 0, CLASSES, (0.01, 0.2))
    assert [axes.get_title() for axes in figure.axes] == ["net: proved", "open"]


def test_nothing_to_draw(model: nn.Sequential, image: Tensor) -> None:
    with pytest.raises(ValueError, match="found 0 and 4"):
        intervals_strip({}, image, 0, CLASSES)
    with pytest.raises(ValueError, match="found 1 and 0"):
        intervals_strip({"net": model}, image, 0, CLASSES, ())
    with pytest.raises(ValueError, match="2 class names, and net has 5 logits"):
        intervals_strip({"net": model}, image, 0, ["a", "b"])


def test_the_model_is_asked_in_eval_mode_and_left_as_it_was(image: Tensor) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.9), nn.Flatten(),
                        nn.Linear(400, 5)).train()
    before = net[1].running_mean.clone()
    titles = {intervals_strip({"net": net}, image, 0, ["$\\fra$", *CLASSES[1:]], (0.001,)).axes[0].get_title()
              for _ in range(4)}
    assert len(titles) == 1
    assert torch.equal(net[1].running_mean, before)
    assert net.training


def test_dollars_in_class_names_are_no_formulas(model: nn.Sequential, image: Tensor) -> None:
    assert intervals_strip({"net": model}, image, 0, ["$\\fra$", *CLASSES[1:]], (0.001,))._repr_png_()
