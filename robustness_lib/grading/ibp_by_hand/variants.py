"""What the exercise `ibp_by_hand` is about, in its variants."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robustness_lib import data, models
from robustness_lib.attacks import PGD
from robustness_lib.grading.linear_models import linear_layer
from robustness_lib.grading.tasks import VariedTask
from robustness_lib.threat import ThreatModel

__all__ = ["FIRST", "FORBIDDEN", "IntervalsTask", "task"]

FORBIDDEN = ("grading/given", "certify")  # where a step that is to write a part may not look
_VARIANTS = (1.0, 1.5, 0.75, 2.0)  # ε of the check on a shipped network, in 255ths


@dataclass(frozen=True)
class IntervalsTask(VariedTask):
    """What the exercise is about, in one of its variants: two networks for road signs, ε and a seed.

    images: how many of the test set are looked at. tolerance: from where on a margin is positive whatever rounding did.
    """

    images: int = 100
    tolerance: float = 1e-3

    names = ("signs-tiny-standard", "signs-tiny-ibp")

    @property
    def eps(self) -> float:
        return _VARIANTS[self.variant % len(_VARIANTS)] / 255

    def data(self) -> tuple[Tensor, Tensor]:
        """Test images (N, C, H, W) and their labels (N,)."""
        x, y, _ = data.load("signs", "test", n=self.images)
        return x, y

    def net(self, name: str) -> nn.Sequential:
        """A shipped network, with the matrix of each convolution written out: Flatten, Linear and ReLU are its only
        layers, and its answers are the same."""
        net = models.load_pretrained(name)
        assert isinstance(net, nn.Sequential)
        return _written_out(net, self.data()[0][:1])

    def not_broken(self, name: str, eps: float) -> Tensor:
        """(N,) bool: which images are read rightly, and stay so under the library's PGD."""
        x, y = self.data()
        return ~PGD(ThreatModel("linf", eps), steps=20, loss="margin").run(models.load_pretrained(name), x, y).success


def _written_out(net: Iterable[nn.Module], x: Tensor) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Flatten()]
    with torch.no_grad():
        for layer in net:
            if isinstance(layer, nn.Conv2d):
                pixels = torch.eye(x[0].numel()).reshape(-1, *x.shape[1:])
                constant = layer(torch.zeros_like(x))
                layers.append(linear_layer((layer(pixels) - constant).flatten(1).T, constant.flatten()))
            elif not isinstance(layer, nn.Flatten):
                layers.append(layer)
            x = layer(x)
    return nn.Sequential(*layers).eval().requires_grad_(False)


FIRST = IntervalsTask()


def task(variant: int = 0) -> IntervalsTask:
    """The exercise in one of its variants."""
    return IntervalsTask(variant)
