"""Initial weights for bounds: how wide boxes are behind them, and that nothing else is touched."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from robustness_lib import ThreatModel
from robustness_lib.certify import interval_bounds
from robustness_lib.training import initialize_for_bounds, read_recipe


def deep():
    """Layers that widen and narrow in turn, so that summands and results are not as many."""
    torch.manual_seed(0)
    widths = [100, *[64, 256] * 4]
    return nn.Sequential(nn.Flatten(), *[layer for before, after in pairwise(widths) for layer in (
        nn.Linear(before, after), nn.ReLU())])


def growth(model):
    """Of the boxes' mean width, from the images to the last layer."""
    x = 0.3 + 0.4 * torch.rand(20, 1, 10, 10)
    lower, upper = interval_bounds(model, x, ThreatModel("linf", 0.01))
    return float((upper - lower).mean() / 0.02)


def test_boxes_keep_their_width():
    model = deep()
    assert growth(model) > 100
    torch.manual_seed(1)
    initialize_for_bounds(model)
    assert 0.5 < growth(model) < 2


def test_convolutions_too():
    torch.manual_seed(0)
    model = nn.Sequential(*[layer for k in range(5) for layer in (
        nn.Conv2d(1 if k == 0 else 16, 16, 3, groups=1 if k == 0 else 4), nn.ReLU())], nn.Flatten())
    x = 0.3 + 0.4 * torch.rand(4, 1, 16, 16)
    widths = []
    for _ in range(2):
        lower, upper = interval_bounds(model, x, ThreatModel("linf", 0.01))
        widths.append(float((upper - lower).mean() / 0.02))
        initialize_for_bounds(model)
    assert widths[0] > 3 * widths[1]
    assert 0.4 < widths[1] < 2.5


def test_only_weights_and_biases_of_such_layers_change():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6, bias=False), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))
    nn.init.normal_(model[1].weight)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    initialize_for_bounds(model)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"0.weight", "3.weight", "3.bias"}
    assert not model[3].bias.any()
    assert all(p.requires_grad for p in model.parameters())


def test_it_is_seeded_by_the_global_generator():
    weights = []
    for _ in range(2):
        model = deep()
        torch.manual_seed(5)
        initialize_for_bounds(model)
        weights.append(model[1].weight.clone())
    assert torch.equal(*weights)


def test_a_model_without_such_layers():
    with pytest.raises(ValueError, match="no linear layer and no convolution"):
        initialize_for_bounds(nn.Sequential(nn.Flatten(), nn.ReLU()))


@pytest.mark.parametrize("put_on", [nn.utils.parametrizations.weight_norm, nn.utils.parametrizations.spectral_norm,
                                    nn.utils.weight_norm], ids=["weight norm", "spectral norm", "hook"])
@pytest.mark.filterwarnings("ignore")
def test_weights_that_follow_from_others_are_refused(put_on):
    model = nn.Sequential(nn.Linear(4, 4), put_on(nn.Linear(4, 2)))
    before = model[0].weight.clone()
    with pytest.raises(ValueError, match="layer '1' follow from others"):
        initialize_for_bounds(model)
    assert torch.equal(model[0].weight, before)


RECIPE = """[model]
{model}
[data]
name = "signs"
[objective]
kind = "ibp"
threat = "linf:0.01"
[fit]
epochs = 1
"""


def test_a_recipe_asks_for_it(tmp_path):
    recipe = tmp_path / "net.toml"
    nets = []
    for words in ('builder = "tiny_cnn"', 'builder = "tiny_cnn"\ninitialization = "for-bounds"'):
        recipe.write_text(RECIPE.format(model=words), encoding="utf-8")
        nets.append(read_recipe(recipe).build())
    assert nets[0][0].bias.any()
    assert not nets[1][0].bias.any()
    again = read_recipe(recipe)
    assert torch.equal(again.build()[0].weight, nets[1][0].weight)
    assert again.architecture == {"builder": "tiny_cnn", "arguments": {}}


@pytest.mark.parametrize(("model", "words"), [
    ('builder = "tiny_cnn"\ninitialization = "narrow"', r"\[model\] initialization must be for-bounds"),
    ('builder = "tiny_cnn"\ninitialization = 3', r"\[model\] initialization"),
    ('name = "torchvision:resnet18"\nweights = "DEFAULT"\ninitialization = "for-bounds"',
     "initialization would draw the weights again that weights"),
])
def test_what_a_recipe_cannot_ask_for(tmp_path, model, words):
    recipe = tmp_path / "net.toml"
    recipe.write_text(RECIPE.format(model=model), encoding="utf-8")
    with pytest.raises(ValueError, match=words):
        read_recipe(recipe)
