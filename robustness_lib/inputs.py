"""What an attack is given, checked before any work: each error says what was found and what to do."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral, Real

import torch
from torch import Tensor

__all__ = ["NotANumber", "Say", "check_count", "check_images", "check_index", "check_labels", "check_logits",
           "check_real", "check_start", "check_targets"]


Say = Callable[[str], None]  # is told, in a sentence each, what was decided for whoever gave the input


class NotANumber(ValueError):
    """The model answers NaN."""


def check_count(name: str, value: object, least: int | None = 1) -> None:
    """A whole number, at least `least`."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be a whole number; found {value!r}")
    if least is not None and value < least:
        raise ValueError(f"{name} must be at least {least}; found {value}")


def check_real(name: str, value: object, what: str) -> float:
    """A number, as a float. what: it means, in words. (Its range is the caller's to check, which refuses NaN.)"""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, {what}; found {value!r}")
    return float(value)


def check_images(x: Tensor) -> None:
    """Floating-point images in the pixel box. Raises TypeError or ValueError."""
    if not isinstance(x, Tensor):
        raise TypeError(f"images must be a torch.Tensor of shape (N, ...); found {type(x).__name__}")
    if not x.is_floating_point():
        raise TypeError(f"images must be float32 or float64 in [0, 1]; found {x.dtype}. Divide 8-bit images by 255.")
    if x.dtype not in (torch.float32, torch.float64):
        raise TypeError(
            f"images must be float32 or float64; found {x.dtype}. Half precision cannot hold a small ε: "
            f"pass x.float() and let the model convert."
        )
    if x.ndim < 2:
        raise ValueError(f"images must have a batch dimension, (N, ...); found shape {tuple(x.shape)}")
    if x.numel() == 0:
        return
    low, high = x.aminmax()
    if torch.isnan(low):
        raise ValueError("images contain NaN")
    if low < 0 or high > 1:
        raise ValueError(
            f"images must lie in [0, 1]; found values from {low.item():.4g} to {high.item():.4g}. The usual cause is "
            f"normalization outside the model, which also changes the meaning of ε: undo it, and wrap the model as "
            f"robustness_lib.models.as_classifier(model, mean=..., std=...)."
        )


def check_labels(y: Tensor, x: Tensor, name: str = "y") -> None:
    """One int64 label per image. (Their range is checked against the first logits.)"""
    if not isinstance(y, Tensor) or y.dtype != torch.int64:
        found = y.dtype if isinstance(y, Tensor) else type(y).__name__
        raise TypeError(f"{name} must be an int64 tensor of class numbers; found {found}. Try {name}.long().")
    if y.shape != x.shape[:1]:
        raise ValueError(f"{name} must have shape ({len(x)},), one label per image; found {tuple(y.shape)}")


def check_targets(target: Tensor, y: Tensor, x: Tensor) -> None:
    """Classes to reach, none of them the image's own: that is reached without an attack, and counts as a success."""
    check_labels(target, x, "target")
    if same := int((target.cpu() == y.cpu()).sum()):
        raise ValueError(f"for {same} of {len(y)} images the target is the label y, so there is nothing to attack: a "
                         f"target is another class, such as (y + 1) % classes, or the most likely wrong one")


def check_start(start: Tensor | None, x: Tensor) -> None:
    """Images to begin from: of x's shape, and no NaN, which no projection would bring back."""
    if start is None:
        return
    if not isinstance(start, Tensor):
        raise TypeError(f"start must be a tensor of images; found {type(start).__name__}")
    if start.shape != x.shape:
        raise ValueError(f"start must have the images' shape {tuple(x.shape)}; found {tuple(start.shape)}")
    if start.isnan().any():
        raise ValueError("start contains NaN")


def check_index(index: Tensor | None, x: Tensor) -> Tensor:
    """The examples' numbers in their data set, on the CPU; 0 to N − 1 where none are given."""
    if index is None:
        return torch.arange(len(x))
    if not isinstance(index, Tensor):
        raise TypeError(f"index must be an int64 tensor, one number per image; found {type(index).__name__}")
    if index.dtype != torch.int64 or index.shape != x.shape[:1]:
        raise ValueError(
            f"index must be int64 of shape ({len(x)},), each image's number in its data set; "
            f"found {index.dtype} of shape {tuple(index.shape)}"
        )
    return index.cpu()


def check_logits(logits: object, x: Tensor, labels: tuple[Tensor, ...]) -> None:
    """The model's first answer: (N, K) floating-point logits, K ≥ 2, no NaN, every label below K."""
    help_ = "Wrap the model with robustness_lib.models.as_classifier."
    if not isinstance(logits, Tensor):
        raise TypeError(f"the model must return a tensor of logits (N, K); found {type(logits).__name__}. {help_}")
    if logits.ndim != 2 or len(logits) != len(x):
        raise ValueError(
            f"the model must return logits of shape ({len(x)}, K) for {len(x)} images; "
            f"found {tuple(logits.shape)}. {help_}"
        )
    if not logits.is_floating_point():
        raise TypeError(f"the model must return floating-point logits, not decisions; found {logits.dtype}. {help_}")
    classes = logits.shape[1]
    if classes < 2:
        raise ValueError(f'the loss needs at least 2 classes; found {classes}. {help_} (output="binary")')
    if torch.isnan(logits).any():
        raise NotANumber("the model returns NaN on images that it is shown: no verdict on these means anything")
    for label in labels:
        low, high = (int(v) for v in label.aminmax())
        if low < 0 or high >= classes:
            raise ValueError(f"labels must lie in 0 ... {classes - 1} for {classes} logits; found {low} to {high}")
