import itertools

import pytest
import torch
from torch import nn

from robustness_lib import ThreatModel
from robustness_lib.certify import crown_margins, trace
from robustness_lib.models import build, knob_cnn
from robustness_lib.models.knobs import ACTIVATIONS, POOLINGS
from robustness_lib.training import PGDTraining

IMAGES = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def made(seed=0, **knobs):
    torch.manual_seed(seed)
    return knob_cnn(**knobs).eval()


def shapes(model):
    return [tuple(p.shape) for p in model.parameters()]


def kinds(model, *wanted):
    return [type(layer) for layer in model.modules() if isinstance(layer, wanted)]


def test_parameters_by_hand():
    stem, block = 3 * 8 * 9 + 2 * 8, 2 * (8 * 8 * 9 + 2 * 8)
    second = 8 * 16 * 9 + 2 * 16 + 2 * (16 * 16 * 9 + 2 * 16)
    third = 16 * 32 * 9 + 2 * 32 + 2 * (32 * 32 * 9 + 2 * 32)
    linear = 32 * 4 * 4 * 10 + 10
    assert sum(p.numel() for p in made().parameters()) == stem + block + second + third + linear == 35_634


def test_parameters_by_hand_of_another():
    """Kernel 5, no batch norm (so biases), no blocks, one channel, images of 16 × 24, three classes."""
    model = made(width=4, depth=0, kernel_size=5, batch_norm=False, in_shape=(1, 16, 24), classes=3)
    expected = (25 * 4 + 4) + (4 * 25 * 8 + 8) + (8 * 25 * 16 + 16) + (16 * 2 * 3 * 3 + 3)
    assert sum(p.numel() for p in model.parameters()) == expected
    assert model(torch.rand(2, 1, 16, 24)).shape == (2, 3)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("kernel_size", [1, 3, 5, 7])
def test_each_stage_halves_the_image(pooling, kernel_size):
    model, sizes = made(pooling=pooling, kernel_size=kernel_size), []
    hooks = [layer.register_forward_hook(lambda _, __, out: sizes.append(tuple(out.shape[1:])))
             for layer in model if isinstance(layer, nn.Conv2d) or hasattr(layer, "residual")]
    assert model(IMAGES).shape == (4, 10)
    assert sizes[1::2] == [(8, 16, 16), (16, 8, 8), (32, 4, 4)]  # what leaves the blocks
    for hook in hooks:
        hook.remove()


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_depth_adds_blocks_of_two_convolutions_to_each_stage(depth):
    assert len(kinds(made(depth=depth), nn.Conv2d)) == 3 + 6 * depth


def test_width_scales_every_stage():
    channels = [layer.out_channels for layer in made(width=5, depth=1).modules() if isinstance(layer, nn.Conv2d)]
    assert channels == [5, 5, 5, 10, 10, 10, 20, 20, 20]


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_changes_only_the_activations(name):
    ours, base = made(activation=name), made()
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), base.parameters(), strict=True))
    assert kinds(ours, *ACTIVATIONS.values()) == [ACTIVATIONS[name]] * 9
    assert torch.equal(ours(IMAGES), base(IMAGES)) == (name == "relu")


def test_pooling_changes_only_how_stages_halve():
    nets = {name: made(pooling=name) for name in POOLINGS}
    for a, b in itertools.combinations(nets.values(), 2):
        assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))
        assert not torch.allclose(a(IMAGES), b(IMAGES))
    assert kinds(nets["max"], nn.MaxPool2d, nn.AvgPool2d) == [nn.MaxPool2d] * 3
    assert kinds(nets["average"], nn.MaxPool2d, nn.AvgPool2d) == [nn.AvgPool2d] * 3
    assert kinds(nets["stride"], nn.MaxPool2d, nn.AvgPool2d) == []
    strides = {name: [layer.stride[0] for layer in model.modules() if isinstance(layer, nn.Conv2d)]
               for name, model in nets.items()}
    assert strides["max"] == strides["average"] == [1] * 9
    assert strides["stride"] == [2, 1, 1] * 3


def test_kernel_size_changes_only_the_kernels():
    assert [shape[:2] for shape in shapes(made(kernel_size=7))] == [shape[:2] for shape in shapes(made())]
    assert {layer.kernel_size for layer in made(kernel_size=7).modules() if isinstance(layer, nn.Conv2d)} == {(7, 7)}


def test_batch_norm_follows_every_convolution_and_takes_the_place_of_its_bias():
    with_norm = kinds(made(), nn.Conv2d, nn.BatchNorm2d)
    assert with_norm == [nn.Conv2d, nn.BatchNorm2d] * 9
    assert kinds(made(batch_norm=False), nn.BatchNorm2d) == []
    for batch_norm in (True, False):
        convolutions = [layer for layer in made(batch_norm=batch_norm).modules() if isinstance(layer, nn.Conv2d)]
        assert all((layer.bias is None) == batch_norm for layer in convolutions)


def silence_blocks(model):
    """The last batch norm of each block to nothing, so that a block adds 0."""
    for block in (layer for layer in model if hasattr(layer, "residual")):
        nn.init.zeros_(block.inside[-1].weight)
    return model


def test_a_block_that_adds_nothing_is_as_if_it_were_not_there():
    deep, shallow = silence_blocks(made(depth=2)), made(depth=0)
    mine = [layer for layer in deep if not hasattr(layer, "residual")]
    for ours, theirs in zip(mine, shallow, strict=True):
        theirs.load_state_dict(ours.state_dict())
    assert torch.allclose(deep(IMAGES), shallow(IMAGES), atol=1e-6)


def test_without_the_addition_the_same_weights_let_nothing_through():
    broken = silence_blocks(made(depth=2, residual=False))
    assert shapes(broken) == shapes(made(depth=2))
    assert torch.allclose(broken(IMAGES), broken(IMAGES)[:1].expand(4, -1))  # every image gets the same answer
    assert all(torch.equal(p, q) for p, q in zip(made(residual=False).parameters(), made().parameters(), strict=True))
    assert not torch.allclose(made(residual=False)(IMAGES), made()(IMAGES))


@pytest.mark.parametrize("knobs", [{}, {"activation": "silu"}, {"pooling": "average", "batch_norm": False}])
def test_bounds_pass_it(knobs):
    model = made(width=2, in_shape=(1, 8, 8), **knobs)
    x, y, threat = torch.rand(3, 1, 8, 8), torch.tensor([0, 1, 2]), ThreatModel("linf", 0.02)
    margins = crown_margins(trace(model, x), x, y, threat)
    logits = model(threat.random_point(x, seed=0, index=torch.arange(3)))
    others = logits.gather(1, y[:, None]) - logits
    assert (margins.amin(1) <= others.scatter(1, y[:, None], torch.inf).amin(1) + 1e-5).all()


def test_cards_and_recipes_can_name_it():
    model = build({"builder": "knob_cnn", "arguments": {"width": 4, "activation": "silu"}})
    PGDTraining(ThreatModel("linf", 0.01), steps=1)(model.train(), IMAGES, torch.tensor([0, 1, 2, 3])).backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize(("knobs", "words"), [
    ({"width": 0}, "width must be at least 1"), ({"depth": -1}, "depth at least 0"),
    ({"activation": "tanh"}, "relu, silu, softplus; found 'tanh'"), ({"pooling": "mean"}, "max, average, stride"),
    ({"kernel_size": 4}, "must be odd"), ({"kernel_size": -1}, "must be odd"),
    ({"in_shape": (3, 28, 32)}, "multiples of 8"),
])
def test_what_cannot_be_built_is_refused_in_words(knobs, words):
    with pytest.raises(ValueError, match=words):
        knob_cnn(**knobs)
