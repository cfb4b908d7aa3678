"""What a change of an image's pixels leaves behind in a file of 8 bits, and how far it moves a color."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["JUST_NOTICEABLE", "color_difference", "flat", "lab", "saved", "surviving"]

# ΔE (CIE76) at which half of the observers are said to see two large patches, side by side, as different (Mahy, Van
# Eycken and Oosterlinck 1994). It knows nothing of noise, of edges, or of how long somebody looks.
JUST_NOTICEABLE = 2.3

_TO_XYZ = torch.tensor([[0.4124564, 0.3575761, 0.1804375],
                        [0.2126729, 0.7151522, 0.0721750],
                        [0.0193339, 0.1191920, 0.9503041]], dtype=torch.float64)  # of linear sRGB, IEC 61966-2-1


def saved(x: Tensor) -> Tensor:
    """Images (N, ...) in [0, 1] as they are read back from a file with 256 levels."""
    return (x * 255).round() / 255


def surviving(x_adv: Tensor, x: Tensor) -> float:
    """Of the values that an attack has changed, the share that still differ from x once both are saved."""
    changed = x_adv != x
    return float((saved(x_adv) != saved(x))[changed].double().mean()) if changed.any() else 0.0


def lab(x: Tensor) -> Tensor:
    """sRGB images (N, 3, H, W) in [0, 1] in CIE L*a*b*, float64: L* from 0 (black) to 100 (white)."""
    x = x.double()
    linear = torch.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)
    white = _TO_XYZ.sum(1)  # D65: what (1, 1, 1) becomes
    part = torch.einsum("ck,nkhw->nchw", _TO_XYZ / white[:, None], linear)
    bent = torch.where(part > (6 / 29) ** 3, part.clamp_min(1e-12) ** (1 / 3), part / (3 * (6 / 29) ** 2) + 4 / 29)
    across, up, deep = bent.unbind(1)
    return torch.stack([116 * up - 16, 500 * (across - up), 200 * (up - deep)], 1)


def color_difference(x_adv: Tensor, x: Tensor) -> Tensor:
    """ΔE of CIE 1976 at each pixel, (N, H, W): the distance of the two colors in L*a*b*."""
    return (lab(x_adv) - lab(x)).square().sum(1).sqrt()


def flat(x: Tensor, levels: int) -> Tensor:
    """(N, H, W) bool: pixels around which, in 3 × 3, no channel spans more than so many of 255 levels. Noise is seen
    there before it is seen anywhere else."""
    padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
    span = F.max_pool2d(padded, 3, 1) + F.max_pool2d(-padded, 3, 1)
    return (span * 255).round().le(levels).all(1)
