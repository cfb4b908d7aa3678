"""Ten classes of road signs, drawn here: no download, as many as you want, the same on every machine.

Image i of a seed is a pure function of (seed, i): it does not depend on how many are drawn or in which
batches. Its parameters are bit-identical everywhere; its pixels can differ by one grey level where two
machines round differently.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from tqdm import tqdm

from robustness_lib import counter_random
from robustness_lib.data import _sign_scene
from robustness_lib.data._sign_faces import FACES

__all__ = ["SEEDS", "SIZES", "draw_signs", "draw_uint8"]

CLASSES: tuple[str, ...] = tuple(FACES)
SIZES = {"train": 20_000, "validation": 2_000, "test": 2_000}
SEEDS = {"train": 20_260_000, "validation": 20_260_001, "test": 20_260_002}

_LABEL_STEP = 2
_CHUNK = 640  # about 64 images of a class at a time: what a core's cache holds


def draw_signs(n: int, *, start: int = 0, seed: int = SEEDS["train"]) -> tuple[Tensor, Tensor]:
    """Draw images number `start` to `start + n - 1`.

    The default seed is that of the train split: its first 20,000 images are `load("signs", "train")`, and
    drawing on gives more of them. Another seed gives another set. Every ten images from a multiple of ten on
    hold each class once.

    Returns x, float32 of shape (n, 3, 32, 32) in [0, 1] (multiples of 1/255), and y, int64 of shape (n,), the
    places of the classes in what `load` returns. Raises ValueError if n or start is negative.
    """
    images, labels = draw_uint8(n, start=start, seed=seed)
    return torch.from_numpy(images).to(torch.float32) / 255, torch.from_numpy(labels)


def draw_uint8(n: int, *, start: int = 0,
               seed: int = SEEDS["train"]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """As `draw_signs`, but 8-bit images, a quarter of the memory: (n, 3, 32, 32) and (n,)."""
    if n < 0 or start < 0:
        raise ValueError(f"n and start must not be negative; found n={n}, start={start}")
    images = np.empty((n, 3, _sign_scene.SIZE, _sign_scene.SIZE), dtype=np.uint8)
    labels = np.empty(n, dtype=np.int64)
    # The bar waits two seconds before it shows.
    with _one_thread(), tqdm(total=n, desc="drawing signs", unit="image", delay=2, leave=False) as bar:
        for first in range(0, n, _CHUNK):
            last = min(first + _CHUNK, n)
            index = torch.arange(start + first, start + last)
            y = _labels(index, seed)
            labels[first:last] = y.numpy()
            images[first:last] = _draw_chunk(index, y, seed).numpy()
            bar.update(last - first)
    return images, labels


@contextmanager
def _one_thread() -> Iterator[None]:
    # The tensors are small: a second thread gains little, and waiting for it on a busy core costs tenfold.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _labels(index: Tensor, seed: int) -> Tensor:
    """The classes of the images: a shuffled pack of all ten for every ten images."""
    block = index // len(CLASSES)
    keys = counter_random.uniform((len(CLASSES),), seed=seed, index=block, step=_LABEL_STEP)
    return keys.argsort(dim=1).gather(1, (index % len(CLASSES))[:, None])[:, 0]


def _draw_chunk(index: Tensor, y: Tensor, seed: int) -> Tensor:
    # One class after the other, so that a batch computes the distances of its own sign only.
    images = torch.empty((len(index), 3, _sign_scene.SIZE, _sign_scene.SIZE), dtype=torch.uint8)
    with torch.no_grad():
        for label, face in enumerate(FACES.values()):
            mine = (y == label).nonzero()[:, 0]
            if len(mine):
                images[mine] = _sign_scene.render(face, index[mine], seed)
    return images
