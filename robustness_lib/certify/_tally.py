"""The votes for many images, counted until a rule has its last word; on disk in between."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray

from robustness_lib.certify.stopping import StoppingRule
from robustness_lib.certify.voting import Chunk, Purpose, Voter
from robustness_lib.state import Chunks

__all__ = ["Bounded", "Leaders", "Tell", "bounded", "leaders"]

Tell = Callable[[int, int], None]  # images that are through, draws since the last call

_SAVE_SECONDS = 10.0
_KEY = "votes"


@dataclass
class _Columns:
    """Numbers for each image, (N,) each, and their way to the disk and back. types: of the columns, in order."""

    types: ClassVar[tuple[type[np.generic], ...]]

    @classmethod
    def nobody(cls, n: int) -> Self:
        """Of n images, of which nothing is known yet."""
        return cls(*(np.zeros(n, dtype=kind) for kind in cls.types))

    def read(self, kept: Chunks, key: str) -> None:
        if (content := kept.read(key)) is not None:
            for field in fields(self):
                getattr(self, field.name)[:] = content[field.name].numpy()

    def write(self, kept: Chunks, key: str) -> None:
        kept.write(key, {field.name: torch.from_numpy(getattr(self, field.name)) for field in fields(self)})


@dataclass
class Leaders(_Columns):
    """first: the class with most votes. votes, runner_up: how many it got, and the one after it. done: bool."""

    first: NDArray[np.int64]
    votes: NDArray[np.int64]
    runner_up: NDArray[np.int64]
    done: NDArray[np.bool_]

    types = (np.int64, np.int64, np.int64, np.bool_)


@dataclass
class Bounded(_Columns):
    """votes: for the candidate, of so many draws. unanswered: of these, votes for nobody. proved, radius, done: see
    `Judgment`."""

    votes: NDArray[np.int64]
    draws: NDArray[np.int64]
    unanswered: NDArray[np.int64]
    proved: NDArray[np.bool_]
    radius: NDArray[np.float64]
    done: NDArray[np.bool_]

    types = (np.int64, np.int64, np.int64, np.bool_, np.float64, np.bool_)


class _Saving:
    """Whether it is time to."""

    def __init__(self) -> None:
        self.last = time.monotonic()

    def due(self) -> bool:
        if time.monotonic() < self.last + _SAVE_SECONDS:
            return False
        self.last = time.monotonic()
        return True


def leaders(voter: Voter, purpose: Purpose, draws: int, kept: Chunks, tell: Tell) -> Leaders:
    """The two classes with most votes among so many draws for each image."""
    found, saving = Leaders.nobody(len(voter.x)), _Saving()
    found.read(kept, purpose)
    rows = np.flatnonzero(~found.done)
    counts: dict[int, NDArray[np.int64]] = {}
    counted: dict[int, int] = {}
    chunks = (chunk for row in rows.tolist() for chunk in voter.chunks(row, 0, draws))
    for batch, votes in voter.counts(purpose, chunks):
        for chunk, theirs in zip(batch, votes[:, :-1].numpy(), strict=True):
            counts[chunk.row] = counts.get(chunk.row, 0) + theirs
            counted[chunk.row] = counted.get(chunk.row, 0) + chunk.draws
            if counted[chunk.row] == draws:
                del counted[chunk.row]
                _lead(found, chunk.row, counts.pop(chunk.row))
        tell(int(found.done.sum()), sum(chunk.draws for chunk in batch))
        if saving.due():
            found.write(kept, purpose)
    found.write(kept, purpose)
    return found


def _lead(found: Leaders, row: int, counts: NDArray[np.int64]) -> None:
    first = counts.argmax()
    found.first[row], found.votes[row], found.runner_up[row] = first, counts[first], np.delete(counts, first).max()
    found.done[row] = True


def bounded(voter: Voter, candidates: NDArray[np.int64], rule: StoppingRule, kept: Chunks, tell: Tell) -> Bounded:
    """The votes for each image's candidate, drawn until the rule has its last word on it."""
    found, saving = Bounded.nobody(len(voter.x)), _Saving()
    found.read(kept, _KEY)
    for look in rule.looks:
        rows = np.flatnonzero(~found.done & (found.draws <= look))
        for batch, votes in voter.counts("bound", _up_to(look, rows, found, voter)):
            _add(found, candidates, batch, votes.numpy())
            tell(int((found.done | (found.draws == rule.looks[-1])).sum()), sum(chunk.draws for chunk in batch))
            if saving.due():
                found.write(kept, _KEY)
        found.proved[rows], found.radius[rows], found.done[rows] = rule.judge(found.votes[rows], look)
        if found.done.all():
            break
    found.write(kept, _KEY)
    tell(len(found.done), 0)
    return found


def _up_to(look: int, rows: NDArray[np.int64], found: Bounded, voter: Voter) -> Iterator[Chunk]:
    return (chunk for row in rows.tolist() for chunk in voter.chunks(row, int(found.draws[row]), look))


def _add(found: Bounded, candidates: NDArray[np.int64], batch: Sequence[Chunk], votes: NDArray[np.int64]) -> None:
    rows = np.array([chunk.row for chunk in batch])
    np.add.at(found.votes, rows, votes[np.arange(len(rows)), candidates[rows]])
    np.add.at(found.draws, rows, [chunk.draws for chunk in batch])
    np.add.at(found.unanswered, rows, votes[:, -1])
