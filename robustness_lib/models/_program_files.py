"""Whole programs from a file: what torch.jit.save and torch.export.save write."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import nn

from robustness_lib.file_kinds import file_kind, words_on

__all__ = ["PROGRAMS", "read_program"]

PROGRAMS = ("script", "exported")  # kinds of files


def read_program(path: Path, device: str | torch.device) -> nn.Module:
    """The program on the device. Raises FileNotFoundError, and ValueError for a file without one."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path} to take a model from")
    kind = file_kind(path)
    if kind is not None and kind.name not in (*PROGRAMS, "torch", "pickle", "safetensors"):
        raise ValueError(f"{path} is no program of torch.jit or torch.export, but {words_on(kind)}")
    if kind is None or kind.name not in PROGRAMS:
        raise ValueError(f"{path} holds no program of torch.jit or torch.export. If it holds weights, name the network "
                         f"as the model and this file as its weights: --model my_models.py:make --weights {path}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on how the file was written, which its reader cannot change
            if kind.name == "exported":
                return torch.export.load(path).module()
            return torch.jit.load(path, map_location=device)  # type: ignore[no-any-return, no-untyped-call]
    except Exception as error:  # files that are cut, or from another version, raise many kinds
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{path} is {kind.words}, but cannot be read ({reason})") from error
