"""What releasing and grading share: which exercises a folder holds, their variants, and nbgrader set up over a folder.

A course is a temporary folder in nbgrader's layout: `source/NAME` is the teacher's version, `release/NAME` is what
nbgrader makes of it for students, and, for grading, `gradebook.db` remembers every cell that counts.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbgrader.converters import GenerateAssignment
from nbgrader.coursedir import CourseDirectory
from nbgrader.preprocessors import SaveCells
from traitlets.config import Config

HIDDEN = "hidden_checks.py"
NOT_TAKEN = ("__pycache__", ".ipynb_checkpoints", "*.pyc")
VARIANT = re.compile(r"^VARIANT = .*$", flags=re.MULTILINE)
REASON = re.compile(r"^[\w.]*(?:Error|Exception): (.+)$", flags=re.MULTILINE)


class Problem(Exception):
    """Something that the teacher has to know or to change, as a sentence."""


@dataclass(frozen=True)
class Exercise:
    """One exercise twice, cell by cell: with solutions and hidden checks, and as students got it."""

    name: str
    master: NotebookNode
    release: NotebookNode


def exercises(source: Path) -> list[str]:
    """The names of the exercises in a folder: each is a folder with a notebook of its own name."""
    if not source.is_dir():
        raise Problem(f"there is no folder {source}")
    names = sorted(path.name for path in source.iterdir() if (path / f"{path.name}.ipynb").is_file())
    if not names:
        raise Problem(f"{source} holds no exercise: none is called NAME/NAME.ipynb")
    return names


def cell_names(source: Path, name: str) -> set[str]:
    """nbgrader's names of the cells of an exercise."""
    notebook = nbformat.read(source / name / f"{name}.ipynb", as_version=4)
    return {cell.metadata.nbgrader["grade_id"] for cell in notebook.cells if "nbgrader" in cell.metadata}


def misnamed(source: Path) -> list[str]:
    """Folders that hold a notebook, but none of their own name: a line for each."""
    folders = sorted({path.parent for path in source.glob("*/*.ipynb")})
    return [f"{folder} is left out: it has no {folder.name}.ipynb" for folder in folders
            if not (folder / f"{folder.name}.ipynb").is_file()]  # fmt: skip


def content_hash(folder: Path) -> str:
    """SHA-256 over the files of a folder, names and contents."""
    digest = hashlib.sha256()
    ignored = shutil.ignore_patterns(*NOT_TAKEN)
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if path.is_file() and not ignored("", list(parts)):
            digest.update(f"{'/'.join(parts)} {path.stat().st_size}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def variant_cell(notebook: NotebookNode) -> NotebookNode | None:
    """The cell with the line `VARIANT = …`: the first code cell, if it has one."""
    first = next((cell for cell in notebook.cells if cell.cell_type == "code"), None)
    return first if first is not None and VARIANT.search(first.source) else None


def set_variant(path: Path, variant: int) -> None:
    """Write the variant into a notebook file. An exercise without variants stays as it is, with a word about it."""
    notebook = nbformat.read(path, as_version=4)
    cell = variant_cell(notebook)
    if cell is None:
        print(f"{path.stem} has no variants: its first code cell has no line `VARIANT = 0`", file=sys.stderr)
        return
    cell.source = VARIANT.sub(f"VARIANT = {variant}", cell.source, count=1)
    nbformat.write(notebook, path)


def settings(root: Path) -> Config:
    """nbgrader's configuration of the course in a folder."""
    config = Config()
    config.CourseDirectory.root = str(root.resolve())
    config.OverwriteCells.add_missing_cells = True
    return config


def course_directory(config: Config, name: str) -> CourseDirectory:
    directory = CourseDirectory(config=config)
    directory.assignment_id = name
    return directory


@contextmanager
def nbgrader_reports() -> Iterator[io.StringIO]:
    """What nbgrader logs, kept for a message instead of printed; and this environment's `alembic`, which it calls."""
    kept = io.StringIO()
    handler = logging.StreamHandler(kept)
    logger = logging.getLogger("traitlets")
    path, propagate = os.environ.get("PATH", ""), logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{path}"
    try:
        yield kept
    finally:
        os.environ["PATH"] = path
        logger.propagate = propagate
        logger.removeHandler(handler)


def reason(log: str) -> str:
    """The last error in a log of nbgrader's, in its own words."""
    found = REASON.findall(log) or log.strip().splitlines() or ["it does not say why"]
    return found[-1].rstrip(".")


def make_course(root: Path, source: Path, names: list[str], variant: int | None, *, gradebook: bool) -> None:
    """Copy the teacher's versions into a new course, with their variant, and let nbgrader generate the release.

    With `gradebook` the course can grade. Without it no database is made, and the release leaves out the hidden
    checks: it is the one for students.
    """
    for name in names:
        folder = root / "source" / name
        shutil.copytree(source / name, folder, ignore=shutil.ignore_patterns(*NOT_TAKEN))
        if variant is not None:
            set_variant(folder / f"{name}.ipynb", variant)
        _generate(settings(root), name, gradebook=gradebook)


def _generate(config: Config, name: str, *, gradebook: bool) -> None:
    directory = course_directory(config, name)
    converter = GenerateAssignment(coursedir=directory, config=config)
    if not gradebook:
        directory.ignore = [*directory.ignore, HIDDEN]
        converter.no_database = True
        converter.preprocessors = [step for step in converter.preprocessors if step is not SaveCells]
    with nbgrader_reports() as log:
        try:
            converter.start()
        except Exception as error:
            raise Problem(f"nbgrader cannot release {name}: {reason(log.getvalue() or str(error))}") from error


def read_exercise(root: Path, name: str) -> Exercise:
    """An exercise of a course that has been made."""
    master, release = (
        nbformat.read(root / step / name / f"{name}.ipynb", as_version=4) for step in ("source", "release")
    )
    return Exercise(name, master, release)
