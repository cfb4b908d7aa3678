"""Data by name: a set that `load` knows, a file of arrays, or a folder of images with one folder in it per class."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from robustness_lib import counter_random
from robustness_lib.data import _folder
from robustness_lib.data._axes import Array, another, channels_first, find_axes, is_usual
from robustness_lib.data._load import NAMES, load
from robustness_lib.file_kinds import FileKind, file_kind, words_on
from robustness_lib.input_advice import SLIGHTLY
from robustness_lib.inputs import ROUNDING, Say, check_count

__all__ = ["find_data"]

Found = tuple[Tensor, Tensor, tuple[str, ...]]
Drawn = Callable[[Sequence[str]], None]

_SAVE = 'save both in one file: np.savez("data.npz", images=..., labels=...)'
_ADVICE = {  # on files of another kind
    "npy": f"images and labels are needed; {_SAVE}",
    "text": f"a table of numbers has to be read and saved as arrays; {_SAVE}",
    **dict.fromkeys(("torch", "pickle", "safetensors", "hdf5", "parquet", "matlab"), f"take the arrays out; {_SAVE}"),
    "image": "put it into a folder with one subfolder for each class, and name that folder",
    "zip": "unpack it, and name the folder of images or the .npz file that was in it",
}


def find_data(name: str | Path, n: int | None = None, split: str = "test", seed: int = 0, *,
              resize: int | None = None, crop: int | None = None, channels: int | None = None,
              interpolation: str | None = None, antialias: bool | None = None, say: Say | None = None,
              drawn: Drawn | None = None) -> Found:
    """Images and labels for an evaluation: at most `n` of them, or all.

    name: one of
        "signs", "cifar10", ...    a set that `load` knows: the first n of the split, in its fixed order
        "folder/val.npz"           arrays `images` and `labels` (or `x` and `y`): images (N, H, W), (N, H, W, C) or
            (N, C, H, W), video (N, T, H, W, C) or (N, C, T, H, W), signals (N, C, L), or points (N, D); 8-bit, or
            floating-point in [0, 1]. Which axis holds the channels is told by the lengths (1 or 3, or few beside large
            sides), or by a text `axes` in the file, such as "NHWC". An array `classes` of names is used where it is
            there.
        "folder/val"               one subfolder per class, in the order of torchvision's ImageFolder
    Files often come sorted by class, so from these two a random sample without replacement is drawn: with the same
    `seed` the same one, and a smaller n draws the beginning of a larger one's. It is not balanced by class: its
    accuracy estimates that of the whole set. Of a folder only the images of the sample are opened.

    resize, crop: for folders, as torchvision evaluates: the shorter side to `resize` pixels, then the middle
        `crop` × `crop`.
    channels: for folders, 1 or 3; by default 1 where all images are grey.
    interpolation, antialias: how `resize` is done: "bilinear" (torchvision's default, as antialiasing is), "bicubic",
        "nearest", "nearest-exact", "box", "hamming", "lanczos". Say what the model was trained with.
    say: is told, in a sentence each, what was decided for you (print, for example). By default nobody is.
    drawn: is told once which images these are, in order: rows of the set or file, or files inside the folder.

    Returns x, float32 (N, C, H, W), (N, C, T, H, W), (N, C, L) or (N, D) in [0, 1]; y, int64 (N,); and the classes'
    names. Raises ValueError, which names the file, for what cannot be read or not be understood; FileNotFoundError
    where nothing is there.
    """
    if n is not None:
        check_count("n", n)
    tell: Say = say or (lambda sentence: None)
    name_them: Drawn = drawn or (lambda names: None)
    path = Path(name)
    if path.is_dir() and (str(name) not in NAMES):
        _only_whole(split, name)
        preparation = _folder.Preparation(resize, crop, channels, interpolation, antialias)
        return _from_folder(path, n, seed, preparation, tell, name_them)
    options = {"resize": resize, "crop": crop, "channels": channels, "interpolation": interpolation,
               "antialias": antialias}
    if given := [option for option, value in options.items() if value is not None]:
        words = f"{given[0]} is" if len(given) == 1 else f"{', '.join(given[:-1])} and {given[-1]} are"
        raise ValueError(f"{words} for folders of images; arrays are taken as they are")
    if str(name) in NAMES:
        found = _named(str(name), n, split, tell)
        name_them([str(row) for row in range(len(found[1]))])
        return found
    kind = file_kind(path)
    if path.suffix == ".npz" or (kind is not None and kind.name == "npz"):
        _only_whole(split, name)
        return _from_npz(path, kind, n, seed, tell, name_them)
    if path.exists():
        what = "" if kind is None else f": it is {words_on(kind, _ADVICE)}"
        raise ValueError(f"{path} is neither an .npz file nor a folder of images{what}")
    raise FileNotFoundError(f"there is no data set, file or folder {str(name)!r}; the sets are {', '.join(NAMES)}")


def _named(name: str, n: int | None, split: str, say: Say) -> Found:
    try:
        return load(name, split, n)
    except ValueError:
        x, y, classes = load(name, split)  # raises again where the count was not the reason
        if n is None or len(y) >= n:
            raise
        say(f"{name} has {_all(len(y), split + ' ')}.")
        return x, y, classes


def _from_npz(path: Path, kind: FileKind | None, n: int | None, seed: int, say: Say, drawn: Drawn) -> Found:
    arrays = _read(path, kind)
    try:
        images, y = arrays["images"], _labels(arrays["labels"])
        if len(images) != len(y):
            raise ValueError(f"it holds {len(images)} images and {len(y)} labels")
        if not len(y):
            raise ValueError("it holds no images")
        classes = _class_names(arrays.get("classes"), y)
        axes = find_axes(images, arrays.get("axes"))
        _check_values(images, say)
        chosen = _sample(len(y), n, seed, str(path), say)
        x = _pixels(channels_first(images[chosen], axes))
        if "axes" not in arrays and not is_usual(images.shape, axes):
            say(f"{path.name} is taken as {axes} {images.shape}: {_channels(x.shape[1])}, and the model gets (N, "
                f"{', '.join(map(str, x.shape[1:]))}). Where that is wrong, say it in the file: "
                f'np.savez(..., axes="{another(axes)}").')
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    drawn([str(row) for row in chosen.tolist()])
    return x, torch.from_numpy(y[chosen]), classes


def _from_folder(path: Path, n: int | None, seed: int, prepare: _folder.Preparation, say: Say, drawn: Drawn) -> Found:
    files, y, classes = _folder.listing(path, say)
    chosen = _sample(len(y), n, seed, str(path), say)
    if prepare.resize is not None and prepare.interpolation is None:
        say(f"Images are resized as torchvision does it by default ({prepare.words}), since nothing says how those of "
            f"the model were; where that was another way, name it (--interpolation, --antialias).")
    x = _folder.read([files[i] for i in chosen], prepare)
    drawn([files[i].relative_to(path).as_posix() for i in chosen])
    return _pixels(x), torch.from_numpy(y[chosen]), classes


def _sample(size: int, n: int | None, seed: int, name: str, say: Say) -> npt.NDArray[np.int64]:
    """Which rows, in which order. Every row has a number of its own from the seed, and the n smallest are taken: on
    every machine the same ones."""
    if n is None or n >= size:
        if n is not None and n > size:
            say(f"{name} has {_all(size)}.")
        return np.arange(size)
    say(f"{n:,} of the {size:,} images in {name} are used: a random sample (seed {seed}), since files are often sorted "
        f"by class. Reports number them as they were drawn, from 0.")
    numbers: npt.NDArray[np.float64] = counter_random.uniform((), seed=seed, index=torch.arange(size)).numpy()
    return np.argsort(numbers, kind="stable")[:n]


def _all(size: int, kind: str = "") -> str:
    return f"1 {kind}image, which is used" if size == 1 else f"{size:,} {kind}images; all of them are used"


def _only_whole(split: str, name: str | Path) -> None:
    if split != "test":
        raise ValueError(f"split {split!r} is for the named sets; {name} is taken as it is. Name the file or folder of "
                         f"the part that you mean")


def _read(path: Path, kind: FileKind | None) -> dict[str, Array]:
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    if kind is not None and kind.name != "npz":
        raise ValueError(f"{path} cannot be read as data: it is {words_on(kind, _ADVICE)}")
    try:
        with np.load(path, allow_pickle=False) as file:
            held = set(file.files)
            pair = next((p for p in (("images", "labels"), ("x", "y")) if held >= set(p)), None)
            if pair is None:
                names = ", ".join(file.files) or "nothing"
                raise ValueError(f"it needs images and labels (or x and y); it holds {names}")
            arrays = {"images": file[pair[0]], "labels": file[pair[1]]}
            return arrays | {name: file[name] for name in ("classes", "axes") if name in held}
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        if "allow_pickle" in said:
            said = "an array in it is a pickle (objects, not numbers); save plain arrays"
        raise ValueError(f"{path} cannot be read as data: {said}") from None


def _labels(y: Array) -> npt.NDArray[np.int64]:
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1:
        one_hot = "; one-hot rows become numbers by argmax(1)" if y.ndim == 2 else ""
        raise ValueError(f"labels must be one class number per image, (N,); found {y.shape}{one_hot}")
    if y.dtype.kind not in "iu":
        raise ValueError(f"labels must be whole numbers; found {y.dtype}")
    if len(y) and int(y.min()) < 0:
        raise ValueError(f"labels must not be negative; found {y.min()}")
    return y.astype(np.int64)


def _class_names(names: Array | None, y: npt.NDArray[np.int64]) -> tuple[str, ...]:
    highest = int(y.max())
    if names is None:
        return tuple(f"class {k}" for k in range(highest + 1))
    if names.ndim != 1 or len(names) <= highest:
        raise ValueError(f"classes must hold a name for each label up to {highest}; found {names.shape}")
    return tuple(str(name) for name in names)


def _check_values(images: Array, say: Say) -> None:
    """Of all images, not of the sample: a wrong scale is the file's."""
    if images.dtype == np.uint8:
        if images.size and images.max() <= 1:
            raise ValueError("its 8-bit images hold only 0 and 1, which is black on a scale of 255; multiply by 255, "
                             "or save them as floating-point numbers")
        return
    if images.dtype.kind != "f":
        raise ValueError(f"images must be 8-bit (uint8) or floating-point in [0, 1]; found {images.dtype}")
    if not images.size:
        return
    low, high = float(images.min()), float(images.max())
    if np.isnan(low) or np.isnan(high):
        raise ValueError("images contain NaN")
    if low < -ROUNDING or high > 1 + ROUNDING:
        raise ValueError(f"images must lie in [0, 1]; found {low:.7g} to {high:.7g}{_scale_advice(low, high)}")
    outside = int(((images < 0) | (images > 1)).reshape(len(images), -1).any(1).sum()) if low < 0 or high > 1 else 0
    if outside:
        say(f"{outside:,} of the {len(images):,} images lie outside [0, 1] by rounding, at most 1e-6, as a "
            f"normalization that was undone leaves them; they are clamped to it.")


def _scale_advice(low: float, high: float) -> str:
    if low >= -SLIGHTLY and high <= 1 + SLIGHTLY:
        return ". That is the right scale, left a little by rounding or interpolation: save numpy.clip(images, 0, 1)"
    if low >= -SLIGHTLY and 40 < high <= 255.5:
        return ". They are probably on the scale of 255: divide by 255, or save them as uint8"
    if low >= -SLIGHTLY and high > 255.5:
        return ". They probably have more than 8 bits: divide by the end of their scale, such as 65535"
    if low >= 0:
        return ". Divide by the end of their scale"
    if low >= -1 - SLIGHTLY and high <= 1 + SLIGHTLY:
        return (". They are probably on a scale from −1 to 1: save (images + 1) / 2, and say --mean half, so that the "
                "model gets what it was trained on")
    return (". They are probably normalized: save them before that, and give the normalization as mean and std "
            "(--mean, --std), so that it happens inside the model")


def _channels(count: int) -> str:
    return "1 channel" if count == 1 else f"{count} channels"


def _pixels(images: Array) -> Tensor:
    x = torch.from_numpy(np.ascontiguousarray(images, dtype=np.float32))
    return x.div_(255) if images.dtype == np.uint8 else x.clamp(0, 1)  # what rounding has left outside
