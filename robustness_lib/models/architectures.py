"""The nets of this package by name: a builder is found by the decorator that stands over it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from torch import nn

__all__ = ["ARCHITECTURES", "architecture", "build"]

Builder = TypeVar("Builder", bound=Callable[..., nn.Module])

ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {}


def architecture(builder: Builder) -> Builder:
    """Let cards and recipes name this function, which returns a net with new weights. Raises ValueError for a name that
    another builder has."""
    name = builder.__name__
    if ARCHITECTURES.get(name, builder) is not builder:
        raise ValueError(f"two architectures are called {name!r}")
    ARCHITECTURES[name] = builder
    return builder


def build(about: dict[str, Any]) -> nn.Module:
    """A net of this package with new weights: {"builder": "small_cnn", "arguments": {...}}. Raises ValueError for an
    unknown builder and for arguments that it does not take."""
    builder = ARCHITECTURES.get(about["builder"])
    if builder is None:
        raise ValueError(f"unknown architecture {about['builder']!r}; known: {', '.join(ARCHITECTURES)}")
    try:
        return builder(**about["arguments"])
    except TypeError as error:
        raise ValueError(f"the arguments do not fit {about['builder']}: {error}") from error
