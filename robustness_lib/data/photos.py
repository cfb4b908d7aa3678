"""A few photographs that anybody may use, for networks that were trained on ImageNet."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

__all__ = ["photograph"]

_FOLDER = Path(__file__).parent / "photographs"


def photograph(name: str = "cat") -> Tensor:
    """A photograph as a batch of one: (1, 3, 224, 224), float32, in [0, 1]. No network is needed.

    Args:
        name: "cat", "coffee" or "rocket". Authors and terms stand in photographs/LICENCE.md beside this file.

    Raises:
        ValueError: for another name.
    """
    path = _FOLDER / f"{name}.png"
    known = sorted(file.stem for file in _FOLDER.glob("*.png"))
    if name not in known:
        raise ValueError(f"no photograph is called {name!r}; there are {', '.join(known)}")
    with Image.open(path) as image:
        pixels = np.array(image.convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
