"""A plan that fits into so many minutes is kept beside the state: a second measurement would choose another."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer

from robustness_lib.files import read_text, write_whole

__all__ = ["kept_plan", "plan_file"]


def plan_file(state: Path) -> Path:
    return state.with_name(f"{state.name}-plan.json")


def kept_plan(state: Path, asked: dict[str, Any], make: Callable[[], Any], *names: str) -> tuple[Any, ...]:
    """The attributes of these names, of the plan that a killed run made for what was asked, or else of a new one; said
    on standard error, in words."""
    file = plan_file(state)
    if file.exists():
        kept = json.loads(read_text(file))
        if kept["asked"] == asked:
            typer.echo(f"Going on as planned: {kept['words']}", err=True)
            return tuple(kept[name] for name in names)
    fits = make()
    typer.echo(str(fits), err=True)
    chosen = {name: getattr(fits, name) for name in names}
    write_whole(file, json.dumps({"asked": asked, "words": str(fits)} | chosen).encode())
    return tuple(chosen.values())
