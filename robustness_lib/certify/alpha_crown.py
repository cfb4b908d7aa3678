"""α-CROWN: the slopes below bends moved to where the bound is best (Xu et al. 2021, arXiv 2011.13824)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from robustness_lib.certify.enclosure import Enclosure, GoOn, endlessly
from robustness_lib.certify.relaxation import Slopes, alone

__all__ = ["optimized_least"]

_RATE, _DECAY = 0.5, 0.98  # of Adam, as its authors have them


def optimized_least(enclosure: Enclosure, value: int, rows: Tensor, images: Tensor, rules: Sequence[Slopes], steps: int,
                    *, enough: float | Tensor = torch.inf, go_on: GoOn = endlessly) -> Tensor:
    """`Enclosure.least`, and better where moving the slopes makes it so: (P,).

    Each row begins with the slopes of the rule that is best for it and keeps the best bound seen, so that no step can
    lose. Boxes inside the network stay as they are. enough: (P,) or one number; a row that is above it moves no
    further. go_on: asked before every step, and before parts of the rows.
    """
    best, first = torch.stack([enclosure.least(value, rows, images, (rule,), go_on) for rule in rules]).max(0)
    enough = torch.as_tensor(enough, dtype=best.dtype, device=best.device).expand_as(best)
    size = enclosure.chunk(_TAPE)
    for some in torch.split((best <= enough).nonzero()[:, 0], size) if steps else ():
        moved = _moved(enclosure, value, rows[some], images[some], rules, first[some], enough[some], steps, go_on)
        best[some] = torch.maximum(best[some], moved)
    return best


_TAPE = 8  # times the memory of rows that are not to be differentiated


def _moved(enclosure: Enclosure, value: int, rows: Tensor, images: Tensor, rules: Sequence[Slopes], first: Tensor,
           enough: Tensor, steps: int, go_on: GoOn) -> Tensor:
    """The best bound of each row that was seen. first: (P,) the rule to begin with."""
    best = torch.full_like(enough, -torch.inf)
    shares = _first_shares(enclosure, value, rules, first, images)
    if not shares:
        return best
    optimizer = torch.optim.Adam(shares.values(), lr=_RATE)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, _DECAY)
    for step in range(steps + 1):
        if not go_on():
            break
        with torch.enable_grad():
            bounds = enclosure.least_by(tuple(rules[:1]), value, rows, alone(images), shares=shares)[0, 0]
        best = torch.maximum(best, bounds.detach())
        # Behind an operation without lines nothing depends on the slopes.
        if step == steps or bool((best > enough).all()) or not bounds.requires_grad:
            break
        with torch.enable_grad():
            short = -bounds[best <= enough].sum()
        optimizer.zero_grad()
        short.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        for share in shares.values():
            share.data.clamp_(0, 1)
    return best


def _first_shares(enclosure: Enclosure, value: int, rules: Sequence[Slopes], first: Tensor, images: Tensor
                  ) -> dict[int, Tensor]:
    """Of the second line at each bend, as the rules have it, by number of the step: (P, ...) leaves of a graph."""
    shares = {}
    for number in range(1, value + 1):
        relaxation = enclosure.relaxation(number)
        begin = [] if relaxation is None else [relaxation.share(rule) for rule in rules]
        if begin and begin[0] is not None:
            shares[number] = torch.stack(begin)[first, images].requires_grad_()  # type: ignore[arg-type]
    return shares
