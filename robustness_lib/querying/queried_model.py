"""The model under attack: asked for logits and input gradients, and its calls counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from robustness_lib.errors import one_line
from robustness_lib.inputs import check_logits
from robustness_lib.model_kinds import advice_on, check_usable
from robustness_lib.querying.channels_last import ChannelsLast
from robustness_lib.querying.frozen import Classifier, Mode, answers_by_batch
from robustness_lib.querying.refusals import type_advice

__all__ = ["IN_PLACE", "NoGradient", "QueriedModel", "input_gradient"]


IN_PLACE = ("the model changes its input in place, so nobody knows what it answered to; write z = (z - mean) / std "
            "and not z.sub_(mean).div_(std), and leave inplace=True out where the images come in")


class NoGradient(ValueError):
    """The model's answer does not depend on its input as autograd sees it."""


class QueriedModel:
    """Counts what an attack spends. `calls`: batches sent through the model.

    samples: how often a point is asked for its answer, for models that answer at random: logits, loss and gradient
    are then means over the draws (expectation over transformation; Athalye et al. 2018, arXiv 1707.07397).
    mode: that it is asked in.
    random: whether the model says that it answers at random: it or a part of it has a true attribute `stochastic`.
    whole: its batches are to be shown as they were given (see `answers_by_batch`).
    one_as_two: a batch of one image is shown as two, since the model was found to fail on one alone, or to drop its
    axis. (Here images leave batches, so that it meets batches which nobody thought of.)

    Raises TypeError and ValueError for a model that cannot be asked (see `check_usable`).
    """

    def __init__(self, model: Classifier, samples: int = 1, mode: Mode = "eval") -> None:
        check_usable(model)
        self.model, self.samples, self.whole = model, samples, answers_by_batch(model, mode)
        self.one_as_two = False
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

    def answers(self, x: Tensor) -> Tensor:
        """Logits (N, K) of one asking, without a graph, in the type that the model answers in: converted to the images'
        own, two of them may become alike."""
        with torch.no_grad():
            return self._ask(x, convert=False)

    @contextmanager
    def draws_again(self, x: Tensor) -> Iterator[None]:
        """What the model draws in here (of torch's global generators) it draws again at the next call: two points are
        then compared under one set of draws. x: on the device of the batches."""
        with torch.random.fork_rng(devices=[x.device] if x.is_cuda else []):
            yield

    def gradient(self, x: Tensor, loss: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (N, K), loss per example (N,), and the loss's gradient with respect to x: (N, ...).

        The loss is summed, not averaged: an average would make an example's gradient depend on the batch size. Raises
        NoGradient where the answer does not depend on the input as autograd sees it, and what `input_gradient` raises.
        """
        draws: list[tuple[Tensor, Tensor, Tensor]] = []
        while len(draws) < self.samples:
            point = x.detach().requires_grad_()
            logits = self._ask(point)
            values = loss(logits)
            try:
                gradient = input_gradient(values.sum(), point)
            except RuntimeError as error:
                if not self.layout.blames(error):
                    raise
                self.layout.undo()
                continue
            draws.append((logits.detach(), values.detach(), gradient))
        if self.samples == 1:
            return draws[0]
        logits, values, gradient = (torch.stack(each).mean(0) for each in zip(*draws, strict=True))
        return logits, values, gradient

    def _ask(self, x: Tensor, convert: bool = True) -> Tensor:
        given = _twice(x) if self.one_as_two and len(x) == 1 else x
        logits: Any = None
        alone: Any = None
        while True:  # once; for one image that is not answered alone, once more
            version, before = given._version, None if self._unchecked is None else given.detach().clone()
            try:
                logits = self.model(given if self.layout.active else given.contiguous())
            except Exception as error:  # whatever a model may raise
                if self.layout.blames(error):
                    self.layout.undo()
                    continue
                self.calls += 1
                if len(given) == 1:
                    given, alone = _twice(x), self._reason(error, x)
                    continue
                if alone is None:
                    raise self._reason(error, x)  # noqa: B904 - it has its cause
            else:
                self.calls += 1
                # What goes past autograd (.data, numpy) leaves the version as it was.
                if given._version != version or (before is not None and not torch.equal(given.detach(), before)):
                    raise ValueError(IN_PLACE)
                if len(given) == 1 and isinstance(logits, Tensor) and not _has_rows(logits, 1):
                    given, alone = _twice(x), logits
                    continue
            break
        if len(given) > len(x):
            logits = self._of_one(alone, logits)
        if self._unchecked is not None:
            check_logits(logits, x, self._unchecked)
            self._unchecked = None
        # Losses and distances are kept in the images' own type, also where the model computes in another.
        return logits.to(x.dtype) if isinstance(logits, Tensor) and convert else logits

    def _of_one(self, alone: Any, both: Any) -> Any:
        """The answer to an image that was shown twice. alone: to it alone before, or what was raised; None where that
        was not tried. Rows that do not depend on each other lose nothing by it; where they do, the image would stand in
        for its neighbours, so that there it is refused."""
        failure = alone if isinstance(alone, Exception) else None
        if not isinstance(both, Tensor) or not _has_rows(both, 2):  # two are no better
            if failure is not None:
                raise failure
            return both if alone is None else alone
        if self.whole:
            said = one_line(failure) if failure is not None else "it drops the batch's axis"
            raise ValueError(
                f"the model takes two images but not one ({said}), and its answers follow from the batch, so that no "
                f'second image can be made up: give two or more, or use running statistics (mode="eval")') from failure
        self.one_as_two = True
        return both[:1]

    def _reason(self, error: Exception, x: Tensor) -> Exception:
        """The error, or another with it as its cause that says what to do."""
        reason: Exception | None = None
        if isinstance(error, RuntimeError):
            if x.requires_grad and "Can't call numpy() on Tensor that requires grad" in str(error):
                reason = NoGradient(f"the model leaves PyTorch, so there is no gradient to follow ({error})")
            elif "leaf Variable that requires grad" in str(error):
                reason = ValueError(IN_PLACE)
            elif "does not require grad and does not have a grad_fn" in str(error):
                reason = ValueError(f"the model takes a gradient of its own while it answers, and fails "
                                    f"({one_line(error)}): its parameters are frozen here, and passes may have no "
                                    f"graph. One that adapts to what it is shown cannot be attacked while it does; a "
                                    f"gradient of the input needs torch.enable_grad() around it")
            elif (words := type_advice(self.model, x.dtype, str(error))) is not None:
                reason = TypeError(f"the model fails on the images ({one_line(error)}): {words}")
        elif advice := advice_on(error):
            reason = TypeError(f"the model cannot be called as it is ({one_line(error)}). {advice}.")
        if reason is None:
            return error
        reason.__cause__ = error
        return reason


def _twice(x: Tensor) -> Tensor:
    return torch.cat((x, x))


def _has_rows(answer: Tensor, n: int) -> bool:
    return answer.ndim == 2 and len(answer) == n


def input_gradient(total: Tensor, point: Tensor) -> Tensor:
    """Of a sum with respect to the images (N, ...) that it was computed from.

    Raises NoGradient where autograd sees no way back to them, and ValueError for a model that checkpoints its
    activations in the reentrant way, which refuses this.
    """
    try:
        gradient = torch.autograd.grad(total, point, allow_unused=True)[0] if total.requires_grad else None
    except RuntimeError as error:
        if "heckpoint" in str(error) and ".grad()" in str(error):
            raise ValueError(
                "the model checkpoints its activations in the reentrant way, through which no gradient with respect to "
                "the images alone can be taken. Call torch.utils.checkpoint.checkpoint with use_reentrant=False "
                "(Hugging Face: gradient_checkpointing_enable(gradient_checkpointing_kwargs={'use_reentrant': False})),"
                " or switch checkpointing off"
            ) from error
        raise
    if gradient is None:
        raise NoGradient(
            "the model's output does not depend on its input as autograd sees it (the model detaches, converts to "
            "numpy, runs under no_grad, is quantized or optimized for inference, or is constant), so there is no "
            "gradient to follow"
        )
    return gradient
