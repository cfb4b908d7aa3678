"""Models that answer at random, and note what they were asked: for checks of who draws how often, and if afresh."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robustness_lib.defenses import ResizePad

__all__ = ["DrawLog", "InTurn", "NotedResizePad"]


class DrawLog:
    """What was asked: `rows` images in all, `climbed` of them where a gradient was wanted, and the `states` of torch's
    random numbers before each answer. A state that stands there twice is a draw that was used twice."""

    def __init__(self) -> None:
        self.rows, self.climbed, self.states = 0, 0, list[bytes]()

    def note(self, x: Tensor) -> None:
        self.rows += len(x)
        self.climbed += len(x) if x.requires_grad and torch.is_grad_enabled() else 0
        self.states.append(torch.get_rng_state().numpy().tobytes())

    @property
    def repeated(self) -> int:
        """How many answers came from random numbers that had been used before."""
        return len(self.states) - len(set(self.states))


class InTurn(nn.Module):
    """A model whose answers vary, and are yet known beforehand: an image that is shown for the k-th time gets its k-th
    answer, whether it comes alone or several times in a batch.

    images: (N, ...) all that can be shown; anything else is taken for the nearest of them. bias: (K, N, classes) the
    scores of answer k. weight: (K, N, classes, pixels), none for scores that do not depend on the pixels. `asked` (N,)
    counts; `log` has the rest. After the K-th answer comes the first.
    """

    def __init__(self, images: Tensor, bias: Tensor, weight: Tensor | None = None) -> None:
        super().__init__()
        self._images, self._bias, self._weight = images.flatten(1), bias, weight
        self.asked, self.log = torch.zeros(len(images), dtype=torch.int64), DrawLog()

    def forward(self, x: Tensor) -> Tensor:
        self.log.note(x)
        torch.rand(())  # as a model that draws would
        flat = x.flatten(1).float()
        rows = torch.cdist(flat.detach(), self._images).argmin(1)
        turns = torch.empty_like(rows)
        for place, row in enumerate(rows.tolist()):
            turns[place] = self.asked[row] % len(self._bias)
            self.asked[row] += 1
        scores = self._bias[turns, rows]
        if self._weight is None:
            return scores + 0 * flat.sum(1, keepdim=True)
        return scores + torch.einsum("ncd,nd->nc", self._weight[turns, rows], flat)


class NotedResizePad(ResizePad):
    """ResizePad that notes what it was asked, in `log`."""

    def __init__(self, model: nn.Module, smallest: float) -> None:
        super().__init__(model, smallest)
        self.log = DrawLog()

    def _transform(self, x: Tensor) -> Tensor:
        self.log.note(x)
        return super()._transform(x)
