"""What several checks ask of what a learner's function returned: are these images, where do they lie, does a model read
them wrongly, is this a number?"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from robustness_lib.grading.observations import Observation, wrong

__all__ = ["LEFT_FROZEN", "SLACK", "in_box", "is_number", "matching", "misread", "not_a_tensor", "not_images",
           "not_of_shape", "within"]

SLACK = 1e-5  # of ε, for the rounding of float32

LEFT_FROZEN = ("leaves the model's parameters frozen, by requires_grad_(False), so that nobody can train it any more: "
               "torch.autograd.grad(loss, pixels) asks for the pixels' gradient alone, and nothing need be frozen")


def not_images(found: object, x: Tensor) -> Observation | None:
    """An observation that ends a check: what came back are no images like x."""
    if not isinstance(found, Tensor):
        return wrong(f"returns {type(found).__name__}: return a tensor of images")
    if found.shape != x.shape:
        return wrong(f"returns shape {tuple(found.shape)} for images of shape {tuple(x.shape)}")
    if not found.is_floating_point() or found.isnan().any():
        return wrong(f"returns {found.dtype} or numbers that are NaN: pixels are real numbers")
    return None


def not_a_tensor(found: object) -> Observation | None:
    """An observation that ends a check: what came back is something else than a tensor, and what to do about it."""
    if isinstance(found, Tensor):
        return None
    if found is None:
        return wrong("returns None: is there a `return` at the end?")
    shape = f" of shape {found.shape}" if isinstance(found, np.ndarray) else ""
    remedy = ": stay with torch from beginning to end" if isinstance(found, np.ndarray | np.generic) else ""
    return wrong(f"returns {type(found).__name__}{shape}, and a torch tensor is needed{remedy}")


def not_of_shape(found: object, shape: tuple[int, ...], what: str) -> Observation | None:
    """An observation that ends a check: what came back is no tensor of this shape. what: it holds. "one ε for each
    image" """
    if not isinstance(found, Tensor):
        return not_a_tensor(found)
    if found.shape != shape:
        return wrong(f"returns shape {tuple(found.shape)}: {what}, {shape}")
    return None


def in_box(images: Tensor) -> bool:
    """Whether all pixels lie in [0, 1]."""
    return bool((images >= 0).all() and (images <= 1).all())


def within(images: Tensor, x: Tensor, eps: float) -> bool:
    """Whether no pixel is farther than ε from x's, up to rounding."""
    return (images - x).abs().max().item() <= eps * (1 + SLACK) + 1e-6


def misread(model: nn.Module, images: Tensor, y: Tensor) -> Tensor:
    """Which images (N, ...) the model reads as another class than y (N,), in eval mode: (N,) bool."""
    with torch.no_grad():
        scores: Tensor = model.eval()(images.float())
    return scores.argmax(1) != y


def is_number(found: Any, finite: bool = True) -> bool:
    """Whether this is one real number, of Python, numpy or torch, and no NaN. finite: nor infinite."""
    try:
        number = float(found)
    except (TypeError, ValueError, RuntimeError):
        return False
    return not isinstance(found, str) and not math.isnan(number) and not (finite and math.isinf(number))


def matching(found: Tensor, right: Tensor, slack: float = 1e-4) -> bool:
    """Whether two numbers are the same up to rounding."""
    return abs(found.item() - right.item()) <= slack * max(1.0, abs(right.item()))
