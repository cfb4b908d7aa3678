"""Examples to look at: the image, the change made visible, the adversarial image."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robustness_lib.png import png_bytes
from robustness_lib.reports.report import Picture

__all__ = ["image_png", "is_image", "picture"]


def picture(index: int, label: int, mistaken_for: int, attack: str, x: NDArray[Any], x_adv: NDArray[Any], eps: float,
            norm: str) -> Picture | None:
    """An example as three PNG files, or None for what is no image: anything but 1 or 3 channels and two axes.

    x, x_adv: (C, H, W) in [0, 1]. eps: in pixel units. The change is drawn around mid-grey. Under "linf" ±ε fills
    the scale, so that two examples can be compared; an L2 ball leaves a single pixel almost free, so under "l2"
    the largest change of this image fills it.

    Raises ValueError where x and x_adv differ in shape.
    """
    if x.shape != x_adv.shape:
        raise ValueError(f"the image is {tuple(x.shape)} and the adversarial one {tuple(x_adv.shape)}: "
                         f"they must have the same shape (C, H, W)")
    if not is_image(x):
        return None
    change = x_adv.astype(np.float64) - x
    scale = eps if norm == "linf" else float(np.abs(change).max())
    shown = (change / (2 * scale) if scale > 0 else 0 * change) + 0.5
    return Picture(index, label, mistaken_for, attack, image_png(x), image_png(shown),
                   image_png(x_adv))


def is_image(x: NDArray[Any]) -> bool:
    """Whether it can be shown as one: (C, H, W) of 1 or 3 channels."""
    return x.ndim == 3 and x.shape[0] in (1, 3) and x.size > 0


def image_png(x: NDArray[Any]) -> str:
    """Pixels (C, H, W) in [0, 1], nothing smoothed, as PNG in base64."""
    levels = (x.astype(np.float64).clip(0, 1) * 255).round().astype(np.uint8)
    pixels = np.ascontiguousarray(np.broadcast_to(levels, (3, *levels.shape[1:])).transpose(1, 2, 0))
    return base64.b64encode(png_bytes(pixels)).decode("ascii")
