"""Files are known by what they hold, whatever they are called."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save

from robustness_lib.file_kinds import FileKind, file_kind, said_instead, words_on


def written(write: Callable[[io.BytesIO], object]) -> bytes:
    file = io.BytesIO()
    write(file)
    return file.getvalue()


@pytest.mark.parametrize(("content", "name"), [
    (written(lambda file: torch.save({"a": torch.ones(2)}, file)), "torch"),
    (written(lambda file: torch.save({"a": 1}, file, _use_new_zipfile_serialization=False)), "pickle"),
    (save({"a": torch.ones(2)}), "safetensors"), (written(lambda file: np.savez(file, a=np.ones(2))), "npz"),
    (written(lambda file: np.save(file, np.ones(2))), "npy"), (b"", "empty"), (bytes(9), "zeros"), (b"hello", "text"),
    (b"\xef\xbb\xbfversion https://git-lfs.github.com/spec/v1", "lfs"), (b"PAR1\0\0", "parquet"),
    (b"<!-- a -->\n<!-- b --> <html>", "page"), (b"<!-- a -->\n<error>", "xml"), (b"<!-- a --> hello", "text"),
])
def test_the_content_tells(content: bytes, name: str, tmp_path: Path) -> None:
    for path in (tmp_path / "file.npz", tmp_path / "file"):
        path.write_bytes(content)
        kind = file_kind(path)
        assert kind is not None
        assert kind.name == name


def test_what_nobody_knows_or_can_open_has_no_kind(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(range(200, 256)) * 20)
    assert file_kind(tmp_path / "file") is None
    assert file_kind(tmp_path) is None
    assert file_kind(tmp_path / "gone") is None


def test_another_kind_is_said_instead_of_the_readers_word(tmp_path: Path) -> None:
    path, error = tmp_path / "file", ValueError("cut")
    for content, words in ((b"%PDF", "it is a PDF document"), (b"\x89PNG", "cut"), (bytes(range(200, 256)), "cut")):
        path.write_bytes(content)
        assert said_instead(path, "image", error) == words
    assert said_instead(tmp_path / "gone", "image", error) == "cut"


def test_the_readers_advice_comes_first() -> None:
    assert words_on(FileKind("a", "an A", "leave it")) == "an A: leave it"
    assert words_on(FileKind("a", "an A", "leave it"), {}) == "an A: leave it"
    assert words_on(FileKind("a", "an A", "leave it"), {"a": "take it"}) == "an A: take it"
    assert words_on(FileKind("a", "an A. Cut short?", "fetch NumPy"), {}) == "an A. Cut short? Fetch NumPy"
    assert words_on(FileKind("a", "an A"), {}) == "an A"
