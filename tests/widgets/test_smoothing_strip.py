"""The printed twin: its circles and its caption say what the library's bound says."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from scipy.special import ndtri
from torch import nn

from robustness_lib import counter_random, models
from robustness_lib.statistics import clopper_pearson_lower
from robustness_lib.widgets import smoothing_strip


def caption(figure: Figure) -> str:
    return " ".join(figure.texts[0].get_text().split("\n")).replace("\u00a0", " ")


def circles(figure: Figure) -> list[list[Circle]]:
    return [[patch for patch in axes.patches if isinstance(patch, Circle)] for axes in figure.axes]


def test_circles_are_those_of_the_votes() -> None:
    figure = smoothing_strip(seed=3)
    noise = counter_random.normal((2,), seed=3, index=torch.arange(2_100))
    places = torch.tensor([0.5, 0.65], dtype=torch.float64) + 0.06 * noise
    answers = models.load_pretrained("moons-standard")(places.float()).argmax(1)[100:]  # the first 100 choose
    for axes, drawn, votes in zip(figure.axes, circles(figure), (0, 20, 200, 2_000), strict=True):
        points = [one.get_offsets() for one in axes.collections if isinstance(one, PathCollection)]
        assert sum(map(len, points)) == votes
        agree = int((answers[:votes] == 0).sum())
        lower = clopper_pearson_lower(agree, votes, 0.001) if votes else 0
        assert len(points[0]) == agree
        if lower <= 0.5:
            assert not drawn
            assert axes.get_title() == f"{votes:,} votes: no circle"
        else:
            assert drawn[0].radius == pytest.approx(0.06 * ndtri(lower))
            assert {one.get_linestyle() for one in drawn} == {"solid" if votes == 2_000 else "dashed"}
    said = re.search(r"Of 2,000 votes, a number fixed beforehand, ([\d,]+) are for “upper moon” \(σ = 0.06\)",
                     caption(figure))
    assert said
    assert int(said[1].replace(",", "")) == agree
    assert "only the last is a certificate" in caption(figure)


def test_it_is_drawn_in_a_notebook_and_fits_a_phone() -> None:
    figure = smoothing_strip(votes=(0, 20, 50))
    assert figure.get_size_inches()[0] == 4.5
    assert len(figure.axes) == 3
    assert figure._repr_png_().startswith(b"\x89PNG")  # type: ignore[attr-defined]
    edge = figure.get_window_extent().x1
    assert figure.texts[0].get_window_extent().x1 <= edge


def test_a_close_vote_abstains() -> None:
    tied = nn.Linear(2, 2)
    with torch.no_grad():
        tied.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
        tied.bias.zero_()
    figure = smoothing_strip(tied, point=(0.5, 0.5), classes=("right", "left"))
    assert not any(circles(figure))
    assert "the smoothed net abstains" in caption(figure)


@pytest.mark.parametrize("votes", [(), (20, 0), (20, 20), (-1, 20), (0.5, 20)])
def test_numbers_of_votes_must_increase(votes: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="votes"):
        smoothing_strip(votes=votes)
