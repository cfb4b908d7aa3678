"""Where data sets lie on disk, and how they are read and written: one `.npz` for each set and part."""

from __future__ import annotations

import io
import os
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import platformdirs

from robustness_lib.file_kinds import said_instead
from robustness_lib.files import write_whole

Arrays = dict[str, npt.NDArray[Any]]


def cache_folder() -> Path:
    """Where drawn and downloaded sets are kept: $ROBUSTNESS_CACHE, or robustness_lib in the user's cache."""
    if named := os.environ.get("ROBUSTNESS_CACHE"):
        return Path(named).expanduser()
    return platformdirs.user_cache_path("robustness_lib", appauthor=False)


def data_folders() -> list[Path]:
    """Where to look, first to last: $ROBUSTNESS_DATA where it is set (only ever read), then the cache."""
    named = os.environ.get("ROBUSTNESS_DATA")
    return ([Path(named).expanduser()] if named else []) + [cache_folder()]


def write_npz(path: Path, arrays: Arrays) -> None:
    """Write whole or not at all."""
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, **arrays)
    write_whole(path, content.getvalue())


def read_npz(path: Path, keys: Sequence[str]) -> Arrays:
    """The arrays `keys` of a file: `images` uint8 (N, C, H, W), and int64 (N,) for every other key.

    Raises ValueError, which names the file, where it is cut short, lacks a key or holds something else.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            missing = sorted(set(keys) - set(file.files))
            if missing:
                held = ", ".join(file.files) or "nothing"
                raise ValueError(f"it has no {', '.join(missing)}; it holds {held}")
            arrays = {key: file[key] for key in keys}
        for key, array in arrays.items():
            dtype, ndim = (np.uint8, 4) if key == "images" else (np.int64, 1)
            if array.dtype != dtype or array.ndim != ndim or len(array) != len(arrays[keys[0]]):
                raise ValueError(f"{key} must be {np.dtype(dtype)} with {ndim} axes, one row for each image; "
                                 f"found {array.dtype} of shape {array.shape}")
    except (ValueError, OSError, EOFError, KeyError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} is damaged or is not a data set: {said_instead(path, 'npz', error)}. "
                         f"Delete it, and it will be made again.") from error
    return arrays
