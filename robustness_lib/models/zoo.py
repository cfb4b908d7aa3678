"""Shipped weights, by name: a safetensors file and a card each. Never a pickle: loading a model must not run code."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn

from robustness_lib.files import write_whole
from robustness_lib.models.architectures import build

__all__ = ["card", "list_pretrained", "load_pretrained", "save_pretrained"]

_FOLDER = Path(__file__).parent / "weights"


def list_pretrained() -> list[str]:
    """Names of the shipped models, sorted."""
    return sorted(path.stem for path in _FOLDER.glob("*.json"))


def card(name: str) -> dict[str, Any]:
    """What is known of a shipped model: architecture, data, recipe, seed, and its accuracy, clean and attacked,
    each with n and a 95 % interval, measured on the file as shipped. Raises ValueError for an unknown name."""
    path = _FOLDER / f"{name}.json"
    if name not in list_pretrained():
        raise ValueError(f"no shipped model is called {name!r}; there are {', '.join(list_pretrained())}")
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def load_pretrained(name: str) -> nn.Module:
    """A shipped model in eval mode, float32, on the CPU: images (N, C, H, W) in [0, 1] to logits (N, K).

    Raises ValueError if the name is unknown, the file is not the one that the card describes, or its tensors do not
    fit the architecture.
    """
    about = card(name)
    path = _FOLDER / f"{name}.safetensors"
    if not path.is_file():
        raise ValueError(f"the weights of {name!r} are missing ({path.name}): install the package again")
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != about["file"]["sha256"]:
        raise ValueError(f"{path.name} is not the file of its card (checksum differs): install the package again")
    model = build(about["architecture"])
    state = safetensors.torch.load(content)
    expected = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    found = {key: tuple(value.shape) for key, value in state.items()}
    if found != expected:
        wrong = sorted(key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key))
        builder = about["architecture"]["builder"]
        raise ValueError(f"the tensors in {path.name} do not fit {builder}: {', '.join(wrong)}")
    model.load_state_dict({key: value.to(_compute_dtype(value)) for key, value in state.items()})
    return model.eval()


def _compute_dtype(value: torch.Tensor) -> torch.dtype:
    """Files may hold half precision; models always compute in float32."""
    return torch.float32 if value.is_floating_point() else value.dtype


def save_pretrained(name: str, model: nn.Module, about: dict[str, Any], *, dtype: torch.dtype = torch.float32,
                    folder: Path = _FOLDER) -> None:
    """Write NAME.safetensors and NAME.json (both or neither, each in one stroke). `about` needs "architecture":
    {"builder": one of the models of this package, "arguments": {...}}; the checksum is added here.

    Raises ValueError if the architecture does not rebuild, or the file would exceed 2 MB.
    """
    state = {k: v.detach().to("cpu", dtype if v.is_floating_point() else v.dtype).contiguous()
             for k, v in model.state_dict().items()}
    build(about["architecture"]).load_state_dict({k: v.to(_compute_dtype(v)) for k, v in state.items()})
    content = safetensors.torch.save(state)
    if len(content) > 2_000_000:
        raise ValueError(f"{name}.safetensors would be {len(content) / 1e6:.2f} MB; a shipped file has 2 MB at most")
    about = about | {"file": {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}}
    write_whole(folder / f"{name}.safetensors", content)
    write_whole(folder / f"{name}.json", (json.dumps(about, indent=2, ensure_ascii=False) + "\n").encode())
