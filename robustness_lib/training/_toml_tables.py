"""From tables of TOML to objects: every key is known, of its type, and named where it is wrong."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from robustness_lib.errors import said_to_be_at
from robustness_lib.threat import ThreatModel

__all__ = ["check_known", "check_type", "make", "threat"]

_WORDS: dict[Any, str] = {int: "a whole number", float: "a number", bool: "true or false", str: "text in quotes",
                          list: "a list", dict: "a table"}


def make(where: str, kinds: Mapping[str, type[Any]], table: Mapping[str, Any]) -> Any:
    """The dataclass that the entry `kind` names, with the other entries as its fields. Raises ValueError."""
    entries = dict(table)
    kind = entries.pop("kind", None)
    if not isinstance(kind, str) or kind not in kinds:
        raise ValueError(f"{where} needs a kind, one of {', '.join(kinds)}; found {kind!r}{_near(kind, kinds)}")
    fields = [field for field in dataclasses.fields(kinds[kind]) if not field.name.startswith("_")]
    check_known(f"{where} {kind}", entries, [f.name for f in fields])
    missing = [f.name for f in fields if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
               and f.name not in entries]
    if missing:
        raise ValueError(f"{where} {kind} needs {', '.join(missing)}")
    hints = typing.get_type_hints(kinds[kind])
    for key, value in entries.items():
        if hints[key] is ThreatModel:
            entries[key] = threat(f"{where} threat", value)
        else:
            check_type(f"{where} {key}", value, hints[key])
    build: Callable[..., Any] = kinds[kind]
    with said_to_be_at(f"{where} {kind}"):
        return build(**entries)


def threat(where: str, value: object) -> ThreatModel:
    check_type(where, value, str)
    with said_to_be_at(where):
        return ThreatModel.parse(str(value))


def check_type(where: str, value: object, hint: Any) -> None:
    """TOML knows text, whole and other numbers, true and false, lists and tables; a whole number will do for a number.
    Raises ValueError."""
    choices = [choice for choice in _choices(hint) if choice is not type(None)]
    if not any(_fits(value, choice) for choice in choices):
        raise ValueError(f"{where} must be {' or '.join(map(_words, choices))}; found {value!r}")


def check_known(where: str, table: Mapping[str, Any], names: Iterable[str]) -> None:
    """Raises ValueError for a key that is none of `names`."""
    names = sorted(names)
    for key in table:
        if key not in names:
            raise ValueError(f"{where} has no setting {key!r}{_near(key, names) or '.'} It takes {', '.join(names)}")


def _choices(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if typing.get_origin(hint) in (types.UnionType, typing.Union) else (hint,)


def _fits(value: object, hint: Any) -> bool:
    kind = typing.get_origin(hint) or hint
    if kind is typing.Literal:
        return value in typing.get_args(hint)
    if isinstance(value, bool):  # which Python takes for a whole number too
        return kind is bool
    if kind is float:
        return isinstance(value, int | float)
    if kind in (list, Sequence):
        return isinstance(value, list) and all(_fits(item, inner) for inner in typing.get_args(hint) for item in value)
    return isinstance(value, kind)


def _words(hint: Any) -> str:
    kind = typing.get_origin(hint) or hint
    if kind is typing.Literal:
        return f"one of {', '.join(typing.get_args(hint))}"
    if kind in (list, Sequence):
        inner = typing.get_args(hint)
        return f"a list of {_words(inner[0]).partition(' ')[2]}s" if inner else "a list"
    return _WORDS[kind]


def _near(word: object, names: Iterable[str]) -> str:
    near = difflib.get_close_matches(str(word), list(names), 1)
    return f"; did you mean {near[0]}?" if near else ""
