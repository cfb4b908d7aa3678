"""Whether an attack's start is drawn as it should be: evenly from the ball."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["uneven"]


def uneven(share: Tensor) -> str | None:
    """What is wrong with the spread of a start (M,), in shares of ε: two thousand values or more, of pixels where the
    pixel box is far. None where they are uniform from −1 to 1."""
    if share.min() >= 0 or share.max() <= 0:
        return "moves in one direction only: torch.rand lies between 0 and 1, so 2 · rand − 1 lies between −1 and 1"
    if (share.abs() > 0.999).double().mean() > 0.9:
        return "takes the ends only, −ε and ε: a start may lie anywhere between them"
    wanted = torch.linspace(-1, 1, len(share), dtype=share.dtype)
    if (share.sort().values - wanted).abs().max() > 0.15:
        return "not all of the ball is equally likely: draw each pixel's change evenly from −ε to ε"
    return None
