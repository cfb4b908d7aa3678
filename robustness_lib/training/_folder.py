"""A training on disk: everything that the next step depends on, written whole, so that a kill costs minutes."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from robustness_lib.files import read_text, write_whole

__all__ = ["Position", "TrainingFolder", "weights"]


@dataclass
class Position:
    """Where a training is: after `step` batches of `epoch` (from 0). loss: sum over these batches. stale: measured
    epochs since the best. best: weights of the best epoch so far."""

    epoch: int = 0
    step: int = 0
    loss: float = 0.0
    seconds: float = 0.0
    stale: int = 0
    best: dict[str, Tensor] | None = None
    finished: bool = False


class TrainingFolder:
    """header: what the training is made of, by name; a folder that was begun with another one is refused.
    None as path: nothing is written."""

    def __init__(self, path: Path | None, header: dict[str, str]) -> None:
        self.path = path
        if path is None:
            return
        if path.is_file():
            raise ValueError(f"{path} is a file; a training is kept in a folder")
        self._state, file = path / "state.pt", path / "header.json"
        if not file.exists():
            if path.exists() and any(other.suffix != ".part" for other in path.iterdir()):
                raise ValueError(f"{path} holds other files and no training; name an empty or a new folder")
            write_whole(file, (json.dumps(header, indent=1, ensure_ascii=False) + "\n").encode())
            return
        for half in path.glob("*.part"):  # left behind by a kill
            half.unlink(missing_ok=True)
        try:
            theirs = dict(json.loads(read_text(file)))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{file} cannot be read ({error}); delete the folder to begin again") from error
        different = [f"{key} (was {_short(theirs.get(key))}, is {_short(header.get(key))})"
                     for key in sorted(theirs.keys() | header.keys()) if theirs.get(key) != header.get(key)]
        if different:
            raise ValueError(f"the training in {path} is another one: not the same {'; '.join(different)}. Go on with "
                             f"what it was begun with, name another folder, or delete this one to begin again.")

    def read(self) -> dict[str, Any] | None:
        if self.path is None or not self._state.exists():
            return None
        try:
            state: dict[str, Any] = torch.load(self._state, map_location="cpu", weights_only=True)
        except Exception as error:  # a damaged zip raises many kinds
            raise ValueError(f"{self._state} is damaged ({type(error).__name__}); delete the folder to begin "
                             f"again") from error
        return state

    def write(self, state: dict[str, Any]) -> None:
        if self.path is not None:
            buffer = io.BytesIO()
            torch.save(state, buffer)
            write_whole(self._state, buffer.getvalue())

    def write_weights(self, name: str, values: dict[str, Tensor]) -> None:
        if self.path is not None:
            content = {key: value.cpu().contiguous() for key, value in values.items()}
            write_whole(self.path / f"{name}.safetensors", safetensors.torch.save(content))


def weights(model: nn.Module) -> dict[str, Tensor]:
    """A copy of parameters and buffers."""
    return {key: value.detach().clone() for key, value in model.state_dict().items()}


def _short(text: str | None) -> str:
    return "nothing" if text is None else text if len(text) <= 60 else f"{text[:57]}..."
