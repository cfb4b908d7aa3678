"""Which data sets there are, how large, and whether they are here; looked up without loading or fetching one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from robustness_lib.data import moons, real, signs
from robustness_lib.data._files import data_folders, read_npz
from robustness_lib.data._load import NAMES
from robustness_lib.data._splits import held_out

__all__ = ["Holding", "inventory"]


@dataclass(frozen=True)
class Holding:
    """A data set. drawn: made here, never fetched. here: it can be loaded without a network. sizes: images in each
    split, as far as they are here. folder: where its files lie. problem: why a file that is here cannot be used."""

    name: str
    classes: int
    drawn: bool
    here: bool
    sizes: Mapping[str, int]
    folder: Path | None = None
    problem: str = ""


def inventory() -> tuple[Holding, ...]:
    """All sets that `load` knows, in its order."""
    drawn = {"signs": (signs.CLASSES, signs.SIZES), "moons": (moons.CLASSES, moons.SIZES)}
    return tuple(Holding(name, len(drawn[name][0]), True, True, drawn[name][1]) if name in drawn else _real(name)
                 for name in NAMES)


def _real(name: str) -> Holding:
    classes = len(real.SOURCES[name].classes)
    try:
        train, test = _labels(name, "train"), _labels(name, "test")
    except ValueError as error:
        return Holding(name, classes, False, False, {}, problem=str(error))
    sizes: dict[str, int] = {}
    if train is not None:
        held = int(held_out(*train[1:]).sum())
        sizes |= {"train": len(train[1]) - held, "validation": held}
    if test is not None:
        sizes["test"] = len(test[1])
    found = test or train
    return Holding(name, classes, False, train is not None and test is not None, sizes, found[0] if found else None)


def _labels(name: str, part: str) -> tuple[Path, npt.NDArray[np.int64], npt.NDArray[np.int64] | None] | None:
    """Where a part lies, its labels, and groups of images that stay together. Images are left unread."""
    tracks = real.SOURCES[name].tracks and part == "train"
    for folder in data_folders():
        path = folder / f"{name}-{part}.npz"
        if path.exists():
            arrays = read_npz(path, [key for key in real._keys(name, part) if key != "images"])
            labels = arrays["labels"]
            return folder, labels, labels * (1 << 32) + arrays["tracks"] if tracks else None
        raw = folder / real.SOURCES[name].torchvision / "raw"
        if (originals := real._originals(raw, part)) is not None:
            return raw, originals["labels"], None
    return None
