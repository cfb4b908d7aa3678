"""A file of weights, by its content and not by its name: its tensors, or a word on what it is instead."""

from __future__ import annotations

import argparse
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from robustness_lib.inputs import Say
from robustness_lib.models._program_files import program_kind

__all__ = ["State", "read_state_dict"]

State = dict[str, Tensor]

_AGAIN = "fetch it again"
_TENSORS_ALONE = 'save the tensors alone, torch.save(model.state_dict(), "weights.pt"), and name that file'
_HEAD = 4096  # bytes that are looked at
# By how they begin: what the file is, and what to do. PyTorch's own files begin as zip archives or pickles do.
_BEGINNINGS = (
    (b"version https://git-lfs", "a Git LFS pointer, which stands for the weights and does not hold them: git lfs "
                                 "pull, in the repository that it came from, puts the file in its place"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras writes them: take the weights into a PyTorch model, and "
                           f"{_TENSORS_ALONE}"),
    (b"\x93NUMPY", f"a NumPy array: put the arrays into a PyTorch model as tensors, and {_TENSORS_ALONE}"),
    (b"GGUF", f"a GGUF file, as llama.cpp reads them: {_TENSORS_ALONE}"),
    (b"\x1f\x8b", "compressed by gzip: unpack it, and name the file that was in it"),
    (b"BZh", "compressed by bzip2: unpack it, and name the file that was in it"),
    (b"\xfd7zXZ", "compressed by xz: unpack it, and name the file that was in it"),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd: unpack it, and name the file that was in it"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive: unpack it, and name the file that was in it"),
    (b"Rar!", "a RAR archive: unpack it, and name the file that was in it"),
    (b"%PDF", "a PDF document and no weights"),
    (b"\x89PNG", "an image and no weights"),
    (b"\xff\xd8\xff", "an image and no weights"),
)
_TEXTS = (  # the same for text, without white space before it and in small letters
    (("<!doctype html", "<html", "<head", "<body"), "a saved web page and not what was to be downloaded (a page of "
                                                    f"terms, of a login or of an error): {_AGAIN}"),
    (("<?xml", "<error"), f"an XML document and no weights, perhaps a server's word on an error: {_AGAIN}"),
    (("{", "["), "JSON text and no weights, perhaps a server's word on an error or the index of a model in several "
                 "files: name the file that holds the tensors"),
    (("/annex/objects", "../.git/annex", ".git/annex"), "a git-annex pointer, which stands for the weights and does "
                                                        "not hold them: git annex get puts the file in its place"),
)


def read_state_dict(path: Path, say: Say) -> State:
    """All tensors of a file, each by its name with those of the tables that it lies in before it:
    "state_dict.conv.weight".

    Raises FileNotFoundError, and ValueError for a file that is damaged, is something else (which it names), holds no
    tensors, or would have to run code.
    """
    if path.is_dir():
        held = sorted(one.name for one in path.iterdir())[:8]
        raise ValueError(f"{path} is a folder, and a file of weights is needed; in it are "
                         f"{', '.join(held) or 'no files'}")
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path} to read weights from")
    if _is_safetensors(path):
        content: Any = _read_safetensors(path)
        if path.suffix != ".safetensors":
            say(f"{path.name} is a safetensors file whatever its name says, and is read as one.")
    else:
        if (other := _something_else(path)) is not None:
            raise ValueError(f"{path} is {other}")
        content = _read_pickle(path)
        if path.suffix == ".safetensors":
            say(f"{path.name} was written by torch.save whatever its name says, and is read as such.")
    state = _flat(content)
    if not state:
        held = list(map(str, content))[:8] if isinstance(content, Mapping) else [type(content).__name__]
        raise ValueError(f"no weights found in {path}: it holds {', '.join(held) or 'nothing'}. A state_dict is "
                         f'expected, plain or under "state_dict" or "model"')
    return state


def _flat(content: Any, before: str = "") -> State:
    if not isinstance(content, Mapping):
        return {}
    state: State = {}
    for key, value in content.items():
        if isinstance(key, str):  # optimizers number what they hold
            state |= {before + key: value} if isinstance(value, Tensor) else _flat(value, f"{before}{key}.")
    return state


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_HEAD)


def _is_safetensors(path: Path) -> bool:
    """It begins with the length of a JSON table, and the table."""
    head = _head(path)
    return len(head) > 8 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 2**32


def _something_else(path: Path) -> str | None:
    """What a file is that PyTorch does not write, and what to do about it; None where it may be one of PyTorch's."""
    head = _head(path)
    if not head.strip(b"\0"):
        return f"damaged: it {'holds nothing but zeros' if head else 'is empty'}. Was a download cut short? {_AGAIN}"
    if head.startswith(b"PK"):
        return _zip_of_something_else(path)
    for begins, words in _BEGINNINGS:
        if head.startswith(begins):
            return words
    if head[4:8] == b"TFL3":
        return f"a TensorFlow Lite model: take the weights into a PyTorch model, and {_TENSORS_ALONE}"
    if path.suffix == ".onnx" or (head[:1] == b"\x08" and head[2:3] in (b"\x12", b"\x1a", b"\x3a")):
        return (f"an ONNX model, a program and not weights alone: build the network in PyTorch (the package onnx2torch "
                f"reads such files), and {_TENSORS_ALONE}")
    if head[257:262] == b"ustar":
        return "a tar archive: unpack it, and name the file of weights that was in it"
    return _text(head)


def _text(head: bytes) -> str | None:
    wide = head.startswith((b"\xff\xfe", b"\xfe\xff"))
    text = head.decode("utf-16" if wide else "utf-8", errors="ignore").lstrip("\ufeff \t\r\n").lower()
    if head.startswith(b"\x80") or not all(sign.isprintable() or sign in "\r\n\t" for sign in text[:200]):
        return None
    for beginnings, words in _TEXTS:
        if text.startswith(beginnings):
            return words
    return f"damaged or is no file of weights: it is text that begins {text[:40].splitlines()[0]!r}" if text else None


def _zip_of_something_else(path: Path) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError):
        return f"damaged: it begins as an archive and its end is missing. Was a download cut short? {_AGAIN}"
    last = {name.rpartition("/")[2] for name in names}
    if (kind := program_kind(path)) is not None:
        return f"{kind}, a whole program and not weights alone: name it as the model, --model {path}"
    if "data.pkl" in last:
        return None
    if names and all(name.endswith(".npy") for name in names):
        return f"an .npz file of NumPy arrays: put them into a PyTorch model as tensors, and {_TENSORS_ALONE}"
    if "model.weights.h5" in last:
        return f"a Keras model: take the weights into a PyTorch model, and {_TENSORS_ALONE}"
    held = f"it holds {', '.join(names[:5])}" if names else "it is empty"
    return f"a zip archive of something else ({held}): unpack it, and name the file of weights that was in it"


def _read_safetensors(path: Path) -> State:
    try:
        return safetensors.torch.load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is a safetensors file that is damaged ({error}). Was a download cut short? "
                         f"{_AGAIN}") from None


def _plain_values() -> list[Any]:
    """What training scripts keep beside the tensors and what runs nothing when it is opened: the arguments of the
    command line, numbers of numpy (the best accuracy)."""
    numbers = (np.float64(0), np.float32(0), np.int64(0), np.int32(0), np.bool_(False))
    scalar = numbers[0].__reduce__()[0]
    kinds = [type(number.dtype) for number in numbers]
    return [argparse.Namespace, np.dtype, *kinds, (scalar, "numpy.core.multiarray.scalar"),
            (scalar, "numpy._core.multiarray.scalar")]


def _read_pickle(path: Path) -> Any:
    try:
        # By a file that is open: PyTorch would take its name's word for what it is.
        with warnings.catch_warnings(), torch.serialization.safe_globals(_plain_values()), path.open("rb") as file:
            warnings.simplefilter("ignore")  # on how the file was written, which its reader cannot change
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged pickles and archives raise many kinds
        text = str(error)
    wanted = re.search(r"GLOBAL (\S+)", text)
    begins = _head(path)[:1]
    if wanted or ("Unsupported oper" in text and begins == b"\x80"):
        whole = " (a whole model was saved, and not its weights)" if wanted and "torch.nn." in wanted[1] else ""
        more = f"it asks for {wanted[1]}{whole}" if wanted else "its pickle asks for more than tensors"
        raise ValueError(
            f"{path} holds more than weights ({more}), and opening it could run code that its writer chose, so it is "
            f"not opened. Where you trust the file and have the code that wrote it, {_TENSORS_ALONE}")
    if begins not in (b"\x80", b"P"):
        raise ValueError(f"{path} is damaged or is no file of weights: PyTorch's files do not begin as it does")
    lines = [line for line in text.splitlines() if line and "weights_only" not in line and "Weights only" not in line]
    raise ValueError(f"{path} is damaged or is no file of weights ({lines[-1] if lines else 'nothing could be read'})")
