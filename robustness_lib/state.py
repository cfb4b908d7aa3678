"""Long work on disk, chunk by chunk, so that a killed run goes on where it was.

A folder: `header.json` says what is attacked, and one file holds each finished chunk. Every file is written whole or
not at all and never changed, so there is no moment at which a kill does harm: the next run asks for the same chunks
in the same order, and those that are there need no work.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import CodeType, FunctionType, MethodType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from robustness_lib.files import read_text, write_whole
from robustness_lib.model_kinds import check_usable

__all__ = ["AnotherRun", "Chunks", "Content", "fingerprint", "image_digests", "model_fingerprint",
           "structure_fingerprint"]

Content = dict[str, Any]


class AnotherRun(ValueError):
    """A folder holds the work of another run than the one that would go on with it."""


class Chunks:
    """header: what is attacked; a folder that was begun with another one is refused. answers: the model's logits on
    a few images (or None, for a model that answers at random): they catch what a fingerprint cannot see.

    Raises AnotherRun, naming what differs, and ValueError for a folder that holds something else.
    """

    def __init__(self, folder: Path | None, header: dict[str, str], answers: Tensor | None) -> None:
        self.folder = folder
        if folder is None:
            return
        if folder.is_file():
            raise ValueError(f"{folder} is a file; the state of a run is a folder")
        mine = header | {"answers": None if answers is None else answers.double().tolist()}
        path = folder / "header.json"
        if not path.exists():
            if folder.exists() and any(folder.iterdir()) and not all(f.suffix == ".part" for f in folder.iterdir()):
                raise ValueError(f"{folder} holds other files and no state of a run; name an empty or new folder")
            write_whole(path, (json.dumps(mine, indent=1) + "\n").encode())
            return
        for half in folder.glob("*.part"):  # left behind by a kill
            half.unlink(missing_ok=True)
        theirs = _read_header(path)
        different = [key for key in header if theirs.get(key) != header[key]]
        if not different and not _agree(theirs.get("answers"), mine["answers"]):
            different = ["model (it answers differently)"]
        if different:
            raise AnotherRun(
                f"the state in {folder} belongs to another run: not the same {', '.join(different)}. Go on with what "
                f"it was begun with, name another folder, or delete this one to begin again."
            )

    def read(self, name: str) -> Content | None:
        """The chunk of this name, or None where it is not there. Raises ValueError for a damaged one."""
        path = None if self.folder is None else self.folder / f"{name}.npz"
        return _read_chunk(path) if path is not None and path.exists() else None

    def write(self, name: str, content: Content) -> None:
        """Keep a finished chunk: tensors on the CPU, and what JSON can hold."""
        if self.folder is None:
            return
        file = io.BytesIO()
        arrays = {key: value.numpy() for key, value in content.items() if isinstance(value, Tensor)}
        rest = {key: value for key, value in content.items() if not isinstance(value, Tensor)}
        np.savez(file, allow_pickle=False, rest=np.array(json.dumps(rest)), **arrays)
        write_whole(self.folder / f"{name}.npz", file.getvalue())


def fingerprint(*parts: Tensor | str) -> str:
    """sha256 over tensors (type, shape and values) and text."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, Tensor):
            value = part.detach().cpu().contiguous()
            digest.update(f"{value.dtype}{tuple(value.shape)}".encode())
            digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())  # numpy has no bfloat16
        else:
            digest.update(part.encode())
    return digest.hexdigest()


def image_digests(x: Tensor, y: Tensor) -> list[str]:
    """One for each image of x (N, ...) with its label in y (N,): the same in whatever run, order or data set they
    come."""
    pixels = x.detach().cpu().float().contiguous().flatten(1).numpy()
    return [hashlib.blake2b(row.tobytes() + b"%d" % label, digest_size=8).hexdigest()
            for row, label in zip(pixels, y.tolist(), strict=True)]


def model_fingerprint(model: Callable[..., Tensor]) -> str:
    """Of what decides a model's answers, as far as it can be seen: parameters, buffers and plain settings of every
    submodule, the structure as printed, the code of each forward pass or function, and what a function has closed over.
    Not the functions that these call. `Chunks` compares answers too."""
    return fingerprint(*_parts(model))


def structure_fingerprint(model: nn.Module) -> str:
    """The same without what a state dict holds, which training moves: what a net computes, whatever its weights."""
    held = model.state_dict().keys()
    return fingerprint(*_module_parts(model, {n: value for n, value in model.named_buffers() if n not in held}, ()))


def _parts(thing: object, inside: tuple[int, ...] = ()) -> Iterator[Tensor | str]:
    inside = (*inside, id(thing))  # a function may close over itself
    if isinstance(thing, Tensor):
        yield thing
    elif isinstance(thing, nn.Module):
        yield from _module_parts(thing, {**dict(thing.named_parameters()), **dict(thing.named_buffers())}, inside)
    elif isinstance(thing, partial):
        for part in (thing.func, *thing.args, *thing.keywords.values()):
            yield from _parts(part, inside)
    elif isinstance(thing, MethodType):
        yield from _parts(thing.__func__, inside)
        yield from _parts(thing.__self__, inside)
    elif isinstance(thing, FunctionType):
        yield thing.__qualname__
        yield from _parts(thing.__code__)
        for cell in thing.__closure__ or ():
            if id(cell.cell_contents) not in inside:
                yield from _parts(cell.cell_contents, inside)
    elif isinstance(thing, torch.jit.ScriptFunction):
        yield from _script_parts(thing)
    elif isinstance(thing, CodeType):
        yield thing.co_code.hex() + repr(thing.co_names)
        for constant in thing.co_consts:
            yield from _parts(constant)
    else:
        plain = isinstance(thing, (bool, int, float, str, tuple))
        yield repr(thing) if plain else type(thing).__qualname__


def _module_parts(model: nn.Module, values: dict[str, Tensor], inside: tuple[int, ...]) -> Iterator[Tensor | str]:
    check_usable(model)
    yield re.sub(r"0x[0-9a-f]+", "", repr(model))  # no addresses
    for name, value in values.items():
        yield from (name, value)
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            yield from _script_parts(module)
            continue
        yield from _parts(type(module).forward, inside)
        settings = {key: value for key, value in vars(module).items() if not key.startswith("_")}
        yield from (f"{name}.{key}={value!r}" for key, value in settings.items()
                    if key != "training" and isinstance(value, (bool, int, float, str, tuple)))
        for key, value in settings.items():  # functions that a module was given, alone or in a list
            for given in value if isinstance(value, (list, tuple)) else (value,):
                known = isinstance(given, (FunctionType, MethodType, partial, torch.jit.ScriptFunction))
                if known and id(given) not in inside:
                    yield key
                    yield from _parts(given, inside)


def _script_parts(thing: Any) -> Iterator[Tensor | str]:
    """A program of TorchScript: its code, the tensors that freezing put there, and what it reads of its attributes."""
    code, constants = getattr(thing, "code_with_constants", (thing.code, None))  # a function has the code alone
    yield re.sub(r"___torch_mangle_\d+\.", "", code)  # numbers that follow from what else was compiled
    for name, value in constants.const_mapping.items() if constants else ():
        yield from (name, value if isinstance(value, Tensor) else repr(value))
    for name in sorted(set(re.findall(r"\bself\.(\w+)", code)) - {"training"}):
        value = getattr(thing, name, None)
        if isinstance(value, (Tensor, bool, int, float, str, tuple, list)):
            yield from (name, value if isinstance(value, Tensor) else repr(value))


def _agree(theirs: Any, mine: Any) -> bool:
    if theirs is None or mine is None:
        return theirs is mine
    a, b = np.array(theirs), np.array(mine)
    # Other kernels on another machine round differently; another model is further away than that.
    return a.shape == b.shape and bool(np.allclose(a, b, rtol=1e-3, atol=1e-3 * max(1e-12, float(np.abs(b).max()))))


def _read_header(path: Path) -> dict[str, Any]:
    try:
        header = json.loads(read_text(path))
        if not isinstance(header, dict):
            raise ValueError("not a mapping")
    except (ValueError, OSError) as error:
        raise ValueError(f"{path} cannot be read as the state of a run ({error}); delete the folder to begin "
                         f"again") from error
    return header


def _read_chunk(path: Path) -> Content:
    try:
        with np.load(path, allow_pickle=False) as file:
            content: Content = json.loads(str(file["rest"]))
            return content | {key: torch.from_numpy(file[key]) for key in file.files if key != "rest"}
    except Exception as error:  # a damaged zip raises many kinds
        raise ValueError(f"{path} is damaged ({error}); delete it, and its work is done again") from error
