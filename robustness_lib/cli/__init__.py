"""The `robustness` command: each file holds one subcommand, and this one hands them on.

A subcommand is imported when it is called: `gate`, `compare` and `track` read reports and need no torch, and `doctor`
must run where torch cannot be imported.
"""

from __future__ import annotations

import importlib
import io
import sys
from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperGroup

from robustness_lib.streams import lasting_streams

__all__ = ["app"]

# Each by its module and what it is called there: a function, or an app of several.
_COMMANDS = {
    "check": ("_check", "check"), "evaluate": ("_evaluate", "evaluate_command"),
    "certify": ("_certify", "certify_command"), "verify": ("_verify", "verify_command"),
    "compare": ("_compare", "compare"), "gate": ("_gate", "gate"), "track": ("_track", "track_command"),
    "train": ("_train", "train_command"), "data": ("_data", "data"), "zoo": ("_zoo", "zoo"),
    "doctor": ("_doctor", "doctor_command"),
}


_ANYTHING = {"allow_extra_args": True, "ignore_unknown_options": True}
_BROKEN = "(Cannot be run here: `robustness doctor` says why.)"


def _broken(error: ImportError) -> Callable[[], None]:
    """What stands in for a command that cannot be imported, in the list of them too."""
    def refuse() -> None:
        typer.echo(f"this command cannot be run here ({error}); `robustness doctor` says what to do", err=True)
        raise typer.Exit(2)

    refuse.__doc__ = _BROKEN
    return refuse


class _ImportedWhenCalled(TyperGroup):
    def main(self, *args: Any, **more: Any) -> Any:
        """A reader that stops reading changes no exit code. Commands find the words they were called with in
        ctx.obj."""
        given = more.get("args", args[0] if args else None)
        more.setdefault("obj", tuple(sys.argv[1:] if given is None else given))
        with lasting_streams():
            return super().main(*args, **more)

    def list_commands(self, ctx: Any) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in _COMMANDS:
            return None
        module, attribute = _COMMANDS[cmd_name]
        try:
            found = getattr(importlib.import_module(f"robustness_lib.cli.{module}"), attribute)
        except ImportError as error:
            found = _broken(error)
        if not isinstance(found, typer.Typer):
            alone = typer.Typer()
            alone.command(cmd_name, context_settings=_ANYTHING if found.__doc__ == _BROKEN else None)(found)
            found = alone
        command = typer.main.get_command(found)
        command.name = cmd_name
        return command


app = typer.Typer(cls=_ImportedWhenCalled, help="Attack, defend, certify: adversarial robustness you can run.",
                  no_args_is_help=True, pretty_exceptions_enable=False)


@app.callback()
def _main() -> None:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal without ∞ and ε must not end a finished run
            stream.reconfigure(errors="replace")
