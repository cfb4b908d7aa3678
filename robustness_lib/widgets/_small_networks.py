"""Small networks and images as the JavaScript of a page reads them (small_network.js, pixels.js)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from robustness_lib.inputs import ROUNDING
from robustness_lib.widgets._in_the_page import layers, number_bytes

__all__ = ["small_networks"]


def small_networks(models: Mapping[str, nn.Module], images: Tensor, labels: Tensor | Sequence[int],
                   classes: Sequence[str] | None) -> dict[str, Any]:
    """Values of a widget's traits: networks (per model a list of layers, with offsets into weights), weights (all
    parameters, float32, little-endian), images (uint8), shape (C, H, W), names (of the models), labels, classes.

    models: name -> nn.Sequential of Conv2d, ReLU, Flatten, Linear. images: float (N, C, H, W) in [0, 1], C = 1 or 3.
    labels: (N,). classes: names of the K classes, or numbers.
    Raises TypeError naming the layer that the JavaScript does not know, ValueError on images, labels or class names
    that do not fit.
    """
    labels = [int(label) for label in labels]
    if images.ndim != 4 or images.shape[1] not in (1, 3) or len(images) != len(labels) or not labels:
        raise ValueError(
            f"images must be (N, 1 or 3, H, W) with N labels; found {tuple(images.shape)}, {len(labels)} labels"
        )
    if not images.is_floating_point() or images.min() < -ROUNDING or images.max() > 1 + ROUNDING:
        raise ValueError("images must be floating point in [0, 1]; is a normalization applied outside the model?")
    shape = tuple(images.shape[1:])
    networks: list[list[dict[str, Any]]] = []
    numbers: list[bytes] = []
    n_classes: set[int] = set()
    for name, model in models.items():
        network, n_outputs = _describe(name, model, shape, numbers)
        networks.append(network)
        n_classes.add(n_outputs)
    names = list(classes) if classes is not None else [str(k) for k in range(max(n_classes))]
    if n_classes != {len(names)} or not 0 <= min(labels) <= max(labels) < len(names):
        raise ValueError(
            f"{len(names)} class names, models with {sorted(n_classes)} logits, labels {min(labels)} to {max(labels)}: "
            "these must fit together"
        )
    return {"networks": networks, "names": list(models), "weights": b"".join(numbers), "shape": list(shape),
            "labels": labels, "images": (images * 255).round().to(torch.uint8).cpu().numpy().tobytes(),
            "classes": names}


def _describe(
    name: str, model: nn.Module, shape: tuple[int, ...], numbers: list[bytes]
) -> tuple[list[dict[str, Any]], int]:
    """The layers of one model as the JavaScript reads them; its parameters are appended to `numbers`."""
    network = []
    value = torch.zeros(1, *shape, device=next(model.parameters()).device, dtype=next(model.parameters()).dtype)
    for path, layer in layers(model, name):
        described = _describe_layer(path, layer)
        described["inShape"] = list(value.shape[1:])
        with torch.no_grad():
            value = layer(value)
        described["outShape"] = list(value.shape[1:])
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            bias = torch.zeros(layer.weight.shape[0]) if layer.bias is None else layer.bias
            described["weight"] = _append(numbers, layer.weight)
            described["bias"] = _append(numbers, bias)
        network.append(described)
    if value.ndim != 2:
        raise ValueError(f"{name} must end in (N, K) logits; it returns {tuple(value.shape)}")
    return network, value.shape[1]


def _describe_layer(path: str, layer: nn.Module) -> dict[str, Any]:
    if isinstance(layer, nn.ReLU):
        return {"kind": "relu"}
    if isinstance(layer, nn.Flatten) and layer.start_dim == 1 and layer.end_dim == -1:
        return {"kind": "flatten"}
    if isinstance(layer, nn.Linear):
        return {"kind": "linear"}
    if (isinstance(layer, nn.Conv2d) and layer.groups == 1 and layer.dilation == (1, 1)
            and layer.padding_mode == "zeros" and not isinstance(layer.padding, str)):
        return {"kind": "conv", "kernel": list(layer.kernel_size), "stride": list(layer.stride),
                "padding": list(layer.padding)}
    raise TypeError(
        f"the page cannot run layer {path}: {layer}. It knows Conv2d (one group, no dilation, padding given in "
        "numbers, zeros), ReLU, Flatten and Linear, in nn.Sequential"
    )


def _append(numbers: list[bytes], parameter: Tensor) -> list[int]:
    content = number_bytes(parameter)
    offset = sum(map(len, numbers)) // 4
    numbers.append(content)
    return [offset, len(content) // np.dtype("<f4").itemsize]
