"""A small net with random weights, and an image for it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn


@pytest.fixture
def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 5 * 5, 5)).eval()


@pytest.fixture
def image() -> Tensor:
    return (torch.rand(3, 12, 12, generator=torch.Generator().manual_seed(1)) * 255).round() / 255
