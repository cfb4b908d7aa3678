"""Adversarial images as files: PNG of 8 bits, each beside its clean image, and a table of them."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from robustness_lib.files import file_in_the_way, write_whole
from robustness_lib.png import png_bytes

__all__ = ["Exported", "ExportedColumns", "check_folder", "export_images"]

TABLE = "adversarial.csv"
_COLUMNS = ("index", "label", "predicted", "mistaken_for", "attack", "distance", "clean", "adversarial")
_FOLDERS = ("clean", "adversarial")
_NAME = re.compile(r"\d{6,}\.(png|npy)")


class ExportedColumns(Protocol):
    """What is asked of a report's examples; see `Examples`."""

    @property
    def index(self) -> NDArray[Any]: ...

    @property
    def digest(self) -> tuple[str, ...]: ...

    @property
    def label(self) -> NDArray[Any]: ...

    @property
    def predicted(self) -> NDArray[Any]: ...

    @property
    def broken_by(self) -> tuple[str | None, ...]: ...


@dataclass(frozen=True)
class Exported:
    """table: the file that lists them, in the folder. written: images. lost: images that the suite broke and that are
    not written. arrays: whether they are .npy, since they have other than 1 or 3 channels. rounded: clean images that
    are rounded in their files, since the data hold more than 8 bits; distances are from the data's."""

    table: Path
    written: int
    lost: int
    arrays: bool
    rounded: int = 0

    @property
    def sentence(self) -> str:
        if not self.written + self.lost:
            return f"The suite broke no image, so there is none in {self.table.parent}."
        form = ("as .npy files, since images of so many channels or axes have no PNG" if self.arrays else
                "as PNG files")
        lost = (f"; {self.lost:,} that were broken are not among them, since no image near theirs was found that is "
                f"adversarial on the grid of 8-bit pixels" if self.lost else "")
        rounded = (f" The data hold more than 8 bits: {self.rounded:,} of the clean files are rounded to them, and "
                   f"each distance is from the image of the data, not from its clean file." if self.rounded else "")
        images = "images are" if self.written != 1 else "image is"
        return (f"{self.written:,} adversarial {images} in {self.table.parent} {form}, each asked about as it is "
                f"saved; {self.table.name} lists them{lost}.{rounded}")


def check_folder(folder: Path) -> None:
    """New, empty, or of an earlier export, whose images may go. Raises ValueError."""
    if folder.is_file():
        raise ValueError(f"{folder} is a file; images are exported to a folder")
    if (file := file_in_the_way(folder)) is not None:
        raise ValueError(f"{folder} cannot be made: {file} is a file; name another")
    if folder.exists() and (other := sorted(one.name for one in folder.iterdir() if one.name not in
                                            (TABLE, *_FOLDERS))):
        raise ValueError(f"{folder} holds other files ({', '.join(other[:3])}); name an empty or new folder for the "
                         f"images")


def export_images(source: Path, folder: Path, examples: ExportedColumns, broken: NDArray[np.int64]) -> Exported:
    """source: the folder in which the evaluation kept them. broken: rows of examples that the suite broke. Of several
    images of one example the one of the attack that broke it first is written, where there is one.

    Raises ValueError for kept images of other data, and for folders that hold something else.
    """
    check_folder(folder)
    if not source.is_dir():
        raise ValueError(f"there is no folder {source} with kept images")
    rows = {int(examples.index[row]): int(row) for row in broken}
    lines: dict[int, tuple[Any, ...]] = {}
    arrays, rounded = False, 0
    for its_own in (True, False):
        for found in _kept(source):
            for k, index in enumerate(found["index"].tolist()):
                row = rows.get(index)
                if row is None or row in lines or (examples.broken_by[row] == found["attack"]) != its_own:
                    continue
                if examples.digest[row] != found["digest"][k]:
                    raise ValueError(f"the images in {source} are of other data than the report: image {index} differs")
                names = [_write(folder / kind, index, found[kind][k]) for kind in _FOLDERS]
                rounded += int("rounded" in found and found["rounded"][k])
                arrays |= names[0].endswith(".npy")
                lines[row] = (index, int(examples.label[row]), int(examples.predicted[row]),
                              int(found["mistaken_for"][k]), found["attack"], repr(float(found["distance"][k])), *names)
    _remove_others(folder, {name for line in lines.values() for name in line[-2:]})
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([_COLUMNS, *(lines[row] for row in sorted(lines))])
    write_whole(folder / TABLE, text.getvalue().encode())
    return Exported(folder / TABLE, len(lines), len(rows) - len(lines), arrays, rounded)


def _kept(source: Path) -> Iterator[dict[str, Any]]:
    """What was kept, file by file."""
    for path in sorted(source.glob("*.npz")):
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files if name != "rest"}
                yield json.loads(str(file["rest"])) | arrays
        except (OSError, ValueError, KeyError) as error:
            raise ValueError(f"{path} cannot be read as kept images ({error})") from error


def _write(folder: Path, index: int, pixels: NDArray[np.uint8]) -> str:
    """Pixels (C, H, W), or of another shape. Returns the name, from the table's folder."""
    if pixels.ndim == 3 and pixels.shape[0] in (1, 3) and pixels.size:
        name, content = f"{index:06d}.png", png_bytes(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    else:
        file = io.BytesIO()
        np.save(file, pixels, allow_pickle=False)
        name, content = f"{index:06d}.npy", file.getvalue()
    write_whole(folder / name, content)
    return f"{folder.name}/{name}"


def _remove_others(folder: Path, written: set[str]) -> None:
    """Images of an earlier export."""
    for kind in _FOLDERS:
        if (folder / kind).is_dir():
            for path in (folder / kind).iterdir():
                if _NAME.fullmatch(path.name) and f"{kind}/{path.name}" not in written:
                    path.unlink()
