"""The arithmetic of a JPEG file in torch (ITU-T T.81; JFIF's colours), as libjpeg does it: integers up to rounding.

Planes are (N, 1, H, W) or (N, C, H, W), in units of 0 ... 255. Rounding has slope one on the way back. Sums of products
of 8-bit pixels and 16-bit weights fit into float32's 24 bits, so that what libjpeg computes in integers is exact here.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from robustness_lib.straight_through import clamped, straight_through

__all__ = ["CHROMA", "LUMA", "cosines", "decoded_plane", "from_ycc", "halved", "quality_table", "rounded", "to_ycc",
           "twice"]

# T.81, tables K.1 and K.2: the steps of the 64 coefficients at quality 50, row by row.
LUMA = (16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56,
        14, 17, 22, 29, 51, 87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92,
        49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99)
CHROMA = (17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99, 24, 26, 56, 99, 99, 99, 99, 99,
          47, 66, 99, 99, 99, 99, 99, 99, *[99] * 32)

# In 1 / 65536, as libjpeg rounds them: Y, Cb, Cr from R, G, B; and what Cb and Cr add to R, G, B.
_TO_YCC = ((19595, 38470, 7471), (-11059, -21709, 32768), (32768, -27439, -5329))
_FROM_CHROMA = ((0, 91881), (-22554, -46802), (116130, 0))


def rounded(x: Tensor, half: float | Tensor = 0.5) -> Tensor:
    """⌊x + half⌋, with slope one."""
    return straight_through((x + half).floor(), x)


def quality_table(table: tuple[int, ...], quality: int) -> Tensor:
    """(64,) whole steps, 1 to 255: `table` at quality 50, finer above, coarser below (libjpeg's jpeg_set_quality)."""
    percent = 5000 // quality if quality < 50 else 200 - 2 * quality
    return torch.tensor([float(min(max((step * percent + 50) // 100, 1), 255)) for step in table])


def cosines() -> Tensor:
    """(64, 64) orthonormal: the two-dimensional cosine transform of an 8 × 8 block that is laid out row by row."""
    frequency, place = torch.arange(8.0, dtype=torch.float64)[:, None], torch.arange(8.0, dtype=torch.float64)
    one = torch.cos(torch.pi * frequency * (2 * place + 1) / 16) / 2
    one[0] /= 2**0.5
    return torch.kron(one, one).float()


def decoded_plane(plane: Tensor, table: Tensor, transform: Tensor) -> Tensor:
    """One plane (N, 1, H, W), its sides multiples of 8, coded and decoded. table (64,), transform: `cosines()`."""
    blocks = F.pixel_unshuffle(plane - 128, 8)  # (N, 64, H/8, W/8)
    eighths = rounded(8 * torch.einsum("fp,nphw->nfhw", transform, blocks))  # libjpeg's coefficients have three bits
    step = table[:, None, None]
    # To the nearest multiple of a step, and from halfway away from zero: frequent, for the mean of a flat block.
    steps = (eighths.abs() / (8 * step) + 0.5).floor() * eighths.sign()
    blocks = torch.einsum("fp,nfhw->nphw", transform, straight_through(steps * step, eighths / 8))
    return clamped(rounded(F.pixel_shuffle(blocks, 8) + 128), 0, 255)


def to_ycc(rgb: Tensor) -> Tensor:
    """(N, 3, H, W) whole numbers, red, green, blue → luma, blueness, redness (JFIF), whole numbers."""
    weights = rgb.new_tensor(_TO_YCC) / 65536
    ycc = torch.einsum("yc,nchw->nyhw", weights, rgb)
    return torch.cat([rounded(ycc[:, :1]), rounded(ycc[:, 1:] + 128, half=0.5 - 1 / 65536)], 1)


def from_ycc(luma: Tensor, chroma: Tensor) -> Tensor:
    """The way back: luma (N, 1, H, W) and chroma (N, 2, H, W) to (N, 3, H, W), whole numbers in 0 ... 255."""
    weights = chroma.new_tensor(_FROM_CHROMA) / 65536
    return clamped(luma + rounded(torch.einsum("cb,nbhw->nchw", weights, chroma - 128)), 0, 255)


def halved(planes: Tensor) -> Tensor:
    """Means of 2 × 2 pixels (the 4:2:0 of libjpeg), rounded up from a half in every second column only."""
    halves = planes.new_tensor([1, 2]) / 4
    return rounded(F.avg_pool2d(planes, 2), half=halves.repeat(planes.shape[3] // 4))


def twice(planes: Tensor) -> Tensor:
    """Twice the size: three parts of the nearer and one of the further neighbour, in both directions ("fancy"
    upsampling, libjpeg's default; planes of at most two columns are repeated instead)."""
    if planes.shape[3] <= 2:
        return F.interpolate(planes, scale_factor=2, mode="nearest")
    halves = planes.new_tensor([8, 7]) / 16
    return rounded(F.interpolate(planes, scale_factor=2, mode="bilinear", align_corners=False),
                   half=halves.repeat(planes.shape[3]))
