"""Votes under noise: what a model answers to many noisy copies of an image, counted by class."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from robustness_lib import counter_random
from robustness_lib.errors import described
from robustness_lib.precision import full_precision
from robustness_lib.querying.batch_size import ShrinkingBatchSize, cut, default_batch_size, out_of_memory
from robustness_lib.querying.frozen import Classifier, frozen
from robustness_lib.querying.queried_model import QueriedModel

__all__ = ["Chunk", "Purpose", "Voter", "chunk_draws"]

_CHUNK = 50  # draws that one seed of the generator is good for, at most
_CHUNK_VALUES = 8_000_000  # pixel values of these draws, at most: they lie on the device together
_ON_GPU = 6_000_000  # pixel values of a batch there: 2,000 small images keep it busy, and large ones fit

# Draws for one purpose are never those for another: the class must not be chosen by the votes that bound it.
Purpose = Literal["predict", "select", "bound"]
_FIRST: dict[Purpose, int] = {"predict": 0, "select": 1 << 30, "bound": 1 << 31}  # of its chunks


class Chunk(NamedTuple):
    """draws of noise on the image at a row; number: which chunk of its draws for this purpose."""

    row: int
    number: int
    draws: int


def chunk_draws(x: Tensor) -> int:
    """Draws of noise that make a chunk, for images x (N, ...): fewer of large ones."""
    return max(1, min(_CHUNK, _CHUNK_VALUES // max(1, x.shape[1:].numel())))


class Voter:
    """x: (N, ...) images. index: (N,) their numbers in the data set, by which noise belongs to an image, whatever batch
    it comes in. seed: of all noise."""

    def __init__(self, model: Classifier, sigma: float, x: Tensor, index: Tensor, seed: int,
                 batch_size: int | None) -> None:
        self.model, self.sigma, self.x, self.index, self.seed = model, sigma, x, index, seed
        self.queried, self.chunk = QueriedModel(model), chunk_draws(x)
        self.device = self.queried.device(x)
        usual = default_batch_size(x, self.device)
        if self.device.type != "cpu":
            usual = max(usual, _ON_GPU // max(1, x.shape[1:].numel()))
        self.size = ShrinkingBatchSize(batch_size or usual)
        self._buffer = torch.empty(0)

    def chunks(self, row: int, start: int, stop: int) -> Iterator[Chunk]:
        """Draws number start to stop − 1 on an image. start: a multiple of `chunk`."""
        return (Chunk(row, first // self.chunk, min(self.chunk, stop - first))
                for first in range(start, stop, self.chunk))

    @contextmanager
    def held(self) -> Iterator[None]:
        """The model frozen and in eval mode, in full precision and the order of memory that it is fast in."""
        with frozen(self.model), full_precision(), self.queried.layout:
            yield

    def counts(self, purpose: Purpose, chunks: Iterable[Chunk]) -> Iterator[tuple[Sequence[Chunk], Tensor]]:
        """The votes of these chunks, in batches: the chunks of a batch and how many of each one's draws fell to each
        class, and in the last column to none, (chunks, K + 1) int64 on the CPU: an answer that is no number is a vote
        for nobody.

        Raises ValueError, with the cause, where the model fails."""
        waiting, todo = iter(chunks), list[Chunk]()
        while True:
            most = max(1, self.size.now // self.chunk)
            todo += islice(waiting, max(0, most - len(todo)))
            if not todo:
                return
            counted = None
            try:
                counted = self._votes(purpose, todo[:most])
            except Exception as error:  # whatever a model may raise
                if not self.size.can_shrink(error):
                    if out_of_memory(error):
                        raise
                    raise ValueError(f"the model fails on noisy images ({described(error)}). Noise is not clipped: "
                                     f"values lie below 0 and above 1, which the model has to take (or to clamp "
                                     f"itself)") from error
            if counted is None:  # outside the handler: its exception holds the tensors that have to go
                self._buffer = torch.empty(0)
                self.size.shrink()
                continue
            yield todo[:most], counted
            todo = todo[most:]

    def _votes(self, purpose: Purpose, chunks: Sequence[Chunk]) -> Tensor:
        noisy = self._noisy(purpose, chunks)
        answers = torch.cat([self.queried.answers(noisy[part]) for part in cut(len(noisy), self.size.now)])
        classes = answers.shape[1]
        highest, winner = answers.max(1)  # NaN is the highest of all
        winner = torch.where(highest.isnan(), classes, winner)
        lengths = torch.tensor([chunk.draws for chunk in chunks], device=self.device)
        place = torch.arange(len(chunks), device=self.device).repeat_interleave(lengths, output_size=len(noisy))
        counted = torch.bincount(place * (classes + 1) + winner, minlength=len(chunks) * (classes + 1))
        return counted.reshape(len(chunks), classes + 1).cpu()

    def _noisy(self, purpose: Purpose, chunks: Sequence[Chunk]) -> Tensor:
        """The images under fresh noise, not clipped to the box, draw after draw: (draws, ...). Noise is drawn where it
        is used, in place; channels last, which is how convolutions want it on a CPU, whatever the model."""
        shape = self.x.shape[1:]
        stored = (*shape[1:], shape[0]) if len(shape) == 3 else shape
        draws = sum(chunk.draws for chunk in chunks)
        if len(self._buffer) < draws:
            self._buffer = torch.empty(draws, *stored, dtype=self.x.dtype, device=self.device)
        noisy = self._buffer[:draws]
        generator = torch.Generator(self.device)
        rows = torch.tensor([chunk.row for chunk in chunks])
        seeds = counter_random.chunk_seeds(seed=self.seed, index=self.index[rows], chunk=torch.tensor(
            [_FIRST[purpose] + chunk.number for chunk in chunks]))
        images = self.x[rows.to(self.x.device)].to(self.device)
        images = images.permute(0, 2, 3, 1).contiguous() if len(shape) == 3 else images
        end = 0
        for image, chunk, seed in zip(images, chunks, seeds, strict=True):
            start, end = end, end + chunk.draws
            generator.manual_seed(seed)
            noisy[start:end].normal_(0, self.sigma, generator=generator).add_(image)
        return noisy.permute(0, 3, 1, 2) if len(shape) == 3 else noisy
