"""Rules of activations, entry by entry: what is made of two straight lines, and smooth curves."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from robustness_lib.certify.curves import Activation, Piece
from robustness_lib.certify.operation import Box, Call, Slot
from robustness_lib.certify.relaxation import Band, Bent, Line, Relaxation, Slopes

__all__: list[str] = []

_ALL, _LEFT, _RIGHT = (-math.inf, math.inf), (-math.inf, 0.0), (0.0, math.inf)


class Kinked(Bent):
    """v for v ≥ 0 and a·v below, with 0 ≤ a ≤ 1: bounded above by its chord, below by any slope from a to 1 (Wong and
    Kolter 2018, arXiv 1711.00851, take the chord's; Zhang et al. 2018, arXiv 1811.00866, a or 1, whichever is nearer).
    """

    names = ("relu", "leaky_relu", "prelu")
    by_sign = True

    def check(self) -> None:
        if not 0 <= float(torch.as_tensor(self._below).min()) <= float(torch.as_tensor(self._below).max()) <= 1:
            raise self.call.refuse("its slope for negative values must lie between 0 and 1")

    @property
    def _below(self) -> float | Tensor:
        if self.call.name == "relu":
            return 0.0
        slope = self.call.argument(1, "negative_slope", 0.01)
        if isinstance(slope, Tensor):
            return slope.reshape(-1, *[1] * (len(self.call.output) - 1)) if slope.numel() > 1 else slope
        return float(slope)

    def interval(self, *boxes: Box) -> Box:
        (box,) = boxes
        return Box(self(box.lower), self(box.upper))

    def undecided(self, boxes: Sequence[Box]) -> list[Tensor]:
        return [~((box.lower >= 0) | (box.upper <= 0)) for box in boxes]  # where bounds are no numbers, too

    def relax(self, boxes: Sequence[Box]) -> Relaxation | None:
        ((lower, upper),) = boxes
        straight, active = ~self.undecided(boxes)[0], (lower >= 0).to(lower.dtype)
        chord = torch.where(straight, active, upper / (upper - lower).clamp(min=torch.finfo(lower.dtype).tiny))
        shares: dict[Slopes, Tensor] = {"parallel": chord,
                                        "adaptive": torch.where(straight, active, (upper > -lower).to(lower.dtype))}
        # From here on for slopes from a to 1: what was 0 is a.
        rise = 1 - torch.as_tensor(self._below, dtype=lower.dtype, device=lower.device)
        above = Line(1 - rise * (1 - chord), torch.where(straight, 0, -chord * lower * rise))
        flat, steep, none = torch.where(straight, active, 0), torch.where(straight, active, 1), torch.zeros_like(lower)
        below = Line(1 - rise * (1 - flat), none), Line(1 - rise * (1 - steep), none)
        return Band(below, (above, above), shares, ~straight)


class Clamp(Activation):
    """No lower than one number, no higher than another: relu6, hardtanh, clamp."""

    names = ("clamp", "clip", "clamp_min", "clamp_max", "hardtanh", "relu6")

    def _ends(self) -> tuple[float, float]:
        name = self.call.name
        if name == "relu6":
            return 0.0, 6.0
        default = (-1.0, 1.0) if name == "hardtanh" else (-math.inf, math.inf)
        least = self.call.argument(1, "min_val" if name == "hardtanh" else "min", default[0])
        most = self.call.argument(2, "max_val" if name == "hardtanh" else "max", default[1])
        if name == "clamp_max":
            least, most = -math.inf, least
        return (-math.inf if least is None else least), (math.inf if most is None else most)

    def check(self) -> None:
        low, high = self._ends()
        if isinstance(low, Slot) or isinstance(high, Slot) or torch.as_tensor(low).numel() > 1 or \
                torch.as_tensor(high).numel() > 1:
            raise self.call.refuse("only numbers bound it that are the same for all entries")
        if float(low) > float(high):
            raise self.call.refuse("its lower end is above its upper end")

    def shape(self) -> tuple[Sequence[Piece], Sequence[float]]:
        low, high = map(float, self._ends())
        middle = (max(low, -1e30) + min(high, 1e30)) / 2
        return (Piece(-math.inf, middle, True), Piece(middle, math.inf, False)), ()

    def slope(self, v: Tensor) -> Tensor:
        low, high = self._ends()
        return ((v > low) & (v < high)).to(v.dtype)


class Elu(Activation):
    names = ("elu", "celu", "selu")

    def _factors(self) -> tuple[float, float, float]:
        """Of e^(b·v) − 1, of all, and b."""
        if self.call.name == "selu":
            return 1.6732632423543772, 1.0507009873554805, 1.0
        alpha = float(self.call.argument(1, "alpha", 1.0))
        if self.call.name == "celu":
            return alpha, 1.0, 1 / alpha
        return alpha, float(self.call.argument(2, "scale", 1.0)), float(self.call.argument(3, "input_scale", 1.0))

    def check(self) -> None:
        if not min(self._factors()) > 0:
            raise self.call.refuse("its alpha must be positive")

    def shape(self) -> tuple[Sequence[Piece], Sequence[float]]:
        alpha, _, rate = self._factors()
        if alpha * rate <= 1:
            return (Piece(*_ALL, True),), ()
        return (Piece(*_LEFT, True), Piece(*_RIGHT, True)), ()

    def slope(self, v: Tensor) -> Tensor:
        alpha, scale, rate = self._factors()
        return torch.where(v > 0, torch.full_like(v, scale), scale * alpha * rate * (rate * v.clamp(max=0)).exp())


class Softplus(Activation):
    names = ("softplus",)

    def _settings(self) -> tuple[float, float]:
        """Beta and threshold: where beta · v is above it, PyTorch goes on straight, a hair lower."""
        return float(self.call.argument(1, "beta", 1)), float(self.call.argument(2, "threshold", 20))

    def check(self) -> None:
        beta, threshold = self._settings()
        if not (beta > 0 and threshold >= 20):
            raise self.call.refuse(f"its beta ({beta:g}) must be positive, and its threshold ({threshold:g}) at least "
                                   f"20: there it steps down, the farther the lower that is")

    def slope(self, v: Tensor) -> Tensor:
        beta, threshold = self._settings()
        return torch.where(beta * v > threshold, 1.0, torch.sigmoid(beta * v))

    def shape(self) -> tuple[Sequence[Piece], Sequence[float]]:
        """Two pieces, so that the step is none inside."""
        beta, threshold = self._settings()
        return (Piece(-math.inf, threshold / beta, True), Piece(threshold / beta, math.inf, True)), ()


class Sigmoid(Activation):
    names = ("sigmoid",)
    pieces = (Piece(*_LEFT, True), Piece(*_RIGHT, False))

    def slope(self, v: Tensor) -> Tensor:
        return torch.sigmoid(v) * torch.sigmoid(-v)


class Tanh(Activation):
    names = ("tanh",)
    pieces = (Piece(*_LEFT, True), Piece(*_RIGHT, False))

    def slope(self, v: Tensor) -> Tensor:
        return 1 / torch.cosh(v.clamp(-40, 40)).square()


class Silu(Activation):
    """Falls to its minimum at v = −1.278 and rises from there; bent upward between ±2.399."""

    names = ("silu",)
    _INFLECTION = 2.3993572805154273
    pieces = (Piece(-math.inf, -_INFLECTION, False), Piece(-_INFLECTION, _INFLECTION, True),
              Piece(_INFLECTION, math.inf, False))
    turning = (-1.2784645427610738,)

    def slope(self, v: Tensor) -> Tensor:
        share = torch.sigmoid(v)
        return share * (1 + v * (1 - share))


class Gelu(Activation):
    """v·Φ(v): falls to its minimum at v = −.752 and rises from there; bent upward between ±√2."""

    names = ("gelu",)
    pieces = (Piece(-math.inf, -math.sqrt(2), False), Piece(-math.sqrt(2), math.sqrt(2), True),
              Piece(math.sqrt(2), math.inf, False))
    turning = (-0.7517915246935645,)

    @classmethod
    def fits(cls, call: Call) -> bool:
        return bool(call.kwargs.get("approximate", "none") == "none")

    def slope(self, v: Tensor) -> Tensor:
        return 0.5 * (1 + torch.erf(v / math.sqrt(2))) + v * torch.exp(-v.square() / 2) / math.sqrt(2 * math.pi)


class TanhGelu(Activation):
    """GELU's approximation v/2 · (1 + tanh(√(2/π) · (v + .044715 v³))): minimum at v = −.752, bent upward between
    ±1.419."""

    names = ("gelu",)
    _INFLECTION = 1.4185040087908284
    pieces = (Piece(-math.inf, -_INFLECTION, False), Piece(-_INFLECTION, _INFLECTION, True),
              Piece(_INFLECTION, math.inf, False))
    turning = (-0.7524614220710163,)

    @classmethod
    def fits(cls, call: Call) -> bool:
        return bool(call.kwargs.get("approximate", "none") == "tanh")

    def slope(self, v: Tensor) -> Tensor:
        v = v.clamp(-10, 10)  # beyond, the slope is 0 or 1 to the last bit, and the cube may overflow
        factor, cubic = math.sqrt(2 / math.pi), 0.044715
        rise = torch.tanh(factor * (v + cubic * v ** 3))
        return 0.5 * (1 + rise + v * (1 - rise.square()) * factor * (1 + 3 * cubic * v.square()))


class Mish(Activation):
    """v · tanh(softplus(v)): falls to its minimum at v = −1.192 and rises from there; bent upward from −2.256 to 1.491.
    """

    names = ("mish",)
    _BENDS = (-2.256376396360793, 1.4905711794854284)
    pieces = (Piece(-math.inf, _BENDS[0], False), Piece(*_BENDS, True), Piece(_BENDS[1], math.inf, False))
    turning = (-1.1924312145154952,)

    def slope(self, v: Tensor) -> Tensor:
        rise = torch.tanh(functional.softplus(v))
        return rise + v * torch.sigmoid(v) * (1 - rise.square())


class Absolute(Activation):
    names = ("abs",)
    pieces = (Piece(*_ALL, True),)
    turning = (0.0,)

    def slope(self, v: Tensor) -> Tensor:
        return v.sign()


class Square(Activation):
    """Also written as a product, v·v."""

    names = ("square", "pow", "mul")
    pieces = (Piece(*_ALL, True),)
    turning = (0.0,)

    @classmethod
    def fits(cls, call: Call) -> bool:
        if call.name == "mul":
            return call.args[:2] == (Slot(0), Slot(0))
        power = call.args[1] if call.name == "pow" else 2
        return not isinstance(power, Slot) and torch.as_tensor(power).numel() == 1 and float(power) == 2

    def slope(self, v: Tensor) -> Tensor:
        return 2 * v


class Exponential(Activation):
    names = ("exp",)
    pieces = (Piece(*_ALL, True),)

    def slope(self, v: Tensor) -> Tensor:
        return v.exp()


class Hardswish(Activation):
    """v · clamp(v + 3, 0, 6) / 6: bent upward between ±3, straight outside."""

    names = ("hardswish",)
    pieces = (Piece(-math.inf, -3.0, True), Piece(-3.0, 3.0, True), Piece(3.0, math.inf, True))
    turning = (-1.5,)

    def slope(self, v: Tensor) -> Tensor:
        return torch.where(v.abs() < 3, (2 * v + 3) / 6, (v >= 3).to(v.dtype))


class LogSigmoid(Activation):
    names = ("log_sigmoid",)
    pieces = (Piece(*_ALL, False),)

    def slope(self, v: Tensor) -> Tensor:
        return torch.sigmoid(-v)


class Hardsigmoid(Activation):
    names = ("hardsigmoid",)
    pieces = (Piece(*_LEFT, True), Piece(*_RIGHT, False))

    def slope(self, v: Tensor) -> Tensor:
        return (v.abs() < 3).to(v.dtype) / 6


class Stepped(Bent):
    """What never falls, and jumps: without lines. The ends of a box are moved a little, since rounding may move them
    over a jump; where it may move them further than that, nothing is known."""

    names = ("round", "floor", "ceil", "sign")
    _MOVED = 1e-3

    def interval(self, *boxes: Box) -> Box:
        (box,) = boxes
        return Box(self(box.lower - self._MOVED), self(box.upper + self._MOVED))

    def size(self, sizes: Sequence[Tensor], boxes: Sequence[Box], share: float) -> Tensor:
        return torch.where(share * sizes[0] < self._MOVED, super().size(sizes, boxes, share), math.inf)
