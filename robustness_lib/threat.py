"""The threat model: what an attacker may do to an image, as a value.

Attacks that follow a gradient never branch on the norm. They ask the threat model to start, to step, to project. How
that is done in each norm stands in `norm_balls`, which is loaded on first use: a report holds a threat model, and
reading one needs no torch.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from numbers import Real
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from robustness_lib.norm_balls import Ball

__all__ = ["ThreatModel"]


@dataclass(frozen=True)
class ThreatModel:
    """All images within distance ε of x, and inside the pixel box [0, 1].

    norm: "linf" (no pixel value moves by more than ε) or "l2" (Euclidean length of the whole change at most ε).
    eps: ε in pixel units of [0, 1], so 8/255 and not 8. Zero allows nothing; an ε larger than the box allows
        every image, which is hardly ever meant: see `doubt_about_eps`.

    Raises ValueError for another norm, and for an ε that is negative or not finite. Warns of an L∞ ε above 1.
    """

    norm: str
    eps: float

    def __post_init__(self) -> None:
        if self.norm not in ("linf", "l2"):
            hint = (
                " L1 is left out on purpose: its steepest step changes one pixel at a time and the attacks "
                "published for it need projections of their own." if self.norm in ("l1", "L1") else ""
            )
            raise ValueError(f'norm must be "linf" or "l2"; found {self.norm!r}.{hint}')
        if isinstance(self.eps, bool) or not isinstance(self.eps, Real):
            raise TypeError(f"eps must be a number in pixel units of [0, 1], such as 8/255; found {self.eps!r}")
        object.__setattr__(self, "eps", float(self.eps))
        if not (self.eps >= 0 and math.isfinite(self.eps)):
            raise ValueError(f"eps must be finite and at least 0, in pixel units of [0, 1]; found {self.eps}")
        if self.norm == "linf" and self.eps > 1:
            warnings.warn(str(self.doubt_about_eps(1)), stacklevel=3)

    @classmethod
    def parse(cls, text: str) -> ThreatModel:
        """linf:8/255, linf:0.03 or l2:0.5, as commands and recipes write it (L∞:8/255, as it is printed, will do).
        Raises ValueError."""
        norm, _, eps = (part.strip() for part in text.replace("∞", "inf").partition(":"))
        if not re.fullmatch(r"\d+(\.\d*)?(e-?\d+)?(/\d+(\.\d*)?)?|\.\d+", eps):
            raise ValueError(f"a threat is a norm and its ε in pixel units of [0, 1], such as linf:8/255 or l2:0.5; "
                             f"found {text!r}")
        above, _, below = eps.partition("/")
        if below and float(below) == 0:
            raise ValueError(f"the ε of {text!r} divides by zero")
        value = Fraction(above) / Fraction(below or "1")
        if value > 1 and norm.lower() == "linf":
            raise ValueError(f"ε is in pixel units of [0, 1], so linf:{eps} allows every image; "
                             + ("a few levels of 255 are usual, such as linf:8/255" if below else
                                f"did you mean linf:{eps}/255?"))
        return cls(norm.lower(), float(value))

    def __str__(self) -> str:
        return f"{'L2' if self.norm == 'l2' else 'L∞'} {self.eps_text}"

    @property
    def eps_text(self) -> str:
        """ε in levels of 255 where these are whole and the norm is L∞, such as 8/255; else the number."""
        return self._in_levels or format(self.eps, "g")

    @property
    def text(self) -> str:
        """As commands and recipes write it: what `parse` reads."""
        return f"{self.norm}:{self._in_levels or self.eps}"

    @property
    def _in_levels(self) -> str | None:
        levels, whole = self.eps * 255, round(self.eps * 255)
        if self.norm == "l2" or self.eps > 1 or (whole == 0 < self.eps) or abs(levels - whole) >= 1e-6:
            return None
        return f"{whole}/255"

    def doubt_about_eps(self, values: int) -> str | None:
        """What is odd about ε for images of so many values (channels × height × width), and what was probably meant;
        None where nothing is."""
        whole = 1.0 if self.norm == "linf" else math.sqrt(values)  # the longest way through the pixel box
        meant = f". ε is in pixel units of [0, 1]: {self.eps:g}/255 = {self.eps / 255:.3g} was probably meant" if \
            self.eps > 1 and self.eps.is_integer() else ""
        if self.eps >= whole:
            return f"under {self} any image at all is allowed: ε covers the whole pixel box{meant}"
        if self.eps >= whole / 2:
            return f"under {self} every image can become the same grey, so no model can resist{meant}"
        if 0 < self.eps < 1e-5:
            return (f"ε = {self.eps:g} is far below one level of an 8-bit image (1/255 = 0.0039), and float32 images "
                    f"can hardly tell it from nothing")
        if self.norm == "l2" and self.eps >= whole / 4:
            return (f"ε = {self.eps:g} is more than a quarter of the longest way through the pixel box ({whole:.3g}), "
                    f"and images of other classes may well be nearer{meant}")
        return None

    def with_eps(self, eps: float) -> ThreatModel:
        """The same norm at another ε."""
        return replace(self, eps=eps)

    @cached_property
    def _ball(self) -> Ball:
        from robustness_lib.norm_balls import BALLS

        return BALLS[self.norm](self.eps)

    def reach(self, x: Tensor) -> float:
        """How far an image can really get from x (N, ...): ε, or the size of the pixel box where that is smaller."""
        return self._ball.reach(x)

    def projection(self, x: Tensor) -> Callable[[Tensor], Tensor]:
        """`project` onto the ball around these x, for many calls: what depends on x alone is computed once."""
        return self._ball.projection(x)

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """The point of ball ∩ box nearest to x_adv (in Euclidean distance). x_adv, x: (N, ...); x inside the box.

        Exact for L∞, where both sets are boxes. For L2 the nearest point scales the change and clips it, and the
        scale that uses up ε is found by a few monotone rounds: exact to rounding in the usual case, and never
        outside the ball. (Clipping after scaling, as is common, gives a point nearer to x than need be.)
        """
        return self._ball.projection(x)(x_adv)

    def random_point(self, x: Tensor, *, seed: int, index: Tensor, step: int = 0) -> Tensor:
        """A random start. x: (N, ...), index: (N,) the examples' numbers in their data set.

        L∞: uniform in ball ∩ box, exactly. L2: uniform in the ball, then clipped to the box; clipping never
        leaves the ball, but points that the box cut off gather on its faces.
        """
        return self._ball.random_point(x, seed=seed, index=index, step=step)

    def steepest_step(self, gradient: Tensor, step_size: float | Tensor) -> Tensor:
        """The change of length `step_size` along which a linear function with this gradient grows most.

        gradient: (N, ...). L∞: step_size · sign(gradient). L2: step_size · gradient / ‖gradient‖, and no step
        where the gradient is zero. A step_size of shape (N,) holds one length per example.
        """
        return self._ball.steepest_step(gradient, step_size)

    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Distance per example in this norm: (N,) float64, computed in float64."""
        return self._ball.distance(x_adv, x)

    def allows(self, distance: Tensor) -> Tensor:
        """Is a point at this distance (N,) inside the threat model, up to the rounding of float32 images? (N,) bool."""
        return distance <= self.eps * (1 + 1e-5) + 1e-6
