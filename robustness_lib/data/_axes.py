"""What the axes of an array of examples mean, and how they become (N, C, ...): plainly, or not at all.

Grey images and points have no axis of channels. Elsewhere the channels are first or last, and lengths decide which:
1 or 3 channels, else few beside a large image. Where that says nothing, nobody guesses: the file itself may say it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Array", "another", "channels_first", "find_axes", "is_usual"]

Array = npt.NDArray[Any]

_KNOWN = ("ND", "NHW", "NCHW", "NHWC", "NCL", "NLC", "NCTHW", "NTCHW", "NTHWC", "NCDHW", "NDHWC")
_MOST = 32  # channels that are taken for such by their number alone
_USUAL = (1, 3)
_LONG = 4  # times as long as it is wide: a signal, and no picture
_SAY = 'say it in the file: np.savez(..., axes="{example}")'


def find_axes(images: Array, given: Array | None) -> str:
    """One letter for each axis, such as "NHWC" (T: frames, L: places of a signal, D: of a point or of a volume).

    given: what the file says, an array of one text, or None. Raises ValueError for what is no text, names other axes
    than there are, or cannot be told by the lengths.
    """
    if given is not None:
        return _given(images, given)
    if images.ndim == 2:
        return "ND"
    if images.ndim not in (3, 4, 5):
        raise ValueError(f"images must be (N, H, W), (N, H, W, C) or (N, C, H, W); found {images.shape}")
    return {3: _of_three, 4: _of_four, 5: _of_five}[images.ndim](images.shape)


def channels_first(images: Array, axes: str) -> Array:
    """The same as (N, C, ...); grey images get their one channel, points stay."""
    if axes == "NHW":
        return images[:, None]
    return images if "C" not in axes else np.moveaxis(images, axes.index("C"), 1)


def is_usual(shape: tuple[int, ...], axes: str) -> bool:
    """What nobody takes for anything else: points, square grey images, images of 1 or 3 channels."""
    if axes == "NHW":
        return shape[1] == shape[2]
    return axes == "ND" or (axes in ("NCHW", "NHWC") and shape[axes.index("C")] in _USUAL)


def another(axes: str) -> str:
    """What an array that was taken as `axes` may be instead: grey images where it was taken for a signal."""
    if len(axes) == 3:
        return "NCL" if axes == "NHW" else "NHW"
    return next(other for other in ("NCHW", "NHWC", "NTCHW", "NCTHW") if len(other) == len(axes) and other != axes)


def _given(images: Array, given: Array) -> str:
    axes = str(given.item()).upper() if given.size == 1 else ""
    if axes not in _KNOWN:
        raise ValueError(f"axes must be one of {', '.join(_KNOWN)}; found {axes or given!r}")
    if len(axes) != images.ndim:
        raise ValueError(f"axes says {axes}, and the images have {images.ndim} axes: {images.shape}")
    return axes


def _of_three(shape: tuple[int, ...]) -> str:
    """Grey images, or signals, which are long and have few channels."""
    _, first, last = shape
    small, large = sorted((first, last))
    if small <= _MOST and large >= _LONG * small:
        return "NCL" if first == small else "NLC"
    if first != last and small <= _LONG:
        raise ValueError(f"arrays of shape {shape} may be grey images (N, H, W) or signals (N, C, L): nobody can tell; "
                         + _SAY.format(example="NHW") + ' for images, axes="NCL" for signals')
    return "NHW"


def _of_four(shape: tuple[int, ...]) -> str:
    _, first, middle, last = shape
    usual = [axes for axes, channels in (("NCHW", first), ("NHWC", last)) if channels in _USUAL]
    if len(usual) == 1:
        return usual[0]
    if usual:
        raise ValueError(f"images of shape {shape} may be (N, C, H, W) or (N, H, W, C): nobody can tell. Save larger "
                         f"images, or grey ones as (N, H, W); or {_SAY.format(example='NCHW')}")
    if 4 in (first, last):
        raise ValueError(f"images of shape {shape} have 1 or 3 channels neither first nor last; drop the fourth "
                         f"channel (transparency); or, where it is no transparency, {_SAY.format(example='NCHW')}")
    few = [axes for axes, channels, sides in (("NCHW", first, (middle, last)), ("NHWC", last, (first, middle)))
           if channels <= _MOST and channels < min(sides)]
    if len(few) == 1:
        return few[0]
    raise ValueError(f"images of shape {shape} have 1 or 3 channels neither first nor last, nor few channels beside "
                     f"large sides: nobody can tell; {_SAY.format(example='NCHW')}")


def _of_five(shape: tuple[int, ...]) -> str:
    """Frames, or slices of a volume: the channels are 1 or 3."""
    usual = [axes for axes, place in (("NCTHW", 1), ("NTCHW", 2), ("NTHWC", 4)) if shape[place] in _USUAL]
    if len(usual) == 1:
        return usual[0]
    raise ValueError(f"images must be (N, H, W), (N, H, W, C) or (N, C, H, W), and video (N, T, H, W, C), (N, C, T, H, "
                     f"W) or (N, T, C, H, W) with 1 or 3 channels; of {shape} nobody can tell; "
                     + _SAY.format(example="NCTHW"))
