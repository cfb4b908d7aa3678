"""Lower bounds of the label's margin over each other class, z_y − z_j, near some images: (N, K), ∞ at the label."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from robustness_lib.certify.alpha_crown import optimized_least
from robustness_lib.certify.enclosure import Enclosure, GoOn, endlessly
from robustness_lib.certify.relaxation import Slopes

__all__ = ["all_margins", "improve_margins", "plain_margins"]


def plain_margins(enclosure: Enclosure, y: Tensor) -> Tensor:
    """From the boxes behind the last bend, with the last linear layers folded into the difference. y: (N,) int64."""
    return all_margins(enclosure, y, ())


def all_margins(enclosure: Enclosure, y: Tensor, rules: Sequence[Slopes]) -> Tensor:
    """By going back through the bends by some rules, the best of them; without a rule, to the last bend."""
    classes = enclosure.network.classes
    margins = torch.full((len(y), classes), math.inf, dtype=enclosure.network.dtype, device=y.device)
    rows, images, others = _margin_rows(y, torch.ones_like(margins, dtype=torch.bool), margins.dtype)
    of_each = images[::classes - 1]
    margins[images, others] = enclosure.least(enclosure.last, rows, of_each, rules, each=classes - 1)
    return margins


def improve_margins(margins: Tensor, enclosure: Enclosure, y: Tensor, rules: Sequence[Slopes], steps: int, *,
                    enough: Tensor | None = None, go_on: GoOn = endlessly) -> None:
    """Put better ones in their place, by going back through the bends, with so many steps of α-CROWN. enough: (N,), for
    those that are not above it alone; all without it. go_on: asked before every step."""
    enough = margins.new_full((len(y),), math.inf) if enough is None else enough
    rows, images, others = _margin_rows(y, margins <= enough[:, None], margins.dtype)
    if len(rows):
        found = optimized_least(enclosure, enclosure.last, rows, images, rules, steps, enough=enough[images],
                                go_on=go_on)
        margins[images, others] = torch.maximum(margins[images, others], found)


def _margin_rows(y: Tensor, wanted: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """z_y − z_j as rows (P, K) over the logits, with the image and the class j of each (P,). wanted: (N, K) bool, of
    which images and classes; the label itself is left out."""
    images, others = wanted.scatter(1, y[:, None], False).nonzero(as_tuple=True)
    rows = torch.zeros(len(images), wanted.shape[1], dtype=dtype, device=y.device)
    rows.scatter_(1, y[images, None], 1)
    rows.scatter_(1, others[:, None], -1)
    return rows, images, others
