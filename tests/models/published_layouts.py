"""Residual nets as other repositories name and compute them: each a state dict of random tensors, and a function that
computes logits from such a dict by its names alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

State = dict[str, Tensor]


class _Drawn:
    """A state dict to be: tensors by name, those of batch norm with statistics of their own."""

    def __init__(self, seed: int) -> None:
        self.state: State = {}
        self.start = torch.Generator().manual_seed(seed)

    def conv(self, name: str, width_in: int, width_out: int, size: int = 3) -> None:
        scale = (width_in * size * size) ** -0.5
        self.state[f"{name}.weight"] = scale * torch.randn(width_out, width_in, size, size, generator=self.start)

    def norm(self, name: str, width: int) -> None:
        for part, least in (("weight", 0.5), ("bias", -0.5), ("running_mean", -0.5), ("running_var", 0.5)):
            self.state[f"{name}.{part}"] = torch.rand(width, generator=self.start) + least
        self.state[f"{name}.num_batches_tracked"] = torch.tensor(7)

    def linear(self, name: str, width: int, classes: int) -> None:
        self.state[f"{name}.weight"] = torch.randn(classes, width, generator=self.start) / width**0.5
        self.state[f"{name}.bias"] = torch.randn(classes, generator=self.start)


def conv(state: State, name: str, x: Tensor, stride: int = 1, padding: int = 1) -> Tensor:
    return functional.conv2d(x, state[f"{name}.weight"], stride=stride, padding=padding)


def norm(state: State, name: str, x: Tensor) -> Tensor:
    return functional.batch_norm(x, state[f"{name}.running_mean"], state[f"{name}.running_var"],
                                 state[f"{name}.weight"], state[f"{name}.bias"])


def linear(state: State, name: str, x: Tensor) -> Tensor:
    return functional.linear(x.flatten(1), state[f"{name}.weight"], state[f"{name}.bias"])


@dataclass(frozen=True)
class Published:
    """builder, arguments: of the network of this package that it is to be. state: tensors by this layout's names.
    forward: logits of 32×32 images, computed from them."""

    builder: str
    arguments: dict[str, object]
    state: State
    forward: Callable[[Tensor], Tensor]


def trades(depth: int = 16, width: int = 2, classes: int = 7) -> Published:
    """block1.layer.0.conv1, convShortcut, fc."""
    drawn, blocks = _Drawn(0), (depth - 4) // 6
    drawn.conv("conv1", 3, 16)
    width_in = 16
    for number, width_out in ((1, 16 * width), (2, 32 * width), (3, 64 * width)):
        for block in range(blocks):
            name = f"block{number}.layer.{block}"
            drawn.norm(f"{name}.bn1", width_in)
            drawn.conv(f"{name}.conv1", width_in, width_out)
            drawn.norm(f"{name}.bn2", width_out)
            drawn.conv(f"{name}.conv2", width_out, width_out)
            if width_in != width_out:
                drawn.conv(f"{name}.convShortcut", width_in, width_out, 1)
            width_in = width_out
    drawn.norm("bn1", width_in)
    drawn.linear("fc", width_in, classes)
    s = drawn.state

    def forward(x: Tensor) -> Tensor:
        x = conv(s, "conv1", x)
        for number in (1, 2, 3):
            for block in range(blocks):
                name, stride = f"block{number}.layer.{block}", 2 if number > 1 and block == 0 else 1
                active = norm(s, f"{name}.bn1", x).relu()
                crossed = f"{name}.convShortcut.weight" in s
                kept = conv(s, f"{name}.convShortcut", active, stride, 0) if crossed else x
                inner = norm(s, f"{name}.bn2", conv(s, f"{name}.conv1", active, stride)).relu()
                x = kept + conv(s, f"{name}.conv2", inner)
        return linear(s, "fc", functional.avg_pool2d(norm(s, "bn1", x).relu(), 8))

    return Published("wide_resnet", {"depth": depth, "width": width, "classes": classes}, s, forward)


def deepmind(depth: int = 16, width: int = 2, classes: int = 7) -> Published:
    """init_conv, layer.0.block.0.conv_0, logits; Swish, and padding below and to the right."""
    drawn, blocks = _Drawn(1), (depth - 4) // 6
    drawn.conv("init_conv", 3, 16)
    width_in = 16
    for group, width_out in enumerate((16 * width, 32 * width, 64 * width)):
        for block in range(blocks):
            name = f"layer.{group}.block.{block}"
            drawn.norm(f"{name}.batchnorm_0", width_in)
            drawn.conv(f"{name}.conv_0", width_in, width_out)
            drawn.norm(f"{name}.batchnorm_1", width_out)
            drawn.conv(f"{name}.conv_1", width_out, width_out)
            if width_in != width_out:
                drawn.conv(f"{name}.shortcut", width_in, width_out, 1)
            width_in = width_out
    drawn.norm("batchnorm", width_in)
    drawn.linear("logits", width_in, classes)
    s = drawn.state

    def forward(x: Tensor) -> Tensor:
        x = conv(s, "init_conv", x)
        for group in range(3):
            for block in range(blocks):
                name, halves = f"layer.{group}.block.{block}", group > 0 and block == 0
                active = functional.silu(norm(s, f"{name}.batchnorm_0", x))
                kept = conv(s, f"{name}.shortcut", active, 2 if halves else 1, 0) if block == 0 else x
                padded = functional.pad(active, (0, 1, 0, 1) if halves else (1, 1, 1, 1))
                inner = conv(s, f"{name}.conv_0", padded, 2 if halves else 1, 0)
                x = kept + conv(s, f"{name}.conv_1", functional.silu(norm(s, f"{name}.batchnorm_1", inner)))
        return linear(s, "logits", functional.avg_pool2d(functional.silu(norm(s, "batchnorm", x)), 8))

    arguments = {"depth": depth, "width": width, "classes": classes, "activation": "silu", "padding": "same"}
    return Published("wide_resnet", arguments, s, forward)


def preact(width: int = 4, classes: int = 7, from_input: bool = False, last_norm: bool = True) -> Published:
    """layer1.0.bn1, shortcut.0, linear; RobustBench has it with shortcuts from either place, and with or without bn."""
    drawn = _Drawn(2)
    drawn.conv("conv1", 3, width)
    width_in = width
    for number in (1, 2, 3, 4):
        for block in (0, 1):
            name, width_out = f"layer{number}.{block}", width * 2 ** (number - 1)
            drawn.norm(f"{name}.bn1", width_in)
            drawn.conv(f"{name}.conv1", width_in, width_out)
            drawn.norm(f"{name}.bn2", width_out)
            drawn.conv(f"{name}.conv2", width_out, width_out)
            if width_in != width_out:
                drawn.conv(f"{name}.shortcut.0", width_in, width_out, 1)
            width_in = width_out
    if last_norm:
        drawn.norm("bn", width_in)
    drawn.linear("linear", width_in, classes)
    s = drawn.state

    def forward(x: Tensor) -> Tensor:
        x = conv(s, "conv1", x)
        for number in (1, 2, 3, 4):
            for block in (0, 1):
                name, halves = f"layer{number}.{block}", number > 1 and block == 0
                active = norm(s, f"{name}.bn1", x).relu()
                kept = conv(s, f"{name}.shortcut.0", x if from_input else active, 2, 0) if halves else x
                inner = norm(s, f"{name}.bn2", conv(s, f"{name}.conv1", active, 2 if halves else 1)).relu()
                x = kept + conv(s, f"{name}.conv2", inner)
        x = norm(s, "bn", x).relu() if last_norm else x
        return linear(s, "linear", functional.avg_pool2d(x, 4))

    arguments = {"width": width, "classes": classes, "shortcut_from": "input" if from_input else "activation",
                 "final_norm": last_norm}
    return Published("preact_resnet18", arguments, s, forward)


PUBLISHED = {"trades": trades(), "trades, narrow": trades(10, 1), "deepmind": deepmind(), "preact": preact(),
             "preact from its input": preact(from_input=True, last_norm=False)}
