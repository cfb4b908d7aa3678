"""Files: written whole or not at all, and text read in whatever encoding an editor or a shell has written it."""

from __future__ import annotations

import codecs
import os
import uuid
from pathlib import Path

__all__ = ["as_text", "file_in_the_way", "make_folder", "read_text", "write_whole"]

# What begins a file of text, the longer ones first: those of UTF-16 begin as those of UTF-32 do.
_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF32_LE, "utf-32-le"), (codecs.BOM_UTF32_BE, "utf-32-be"),
          (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))


def write_whole(path: Path, content: bytes) -> None:
    """Write under a temporary name first and rename: a kill at any moment leaves the old file or the new one, and
    two processes that write the same file do not mix. Missing folders are made. A device or a pipe (/dev/stdout) is
    written to as it is."""
    if path.exists() and not path.is_file():
        path.write_bytes(content)
        return
    make_folder(path.parent)
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.part")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno and error.filename is None:  # a full disk does not say where
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def make_folder(folder: Path) -> None:
    """With those around it, where they are missing. Raises NotADirectoryError that names what is in the way."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        file = file_in_the_way(folder)
        what = f"cannot be made: {file} is a file" if file != folder else "is a file, and a folder is needed"
        raise NotADirectoryError(f"{folder} {what}; name another") from None


def file_in_the_way(folder: Path) -> Path | None:
    """The file that stands where the folder, or one around it, would have to be; None for none."""
    return next((one for one in (folder, *folder.parents) if one.exists() and not one.is_dir()), None)


def read_text(path: Path) -> str:
    """Text of a file, see `as_text`. Raises OSError, and ValueError for what is no text."""
    return as_text(path.read_bytes())


def as_text(content: bytes, errors: str = "strict") -> str:
    """UTF-8, or what its byte order mark says: Windows' editors write one, and its shell's `>` makes UTF-16 of what a
    command prints. Lines end with \\n. errors: as of bytes.decode. Raises ValueError for other encodings."""
    mark, encoding = next(((mark, name) for mark, name in _MARKS if content.startswith(mark)), (b"", "utf-8"))
    if not mark and b"\0" in content[:2]:  # JSON, TOML and names begin with a letter of ASCII
        encoding = "utf-16-be" if content[:1] == b"\0" else "utf-16-le"
    try:
        return content.removeprefix(mark).decode(encoding, errors).replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"it is no text in {encoding} ({error.reason} at byte {error.start}); save it as "
                         f"UTF-8") from None
