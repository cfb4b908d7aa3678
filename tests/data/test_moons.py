from __future__ import annotations

import pytest
import torch

from robustness_lib import data


@pytest.mark.parametrize(("split", "size"), [("train", 1_000), ("validation", 100), ("test", 1_000)])
def test_points_lie_in_the_unit_square_half_on_each_moon(split: str, size: int) -> None:
    x, y, classes = data.load("moons", split)
    assert (x.shape, x.dtype) == ((size, 2), torch.float32)
    assert (y.dtype, y.bincount().tolist()) == (torch.int64, [size // 2, size // 2])
    assert 0 < x.min() < 0.2
    assert 0.8 < x.max() < 1
    assert classes == ("upper moon", "lower moon")


def test_splits_differ_and_the_first_n_are_the_first_n() -> None:
    points = {tuple(point) for split in data.SPLITS for point in data.load("moons", split)[0].tolist()}
    assert len(points) == 2_100
    assert torch.equal(data.load("moons", "test", n=7)[0], data.load("moons", "test")[0][:7])
    assert torch.equal(data.draw_moons(5, start=40)[0], data.draw_moons(60)[0][40:45])


def test_golden_points() -> None:
    x, _ = data.draw_moons(2)
    assert torch.allclose(x, torch.tensor([[0.3416917, 0.789386], [0.5349875, 0.201295]]), rtol=0, atol=1e-6)


def test_a_curved_boundary_separates_them_and_a_straight_one_does_not() -> None:
    x, y, _ = data.load("moons", "train")
    straight = torch.cat([x, torch.ones(len(x), 1)], dim=1)
    solution = torch.linalg.lstsq(straight, 2.0 * y[:, None] - 1).solution
    assert 0.80 < ((straight @ solution)[:, 0] > 0).eq(y == 1).float().mean() < 0.95
    distance = torch.cdist(x, x).fill_diagonal_(9)
    neighbour = distance.argmin(dim=1)
    assert (y[neighbour] == y).float().mean() > 0.98


def test_without_noise_they_are_half_circles() -> None:
    x, y = data.draw_moons(200, noise=0)
    plane = x.double() * torch.tensor([3.8, 2.3]) - torch.tensor([1.4, 0.9])
    centre = torch.where(y[:, None] == 0, torch.tensor([0.0, 0.0]), torch.tensor([1.0, 0.5]))
    assert ((plane - centre).norm(dim=1) - 1).abs().max() < 1e-5
    assert ((plane - centre)[:, 1] * (1 - 2 * y) > -1e-5).all()


@pytest.mark.parametrize("wrong", [{"n": -1}, {"n": 1, "start": -1}, {"n": 1, "noise": -0.1}])
def test_negative_numbers_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="-"):
        data.draw_moons(**wrong)
