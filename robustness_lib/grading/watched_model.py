"""A model that remembers how it was asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self

import torch
from torch import Tensor, nn

__all__ = ["WatchedModel", "gradients_noted", "modes_noted"]


class _Shared(list[Any]):
    """A list that a copy of the model keeps writing into."""

    def __deepcopy__(self, _: object) -> Self:
        return self


class WatchedModel(nn.Module):
    """A model, and what it was shown and answered: a batch for each pass, in their order. Its copies write into the
    same lists.

    `shown` holds the batches, and `answers` what the model made of them, both without their graphs; `modes` is True
    where any part of the model was in train mode; `followed` says whether a gradient with respect to the batch was
    asked for, as an attack does, and `recorded` whether autograd kept a graph of the answer, for whatever gradient.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.shown: list[Tensor] = _Shared()
        self.answers: list[Tensor] = _Shared()
        self.modes: list[bool] = _Shared()
        self.followed: list[bool] = _Shared()
        self.recorded: list[bool] = _Shared()

    def forget(self) -> None:
        """Begin anew."""
        for entries in (self.shown, self.answers, self.modes, self.followed, self.recorded):
            entries.clear()

    def forward(self, x: Tensor) -> Any:
        self.shown.append(x.detach().clone())
        self.modes.append(any(part.training for part in self.modules()))
        self.followed.append(x.requires_grad)
        answers = self.model(x)
        self.answers.append(answers.detach().clone())
        self.recorded.append(answers.requires_grad)
        return answers

    @property
    def path(self) -> list[Tensor]:
        """The batches at which a gradient was asked for: where an attack went."""
        return [x for x, followed, recorded in zip(self.shown, self.followed, self.recorded, strict=True)
                if followed and recorded]

    @property
    def start(self) -> Tensor | None:
        """The first batch at which a gradient was asked for: where an attack began."""
        return next(iter(self.path), None)

    def remember(self) -> None:
        """Give every parameter a gradient by which `disturbed` will know whether it was touched."""
        for parameter in self.parameters():
            parameter.grad = torch.full_like(parameter, 0.5)

    @property
    def disturbed(self) -> bool:
        """Whether a parameter's gradient is no longer the one that `remember` left, or no longer asked for."""
        return any(p.grad is None or not bool((p.grad == 0.5).all()) or not p.requires_grad for p in self.parameters())


@contextmanager
def modes_noted(model: nn.Module) -> Iterator[list[bool]]:
    """For each time that the model or a copy of it is asked in the block: whether it was in train mode. What the
    learner is given is the model itself."""
    with _noted(model, lambda asked, *_: asked.training) as modes:
        yield modes


@contextmanager
def gradients_noted(model: nn.Module) -> Iterator[list[bool]]:
    """For each time that the model or a copy of it is asked in the block: whether the batch's gradient is wanted."""
    with _noted(model, lambda _, *batch: torch.is_grad_enabled() and any(x.requires_grad for x in batch)) as followed:
        yield followed


@contextmanager
def _noted(model: nn.Module, look: Callable[..., bool]) -> Iterator[list[bool]]:
    """What `look` sees of the model or its copy, and of the batch, each time that it is asked in the block."""
    seen: list[bool] = []
    hook = model.register_forward_pre_hook(lambda asked, batch: seen.append(look(asked, *batch)))
    try:
        yield seen
    finally:
        hook.remove()
