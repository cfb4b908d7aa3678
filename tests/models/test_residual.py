"""WideResNet and PreAct-ResNet-18: what they are made of, what a block computes, and what they take."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from robustness_lib import ThreatModel, data, models
from robustness_lib.certify import crown_margins, interval_bounds, trace
from robustness_lib.models import preact_resnet18, wide_resnet
from robustness_lib.models.residual import PreActivationResNet
from robustness_lib.training import OneCycle, PGDTraining, fit


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def by_hand(stem: int, widths: list[int], blocks: int, in_channels: int, classes: int, last_norm: bool = True) -> int:
    """Convolutions without bias, two numbers per channel of each batch norm, shortcuts where the width changes."""
    count, before = 9 * in_channels * stem, stem
    for width in widths:
        for _ in range(blocks):
            count += 2 * before + 9 * before * width + 2 * width + 9 * width * width
            count += before * width if before != width else 0
            before = width
    return count + (2 * before if last_norm else 0) + before * classes + classes


@pytest.mark.parametrize(("make", "count", "figure"), [
    (lambda: wide_resnet(28, 10), 36_479_194, "36.48"), (lambda: wide_resnet(34, 10), 46_160_474, "46.16"),
    (lambda: preact_resnet18(), 11_172_170, "11.17"), (lambda: preact_resnet18(final_norm=False), 11_171_146, "11.17"),
])
def test_they_have_the_published_numbers_of_parameters(make, count, figure):
    with torch.device("meta"):  # nothing is drawn
        model = make()
    assert parameters(model) == count
    assert f"{count / 1e6:.2f}" == figure


@pytest.mark.parametrize(("depth", "width", "in_channels", "classes"), [(10, 1, 3, 10), (16, 2, 1, 3), (22, 3, 4, 2)])
def test_parameters_of_other_sizes_by_hand(depth, width, in_channels, classes):
    model = wide_resnet(depth, width, in_channels=in_channels, classes=classes)
    widths = [16 * width, 32 * width, 64 * width]
    assert parameters(model) == by_hand(16, widths, (depth - 4) // 6, in_channels, classes)
    small = preact_resnet18(width=4 * width, in_channels=in_channels, classes=classes, final_norm=False)
    assert parameters(small) == by_hand(4 * width, [4 * width * times for times in (1, 2, 4, 8)], 2, in_channels,
                                        classes, last_norm=False)


@pytest.mark.parametrize("depth", [1, 4, 9, 11, 29, 35])
def test_a_depth_that_is_not_6n_plus_4_is_refused_with_those_beside_it(depth):
    with pytest.raises(ValueError, match=f"6n \\+ 4: .*; found {depth}. The nearest are ") as caught:
        wide_resnet(depth, 1)
    below, above = map(int, str(caught.value).rpartition("are ")[2].split(" and "))
    assert above - below == 6
    assert below % 6 == 4
    assert below <= max(depth, 10) < above


@pytest.mark.parametrize(("make", "error", "words"), [
    (lambda: wide_resnet(10, 0), ValueError, "width must be at least 1; found 0"),
    (lambda: wide_resnet(28.0), TypeError, "depth must be a whole number; found 28.0"),
    (lambda: wide_resnet(10, 1, classes=0), ValueError, "classes must be at least 1"),
    (lambda: preact_resnet18(in_channels=0), ValueError, "in_channels must be at least 1"),
    (lambda: wide_resnet(10, 1, activation="swish"), ValueError, "activation must be 'relu' or 'silu'; found 'swish'"),
    (lambda: wide_resnet(10, 1, padding=1), ValueError, "padding must be 'symmetric' or 'same'; found 1"),
    (lambda: preact_resnet18(shortcut_from="x"), ValueError, "shortcut_from must be 'activation' or 'input'"),
])
def test_sizes_and_words_that_cannot_be(make, error, words):
    with pytest.raises(error, match=words):
        make()


@pytest.mark.parametrize("make", [lambda **how: wide_resnet(10, 1, **how),
                                  lambda **how: preact_resnet18(width=4, **how)])
@pytest.mark.parametrize(("channels", "classes", "size"), [(3, 10, (32, 32)), (1, 2, (28, 28)), (4, 43, (33, 17)),
                                                           (3, 5, (1, 1)), (3, 5, (7, 64))])
def test_any_channels_classes_and_sizes(make, channels, classes, size):
    model = make(in_channels=channels, classes=classes).eval()
    assert model(torch.rand(2, channels, *size)).shape == (2, classes)


def test_same_padding_takes_odd_sizes_too():
    for size in ((32, 32), (31, 18), (7, 7), (1, 1)):
        assert wide_resnet(10, 1, padding="same").eval()(torch.rand(2, 3, *size)).shape == (2, 10)


@pytest.mark.parametrize("make", [lambda: wide_resnet(10, 1, classes=1000), lambda: preact_resnet18(classes=1000)])
def test_photographs_of_a_thousand_classes_pass_and_return(make):
    model = make()
    x = torch.rand(1, 3, 224, 224, requires_grad=True)
    logits = model(x)
    assert logits.shape == (1, 1000)
    functional.cross_entropy(logits, torch.tensor([999])).backward()
    assert x.grad.isfinite().all()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())


def blocks(model: PreActivationResNet) -> list[nn.Module]:
    return [block for group in model.groups for block in group]


@pytest.mark.parametrize("make", [lambda: wide_resnet(16, 1), lambda: preact_resnet18(width=4)])
def test_a_block_without_a_change_hands_on_what_it_got(make):
    """The shortcut: with its last convolution at zero, what passes is not touched, and not activated either."""
    for block in blocks(make().eval()):
        nn.init.zeros_(block.conv2.weight)
        x = torch.randn(2, block.conv1.in_channels, 8, 8)
        if block.shortcut is None:
            assert torch.equal(block(x), x)
        else:
            expected = functional.conv2d(functional.relu(block.norm1(x)), block.shortcut.weight,
                                         stride=block.conv1.stride)
            assert torch.equal(block(x), expected)


def test_a_shortcut_may_start_from_the_blocks_input():
    block = preact_resnet18(width=4, shortcut_from="input").eval().groups[1][0]
    nn.init.zeros_(block.conv2.weight)
    x = torch.randn(2, 4, 8, 8)
    assert torch.equal(block(x), functional.conv2d(x, block.shortcut.weight, stride=2))


@pytest.mark.parametrize("make", [lambda: wide_resnet(16, 1), lambda: wide_resnet(16, 1, padding="same"),
                                  lambda: preact_resnet18(width=4)])
def test_each_group_but_the_first_halves_the_image_in_its_first_convolution(make):
    model = make()
    strides = [[(block.conv1.stride[0], block.conv2.stride[0]) for block in group] for group in model.groups]
    assert strides == [[(2 if group and not block else 1, 1) for block in range(2)] for group in range(len(strides))]
    x = model.stem(torch.rand(1, 3, 32, 32))
    for group, size in zip(model.groups, [32, 16, 8, 4], strict=False):
        x = group(x)
        assert x.shape[-2:] == (size, size)


def test_the_gradient_reaches_the_first_layer_whole():
    """What residual connections are for: with every change at zero the image's gradient passes all blocks."""
    model = wide_resnet(40, 1).eval()
    for block in blocks(model):
        nn.init.zeros_(block.conv2.weight)
    x = torch.rand(1, 3, 32, 32, requires_grad=True)
    slope, = torch.autograd.grad(model(x)[0, 0], x)
    assert slope.abs().max() > 1e-6


def test_they_are_registered_for_cards_recipes_and_the_command():
    model = models.build({"builder": "wide_resnet", "arguments": {"depth": 10, "width": 1, "classes": 4}})
    assert model.linear.out_features == 4
    assert models.build({"builder": "preact_resnet18", "arguments": {"width": 4}}).linear.in_features == 32
    with pytest.raises(ValueError, match=r"the arguments do not fit wide_resnet: .*dropout"):
        models.build({"builder": "wide_resnet", "arguments": {"dropout": 0.3}})


NETS = {"wide": lambda: wide_resnet(10, 1, classes=3), "as DeepMind's": lambda: wide_resnet(
            10, 1, classes=3, activation="silu", padding="same"),
        "preact": lambda: preact_resnet18(width=4, classes=3), "preact, bare": lambda: preact_resnet18(
            width=4, classes=3, shortcut_from="input", final_norm=False)}


def in_double(name: str) -> tuple[nn.Module, torch.Tensor]:
    """With batch norm that has seen images."""
    torch.manual_seed(0)
    model = NETS[name]()
    model(torch.rand(16, 3, 8, 8))
    return model.double().eval(), torch.rand(2, 3, 8, 8, dtype=torch.float64)


@pytest.mark.parametrize("name", NETS)
def test_bounds_pass_additions_and_batch_norm(name):
    model, x = in_double(name)
    traced, threat = trace(model, x), ThreatModel("linf", 1e-3)
    with torch.no_grad():
        y, still = model(x).argmax(1), interval_bounds(traced, x, ThreatModel("linf", 0.0))
        torch.testing.assert_close(still.lower, model(x))
        torch.testing.assert_close(still.upper, model(x))
        bounds, margins = interval_bounds(traced, x, threat), crown_margins(traced, x, y, threat)
        start = torch.Generator().manual_seed(0)
        for _ in range(10):
            logits = model((x + threat.eps * torch.randn(x.shape, generator=start).sign()).clamp(0, 1))
            assert (logits >= bounds.lower).all()
            assert (logits <= bounds.upper).all()
            assert (logits.gather(1, y[:, None]) - logits >= margins.masked_fill(margins.isinf(), 0)).all()
    assert margins.masked_fill(margins.isinf(), 0).abs().sum() > 0


@pytest.mark.slow
@pytest.mark.parametrize("make", [lambda: wide_resnet(16, 2), lambda: preact_resnet18(width=32)])
def test_an_epoch_of_adversarial_training_lowers_the_loss(make):
    """Of one epoch on 2,000 signs: in the steps themselves, and on images that were not learned from."""
    torch.manual_seed(0)
    model, losses, objective = make(), [], PGDTraining(ThreatModel("linf", 2 / 255), steps=1)

    def recorded(net: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        loss = objective(net, x, y)
        losses.append(loss.item())
        return loss

    x, y, _ = data.load("signs", split="train", n=2000)
    fit(model, (x, y), recorded, epochs=1, batch_size=50, schedule=OneCycle(5e-3), progress=False, channels_last=True)
    assert len(losses) == 40
    early, late = sum(losses[:5]) / 5, sum(losses[-5:]) / 5
    x, y, _ = data.load("signs", split="validation", n=200)
    new = objective(model, x, y).item()
    print(f"{early:.3f} {late:.3f} {new:.3f}")
    assert late < early - 0.2
    assert new < early - 0.2
