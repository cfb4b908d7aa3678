"""One door to every data set."""

from __future__ import annotations

from numbers import Integral

import numpy as np
import torch
from torch import Tensor

from robustness_lib.data import _sign_cache, moons, real, signs

NAMES = ("signs", "moons", *real.SOURCES)
SPLITS = ("train", "validation", "test")


def load(name: str, split: str = "test", n: int | None = None) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """Load a data set: the first `n` examples of a split, or all of them.

    name: "signs" and "moons" are drawn here; "mnist", "fashion-mnist", "cifar10" and "gtsrb" are read from
    $ROBUSTNESS_DATA or from the cache ($ROBUSTNESS_CACHE, else the user's cache folder), and downloaded into
    the cache the first time.
    split: "train", "validation" or "test". Choose everything (steps, epochs, thresholds) on validation, a
    fixed tenth of the training set with every class's share; the test images choose nothing.

    Returns x, float32 of shape (N, C, H, W) in [0, 1] (moons: points of the plane, (N, 2)); y, int64 of shape
    (N,); and the classes' names. Raises ValueError for an unknown name or split, for more examples than there
    are and for a damaged file; FileNotFoundError when a set is neither here nor can be downloaded.
    """
    if name not in NAMES:
        raise ValueError(f"there is no data set {name!r}; choose one of {', '.join(NAMES)}")
    if split not in SPLITS:
        raise ValueError(f"there is no split {split!r}; choose one of {', '.join(SPLITS)}")
    if n is not None and n < 1:
        raise ValueError(f"n must be at least 1, or None for all; found {n}")
    if name == "moons":
        x, y = moons.draw_moons(_count(n, moons.SIZES[split], name, split), seed=moons.SEEDS[split])
        return x, y, moons.CLASSES
    if name == "signs":
        images, labels = _sign_cache.load(split, _count(n, signs.SIZES[split], name, split))
        classes = signs.CLASSES
    else:
        images, labels = real.load(name, split)
        count = _count(n, len(labels), name, split)
        images, labels, classes = images[:count], labels[:count], real.SOURCES[name].classes
    x = torch.from_numpy(images.astype(np.float32)).div_(255)
    return x, torch.from_numpy(labels.copy()), classes


def _count(n: int | None, present: int, name: str, split: str) -> int:
    if n is not None and (isinstance(n, bool) or not isinstance(n, Integral)):
        raise TypeError(f"n must be a whole number of examples, or None for all; found {n!r}")
    if n is not None and n > present:
        more = "; robustness_lib.data.draw_signs draws more" if name == "signs" else ""
        raise ValueError(f"{name} has {present} {split} examples here; {n} were asked for{more}")
    return present if n is None else n
