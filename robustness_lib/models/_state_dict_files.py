"""Weights from a file, of whoever wrote it: tensors only, never code; and into the model, or a word on what differs."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from robustness_lib.inputs import Say
from robustness_lib.model_kinds import check_usable
from robustness_lib.models._program_files import program_kind

__all__ = ["State", "load_into", "outputs_held", "read_state_dict"]

State = dict[str, Tensor]

# Where training scripts put the weights within a checkpoint, the more telling names first; RobustBench's files have
# them plain, or under "state_dict", and two of them under "last".
_NESTS = ("state_dict", "model_state_dict", "model", "net", "last", "module", "weights", "params", "model_ema",
          "state_dict_ema", "ema")
_WRAPPERS = ("module.", "_orig_mod.")  # DataParallel and torch.compile: the weights are the same ones
_PREFIXES = ("model.", "net.", "backbone.")
# What a model's constructor sets and a file may lack: constants of the normalization, the counter of batch norm.
_CONSTANTS = ("mean", "std", "mu", "sigma", "num_batches_tracked")


def read_state_dict(path: Path, say: Say) -> State:
    """The tensors of a file, with the wrappers' prefixes taken off their names.

    Raises FileNotFoundError, and ValueError for a file that is damaged, holds no weights, or would have to run code.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path} to read weights from")
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    state = _unpack(content, path, say)
    for wrapper in _WRAPPERS:
        if all(key.startswith(wrapper) for key in state):
            state = {key.removeprefix(wrapper): value for key, value in state.items()}
    if any(value.dtype in (torch.float16, torch.bfloat16) for value in state.values()):
        say(f"{path.name} holds half precision; the model computes in float32.")
    return state


def load_into(model: nn.Module, state: State, path: Path, say: Say) -> None:
    """Load `state` into `model`: as it is, else with a leading "model." or "net." put on or taken off every name, where
    that makes everything match. Raises ValueError that names up to five tensors that do not fit."""
    if any(is_lazy(value) for value in model.state_dict().values()):
        check_usable(model)  # says what to do before
    expected = _shapes(model.state_dict())
    constants = {name for name, _ in model.named_buffers() if name.rsplit(".", 1)[-1] in _CONSTANTS}
    best: tuple[State, list[str]] | None = None
    for renamed in _renamings(state):
        wrong = _differences(expected, _shapes(renamed), constants)
        if best is None or len(wrong) < len(best[1]):
            best = renamed, wrong
    assert best is not None
    renamed, wrong = best
    kept = sorted(constants - renamed.keys() - {n for n in constants if n.endswith("num_batches_tracked")})
    try:
        # A model may know older names of its own tensors: its word counts, before any refusal.
        # On the meta device there is nothing that could be written into.
        model.load_state_dict(renamed, strict=bool(wrong), assign=any(p.is_meta for p in model.parameters()))
    except (RuntimeError, AttributeError) as error:
        raise ValueError(_refusal(path, wrong or [str(error).splitlines()[0]], renamed)) from None
    if kept and not wrong:
        say(f"{path.name} has no {', '.join(kept)}: the model keeps what its constructor set.")


def outputs_held(model: nn.Module, state: State) -> int | None:
    """For how many classes the weights were made, where that alone keeps them from fitting: every tensor of another
    shape differs in its first length, from the model's one number of classes to one other number. Else None."""
    expected, found = _shapes(model.state_dict()), _shapes(state)
    other = [name for name in expected if name in found and found[name] != expected[name]]
    if not other or any(not expected[n] or not found[n] or expected[n][1:] != found[n][1:] for n in other):
        return None
    lengths = {(expected[n][0], found[n][0]) for n in other}
    return lengths.pop()[1] if len(lengths) == 1 else None


def _read_safetensors(path: Path) -> State:
    try:
        return safetensors.torch.load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is damaged or is no safetensors file ({error})") from None


def _read_pickle(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on how the file was written, which its reader cannot change
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged pickles and archives raise many kinds
        text = str(error)
    wanted = re.search(r"GLOBAL (\S+)", text)
    if (kind := program_kind(path)) is not None:
        raise ValueError(f"{path} is {kind}, a whole program and not weights alone: name it as the model, "
                         f"--model {path}")
    if wanted or ("Unsupported oper" in text and _begins_as_pickle(path)):
        more = f"it asks for {wanted[1]}" if wanted else "its pickle asks for more than tensors"
        raise ValueError(
            f"{path} holds more than weights ({more}), and opening it could run code that its writer chose, so it is "
            f"not opened. Where you trust the file and have the code that wrote it, save the tensors alone: "
            f'torch.save(model.state_dict(), "weights.pt"), and name that file'
        )
    reason = text.splitlines()[0] if text else "nothing could be read"
    raise ValueError(f"{path} is damaged or is no file of weights ({reason})")


def _begins_as_pickle(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(1) == b"\x80"


def _unpack(content: Any, path: Path, say: Say) -> State:
    if _is_state(content):
        return dict(content)
    found = _nested(content) if isinstance(content, Mapping) else {}
    if not found:
        held = ", ".join(map(str, list(content)[:8])) if isinstance(content, Mapping) else type(content).__name__
        raise ValueError(f"no weights found in {path}: it holds {held or 'nothing'}. A state_dict is expected, plain "
                         f'or under "state_dict" or "model"')
    name, state = next(iter(found.items()))
    if len(found) > 1:
        say(f"{path.name} holds weights under {', '.join(found)}; those under {name} are used.")
    return dict(state)


def _nested(content: Mapping[Any, Any]) -> dict[str, Mapping[str, Tensor]]:
    found: dict[str, Mapping[str, Tensor]] = {}
    for nest in _NESTS:
        inner = content.get(nest)
        if not isinstance(inner, Mapping):
            continue
        if _is_state(inner):
            found[nest] = inner
        else:  # RobustBench's {"last": {"state_dict": ...}}
            found |= {f"{nest}.{deeper}": inner[deeper] for deeper in _NESTS if _is_state(inner.get(deeper))}
    return found


def _is_state(content: Any) -> bool:
    return isinstance(content, Mapping) and bool(content) and all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items())


def _shapes(state: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in state.items() if isinstance(value, Tensor)}


def _renamings(state: State) -> Iterator[State]:
    yield state
    for prefix in _PREFIXES:
        if all(key.startswith(prefix) for key in state):
            yield {key.removeprefix(prefix): value for key, value in state.items()}
    for prefix in (*_PREFIXES, *_WRAPPERS):
        yield {prefix + key: value for key, value in state.items()}


def _differences(expected: dict[str, tuple[int, ...]], found: dict[str, tuple[int, ...]],
                 constants: set[str]) -> list[str]:
    other = [f"{name} is {found[name]}, not {expected[name]}" for name in expected
             if name in found and found[name] != expected[name]]
    missing = [f"{name} is missing" for name in expected if name not in found and name not in constants]
    return other + missing + [f"{name} is not the model's" for name in found if name not in expected]


def _refusal(path: Path, wrong: list[str], state: State) -> str:
    more = f", and {len(wrong) - 5} more" if len(wrong) > 5 else ""
    return (f"the weights in {path} do not fit the model: {'; '.join(wrong[:5])}{more}. The file holds {len(state)} "
            f"tensors; build the model that they were trained in (its size, its number of classes)")
