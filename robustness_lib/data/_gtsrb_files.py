"""GTSRB as it is published, a folder of photographs of many sizes, packed into arrays of 32 x 32."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from robustness_lib.data._files import Arrays

TRAIN_PHOTOGRAPHS = 26_640  # in the archive that torchvision downloads
_SIZE = 32


def pack(test: Iterable[tuple[Image.Image, int]], root: Path, part: str) -> Arrays:
    """Arrays of a part: `images`, `labels`, and for train `tracks`, the number of the sign within its class.

    test: torchvision's data set, read for the test part. root: the folder that torchvision unpacked into; the
    train photographs are read from there, for only their names (TRACK_FRAME.ppm) tell the tracks.
    Raises OSError where photographs are missing.
    """
    if part == "test":
        pairs = [(_small(image), label) for image, label in test]
        return {"images": np.stack([image for image, _ in pairs]),
                "labels": np.array([label for _, label in pairs], dtype=np.int64)}
    folder = root / "gtsrb" / "GTSRB" / "Training"
    paths = sorted(folder.glob("*/*.ppm"))
    if len(paths) < TRAIN_PHOTOGRAPHS:
        raise FileNotFoundError(f"{folder} holds {len(paths)} photographs of {TRAIN_PHOTOGRAPHS}: unpacking "
                                f"was interrupted. Delete the folder and fetch again")
    images = np.empty((len(paths), 3, _SIZE, _SIZE), dtype=np.uint8)
    for row, path in zip(images, paths, strict=True):
        with Image.open(path) as image:
            row[:] = _small(image)
    return {"images": images,
            "labels": np.array([int(path.parent.name) for path in paths], dtype=np.int64),
            "tracks": np.array([int(path.stem.split("_")[0]) for path in paths], dtype=np.int64)}


def _small(image: Image.Image) -> npt.NDArray[np.uint8]:
    # Pillow widens the filter when it shrinks an image, so that nothing aliases.
    resized = image.convert("RGB").resize((_SIZE, _SIZE), Image.Resampling.BILINEAR)
    return np.asarray(resized, dtype=np.uint8).transpose(2, 0, 1)
