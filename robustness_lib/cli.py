"""The `robustness` command."""

from __future__ import annotations

from typing import Annotated

import typer

from robustness_lib.data import fetch

__all__ = ["app"]

app = typer.Typer(help="Attack, defend, certify: adversarial robustness you can run.", no_args_is_help=True)
data = typer.Typer(help="Data sets.", no_args_is_help=True)
app.add_typer(data, name="data")


@app.callback()
def _main() -> None:
    """Keeps `data` a subcommand while it is the only one."""


@data.command("fetch")
def data_fetch(name: Annotated[str, typer.Argument(help="mnist, fashion-mnist, cifar10 or gtsrb")]) -> None:
    """Download a data set into the cache, and name the files that hold it."""
    try:
        for path in fetch(name):
            typer.echo(path)
    except (FileNotFoundError, ValueError) as error:
        typer.echo(f"{error}", err=True)
        raise typer.Exit(1) from None
