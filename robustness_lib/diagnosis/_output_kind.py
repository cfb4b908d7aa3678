"""What a model returns when it is first asked: logits, something that can be made logits, or an error."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from robustness_lib.errors import described
from robustness_lib.model_kinds import advice_on
from robustness_lib.models import as_classifier
from robustness_lib.querying.warnings import looks_like_probabilities

__all__ = ["RecognizedOutput", "Remark", "recognize_output"]


@dataclass(frozen=True)
class Remark:
    """Something that was seen. serious: an evaluation means nothing until it is put right."""

    kind: str
    message: str
    serious: bool = True

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}"


@dataclass(frozen=True)
class RecognizedOutput:
    """model: returns logits (N, K) from now on. kind: of what it returned by itself."""

    model: Callable[[Tensor], Tensor]
    kind: str
    remarks: tuple[Remark, ...] = ()


def recognize_output(model: Callable[[Tensor], Any], x: Tensor) -> RecognizedOutput:
    """x: a batch, where the model is. Raises ValueError for a model that fails, with its last line and place, and for
    answers that hold no logits."""
    answer = _ask(model, x)
    remarks: tuple[Remark, ...] = ()
    kind, asked = "logits", model
    if not isinstance(answer, Tensor):
        kind = f"{type(answer).__name__} with logits in it"
        asked = as_classifier(model)
        answer = _ask(asked, x)  # says where it looked if it finds none
        remarks = (Remark("output", f"the model returns a {kind}; as_classifier(model) takes them out"),)
    if answer.ndim == 1 or (answer.ndim == 2 and answer.shape[1] == 1):
        return RecognizedOutput(as_classifier(model, output="binary"), "one number per image", (Remark(
            "output", f"the model returns one number per image, {tuple(answer.shape)}; --output binary, or "
            'as_classifier(model, output="binary"), makes logits of two classes of it'),))
    if answer.ndim != 2 or len(answer) != len(x):
        raise ValueError(f"the model must return logits (N, K); for {len(x)} images it returned {tuple(answer.shape)}")
    if not answer.is_floating_point():
        raise ValueError(f"the model must return logits; it returned {answer.dtype} numbers, which have no gradient")
    if looks_like_probabilities(answer):
        return RecognizedOutput(asked, "probabilities", (*remarks, Remark(
            "probabilities", "the model returns probabilities, on which the gradients of the losses fade where it is "
            "certain, and that hides errors. Return what goes into the softmax")))
    if looks_like_probabilities(answer.exp()):
        return RecognizedOutput(asked, "log-probabilities", (*remarks, Remark(
            "log-probabilities", "the model returns log-probabilities, which serve as logits", serious=False)))
    return RecognizedOutput(asked, kind, remarks)


def _ask(model: Callable[[Tensor], Any], x: Tensor) -> Any:
    try:
        with torch.no_grad():
            return model(x.clone())
    except Exception as error:  # whatever somebody's model raises
        raise ValueError(f"the model fails on images of shape {tuple(x.shape)}: {described(error)}"
                         f"{_hint(model, x, error)}") from error


def _hint(model: Callable[[Tensor], Any], x: Tensor, error: Exception) -> str:
    """What it might take instead."""
    if advice := advice_on(error):
        return f". {advice}"
    held = {p.dtype for p in model.parameters()} if isinstance(model, nn.Module) else set()
    if held and x.dtype not in held:
        return f". Its parameters are {', '.join(sorted(map(str, held)))}: convert it, model.float()"
    if x.ndim != 4:
        return ""
    others = {"(N, H, W, C)": x.permute(0, 2, 3, 1), "points (N, D)": x.flatten(1)}
    others |= {"grey (1 channel)": x.mean(1, keepdim=True)} if x.shape[1] == 3 else {}
    others |= {"colour (3 channels)": x.repeat(1, 3, 1, 1)} if x.shape[1] == 1 else {}
    for name, other in others.items():
        try:
            with torch.no_grad():
                model(other)
        except Exception:  # it does not take that either
            continue
        return f". It takes images as {name}: convert them in a function that wraps it"
    return ""
