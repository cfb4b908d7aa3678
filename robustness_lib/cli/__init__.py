"""The `robustness` command: each file holds one subcommand, and this one hands them on."""

from __future__ import annotations

import io
import sys

import typer

from robustness_lib.cli._check import check
from robustness_lib.cli._compare import compare
from robustness_lib.cli._data import data
from robustness_lib.cli._evaluate import evaluate_command
from robustness_lib.cli._gate import gate
from robustness_lib.cli._track import track_command
from robustness_lib.cli._train import train_command
from robustness_lib.cli._zoo import zoo

__all__ = ["app"]

app = typer.Typer(help="Attack, defend, certify: adversarial robustness you can run.", no_args_is_help=True,
                  pretty_exceptions_enable=False)
app.add_typer(data, name="data")
app.add_typer(zoo, name="zoo")
app.command("check")(check)
app.command("evaluate")(evaluate_command)
app.command("compare")(compare)
app.command("gate")(gate)
app.command("track")(track_command)
app.command("train")(train_command)


@app.callback()
def _main() -> None:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal without ∞ and ε must not end a finished run
            stream.reconfigure(errors="replace")
