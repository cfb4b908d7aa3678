"""A model that remembers how it was asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import Tensor, nn

__all__ = ["WatchedModel", "gradients_noted", "modes_noted"]


@dataclass
class _Log:
    """What a model and all its copies were asked: an entry for each pass."""

    shown: list[Tensor] = field(default_factory=list)
    answers: list[Tensor] = field(default_factory=list)
    modes: list[bool] = field(default_factory=list)
    followed: list[bool] = field(default_factory=list)
    recorded: list[bool] = field(default_factory=list)

    def __deepcopy__(self, _: object) -> Self:
        return self


class WatchedModel(nn.Module):
    """A model, and what it was shown and answered: a batch for each pass, in their order. Its copies write into the
    same log.

    `shown` holds the batches, and `answers` what the model made of them, both without their graphs; `modes` is True
    where any part of the model was in train mode; `followed` says whether a gradient with respect to the batch was
    asked for, as an attack does, and `recorded` whether autograd kept a graph of the answer, for whatever gradient.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self._log = model, _Log()

    def forget(self) -> None:
        """Begin anew."""
        self._log.__init__()  # type: ignore[misc]

    @property
    def shown(self) -> list[Tensor]:
        return self._log.shown

    @property
    def answers(self) -> list[Tensor]:
        return self._log.answers

    @property
    def modes(self) -> list[bool]:
        return self._log.modes

    @property
    def followed(self) -> list[bool]:
        return self._log.followed

    @property
    def recorded(self) -> list[bool]:
        return self._log.recorded

    def forward(self, x: Tensor) -> Any:
        log = self._log
        log.shown.append(x.detach().clone())
        log.modes.append(any(part.training for part in self.modules()))
        log.followed.append(x.requires_grad)
        answers = self.model(x)
        log.answers.append(answers.detach().clone())
        log.recorded.append(answers.requires_grad)
        return answers

    @property
    def path(self) -> list[Tensor]:
        """The batches at which a gradient was asked for: where an attack went."""
        log = self._log
        return [x for x, followed, recorded in zip(log.shown, log.followed, log.recorded, strict=True)
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
