"""What Python sends to the page; the numbers are tested in a browser (tests/book)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robustness_lib.widgets import live_attack, live_intervals


def test_it_is_given_what_the_live_attack_is_given(model: nn.Sequential, image: Tensor) -> None:
    models = {"one": model, "two": nn.Sequential(nn.Flatten(), nn.Linear(432, 5, bias=False))}
    intervals, attack = live_intervals(models, image[None], [3], max_tenths=7), live_attack(models, image[None], [3])
    for name in ("networks", "names", "weights", "images", "shape", "labels", "classes"):
        assert getattr(intervals, name) == getattr(attack, name)
    assert intervals.max_tenths == 7


@pytest.mark.parametrize(("change", "kind", "message"), [
    ({"models": {}}, ValueError, "compares two models; found 0"),
    ({"models": {"one": None}}, ValueError, "compares two models; found 1: one"),
    ({"max_tenths": 0}, ValueError, "max_tenths must be at least 1"),
    ({"max_tenths": 2.5}, TypeError, "max_tenths must be a whole number"),
    ({"labels": [0, 1]}, ValueError, "2 labels"),
    ({"images": torch.full((1, 3, 12, 12), 1.5)}, ValueError, "normalization"),
])
def test_wrong_input_is_refused_in_words(model: nn.Sequential, image: Tensor, change: dict[str, Any],
                                         kind: type[Exception], message: str) -> None:
    given = {"models": {"a": model, "b": model}, "images": image[None], "labels": [0]} | change
    with pytest.raises(kind, match=message):
        live_intervals(**given)
