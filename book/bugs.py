"""The bugs that the pages of the book run and measure, as the page of errata shows them.

A cell that runs a bug says so in its metadata, under "bugs", once for each:

    {"anchor": "errata-fixed-step",
     "name": "One step size for every ε",
     "wrong": "return PGD(threat, steps=10, step_size=2 / 255)",
     "right": "return PGD(threat, steps=10)",
     "damage": "At ε = 32/255 it leaves {fix-c-32}; steps that grow with ε leave {fix-d-32}.",
     "test": "tests/attacks/test_pgd.py::test_the_default_step_size_follows_eps"}

The anchor is what other pages link to. The two lines stand word for word in that page, or in the file that "run_in"
names beside them. In braces stand the names under which the page glues what it has measured. The test is one of the
library's, and fails where the library makes the mistake.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from IPython.display import Markdown, display

from robustness_lib.notebook import glue_values, glued

BOOK = Path(__file__).resolve().parent
ERRATA = "errata"
# The sections of the page of errata, with the numbers of their first and their last chapter.
SECTIONS = {"Attacks": (0, 4), "Training and defenses": (5, 7), "Certificates": (8, 10), "Evaluation": (11, 11)}


@dataclass(frozen=True)
class Place:
    """Where a bug is run: the page's file name without ending, its title, and the nearest heading above the cell."""

    page: str
    title: str
    heading: str

    @property
    def link(self) -> str:
        """A link to the heading, in Markdown."""
        return f"[{self.title}, “{self.heading}”]({self.page}.ipynb#{slug(self.heading)})"


@dataclass(frozen=True)
class Bug:
    """One bug, as the metadata of a cell describes it.

    Raises:
        ValueError: if the wrong line is the right one.
    """

    place: Place
    anchor: str
    name: str
    wrong: str
    right: str
    damage: str
    test: str
    run_in: str | None = None

    def __post_init__(self) -> None:
        if self.wrong.split() == self.right.split():
            raise ValueError(f"{self.anchor}: the wrong line is the right one: {self.wrong}")

    def measured(self, values: Mapping[str, object]) -> str:
        """The damage, with what was measured in place of each name in braces.

        Raises:
            ValueError: if one of the names is none of the values.
        """
        def value(match: re.Match[str]) -> str:
            if match[1] not in values:
                raise ValueError(f"{self.anchor}: {self.place.page} glues no {match[1]}; it glues {', '.join(values)}")
            return str(values[match[1]])

        return re.sub(r"\{([^{}]+)\}", value, self.damage)

    def markdown(self, values: Mapping[str, object]) -> str:
        """The bug as a short section of a page: its anchor, name, damage and lines, where it is run, and the test."""
        code = [f"{sign} {line}" for sign, lines in (("-", self.wrong), ("+", self.right))
                for line in lines.splitlines()]
        run = "" if self.place.page == ERRATA else f"Run in {self.place.link}. "
        source = f"Both lines are those of `{self.run_in}`. " if self.run_in else ""
        file, test = self.test.split("::")
        head = f"({self.anchor})=\n**{self.name}.** {self.measured(values)}"
        return "\n".join([head, "", "```diff", *code, "```", "", f"{run}{source}Test: `{test}` in `{file}`."])


def slug(heading: str) -> str:
    """A heading as its anchor: small letters, hyphens for blanks, and nothing that is neither letter nor digit."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def bugs_of(page: str) -> list[Bug]:
    """The bugs that a page's cells run, in their order.

    Args:
        page: the notebook's file name in this folder without its ending: "02_pgd".

    Raises:
        FileNotFoundError: if there is no such page.
        ValueError: if a record lacks something, or says what nobody reads; it names the cell.
    """
    notebook = json.loads((BOOK / f"{page}.ipynb").read_text(encoding="utf-8"))
    return [_bug(record, Place(page, *headings), f"cell {cell['id']} of {page}")
            for cell, headings in _cells_under_headings(notebook) for record in cell["metadata"].get("bugs", ())]


def _cells_under_headings(notebook: dict[str, Any]) -> Iterator[tuple[dict[str, Any], tuple[str, str]]]:
    """Each cell, with the page's title and the nearest heading above."""
    title = heading = ""
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            text = re.sub(r"^(`{3,}).*?^\1", "", "".join(cell["source"]), flags=re.S | re.M)  # no comments in code
            for level, words in re.findall(r"^(#+) (.+)$", text, flags=re.M):
                title, heading = (words if level == "#" else title), words.strip()
        yield cell, (title.strip(), heading)


def _bug(record: Mapping[str, str], place: Place, where: str) -> Bug:
    known = {field.name: field for field in fields(Bug) if field.name != "place"}
    missing, unknown = known.keys() - record.keys() - {"run_in"}, record.keys() - known.keys()
    if missing or unknown:
        raise ValueError(f"a bug in {where} lacks {sorted(missing)} and holds, of no use, {sorted(unknown)}")
    return Bug(place, **record)


def chapters() -> list[str]:
    """The book's chapters in reading order, by their file names without ending."""
    return [path.stem for path in sorted(BOOK.glob("[0-9][0-9]_*.ipynb"))]


def in_section(section: str) -> list[Bug]:
    """The bugs of one section of the errata: those of its chapters, then those that the page runs itself."""
    first, last = SECTIONS[section]
    pages = [page for page in chapters() if first <= int(page[:2]) <= last]
    own = [bug for bug in bugs_of(ERRATA) if bug.place.heading.startswith(section)]
    return [bug for page in pages for bug in bugs_of(page)] + own


def at_a_glance() -> Markdown:
    """The names of all bugs by section, each a link to its place on the page of errata."""
    lists = ["\n".join(f"- [{bug.name}](#{bug.anchor})" for bug in in_section(section)) for section in SECTIONS]
    return Markdown("\n\n".join(f"**{section}**\n\n{names}" for section, names in zip(SECTIONS, lists, strict=True)))


def from_chapters(section: str) -> Markdown:
    """What the chapters of a section run, each bug with what its own page has measured."""
    bugs = [bug for bug in in_section(section) if bug.place.page != ERRATA]
    return Markdown("\n\n".join(bug.markdown(glued(f"book/{bug.place.page}")) for bug in bugs))


def measured_here(anchor: str, **values: object) -> None:
    """Glue what a cell of the errata has measured, and show the bug that the cell's metadata describes.

    Args:
        anchor: the bug's, without "errata-".
        values: what was measured, by the names in the damage's braces, with underscores for hyphens. An Accuracy is
            shown with its interval and n.

    Raises:
        ValueError: if no cell of the page describes that bug.
    """
    (bug,) = [bug for bug in bugs_of(ERRATA) if bug.anchor == f"errata-{anchor}"] or [None]
    if bug is None:
        raise ValueError(f"no cell of {ERRATA}.ipynb has errata-{anchor} in its metadata")
    texts = {name: str(value) for name, value in values.items()}
    glue_values(**texts)
    display(Markdown(bug.markdown({name.replace("_", "-"): text for name, text in texts.items()})))
