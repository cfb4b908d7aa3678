"""Random numbers that belong to an example, not to a batch.

A number is a pure function of (seed, example index, step, coordinate). Shuffle the batch, split it, run half of
it on another machine, restart after a kill: every example sees the same numbers. The global generator is neither
read nor advanced.

Two ways to the numbers:

- `uniform`, `normal`, `integers`: a hash of each coordinate, vectorized over the whole batch. Exact integer
  arithmetic, so the bits are the same on every machine and device. For few numbers per example.
- `bulk_uniform`, `bulk_normal`: torch's own generator on the CPU, seeded by the hash once per example and step.
  A hash per pixel costs more than a convolution; this does not. `chunk_seeds` gives such seeds to callers who draw much
  more than fits into memory.

The hash is the SplitMix64 finalizer (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators").
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

__all__ = ["bits", "bulk_normal", "bulk_uniform", "chunk_seeds", "integers", "normal", "uniform"]


def _signed(value: int) -> int:
    """The same 64 bits, as the signed integer that torch's int64 wants."""
    value = int(value)  # numpy's have no more than 64
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value


_GOLDEN = _signed(0x9E3779B97F4A7C15)
_MULTIPLY_1 = _signed(0xBF58476D1CE4E5B9)
_MULTIPLY_2 = _signed(0x94D049BB133111EB)
_LOW = (1 << 32) - 1
_MULTIPLY_32 = 0x7FEB352D  # odd, so that multiplication modulo 2^32 has an inverse (Wellons 2018, "hash-prospector")


def _shift(z: Tensor, places: int) -> Tensor:
    # torch shifts signed integers arithmetically; the mask drops the copies of the sign bit.
    return (z >> places) & ((1 << (64 - places)) - 1)


def _mix(z: Tensor) -> Tensor:
    z = (z ^ _shift(z, 30)) * _MULTIPLY_1
    z = (z ^ _shift(z, 27)) * _MULTIPLY_2
    return z ^ _shift(z, 31)


def _keys(seed: int, index: Tensor, step: int) -> Tensor:
    """One 64-bit key per example. Seed, index and step go in one after the other, each on top of the mixed result of
    those before, so that their roles cannot be exchanged: (seed 1, index 2) and (seed 2, index 1) are unrelated."""
    if index.dtype != torch.int64 or index.ndim != 1:
        raise TypeError(
            f"index must be a one-dimensional int64 tensor, one number per example; "
            f"found {index.dtype} of shape {tuple(index.shape)}"
        )
    key = _mix(torch.full_like(index, _signed(seed)) + _GOLDEN)
    key = _mix(key + index * _MULTIPLY_1)
    return _mix(key + torch.full_like(index, _signed(step)) * _MULTIPLY_2)


def bits(shape: Sequence[int], *, seed: int, index: Tensor, step: int = 0) -> Tensor:
    """64 random bits per number: int64 of shape (N, *shape), where N = len(index)."""
    coordinates = torch.arange(1, math.prod(shape) + 1, device=index.device)
    z = _mix(_keys(seed, index, step)[:, None] + coordinates * _GOLDEN)
    return z.reshape(len(index), *shape)


def uniform(shape: Sequence[int], *, seed: int, index: Tensor, step: int = 0,
            dtype: torch.dtype = torch.float64) -> Tensor:
    """Uniform on [0, 1): (N, *shape). The top 53 bits (float64) or 24 bits (float32), so 1 is never returned."""
    places = {torch.float64: 53, torch.float32: 24}[dtype]
    z = _shift(bits(shape, seed=seed, index=index, step=step), 64 - places)
    return z.to(dtype) * 2.0**-places


def integers(low: int, high: int, shape: Sequence[int], *, seed: int, index: Tensor, step: int = 0) -> Tensor:
    """Uniform on {low, ..., high - 1}: int64 of shape (N, *shape). Raises ValueError if the range is empty."""
    if high <= low:
        raise ValueError(f"integers needs low < high; found low={low}, high={high}")
    return (uniform(shape, seed=seed, index=index, step=step) * (high - low)).to(torch.int64) + low


def normal(shape: Sequence[int], *, seed: int, index: Tensor, step: int = 0,
           dtype: torch.dtype = torch.float64) -> Tensor:
    """Standard normal by Box and Muller's transform: (N, *shape)."""
    u = uniform((2, *shape), seed=seed, index=index, step=step)
    radius = torch.sqrt(-2 * torch.log1p(-u[:, 0]))  # 1 - u lies in (0, 1], so the logarithm is finite
    return (radius * torch.cos(2 * math.pi * u[:, 1])).to(dtype)


def bulk_uniform(shape: Sequence[int], *, seed: int, index: Tensor, step: int = 0,
                 dtype: torch.dtype = torch.float32) -> Tensor:
    """Uniform on [0, 1), many numbers per example: (N, *shape), on the device of `index`.

    torch's generator keeps 32 bits of its seed. Among 65,000 pairs of example and step it is likely that two share
    their numbers: harmless for starts and training noise. Where it matters, use `uniform`.
    """
    return _bulk(torch.rand, shape, seed, index, step, dtype)


def bulk_normal(shape: Sequence[int], *, seed: int, index: Tensor, step: int = 0,
                dtype: torch.dtype = torch.float32) -> Tensor:
    """Standard normal, many numbers per example: (N, *shape), on the device of `index`. See `bulk_uniform`."""
    return _bulk(torch.randn, shape, seed, index, step, dtype)


def chunk_seeds(*, seed: int, index: Tensor, chunk: Tensor) -> list[int]:
    """A seed for torch's generator for each example and chunk of what it draws: index, chunk (N,) int64, pair by pair.

    Two chunks of one example never share their numbers: the 32 bits of a seed that torch's generator on the CPU keeps
    are mixed from the chunk's number one to one, and only then combined with the example's. chunk: below 2^32.
    """
    mixed = chunk & _LOW
    for _ in range(2):  # each step has an inverse on 32 bits
        mixed = ((mixed ^ (mixed >> 16)) * _MULTIPLY_32) & _LOW
    return (_keys(seed, index, 0) ^ mixed ^ (mixed >> 15)).tolist()


def _bulk(draw: Callable[..., Tensor], shape: Sequence[int], seed: int, index: Tensor, step: int,
          dtype: torch.dtype) -> Tensor:
    # Always on the CPU, then moved: a CUDA generator would give other numbers for the same seed.
    keys = _keys(seed, index, step).tolist()
    out = torch.empty((len(keys), *shape), dtype=dtype)
    generator = torch.Generator()
    for row, key in zip(out, keys, strict=True):
        generator.manual_seed(key)
        draw(shape, generator=generator, out=row)
    return out.to(index.device)
