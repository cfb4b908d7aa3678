"""What the model answers in training mode, looked at while it is trained; and what is said where a batch fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from robustness_lib.errors import described, in_words
from robustness_lib.inputs import NotANumber
from robustness_lib.models.adapt import with_those_wrapped
from robustness_lib.querying.batch_size import out_of_memory
from robustness_lib.querying.warnings import attack_warning, looks_like_probabilities, sum_to_one
from robustness_lib.threat import ThreatModel
from robustness_lib.training.objectives import (
    NAME_LOGITS,
    GaussianAugmentation,
    Objective,
    SmoothAdversarial,
    logits_of,
)

__all__ = ["answers_seen", "doubts", "failing_batch"]

_MANY = 64  # answers between 0 and 1 that are no chance


@contextmanager
def answers_seen(model: nn.Module, objective: object, classes: Callable[[], int | None],
                 said: list[str]) -> Iterator[None]:
    """Has the model more to say in training than this package's objectives learn from, or probabilities? It is `said`.
    Raises ValueError where its logits in training are not as many as in eval mode, `classes`."""
    def look(module: nn.Module, inputs: tuple[Tensor, ...], answer: object) -> None:
        if not module.training:
            return
        words = (f"in training mode the model answers more than logits ({type(answer).__name__}): they alone are "
                 f"learned from, and auxiliary heads get no loss")
        if not isinstance(answer, Tensor) and words not in said:
            said.append(words)
        if module is model:
            _check_width(logits_of(answer, inputs[0]), classes(), answer)

    def first_look(module: nn.Module, inputs: tuple[Tensor, ...], answer: object) -> None:
        if not module.training:
            return
        first.remove()
        logits = logits_of(answer, inputs[0]).detach()
        if looks_like_probabilities(logits) and (sum_to_one(logits) or logits.numel() >= _MANY):
            said.append(str(attack_warning("probabilities")))

    if not isinstance(objective, Objective):
        yield
        return
    hooks = [each.register_forward_hook(look) for each in with_those_wrapped(model)
             if not isinstance(each, torch.jit.ScriptModule)]  # these refuse hooks
    if hooks and not isinstance(model, torch.jit.ScriptModule):
        hooks.append(first := model.register_forward_hook(first_look))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _check_width(logits: Tensor, classes: int | None, answer: object) -> None:
    if classes is None or logits.shape[1] == classes:
        return
    more = "" if isinstance(answer, Tensor) else f", the first entry of its {type(answer).__name__}. {NAME_LOGITS}"
    raise ValueError(f"in training mode the model answers {logits.shape[1]} logits, and {classes} in eval mode; it "
                     f"would learn from others than it is used with{more}")


@contextmanager
def failing_batch(x: Tensor, first: bool) -> Iterator[None]:
    """What fails on the first batch x (N, ...) of a training becomes a ValueError that names the batch and the place,
    with it as cause. What says all in words of its own comes through; so do later batches and a lack of memory."""
    try:
        yield
    except Exception as error:  # whatever a model or an objective may raise
        if not first or in_words(error) or isinstance(error, NotANumber) or out_of_memory(error):
            raise
        advice = ""
        if "more than 1 value per channel" in str(error):
            advice = (". In training mode batch norm needs several values per channel: give two images or more, and "
                      "batch_size=2 or more (for each process)")
        raise ValueError(f"the model or the objective fails on the first batch, images of shape {tuple(x.shape)}: "
                         f"{described(error)}{advice}") from error


def doubts(objective: object, threat: ThreatModel | None, x: Tensor, said: list[str]) -> None:
    """Say what is odd about ε and σ for these images (N, ...), N ≥ 1. threat: what validation attacks within."""
    own = getattr(objective, "threat", None) if isinstance(objective, Objective) else None
    found = [each.doubt_about_eps(x[0].numel()) for each in (own, threat) if each is not None]
    if isinstance(objective, GaussianAugmentation | SmoothAdversarial) and objective.sigma > 1:
        found.append(f"noise of σ = {objective.sigma:g} drowns every image: σ is in pixel units of [0, 1], as ε is "
                     f"(25/255 and not 25)")
    said += [words for words in dict.fromkeys(found) if words is not None and words not in said]
