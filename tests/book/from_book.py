"""A module of book/, which is no package: its scripts are found by their place."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

BOOK = Path(__file__).resolve().parents[2] / "book"


def from_book(name: str) -> Any:
    """book/NAME.py, run anew."""
    spec = importlib.util.spec_from_file_location(f"book_{name}", BOOK / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look for it there
    spec.loader.exec_module(module)
    return module
