"""What an attack is given, checked before any work: each error says what was found and what to do."""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Integral, Real

import torch
from torch import Tensor

from robustness_lib.input_advice import (
    integer_advice,
    label_advice,
    label_range_advice,
    no_tensor_advice,
    pixel_advice,
)

__all__ = ["ROUNDING", "LabelOutOfRange", "NotANumber", "Say", "check_count", "check_images", "check_index",
           "check_label_range", "check_labels", "check_logits", "check_real", "check_start", "check_targets",
           "clamped_rows"]

ROUNDING = 1e-6  # outside the box: what float32 makes of (x − mean) / std undone

Say = Callable[[str], None]  # is told, in a sentence each, what was decided for whoever gave the input


class NotANumber(ValueError):
    """The model answers NaN."""


class LabelOutOfRange(ValueError):
    """A label that the model has no output for."""


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


def check_images(x: Tensor) -> Tensor:
    """Floating-point images in the pixel box, to go on with: x itself; or, where rounding has left it outside by no
    more than 1e-6 (as an undone normalization does), a copy that is clamped into it (`clamped_rows` tells whom).
    Raises TypeError or ValueError."""
    if not isinstance(x, Tensor):
        raise TypeError(f"images must be a torch.Tensor of shape (N, ...); found {type(x).__name__}."
                        f"{no_tensor_advice(x, 'x')}")
    _check_held("images", "x", x)
    if not x.is_floating_point():
        raise TypeError(f"images must be float32 or float64 in [0, 1]; found {x.dtype}.{integer_advice(x)}")
    if x.dtype not in (torch.float32, torch.float64):
        raise TypeError(
            f"images must be float32 or float64; found {x.dtype}. Half precision cannot hold a small ε: pass "
            f"x.float(). A model that wants {x.dtype} converts them inside, or becomes model.float()."
        )
    if x.ndim < 2:
        advice = " One point goes in as x[None]." if x.ndim else ""
        raise ValueError(f"images must have a batch dimension, (N, ...); found shape {tuple(x.shape)}.{advice}")
    if x.numel() == 0:
        if len(x):
            raise ValueError(f"images have no values: their shape is {tuple(x.shape)}")
        return x
    low, high = (float(value) for value in x.detach().aminmax())
    if math.isnan(low):
        raise ValueError("images contain NaN")
    if low < 0 or high > 1:
        if low >= -ROUNDING and high <= 1 + ROUNDING:
            return x.detach().clamp(0, 1)
        advice = "They hold infinities." if math.isinf(low) or math.isinf(high) else pixel_advice(x, low, high)
        raise ValueError(f"images must lie in [0, 1]; found values from {_figure(low)} to {_figure(high)}. {advice}")
    return x


def _check_held(what: str, name: str, tensor: Tensor) -> None:
    """Its values are there, one beside the other. Raises TypeError."""
    if tensor.is_nested:
        raise TypeError(f"{what} must be an ordinary tensor; found a nested one, of rows that may differ in shape. Of "
                        f"rows of one shape, torch.stack({name}.unbind()) makes one")
    if tensor.layout is not torch.strided:
        raise TypeError(f"{what} must be an ordinary tensor; found {tensor.layout}. {name}.to_dense() makes one")
    if tensor.is_meta:
        raise TypeError(f"{what} are on the meta device, where tensors have no values")


def _figure(value: float) -> str:
    """Short, but not so short that a value outside the box looks like its edge."""
    short = f"{value:.4g}"
    return short if 0 <= value <= 1 or not 0 <= float(short) <= 1 else f"{value:.9g}"


def clamped_rows(x: Tensor, checked: Tensor) -> list[int]:
    """Places of the images of x that `check_images`, which returned `checked`, has clamped."""
    return [] if checked is x else ((x < 0) | (x > 1)).flatten(1).any(1).nonzero()[:, 0].tolist()


def check_labels(y: Tensor, x: Tensor, name: str = "y") -> None:
    """One int64 label per image. (Their range is checked against the first logits.)"""
    wanted = f"{name} must be an int64 tensor of class numbers, one label per image"
    if not isinstance(y, Tensor):
        raise TypeError(f"{wanted}; found {type(y).__name__}.{no_tensor_advice(y, name)}")
    _check_held(name, name, y)
    if y.dtype != torch.int64:
        raise TypeError(f"{wanted}; found {y.dtype} of shape {tuple(y.shape)}.{label_advice(y, x, name)}")
    if y.shape != x.shape[:1]:
        raise ValueError(f"{name} must have shape ({len(x)},), one label per image; found {tuple(y.shape)}."
                         f"{label_advice(y, x, name)}")


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
    _check_held("the model's logits", "logits", logits)
    if logits.ndim != 2 or len(logits) != len(x):
        raise ValueError(
            f"the model must return logits of shape ({len(x)}, K) for {len(x)} image{'' if len(x) == 1 else 's'}; "
            f"found {tuple(logits.shape)}. {help_}"
        )
    if logits.is_complex():
        raise TypeError(f"the model must return real logits, which can be compared; found {logits.dtype}. Return what "
                        f"decides, such as .abs() or .real")
    if not logits.is_floating_point():
        raise TypeError(f"the model must return floating-point logits, not decisions; found {logits.dtype}. {help_}")
    classes = logits.shape[1]
    if classes < 2:
        raise ValueError(f'a classifier tells at least 2 classes apart; found {classes}. {help_} (output="binary")')
    if torch.isnan(logits).any():
        raise NotANumber("the model returns NaN on images that it is shown: no verdict on these means anything")
    for label in labels:
        check_label_range(label, classes)


def check_label_range(labels: Tensor, classes: int, first: int | Tensor = 0) -> None:
    """Every label (N,) below the number of classes, and none below 0. first: the first image's number in the data, or
    those of all (N,), for the error."""
    if len(labels) == 0:
        return
    low, high = (int(v) for v in labels.aminmax())
    if low < 0 or high >= classes:
        row = int(((labels < 0) | (labels >= classes)).nonzero()[0])
        number = int(first[row]) if isinstance(first, Tensor) else first + row
        raise LabelOutOfRange(
            f"labels must lie in 0 ... {classes - 1} for {classes} logits; found {low} to {high}; the first such is "
            f"{int(labels[row])}, of image {number}{label_range_advice(low, high, classes)}")
