"""robustness zoo: the models that come with this package."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from robustness_lib.cli._errors import input_errors
from robustness_lib.cli._options import JsonOption
from robustness_lib.models import card, list_pretrained
from robustness_lib.training import list_recipes

__all__ = ["zoo"]

zoo = typer.Typer(help="Models that come with this package.", no_args_is_help=True)


@zoo.command("list")
def zoo_list(as_json: JsonOption = False) -> None:
    """List them: data, architecture, accuracy without an attack, and under attack or certified."""
    cards = [card(name) for name in list_pretrained()]
    if as_json:
        typer.echo(json.dumps([_brief(about) for about in cards], indent=1, ensure_ascii=False))
        return
    table = Table(Column("name", no_wrap=True), "data", "architecture", "trained", "clean",
                  Column("attacked or certified", no_wrap=True))
    for about in cards:
        brief = _brief(about)
        attacked = "\n".join(f"{name} {_percent(figures)}" for name, figures in brief["robust"].items())
        table.add_row(*map(escape, (brief["name"], brief["data"], brief["architecture"], brief["training"],
                                    _percent(brief["clean"]), attacked)))
    console = Console()
    console.print(table)
    console.print("robustness zoo show NAME says how that was measured; --model zoo:NAME names one elsewhere.",
                  highlight=False)


@zoo.command("show")
def zoo_show(name: Annotated[str, typer.Argument(help="as in zoo list", metavar="NAME")],
             as_json: JsonOption = False) -> None:
    """Show all that is known of one: architecture, recipe, and how its accuracy was measured.

    Exit codes: 0 shown; 2 there is no such model.
    """
    with input_errors():
        about = card(name.removeprefix("zoo:"))
    if as_json:
        typer.echo(json.dumps(about, indent=1, ensure_ascii=False))
        return
    table = Table(Column(no_wrap=True), Column(), show_header=False)
    for key, value in about.items():
        if key != "accuracy" and value != {}:
            table.add_row(key, escape(_words(value)))
    for threat, figures in about["accuracy"].items():
        low, high = figures["interval_95"]
        table.add_row(f"accuracy, {threat}", f"{_percent(figures)} (95 %: {100 * low:.1f}–{100 * high:.1f}, "
                                             f"n = {figures['n']:,})")
    console = Console()
    console.print(table)
    if about["name"] in list_recipes():
        console.print(f"robustness train {about['name']} trains such a one by the same recipe.", highlight=False)


def _words(value: Any) -> str:
    """What a card says, as one would write it: inner tables have a line each, after what is plain."""
    if not isinstance(value, dict):
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    plain = ", ".join(f"{key} {_words(inner)}" for key, inner in value.items() if not isinstance(inner, dict))
    tables = [f"{key}: {_words(inner)}" for key, inner in value.items() if isinstance(inner, dict)]
    return "\n".join([*([plain] if plain else []), *tables])


def _brief(about: dict[str, Any]) -> dict[str, Any]:
    accuracy = about["accuracy"]
    data = about["data"]
    return {"name": about["name"], "data": data.split("'")[1] if "'" in data else data,
            "architecture": about["architecture"]["builder"], "training": about["recipe"].get("training", ""),
            "clean": accuracy.get("clean"), "robust": {k: v for k, v in accuracy.items() if k != "clean"}}


def _percent(figures: dict[str, Any] | None) -> str:
    return "not measured" if figures is None else f"{100 * figures['accuracy']:.1f} %"
