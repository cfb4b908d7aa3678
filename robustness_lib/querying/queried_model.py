"""The model under attack: asked for logits and input gradients, and its calls counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from robustness_lib.errors import one_line
from robustness_lib.inputs import check_logits
from robustness_lib.querying.channels_last import ChannelsLast
from robustness_lib.querying.frozen import Classifier
from robustness_lib.querying.refusals import type_advice

__all__ = ["IN_PLACE", "NoGradient", "QueriedModel"]


IN_PLACE = ("the model changes its input in place, so nobody knows what it answered to; write z = (z - mean) / std "
            "and not z.sub_(mean).div_(std), and leave inplace=True out where the images come in")


class NoGradient(ValueError):
    """The model's answer does not depend on its input as autograd sees it."""


class QueriedModel:
    """Counts what an attack spends. `calls`: batches sent through the model.

    samples: how often a point is asked for its answer, for models that answer at random: logits, loss and gradient
    are then means over the draws (expectation over transformation; Athalye et al. 2018, arXiv 1707.07397).
    random: whether the model says that it answers at random: it or a part of it has a true attribute `stochastic`.
    """

    def __init__(self, model: Classifier, samples: int = 1) -> None:
        self.model, self.samples = model, samples
        parts = model.modules() if isinstance(model, nn.Module) else (model,)
        self.random = any(getattr(part, "stochastic", False) is True for part in parts)
        self.calls = 0
        self.layout = ChannelsLast(model)
        self._unchecked: tuple[Tensor, ...] | None = None
        first = next(model.parameters(), None) if isinstance(model, nn.Module) else None
        self._device = None if first is None else first.device

    def device(self, x: Tensor) -> torch.device:
        """Where batches must travel: the device of the model's parameters, or x's where it has none."""
        return self._device or x.device

    def expect(self, labels: tuple[Tensor, ...]) -> None:
        """A new batch: check the model's next answer, and these labels against it."""
        self._unchecked = labels

    def logits(self, x: Tensor) -> Tensor:
        """Logits (N, K), without a graph."""
        with torch.no_grad():
            total = self._ask(x)
            for _ in range(1, self.samples):
                total = total + self._ask(x)
        return total if self.samples == 1 else total / self.samples

    @contextmanager
    def draws_again(self, x: Tensor) -> Iterator[None]:
        """What the model draws in here (of torch's global generators) it draws again at the next call: two points are
        then compared under one set of draws. x: on the device of the batches."""
        with torch.random.fork_rng(devices=[x.device] if x.is_cuda else []):
            yield

    def gradient(self, x: Tensor, loss: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (N, K), loss per example (N,), and the loss's gradient with respect to x: (N, ...).

        The loss is summed, not averaged: an average would make an example's gradient depend on the batch size. Raises
        NoGradient where the answer does not depend on the input as autograd sees it.
        """
        draws: list[tuple[Tensor, Tensor, Tensor]] = []
        while len(draws) < self.samples:
            point = x.detach().requires_grad_()
            logits = self._ask(point)
            values = loss(logits)
            try:
                gradient = torch.autograd.grad(values.sum(), point, allow_unused=True)[0] if values.requires_grad \
                    else None
            except RuntimeError as error:
                if not self.layout.blames(error):
                    raise
                self.layout.undo()
                continue
            if gradient is None:
                raise NoGradient(
                    "the model's output does not depend on its input as autograd sees it (the model detaches, converts "
                    "to numpy, runs under no_grad, or is constant), so there is no gradient to follow"
                )
            draws.append((logits.detach(), values.detach(), gradient))
        if self.samples == 1:
            return draws[0]
        logits, values, gradient = (torch.stack(each).mean(0) for each in zip(*draws, strict=True))
        return logits, values, gradient

    def _ask(self, x: Tensor) -> Tensor:
        version, before = x._version, None if self._unchecked is None else x.detach().clone()
        try:
            logits = self.model(x if self.layout.active else x.contiguous())
        except RuntimeError as error:
            if self.layout.blames(error):
                self.layout.undo()
                return self._ask(x)
            self.calls += 1
            if x.requires_grad and "Can't call numpy() on Tensor that requires grad" in str(error):
                raise NoGradient(f"the model leaves PyTorch, so there is no gradient to follow ({error})") from error
            if "leaf Variable that requires grad" in str(error):
                raise ValueError(IN_PLACE) from error
            if (advice := type_advice(self.model, x.dtype, str(error))) is None:
                raise
            raise TypeError(f"the model fails on the images ({one_line(error)}): {advice}") from error
        self.calls += 1
        # What goes past autograd (.data, numpy) leaves the version as it was.
        if x._version != version or (before is not None and not torch.equal(x.detach(), before)):
            raise ValueError(IN_PLACE)
        if self._unchecked is not None:
            check_logits(logits, x, self._unchecked)
            self._unchecked = None
        # Losses and distances are kept in the images' own type, also where the model computes in another.
        return logits.to(x.dtype) if isinstance(logits, Tensor) else logits
