"""Small convolutional nets: enough for 32×32 images, quick enough for two CPU cores."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from robustness_lib.models.architectures import architecture

__all__ = ["small_cnn", "strided_cnn", "tiny_cnn"]


@architecture
def small_cnn(channels: Sequence[int] = (12, 24, 48), *, in_shape: tuple[int, int, int] = (3, 32, 32),
              classes: int = 10, hidden: int = 512, batch_norm: bool = False, dropout: float = 0.0) -> nn.Sequential:
    """3×3 convolutions, each followed by ReLU and 2×2 max-pooling, then two linear layers: logits (N, classes).

    in_shape: (C, H, W) of the images. With the defaults 412,000 parameters. Raises ValueError if the image is too
    small to be halved once per convolution.
    """
    depth, height, width = in_shape
    if min(height, width) >> len(channels) < 1:
        smallest = 2 ** len(channels)
        raise ValueError(f"{len(channels)} poolings need images of {smallest} pixels or more; found {in_shape}")
    layers: list[nn.Module] = []
    for width_out in channels:
        layers.append(nn.Conv2d(depth, width_out, 3, padding=1))
        if batch_norm:
            layers.append(nn.BatchNorm2d(width_out))
        layers += [nn.ReLU(), nn.MaxPool2d(2)]
        depth, height, width = width_out, height // 2, width // 2
    layers += [nn.Flatten(), nn.Linear(depth * height * width, hidden), nn.ReLU()]
    if dropout:
        layers.append(nn.Dropout(dropout))
    return nn.Sequential(*layers, nn.Linear(hidden, classes))


@architecture
def strided_cnn(channels: Sequence[int] = (16, 32), *, in_shape: tuple[int, int, int] = (1, 28, 28),
                classes: int = 10, hidden: int = 100, batch_norm: bool = False) -> nn.Sequential:
    """4×4 convolutions that halve the image, each followed by ReLU, then two linear layers: logits (N, classes).

    With the defaults the small MNIST net of Wong and Kolter 2018 (arXiv 1711.00851), 166,406 parameters. No pooling:
    bounds on its layers stay simple. in_shape: (C, H, W) of the images. batch_norm: before each ReLU. Raises ValueError
    if H or W cannot be halved once per convolution.
    """
    depth, height, width = in_shape
    times = 2 ** len(channels)
    if height % times or width % times:
        raise ValueError(f"{len(channels)} halvings need height and width that are multiples of {times}; "
                         f"found {in_shape}")
    layers: list[nn.Module] = []
    for width_out in channels:
        layers += [nn.Conv2d(depth, width_out, 4, stride=2, padding=1),
                   *([nn.BatchNorm2d(width_out)] if batch_norm else []), nn.ReLU()]
        depth = width_out
    features = depth * (height // times) * (width // times)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(features, hidden),
                         *([nn.BatchNorm1d(hidden)] if batch_norm else []), nn.ReLU(), nn.Linear(hidden, classes))


@architecture
def tiny_cnn(channels: Sequence[int] = (12, 24, 32), *, in_shape: tuple[int, int, int] = (3, 32, 32),
             classes: int = 10) -> nn.Sequential:
    """Strided convolutions and one linear layer, 20,000 parameters by default: small enough to be attacked live,
    in a page, by a few lines of JavaScript that know convolution, ReLU and linear layers only.

    in_shape: (C, H, W), with H and W divisible by 8.
    """
    depth, height, width = in_shape
    if height % 8 or width % 8:
        raise ValueError(f"tiny_cnn halves three times: height and width must be multiples of 8; found {in_shape}")
    first, second, third = channels
    return nn.Sequential(
        nn.Conv2d(depth, first, 5, stride=2, padding=2), nn.ReLU(),
        nn.Conv2d(first, second, 3, stride=2, padding=1), nn.ReLU(),
        nn.Conv2d(second, third, 3, stride=2, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(third * height * width // 64, classes),
    )
