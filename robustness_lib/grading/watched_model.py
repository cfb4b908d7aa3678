"""A model that remembers how it was asked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["WatchedModel", "modes_noted"]


class WatchedModel(nn.Module):
    """A model, and what it was shown and answered: a batch for each pass, in their order.

    `shown` holds the batches, and `answers` what the model made of them, both without their graphs; `modes` is True
    where any part of the model was in train mode; `followed` says whether a gradient with respect to the batch was
    asked for, as an attack does, and `recorded` whether autograd kept a graph of the answer, for whatever gradient.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.forget()

    def forget(self) -> None:
        """Begin anew."""
        self.shown, self.answers = list[Tensor](), list[Tensor]()
        self.modes, self.followed, self.recorded = list[bool](), list[bool](), list[bool]()

    def forward(self, x: Tensor) -> Any:
        self.shown.append(x.detach().clone())
        self.modes.append(any(part.training for part in self.modules()))
        self.followed.append(x.requires_grad)
        answers = self.model(x)
        self.answers.append(answers.detach().clone())
        self.recorded.append(answers.requires_grad)
        return answers

    @property
    def start(self) -> Tensor | None:
        """The first batch at which a gradient was asked for: where an attack began."""
        return next((x for x, followed in zip(self.shown, self.followed, strict=True) if followed), None)

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
    modes: list[bool] = []
    hook = model.register_forward_pre_hook(lambda asked, _: modes.append(asked.training))
    try:
        yield modes
    finally:
        hook.remove()
