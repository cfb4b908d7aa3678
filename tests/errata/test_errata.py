"""The page of errata: every bug is described once, measured, run where it says, and noticed by a test."""

from __future__ import annotations

import functools
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from from_book import from_book
from myst_parser.mdit_to_docutils.base import default_slugify
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from robustness_lib.notebook import glued, short
from robustness_lib.statistics import Accuracy

ROOT = Path(__file__).resolve().parents[2]
FEWEST = 25
RECORD = {"anchor": "errata-one", "name": "One", "wrong": "x + 1", "right": "x - 1", "damage": "{left} left (n = 3).",
          "test": "tests/errata/test_errata.py::test_no_two_share_a_name"}


bugs = from_book("bugs")
ALL = [bug for section in bugs.SECTIONS for bug in bugs.in_section(section)]
each_bug = pytest.mark.parametrize("bug", ALL, ids=lambda bug: bug.anchor)


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@functools.cache
def cells(page: str) -> list[Any]:
    return nbformat.read(ROOT / "book" / f"{page}.ipynb", as_version=4).cells


@functools.cache
def sources(page: str) -> str:
    return "\n".join(cell.source for cell in cells(page))


def words(text: str) -> str:
    """Without line breaks, indentation and blanks at the end."""
    return " ".join(text.split())


# The whole list.


def test_there_are_enough_of_them() -> None:
    assert len(ALL) >= FEWEST


def test_none_is_left_out() -> None:
    """Every record in every notebook of the book belongs to a section."""
    described = [record["anchor"] for path in sorted((ROOT / "book").glob("*.ipynb"))
                 for cell in cells(path.stem) for record in cell.metadata.get("bugs", ())]
    assert sorted(described) == sorted(bug.anchor for bug in ALL)


def test_every_chapter_that_asks_for_a_bug_describes_one() -> None:
    for page in bugs.chapters():
        assert "# Find the bug" not in sources(page) or bugs.bugs_of(page), page


def test_no_two_share_a_name() -> None:
    assert max(Counter(bug.name for bug in ALL).values()) == 1


def test_anchors_are_readable_and_unique_in_the_page() -> None:
    own = re.findall(r"^\((.+)\)=$", sources(bugs.ERRATA), flags=re.M)
    assert all(re.fullmatch(r"errata-[a-z0-9]+(-[a-z0-9]+)*", bug.anchor) for bug in ALL)
    assert max(Counter([bug.anchor for bug in ALL] + own).values()) == 1


def test_every_test_is_one_that_pytest_finds() -> None:
    tests = sorted({bug.test for bug in ALL})
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *tests]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout[-2000:] + found.stderr[-2000:]
    collected = {line.split("[")[0] for line in found.stdout.splitlines()}
    assert set(tests) <= collected


# Each one.


@each_bug
def test_its_lines_stand_where_it_is_run(bug: Any) -> None:
    text = words((ROOT / bug.run_in).read_text(encoding="utf-8") if bug.run_in else sources(bug.place.page))
    assert words(bug.wrong) in text
    assert words(bug.right) in text


@each_bug
def test_its_damage_is_measured(bug: Any) -> None:
    measured = bug.measured(glued(f"book/{bug.place.page}"))
    assert measured != bug.damage, "nothing in it is glued"
    assert re.search(r"\d", measured)
    assert not re.search("[{}]", measured)


@each_bug
def test_its_accuracies_are_those_of_the_number_of_images_that_it_names(bug: Any) -> None:
    """Where a page glues an accuracy without n, the record says n: percentage and interval must follow from it."""
    measured = bug.measured(glued(f"book/{bug.place.page}"))
    named = {int(number.replace(",", "")) for number in re.findall(r"\d[\d,]*", measured)} - {0}
    for percentage, interval in re.findall(r"(\d+\.\d)\u00a0% \(([^,)]+)\)", measured):
        text = f"{percentage}\u00a0% ({interval})"
        assert any(short(Accuracy(round(float(percentage) / 100 * n), n)) == text for n in named), text


@each_bug
def test_its_place_is_a_heading_of_the_page(bug: Any) -> None:
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", sources(bug.place.page), flags=re.S), flags=re.M)
    assert headings.count(bug.place.heading) == 1, "two headings of one name have no anchor to tell them apart"
    assert bugs.slug(bug.place.heading) == default_slugify(bug.place.heading)


@each_bug
def test_the_page_shows_it_as_it_is_now(bug: Any) -> None:
    """Once, and with the values that its own page holds: else run `python book/notebooks.py book/errata.ipynb`."""
    shown = [output.data["text/markdown"] for cell in cells(bugs.ERRATA) for output in cell.get("outputs", ())
             if "text/markdown" in output.get("data", {})]
    assert "\n".join(shown).count(f"({bug.anchor})=") == 1
    assert bug.markdown(glued(f"book/{bug.place.page}")) in "\n\n".join(shown)


def test_what_stands_first_is_no_hint() -> None:
    """Of the bugs that a reader is to find, about half have the wrong version first."""
    first = []
    for page in bugs.chapters():
        for cell in cells(page):
            if {"hide-input", "hide-cell"} & set(cell.metadata.get("tags", ())):
                continue
            for record in cell.metadata.get("bugs", ()):
                wrong, right = (words(cell.source).find(words(record[which])) for which in ("wrong", "right"))
                if min(wrong, right) >= 0:
                    first.append(wrong < right)
    assert len(first) >= 12
    assert 0.35 <= sum(first) / len(first) <= 0.65, f"{sum(first)} of {len(first)}"


# What reads them.


@pytest.fixture
def book(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A book of one chapter, with a bug in its third cell."""
    monkeypatch.setattr(bugs, "BOOK", tmp_path)
    page = new_notebook(cells=[new_markdown_cell("(one)=\n# One step\n\n```python\n# no heading\n```"),
                               new_markdown_cell("## Find the bug, at ε = ½!"),
                               new_code_cell("x + 1", id="third", metadata={"bugs": [RECORD]})])
    nbformat.write(page, tmp_path / "01_one.ipynb")
    return tmp_path


def change(path: Path, **record: object) -> None:
    """Put another record into the page; a field that is None is left out."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    notebook["cells"][2]["metadata"]["bugs"] = [{k: v for k, v in (RECORD | record).items() if v is not None}]
    path.write_text(json.dumps(notebook), encoding="utf-8")


def test_a_bug_is_read_with_its_place(book: Path) -> None:
    (bug,) = bugs.bugs_of("01_one")
    assert {key: getattr(bug, key) for key in RECORD} == RECORD
    assert bug.place.link == "[One step, “Find the bug, at ε = ½!”](01_one.ipynb#find-the-bug-at-ε--½)"
    assert bug.measured({"left": "2"}) == "2 left (n = 3)."
    shown = bug.markdown({"left": 2})
    assert shown.startswith("(errata-one)=\n**One.** 2 left (n = 3).\n\n```diff\n- x + 1\n+ x - 1\n```\n")
    assert bug.place.link in shown
    assert "`test_no_two_share_a_name`" in shown


def test_a_wrong_line_that_is_the_right_one_is_refused(book: Path) -> None:
    change(book / "01_one.ipynb", right="x  +  1")
    with pytest.raises(ValueError, match=r"errata-one: the wrong line is the right one"):
        bugs.bugs_of("01_one")


@pytest.mark.parametrize(("record", "says"), [({"test": None}, "lacks.*test"), ({"link": "#"}, "of no use.*link")])
def test_a_record_that_lacks_something_is_refused_with_its_cell(book: Path, record: Any, says: str) -> None:
    change(book / "01_one.ipynb", **record)
    with pytest.raises(ValueError, match=f"cell third of 01_one.*{says}"):
        bugs.bugs_of("01_one")


def test_a_damage_that_nobody_measured_is_refused(book: Path) -> None:
    (bug,) = bugs.bugs_of("01_one")
    with pytest.raises(ValueError, match=r"01_one glues no left; it glues right"):
        bug.measured({"right": 3})


def test_what_is_measured_here_needs_its_record() -> None:
    with pytest.raises(ValueError, match=r"no cell of errata\.ipynb has errata-nothing"):
        bugs.measured_here("nothing", left=3)


def test_records_outlive_a_run_of_the_notebook(book: Path) -> None:
    page = book / "01_one.ipynb"
    notebook = nbformat.read(page, as_version=4)
    notebook.cells[2].source = "print('run')"
    nbformat.write(notebook, page)
    assert from_book("notebooks").execute(page)
    again = nbformat.read(page, as_version=4)
    assert again.cells[2].outputs
    assert again.cells[2].metadata["bugs"] == [RECORD]
