"""Why a model refuses images: their type, their arrangement, or that it works on them in place. The advice is followed,
and works."""

from __future__ import annotations

import contextlib
import copy
import re

import numpy as np
import pytest
import torch
from quick_auto_attack import Quick
from torch import nn

from robustness_lib import ThreatModel
from robustness_lib.attacks import FGSM, PGD, SquareAttack
from robustness_lib.attacks.adaptive import EOT
from robustness_lib.diagnosis import diagnose, inspect_model
from robustness_lib.evaluation import evaluate
from robustness_lib.evaluation.planning import measure
from robustness_lib.querying import predict_logits

LINF = ThreatModel("linf", 0.02)
Y = torch.tensor([0, 1, 2, 2])


def conv(channels: int = 3) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(channels, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(2),
                             nn.Flatten(), nn.Linear(16, 3)).eval()


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3 * 64, 3)).eval()


def images(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=dtype) * 0.8 + 0.1


WAYS = {
    "fgsm": lambda model, x, y: FGSM(LINF).run(model, x, y),
    "pgd": lambda model, x, y: PGD(LINF, steps=2).run(model, x, y),
    "pgd that never stops": lambda model, x, y: PGD(LINF, steps=2, stop="never").run(model, x, y),
    "square": lambda model, x, y: SquareAttack(LINF, queries=3).run(model, x, y),
    "ensemble": lambda model, x, y: Quick(LINF).run(model, x, y),
    "evaluate": lambda model, x, y: evaluate(model, x, y, LINF, "quick"),
    "inspect_model": lambda model, x, y: inspect_model(model, x, y),
    "planning": lambda model, x, y: measure(model, x, y, LINF),
}
each_way = pytest.mark.parametrize("way", WAYS)
some_ways = pytest.mark.parametrize("way", ["pgd that never stops", "inspect_model"])


def said(way: str, model, x, y=Y) -> str:
    with pytest.raises((TypeError, ValueError)) as caught:
        WAYS[way](model, x, y)
    return str(caught.value)


# Types.


class Converting(nn.Module):
    def __init__(self, model: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.model, self.dtype = model, dtype

    def forward(self, x):
        return self.model(x.to(self.dtype)).float()


@each_way
@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("given", [torch.float32, torch.float64])
def test_a_half_precision_model_is_told_what_works(way: str, kind: torch.dtype, given: torch.dtype) -> None:
    x = images(4, 3, 8, 8, dtype=given)
    words = said(way, conv().to(kind), x)
    advice = {torch.float32: "float", torch.float64: "double"}[given]
    assert f"its parameters are {kind} and the images {given}. model.{advice}() answers" in words
    assert f"self.model(x.to({kind})).float()" in words
    WAYS[way](getattr(conv().to(kind), advice)(), x, Y)
    WAYS[way](Converting(conv().to(kind), kind), x, Y)


@each_way
@pytest.mark.parametrize(("model", "x", "repair"), [
    (torch.float64, torch.float32, lambda m, x: (m, x.double())),
    (torch.float64, torch.float32, lambda m, x: (m.float(), x)),
    (torch.float32, torch.float64, lambda m, x: (m, x.float())),
    (torch.float32, torch.float64, lambda m, x: (m.double(), x)),
])
def test_single_and_double_may_be_converted_either_way(way: str, model, x, repair) -> None:
    words = said(way, conv().to(model), images(4, 3, 8, 8, dtype=x))
    both = "x.double(), or model.float()" if model == torch.float64 else "x.float(), or model.double()"
    assert f"its parameters are {model} and the images {x}. Convert one of the two: {both}" in words
    WAYS[way](*repair(conv().to(model), images(4, 3, 8, 8, dtype=x)), Y)


@each_way
@pytest.mark.parametrize("given", [torch.float32, torch.float64])
def test_several_types_in_one_model(way: str, given: torch.dtype) -> None:
    x, mixed = images(4, 3, 8, 8, dtype=given), conv()
    mixed[5].half()
    advice = {torch.float32: "float", torch.float64: "double"}[given]
    assert (f"several types, torch.float16 and torch.float32: bring them to the images', model.{advice}()"
            in said(way, mixed, x))
    WAYS[way](getattr(mixed, advice)(), x, Y)


class Shifted(nn.Module):
    def __init__(self, shift: torch.Tensor, *, buffer: bool) -> None:
        super().__init__()
        self.net = conv()
        if buffer:
            self.register_buffer("shift", shift)
        else:
            self.shift = shift

    def forward(self, x):
        return self.net(x - self.shift)


@each_way
def test_a_buffer_or_a_constant_of_another_type(way: str) -> None:
    shift, x = torch.full((1, 3, 1, 1), 0.1, dtype=torch.float64), images(4, 3, 8, 8)
    buffered = Shifted(shift, buffer=True).eval()
    assert re.search(r"its buffer shift is torch.float64: model.to\(torch.float32\)", said(way, buffered, x))
    WAYS[way](buffered.to(torch.float32), x, Y)
    assert "the images become another type" in said(way, Shifted(shift, buffer=False).eval(), x)


def test_a_failure_that_is_none_of_types_comes_through() -> None:
    """A half-precision model that converts by itself, and fails for another reason."""
    class Failing(Converting):
        def forward(self, x):
            raise RuntimeError("CUDA error: an illegal memory access")

    with pytest.raises(RuntimeError, match="illegal memory access") as caught:
        FGSM(LINF).run(Failing(conv().half(), torch.float16), images(4, 3, 8, 8), Y)
    assert type(caught.value) is RuntimeError


@each_way
def test_a_model_under_its_own_autocast_runs(way: str) -> None:
    class Autocast(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = conv()

        def forward(self, x):
            with torch.autocast("cpu", torch.bfloat16):
                return self.net(x)

    WAYS[way](Autocast().eval(), images(4, 3, 8, 8), Y)


# Arrangements.


@each_way
def test_channels_that_come_last(way: str) -> None:
    assert said(way, conv(), images(4, 8, 8, 3)).endswith("It takes images as (N, C, H, W): x.permute(0, 3, 1, 2)")


@some_ways
@pytest.mark.parametrize(("model", "shape", "code"), [
    (conv(), (4, 8, 8, 3), "x.permute(0, 3, 1, 2)"),
    (conv(), (4, 1, 8, 8), "x.expand(-1, 3, -1, -1)"),
    (conv(), (4, 4, 8, 8), "x.narrow(1, 0, 3)"),
    (conv(), (4, 8, 8), "x[:, None].expand(-1, 3, -1, -1)"),
    (conv(), (4, 8, 8, 1), "x.permute(0, 3, 1, 2).expand(-1, 3, -1, -1)"),
    (conv(), (4, 192), "x.reshape(-1, 3, 8, 8)"),
    (conv(1), (4, 3, 8, 8), "x.mean(1, True)"),
    (conv(1), (4, 8, 8), "x[:, None]"),
    (conv(1), (4, 8, 8, 3), "x.permute(0, 3, 1, 2).mean(1, True)"),
    (conv(1), (4, 64), "x.reshape(-1, 1, 8, 8)"),
    (mlp(), (4, 3, 8, 8), "x.flatten(1)"),
    (nn.Sequential(nn.Conv1d(3, 4, 3), nn.Flatten(), nn.Linear(24, 3)).eval(), (4, 8, 3), "x.transpose(1, 2)"),
    (nn.Sequential(nn.Conv1d(1, 4, 3), nn.Flatten(), nn.Linear(24, 3)).eval(), (4, 8), "x[:, None]"),
    (nn.Sequential(nn.Conv3d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 3 * 36, 3)).eval(), (4, 5, 3, 8, 8),
     "x.transpose(1, 2)"),
], ids=str)
def test_another_arrangement_is_named_by_the_line_that_makes_it(way: str, model, shape, code: str) -> None:
    x, before = images(*shape), copy.deepcopy(model.state_dict())
    words = said(way, model, x)
    assert words.endswith(f": {code}")
    assert f"the model fails on images of shape {shape}" in words
    WAYS[way](model, eval(code, {"x": x}), Y)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@each_way
@pytest.mark.parametrize(("model", "shape"), [(conv(), (3, 8, 8)), (conv(1), (1, 8, 8))], ids=["colour", "grey"])
def test_one_image_without_its_batch_axis(way: str, model, shape) -> None:
    x = images(*shape)
    assert said(way, model, x, Y[:shape[0]]).endswith("x[None]")
    WAYS[way](model, x[None], Y[:1])


def test_a_whim_is_no_refusal_of_an_arrangement() -> None:
    """A model that fails once, or at one image of many, fails with its own words."""
    calls = []

    def whim(x):
        calls.append(len(x))
        if len(calls) == 1:
            raise RuntimeError("not now")
        return conv()(x)

    with pytest.raises(RuntimeError, match=r"^not now$"):
        FGSM(LINF).run(whim, images(4, 3, 8, 8), Y)

    def never(x):
        raise KeyError("logits")

    with pytest.raises(KeyError):
        FGSM(LINF).run(never, images(4, 3, 8, 8), Y)


# In place.


class InPlace(nn.Module):
    def __init__(self, change) -> None:
        super().__init__()
        self.net, self.change = conv(), change

    def forward(self, x):
        self.change(x)
        return self.net(x)


def by_torchvision(x):
    from torchvision.transforms import functional

    functional.normalize(x, [0.5] * 3, [0.25] * 3, inplace=True)


CHANGES = {
    "sub_": lambda x: x.sub_(0.5), "clamp_": lambda x: x.clamp_(0.2, 0.8), "torchvision": by_torchvision,
    "slice": lambda x: x[:, 0].mul_(0.5), "+=": lambda x: x.__iadd__(0.1),
    "data": lambda x: x.data.sub_(0.5), "numpy": lambda x: np.subtract(x.detach().numpy(), 0.5, out=x.detach().numpy()),
    "detached": lambda x: x.detach().mul_(0.5), "copy_": lambda x: x.copy_(x * 0.5),
}


@each_way
@pytest.mark.parametrize("change", ["sub_", "data"])
def test_a_model_that_works_in_place_is_refused_and_reaches_no_image_of_the_callers(way: str, change: str) -> None:
    x = images(4, 3, 8, 8)
    before = x.clone()
    assert "the model changes its input in place" in said(way, InPlace(CHANGES[change]).eval(), x)
    assert torch.equal(x, before)


@some_ways
@pytest.mark.parametrize("change", CHANGES)
def test_every_change_in_place_is_seen(way: str, change: str) -> None:
    x = images(4, 3, 8, 8)
    before = x.clone()
    assert "the model changes its input in place" in said(way, InPlace(CHANGES[change]).eval(), x)
    assert torch.equal(x, before)


@pytest.mark.parametrize("change", CHANGES)
def test_other_callers_are_safe_too(change: str) -> None:
    x, model = images(4, 3, 8, 8), InPlace(CHANGES[change]).eval()
    before = x.clone()
    for ask in (lambda: predict_logits(model, x, size=2), lambda: diagnose(model, x, Y, LINF),
                lambda: EOT(model, 2).judge(x, Y, draws=2), lambda: EOT(model, 2).attacked(FGSM(LINF), x, Y),
                lambda: evaluate(model, [(x, Y)], None, LINF, [lambda m, z, y: z + 0 * m(z).sum()])):
        with contextlib.suppress(ValueError):
            ask()
        assert torch.equal(x, before)
