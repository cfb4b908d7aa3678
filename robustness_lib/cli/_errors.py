"""What goes wrong in a command, as one line on stderr and an exit code. Needs no torch."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import NoReturn

import typer

from robustness_lib.errors import one_line, place

__all__ = ["failures", "input_errors", "prints_to_stderr", "refuse"]


def refuse(words: str) -> NoReturn:
    """One line to stderr, and the exit code for wrong input."""
    typer.echo(" ".join(words.split()), err=True)
    raise typer.Exit(2)


@contextlib.contextmanager
def input_errors() -> Iterator[None]:
    """What was wrong with the input becomes one line on stderr and exit code 2."""
    try:
        yield
    except OSError as error:
        refuse(str(error))
    except (ValueError, TypeError) as error:
        refuse(str(error))


@contextlib.contextmanager
def failures(what: str, interrupted: str) -> Iterator[None]:
    """Whatever a user's model raises in `what` becomes a ValueError of one line, with its place; Ctrl-C the words
    `interrupted` and exit code 130."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo(interrupted, err=True)
        raise typer.Exit(130) from None
    except (ValueError, TypeError, OSError, typer.Exit):  # ours, in words already
        raise
    except Exception as error:
        at = place(error)
        raise ValueError(f"the {what} fails: {one_line(error)}{f' ({at})' if at else ''}") from error


@contextlib.contextmanager
def prints_to_stderr() -> Iterator[None]:
    """Whatever a user's model prints stays off stdout, which belongs to the command's own answer."""
    with contextlib.redirect_stdout(sys.stderr):
        yield
