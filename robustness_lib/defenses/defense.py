"""What all preprocessing defenses share: a model, and what is done to an image before the model sees it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn

__all__ = ["Defense"]


class Defense(nn.Module, ABC):
    """`model(transform(x))`. A defense is a model, so it can be attacked, evaluated, or wrapped in a further defense.

    model: takes images (N, C, H, W) in [0, 1], returns logits (N, K).
    differentiable: whether autograd finds a gradient through `transform` that an attacker can use.
    stochastic: whether `transform` draws at random: afresh for each image and each call, in eval mode too, from torch's
    global generator of the images' device (so `torch.manual_seed` repeats it). Both speak of this transform alone,
    not of the model inside.

    A subclass sets the two and writes `_transform`, which gets at least one pixel and returns a new tensor. Raises
    TypeError for a subclass without it or a model that is no torch.nn.Module, and (on use) TypeError or ValueError for
    anything but float32 or float64 images (N, C, H, W). That they lie in [0, 1] is not looked up, which would stop a
    GPU at every call. Tables (buffers) are never held in less than float32: `.to(torch.bfloat16)` is for the model.
    """

    differentiable: ClassVar[bool]
    stochastic: ClassVar[bool]

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        if not isinstance(model, nn.Module):
            found = f"the class {model.__name__}" if isinstance(model, type) else type(model).__name__
            raise TypeError(f"{type(self).__name__} wraps a model, a torch.nn.Module; found {found}")
        self.model = model
        # Not .train(), which would also set the submodules of the caller's model. A frozen program has no mode.
        self.training = getattr(model, "training", False)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(self.transform(x))
        return logits

    def transform(self, x: Tensor) -> Tensor:
        """What the model sees of x (N, C, H, W): same shape, dtype and device, values in [0, 1]."""
        check_batch(x)
        return self._transform(x) if x.numel() else x.clone()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Defense:
        before = dict(self._buffers)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, table in before.items():
            now = self._buffers[name]
            if table is not None and now is not None and now.is_floating_point() and now.element_size() < 4:
                self._buffers[name] = table.to(now.device)
        return self

    @abstractmethod
    def _transform(self, x: Tensor) -> Tensor:
        """What `transform` returns, for at least one pixel, in a new tensor."""

    def extra_repr(self) -> str:
        return f"differentiable={self.differentiable}, stochastic={self.stochastic}"


def check_batch(x: Tensor) -> None:
    """Raises TypeError or ValueError for anything but float32 or float64 images (N, C, H, W)."""
    if not isinstance(x, Tensor):
        raise TypeError(f"images must be a torch.Tensor of shape (N, C, H, W); found {type(x).__name__}")
    if x.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"images must be float32 or float64 in [0, 1]; found {x.dtype}. Divide 8-bit images by 255.")
    if x.ndim != 4:
        hint = " One image goes in as image[None]." if x.ndim == 3 else ""
        raise ValueError(f"images must have shape (N, C, H, W); found {tuple(x.shape)}.{hint}")
