"""A model that remembers how it was asked."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["WatchedModel"]


class WatchedModel(nn.Module):
    """A model, and what it was shown: a batch for each pass, in their order.

    `shown` holds the batches; `training` modes are in `modes`, True where any part of the model was in training mode;
    `followed` says whether a gradient with respect to the batch was asked for, as an attack does.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.shown: list[Tensor] = []
        self.modes: list[bool] = []
        self.followed: list[bool] = []

    def forward(self, x: Tensor) -> Any:
        self.shown.append(x.detach().clone())
        self.modes.append(any(part.training for part in self.modules()))
        self.followed.append(x.requires_grad)
        return self.model(x)

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
