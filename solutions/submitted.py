"""Read what students hand in: the notebooks in a folder of submissions, and the cells of one file, however broken."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
from course import Problem
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_raw_cell

LARGEST = 100_000_000  # bytes; beyond, a file is not read
NEW = {"code": new_code_cell, "markdown": new_markdown_cell, "raw": new_raw_cell}
BESIDE = {"timestamp.txt"}  # nbgrader's own file beside a submission


class Unreadable(Exception):
    """A file that cannot be graded; says why, as the end of the sentence "it was not graded: …"."""


@dataclass(frozen=True, order=True)
class Submission:
    student: str
    exercise: str
    path: Path


def find_submissions(folder: Path, own_cells: dict[str, set[str]]) -> tuple[list[Submission], list[str]]:
    """The submissions in a folder, as STUDENT/NAME/NAME.ipynb or STUDENT/NAME.ipynb, and a line for all else.

    Where a student's notebook is called otherwise, or lies deeper, its cells say which exercise it is.

    own_cells: for each exercise, nbgrader's names of its cells.
    """
    if not folder.is_dir():
        raise Problem(f"there is no folder {folder}")
    found: dict[tuple[str, str], Submission] = {}
    skipped = []
    # As nbgrader collects them first, and of these the deeper: where there are several, that is the one that counts.
    for path in sorted(folder.rglob("*"), key=lambda path: (
            not _as_collected(path, folder, own_cells), -len(path.parts), str(path))):  # fmt: skip
        parts = path.relative_to(folder).parts
        if path.is_dir() or any(part.startswith((".", "__")) for part in parts) or path.name in BESIDE:
            continue
        reason = _not_taken(path, parts)
        named = path.stem in own_cells and _as_collected(path, folder, own_cells)
        exercise = None if reason else path.stem if named else exercise_of(path, own_cells)
        if exercise is None:
            reason = reason or f"it is none of {', '.join(own_cells)}, by its name or by its cells"
        elif (parts[0], exercise) in found:
            reason = f"{found[parts[0], exercise].path.relative_to(folder)} is graded"
        else:
            found[parts[0], exercise] = Submission(parts[0], exercise, path)
            continue
        skipped.append(f"{path.relative_to(folder)} is skipped: {reason}")
    if not found:
        raise Problem(f"{folder} holds no STUDENT/NAME/NAME.ipynb and no STUDENT/NAME.ipynb of {', '.join(own_cells)}")
    return sorted(found.values()), sorted(skipped)


def _as_collected(path: Path, folder: Path, names: Iterable[str]) -> bool:
    """Whether a file lies at STUDENT/NAME/NAME.ipynb, where nbgrader puts it, or at STUDENT/NAME.ipynb."""
    parts = path.relative_to(folder).parts
    return path.stem in names and (len(parts) == 2 or (len(parts) == 3 and parts[1] == path.stem))


def _not_taken(path: Path, parts: tuple[str, ...]) -> str:
    """Why a file is no submission; empty if it may be one."""
    if path.is_symlink():
        return "it is a link to another file"
    if path.suffix != ".ipynb":
        return "only notebooks are graded"
    return "it is in no student's folder" if len(parts) == 1 else ""


def exercise_of(path: Path, own_cells: dict[str, set[str]]) -> str | None:
    """The exercise of which a notebook holds most cells, and at least half; None if there is none."""
    try:
        cells = read_cells(path.read_bytes())
    except (Unreadable, OSError):
        return None
    there = {cell.metadata.get("nbgrader", {}).get("grade_id") for cell in cells}
    name = max(own_cells, key=lambda name: len(own_cells[name] & there) / max(1, len(own_cells[name])))
    return name if 2 * len(own_cells[name] & there) >= max(1, len(own_cells[name])) else None


def read_cells(content: bytes) -> list[NotebookNode]:
    """The cells of a notebook file: type, source, id and nbgrader's entry of each; no outputs, nothing else."""
    if not content.strip():
        raise Unreadable("the file is empty")
    if len(content) > LARGEST:
        raise Unreadable(f"the file has {len(content) / 1e6:.0f} MB, probably of outputs; clear them and save again")
    try:
        notebook = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        raise Unreadable("the file is no notebook: it is not JSON") from None
    if isinstance(notebook, dict) and notebook.get("nbformat") in (1, 2, 3):
        try:
            notebook = nbformat.convert(nbformat.from_dict(notebook), 4)
        except Exception:
            raise Unreadable("the file is a notebook of an old format, and cannot be converted") from None
    if not isinstance(notebook, dict) or not isinstance(notebook.get("cells"), list):
        raise Unreadable("the file is no notebook: it holds no cells")
    return [cell for raw in notebook["cells"] if (cell := _read_cell(raw)) is not None]


def _read_cell(raw: Any) -> NotebookNode | None:
    """A fresh cell with what matters of a raw one; None for what is none."""
    if not isinstance(raw, dict) or raw.get("cell_type") not in NEW:
        return None
    source, metadata = raw.get("source"), raw.get("metadata")
    if isinstance(source, list):
        source = "".join(line for line in source if isinstance(line, str))
    metadata = metadata if isinstance(metadata, dict) else {}
    source = source if isinstance(source, str) else ""
    # JSON can hold half of an emoji; no file can.
    cell: NotebookNode = NEW[raw["cell_type"]](source.encode("utf-8", "replace").decode("utf-8"))
    # Colab moves the id into the metadata.
    cell.id = next((known for known in (raw.get("id"), metadata.get("id")) if isinstance(known, str)), "")
    if isinstance(metadata.get("nbgrader"), dict):
        cell.metadata.nbgrader = nbformat.from_dict(metadata["nbgrader"])
    if raw["cell_type"] == "markdown" and _are_attachments(raw.get("attachments")):
        cell.attachments = nbformat.from_dict(raw["attachments"])  # a photograph of what was written by hand
    return cell


def _are_attachments(raw: Any) -> bool:
    """Whether an entry has the form {file name: {type: base64 text}}."""
    bundles = list(raw.values()) if isinstance(raw, dict) else [None]
    return all(isinstance(b, dict) and all(isinstance(text, str) for text in b.values()) for b in bundles)
