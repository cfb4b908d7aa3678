"""What a file is, by its content and not by its name: said where another kind was wanted."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from robustness_lib.files import as_text

__all__ = ["FileKind", "file_kind", "said_instead", "words_on"]

_HEAD = 4096  # bytes that are looked at
_AGAIN = "fetch it again"
_UNPACK = "unpack it, and name the file that was in it"


class FileKind(NamedTuple):
    """name: for code to ask for. words: for people, such as "a NumPy array". advice: what to do, whatever was wanted;
    may be empty."""

    name: str
    words: str
    advice: str = ""


_PAGE = FileKind("page", "a saved web page and not what was to be downloaded (a page of terms, of a login or of an "
                         "error)", _AGAIN)
_BEGINNINGS = (  # by the file's first bytes
    (b"\x80", FileKind("pickle", "a pickle")),
    (b"\x89HDF\r\n\x1a\n", FileKind("hdf5", "an HDF5 file, as Keras writes them")),
    (b"\x93NUMPY", FileKind("npy", "a NumPy array")),
    (b"GGUF", FileKind("gguf", "a GGUF file, as llama.cpp reads them")),
    (b"\x1f\x8b", FileKind("gzip", "compressed by gzip", _UNPACK)),
    (b"BZh", FileKind("bzip2", "compressed by bzip2", _UNPACK)),
    (b"\xfd7zXZ", FileKind("xz", "compressed by xz", _UNPACK)),
    (b"\x28\xb5\x2f\xfd", FileKind("zstd", "compressed by zstd", _UNPACK)),
    (b"7z\xbc\xaf\x27\x1c", FileKind("7z", "a 7z archive", _UNPACK)),
    (b"Rar!", FileKind("rar", "a RAR archive", _UNPACK)),
    (b"%PDF", FileKind("pdf", "a PDF document")),
    (b"\x89PNG", FileKind("image", "an image")),
    (b"\xff\xd8\xff", FileKind("image", "an image")),
    (b"PAR1", FileKind("parquet", "a Parquet file")),
    (b"MATLAB 5.0 MAT-file", FileKind("matlab", "a MATLAB file")),
)
_TEXTS = (  # the same for text, without white space and comments before it and in small letters
    (("version https://git-lfs",),
     FileKind("lfs", "a Git LFS pointer, which stands for the file and does not hold it",
              "git lfs pull, in the repository that it came from, puts the file in its place")),
    (("<!doctype html", "<html", "<head", "<body"), _PAGE),
    (("<?xml", "<error"), FileKind("xml", "an XML document, perhaps a server's word on an error", _AGAIN)),
    (("{", "["), FileKind("json", "JSON text, perhaps a server's word on an error or the index of a model in several "
                                  "files", "name the file that holds the numbers")),
    (("/annex/objects", "../.git/annex", ".git/annex"),
     FileKind("annex", "a git-annex pointer, which stands for the file and does not hold it",
              "git annex get puts the file in its place")),
)


def file_kind(path: Path) -> FileKind | None:
    """What the file is; None for what nothing here knows, and for what cannot be opened.

    The names that readers ask for: "safetensors", "torch" (an archive of torch.save), "pickle" (also its older
    files), "script", "exported" (programs), "npz", "npy".
    """
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError:  # the reader fails on it too, and says it better
        return None
    if not head:
        return FileKind("empty", "damaged: it is empty. Was a download cut short?", _AGAIN)
    if not head.strip(b"\0"):
        return FileKind("zeros", "damaged: it holds nothing but zeros. Was a download cut short?", _AGAIN)
    if len(head) > 8 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 2**32:
        return FileKind("safetensors", "a safetensors file")  # the length of a JSON table, and the table
    if head.startswith(b"PK"):
        return _zipped(path)
    for begins, kind in _BEGINNINGS:
        if head.startswith(begins):
            return kind
    if head[4:8] == b"TFL3":
        return FileKind("tflite", "a TensorFlow Lite model")
    if path.suffix == ".onnx" or (head[:1] == b"\x08" and head[2:3] in (b"\x12", b"\x1a", b"\x3a")):
        return FileKind("onnx", "an ONNX model, a program and not weights alone")
    if head[257:262] == b"ustar":
        return FileKind("tar", "a tar archive", _UNPACK)
    return _text(head)


def said_instead(path: Path, wanted: str, error: Exception) -> str:
    """What a file is that could not be read, where its kind is known and not the one with the name `wanted`; else what
    its reader said."""
    kind = file_kind(path)
    return str(error) if kind is None or kind.name == wanted else f"it is {words_on(kind)}"


def words_on(kind: FileKind, advice: Mapping[str, str] | None = None) -> str:
    """What the file is, and what to do. advice: the reader's own, by the kind's name."""
    more = (advice or {}).get(kind.name, kind.advice)
    if not more:
        return kind.words
    return f"{kind.words} {more[0].upper()}{more[1:]}" if kind.words.endswith("?") else f"{kind.words}: {more}"


def _text(head: bytes) -> FileKind | None:
    text = as_text(head, errors="ignore").lstrip("\ufeff \t\r\n").lower()
    if not all(sign.isprintable() or sign in "\r\n\t" for sign in text[:200]):
        return None
    plain = re.sub(r"\A(\s*<!--.*?(-->|\Z))*\s*", "", text, flags=re.DOTALL)
    if re.match(r"<\?xml[^>]*>\s*(<!--.*?-->\s*)*(<!doctype html|<html)", plain, flags=re.DOTALL) or \
            (text.startswith("<!--") and not plain):
        return _PAGE
    for beginnings, kind in _TEXTS:
        if plain.startswith(beginnings):
            return kind
    return FileKind("text", f"text that begins {text[:40].splitlines()[0]!r}") if text else None


def _zipped(path: Path) -> FileKind:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError):
        return FileKind("cut", "damaged: it begins as an archive and its end is missing. Was a download cut short?",
                        _AGAIN)
    rooted, last = [f"/{name}" for name in names], {name.rpartition("/")[2] for name in names}
    if any("/code/" in name for name in rooted) and any(name.endswith("/constants.pkl") for name in rooted):
        return FileKind("script", "a TorchScript archive")
    if any(name.endswith(("/models/model.json", "/serialized_exported_program.json")) for name in rooted):
        return FileKind("exported", "an exported program")
    if "data.pkl" in last:
        return FileKind("torch", "a file of torch.save")
    if any(name.endswith(".npy") for name in names):
        return FileKind("npz", "an .npz file of NumPy arrays")
    if "model.weights.h5" in last:
        return FileKind("keras", "a Keras model")
    held = f"it holds {', '.join(names[:5])}" if names else "it is empty"
    return FileKind("zip", f"a zip archive of something else ({held})", _UNPACK)
