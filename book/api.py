"""Write the pages of the API reference, book/api/*.md, from the docstrings of what each room of the library hands on.

`book/build.py` calls it before each build. The pages are not kept in the repository: they would say everything twice.
"""

from __future__ import annotations

import importlib
import inspect
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOMS = ("threat", "attacks", "losses", "data", "models", "training", "defenses", "certify", "evaluation", "reports",
         "diagnosis", "querying", "statistics", "plotting", "widgets", "notebook")
FOLDER = Path(__file__).resolve().parent / "api"


def write(folder: Path = FOLDER) -> None:
    """One page for each room, and one that lists them; what stood there before goes."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for room in ROOMS:
        (folder / f"{room}.md").write_text(page(room), encoding="utf-8")
    (folder / "index.md").write_text(contents(), encoding="utf-8")


def public(room: str) -> list[tuple[str, Any]]:
    """What a room hands on, by name, in the order of the alphabet."""
    module = importlib.import_module(f"robustness_lib.{room}")
    return [(name, getattr(module, name)) for name in sorted(module.__all__, key=str.lower)]


def contents() -> str:
    lines = ["# API reference", "", "What each room of the library hands on, in the words of its docstrings. ε is in "
             "pixel units of [0, 1]; N counts images, K classes.", ""]
    for room in ROOMS:
        names = ", ".join(f"[`{name}`](#{anchor(room, name)})" for name, _ in public(room))
        lines += [f"**[`robustness_lib.{room}`]({room}.md)**: {sentence(module_doc(room))}", "", names, ""]
    return "\n".join(lines)


def page(room: str) -> str:
    lines = [f"# robustness_lib.{room}", "", prose(module_doc(room)), ""]
    for name, thing in public(room):
        lines += [f"({anchor(room, name)})=", f"## {name}", "", *entry(name, thing)]
    return "\n".join(lines)


def entry(name: str, thing: Any) -> Iterator[str]:
    """The signature, the docstring, and of a class its methods and properties."""
    if callable(thing) and not is_alias(thing):
        yield from ("```python", *signature(name, thing), "```", "")
    if is_alias(thing):
        yield from ("```python", f"{name} = {in_words(str(thing))}", "```", "")
    elif isinstance(thing, (dict, tuple)):  # a table: its own words, not those of its type
        yield from ("One of: " + ", ".join(f"`{each}`" for each in thing) + ".", "")
    else:
        yield from (prose(inspect.getdoc(thing) or ""), "")
    if inspect.isclass(thing):
        for method, member in methods(thing):
            call = signature(f".{method}", member) if inspect.isfunction(member) else [f".{method}"]
            yield from ("```python", *call, "```", "", prose(inspect.getdoc(member) or ""), "")


def methods(kind: type) -> list[tuple[str, Any]]:
    """Public methods and properties that have something to say, its own and those of bases in this library."""
    found: dict[str, Any] = {}
    for base in reversed(kind.__mro__):
        if base.__module__.startswith("robustness_lib"):
            found |= {name: member for name, member in vars(base).items() if not name.startswith("_")}
    taken = {name: member.__func__ if isinstance(member, (classmethod, staticmethod)) else member
             for name, member in found.items()}
    return [(name, member) for name, member in sorted(taken.items())
            if (inspect.isfunction(member) or isinstance(member, property)) and inspect.getdoc(member)]


def is_alias(thing: Any) -> bool:
    """A type that is written out under a name, as `Literal["eval", "train"]`: it has no docstring of its own."""
    return not (inspect.isclass(thing) or inspect.isroutine(thing)) and not isinstance(thing, (dict, tuple))


def signature(name: str, thing: Any) -> list[str]:
    """One line, or one for each argument where that would be longer than a phone is wide."""
    parts = arguments(thing)
    whole = f"{name}({', '.join(parts)})"
    return [whole] if len(whole) <= 64 else [f"{name}(", *(f"    {part}," for part in parts), ")"]


def arguments(thing: Any) -> list[str]:
    """Each with its type and default, as they are written in the source; a star before those that need their names."""
    try:
        found = inspect.signature(thing).parameters.values()
    except (TypeError, ValueError):
        return ["..."]
    written: list[str] = []
    for each in found:
        if each.name in ("self", "cls"):
            continue
        if each.kind is each.KEYWORD_ONLY and not any(part.startswith("*") for part in written):
            written.append("*")
        star = {each.VAR_POSITIONAL: "*", each.VAR_KEYWORD: "**"}.get(each.kind, "")
        kind = "" if each.annotation is each.empty else f": {in_words(each.annotation)}"
        default = "" if each.default is each.empty else f" = {in_words(each.default, quoted=True)}"
        written.append(f"{star}{each.name}{kind}{default}")
    return written


def in_words(value: Any, *, quoted: bool = False) -> str:
    """A type or a default as its source has it, without the places where things are defined."""
    if isinstance(value, str) and not quoted:
        text = value.strip("'\"")
    else:
        text = value.__name__ if inspect.isclass(value) or inspect.isroutine(value) else repr(value)
        text = "..." if "<" in text else text  # no source has such words: a default that is made elsewhere
    return re.sub(r"\b(?:robustness_lib|torch|typing|collections)(?:\.\w+)*\.(?=[A-Z])", "", text)


def anchor(room: str, name: str) -> str:
    kind = "-class" if name[0].isupper() else ""  # labels do not tell capitals from small letters
    return f"api-{room}-{name}{kind}".replace("_", "-").lower()


def module_doc(room: str) -> str:
    return inspect.getdoc(importlib.import_module(f"robustness_lib.{room}")) or ""


def sentence(text: str) -> str:
    return prose(text.split("\n\n")[0]).rstrip(".") + "."


def prose(docstring: str) -> str:
    """A docstring as Markdown: its words as they are, its sections (Args, Returns, Raises) as lists."""
    lines, section = [], False
    for line in docstring.splitlines():
        if re.fullmatch(r"(Args|Returns|Raises|Yields):", line):
            section = True
            lines += ["", f"*{line[:-1]}*", ""]
        elif section and re.match(r"    \S", line):
            lines.append(f"- {escaped(line.strip())}")
        elif section and line.startswith("     "):
            lines.append(f"  {escaped(line.strip())}")
        else:
            section = section and not line
            lines.append(escaped(line.strip()))
    return "\n".join(lines).strip()


def escaped(line: str) -> str:
    """What Markdown would read as its own signs, outside `code`."""
    parts = re.split(r"(`[^`]*`)", line)
    return "".join(part if part.startswith("`") else re.sub(r"([\\*_<>\[\]{}$|#~])", r"\\\1", part) for part in parts)


if __name__ == "__main__":
    write()
