"""Small networks and images as the JavaScript of a page reads them (small_network.js, pixels.js)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import anywidget
import numpy as np
import torch
import traitlets
from torch import Tensor, nn

from robustness_lib.inputs import ROUNDING
from robustness_lib.widgets._in_the_page import layers, number_bytes

__all__ = ["OnSmallNetworks", "small_networks"]


class OnSmallNetworks(anywidget.AnyWidget):
    """What the JavaScript of a widget that computes on small networks reads from it.

    networks: per model a list of layers, with offsets into weights. weights: all parameters, float32, little-endian.
    images: uint8 (N, C, H, W). shape: (C, H, W). names: of the models.
    """

    networks: Any = traitlets.List().tag(sync=True)
    names: Any = traitlets.List().tag(sync=True)
    weights = traitlets.Bytes().tag(sync=True)
    images = traitlets.Bytes().tag(sync=True)
    shape: Any = traitlets.List().tag(sync=True)
    labels: Any = traitlets.List().tag(sync=True)
    classes: Any = traitlets.List().tag(sync=True)


def small_networks(models: Mapping[str, nn.Module], images: Tensor, labels: Tensor | Sequence[int],
                   classes: Sequence[str] | None) -> dict[str, Any]:
    """Values of that widget's traits.

    models: name -> nn.Sequential of Conv2d, ReLU, Flatten, Linear. images: float (N, C, H, W) in [0, 1], C = 1 or 3.
    labels: (N,). classes: names of the K classes, or numbers.
    Raises TypeError naming the layer that the JavaScript does not know, ValueError on images, labels or class names
    that do not fit.
    """
    labels = _whole(labels)
    if images.ndim != 4 or images.shape[1] not in (1, 3) or len(images) != len(labels) or not labels:
        raise ValueError(
            f"images must be (N, 1 or 3, H, W) with N labels; found {tuple(images.shape)}, {len(labels)} labels"
        )
    if not images.is_floating_point() or not (images.min() >= -ROUNDING and images.max() <= 1 + ROUNDING):  # also NaN
        raise ValueError("images must be floating point in [0, 1]; is a normalization applied outside the model?")
    shape = tuple(images.shape[1:])
    networks: list[list[dict[str, Any]]] = []
    numbers: list[bytes] = []
    n_classes: set[int] = set()
    for name, model in models.items():
        network, n_outputs = _describe(name, model, images, numbers)
        networks.append(network)
        n_classes.add(n_outputs)
    names = list(classes) if classes is not None else [str(k) for k in range(max(n_classes))]
    if n_classes != {len(names)} or len(names) < 2 or not 0 <= min(labels) <= max(labels) < len(names):
        raise ValueError(
            f"{len(names)} class names, models with {sorted(n_classes)} logits, labels {min(labels)} to {max(labels)}: "
            "these must fit together"
        )
    return {"networks": networks, "names": list(models), "weights": b"".join(numbers), "shape": list(shape),
            "labels": labels, "images": (images * 255).round().to(torch.uint8).cpu().numpy().tobytes(),
            "classes": names}


def _whole(labels: Tensor | Sequence[int]) -> list[int]:
    found = [label.item() if isinstance(label, Tensor) else label for label in labels]
    if any(isinstance(label, bool) or int(label) != label for label in found):
        raise ValueError(f"labels must be whole numbers; found {found[:5]}")
    return [int(label) for label in found]


def _describe(
    name: str, model: nn.Module, images: Tensor, numbers: list[bytes]
) -> tuple[list[dict[str, Any]], int]:
    """The layers of one model as the JavaScript reads them; its parameters are appended to `numbers`."""
    network = []
    like = next(model.parameters(), None)
    if like is None or like.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"{name} needs weights in float32 or float64; found {None if like is None else like.dtype}")
    images = images.to(like)
    value = images.clone()
    for path, layer in layers(model, name):
        described = _describe_layer(path, layer, value.ndim)
        described["inShape"] = list(value.shape[1:])
        with torch.no_grad():
            value = layer(value)
        described["outShape"] = list(value.shape[1:])
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            bias = torch.zeros(layer.weight.shape[0]) if layer.bias is None else layer.bias
            described["weight"] = _append(numbers, layer.weight)
            described["bias"] = _append(numbers, bias)
            if not np.isfinite(np.frombuffer(numbers[-1] + numbers[-2], "<f4")).all():
                raise ValueError(f"the weights of layer {path} are no finite numbers in float32")
        network.append(described)
    if value.ndim != 2:
        raise ValueError(f"{name} must end in (N, K) logits; it returns {tuple(value.shape)}")
    with torch.no_grad():
        answers = model(images.clone())
    rounding = 1e-4 * float(value.abs().max())
    if answers.shape != value.shape or not torch.allclose(answers, value, rtol=0, atol=rounding):
        raise TypeError(f"{name} answers otherwise than its layers one after another do, which is all that the page "
                        "knows of it: it has a forward of its own, or hooks")
    return network, value.shape[1]


def _describe_layer(path: str, layer: nn.Module, axes: int) -> dict[str, Any]:
    """axes: of what the layer is given."""
    if layer._forward_hooks or layer._forward_pre_hooks:
        raise TypeError(f"layer {path} has hooks, which the page does not know of")
    if type(layer) is nn.ReLU:
        return {"kind": "relu"}
    if type(layer) is nn.Flatten and layer.start_dim == 1 and layer.end_dim == -1:
        return {"kind": "flatten"}
    if type(layer) is nn.Linear and axes == 2:
        return {"kind": "linear"}
    if (type(layer) is nn.Conv2d and layer.groups == 1 and layer.dilation == (1, 1)
            and layer.padding_mode == "zeros" and not isinstance(layer.padding, str)):
        return {"kind": "conv", "kernel": list(layer.kernel_size), "stride": list(layer.stride),
                "padding": list(layer.padding)}
    raise TypeError(
        f"the page cannot run layer {path}: {layer}. It knows Conv2d (one group, no dilation, padding given in "
        "numbers, zeros), ReLU, Flatten and, behind it, Linear, in nn.Sequential"
    )


def _append(numbers: list[bytes], parameter: Tensor) -> list[int]:
    content = number_bytes(parameter)
    offset = sum(map(len, numbers)) // 4
    numbers.append(content)
    return [offset, len(content) // np.dtype("<f4").itemsize]
