"""What a model returns when it is first asked: logits, something that can be made logits, or an error."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from robustness_lib.errors import described
from robustness_lib.model_kinds import advice_on
from robustness_lib.models import as_classifier
from robustness_lib.querying.queried_model import IN_PLACE
from robustness_lib.querying.refusals import other_arrangement, type_advice
from robustness_lib.querying.warnings import looks_like_probabilities, sum_to_one

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
    answers that hold no logits.

    One image is shown as two: some models drop the axis of a batch of one, whose answer then looks like something else.
    """
    given, x = x, torch.cat((x, x)) if len(x) == 1 else x
    answer = _ask(model, x, given)
    remarks: tuple[Remark, ...] = ()
    kind, asked = "logits", model
    if not isinstance(answer, Tensor):
        kind = f"{type(answer).__name__} with logits in it"
        asked = as_classifier(model)
        answer = _ask(asked, x, given)  # says where it looked if it finds none
        remarks = (Remark("output", f"the model returns a {kind}; as_classifier(model) takes them out"),)
    if answer.ndim in (1, 2) and len(answer) == len(x) and answer.is_floating_point() and \
            looks_like_probabilities(answer):
        return _probabilities(model, asked, answer, remarks)
    if answer.ndim == 1 or (answer.ndim == 2 and answer.shape[1] == 1):
        return RecognizedOutput(as_classifier(model, output="binary"), "one number per image", (Remark(
            "output", f"the model returns one number per image, {tuple(answer.shape)}; --output binary, or "
            'as_classifier(model, output="binary"), makes logits of two classes of it'),))
    if answer.ndim != 2 or len(answer) != len(x):
        raise ValueError(f"the model must return logits (N, K); for {len(x)} images it returned {tuple(answer.shape)}")
    if not answer.is_floating_point():
        raise ValueError(f"the model must return logits; it returned {answer.dtype} numbers, which have no gradient")
    if looks_like_probabilities(answer.exp()) and sum_to_one(answer.exp()):
        return RecognizedOutput(asked, "log-probabilities", (*remarks, Remark(
            "log-probabilities", "the model returns log-probabilities, which serve as logits", serious=False)))
    return RecognizedOutput(asked, kind, remarks)


def _probabilities(model: Callable[[Tensor], Any], asked: Callable[[Tensor], Tensor], answer: Tensor,
                   remarks: tuple[Remark, ...]) -> RecognizedOutput:
    """All answers between 0 and 1: nothing else can be said of the model before it returns logits."""
    single = answer.ndim == 1 or answer.shape[1] == 1
    inside = "sigmoid" if single or not sum_to_one(answer) else "softmax"
    said = f"one number between 0 and 1 for each image, {tuple(answer.shape)}" if single else \
        "numbers between 0 and 1 and no others"
    then = '. Then wrap it: --output binary, or as_classifier(model, output="binary")' if single else ""
    logits = as_classifier(model, output="binary") if single else asked
    return RecognizedOutput(logits, "probabilities", (*remarks, Remark(
        "probabilities", f"the model returns {said}, which looks like a probability; return the logit, what goes into "
        f"the {inside}{then}. On probabilities the gradients of the losses fade where the model is certain, and that "
        f"hides errors")))


def _ask(model: Callable[[Tensor], Any], x: Tensor, given: Tensor) -> Any:
    try:
        with torch.no_grad():
            shown = x.clone()
            answer = model(shown)
    except Exception as error:  # whatever somebody's model raises
        raise ValueError(f"the model fails on images of shape {tuple(given.shape)}: {described(error)}"
                         f"{_hint(model, given, error)}") from error
    if not torch.equal(shown, x):
        raise ValueError(IN_PLACE)
    return answer


def _hint(model: Callable[[Tensor], Any], x: Tensor, error: Exception) -> str:
    """What it might take instead."""
    if advice := advice_on(error):
        return f". {advice}"
    types = type_advice(model, x.dtype, str(error))
    return other_arrangement(model, x) if types is None else f". That is, {types}"
