"""The one loop over attacks: clean answers first, then attack after attack, each on the images that it is to try.

`AutoAttack.run` and `evaluate` both run it. What is done with the images is a list of steps under one protocol; each
finished piece of a step is kept on disk, so that a killed run goes on where it was.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from robustness_lib.errors import spoken
from robustness_lib.querying.batch_size import ShrinkingBatchSize, cut
from robustness_lib.querying.warnings import AttackWarning
from robustness_lib.state import Chunks, Content

__all__ = ["AttackColumns", "EnsembleRun", "EnsembleStep", "ImagePart", "Refused", "StepFailed", "Verdicts"]


class Refused(ValueError):
    """What was found cannot be counted, and the run must end: an attack broke the rules, or contradicts a proof."""


class StepFailed(Exception):
    """The model, or an attack, raised. step: where. cause: what was raised."""

    def __init__(self, step: str, cause: Exception) -> None:
        super().__init__(f"{step}: {spoken(cause)}")
        self.step, self.cause = step, cause


@dataclass(frozen=True)
class ImagePart:
    """The unit of work: images x (n, ...) with labels y (n,) and their numbers in the data set, index (n,), on the CPU.
    first: place of the first of them in the data given."""

    x: Tensor
    y: Tensor
    index: Tensor
    first: int = 0

    def __len__(self) -> int:
        return len(self.y)

    def at(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x, y and index of the images at these places (m,), ascending."""
        if len(rows) == len(self):  # all of them: no copy
            return self.x, self.y, self.index
        return self.x[rows.to(self.x.device)], self.y[rows.to(self.y.device)], self.index[rows]


@dataclass
class AttackColumns:
    """What an attack did to a part, column by column, (n,) each on the CPU.

    tried, broke: bool. mistaken_for: int64, the class that the adversarial image gets, −1 where there is none.
    distance: float64, NaN where there is none. spent: calls, queries, gradients, seconds. warnings: kind → places of
    the images. others: warnings about another model than this, or in words of the attack's own. kept: what `keep` made
    of the images found, piece by piece, each with their places.
    """

    tried: Tensor
    broke: Tensor
    mistaken_for: Tensor
    distance: Tensor
    spent: Counter[str] = field(default_factory=Counter)
    warnings: dict[str, list[int]] = field(default_factory=dict)
    others: list[AttackWarning] = field(default_factory=list)
    kept: list[tuple[Tensor, Content]] = field(default_factory=list)

    @classmethod
    def empty(cls, n: int) -> AttackColumns:
        nobody = torch.zeros(n, dtype=torch.bool)
        return cls(nobody, nobody.clone(), torch.full((n,), -1), torch.full((n,), torch.nan, dtype=torch.float64))


@dataclass
class Verdicts:
    """What is known of a part so far. clean: (n,) what the model answers without an attack, column by column. right,
    standing, proved: (n,) bool, right without an attack, not broken so far, and such that no attack can break it.
    followed: (n,) bool, an attack so far has had a gradient to follow (`AttackResult` says when). attacks: by the name
    of their step. other: what other steps found. seconds: of all of them."""

    right: Tensor
    standing: Tensor
    followed: Tensor
    proved: Tensor
    clean: dict[str, Any] = field(default_factory=dict)
    attacks: dict[str, AttackColumns] = field(default_factory=dict)
    other: dict[str, Content] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def open(self) -> Tensor:
        """(n,) bool: neither broken nor proved."""
        return self.standing & ~self.proved


class EnsembleStep(ABC):
    """Something that is done with the images of a part. name: of its own, for what it found. piece: images that it
    takes at once where that is fewer than the run's, since each takes long."""

    name: str
    piece: int | None = None

    @property
    def label(self) -> str:
        """What progress and failures call it."""
        return self.name

    def begin(self, verdicts: Verdicts) -> None:  # noqa: B027 - most steps have nothing to begin
        """Before the first piece, also where there is none."""

    @abstractmethod
    def rows(self, part: ImagePart, verdicts: Verdicts) -> Tensor:
        """Places (m,) of the images that it looks at."""

    @abstractmethod
    def work(self, part: ImagePart, rows: Tensor, size: int) -> Content:
        """What it finds on the images at these places, in batches of `size`. Kept on disk as it is."""

    @abstractmethod
    def merge(self, part: ImagePart, rows: Tensor, content: Content, verdicts: Verdicts) -> None:
        """Put what `work` found, now or in an earlier run, among the verdicts."""


class EnsembleRun:
    """The steps, in order, over one part after the other.

    size: images that travel to the device together, halved while its memory runs out. piece: images that a step takes
    at once, and what is kept on disk together (where `size` is fixed, all of the part, whose batches stay as they are).
    tell: called with each step's label and the share of steps that is done.
    """

    def __init__(self, steps: Sequence[EnsembleStep], chunks: Chunks, size: ShrinkingBatchSize, piece: int) -> None:
        self.steps, self.chunks, self.size, self.piece = steps, chunks, size, piece

    def __call__(self, part: ImagePart, tell: Callable[[str, float], None] = lambda name, share: None) -> Verdicts:
        """Raises StepFailed, and what a step refuses (`Refused`); ValueError where the state holds something else."""
        nobody = torch.zeros(len(part), dtype=torch.bool)
        verdicts = Verdicts(nobody, nobody.clone(), nobody.clone(), nobody.clone())
        for number, step in enumerate(self.steps):
            step.begin(verdicts)
            chosen = step.rows(part, verdicts)
            if len(chosen) == 0:
                continue
            size = min(self.piece, step.piece or self.piece)
            pieces = cut(len(chosen), len(part) if self.size.fixed else size)
            for place, piece in enumerate(pieces):
                tell(step.label, (number + place / len(pieces)) / len(self.steps))
                rows = chosen[piece]
                key = f"{part.first:07d}+{len(part)}-{number:02d}-{place:05d}"
                content = self.chunks.read(key)
                if content is None:
                    began = time.perf_counter()
                    while content is None:
                        try:
                            content = step.work(part, rows, self.size.now)
                        except Refused:
                            raise
                        except Exception as error:  # whatever a model may raise
                            if not self.size.can_shrink(error):
                                raise StepFailed(step.label, error) from error
                        if content is None:  # outside the handler: its exception holds the tensors that have to go
                            self.size.shrink()
                    content |= {"rows": rows, "took": time.perf_counter() - began}
                    self.chunks.write(key, content)
                if not torch.equal(content.pop("rows"), rows):
                    raise ValueError(f"the state holds {step.name} on other images than stand now; delete it and begin "
                                     f"again")
                verdicts.seconds += content.pop("took")
                step.merge(part, rows, content, verdicts)
        return verdicts
