"""The projection that the boundary attack walks by, against solvers that share nothing with it."""

import pytest
import torch
from shared_problems import exact_distance

from robustness_lib.attacks._hyperplane import Hyperplane

each_norm = pytest.mark.parametrize("norm", ["linf", "l2"])
each_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


def planes(n=12, d=30, seed=0, dtype=torch.float64, scale=1.0):
    """Pixels exactly at 0 and 1, weights of many sizes, some zero, planes on both sides at all feasible depths."""
    g = torch.Generator().manual_seed(seed)
    z = torch.rand((n, d), generator=g, dtype=dtype)
    z = torch.where(torch.rand(z.shape, generator=g) < 0.4, z.round(), z)
    w = torch.randn((n, d), generator=g, dtype=dtype) ** 3
    w = torch.where(torch.rand(w.shape, generator=g) < 0.2, 0, w) * scale
    side = torch.where(torch.arange(n) % 2 == 0, 1.0, -1.0).to(dtype)
    reach = (w.abs() * torch.where(side[:, None] * w > 0, z, 1 - z)).sum(1)
    return z, w, side * reach * torch.linspace(0.001, 0.97, n, dtype=dtype), side * reach


def move(norm, z, w, height):
    out = torch.empty_like(z)
    length = Hyperplane(norm, z).turn(w).move(z, height, out=out)
    return out, length


@each_norm
@each_dtype
@pytest.mark.parametrize("scale", [1.0, 1e-12, 1e12])
def test_the_shortest_way_onto_the_plane(norm, dtype, scale):
    for seed in range(3):
        z, w, height, _ = planes(seed=seed, dtype=dtype, scale=scale)
        change, length = move(norm, z, w, height)
        torch.testing.assert_close((change * w).sum(1) / height, -torch.ones_like(height), atol=2e-3, rtol=0)
        size = change.abs().amax(1) if norm == "linf" else change.norm(dim=1)
        torch.testing.assert_close(length, size)
        exact = [exact_distance(norm, a, b / scale, c / scale) for a, b, c in zip(z, w, height, strict=True)]
        torch.testing.assert_close(length.double(), torch.tensor(exact, dtype=torch.float64), rtol=5e-3, atol=0)
        assert ((z + change) >= -1e-7).all()
        assert ((z + change) <= 1 + 1e-7).all()


@each_norm
def test_it_never_oversteps(norm):
    z, w, height, _ = planes(n=200, d=50)
    change, _ = move(norm, z, w, height)
    assert ((change * w).sum(1).abs() <= height.abs() * (1 + 1e-9)).all()


@each_norm
@each_dtype
def test_a_plane_that_misses_the_box_is_approached_as_far_as_it_goes(norm, dtype):
    z, w, _, reach = planes(dtype=dtype)
    for beyond in (1.01, 3.0, 1e6):
        change, length = move(norm, z, w, reach * beyond)
        edge = (reach[:, None] * w < 0).to(dtype)  # growing pixels end at 1, the others at 0
        torch.testing.assert_close(z + change, torch.where(w == 0, z, edge), atol=1e-6, rtol=0)
        assert length.isfinite().all()


@each_norm
def test_no_way_without_a_normal_and_none_needed_on_the_plane(norm):
    z, w, height, _ = planes()
    change, length = move(norm, z, w * 0, height)
    assert (change == 0).all()
    assert not length.isnan().any()
    change, length = move(norm, z, w, height * 0)
    assert (change == 0).all()
    assert (length == 0).all()


@each_norm
def test_without_early_stop_the_result_is_the_same(norm, monkeypatch):
    """As on a GPU, where the rounds are not looked at."""
    import robustness_lib.attacks._hyperplane as module

    z, w, height, reach = planes(n=60, d=200)
    height = torch.where(torch.arange(60) % 7 == 0, 1.5 * reach, height)
    early, _ = move(norm, z, w, height)
    monkeypatch.setattr(module, "_NEAR_ENOUGH", -1.0)
    late, _ = move(norm, z, w, height)
    torch.testing.assert_close((early * w).sum(1), (late * w).sum(1), rtol=3e-3, atol=0)
    assert not late.isnan().any()


@each_norm
def test_memory_is_used_again(norm):
    """A second turn and move give what fresh memory gives."""
    first, second = planes(seed=1), planes(seed=2)
    plane = Hyperplane(norm, first[0])
    out = torch.empty_like(first[0])
    for z, w, height, _ in (first, second, first):
        length = plane.turn(w).move(z, height, out=out)
        expected, expected_length = move(norm, z, w, height)
        assert torch.equal(out, expected)
        assert torch.equal(length, expected_length)
