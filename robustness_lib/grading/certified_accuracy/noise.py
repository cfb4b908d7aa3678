"""What can be wrong with the noise on images that a model was shown."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from robustness_lib.grading.observations import Observation, need
from robustness_lib.grading.returned_values import in_box

__all__ = ["alike", "noise_mistake", "noise_of_its_own", "right_noise"]


def noise_mistake(noise: Tensor, sigma: float) -> str | None:
    """What is wrong with noise that should be σ times a standard normal; None where nothing is.

    noise: (M, ...), ten thousand values or more, so that chance alone is never taken for a mistake.
    """
    spread, middle = noise.std().item(), noise.mean().item()
    if noise.abs().max() < 1e-4:
        return "the model is shown the images without noise"
    if len(set(noise[0].flatten().tolist())) < 0.5 * noise[0].numel():
        return "pixels of an image share their noise: draw a number for each pixel and channel"
    if abs(middle) > 0.1 * sigma:
        return "the noise is not centred at 0: randn draws a standard normal, rand numbers between 0 and 1"
    if abs(spread / sigma - 1) > max(0.01, 6 / math.sqrt(2 * noise.numel())):  # six times what chance does
        return _what_spread(spread, sigma)
    if not 0.03 < (noise.abs() > 2 * sigma).float().mean() < 0.065:
        return "the noise has the right standard deviation and is not normal: use randn"
    return None


def _what_spread(spread: float, sigma: float) -> str:
    found = f"the noise has standard deviation {spread:.3f} where σ = {sigma:g}"
    for units, why in ((sigma**2, "that is σ². σ is the standard deviation and no variance: σ times randn"),
                       (math.sqrt(sigma), "that is √σ. σ is the standard deviation and no variance: σ times randn"),
                       (1.0, "multiply randn by σ")):
        if abs(spread / units - 1) < 0.06:
            return f"{found}: {why}"
    return found


def alike(noise: Tensor) -> Tensor:
    """Which of (M, ...) are the same noise, (M, M) bool, apart from each with itself."""
    flat = noise.flatten(1).double()
    far = torch.cdist(flat, flat, compute_mode="donot_use_mm_for_euclid_dist")
    return (far < 1e-3 * math.sqrt(flat.shape[1]) * noise.std()) & ~torch.eye(len(noise), dtype=torch.bool)


def right_noise(shown: Tensor, x: Tensor, sigma: float, wide: Tensor) -> Iterator[Observation]:
    """Two shares: the images under noise are not cut off anywhere, and what was added is N(0, σ²). wide: what was shown
    under a σ so large that any bounds are met."""
    mistake = noise_mistake(shown - x, sigma)
    clean = torch.equal(shown, x)
    bounds = _bounds(wide)
    clamped = (in_box(shown) or bounds is not None) and not clean
    yield need(not clamped and not clean, "the noisy images are not clamped",
               mistake if clean and mistake else
               f"noisy images are clamped to {bounds or '[0, 1]'}: the certificate is about the whole normal "
               "distribution")
    yield need(mistake is None and not clamped, f"the noise is normal with standard deviation σ = {sigma:g}",
               "clamping has cut the noise short" if clamped else mistake or "")


def _bounds(shown: Tensor) -> str | None:
    """The interval to which images (M, ...) were clamped; None where most do not share their ends."""
    low, high = shown.min(), shown.max()
    if not all((shown == end).flatten(1).any(1).double().mean() > 0.5 for end in (low, high)):
        return None
    return f"[{low.item():.3g}, {high.item():.3g}]"


def noise_of_its_own(noise: Tensor, rows: Tensor) -> Iterator[Observation]:
    """Two shares: no two of (M, ...) have the same noise. rows (M,): the image that each was added to."""
    same = alike(noise)
    own = rows[:, None] == rows
    mistake = "shows an image the same noise again and again: draw for each copy" if (same & own).any() else \
        "all images of a batch get the same noise: draw it in the shape of x"
    yield need(not same.any(), "each copy of each image has its own noise", mistake, share=2)
