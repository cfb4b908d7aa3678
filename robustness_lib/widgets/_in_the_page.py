"""What widgets that compute in the page are given: their code as one module, a net's layers, and numbers as bytes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from torch import Tensor, nn

__all__ = ["layers", "module", "number_bytes", "style"]

_HERE = Path(__file__).parent


def module(*names: str) -> str:
    """Files of JavaScript, each a subject of its own, as the one module that they are in the page."""
    return "\n".join(_HERE.joinpath(f"{name}.js").read_text(encoding="utf-8") for name in ("elements", *names))


def style(name: str) -> str:
    """A widget's style sheet, with that of the controls before it."""
    return "\n".join(_HERE.joinpath(f"{part}.css").read_text(encoding="utf-8") for part in ("controls", name))


def layers(model: nn.Module, path: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Those of nested nn.Sequential, in order, each with where it stands."""
    if isinstance(model, nn.Sequential):
        for name, layer in model.named_children():
            yield from layers(layer, f"{path}.{name}")
    else:
        yield path, model


def number_bytes(values: Tensor) -> bytes:
    """float32, little-endian."""
    content: bytes = values.detach().cpu().numpy().astype("<f4").tobytes()
    return content
