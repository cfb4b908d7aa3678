"""The photographs and drawings that others collected: MNIST, Fashion-MNIST, CIFAR-10 and GTSRB.

Each set is kept as two files, `NAME-train.npz` and `NAME-test.npz`; validation is cut from train when it is
read.
A set that is not here is downloaded by torchvision, once.
"""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from robustness_lib.data import _classes, _gtsrb_files
from robustness_lib.data._files import Arrays, cache_folder, data_folders, read_npz, write_npz
from robustness_lib.data._splits import held_out, shuffled

__all__ = ["SOURCES", "fetch", "load"]


@dataclass(frozen=True)
class Source:
    """A data set of others: torchvision's name for it, its classes, and whether its frames come in tracks."""

    torchvision: str
    classes: tuple[str, ...]
    tracks: bool = False


SOURCES = {
    "mnist": Source("MNIST", tuple("0123456789")),
    "fashion-mnist": Source("FashionMNIST", _classes.FASHION),
    "cifar10": Source("CIFAR10", _classes.CIFAR10),
    "gtsrb": Source("GTSRB", _classes.GTSRB, tracks=True),
}


def load(name: str, split: str) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Images uint8 (N, C, H, W) and labels int64 (N,) of a split.

    Raises ValueError where a file is damaged, FileNotFoundError where there is none and the download fails.
    """
    part = "test" if split == "test" else "train"
    arrays = _read(name, part)
    images, labels = arrays["images"], arrays["labels"]
    if part == "test":
        return images, labels
    group = labels * (1 << 32) + arrays["tracks"] if SOURCES[name].tracks else None
    chosen = np.flatnonzero(held_out(labels, group) == (split == "validation"))
    if SOURCES[name].tracks:
        chosen = shuffled(chosen)  # it comes sorted by class: its first n would all be one sign
    return images[chosen], labels[chosen]


def fetch(name: str) -> list[Path]:
    """Download a set (both parts) into the cache, unless it is here already. Returns what holds it.

    Raises ValueError for an unknown name or a damaged file, FileNotFoundError where the download fails.
    """
    if name not in SOURCES:
        raise ValueError(f"there is no data set {name!r} to fetch; choose one of {', '.join(SOURCES)}")
    return [_fetch_part(name, part) for part in ("train", "test")]


def _fetch_part(name: str, part: str) -> Path:
    for folder in data_folders():
        path, raw = folder / f"{name}-{part}.npz", folder / SOURCES[name].torchvision / "raw"
        if path.exists():
            read_npz(path, _keys(name, part))  # a file that is there but damaged must not pass for the set
            return path
        if _originals(raw, part) is not None:
            return raw
    path = cache_folder() / f"{name}-{part}.npz"
    write_npz(path, _download(name, part))
    return path


def _keys(name: str, part: str) -> list[str]:
    return ["images", "labels"] + ["tracks"] * (SOURCES[name].tracks and part == "train")


def _read(name: str, part: str) -> Arrays:
    keys = _keys(name, part)
    for folder in data_folders():
        path = folder / f"{name}-{part}.npz"
        if path.exists():
            return read_npz(path, keys)
        if (originals := _originals(folder / SOURCES[name].torchvision / "raw", part)) is not None:
            return originals
    path = cache_folder() / f"{name}-{part}.npz"
    arrays = _download(name, part)
    write_npz(path, arrays)
    return arrays


def _originals(folder: Path, part: str) -> Arrays | None:
    """The files in which MNIST and Fashion-MNIST are published, read where they lie; None if they do not."""
    prefix = "train" if part == "train" else "t10k"
    images = folder / f"{prefix}-images-idx3-ubyte.gz"
    labels = folder / f"{prefix}-labels-idx1-ubyte.gz"
    if not (images.exists() and labels.exists()):
        return None
    arrays: Arrays = {"images": _read_idx(images)[:, None], "labels": _read_idx(labels).astype(np.int64)}
    if len(arrays["images"]) != len(arrays["labels"]):
        raise ValueError(f"{images} holds {len(arrays['images'])} images, but {labels.name} "
                         f"{len(arrays['labels'])} labels: one of them is not the original file.")
    return arrays


def _read_idx(path: Path) -> npt.NDArray[np.uint8]:
    """The format of MNIST's files: 0, 0, the type (8 is uint8), the count of axes, each length, the bytes."""
    try:
        raw = gzip.decompress(path.read_bytes())
        if raw[:3] != b"\0\0\x08":
            raise ValueError(f"it begins with {raw[:3]!r}, not with the mark of 8-bit data")
        axes = raw[3]
        shape = np.frombuffer(raw, dtype=">u4", count=axes, offset=4)
        return np.frombuffer(raw, dtype=np.uint8, offset=4 + 4 * axes).reshape(shape)
    except (ValueError, OSError, EOFError, IndexError, zlib.error) as error:
        raise ValueError(f"{path} is damaged or is not an idx file: {error}. Fetch it again.") from error


def _download(name: str, part: str) -> Arrays:
    from torchvision import datasets  # a second to import, and only needed here

    root = cache_folder() / "downloads"
    dataset = getattr(datasets, SOURCES[name].torchvision)
    try:
        if name == "gtsrb":
            return _gtsrb_files.pack(dataset(root, split=part, download=True), root, part)
        images = dataset(root, train=part == "train", download=True)
    except (OSError, RuntimeError) as error:
        looked = ", ".join(str(folder / f"{name}-{part}.npz") for folder in data_folders())
        raise FileNotFoundError(
            f"{name} is not here, and downloading it failed ({error}). Looked for {looked}. On a machine "
            f"with a network, run `robustness data fetch {name}`; it names the files to bring "
            f"here. ROBUSTNESS_DATA may name the folder that they lie in."
        ) from error
    pixels = np.asarray(images.data, dtype=np.uint8)
    pixels = pixels[:, None] if pixels.ndim == 3 else pixels.transpose(0, 3, 1, 2)
    return {"images": np.ascontiguousarray(pixels), "labels": np.asarray(images.targets, dtype=np.int64)}
