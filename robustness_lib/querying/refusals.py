"""Why a model refuses the images that it is shown: of another type than its weights, or of another arrangement. What
the model is held against is what it has and what it does; nothing is guessed from the sentence of a failing layer."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import reduce
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from robustness_lib.errors import described
from robustness_lib.inputs import LabelOutOfRange, NotANumber
from robustness_lib.querying.frozen import Classifier, Mode, frozen

__all__ = ["other_arrangement", "refused_arrangement", "type_advice"]

_ABOUT_TYPES = re.compile(r"\bd?types?\b|not implemented for '")  # of PyTorch's refusals, those of a type
_Call = tuple[Any, ...]  # of a method of tensors: its name and arguments
_Ways = dict[str, list[_Call]]  # what people mean, and what makes it of what they gave
_GREY = "grey (1 channel)"
_GREY_IN_FILES = 'grey (1 channel; in a file of data, np.savez(..., axes="NHW"))'


def type_advice(model: object, images: torch.dtype, error: str) -> str | None:
    """What to convert, where the floating-point type of a model's weights is why it failed on images of this type with
    this error; else None."""
    if not isinstance(model, nn.Module) or not _ABOUT_TYPES.search(error):
        return None
    held = {p.dtype for p in model.parameters() if p.is_floating_point()}
    strays = {name: b.dtype for name, b in model.named_buffers() if b.is_floating_point() and b.dtype != images}
    if held and held != {images}:
        return _of_parameters(held, images)
    if strays:
        name, kind = next(iter(strays.items()))
        return (f"the images are {images}, but its buffer {name} is {kind}: model.to({images}) brings all of it to one "
                f"type")
    return (f"its parameters are {images}, like the images, but on the way to them the images become another type (a "
            f"constant of another type in the forward pass?): convert there, or to {images} before the next layer"
            ) if held else None


def _of_parameters(held: set[torch.dtype], images: torch.dtype) -> str:
    names, as_images = " and ".join(sorted(map(str, held))), "double" if images == torch.float64 else "float"
    if len(held) > 1:
        return f"its parameters are of several types, {names}: bring them to the images', model.{as_images}()"
    (kind,) = held
    if kind in (torch.float16, torch.bfloat16):
        return (f"its parameters are {kind} and the images {images}. model.{as_images}() answers in full precision, "
                f"which a verdict should rest on; to attack it in {kind} as it is, put it into a module whose forward "
                f"returns self.model(x.to({kind})).float(). (Images stay {images}: {kind} cannot hold a small ε. "
                f"Autocast, which would convert by itself, is off where verdicts are made.)")
    other = "float" if images == torch.float64 else "double"
    return f"its parameters are {kind} and the images {images}. Convert one of the two: x.{other}(), or " \
           f"model.{as_images}()"


class Asked(Protocol):
    calls: int


@contextmanager
def refused_arrangement(model: Classifier, x: Tensor, mode: Mode = "eval",
                        asked: Asked | None = None) -> Iterator[None]:
    """Where what is inside fails on the images x (N, ...) because the model takes them in another arrangement only, the
    error is a ValueError that names it; else what was raised comes through. asked: who counts the model's calls; after
    the first one it is not the arrangement."""
    try:
        yield
    except Exception as error:  # whatever a model may raise
        if isinstance(error, (LabelOutOfRange, NotANumber)) or (asked is not None and asked.calls > 2):
            raise  # the model has answered (one image it may have been shown alone and then as two)
        few = x if x.ndim == 3 and len(x) <= 4 else x[:2]  # three axes may be one image, (C, H, W)
        device = next(model.parameters(), few).device if isinstance(model, nn.Module) else few.device
        with frozen(model, mode):
            advice = other_arrangement(model, few.to(device))
        if not advice:
            raise
        raise ValueError(f"the model fails on images of shape {tuple(x.shape)}: {described(error)}{advice}") from error


def other_arrangement(model: Callable[[Tensor], Any], x: Tensor) -> str:
    """In which other arrangement of the images x (N, ...) the model answers them, as the end of a sentence; or "". It
    is asked; what a forward pass leaves on it is left."""
    if x.numel() == 0 or _answers(model, x):  # it has no objection to the arrangement
        return ""
    for name, calls in _arrangements(x).items():
        try:
            other = reduce(lambda images, call: getattr(images, call[0])(*call[1:]), calls, x)
        except RuntimeError:  # of PyTorch: an image that cannot be brought to that shape
            continue
        if _answers(model, other):
            return f". It takes images as {name}: {_line(calls)}"
    return ""


def _arrangements(x: Tensor) -> _Ways:
    flat: _Ways = {"points (N, D)": [("flatten", 1)]}
    if x.ndim == 2:
        return _of_points(x.shape[1])
    if x.ndim == 3:
        found: _Ways = {"a batch, and this is one image": [("unsqueeze", 0)], _GREY_IN_FILES: [("unsqueeze", 1)],
                        "colour (3 channels)": [("unsqueeze", 1), ("expand", -1, 3, -1, -1)],
                        "(N, C, L)": [("transpose", 1, 2)]}
        return found | flat
    if x.ndim == 5:
        found = {"(N, C, T, H, W)": [("transpose", 1, 2)], "(N, C, ...)": [("movedim", -1, 1)]}
        return found | flat
    if x.ndim != 4:
        return flat
    first: list[_Call] = [("permute", 0, 3, 1, 2)]
    given: list[_Call] = []
    found = {"(N, C, H, W)": first, "(N, H, W, C)": [("permute", 0, 2, 3, 1)]}
    more = {f"{name}{words}": [*before, *calls]
            for before, channels, words in ((given, x.shape[1], ""), (first, x.shape[3], ", (N, C, H, W)"))
            for name, calls in _other_channels(channels).items()}
    return found | more | flat


def _of_points(length: int) -> _Ways:
    found: _Ways = {}
    for channels in (1, 3):
        side = math.isqrt(length // channels)
        if side * side * channels == length:
            found[f"images (N, {channels}, {side}, {side})"] = [("reshape", -1, channels, side, side)]
    return found | {"signals (N, 1, L)": [("unsqueeze", 1)]}


def _other_channels(channels: int) -> _Ways:
    if channels == 3:
        return {_GREY: [("mean", 1, True)]}
    if channels == 1:
        return {"colour (3 channels)": [("expand", -1, 3, -1, -1)]}
    return {"colour (3 channels)": [("narrow", 1, 0, 3)]} if channels == 4 else {}


def _line(calls: list[_Call]) -> str:
    """As one writes it: x[None], x.permute(0, 3, 1, 2)."""
    short = {("unsqueeze", 0): "[None]", ("unsqueeze", 1): "[:, None]"}
    return "x" + "".join(short.get(call) or f".{call[0]}({', '.join(map(str, call[1:]))})" for call in calls)


def _answers(model: Callable[[Tensor], Any], x: Tensor) -> bool:
    """Does it answer each of these images?"""
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[x.device] if x.is_cuda else []):
            answer = model(x.detach().clone(memory_format=torch.contiguous_format))
    except Exception:  # whatever a model may raise
        return False
    return not isinstance(answer, Tensor) or (answer.ndim > 0 and len(answer) == len(x))
