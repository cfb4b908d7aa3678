"""Networks that the page can run, on which its JavaScript is compared with PyTorch."""

from __future__ import annotations

import torch
from torch import nn

from robustness_lib import models

__all__ = ["build", "networks"]


def crooked() -> nn.Sequential:
    """Odd sizes, unequal strides and paddings, no bias, nested: what a square network would hide."""
    features = nn.Sequential(
        nn.Conv2d(1, 3, (3, 5), stride=(2, 1), padding=(0, 3)), nn.ReLU(), nn.Conv2d(3, 4, 2, stride=3, bias=False)
    )
    return nn.Sequential(features, nn.ReLU(), nn.Flatten(), nn.Linear(4 * 2 * 4, 6), nn.ReLU(), nn.Linear(6, 4))


def networks() -> list[str]:
    return ["tiny", "crooked", *(name for name in models.list_pretrained() if "-tiny-" in name)]


def build(name: str) -> tuple[nn.Sequential, tuple[int, int, int]]:
    torch.manual_seed(0)
    if name == "crooked":
        return crooked(), (1, 13, 11)
    model = models.tiny_cnn() if name == "tiny" else models.load_pretrained(name)
    return model.eval(), (3, 32, 32)
