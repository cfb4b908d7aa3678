"""What to do about images and labels that cannot be used, from what was found in them: the second half of the errors
of `inputs`. Where a line of code mends it, that line is named, and works as it stands."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

__all__ = ["SLIGHTLY", "integer_advice", "label_advice", "label_range_advice", "no_tensor_advice", "pixel_advice"]

SLIGHTLY = 1e-2  # as far outside the box interpolation and half precision leave images that are on the right scale


def no_tensor_advice(value: object, name: str) -> str:
    """What makes a tensor of images or labels of something else; name: by which the caller knows it."""
    if isinstance(value, np.ndarray):
        return _array_advice(value, name)
    if _is_pil(value):
        return f" Make a tensor of it: torchvision.transforms.functional.to_tensor({name})[None]."
    if isinstance(value, (list, tuple)) and value:
        return _sequence_advice(value, name)
    if isinstance(value, (bool, int)):
        return f" Try torch.tensor([{name}])."
    return ""


def _array_advice(array: np.ndarray[tuple[int, ...], np.dtype[np.generic]], name: str) -> str:
    if name != "x":
        return f" Try torch.from_numpy({name}){'' if array.dtype == np.int64 else '.long()'}."
    last = array.ndim == 4 and array.shape[-1] in (1, 3) and array.shape[1] not in (1, 3)
    arranged = "torch.from_numpy(x)" + (".permute(0, 3, 1, 2)" if last else "")
    scaled = {"u": " / 255", "i": " / 255"}.get(array.dtype.kind, "" if array.dtype == np.float32 else ".float()")
    return f" Try {arranged}{scaled}."


def _sequence_advice(values: Sequence[object], name: str) -> str:
    first = values[0]
    if _is_pil(first):
        return (f" Make tensors of the PIL images: torch.stack([torchvision.transforms.functional.to_tensor(image) for "
                f"image in {name}]), once all have one size.")
    if isinstance(first, (Tensor, np.ndarray)) and first.ndim:
        shapes = dict.fromkeys(tuple(v.shape) for v in values if isinstance(v, (Tensor, np.ndarray)))
        if len(shapes) > 1:
            return f" Its images have several shapes, {_some(shapes)}: bring them to one size (resize, crop)."
        if isinstance(first, Tensor):
            return f" Try torch.stack(list({name}))."
        return _array_advice(np.stack([np.asarray(v) for v in values[:1]]), name).replace(
            f"from_numpy({name})", f"from_numpy(numpy.stack({name}))")
    if isinstance(first, str):
        return " These are texts: labels are class numbers, counted from 0." if name != "x" else ""
    return f" Try torch.tensor({name})."


def integer_advice(x: Tensor) -> str:
    """Of images in whole numbers (or of complex ones, or booleans)."""
    if x.dtype == torch.bool or (x.numel() and not x.is_complex() and int(x.min()) >= 0 and int(x.max()) <= 1):
        return " They hold only 0 and 1: x.float() is on the right scale."
    if x.is_complex():
        return ""
    if x.numel() and int(x.max()) > 255:
        return f" Divide by the scale's end, such as x / {65535 if int(x.max()) > 4095 else 4095}."
    return " Divide 8-bit images by 255."


def pixel_advice(x: Tensor, low: float, high: float) -> str:
    """Of images (N, ...) whose values reach from low to high, outside [0, 1]."""
    if low >= -SLIGHTLY and high <= 1 + SLIGHTLY:
        return ("That is the right scale, left a little by rounding or by interpolation: x.clamp(0, 1) puts them back "
                "into the box.")
    if low >= -SLIGHTLY and high <= 40 and bool((x == x.round()).all()):
        return f"They are whole numbers: divide by the end of their scale, such as x / {high:.0f}."
    if high > 40 and low >= -high / 5:
        return ("They are pixels from 0 to 255: divide by 255, x / 255." if high < 320 else
                f"They are pixels of more than 8 bits: divide by the end of their scale, such as x / "
                f"{next((end for end in (1023, 4095, 16383, 65535) if high <= end), round(high))}.")
    for reach, mends, mean, std in ((0.5, "x + 0.5", 0.5, 1.0), (1, "(x + 1) / 2", 0.5, 0.5)):
        if low >= -reach - SLIGHTLY and high <= reach + SLIGHTLY and (reach == 1 or high - low > 0.8):
            c = x.shape[1]
            return (f"They are probably pixels on a scale from −{reach:g} to {reach:g}: {mends} brings them back, and "
                    f"robustness_lib.models.as_classifier(model, mean=[{mean}] * {c}, std=[{std}] * {c}) moves that "
                    f"scale into the model.")
    if low < -20 or high > 20:
        return ("They are probably pixels from 0 to 255 with a mean taken away: add it again and divide by 255, and "
                "put the subtraction into a module in front of the model.")
    return ("The usual cause is normalization outside the model, which also changes the meaning of ε: undo it, and "
            "wrap the model as robustness_lib.models.as_classifier(model, mean=..., std=...).")


def label_advice(y: Tensor, x: Tensor, name: str) -> str:
    """Of a tensor that is not one int64 label for each image of x."""
    if y.ndim == 2 and y.shape[1] > 1:
        return _row_advice(y, name)
    fixed = name + ("[:, 0]" if y.ndim == 2 else "[None]" if y.ndim == 0 else "")
    if y.ndim > 2:
        return " One label for a whole image is meant; a map of labels, as for segmentation, is none."
    if y.is_complex():
        return ""
    if y.is_floating_point() and len(broken := y[y != y.round()]):
        return (f" It holds numbers such as {broken[0].item():.4g}: those of a regression, or probabilities, are no "
                f"classes.")
    count = y.numel()
    if y.ndim == 0 and x.ndim <= 3:
        return f" One image and its label want their batch axis: x[None] and {name}[None]."
    if count != len(x):
        if count == 1 and x.ndim == 3:
            return " One image (C, H, W) goes in with its batch axis: x[None]."
        return f" There are {count} labels for {len(x)} images."
    return f" Try {fixed}{'' if y.dtype == torch.int64 else '.long()'}."


def _row_advice(y: Tensor, name: str) -> str:
    """Of labels (M, K), a row each."""
    values, sums = y.double(), y.double().sum(1)
    within = bool(((values >= 0) & (values <= 1)).all())
    if within and bool((values == values.round()).all()):
        if bool((sums == 1).all()):
            return f" They are one-hot: try {name}{'.int()' if y.dtype == torch.bool else ''}.argmax(1)."
        return (" They mark several classes for one image, or none: this library attacks models that choose one class. "
                "Choose a class, one label per image.")
    if within and bool(((sums - 1).abs() < 1e-3).all()):
        return f" They are probabilities (soft labels, mixed images): {name}.argmax(1) takes the likeliest class."
    return " One class number for each image is meant."


def label_range_advice(low: int, high: int, classes: int) -> str:
    """Of labels from low to high, for so many logits."""
    if low < 0:
        return ". Negative numbers often mark images without a label: leave these out"
    if low >= 1 and high == classes:
        return ". Where labels begin at 1, take 1 off: y - 1"
    return ". Has the model fewer outputs than the data have classes?"


def _is_pil(value: object) -> bool:
    return hasattr(value, "getbands") and hasattr(value, "convert")


def _some(shapes: dict[tuple[int, ...], None]) -> str:
    return " and ".join(map(str, list(shapes)[:2]))
