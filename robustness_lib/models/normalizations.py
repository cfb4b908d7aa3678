"""The normalizations that training scripts use, by name: mean and standard deviation per channel, in pixel units."""

from __future__ import annotations

__all__ = ["NORMALIZATIONS"]

NORMALIZATIONS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "mnist": ((0.1307,), (0.3081,)),
    "half": ((0.5,), (0.5,)),       # to −1 ... 1; one number counts for every channel
    "bytes": ((0.0,), (1 / 255,)),  # to 0 ... 255
}
