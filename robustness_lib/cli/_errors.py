"""What goes wrong in a command, as one line on stderr and an exit code. Needs no torch."""

from __future__ import annotations

import contextlib
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import typer

from robustness_lib.errors import described, in_words

__all__ = ["any_errors", "failures", "input_errors", "prints_to_stderr", "refuse", "work_kept"]


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
def any_errors(debug: bool) -> Iterator[None]:
    """As `input_errors`, for whatever is raised inside, by a user's model above all: what is not in words already gets
    its kind and its place. debug: after its traceback."""
    try:
        yield
    except (typer.Exit, typer.Abort):  # the command's own end
        raise
    except (Exception, SystemExit) as error:
        if debug:
            traceback.print_exception(error)
        refuse(str(error) if in_words(error) else described(error))


@contextlib.contextmanager
def failures(what: str, interrupted: str) -> Iterator[None]:
    """Whatever a user's model raises in `what` becomes a ValueError of one line, with its place; Ctrl-C the words
    `interrupted` and exit code 130."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo(interrupted, err=True)
        raise typer.Exit(130) from None
    except (typer.Exit, typer.Abort):
        raise
    except (Exception, SystemExit) as error:
        if in_words(error):
            raise
        raise ValueError(f"the {what} fails: {described(error)}") from error


@contextlib.contextmanager
def work_kept(folder: Path) -> Iterator[None]:
    """Of what cannot be written, on a full disk above all, that nothing else is lost."""
    try:
        yield
    except OSError as error:
        if not in_words(error):  # a user's model cannot find its file, or the like
            raise
        raise OSError(f"{error}. The work so far is kept in {folder}: the same command goes on where this one "
                      f"was.") from error


@contextlib.contextmanager
def prints_to_stderr() -> Iterator[None]:
    """Whatever a user's model prints stays off stdout, which belongs to the command's own answer."""
    with contextlib.redirect_stdout(sys.stderr):
        yield
