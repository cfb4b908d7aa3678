"""The refresher: six subjects, each with its anchor, an example by hand, one short cell, and a way back to the book."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest

BOOK = Path(__file__).resolve().parents[2] / "book"
SUBJECTS = ["refresher-dual-norms", "refresher-projection", "refresher-kl", "refresher-clopper-pearson",
            "refresher-phi", "refresher-confidence-sequences"]
LINES = 10


@pytest.fixture(scope="module")
def page() -> nbformat.NotebookNode:
    return nbformat.read(BOOK / "refresher.ipynb", as_version=4)


@pytest.fixture(scope="module")
def subjects(page: nbformat.NotebookNode) -> dict[str, str]:
    """What stands under each anchor, text and visible code in the page's order."""
    visible = [cell.source if cell.cell_type == "markdown" else f"```python\n{cell.source}\n```"
               for cell in page.cells if not cell.metadata.get("tags")]
    pieces = re.split(r"^\(([\w-]+)\)=$", "\n\n".join(visible), flags=re.M)
    return dict(zip(pieces[1::2], pieces[2::2], strict=True))


def test_each_subject_has_its_anchor_once_above_its_heading(page: nbformat.NotebookNode) -> None:
    prose = "\n\n".join(cell.source for cell in page.cells if cell.cell_type == "markdown")
    assert re.findall(r"^\(([\w-]+)\)=\n#+ \S", prose, flags=re.M) == ["refresher", *SUBJECTS]


@pytest.mark.parametrize("anchor", SUBJECTS)
def test_a_subject_has_an_example_by_hand_and_a_link_to_its_use(subjects: dict[str, str], anchor: str) -> None:
    text = subjects[anchor]
    assert "**By hand:**" in text
    used = text.partition("**Used** ")[2]
    links = re.findall(r"\[[^]]+\]\((\w+)\)", used)
    assert links
    assert all((BOOK / f"{link}.ipynb").is_file() or (BOOK / f"{link}.md").is_file() for link in links)


@pytest.mark.parametrize("anchor", SUBJECTS)
def test_a_subject_is_one_short_cell_that_checks_itself(subjects: dict[str, str], anchor: str) -> None:
    cells = re.findall(r"^```python\n(.*?)\n```$", subjects[anchor], flags=re.S | re.M)
    assert len(cells) == 1
    assert len(cells[0].splitlines()) <= LINES
    assert "check(" in cells[0]


def test_the_contents_at_the_top_link_to_every_subject(page: nbformat.NotebookNode) -> None:
    linked = re.findall(r"\]\(#(refresher-[\w-]+)\)", page.cells[0].source)
    assert linked == SUBJECTS
