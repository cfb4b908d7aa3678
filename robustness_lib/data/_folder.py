"""A folder of images, one subfolder per class: listed whole, opened image by image."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from tqdm import tqdm

from robustness_lib.file_kinds import said_instead

_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".ppm", ".pgm", ".webp", ".tif", ".tiff")
_SPLITS = {"train", "training", "val", "valid", "validation", "test", "testing"}
_GREY = ("1", "L", "LA")
INTERPOLATIONS = ("nearest", "nearest-exact", "bilinear", "bicubic", "box", "hamming", "lanczos")
_WITHOUT_ANTIALIAS = ("nearest", "nearest-exact", "bilinear", "bicubic")


@dataclass(frozen=True)
class Preparation:
    """The shorter side to `resize` pixels, then the middle `crop` × `crop`; None leaves that out. channels: 1 or 3, or
    None: 1 where all images are grey. interpolation, antialias: how `resize` is done; None is torchvision's default,
    bilinear and antialiased. Raises ValueError."""

    resize: int | None = None
    crop: int | None = None
    channels: int | None = None
    interpolation: str | None = None
    antialias: bool | None = None

    def __post_init__(self) -> None:
        if self.interpolation not in (None, *INTERPOLATIONS):
            raise ValueError(f"interpolation must be one of {', '.join(INTERPOLATIONS)}; found {self.interpolation!r}")
        if self.resize is None and (self.interpolation, self.antialias) != (None, None):
            raise ValueError("interpolation and antialias say how images are resized, and no resize is given: found "
                             f"interpolation {self.interpolation!r}, antialias {self.antialias!r}")
        if self.antialias is False and self.interpolation not in (None, *_WITHOUT_ANTIALIAS):
            raise ValueError(f"without antialias, interpolation must be one of {', '.join(_WITHOUT_ANTIALIAS)}; found "
                             f"{self.interpolation!r}")
        if self.channels not in (None, 1, 3):
            raise ValueError(f"channels must be 1 or 3; found {self.channels}")
        for name in ("resize", "crop"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is a number of pixels, at least 1; found {value}")

    @property
    def words(self) -> str:
        """How images are resized."""
        return f"{self.interpolation or 'bilinear'}, {'without' if self.antialias is False else 'with'} antialiasing"


def listing(root: Path, say: Callable[[str], None]) -> tuple[list[Path], npt.NDArray[np.int64], tuple[str, ...]]:
    """Every image, sorted; its label; the classes' names. Raises ValueError where the folder is built otherwise."""
    classes = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not classes:
        raise ValueError(f"{root} needs one subfolder per class, with that class's images; it has no subfolders")
    if {name.lower() for name in classes} <= _SPLITS:
        raise ValueError(f"{root} holds {', '.join(classes)}: name one of these, such as {root / classes[-1]}")
    if all(name.isdecimal() for name in classes) and classes != sorted(classes, key=int):
        say(f"the class folders of {root} are numbers, and are taken in the order of torchvision's ImageFolder, that "
            f"of the alphabet: {', '.join(classes[:4])}, ... Where your model counts otherwise, rename them "
            f"with leading zeros.")
    files: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        mine = sorted(_images(root / name))
        if not mine:
            raise ValueError(f"{root / name} holds no images ({', '.join(_SUFFIXES)}), so class {name} has none")
        files += mine
        labels += [label] * len(mine)
    return files, np.array(labels, dtype=np.int64), tuple(classes)


def _images(folder: Path) -> list[Path]:
    return [Path(where) / name for where, _, names in os.walk(folder, followlinks=True) for name in names
            if name.lower().endswith(_SUFFIXES) and not name.startswith(".")]


def read(files: Sequence[Path], prepare: Preparation) -> npt.NDArray[np.uint8]:
    """The images, 8-bit, (N, C, H, W). Raises ValueError for one that is damaged, or of another size than the first."""
    out: npt.NDArray[np.uint8] | None = None
    channels = prepare.channels
    for row, path in enumerate(tqdm(files, desc="reading images", unit="image", delay=2, leave=False)):
        image = _open(path, prepare)
        if channels is None:
            channels = 1 if all(_is_grey(file) for file in files) else 3
        pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"), dtype=np.uint8)
        pixels = pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)
        if out is None:
            out = np.empty((len(files), *pixels.shape), dtype=np.uint8)
        if pixels.shape != out.shape[1:]:
            raise ValueError(f"images must have one size: {files[0]} has {_size(out[0])} pixels and {path} "
                             f"{_size(pixels)}. Bring them to one with resize and crop (--resize 256 --crop 224, for "
                             f"example)")
        out[row] = pixels
    assert out is not None
    return out


def _open(path: Path, prepare: Preparation) -> Any:
    from torchvision.transforms import functional  # a second to import, and only needed here

    try:
        with Image.open(path) as file:
            if file.mode.startswith(("I", "F")):
                raise ValueError("it has more than 8 bits for each colour; save it with 8")
            image = file.convert("L" if file.mode in _GREY else "RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} cannot be read as an image: {said_instead(path, 'image', error)}") from None
    if prepare.resize is not None:
        how = functional.InterpolationMode(prepare.interpolation or "bilinear")
        if prepare.antialias is False:  # which PIL cannot leave out
            tensor = functional.pil_to_tensor(image)
            image = functional.to_pil_image(functional.resize(tensor, prepare.resize, how, antialias=False))
        else:
            image = functional.resize(image, prepare.resize, how)
    if prepare.crop is not None:
        image = functional.center_crop(image, prepare.crop)
    return image


def _is_grey(path: Path) -> bool:
    try:
        with Image.open(path) as file:  # reads the head of the file only
            return file.mode in _GREY
    except OSError:
        return False  # it is named when it is read


def _size(pixels: npt.NDArray[np.uint8]) -> str:
    return f"{pixels.shape[2]} × {pixels.shape[1]}"
