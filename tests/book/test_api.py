"""The API reference: every public name is in it, with words of its own, and Markdown takes them for nothing else."""

from __future__ import annotations

import inspect
import re
from collections import Counter
from pathlib import Path
from typing import Literal

import pytest
import yaml
from from_book import from_book

import robustness_lib

ROOT = Path(__file__).resolve().parents[2]
NOT_FOR_READERS = {"cli", "grading"}  # what people type at a prompt, and what checks exercises


api = from_book("api")
NAMES = [(room, name) for room in api.ROOMS for name, _ in api.public(room)]


def test_every_room_is_in_it() -> None:
    folder = Path(robustness_lib.__file__).parent
    rooms = {path.parent.name for path in folder.glob("*/__init__.py")} - NOT_FOR_READERS
    assert rooms <= set(api.ROOMS)


@pytest.mark.parametrize(("room", "name"), NAMES, ids=[".".join(one) for one in NAMES])
def test_every_public_name_says_what_it_is(room: str, name: str) -> None:
    thing = dict(api.public(room))[name]
    if not (api.is_alias(thing) or isinstance(thing, (dict, tuple))):
        assert len((inspect.getdoc(thing) or "").split()) >= 4, f"robustness_lib.{room}.{name} has no docstring"


def test_the_pages_are_those_of_the_table_of_contents(tmp_path: Path) -> None:
    api.write(tmp_path / "api")
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    chapters = [chapter for part in toc["parts"] for chapter in part["chapters"]]
    index = next(chapter for chapter in chapters if chapter["file"] == "book/api/index")
    named = [page["file"].rpartition("/")[2] for page in index["sections"]]
    assert named == list(api.ROOMS)
    assert {path.stem for path in (tmp_path / "api").iterdir()} == {"index", *named}
    anchors = re.findall(r"^\((api-.*)\)=$", "".join(p.read_text() for p in (tmp_path / "api").iterdir()), flags=re.M)
    assert len(anchors) == len(NAMES)
    assert max(Counter(anchors).values()) == 1


def test_words_that_look_like_markdown_stay_words() -> None:
    assert api.prose("x*y, `a*b`, [0, 1], x_adv, |m|") == r"x\*y, `a*b`, \[0, 1\], x\_adv, \|m\|"
    assert api.prose("One.\n\nArgs:\n    x: an image,\n        or two.\n    y: a label.\n\nMore.") == (
        "One.\n\n\n*Args*\n\n- x: an image,\n  or two.\n- y: a label.\n\nMore.")


def test_signatures_are_as_in_the_source() -> None:
    def attack(x: int, *, mode: Literal["a"] = "a", eps: float = 0.5, **more: object) -> None: ...

    assert api.signature("attack", attack) == [
        "attack(", "    x: int,", "    *,", "    mode: Literal['a'] = 'a',", "    eps: float = 0.5,",
        "    **more: object,", ")"]
    assert api.signature("f", lambda x: x) == ["f(x)"]
