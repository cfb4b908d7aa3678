"""Linear functions of what a network computes, on their way back to its images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from robustness_lib.certify.relaxation import Groups, Slopes

__all__ = ["Rows"]


@dataclass
class Rows:
    """pending: by the number of the value that they are functions of now. added (P,): their constants. groups: whose
    they are."""

    pending: dict[int, Tensor]
    added: Tensor
    groups: Groups

    def add(self, more: Tensor | None) -> None:
        self.added = self.added if more is None else self.added + more

    def send(self, values: Sequence[int], backs: Sequence[Tensor]) -> None:
        for k, back in zip(values, backs, strict=True):
            self.pending[k] = self.pending[k] + back if k in self.pending else back

    def spread_out(self, rules: tuple[Slopes, ...], signs: tuple[int, ...]) -> Rows:
        """A copy for each rule and, within, for each sign."""
        times = max(1, len(rules))

        def spread(rows: Tensor) -> Tensor:
            return torch.cat([rows if sign > 0 else -rows for sign in signs] * times)

        groups = Groups(self.groups.images.repeat(times * len(signs)), self.groups.each, rules)
        if len(groups.images) == len(self.groups.images):
            return Rows(self.pending, self.added, groups)
        return Rows({number: spread(rows) for number, rows in self.pending.items()}, spread(self.added), groups)
