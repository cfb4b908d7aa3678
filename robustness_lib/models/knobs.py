"""A small residual net of which one thing at a time can be changed, to measure what it is worth."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from robustness_lib.models.architectures import architecture

__all__ = ["ACTIVATIONS", "POOLINGS", "knob_cnn"]

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "silu": nn.SiLU, "softplus": nn.Softplus}
POOLINGS: dict[str, type[nn.Module] | None] = {"max": nn.MaxPool2d, "average": nn.AvgPool2d, "stride": None}
_STAGES = 3


class _Block(nn.Module):
    """Two convolutions whose result is added to what came in (He et al. 2016, arXiv 1512.03385), or is not."""

    def __init__(self, inside: nn.Sequential, after: nn.Module, residual: bool) -> None:
        super().__init__()
        self.inside, self.after, self.residual = inside, after, residual

    def forward(self, x: Tensor) -> Tensor:
        changed = self.inside(x)
        result: Tensor = self.after(x + changed if self.residual else changed)
        return result


@architecture
def knob_cnn(width: int = 8, depth: int = 1, *, activation: Literal["relu", "silu", "softplus"] = "relu",
             pooling: Literal["max", "average", "stride"] = "max", kernel_size: int = 3, batch_norm: bool = True,
             residual: bool = True, in_shape: tuple[int, int, int] = (3, 32, 32), classes: int = 10) -> nn.Sequential:
    """Three stages and one linear layer: images (N, C, H, W) to logits (N, classes).

    A stage is a convolution that sets the channels, an activation, a pooling that halves height and width, and `depth`
    blocks of two convolutions each.

    width: channels of the first stage; the second has twice as many, the third four times.
    depth: blocks in each stage. The net has 3 + 6 · depth convolutions.
    pooling: "max" or "average" of 2×2, or "stride": no pooling, and the stage's first convolution takes two steps at a
        time. It has the same weights then, on a quarter of the places.
    kernel_size: odd, of every convolution.
    batch_norm: after every convolution, which has no bias then: what batch norm adds takes its place.
    residual: what enters a block is added to what its two convolutions make of it. Without, the same layers with as
        many parameters.
    in_shape: (C, H, W) of the images.

    Raises ValueError for widths below 1, depths below 0, an even kernel, H or W that are no multiples of 8, and for an
    activation or a pooling that is not among these.
    """
    _check(width, depth, activation, pooling, kernel_size, in_shape)

    def convolution(depth_in: int, depth_out: int, stride: int = 1) -> list[nn.Module]:
        made = nn.Conv2d(depth_in, depth_out, kernel_size, stride, kernel_size // 2, bias=not batch_norm)
        return [made, nn.BatchNorm2d(depth_out)] if batch_norm else [made]

    bend, pool = ACTIVATIONS[activation], POOLINGS[pooling]
    channels, height, width_of_image = in_shape
    layers: list[nn.Module] = []
    for stage in range(_STAGES):
        wide = width * 2 ** stage
        layers += [*convolution(channels, wide, 2 if pool is None else 1), bend(), *([] if pool is None else [pool(2)])]
        for _ in range(depth):
            inside = nn.Sequential(*convolution(wide, wide), bend(), *convolution(wide, wide))
            layers.append(_Block(inside, bend(), residual))
        channels = wide
    features = channels * (height >> _STAGES) * (width_of_image >> _STAGES)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(features, classes))


def _check(width: int, depth: int, activation: str, pooling: str, kernel_size: int,
           in_shape: tuple[int, int, int]) -> None:
    if width < 1 or depth < 0:
        raise ValueError(f"width must be at least 1 and depth at least 0; found width={width}, depth={depth}")
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}; found {activation!r}")
    if pooling not in POOLINGS:
        raise ValueError(f"pooling must be one of {', '.join(POOLINGS)}; found {pooling!r}")
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(f"kernel_size must be odd, so that it has a middle; found {kernel_size}")
    if in_shape[1] % 2 ** _STAGES or in_shape[2] % 2 ** _STAGES:
        raise ValueError(f"knob_cnn halves three times: height and width must be multiples of 8; found {in_shape}")
