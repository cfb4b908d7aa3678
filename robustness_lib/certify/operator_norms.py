"""Norms of linear operators in L2, from above: the longest that a change of length 1 can become.

Computed in float64 and enlarged by `SLACK`, far more than rounding takes from it. (A power iteration goes the other
way: each of its steps gives a length that some change really becomes, and so a bound from below.)
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["SLACK", "convolution_norm", "matrix_norm"]

SLACK = 1 + 1e-9  # rounding in float64 is a share of about 1e-13 of the largest singular value, for thousands of rows


def matrix_norm(matrix: Tensor) -> float:
    """The largest singular value of a matrix (O, I), by a whole singular value decomposition, times `SLACK`."""
    return float(torch.linalg.matrix_norm(matrix.detach().double(), 2)) * SLACK


def convolution_norm(kernel: Tensor, sizes: Sequence[int], *, stride: Sequence[int], dilation: Sequence[int],
                     groups: int = 1) -> float:
    """No less than the norm of a convolution over images of these sizes that are padded with zeros, of any width.

    kernel: (O, I / groups, ...), with as many axes behind as the image has sizes, strides and dilations. Such a
    convolution is a part of the circular one on a grid of size + kernel − 1 along each axis, on which nothing that goes
    over an edge meets the image again. The Fourier transform takes the circular one apart into one small matrix for
    each frequency, and its norm is the largest of theirs (Sedghi, Gupta and Long 2019, arXiv 1805.10408). On the grid
    of the image itself the circular convolution is *another* operator, which may be shorter: of the kernel (1, −1) on
    three pixels it is √3 long, and the one with zeros 1.80.

    With stride s, results are those of a convolution without stride over images whose s × s neighbours are folded into
    channels. Groups act on channels of their own: the largest norm of theirs counts.
    """
    kernel = kernel.detach().double()
    kernel = kernel.reshape(groups, -1, *kernel.shape[1:])
    for axis, (step, spread) in enumerate(zip(stride, dilation, strict=True), 3):
        kernel = _folded(_spread(kernel, axis, spread), axis, step)
    grid = [(size + step - 2) // step + 1 + kernel.shape[axis] - 1
            for axis, (size, step) in enumerate(zip(sizes, stride, strict=True), 3)]
    axes = tuple(range(3, kernel.ndim))
    matrices = torch.fft.rfftn(kernel, grid, axes).flatten(3).movedim(3, 1)  # half of them: the others are conjugates
    return float(torch.linalg.matrix_norm(matrices, 2).amax()) * SLACK


def _spread(kernel: Tensor, axis: int, dilation: int) -> Tensor:
    """With dilation − 1 zeros between neighbours."""
    shape = list(kernel.shape)
    shape[axis] = dilation * (shape[axis] - 1) + 1
    spread = kernel.new_zeros(shape)
    spread.movedim(axis, 0)[::dilation] = kernel.movedim(axis, 0)
    return spread


def _folded(kernel: Tensor, axis: int, stride: int) -> Tensor:
    """With entries along an axis (G, O, I, ...) in blocks of `stride`, one channel for each place in a block."""
    blocks = -(-kernel.shape[axis] // stride)
    padded = kernel.new_zeros((*kernel.shape[:axis], blocks * stride, *kernel.shape[axis + 1:]))
    padded.narrow(axis, 0, kernel.shape[axis]).copy_(kernel)
    parts = padded.reshape(*padded.shape[:axis], blocks, stride, *padded.shape[axis + 1:])
    return parts.movedim(axis + 1, 3).flatten(2, 3)
