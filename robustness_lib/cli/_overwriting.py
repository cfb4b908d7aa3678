"""What a command has written, and its work in progress, are overwritten only by the same again."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import typer

from robustness_lib.cli._options import Subject
from robustness_lib.cli._provenance import OF_DATA, writable
from robustness_lib.reports.compare import AS_BUILT
from robustness_lib.state import AnotherRun, image_digests

__all__ = ["Made", "refuse_another", "remove", "run_or_begin_anew"]

Result = TypeVar("Result")


class Made(NamedTuple):
    """Of a file that is there: what it was made from, its images' digests and names, and the model's fingerprint (where
    the first does not hold it). besides: in what else it differs from what is to be written."""

    provenance: Mapping[str, str]
    digest: Sequence[str]
    drawn: Sequence[str]
    model: str | None
    besides: Sequence[str] = ()


def refuse_another(path: Path, read: Callable[[Path], Made], subject: Subject, made_from: Mapping[str, str]) -> None:
    """A report is overwritten only by one of the same model and data, of which other images may be drawn, and which
    differs in nothing besides. Raises ValueError. read: raises ValueError where the file is no such report."""
    if not path.exists():
        return
    instead = "Name another folder by --out, or overwrite it by --force."
    try:
        there = read(path)
    except (ValueError, OSError) as error:
        raise ValueError(f"{error}. It would be overwritten. {instead}") from error
    mine, theirs = image_digests(subject.x, subject.y), there.digest
    # A folder has no checksum: an image of the same name must be the same.
    before = dict(zip(there.drawn, theirs, strict=False))
    same = all(before.get(writable(name), digest) == digest for name, digest in zip(subject.drawn, mine, strict=True))
    named_alike = same and all(there.provenance.get(name) == made_from.get(name) for name in OF_DATA)
    built = there.provenance.get(AS_BUILT, there.model)
    different = [name for name, differs in (
        ("another model", built != made_from[AS_BUILT]),
        ("other data", not (named_alike or set(mine) <= set(theirs) or set(theirs) <= set(mine)))) if differs]
    if different := [*different, *there.besides]:
        called = there.provenance.get("model", "its name is not recorded")
        raise ValueError(f"{path} is the report of {' and '.join(different)} ({called}). {instead}")


def run_or_begin_anew(run: Callable[[], Result], forced: bool, state: Path, *besides: Path | None) -> Result:
    """What run returns. Where `state` holds the work of another run: that is dropped, with the folders besides, if it
    is forced; else AnotherRun is raised."""
    try:
        return run()
    except AnotherRun:
        if not forced:
            raise
    typer.echo(f"{state} holds the work of another run, and is begun anew (--force).", err=True)
    remove(state, *besides)
    return run()


def remove(*folders: Path | None) -> None:
    for folder in folders:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
