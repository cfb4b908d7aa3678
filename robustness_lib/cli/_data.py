"""robustness data: data sets."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from robustness_lib.cli._errors import input_errors
from robustness_lib.cli._options import JsonOption
from robustness_lib.data import SPLITS, Holding, fetch, inventory

__all__ = ["data"]

data = typer.Typer(help="Data sets.", no_args_is_help=True)


@data.command("fetch")
def data_fetch(name: Annotated[str, typer.Argument(help="mnist, fashion-mnist, cifar10 or gtsrb")]) -> None:
    """Download a data set into the cache, and name the files that hold it."""
    with input_errors():
        for path in fetch(name):
            typer.echo(path)


@data.command("list")
def data_list(as_json: JsonOption = False) -> None:
    """List the sets that are known by name, their sizes, and which are here."""
    with input_errors():
        held = inventory()
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(one) | {"folder": one.folder and str(one.folder)} for one in held],
                              indent=1, ensure_ascii=False))
        return
    table = Table("name", "classes", *SPLITS, "where")
    for one in held:
        table.add_row(one.name, str(one.classes), *(f"{one.sizes[split]:,}" if split in one.sizes else "?"
                                                    for split in SPLITS), escape(_where(one)))
    table.caption = "An .npz file or a folder of images is named by its path instead."
    Console().print(table)


def _where(one: Holding) -> str:
    if one.drawn:
        return "drawn here"
    if one.problem:
        return one.problem
    if one.here:
        return str(one.folder)
    part = "" if one.folder is None else f"only {' and '.join(one.sizes)} in {one.folder}; "
    return f"{part}to be fetched: robustness data fetch {one.name}"
