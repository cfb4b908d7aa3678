"""What bound propagation knows about one operation of a network: the base of all rules, and where they are found.

To teach it another operation, write a class under one of these bases, in a module that `exported_graph` imports:
`CONTRIBUTING.md` has the recipe.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

__all__ = ["TRACED_BATCH", "Affine", "Box", "Call", "Operation", "Slot", "UnknownOperation", "fitting_operation",
           "known_operations"]

# Images in the batch that a network is traced with. No layer is as wide by chance, so that the batch's axis is known by
# its length.
TRACED_BATCH = 1009


class UnknownOperation(ValueError):
    """A network has an operation without a rule, so that nothing is known behind it."""


class Box(NamedTuple):
    """All values between lower and upper, entry by entry: (N, ...) both."""

    lower: Tensor
    upper: Tensor

    @property
    def centre(self) -> Tensor:
        return torch.lerp(self.lower, self.upper, 0.5)

    @property
    def radius(self) -> Tensor:
        return self.width / 2

    @property
    def width(self) -> Tensor:
        return self.upper - self.lower

    @property
    def size(self) -> Tensor:
        """The largest absolute value."""
        return torch.maximum(self.lower.abs(), self.upper.abs())

    @classmethod
    def around(cls, centre: Tensor, radius: Tensor) -> Box:
        return cls(centre - radius, centre + radius)

    def within(self, other: Box) -> Box:
        """What lies in both. Both hold the same true values, so that rounding alone could leave nothing: then the
        middle is kept."""
        lower, upper = torch.maximum(self.lower, other.lower), torch.minimum(self.upper, other.upper)
        crossed = lower > upper
        middle = (lower + upper) / 2
        return Box(torch.where(crossed, middle, lower), torch.where(crossed, middle, upper))


class Slot(NamedTuple):
    """Stands in a call for its input of this number; everything else there is constant."""

    number: int


@dataclass(frozen=True)
class Call:
    """One operation as the network calls it.

    target: the function. args, kwargs: what it is given, with a `Slot` for each value that follows from the images.
    item: of a function that returns several values, which is meant. inputs, output: shapes of the slots' values and of
    the result, without the batch. layer: where in the network, for errors.
    """

    target: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    item: int | None
    inputs: tuple[torch.Size, ...]
    output: torch.Size
    layer: str

    def __call__(self, *values: Tensor) -> Tensor:
        return self.given(self.args, *values)

    def given(self, args: tuple[Any, ...], *values: Tensor) -> Tensor:
        """The same with other arguments."""
        result = self.target(*_filled(args, values), **_filled(self.kwargs, values))
        return result if self.item is None else result[self.item]  # type: ignore[no-any-return]

    @property
    def name(self) -> str:
        """Of the function, such as conv2d."""
        return str(getattr(self.target, "__name__", self.target)).partition(".")[0]

    @property
    def text(self) -> str:
        """Such as pow(x, 3). x and x′ are values that follow from the images."""
        given = [*map(_said, self.args), *(f"{key}={_said(value)}" for key, value in self.kwargs.items())]
        return f"{self.name}({', '.join(given)})"

    def argument(self, place: int, name: str, default: Any = None) -> Any:
        return self.args[place] if place < len(self.args) else self.kwargs.get(name, default)

    def for_one_image(self, axes: int) -> Call:
        """With constants that were made for a whole batch of images of so many axes cut down to one."""
        return replace(self, args=tuple(self.of_one_image(arg, axes) for arg in self.args))

    def of_one_image(self, constant: Any, axes: int) -> Any:
        """A constant that was made for a whole batch of images of so many axes, cut down to one."""
        if not isinstance(constant, Tensor) or constant.ndim <= axes or len(constant) == 1:
            return constant
        if not torch.equal(constant[:1].expand_as(constant), constant):
            raise self.refuse("it has a constant that differs from image to image of a batch")
        return constant[:1]

    def refuse(self, why: str) -> UnknownOperation:
        """The error, to be raised."""
        return UnknownOperation(f"no bounds pass {self.layer}: {why}")


def _said(thing: Any) -> str:
    if isinstance(thing, Slot):
        return "x" + thing.number * "′"
    return "constant" if isinstance(thing, Tensor) and thing.numel() > 1 else str(thing)


def _filled(thing: Any, values: tuple[Tensor, ...]) -> Any:
    if isinstance(thing, Slot):
        return values[thing.number]
    if isinstance(thing, dict):
        return {key: _filled(value, values) for key, value in thing.items()}
    if isinstance(thing, (list, tuple)):
        return type(thing)(_filled(value, values) for value in thing)
    return thing


class Operation(ABC):
    """One operation of one network. names: of the functions that it stands for, as PyTorch's exported graphs write
    them.

    All shapes begin with the batch. An operation acts on each image by itself; `check` refuses a call that does not.
    """

    names: ClassVar[tuple[str, ...]] = ()
    _known: ClassVar[dict[str, list[type[Operation]]]] = {}

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for name in cls.__dict__.get("names", ()):
            Operation._known.setdefault(name, []).append(cls)

    def __init__(self, call: Call) -> None:
        self.call = call
        self.check()

    @classmethod
    def fits(cls, call: Call) -> bool:
        """Whether it stands for this call too, among others of its name."""
        return True

    def check(self) -> None:  # noqa: B027 - most take whatever they are given
        """Raises UnknownOperation for a call that the rules below are not right for."""

    def __call__(self, *values: Tensor) -> Tensor:
        """What the network computes here."""
        return self.call(*values)

    @abstractmethod
    def interval(self, *boxes: Box) -> Box:
        """A box that holds all results for inputs in these boxes."""

    def size(self, sizes: Sequence[Tensor], boxes: Sequence[Box], share: float) -> Tensor:
        """Of what is added up to each entry of the result, the sum of absolute values (N, ...). sizes: those of the
        inputs, which are in these boxes, and off by such a share of them, from rounding."""
        return self.interval(*(Box(-size, size) for size in sizes)).size


class Affine(Operation):
    """A linear function of its inputs plus a constant: then `backward` is exact, and needs no bounds.

    separate: each entry of the result follows from one entry of the one input, and no two from the same.
    """

    separate: bool = False

    def ball(self, radius: Tensor) -> Tensor | None:
        """How far results get (N, ...) when the length of the whole change of the input is at most 1, its entries being
        multiplied by radius (N, ...) before; None where nobody has worked that out."""
        return None

    def backward(self, rows: Tensor) -> list[Tensor]:
        """Linear functions of the result, one a row (P, ...), as functions of each input: (P, ...) each, without the
        constant."""
        points = [rows.new_zeros((len(rows), *shape)).requires_grad_() for shape in self.call.inputs]
        with torch.enable_grad():
            result = self(*points)
        return list(torch.autograd.grad(result, points, rows, create_graph=torch.is_grad_enabled()))

    def backward_single(self, entries: Tensor) -> Tensor | None:
        """Single entries of the result, by their place in the flat image (P,), as functions of the one input (P, ...),
        without the constant; None where there is no quicker way than `backward`."""
        return None

    @cached_property
    def constant(self) -> Tensor | None:
        """What it adds, (1, ...), in float64 unless it has tensors of another type; None where nothing."""
        parameter = next((arg for arg in _tensors(self.call.args)), None)
        empty = torch.zeros(1, dtype=torch.float64) if parameter is None else parameter.detach()
        added = self(*(empty.new_zeros((1, *shape)) for shape in self.call.inputs))
        return added if added.requires_grad or bool(added.any()) else None


def _tensors(thing: Any) -> Iterator[Tensor]:
    if isinstance(thing, Tensor):
        if thing.is_floating_point():
            yield thing
    elif isinstance(thing, (list, tuple)):
        for part in thing:
            yield from _tensors(part)


def fitting_operation(call: Call) -> Operation:
    """The operation that a call is. Raises UnknownOperation, which names the layer and lists what is known."""
    for kind in Operation._known.get(call.name, ()):
        if kind.fits(call):
            return kind(call)
    what = f"{call.text} as it stands here" if call.name in Operation._known else call.name
    raise call.refuse(f"there is no rule for {what}. There are rules for {', '.join(known_operations())}; "
                      f"CONTRIBUTING.md says how to add one")


def known_operations() -> list[str]:
    """Names of the functions that have a rule."""
    return sorted({name.strip("_") for name in Operation._known})
