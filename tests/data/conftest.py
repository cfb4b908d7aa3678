from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the test's own, and no other data folder."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("ROBUSTNESS_CACHE", str(folder))
    monkeypatch.delenv("ROBUSTNESS_DATA", raising=False)
    return folder


@pytest.fixture
def real_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of real data; an empty cache beside it."""
    folder = os.environ.get("ROBUSTNESS_DATA")
    if not folder:
        pytest.skip("needs ROBUSTNESS_DATA: the folder that holds the real data sets")
    monkeypatch.setenv("ROBUSTNESS_CACHE", str(tmp_path / "cache"))
    return Path(folder)
