"""Feature squeezing: an image whose class hangs on details is refused (Xu, Evans and Qi 2018, arXiv 1704.01155)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from robustness_lib.defenses.bit_depth import BitDepth
from robustness_lib.defenses.defense import check_batch
from robustness_lib.defenses.smoothing import MedianSmoothing
from robustness_lib.inputs import check_count, check_real
from robustness_lib.model_kinds import modes_kept, switch_to_eval
from robustness_lib.straight_through import straight_through

__all__ = ["FeatureSqueezing"]


class FeatureSqueezing(nn.Module):
    """A model with one class more, "rejected", for images x (N, C, H, W) in [0, 1] with

        score(x) = max over squeezers s of |softmax(model(x)) − softmax(model(s(x)))|₁  >  threshold

    model: returns logits (N, K). squeezers: functions of images that keep their shape, such as a defense's
    `.transform` or, to have its kernel move with `.to(device)`, a defense around nn.Identity(); None means the paper's
    4 bits and 3 × 3 median. threshold: 0 (a change is enough) to 2 (nothing is rejected); `calibrate` finds one.

    As a model it returns (N, K + 1) logits, the last being z_max + slope·(score − threshold): the largest exactly where
    the image is rejected, and with the score's gradient, so that an attacker who knows the detector can go around it
    (Carlini and Wagner 2017, arXiv 1705.07263). For an attack that only wants ŷ ≠ y, a rejection is a success: give it
    a target, or a loss that knows better. slope: how much of a logit one unit of the score is worth.

    Raises TypeError for a model that is no torch.nn.Module, squeezers that are no functions or a threshold or slope
    that is no number, ValueError for a
    threshold or slope out of range, and (on use) for a squeezer that returns another shape.
    """

    differentiable = True  # through model(x); squeezers add to it what they have

    def __init__(self, model: nn.Module, squeezers: Sequence[Callable[[Tensor], Tensor]] | None = None,
                 threshold: float = 1.0, *, slope: float = 10.0) -> None:
        super().__init__()
        if not isinstance(model, nn.Module):
            raise TypeError(f"FeatureSqueezing wraps a model, a torch.nn.Module; found {type(model).__name__}")
        if squeezers is None:
            squeezers = [BitDepth(nn.Identity(), 4), MedianSmoothing(nn.Identity(), 3)]
        if not isinstance(squeezers, Sequence) or not squeezers or not all(callable(s) for s in squeezers):
            raise TypeError(f"squeezers must be one or more functions of images in a list; found {squeezers!r}")
        threshold = check_real("threshold", threshold, "the largest score that passes")
        slope = check_real("slope", slope, "how much of a logit one unit of the score is worth")
        if not 0 <= threshold <= 2:
            raise ValueError(f"threshold must lie in [0, 2], as the L1 distance of two distributions does; found "
                             f"{threshold}")
        if not 0 < slope < math.inf:
            raise ValueError(f"slope must be positive and finite; found {slope}")
        self.model, self.threshold, self.slope = model, threshold, slope
        self.squeezers = list(squeezers)
        self.parts = nn.ModuleList(s for s in squeezers if isinstance(s, nn.Module))  # so that they move with this one
        self.stochastic = any(getattr(getattr(s, "__self__", s), "stochastic", False) for s in squeezers)
        # Not .train(), which would also set the submodules of the caller's model. A frozen program has no mode.
        self.training = getattr(model, "training", False)

    def forward(self, x: Tensor) -> Tensor:
        check_batch(x)
        logits: Tensor = self.model(x.clone())  # it may work in place, and x is looked at again
        score, top = self._score(x, logits), logits.amax(1)
        reject = top + self.slope * (score - self.threshold)
        # Rounding must not decide: the next number above the largest logit, or below it, is the least.
        above, below = (torch.nextafter(top.detach(), torch.full_like(top, end)) for end in (math.inf, -math.inf))
        value = torch.where(score > self.threshold, torch.maximum(reject, above), torch.minimum(reject, below))
        return torch.cat([logits, straight_through(value, reject)[:, None]], 1)

    def score(self, x: Tensor) -> Tensor:
        """(N,), in [0, 2]: how far the answer moves when the image is squeezed."""
        check_batch(x)
        return self._score(x, self.model(x.clone()))

    def rejects(self, x: Tensor) -> Tensor:
        """(N,) bool: score > threshold."""
        with torch.no_grad():
            return self.score(x) > self.threshold

    def calibrate(self, x: Tensor, false_positives: float = 0.05, *, batch_size: int = 256) -> FeatureSqueezing:
        """A detector that rejects at most the share `false_positives` of the clean images x (N, C, H, W): ⌊share·N⌋.

        Its threshold is the largest score that is left when so many are taken away from the top, and 1e-6 on it, as
        another batch rounds otherwise. (Equal scores are rejected all or not at all.) Asked in eval mode, and left as
        it was. Raises ValueError for no images, or a share outside [0, 1).
        """
        check_batch(x)
        check_count("batch_size", batch_size)
        false_positives = check_real("false_positives", false_positives, "a share of clean images")
        if len(x) == 0:
            raise ValueError("calibrate needs clean images; found none")
        if not 0 <= false_positives < 1:
            raise ValueError(f"false_positives must lie in [0, 1), a share of clean images; found {false_positives}")
        with modes_kept(self), torch.no_grad():
            switch_to_eval(self)
            scores = torch.cat([self.score(x[k:k + batch_size]) for k in range(0, len(x), batch_size)])
        kept = len(x) - math.floor(false_positives * len(x) + 1e-9)
        threshold = min(scores.sort().values[kept - 1].item() + 1e-6, 2.0)
        return FeatureSqueezing(self.model, self.squeezers, threshold, slope=self.slope)

    def extra_repr(self) -> str:
        names = [type(s).__name__ if isinstance(s, nn.Module) else getattr(s, "__qualname__", type(s).__name__)
                 for s in self.squeezers]
        return (f"squeezers=[{', '.join(names)}], threshold={self.threshold:.6g}, slope={self.slope:g}, "
                f"differentiable={self.differentiable}, stochastic={self.stochastic}")

    def _score(self, x: Tensor, logits: Tensor) -> Tensor:
        answer = logits.softmax(1)
        distances = []
        for squeezer in self.squeezers:
            squeezed = squeezer(x)
            if not isinstance(squeezed, Tensor) or squeezed.shape != x.shape:
                found = tuple(squeezed.shape) if isinstance(squeezed, Tensor) else type(squeezed).__name__
                raise ValueError(f"a squeezer must return images of the shape {tuple(x.shape)} that it got; found "
                                 f"{found}. Pass a defense's .transform, not the defense: that returns logits")
            distances.append((answer - self.model(squeezed).softmax(1)).abs().sum(1))
        return torch.stack(distances).amax(0)
