"""The files that came from elsewhere are the ones that book/assets/vendor/README.md names."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

VENDOR = Path(__file__).resolve().parents[2] / "book" / "assets" / "vendor"
OURS = {"README.md", "require-local.js"}


def named() -> dict[str, str]:
    """File -> sha256, from the README's table."""
    text = (VENDOR / "README.md").read_text(encoding="utf-8")
    return dict(re.findall(r"^\| `([^`]+)` \|.*\| `([0-9a-f]{64})` \|$", text, flags=re.MULTILINE))


def test_every_file_is_named_and_is_what_it_was() -> None:
    found = {
        path.relative_to(VENDOR).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in VENDOR.rglob("*") if path.is_file() and path.parent.name != "licenses" and path.name not in OURS
    }
    assert found == named()
    assert len(found) > 25


def test_every_package_has_its_licence() -> None:
    text = (VENDOR / "README.md").read_text(encoding="utf-8")
    licences = set(re.findall(r"`licenses/([^`]+)`", text))
    assert licences == {path.name for path in (VENDOR / "licenses").iterdir()}
