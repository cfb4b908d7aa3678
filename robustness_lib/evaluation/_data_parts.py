"""The data of an evaluation, part by part: the unit of work, of the state on disk, and of sharing among processes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from robustness_lib.attacks.ensemble_run import ImagePart
from robustness_lib.batches import read_batches
from robustness_lib.input_advice import no_tensor_advice
from robustness_lib.inputs import check_images, check_labels, clamped_rows
from robustness_lib.querying.batch_size import cut
from robustness_lib.state import image_digests

__all__ = ["DataPart", "data_parts"]


@dataclass(frozen=True)
class DataPart(ImagePart):
    """A part of the data. number: of the part."""

    number: int = 0

    @cached_property
    def digests(self) -> list[str]:
        return image_digests(self.x, self.y)

    def halves(self) -> list[DataPart]:
        """Two parts in its place; for one image alone there are none."""
        half = len(self) // 2
        return [replace(self, x=self.x[rows], y=self.y[rows], index=self.index[rows], first=self.first + rows.start)
                for rows in (slice(0, half), slice(half, len(self)))] if half else []


def data_parts(x: Any, y: Tensor | None, size: int | None, default_size: Any,
               clamped: list[int]) -> Iterator[DataPart]:
    """Cut the data into parts of `size` images (default_size(first images) where None), whatever batches they come in,
    so that the parts do not depend on the loader. Only one part is held at a time, and one image more: which may be the
    last of all, and is then not left alone (see `cut`).

    x: images (N, ...) with labels y (N,); or an iterable of batches (x, y), with y None. clamped: gets the numbers of
    the images that rounding had left outside [0, 1].
    Raises TypeError or ValueError for data that cannot be evaluated, with the numbers of the images.
    """
    first = number = 0
    held: list[tuple[Tensor, Tensor]] = []
    for images, labels in _batches(x, y):
        start = first + sum(len(h) for h, _ in held)
        try:
            given, images = images, check_images(images)
            check_labels(labels, images)
        except (TypeError, ValueError) as error:
            raise type(error)(f"images {start} to {start + max(len(images), 1) - 1}: {error}"
                              if isinstance(images, Tensor) and y is None else str(error)) from error
        if len(images) == 0:
            continue
        clamped += [start + row for row in clamped_rows(given, images)]
        if held and images.shape[1:] != held[0][0].shape[1:]:
            raise ValueError(f"all images must have one shape; found {tuple(held[0][0].shape[1:])} and then "
                             f"{tuple(images.shape[1:])}")
        size = size or default_size(images)
        held.append((images.detach(), labels.detach()))
        while sum(len(h) for h, _ in held) >= size + (2 if size > 1 else 0):
            part, held = _take(held, size)
            yield DataPart(*part, torch.arange(first, first + size), first, number)
            first, number = first + size, number + 1
    for last in cut(sum(len(h) for h, _ in held), size or 1):
        rows = last.stop - last.start
        part, held = _take(held, rows)
        yield DataPart(*part, torch.arange(first, first + rows), first, number)
        first, number = first + rows, number + 1


def _batches(x: Any, y: Tensor | None) -> Iterator[tuple[Tensor, Tensor]]:
    if isinstance(x, Tensor):
        if y is None:
            raise TypeError("images need labels: evaluate(model, x, y, ...)")
        yield x, y
        return
    if y is not None:
        raise TypeError(f"labels were given, so x must be a tensor of images; found {type(x).__name__}."
                        f"{no_tensor_advice(x, 'x')}")
    if not isinstance(x, Iterable):
        loader = ". torch.utils.data.DataLoader(data, batch_size=100) makes batches of it" if hasattr(
            x, "__getitem__") else ""
        raise TypeError(f"give images and labels, or an iterable of batches (x, y); found {type(x).__name__}{loader}")
    yield from read_batches(x)


def _take(held: list[tuple[Tensor, Tensor]], size: int) -> tuple[tuple[Tensor, Tensor], list[tuple[Tensor, Tensor]]]:
    """The first `size` images of what is held, and the rest. Slices of one tensor are views, nothing is copied."""
    taken: list[tuple[Tensor, Tensor]] = []
    while size:
        images, labels = held[0]
        taken.append((images[:size], labels[:size]))
        held = ([(images[size:], labels[size:])] if len(images) > size else []) + held[1:]
        size -= len(taken[-1][0])
    if len(taken) == 1:
        return taken[0], held
    return (torch.cat([t for t, _ in taken]), torch.cat([t for _, t in taken])), held
