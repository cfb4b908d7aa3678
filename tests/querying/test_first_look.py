"""The first look: what is odd about a model's answers is seen on a few images, and on points near them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from robustness_lib import ThreatModel
from robustness_lib.querying.first_look import FirstLook, first_look

THREAT = ThreatModel("linf", 0.1)
X, Y = torch.rand(20, 6, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 3


def look(model: Callable[[Tensor], Tensor]) -> FirstLook:
    torch.manual_seed(0)
    return first_look(model, X, Y, torch.arange(20), THREAT, size=20)


def linear(z: Tensor) -> Tensor:
    return torch.stack([z[:, 0], z[:, 1], z.sum(1)], 1)


def test_a_steady_model_is_asked_about_sixteen_images_and_a_point_near_each() -> None:
    asked: list[Tensor] = []

    def model(z: Tensor) -> Tensor:
        asked.append(z.clone())
        return linear(z)

    found = look(model)
    points = torch.cat(asked)[:32]
    assert torch.equal(points[:16], X[:16])
    assert THREAT.allows(THREAT.distance(points[16:], X[:16])).all()
    assert (points[16:] != X[:16]).any(1).all()
    assert found.answers.equal(linear(points))
    assert (found.classes, found.varies, found.warnings) == (3, False, ())


def test_answers_that_vary_off_the_clean_images_alone_are_seen() -> None:
    def model(z: Tensor) -> Tensor:
        clean = torch.cdist(z, X).amin(1) < 1e-6
        return linear(z) + torch.where(clean[:, None], 0, torch.rand(len(z), 3))

    assert look(model).varies


@pytest.mark.parametrize(("size", "seen"), [(1e-6, False), (1e-3, True)])
def test_answers_that_vary_by_more_than_rounding_are_seen(size: float, seen: bool) -> None:
    assert look(lambda z: linear(z) * (1 + size * torch.rand(len(z), 1))).varies == seen
