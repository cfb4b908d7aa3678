import re
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from robustness_lib import ThreatModel
from robustness_lib.attacks import FGSM
from robustness_lib.models import Normalize, as_classifier

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


def net():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(48, 3)).eval()


def images(n=6, dtype=torch.float32):
    return torch.rand((n, 3, 4, 4), generator=torch.Generator().manual_seed(0), dtype=dtype)


def test_normalize_is_what_torchvision_does():
    from torchvision.transforms.functional import normalize

    x = images()
    torch.testing.assert_close(Normalize(MEAN, STD)(x), normalize(x, MEAN, STD))
    assert Normalize(MEAN, STD)(images(dtype=torch.float64)).dtype == torch.float64


@pytest.mark.parametrize("rest", [(), (7,), (3,), (4, 5), (3, 3), (2, 4, 5), (3, 3, 3)])
def test_channels_are_axis_one_whatever_follows(rest):
    """Points, signals, images, videos; also where other axes are as long as the channels."""
    x = torch.rand((6, 3, *rest), generator=torch.Generator().manual_seed(0))
    by_hand = torch.stack([(x[:, c] - MEAN[c]) / STD[c] for c in range(3)], 1)
    torch.testing.assert_close(Normalize(MEAN, STD)(x), by_hand)
    model = as_classifier(nn.Flatten(), mean=MEAN, std=STD)
    torch.testing.assert_close(model(x), by_hand.flatten(1))
    result = FGSM(ThreatModel("linf", 0.01)).run(model, x, torch.zeros(6, dtype=torch.int64))
    assert result.x_adv.shape == x.shape


@pytest.mark.parametrize(("shape", "advice"), [
    ((3, 8, 9), r"x\[None\]"),
    ((2, 8, 9, 3), r"x.movedim\(-1, 1\)"),
    ((2, 8, 3), r"x.movedim\(-1, 1\)"),
    ((2, 7, 3, 8, 8), r"x.transpose\(1, 2\)"),
    ((2, 1, 8, 8), r"x.expand\(-1, 3, -1, -1\)"),
    ((2, 1, 8), r"x.expand\(-1, 3, -1\)"),
])
def test_normalize_says_how_other_channels_get_to_axis_one(shape, advice):
    x = torch.rand(shape)
    with pytest.raises(ValueError, match=rf"3 channels, along axis 1; found images of shape .*{advice}") as caught:
        Normalize(MEAN, STD)(x)
    advised = re.search(r"x(\[|\.).*", str(caught.value)).group()
    assert Normalize(MEAN, STD)(eval(advised, {"x": x})).shape[1] == 3


def test_normalize_adds_nothing_to_the_state_dict():
    assert nn.Sequential(Normalize(MEAN, STD), net()).state_dict().keys() == {"1.1.weight", "1.1.bias"}


@pytest.mark.parametrize(("mean", "std", "words"), [
    ((0.5,), (0.2, 0.2), "one number per channel"),
    ((0.5,), (0.0,), "positive"),
    ((0.5,), (-0.2,), "positive"),
    ((0.5,), (float("nan"),), "positive"),
    ((123.7,), (58.4,), "divide by 255"),
])
def test_normalize_refuses_nonsense(mean, std, words):
    with pytest.raises(ValueError, match=words):
        Normalize(mean, std)


def test_normalize_refuses_other_channels():
    with pytest.raises(ValueError, match="3 channels"):
        Normalize(MEAN, STD)(torch.rand(2, 1, 4, 4))


@pytest.mark.parametrize(("wrap", "output"), [
    (lambda z: z, "auto"),
    (lambda z: (z, "aux"), "auto"),
    (lambda z: [z], "auto"),
    (lambda z: SimpleNamespace(logits=z), "auto"),
    (lambda z: {"logits": z, "loss": None}, "auto"),
    (lambda z: {"scores": z}, "scores"),
    (lambda z: SimpleNamespace(scores=z), "scores"),
    (lambda z: ("aux", z), 1),
    (lambda z: {"a": [z]}, lambda answer: answer["a"][0]),
])
def test_logits_are_found_wherever_they_are(wrap, output):
    inner, x = net(), images()

    class Wrapped(nn.Module):
        def forward(self, z):
            return wrap(inner(z))

    model = as_classifier(Wrapped(), mean=MEAN, std=STD, output=output)
    torch.testing.assert_close(model(x), inner(Normalize(MEAN, STD)(x)))


@pytest.mark.parametrize("shape", ["(N,)", "(N, 1)"])
def test_one_logit_becomes_two(shape):
    inner, x = nn.Sequential(nn.Flatten(), nn.Linear(48, 1)), images()
    raw = nn.Sequential(inner, nn.Flatten(0)) if shape == "(N,)" else inner
    logits = as_classifier(raw, output="binary")(x)
    assert logits.shape == (6, 2)
    z = inner(x)[:, 0]
    torch.testing.assert_close(logits.softmax(1)[:, 1], z.sigmoid())
    assert torch.equal(logits.argmax(1) == 1, z > 0)


@pytest.mark.parametrize(("answer", "output", "error", "words"), [
    ("text", "auto", TypeError, "no logits found"),
    ((), "auto", TypeError, "no logits found"),
    ({"a": 1}, "auto", TypeError, "no logits found"),
    ({"a": 1}, "b", TypeError, "has no 'b'"),
    ((1,), 3, TypeError, "has no 3"),
    (torch.zeros(2, 3), "binary", ValueError, "one logit per image"),
])
def test_what_cannot_be_found_is_said(answer, output, error, words):
    class Odd(nn.Module):
        def forward(self, z):
            return answer

    with pytest.raises(error, match=words):
        as_classifier(Odd(), output=output)(images())


def test_half_a_normalization_is_refused():
    with pytest.raises(ValueError, match="both mean and std"):
        as_classifier(net(), mean=MEAN)


def test_eps_is_in_pixels_through_the_wrapper():
    """The bug it exists to prevent: ε in normalized space is ε·std in pixels."""
    x = images() * 0.8 + 0.1
    model = as_classifier(net(), mean=MEAN, std=STD)
    y = model(x).argmax(1)
    x_adv = FGSM(ThreatModel("linf", 0.05), stop="never")(model, x, y)
    torch.testing.assert_close((x_adv - x).abs().amax((1, 2, 3)), torch.full((6,), 0.05), atol=1e-6, rtol=0)


def test_the_wrapper_keeps_the_models_mode():
    assert as_classifier(net().train()).training
    assert not as_classifier(net().eval()).training
    mixed = nn.Sequential(nn.BatchNorm2d(3), net()).train()
    mixed[0].eval()  # frozen on purpose
    assert as_classifier(mixed).training
    assert not mixed[0].training


def test_a_function_is_wrapped_too_and_what_is_none_is_refused_in_words():
    model = net().eval()
    wrapped = as_classifier(lambda z: (model(z), "aux"), mean=MEAN, std=STD)
    x = images()
    assert torch.equal(wrapped(x), as_classifier(model, mean=MEAN, std=STD)(x))
    assert not wrapped.training  # a function has no mode, so that nobody is told to switch it
    for thing in ("zoo:signs-pgd", None, type(model)):
        with pytest.raises(TypeError, match="the model must be a"):
            as_classifier(thing)


@pytest.mark.parametrize(("mean", "std", "kind", "words"), [
    (0.5, 0.5, TypeError, r"mean must be a list of numbers, one per channel; found 0.5: for one channel \[0.5\]"),
    ([0.5], 0.5, TypeError, "std must be a list of numbers.*found 0.5"),
    ([], [], TypeError, r"mean must be a list of numbers, one per channel; found \[\]"),
    ("0.5", "0.5", TypeError, "mean must be a list of numbers"),
    ({"r": 0.5}, [0.5], TypeError, "mean must be a list of numbers"),
    ([None], [0.5], TypeError, "mean must be a list of numbers"),
    ([[0.5, 0.5]], [[0.5, 0.5]], TypeError, "mean must be a list of numbers"),
    (torch.tensor(0.5), torch.tensor(0.5), TypeError, "mean must be a list of numbers"),
    (torch.full((1, 3, 1, 1), 0.5), torch.full((1, 3, 1, 1), 0.5), TypeError, "mean must be a list of numbers"),
    ([float("nan")] * 3, STD, ValueError, r"mean must be finite; found \[nan"),
    (MEAN, [float("inf")] * 3, ValueError, r"std must be finite and positive; found \[inf"),
    (MEAN, [float("nan")] * 3, ValueError, "std must be finite and positive"),
    ([0.5] * 3, [127.5] * 3, ValueError, r"std must be in pixel units of \[0, 1\] \(divide by 255\); found \[127.5"),
    ([0.0] * 3, [255] * 3, ValueError, "std must be in pixel units.*divide by 255"),
])
def test_a_normalization_that_is_none_is_said(mean, std, kind, words):
    for make in (lambda: as_classifier(net(), mean=mean, std=std), lambda: Normalize(mean, std)):
        with pytest.raises(kind, match=words):
            make()


def test_a_normalization_may_be_any_kind_of_list():
    plain = Normalize(MEAN, STD)(images())
    for kind in (list, tuple, torch.tensor, lambda numbers: torch.tensor(numbers, dtype=torch.float64).numpy()):
        torch.testing.assert_close(Normalize(kind(MEAN), kind(STD))(images()), plain)


@pytest.mark.parametrize(("output", "kind", "words"), [
    (True, TypeError, "output must be .*; found True"), (None, TypeError, "found None"),
    (1.0, TypeError, "found 1.0"), (["logits"], TypeError, r"found \['logits'\]"),
    ("Binary", ValueError, "output='Binary' is written 'binary'"), ("AUTO", ValueError, "is written 'auto'"),
    (" binary", ValueError, "is written 'binary'"), ("", ValueError, "output is empty"),
])
def test_an_output_that_is_none_is_said_at_once(output, kind, words):
    with pytest.raises(kind, match=words):
        as_classifier(net(), output=output)
