"""A report on disk: dataclasses and numpy columns as plain JSON, and back."""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["SCHEMA", "decode", "encode"]

SCHEMA = 1


def _written(field: dataclasses.Field[Any]) -> bool:
    """Not what holds of this process or machine alone."""
    return bool(field.metadata.get("written", True))


def encode(thing: Any) -> Any:
    """Boolean columns become strings of 0 and 1 (a report of 1,000 images stays readable), other columns lists, and
    NaN, which JSON does not have, null."""
    if dataclasses.is_dataclass(thing):
        return {field.name: encode(getattr(thing, field.name)) for field in dataclasses.fields(thing)
                if _written(field)}
    if isinstance(thing, np.ndarray):
        if thing.dtype == np.bool_:
            return ["".join("01"[bit] for bit in row) for row in thing.tolist()] if thing.ndim == 2 else \
                "".join("01"[bit] for bit in thing.tolist())
        return [None if isinstance(value, float) and math.isnan(value) else value for value in thing.tolist()]
    if isinstance(thing, Mapping):
        return {key: encode(value) for key, value in thing.items()}
    if isinstance(thing, (tuple, list)):
        return [encode(value) for value in thing]
    return thing


def decode(cls: type[Any], text: str) -> Any:
    """The dataclass `cls` from what `encode` made of it, with its schema. Raises ValueError."""
    try:
        content = json.loads(text.removeprefix("\ufeff"))
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"this is not JSON ({error})") from error
    if not isinstance(content, dict) or "schema" not in content:
        raise ValueError("this is not a report of an evaluation: it has no schema number")
    if content["schema"] != SCHEMA:
        raise ValueError(f"this report has schema {content['schema']!r}, and this version of robustness_lib reads "
                         f"{SCHEMA}: read it with the version that wrote it, or evaluate again")
    try:
        return _decode(cls, content)
    except (KeyError, TypeError, AttributeError, IndexError, ValueError, OverflowError, RuntimeError) as error:
        raise ValueError(f"this report is damaged ({type(error).__name__}: {error})") from error


def _decode(kind: Any, value: Any) -> Any:
    origin = typing.get_origin(kind)
    if origin in (types.UnionType, typing.Union):
        inner = [part for part in typing.get_args(kind) if part is not type(None)]
        return None if value is None else _decode(inner[0], value)
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        # What reports have from some version on is not in older ones: its default stands for it.
        names = [field.name for field in dataclasses.fields(kind)
                 if field.init and _written(field) and (field.name in value or not field.metadata.get("added"))]
        missing = [name for name in names if name not in value]
        if missing or not isinstance(value, dict):
            raise KeyError(", ".join(missing))
        return kind(**{name: _decode(hints[name], value[name]) for name in names})  # type: ignore[operator]
    if origin is np.ndarray:
        return _column(value)
    if origin is tuple:
        if not isinstance(value, list):
            raise TypeError(f"a list is expected, and {value!r} found")
        return tuple(_decode(typing.get_args(kind)[0], entry) for entry in value)
    if origin is Mapping:
        return {str(key): _decode(typing.get_args(kind)[1], entry) for key, entry in value.items()}
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise TypeError(f"{kind.__name__} is expected, and {value!r} found")
    return value


def _column(value: Any) -> NDArray[Any]:
    if isinstance(value, str):
        if set(value) - {"0", "1"}:
            raise TypeError(f"a column of yes and no holds {value[:20]!r}")
        return np.array([bit == "1" for bit in value], dtype=np.bool_)
    if value and isinstance(value[0], str):
        return np.stack([_column(row) for row in value])
    real = any(entry is None or isinstance(entry, float) for entry in value)
    return np.array([math.nan if entry is None else entry for entry in value],
                    dtype=np.float64 if real else np.int64)
