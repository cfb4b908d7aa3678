"""Whole programs from a file: what torch.jit.save and torch.export.save write."""

from __future__ import annotations

import warnings
import zipfile
from pathlib import Path

import torch
from torch import nn

__all__ = ["program_kind", "read_program"]

_SCRIPT, _EXPORTED = "a TorchScript archive", "an exported program"


def program_kind(path: Path) -> str | None:
    """What kind of program the file holds, in words; None for none."""
    if not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as archive:
        names = [f"/{name}" for name in archive.namelist()]
    if any("/code/" in name for name in names) and any(name.endswith("/constants.pkl") for name in names):
        return _SCRIPT
    return _EXPORTED if any(name.endswith(("/models/model.json", "/serialized_exported_program.json"))
                            for name in names) else None


def read_program(path: Path, device: str | torch.device) -> nn.Module:
    """The program on the device. Raises FileNotFoundError, and ValueError for a file without one."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path} to take a model from")
    kind = program_kind(path)
    if kind is None:
        raise ValueError(f"{path} holds no program of torch.jit or torch.export. If it holds weights, name the network "
                         f"as the model and this file as its weights: --model my_models.py:make --weights {path}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on how the file was written, which its reader cannot change
            if kind == _EXPORTED:
                return torch.export.load(path).module()
            return torch.jit.load(path, map_location=device)  # type: ignore[no-any-return, no-untyped-call]
    except Exception as error:  # files that are cut, or from another version, raise many kinds
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{path} is {kind}, but cannot be read ({reason})") from error
