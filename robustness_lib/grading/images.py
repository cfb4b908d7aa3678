"""What several checks ask of images that a learner's function returns."""

from __future__ import annotations

from torch import Tensor

from robustness_lib.grading.observations import Observation, wrong

__all__ = ["SLACK", "in_box", "not_images", "within"]

SLACK = 1e-5  # of ε, for the rounding of float32


def not_images(found: object, x: Tensor) -> Observation | None:
    """A observation that ends a check: what came back are no images like x."""
    if not isinstance(found, Tensor):
        return wrong(f"returns {type(found).__name__}: return a tensor of images")
    if found.shape != x.shape:
        return wrong(f"returns shape {tuple(found.shape)} for images of shape {tuple(x.shape)}")
    if not found.is_floating_point() or found.isnan().any():
        return wrong(f"returns {found.dtype} or numbers that are NaN: pixels are real numbers")
    return None


def in_box(images: Tensor) -> bool:
    """Whether all pixels lie in [0, 1]."""
    return bool((images >= 0).all() and (images <= 1).all())


def within(images: Tensor, x: Tensor, eps: float) -> bool:
    """Whether no pixel is farther than ε from x's, up to rounding."""
    return (images - x).abs().max().item() <= eps * (1 + SLACK) + 1e-6
