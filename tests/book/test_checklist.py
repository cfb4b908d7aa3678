"""The checklist, printed: one sheet of A4."""

from __future__ import annotations

import re
from typing import Any

import pytest

pytestmark = pytest.mark.browser


def sheets(pdf: bytes) -> int:
    """How many pages a PDF of Chromium has."""
    return len(re.findall(rb"/Type\s*/Page\b(?!s)", pdf))


def test_fits_one_sheet(visit: Any, site: str) -> None:
    page = visit(site + "book/checklist.html").page
    assert sheets(page.pdf(format="A4")) == 1
    page.add_style_tag(content="@media print { .one-page { font-size: 20pt !important } }")
    assert sheets(page.pdf(format="A4")) > 1  # what is too long would be seen
