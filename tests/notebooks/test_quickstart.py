"""The quickstart shows commands that exist, names that are accepted and exit codes that are documented."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
import typer

from robustness_lib import data
from robustness_lib.cli import app
from robustness_lib.models import find_model

PAGE = Path(__file__).resolve().parents[2] / "book" / "quickstart.ipynb"
TABLE_ROW = r"^\| `{}` \|(.*)\|$"


@pytest.fixture(scope="module")
def page() -> nbformat.NotebookNode:
    return nbformat.read(PAGE, as_version=4)


@pytest.fixture(scope="module")
def prose(page: nbformat.NotebookNode) -> str:
    return "\n".join(cell.source for cell in page.cells if cell.cell_type == "markdown")


def commands(page: nbformat.NotebookNode) -> list[str]:
    """Each command of the page in one line: from shell blocks, from `terminal` cells and from the text."""
    found = []
    for cell in page.cells:
        if cell.cell_type == "code":
            blocks = re.findall(r'terminal\("""\n(.*?)"""\)', cell.source, flags=re.S)
        else:
            blocks = re.findall(r"```bash\n(.*?)```", cell.source, flags=re.S)
            found += re.findall(r"`(robustness [^`]+)`", cell.source)
        for block in blocks:
            found += [line.strip() for line in block.replace("\\\n", " ").splitlines() if line.strip()]
    return found


def subcommands(command: object, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], object]]:
    if not hasattr(command, "list_commands"):
        yield path, command
        return
    for name in command.list_commands(None):  # a group imports its commands when they are asked for
        yield from subcommands(command.get_command(None, name), (*path, name))  # type: ignore[attr-defined]


def test_the_whole_way_is_shown(page: nbformat.NotebookNode) -> None:
    shown = {shlex.split(command)[1] for command in commands(page)}
    assert shown >= {"check", "evaluate", "compare", "gate", "track", "zoo", "data"}


def test_every_command_is_understood(page: nbformat.NotebookNode) -> None:
    """Parsed as they are typed, options and all, and not run."""
    known = dict(subcommands(typer.main.get_command(app)))
    for command in commands(page):
        name, *words = shlex.split(command)
        assert name == "robustness"
        depth = 2 if words[0] in ("data", "zoo") else 1
        known[tuple(words[:depth])].make_context(" ".join(words[:depth]), words[depth:])  # type: ignore[attr-defined]


def test_the_exit_codes_are_the_documented_ones(prose: str) -> None:
    for path, command in subcommands(typer.main.get_command(app)):
        row = re.search(TABLE_ROW.format(path[-1]), prose, flags=re.M)
        if len(path) > 1:
            continue
        assert row, f"{path[-1]} is not in the table of exit codes"
        shown = {str(code) for code, words in enumerate(row[1].split("|")) if words.strip()}
        documented = str(command.help).partition("Exit codes:")[2]  # type: ignore[attr-defined]
        assert shown == set(re.findall(r"(?:^|; )\s*(\d) ", " ".join(documented.split())))


def test_names_of_models_and_data_are_accepted(prose: str) -> None:
    for name in data.NAMES:
        assert f"`{name}`" in prose
    for name in re.findall(r"`(zoo:[\w-]+)`", prose):
        find_model(name)


def test_nothing_measured_in_time_is_saved(page: nbformat.NotebookNode) -> None:
    """A second run saves the same page, colours and progress bars left out."""
    for cell in page.cells:
        for output in cell.get("outputs", []):
            text = output.get("text", "")
            assert not re.search(r"\d (?:ms|seconds|minutes|hours)\b", text), cell.id
            assert "\x1b" not in text, cell.id
            assert "━ " not in text, cell.id
            assert all(len(line) <= 72 for line in text.splitlines()), cell.id
