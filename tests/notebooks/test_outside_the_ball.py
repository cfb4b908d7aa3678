"""Outside the ball: every change has its place in the page, its threat model and its source; the attacks stay short."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import nbformat
import pytest

BOOK = Path(__file__).resolve().parents[2] / "book"
ANCHORS = {"outside-the-ball", "outside-inside", "outside-patch", "outside-rotation", "outside-corruptions",
           "outside-what-carries-over", "outside-threat-models", "outside-purification", "outside-label-only",
           "outside-language", "outside-further-reading"}
CHANGES = ("outside-patch", "outside-rotation", "outside-corruptions", "outside-purification", "outside-label-only",
           "outside-language")
ABOUT_TWENTY_LINES = 22


@pytest.fixture(scope="module")
def page() -> nbformat.NotebookNode:
    return nbformat.read(BOOK / "outside_the_ball.ipynb", as_version=4)


@pytest.fixture(scope="module")
def prose(page: nbformat.NotebookNode) -> str:
    return "\n\n".join(cell.source for cell in page.cells if cell.cell_type == "markdown")


def parts(prose: str) -> dict[str, str]:
    """What stands under each anchor, up to the next one."""
    pieces = re.split(r"^\(([\w-]+)\)=$", prose, flags=re.M)
    return dict(zip(pieces[1::2], pieces[2::2], strict=True))


def test_each_part_has_its_anchor_once_above_a_heading(prose: str) -> None:
    found = re.findall(r"^\(([\w-]+)\)=\n#+ \S", prose, flags=re.M)
    assert sorted(found) == sorted(ANCHORS)


def test_each_change_names_its_threat_model_a_source_and_what_carries_over(prose: str) -> None:
    for anchor in CHANGES:
        part = " ".join(parts(prose)[anchor].split())
        assert re.search(r"\*\*?Threat model[.:]\*\*?", part), anchor
        assert "{cite" in part, anchor
        assert "**What carries over" in part, anchor
        assert "**What does not" in part, anchor


def test_every_source_is_in_the_bibliography(prose: str) -> None:
    bibliography = (BOOK / "references.bib").read_text(encoding="utf-8")
    cited = {key for keys in re.findall(r"\{cite(?::t)?\}`([^`]+)`", prose) for key in keys.split(",")}
    assert cited
    assert not [key for key in cited if not re.search(rf"^@\w+\{{{key},", bibliography, flags=re.M)]


def test_an_attack_is_about_twenty_lines(page: nbformat.NotebookNode) -> None:
    lengths = {node.name: node.end_lineno - node.lineno + 1
               for cell in page.cells if cell.cell_type == "code" and not cell.metadata.get("tags")
               for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.FunctionDef)}
    assert {"sticker", "moved", "noise", "blur", "jpeg"} <= set(lengths)
    assert max(lengths.values()) <= ABOUT_TWENTY_LINES


def test_every_table_has_a_column_for_each_net_with_intervals(page: nbformat.NotebookNode) -> None:
    tables = ["".join(output.data["text/markdown"]) for cell in page.cells for output in cell.get("outputs", [])
              if "text/markdown" in output.get("data", {})]
    assert len(tables) == 5
    for table in tables:
        head, _, *rows = table.splitlines()
        assert head == "| | standard | PGD | IBP |"
        for row in rows:
            assert len(re.findall(r"\d+\.\d\u00a0% \(\d+\u2060–\u2060\d+\)", row)) == 3, row
