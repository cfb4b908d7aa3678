"""The first look at a model: how many classes, and what is odd."""

from __future__ import annotations

import pytest
import torch
from quick_auto_attack import problem
from torch import nn

from robustness_lib import ThreatModel
from robustness_lib.querying import ShrinkingBatchSize, first_look

LINF = ThreatModel("linf", 0.05)


def look(model, x, y, **more):
    return first_look(model, x, y, torch.arange(len(x)), LINF, size=ShrinkingBatchSize(50), **more)


def test_an_ordinary_model() -> None:
    model, x, y = problem()
    found = look(model, x, y)
    assert (found.classes, found.stochastic, found.varies, found.warnings) == (6, False, False, ())
    assert found.answers.shape == (32, 6)  # sixteen images, and a point near each
    assert torch.equal(found.answers[:16], model(x[:16]))


@pytest.mark.parametrize(("change", "kind"), [
    (lambda z: z + 0.1 * torch.randn(len(z), 6), "random answers"),
    (lambda z: z.softmax(1), "probabilities"),
])
def test_what_is_odd_is_said(change, kind: str) -> None:
    model, x, y = problem()
    found = look(lambda images: change(model(images)), x, y)
    assert [warning.kind for warning in found.warnings] == [kind]
    assert found.varies == (kind == "random answers")


def test_answers_that_vary_off_the_clean_images_alone_are_seen() -> None:
    model, x, y = problem()

    def varies_nearby(images):
        clean = (images[:, None] == x).flatten(2).all(2).any(1)
        return model(images) + torch.where(clean[:, None], 0, torch.randn(len(images), 6))

    assert look(varies_nearby, x, y).varies


@pytest.mark.parametrize(("size", "seen"), [(1e-6, False), (1e-3, True)])
def test_answers_that_vary_by_more_than_rounding_are_seen(size: float, seen: bool) -> None:
    model, x, y = problem()
    torch.manual_seed(0)
    assert look(lambda images: model(images) * (1 + size * torch.rand(len(images), 1)), x, y).varies == seen


def test_means_over_draws_are_asked_once() -> None:
    model, x, y = problem()
    calls = []

    def noisy(images):
        calls.append(len(images))
        return model(images) + 0.1 * torch.randn(len(images), 6)

    assert not look(noisy, x, y, draws=3).varies
    assert calls == [32] * 6  # and thrice under the same draws: as it was, again, and in other company


def test_a_model_that_says_it_draws_and_one_that_switches_itself() -> None:
    model, x, y = problem()

    class Draws(nn.Module):
        stochastic = True

        def forward(self, images):
            return model(images)

    class Switches(nn.Module):
        def __init__(self):
            super().__init__()
            self.drop = nn.Dropout(0.0)

        def forward(self, images):
            self.drop.train()
            return self.drop(model(images))

    assert look(Draws(), x, y).stochastic
    assert [warning.kind for warning in look(Switches().eval(), x, y).warnings] == ["changed mode"]
    assert look(Switches().eval(), x, y, mode="keep").warnings == ()


def test_images_that_the_model_cannot_take_are_left_out_and_a_model_that_takes_none_raises() -> None:
    model, x, y = problem()

    def picky(images):
        if (images == x[3]).flatten(1).all(1).any():
            raise RuntimeError("not this one")
        return model(images)

    assert look(picky, x, y).answers.shape == (31, 6)

    def lost(images):
        z = model(images)
        z[(images == x[3]).flatten(1).all(1)] = torch.nan
        return z

    assert look(lost, x, y).answers.shape == (31, 6)  # NaN is no answer
    calls = []

    def hiccup(images):
        calls.append(len(images))
        if len(calls) == 2:
            raise RuntimeError("once")
        return model(images)

    assert look(hiccup, x, y).answers.shape == (32, 6)

    def never(images):
        raise RuntimeError("no kernel")

    with pytest.raises(RuntimeError, match="no kernel"):
        look(never, x, y)
    with pytest.raises(ValueError, match="labels must lie in"):
        look(model, x, y + 9)


def test_too_little_memory_halves_the_batches() -> None:
    model, x, y = problem()

    def small(images):
        if len(images) > 10:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return model(images)

    size = ShrinkingBatchSize(50)
    assert torch.equal(first_look(small, x, y, torch.arange(len(x)), LINF, size=size).answers[:16], model(x[:16]))
    assert size.now == 6
    with pytest.raises(torch.OutOfMemoryError):
        first_look(lambda images: small(images.repeat(99, 1, 1, 1)), x, y, torch.arange(len(x)), LINF,
                   size=ShrinkingBatchSize(4))
