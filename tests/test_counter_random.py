from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from scipy import stats

from robustness_lib import counter_random as cr

Draw = Callable[..., torch.Tensor]
INDEX = torch.arange(2_000)
DRAWS: dict[str, Draw] = {"uniform": cr.uniform, "normal": cr.normal,
                          "bulk_uniform": cr.bulk_uniform, "bulk_normal": cr.bulk_normal}
LAWS = {"uniform": stats.uniform, "normal": stats.norm, "bulk_uniform": stats.uniform, "bulk_normal": stats.norm}


@pytest.mark.parametrize("name", list(DRAWS))
def test_distribution_within_an_example_and_across_examples(name: str) -> None:
    numbers = DRAWS[name]((50,), seed=3, index=INDEX)
    assert numbers.shape == (2_000, 50)
    law = LAWS[name].cdf
    assert stats.kstest(numbers.flatten().double().numpy(), law).pvalue > 1e-3
    for column in (0, 1, 49):  # one coordinate, seen over the examples
        assert stats.kstest(numbers[:, column].double().numpy(), law).pvalue > 1e-4


@pytest.mark.parametrize("name", list(DRAWS))
def test_neighbours_are_uncorrelated(name: str) -> None:
    """Examples, coordinates, seeds and steps next to each other: five standard errors of no correlation."""
    draw, law = DRAWS[name], LAWS[name]

    def check(a: torch.Tensor, b: torch.Tensor) -> None:
        a, b = (a.double() - law.mean()) / law.std(), (b.double() - law.mean()) / law.std()
        assert (a * b).mean().abs() < 5 / math.sqrt(a.numel())

    here = draw((20,), seed=3, index=INDEX)
    check(here[1:], here[:-1])
    check(here[:, 1:], here[:, :-1])
    check(here, draw((20,), seed=4, index=INDEX))
    check(here, draw((20,), seed=3, index=INDEX, step=1))


@pytest.mark.parametrize("name", list(DRAWS))
def test_a_number_belongs_to_its_example_not_to_the_batch(name: str) -> None:
    draw = DRAWS[name]
    whole = draw((3, 4), seed=7, index=INDEX[:60], step=2)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    assert torch.equal(draw((3, 4), seed=7, index=order, step=2), whole[order])
    parts = [draw((3, 4), seed=7, index=INDEX[:60][k:k + 7], step=2) for k in range(0, 60, 7)]
    assert torch.equal(torch.cat(parts), whole)
    assert torch.equal(draw((3, 4), seed=7, index=torch.tensor([5, 5]), step=2), whole[[5, 5]])


@pytest.mark.parametrize("name", list(DRAWS))
def test_seed_index_and_step_play_different_parts(name: str) -> None:
    draw = DRAWS[name]
    seen = [draw((4,), seed=s, index=torch.tensor([i]), step=t)
            for s in (0, 1, 2) for i in (0, 1, 2) for t in (0, 1, 2)]
    assert len({tuple(numbers.flatten().tolist()) for numbers in seen}) == 27


@pytest.mark.parametrize("name", [*DRAWS, "integers"])
def test_the_global_generator_is_neither_read_nor_advanced(name: str) -> None:
    def draw() -> torch.Tensor:
        if name == "integers":
            return cr.integers(0, 99, (5,), seed=1, index=INDEX[:9])
        return DRAWS[name]((5,), seed=1, index=INDEX[:9])

    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = draw()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(12345)
    assert torch.equal(draw(), first)


def test_integers_fill_their_range_evenly() -> None:
    numbers = cr.integers(-3, 4, (100,), seed=5, index=INDEX)
    assert numbers.dtype == torch.int64
    counts = torch.bincount((numbers + 3).flatten(), minlength=7)
    assert len(counts) == 7
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3
    assert set(cr.integers(4, 5, (3,), seed=5, index=INDEX).flatten().tolist()) == {4}


@pytest.mark.parametrize(("low", "high"), [(2, 2), (3, 1)])
def test_an_empty_range_is_refused(low: int, high: int) -> None:
    with pytest.raises(ValueError, match=f"low={low}, high={high}"):
        cr.integers(low, high, (2,), seed=0, index=INDEX)


@pytest.mark.parametrize("index", [torch.arange(3.0), torch.zeros(2, 2, dtype=torch.int64),
                                   torch.arange(3, dtype=torch.int32)])
@pytest.mark.parametrize("draw", list(DRAWS.values()))
def test_an_index_of_the_wrong_kind_is_refused(draw: Draw, index: torch.Tensor) -> None:
    with pytest.raises(TypeError, match="one-dimensional int64"):
        draw((2,), seed=0, index=index)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_uniform_never_returns_one_and_normal_stays_finite(dtype: torch.dtype) -> None:
    u = cr.uniform((500,), seed=1, index=INDEX, dtype=dtype)
    assert u.dtype == dtype
    assert 0 <= u.min() < 1e-4
    assert 1 - 1e-4 < u.max() < 1
    z = cr.normal((500,), seed=1, index=INDEX, dtype=dtype)
    assert z.dtype == dtype
    assert 4 < z.abs().max() < 9


def test_a_flipped_bit_of_any_input_flips_half_of_the_output() -> None:
    """Avalanche: over 64 output bits and 2,000 examples, 32 +- 0.5 on average, and no output bit is left out."""
    def flipped(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        bits = torch.stack([(a ^ b) >> k & 1 for k in range(64)])
        return bits.flatten(1).double().mean(dim=1)

    base = cr.bits((1,), seed=9, index=INDEX, step=4)
    for place in (0, 1, 7, 31, 40, 62):
        bit = 1 << place
        others = [cr.bits((1,), seed=9 ^ bit, index=INDEX, step=4),
                  cr.bits((1,), seed=9, index=INDEX ^ bit, step=4),
                  cr.bits((1,), seed=9, index=INDEX, step=4 ^ bit)]
        for other in others:
            share = flipped(base, other)
            assert abs(share.mean() - 0.5) < 0.01
            assert ((share - 0.5).abs() < 6 * 0.5 / math.sqrt(len(INDEX))).all()


def test_no_two_keys_collide() -> None:
    index = torch.arange(200_000)
    keys = torch.cat([cr.bits((1,), seed=seed, index=index).flatten() for seed in (0, 1)])
    assert len(keys.unique()) == len(keys)


def _mix(z: int) -> int:
    """SplitMix64's finalizer in Python's own integers."""
    mask = 2**64 - 1
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & mask
    z = (z ^ z >> 27) * 0x94D049BB133111EB & mask
    return z ^ z >> 31


def _reference(seed: int, index: int, step: int, coordinate: int) -> int:
    mask, golden = 2**64 - 1, 0x9E3779B97F4A7C15
    key = _mix(seed + golden & mask)
    key = _mix(key + index * 0xBF58476D1CE4E5B9 & mask)
    key = _mix(key + step * 0x94D049BB133111EB & mask)
    return _mix(key + (coordinate + 1) * golden & mask)


def test_the_bits_are_those_of_the_definition() -> None:
    assert _mix(0x9E3779B97F4A7C15) == 0xE220A8397B1DCDAF  # SplitMix64's first output for seed 0, as published
    index = torch.tensor([0, 1, 17, 2**40])
    for seed, step in ((0, 0), (1, 2), (-5, 7), (2**63 + 11, 2**33)):
        found = cr.bits((3,), seed=seed, index=index, step=step).tolist()
        expected = [[_reference(seed % 2**64, i, step, k) for k in range(3)] for i in index.tolist()]
        assert [[value % 2**64 for value in row] for row in found] == expected


def test_golden_values() -> None:
    """The same bits on every machine and in every release: pictures and results on record depend on them."""
    index = torch.tensor([0, 1, 2**40])
    assert cr.bits((2,), seed=20260, index=index, step=3).tolist() == [
        [-5938790606788571263, 6908718870214434062], [-3240965443811500179, 873175295207015097],
        [-1116745886417602897, 424769043594574253]]
    assert [u.hex() for u in cr.uniform((2,), seed=20260, index=index[:1], step=3)[0].tolist()] == [
        "0x1.5b2a5ad0fde19p-1", "0x1.7f82ccd580ad6p-2"]
    assert cr.integers(0, 1000, (5,), seed=20260, index=index).tolist() == [
        [66, 455, 844, 484, 340], [315, 0, 434, 795, 530], [747, 203, 487, 649, 18]]
    assert [u.hex() for u in cr.bulk_uniform((2,), seed=20260, index=index[:1], step=3)[0].tolist()] == [
        "0x1.99211a0000000p-1", "0x1.d874840000000p-2"]
    normal = cr.normal((2,), seed=20260, index=index[:2])
    expected = torch.tensor([[0.20632514255271225, -1.0967886866415761],
                             [-0.7971373922025594, 0.0023660686131486354]], dtype=torch.float64)
    assert torch.allclose(normal, expected, rtol=0, atol=1e-12)  # log and cos may round differently elsewhere
    bulk = cr.bulk_normal((20,), seed=20260, index=index[:1])[0, [0, 19]]
    assert torch.allclose(bulk, torch.tensor([1.49574613571167, -0.3208408057689667]), rtol=0, atol=1e-5)


def test_negative_and_huge_seeds_are_seeds() -> None:
    values = [cr.bits((1,), seed=seed, index=INDEX[:1]).item() for seed in (-1, 2**63, 2**64 - 2, 12)]
    assert len(set(values)) == 4


def test_empty_batches_and_scalars_have_their_shapes() -> None:
    assert cr.uniform((), seed=0, index=INDEX[:5]).shape == (5,)
    for draw in DRAWS.values():
        assert draw((3, 2), seed=0, index=INDEX[:0]).shape == (0, 3, 2)


def test_chunks_of_one_example_never_share_a_seed():
    """In the 32 bits that the generator on the CPU keeps; and their numbers look independent."""
    chunks = torch.arange(200_000)
    seeds = cr.chunk_seeds(seed=3, index=torch.full_like(chunks, 7), chunk=chunks)
    assert len({seed % 2**32 for seed in seeds}) == len(chunks)
    far = cr.chunk_seeds(seed=3, index=torch.full_like(chunks, 7), chunk=chunks + (1 << 31))
    assert not {seed % 2**32 for seed in seeds} & {seed % 2**32 for seed in far}
    generator = torch.Generator()
    drawn = torch.stack([torch.randn(16, generator=generator.manual_seed(seed)) for seed in seeds[:4000]])
    correlation = torch.corrcoef(torch.cat((drawn[:-1], drawn[1:]), dim=1).T) - torch.eye(32)
    assert correlation.abs().max() < 5 / 4000**0.5
    assert abs(float(drawn.mean())) < 4 / 64_000**0.5
    assert abs(float(drawn.std()) - 1) < 0.02


def test_chunk_seeds_belong_to_seed_example_and_chunk():
    def one(seed, index, chunk):
        return cr.chunk_seeds(seed=seed, index=torch.tensor([index]), chunk=torch.tensor([chunk]))[0]

    assert one(0, 1, 2) == one(0, 1, 2)
    assert len({one(0, 0, 0), one(1, 0, 0), one(0, 1, 0), one(0, 0, 1), one(0, 1, 1), one(1, 1, 0)}) == 6
