"""What a report says of where it comes from: model, weights, data, command and commit."""

from __future__ import annotations

import hashlib
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from robustness_lib.models import card
from robustness_lib.models.normalizations import NORMALIZATIONS

__all__ = ["OF_DATA", "provenance", "writable"]

# Alike in these: drawn from the same images.
OF_DATA = ("data", "data sha256", "split", "resize", "crop", "channels", "interpolation", "antialias")
_GIT_SECONDS = 10
_LIBRARIES = {"zoo", "torchvision", "timm"}


def provenance(model: str, data: str, options: Mapping[str, Any], command: Sequence[str] | None,
               decided: Sequence[str]) -> dict[str, str]:
    """As it was named, in order; paths as they were given, so that no folder is told that the caller did not tell.

    options: of the command line that say what the model and its data are, by name; None for those not given. command:
    the words after `robustness`. decided: what was decided for the caller, sentence by sentence."""
    file = _model_file(model)
    found = {"model": model} | _checksum("model file", file)
    if model.startswith("zoo:"):
        found["weights sha256"] = card(model.removeprefix("zoo:"))["file"]["sha256"]
    if (weights := options.get("weights")) is not None:
        found |= {"weights": weights} | _checksum("weights", Path(weights))
    found |= _given(_normalization(options), "mean", "std") | _given(options, "output", "classes")
    found |= {"data": data} | _checksum("data", Path(data)) | _given(options, *OF_DATA[2:])
    if decided:
        found["decided"] = " ".join(decided)
    if command is not None:
        found["command"] = shlex.join(["robustness", *command])
    return {name: writable(value) for name, value in (found | _commit(file)).items()}


def writable(text: str) -> str:
    """With ? for what is no text: a file's name may hold any bytes, and a report is UTF-8."""
    return text.encode("utf-8", "replace").decode()


def _given(options: Mapping[str, Any], *names: str) -> dict[str, str]:
    return {name: str(options[name]) for name in names if options.get(name) is not None}


def _normalization(options: Mapping[str, Any]) -> dict[str, str | None]:
    """Mean and std, in figures where they were given by name."""
    name = options.get("mean")
    if name not in NORMALIZATIONS:
        return {"mean": name, "std": options.get("std")}
    mean, std = (", ".join(f"{value:.6g}" for value in values) for values in NORMALIZATIONS[name])
    return {"mean": f"{mean} ({name})", "std": f"{std} ({name})"}


def _model_file(model: str) -> Path | None:
    """The file that a model's name leads to; of an import path, that of the module, which is loaded by now."""
    where, _, what = model.rpartition(":")
    if where in ("", "recipe"):  # "": the file of a whole program
        return Path(what)
    if where.endswith(".py"):
        return Path(where)
    named = None if where in _LIBRARIES else getattr(sys.modules.get(where), "__file__", None)
    return None if named is None else Path(named)


def _checksum(name: str, file: Path | None) -> dict[str, str]:
    try:
        if file is None or not file.is_file():
            return {}
        with file.open("rb") as content:
            return {f"{name} sha256": hashlib.file_digest(content, "sha256").hexdigest()}
    except OSError:
        return {}


def _commit(file: Path | None) -> dict[str, str]:
    """The commit that the model's file, or else the current folder, stands at; nothing where there is no git."""
    folder = Path() if file is None else file.resolve().parent
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return {}
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    words = "not known" if changed is None else \
        f"uncommitted, in {len(changed.splitlines())} files" if changed else "none"
    if file is not None and _git(folder, "ls-files", "--error-unmatch", "--", file.resolve().name) is None:
        words += "; the model's file is not in the commit"
    return {"git commit": commit, "git changes": words.replace(" 1 files", " 1 file")}


def _git(folder: Path, *words: str) -> str | None:
    """What git says; None where it fails or takes long. It writes nothing and starts no program of the repository's."""
    try:
        done = subprocess.run(["git", "-C", str(folder), "-c", "core.fsmonitor=false", *words], capture_output=True,
                              text=True, timeout=_GIT_SECONDS, stdin=subprocess.DEVNULL, errors="replace",
                              env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"})
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
