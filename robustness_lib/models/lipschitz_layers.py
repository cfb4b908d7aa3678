"""Layers that hold their Lipschitz constant in L2 at 1, and a small net of them.

A layer is 1-Lipschitz where no change of its input is longer behind it than before. Chains of such layers are, too, so
that a change of length r moves the logits by r at most. Nothing here is taken on trust: `certify.lipschitz_bound`
computes the constant of a net from its weights as they are.

    orthogonal_linear       torch's own orthogonal parametrization: all singular values are 1
    almost_orthogonal       a convolution whose kernel is rescaled, channel by channel, so that its norm is 1 at most
    GroupSort               an activation that sorts, and so loses nothing of a gradient's length
    with_plain_weights      the same net without parametrizations: what is shipped, attacked and proved

torch.nn.utils.parametrizations.spectral_norm divides by a power iteration's estimate, which lies *below* the norm: a
layer of it may have a constant above 1. It can be trained with, and `lipschitz_bound` computes its norm all the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import orthogonal

from robustness_lib.models.architectures import architecture

__all__ = ["AlmostOrthogonal", "GroupSort", "Scale", "almost_orthogonal", "lipschitz_cnn", "orthogonal_linear",
           "with_plain_weights"]


class _SortedPairs(torch.autograd.Function):
    """Ten times as fast as sorting: each pair's larger value in the first half of the channels."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor) -> Tensor:
        a, b = x.chunk(2, 1)
        ctx.save_for_backward(a < b)
        return torch.cat([torch.maximum(a, b), torch.minimum(a, b)], 1)

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> Tensor:
        """Each entry's goes back to where the entry came from."""
        (swapped,), (high, low) = ctx.saved_tensors, gradient.chunk(2, 1)  # type: ignore[attr-defined]
        return torch.cat([torch.where(swapped, low, high), torch.where(swapped, high, low)], 1)


class GroupSort(nn.Module):
    """Sorts groups of channels, the largest first: values (N, C, ...) to (N, C, ...). In pairs also called MaxMin
    (Anil, Lucas and Grosse 2019, arXiv 1811.05381).

    Sorting moves entries, and moves no two further apart, so that it is 1-Lipschitz in every Lp norm; and the gradient
    keeps its length, where ReLU takes a part of it away.

    group: channels that are sorted together, C / group apart: in pairs channel k with channel k + C/2. Raises
    ValueError for a group below 2 and (on use) for channels that cannot be cut into such groups.
    """

    def __init__(self, group: int = 2) -> None:
        super().__init__()
        if group < 2:
            raise ValueError(f"a group to be sorted has 2 channels or more; found {group}")
        self.group = group

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim < 2 or x.shape[1] % self.group:
            raise ValueError(f"GroupSort cuts the channels (axis 1) into groups of {self.group}; found values of shape "
                             f"{tuple(x.shape)}")
        if self.group == 2 and not torch.compiler.is_exporting():
            return _SortedPairs.apply(x)  # type: ignore[no-any-return]
        groups = x.reshape(len(x), self.group, -1, *x.shape[2:])
        return groups.sort(1, descending=True).values.flatten(1, 2)

    def extra_repr(self) -> str:
        return f"group={self.group}"


class AlmostOrthogonal(nn.Module):
    """A parametrization of convolution kernels (O, I, h, w) that holds the norm of the convolution at 1 or below, for
    whatever image, stride, dilation and padding with zeros (Prach and Lampert 2022, arXiv 2208.03160).

    With A the convolution as a matrix, of A times a diagonal matrix with 1/√(row sums of |AᵀA|) no singular value is
    above 1. On an endless image these sums are the same all over a channel: of the absolute values of the kernel's
    correlation with itself. An image padded with zeros is a part of an endless one, so that nothing gets longer. Where
    there are fewer channels behind than before, the same is done to Aᵀ, which loses less.
    """

    def forward(self, kernel: Tensor) -> Tensor:
        wide = kernel.shape[0] < kernel.shape[1]
        columns = kernel if wide else kernel.transpose(0, 1)
        own = F.conv2d(columns, columns, padding=(kernel.shape[2] - 1, kernel.shape[3] - 1))
        scale = own.abs().sum((1, 2, 3)).clamp(min=torch.finfo(kernel.dtype).tiny).rsqrt()
        return kernel * (scale[:, None, None, None] if wide else scale[None, :, None, None])


def almost_orthogonal(convolution: nn.Conv2d) -> nn.Conv2d:
    """Put `AlmostOrthogonal` on a convolution, which is returned. Its kernel is drawn again: orthogonal columns, or
    rows, in the middle, and 0 elsewhere. Raises ValueError for groups, and for padding with anything but zeros: what is
    repeated at an edge is counted twice there."""
    if convolution.groups != 1:
        raise ValueError(f"the channels of a convolution to be rescaled are one group; found {convolution.groups}")
    if convolution.padding_mode != "zeros":
        raise ValueError(f"the norm is held for images padded with zeros; found padding_mode="
                         f"{convolution.padding_mode!r}")
    with torch.no_grad():
        height, width = convolution.kernel_size
        middle = nn.init.orthogonal_(torch.empty_like(convolution.weight[:, :, 0, 0]))
        convolution.weight.zero_()[:, :, height // 2, width // 2] = middle
    parametrize.register_parametrization(convolution, "weight", AlmostOrthogonal())
    return convolution


def orthogonal_linear(features: int, outputs: int) -> nn.Linear:
    """A linear layer whose matrix has orthogonal rows or columns of length 1, whichever are fewer, by
    torch.nn.utils.parametrizations.orthogonal."""
    layer = nn.Linear(features, outputs)
    orthogonal(layer, "weight")
    return layer


def with_plain_weights(model: nn.Module) -> nn.Module:
    """The model, whose parametrized weights have become plain ones, in place: they keep their values, and are computed
    no more at each pass."""
    for layer in model.modules():
        if parametrize.is_parametrized(layer):
            for name in list(layer.parametrizations):  # type: ignore[arg-type]
                parametrize.remove_parametrizations(layer, name, leave_parametrized=True)
    return model


class Scale(nn.Module):
    """Values times a fixed number."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = float(factor)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor

    def extra_repr(self) -> str:
        return f"{self.factor:g}"


@architecture
def lipschitz_cnn(channels: Sequence[int] = (32, 64, 64), *, in_shape: tuple[int, int, int] = (3, 32, 32),
                  classes: int = 10, scale: float = 1.0, constrained: bool = True) -> nn.Sequential:
    """Convolutions that are no more than 1-Lipschitz, each followed by GroupSort, on images that are folded 2×2 into
    channels before each stage, then an orthogonal linear layer: logits (N, classes), which are scale-Lipschitz in L2.

    channels: of each stage, even numbers. in_shape: (C, H, W), with H and W divisible by 2 once per stage. scale: by
    what the logits are multiplied: of no account to the certificate, and to the training what a temperature is.
    constrained: False for plain layers, whose weights are to be loaded: then the constant is what the weights make it.
    Raises ValueError for an image that cannot be folded so often.
    """
    depth, height, width = in_shape
    times = 2 ** len(channels)
    if height % times or width % times:
        raise ValueError(f"{len(channels)} foldings need height and width that are multiples of {times}; "
                         f"found {in_shape}")

    def convolution(before: int, behind: int, size: int) -> nn.Conv2d:
        layer = nn.Conv2d(before, behind, size, padding=size // 2)
        return almost_orthogonal(layer) if constrained else layer

    linear = orthogonal_linear if constrained else nn.Linear
    layers: list[nn.Module] = []
    for behind in channels:
        layers += [nn.PixelUnshuffle(2), convolution(4 * depth, behind, 1), GroupSort(),
                   convolution(behind, behind, 3), GroupSort()]
        depth = behind
    features = depth * (height // times) * (width // times)
    return nn.Sequential(*layers, nn.Flatten(), linear(features, classes), Scale(scale))
