"""A model held as it is: what it is asked leaves no trace on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from robustness_lib.model_kinds import check_usable, modes_kept, switch_to_eval

__all__ = ["Classifier", "Mode", "answers_by_batch", "frozen"]

Classifier = Callable[[Tensor], Tensor]  # images (N, ...) in [0, 1] to logits (N, K)
Mode = Literal["eval", "keep"]


def answers_by_batch(model: Classifier, mode: Mode) -> bool:
    """Whether the answer to an image follows from the other images of its batch too, as far as the model shows: in mode
    "keep" a part of it is in training mode, or it has batch norm without running statistics. Such a batch is shown to
    the model as it was given: whole."""
    parts = model.modules() if isinstance(model, nn.Module) else ()
    return any((mode == "keep" and getattr(part, "training", False))
               or (isinstance(part, _BatchNorm) and part.running_mean is None) for part in parts)


@contextmanager
def frozen(model: Classifier, mode: Mode = "eval") -> Iterator[None]:
    """Parameters frozen and, for mode "eval", every submodule in eval mode; all of it as before afterwards, also
    after an exception. Buffers that a pass moves or replaces (running statistics, counters) are put back too.

    Gradients are taken with respect to the input alone, so `.grad` of the parameters is never touched.
    A plain function is left as it is, and so is the mode of a program that has none (frozen, or exported). Inside,
    autograd works even if the caller has switched it off.

    Raises TypeError and ValueError for a model that cannot be asked (see `check_usable`), and ValueError for one whose
    parameters have moved by the end: these are not put back. What is raised inside comes through as it is.
    """
    check_usable(model)
    with torch.inference_mode(False), torch.enable_grad(), modes_kept(model):
        if not isinstance(model, nn.Module):
            yield
            return
        required_grad = [p for p in model.parameters() if p.requires_grad]
        buffers = [(module, name, buffer, buffer.clone()) for module in model.modules()
                   for name, buffer in module._buffers.items() if buffer is not None]
        marks = _marks(model)
        try:
            if mode == "eval":
                switch_to_eval(model)
            for parameter in required_grad:
                parameter.requires_grad_(False)
            yield
            _check_unmoved(model, marks)
        finally:
            for parameter in required_grad:
                parameter.requires_grad_(True)
            with torch.no_grad():
                for owner, name, buffer, value in buffers:
                    owner._buffers[name] = buffer
                    buffer.copy_(value)


def _marks(model: nn.Module) -> dict[str, tuple[int, int, str]]:
    """By which a change of the parameters is known, without a copy of them: which tensor it is, how often it was
    written to, and, since `.data` is written to unseen, its first value (on the CPU: a GPU would be waited for)."""
    return {name: (id(p), p._version, repr(p.detach()[(0,) * p.ndim].item()) if p.numel() and not p.is_cuda else "")
            for name, p in model.named_parameters()}


def _check_unmoved(model: nn.Module, before: dict[str, tuple[int, int, str]]) -> None:
    now = _marks(model)
    moved = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    if moved:
        more = f" (and {len(moved) - 1} more)" if len(moved) > 1 else ""
        raise ValueError(
            f"the model changed its parameter {moved[0]}{more} while it was asked: it learns from what it is shown, so "
            f"that no answer stands and it cannot be attacked. Its parameters are as it left them, and not put back. "
            f"Take the change out of its forward pass")
