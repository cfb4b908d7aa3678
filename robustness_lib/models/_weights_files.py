"""A file of weights, by its content and not by its name: its tensors, or a word on what it is instead."""

from __future__ import annotations

import argparse
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from robustness_lib.file_kinds import FileKind, file_kind, words_on
from robustness_lib.inputs import Say
from robustness_lib.models._program_files import PROGRAMS

__all__ = ["State", "read_state_dict"]

State = dict[str, Tensor]

_TENSORS_ALONE = 'save the tensors alone, torch.save(model.state_dict(), "weights.pt"), and name that file'
_REBUILD = f"take the weights into a PyTorch model, and {_TENSORS_ALONE}"
_ADVICE = {  # on files of another kind
    "hdf5": _REBUILD, "keras": _REBUILD, "tflite": _REBUILD, "gguf": _TENSORS_ALONE,
    "npy": f"put the arrays into a PyTorch model as tensors, and {_TENSORS_ALONE}",
    "npz": f"put them into a PyTorch model as tensors, and {_TENSORS_ALONE}",
    "onnx": f"build the network in PyTorch (the package onnx2torch reads such files), and {_TENSORS_ALONE}",
    "json": "name the file that holds the tensors",
}


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
    kind = file_kind(path)
    if kind is not None and kind.name == "safetensors":
        content: Any = _read_safetensors(path)
        if path.suffix != ".safetensors":
            say(f"{path.name} is a safetensors file whatever its name says, and is read as one.")
    else:
        if (other := _something_else(path, kind)) is not None:
            raise ValueError(f"{path} is {other}")
        content = _read_pickle(path, kind)
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


def _something_else(path: Path, kind: FileKind | None) -> str | None:
    """In words, what a file is that PyTorch does not write, and what to do about it; None where it may be one of
    PyTorch's."""
    if kind is None or kind.name in ("torch", "pickle"):
        return None
    if kind.name in PROGRAMS:
        return f"{kind.words}, a whole program and not weights alone: name it as the model, --model {path}"
    words = words_on(kind, _ADVICE)
    return f"damaged or is no file of weights: it is {words}" if kind.name == "text" else words


def _read_safetensors(path: Path) -> State:
    try:
        return safetensors.torch.load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is a safetensors file that is damaged ({error}). Was a download cut short? Fetch "
                         f"it again") from None


def _plain_values() -> list[Any]:
    """What training scripts keep beside the tensors and what runs nothing when it is opened: the arguments of the
    command line, numbers of numpy (the best accuracy)."""
    numbers = (np.float64(0), np.float32(0), np.int64(0), np.int32(0), np.bool_(False))
    scalar = numbers[0].__reduce__()[0]
    kinds = [type(number.dtype) for number in numbers]
    return [argparse.Namespace, np.dtype, *kinds, (scalar, "numpy.core.multiarray.scalar"),
            (scalar, "numpy._core.multiarray.scalar")]


def _read_pickle(path: Path, kind: FileKind | None) -> Any:
    # By a file that is open: PyTorch would take its name's word for what it is.
    with warnings.catch_warnings(), torch.serialization.safe_globals(_plain_values()), path.open("rb") as file:
        warnings.simplefilter("ignore")  # on how the file was written, which its reader cannot change
        try:
            return torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # damaged pickles and archives raise many kinds
            text = str(error)
    wanted = re.search(r"GLOBAL (\S+)", text)
    if wanted or ("Unsupported oper" in text and kind is not None and kind.name == "pickle"):
        whole = " (a whole model was saved, and not its weights)" if wanted and "torch.nn." in wanted[1] else ""
        more = f"it asks for {wanted[1]}{whole}" if wanted else "its pickle asks for more than tensors"
        raise ValueError(
            f"{path} holds more than weights ({more}), and opening it could run code that its writer chose, so it is "
            f"not opened. Where you trust the file and have the code that wrote it, {_TENSORS_ALONE}")
    if kind is None:
        raise ValueError(f"{path} is damaged or is no file of weights: PyTorch's files do not begin as it does")
    lines = [line for line in text.splitlines() if line and "weights_only" not in line and "Weights only" not in line]
    raise ValueError(f"{path} is damaged or is no file of weights ({lines[-1] if lines else 'nothing could be read'})")
