"""The execution cache is dropped when, and only when, the package changes."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="module")
def build() -> Any:
    path = Path(__file__).resolve().parents[2] / "book" / "build.py"
    spec = importlib.util.spec_from_file_location("book_build", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "package"
    (folder / "models").mkdir(parents=True)
    (folder / "a.py").write_text("x = 1\n")
    (folder / "models" / "net.safetensors").write_bytes(b"\x00\x01")
    return folder


def test_the_hash_sees_code_weights_names_and_new_files(build: Any, package: Path) -> None:
    hashes = [build.package_hash(package)]
    (package / "a.py").write_text("x = 2\n")
    hashes.append(build.package_hash(package))
    (package / "models" / "net.safetensors").write_bytes(b"\x00\x02")
    hashes.append(build.package_hash(package))
    (package / "a.py").rename(package / "b.py")
    hashes.append(build.package_hash(package))
    (package / "c.py").touch()
    hashes.append(build.package_hash(package))
    assert len(set(hashes)) == 5
    (package / "__pycache__").mkdir()
    (package / "__pycache__" / "c.pyc").write_bytes(b"compiled")
    assert build.package_hash(package) == hashes[-1]


def test_what_was_executed_with_another_package_goes(build: Any, tmp_path: Path) -> None:
    folder = tmp_path / "_build"
    assert build.drop_stale_cache(folder, "first")
    cached = [folder / ".jupyter_cache" / "global.db", folder / ".doctrees" / "environment.pickle"]
    for file in cached:
        file.parent.mkdir()
        file.touch()
    assert not build.drop_stale_cache(folder, "first")
    assert all(file.is_file() for file in cached)
    assert build.drop_stale_cache(folder, "second")
    assert not any(file.exists() for file in cached)
