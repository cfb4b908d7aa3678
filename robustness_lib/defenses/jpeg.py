"""JPEG, coded and decoded: the codec itself, and its arithmetic in torch for the attacker who wants a gradient.

As a defense: Dziugaite, Ghahramani and Roy 2016 (arXiv 1608.00853), who already saw its limits; Guo et al. 2018
(arXiv 1711.00117). A differentiable JPEG: Shin and Song 2017.
"""

from __future__ import annotations

import io

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from robustness_lib.defenses import _codec
from robustness_lib.defenses.defense import Defense
from robustness_lib.inputs import check_count
from robustness_lib.precision import full_precision
from robustness_lib.straight_through import clamped, divide, straight_through

__all__ = ["JPEG", "DifferentiableJPEG"]


class _Coded(Defense):
    stochastic = False

    def __init__(self, model: nn.Module, quality: int = 75) -> None:
        super().__init__(model)
        check_count("quality", quality, least=None)
        if not 1 <= quality <= 100:
            raise ValueError(f"quality must lie in 1 ... 100, as libjpeg counts it; found {quality}")
        self.quality = quality

    def extra_repr(self) -> str:
        return f"quality={self.quality}, {super().extra_repr()}"


class JPEG(_Coded):
    """x rounded to 8 bits, coded by libjpeg with chroma at half the size (4:2:0), and decoded again.

    quality: 1 to 100. Images are gray (C = 1) or red, green, blue (C = 3). What comes out has no gradient: it does not
    depend on x as autograd sees it. Coding runs on the CPU, image by image, wherever x is. Raises ValueError for
    another quality, and (on use) for other channels; TypeError for a quality that is no whole number.
    """

    differentiable = False

    def _transform(self, x: Tensor) -> Tensor:
        _check_channels(x)
        pixels = (x.detach().clamp(0, 1) * 255).round().to("cpu", torch.uint8)
        decoded = np.stack([_coded(image, self.quality) for image in pixels.permute(0, 2, 3, 1).numpy()])
        return (torch.from_numpy(decoded).permute(0, 3, 1, 2).to(x.dtype) / 255).contiguous().to(x.device)


class DifferentiableJPEG(_Coded):
    """What `JPEG` computes, in torch: forward within half a level of 255 (mean over pixels; most are equal), backward
    as if nothing were rounded. What is left comes from coefficients between two steps, which libjpeg's cosine
    transform in integers now and then rounds to the other one.

    RGB → YCbCr, chroma halved (4:2:0), edges repeated to whole blocks, 8 × 8 cosine transform, quantization with the
    standard tables scaled by `quality`, and back with libjpeg's upsampling; each rounding has slope one (straight
    through). Where a pixel leaves 0 ... 255 and is clamped, its gradient is zero. Channels, quality and errors as for
    `JPEG`.
    """

    differentiable = True
    cosines: Tensor
    luma: Tensor
    chroma: Tensor

    def __init__(self, model: nn.Module, quality: int = 75) -> None:
        super().__init__(model, quality)
        self.register_buffer("cosines", _codec.cosines(), persistent=False)
        self.register_buffer("luma", _codec.quality_table(_codec.LUMA, quality), persistent=False)
        self.register_buffer("chroma", _codec.quality_table(_codec.CHROMA, quality), persistent=False)

    def _transform(self, x: Tensor) -> Tensor:
        _check_channels(x)
        scaled = clamped(x, 0, 1) * 255
        with full_precision():  # a quantizer makes much of little differences
            planes = straight_through(scaled.round(), scaled)
            decoded = self._gray(planes) if x.shape[1] == 1 else self._color(planes)
        return divide(decoded, 255)

    def _gray(self, plane: Tensor) -> Tensor:
        height, width = plane.shape[2:]
        return self._through(_filled(plane, 8, 8), self.luma)[:, :, :height, :width]

    def _color(self, rgb: Tensor) -> Tensor:
        height, width = rgb.shape[2:]
        ycc = _codec.to_ycc(_filled(rgb, 2, 16))
        luma = self._through(_filled(ycc[:, :1], 8, 8), self.luma)[:, :, :height, :width]
        # libjpeg repeats the last column before it halves, and the last row afterwards.
        chroma = _filled(_codec.halved(ycc[:, 1:]), 8, 8)
        chroma = self._through(chroma.flatten(0, 1)[:, None], self.chroma).reshape(chroma.shape)
        chroma = _codec.twice(chroma[:, :, :(height + 1) // 2, :(width + 1) // 2])[:, :, :height, :width]
        return _codec.from_ycc(luma, chroma)

    def _through(self, plane: Tensor, table: Tensor) -> Tensor:
        return _codec.decoded_plane(plane, table.to(plane.dtype), self.cosines.to(plane.dtype))


def _coded(pixels: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    """(H, W, C) bytes through a JPEG file, by Pillow's libjpeg."""
    file = io.BytesIO()
    Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file)).reshape(pixels.shape)


def _filled(planes: Tensor, down: int, across: int) -> Tensor:
    """The last row and column repeated until H is a multiple of `down`, and W of `across`."""
    height, width = planes.shape[2:]
    return F.pad(planes, (0, -width % across, 0, -height % down), mode="replicate")


def _check_channels(x: Tensor) -> None:
    if x.shape[1] not in (1, 3):
        raise ValueError(f"JPEG codes images of 1 channel (gray) or 3 (red, green, blue); found shape {tuple(x.shape)}")
