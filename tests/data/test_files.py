from __future__ import annotations

from pathlib import Path

import numpy as np
import platformdirs
import pytest

from robustness_lib.data._files import cache_folder, data_folders, read_npz, write_npz

GOOD = {"images": np.zeros((3, 1, 4, 4), np.uint8), "labels": np.arange(3)}


def test_the_cache_is_where_it_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ROBUSTNESS_CACHE", str(tmp_path / "named"))
    assert cache_folder() == tmp_path / "named"
    monkeypatch.delenv("ROBUSTNESS_CACHE")
    assert cache_folder() == platformdirs.user_cache_path("robustness_lib", appauthor=False)
    assert cache_folder().name == "robustness_lib"


def test_named_data_come_before_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ROBUSTNESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("ROBUSTNESS_DATA", str(tmp_path / "data"))
    assert data_folders() == [tmp_path / "data", tmp_path / "cache"]
    monkeypatch.setenv("ROBUSTNESS_DATA", "")
    assert data_folders() == [tmp_path / "cache"]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "set.npz"
    write_npz(path, GOOD)
    found = read_npz(path, ("images", "labels"))
    assert all((found[key] == GOOD[key]).all() for key in GOOD)
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(("change", "words"), [
    ({"labels": None}, "has no labels; it holds images"),
    ({"labels": np.arange(2)}, r"labels must be int64.*found int64 of shape \(2,\)"),
    ({"labels": np.arange(3.0)}, "found float64"),
    ({"images": np.zeros((3, 4, 4), np.uint8)}, "images must be uint8 with 4 axes"),
    ({"images": np.zeros((3, 1, 4, 4))}, "found float64"),
    ({"labels": np.array([{}, {}, {}])}, "allow_pickle"),
])
def test_a_file_that_holds_something_else_is_named(tmp_path: Path, change: dict[str, object], words: str) -> None:
    path = tmp_path / "set.npz"
    np.savez(path, **{key: value for key, value in {**GOOD, **change}.items() if value is not None})
    with pytest.raises(ValueError, match=rf"{path} is damaged.*{words}"):
        read_npz(path, ("images", "labels"))


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9, 0.99])
def test_a_file_that_is_cut_short_is_named(tmp_path: Path, keep: float) -> None:
    path = tmp_path / "set.npz"
    write_npz(path, GOOD)
    whole = path.read_bytes()
    path.write_bytes(whole[:int(len(whole) * keep)])
    with pytest.raises(ValueError, match=f"{path} is damaged"):
        read_npz(path, ("images", "labels"))
