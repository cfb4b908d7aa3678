"""How much longer a change can get in one operation of a network: its Lipschitz constants in L2, input by input.

A linear function whose norm nobody has worked out gets Schur's bound, √(largest row sum · largest column sum) of the
absolute values of its matrix. Both sums follow from the rule for intervals, which every linear operation has: the row
sums are the radii behind a box of radius 1, and the column sums their derivatives by the radii before it. It is exact
for whatever moves, copies, averages or scales entries.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from robustness_lib.certify.activations import Kinked
from robustness_lib.certify.affine_operations import Joined
from robustness_lib.certify.curves import Activation
from robustness_lib.certify.max_pooling import MaxPool
from robustness_lib.certify.operation import Affine, Box, Operation
from robustness_lib.certify.operator_norms import SLACK, convolution_norm, matrix_norm
from robustness_lib.certify.sorting import Sorted
from robustness_lib.certify.weighted_operations import Convolution, Linear, MatrixProduct

__all__ = ["Gain", "joined", "operation_gains"]


class Gain(NamedTuple):
    """For one input of an operation. most: no change of this input is more than so many times as long behind it.
    absolute: the same of the matrix of absolute values, which rounding goes by."""

    most: float
    absolute: float


def operation_gains(operation: Operation, precise: Operation) -> list[Gain]:
    """One for each input. precise: the same operation in float64. Raises UnknownOperation, which names the layer."""
    if isinstance(precise, Affine):
        absolute = _schur(precise)
        most = _norm(operation)
        return [Gain(bound if most is None else most, bound) for bound in absolute]
    gain = _steepest(precise)
    return [Gain(gain, gain)]


def joined(operation: Operation, changes: list[float]) -> float:
    """The length of a change behind it, from those that its inputs may add to it, each by itself: of what lies beside
    each other, as in Pythagoras' theorem; of anything else, the sum."""
    return math.hypot(*changes) if isinstance(operation, Joined) else sum(changes)


def _norm(operation: Operation) -> float | None:
    """Of the weights as the network has them, which it may compute in its own precision."""
    if isinstance(operation, Linear):
        return matrix_norm(operation.weight)
    if isinstance(operation, MatrixProduct) and (matrix := operation.call.args[1]).ndim <= 2:
        return matrix_norm(matrix.reshape(len(matrix), -1))
    if isinstance(operation, Convolution):
        axes = operation.weight.ndim - 2
        stride, dilation = (_along(operation.call.argument(place, name, 1), axes)
                            for place, name in ((3, "stride"), (5, "dilation")))
        return convolution_norm(operation.weight, operation.call.inputs[0][-axes:], stride=stride, dilation=dilation,
                                groups=operation.call.argument(6, "groups", 1))
    return None


def _along(given: int | list[int], axes: int) -> list[int]:
    """A setting for each axis."""
    listed = [given] if isinstance(given, int) else list(given)
    return listed * axes if len(listed) == 1 else listed


def _schur(operation: Affine) -> list[float]:
    with torch.enable_grad():
        radii = [torch.zeros(1, *shape, dtype=torch.float64, requires_grad=True) for shape in operation.call.inputs]
        columns = torch.autograd.grad(_radius(operation, radii).sum(), radii, materialize_grads=True) \
            if _radius(operation, radii).requires_grad else [torch.zeros_like(radius) for radius in radii]
    found = []
    for number, column in enumerate(columns):
        with torch.no_grad():
            only = [torch.full_like(radius, float(k == number)) for k, radius in enumerate(radii)]
            box = operation.interval(*(Box(-radius, radius) for radius in only))
        rows = float((box.radius + 4 * torch.finfo(torch.float64).eps * box.size).amax())
        found.append(math.sqrt(rows * float(column.amax())) * SLACK)
    return found


def _radius(operation: Affine, radii: list[Tensor]) -> Tensor:
    return operation.interval(*(Box(-radius, radius) for radius in radii)).radius


def _steepest(operation: Operation) -> float:
    if isinstance(operation, (Kinked, Sorted)):
        return 1.0
    if isinstance(operation, MaxPool):
        table = operation.windows
        return math.sqrt(int(torch.bincount(table[table >= 0]).amax()))  # windows that one entry may be the largest of
    if isinstance(operation, Activation):
        near, far = (float(operation.steepest(Box(torch.tensor(-end, dtype=torch.float64),
                                                  torch.tensor(end, dtype=torch.float64)))) for end in (1e15, 1e30))
        if far <= near * SLACK < math.inf:  # false for what is no number, too
            return far * SLACK
        raise operation.call.refuse(f"{operation.call.name} gets ever steeper, so that it has no Lipschitz constant")
    raise operation.call.refuse(f"no Lipschitz constant is known for {operation.call.name}")
