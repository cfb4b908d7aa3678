"""When somebody else's code fails: one line that says what and where, in place of a traceback through ours."""

from __future__ import annotations

import sys
import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["blame", "one_line", "place", "said_to_be_at"]

_PATHS = [Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib")]
_LIBRARIES = tuple({str(path) for path in _PATHS} | {str(path.resolve()) for path in _PATHS})
_OURS = str(Path(__file__).resolve().parent)


@contextmanager
def blame(what: str) -> Iterator[None]:
    """Any exception inside, sys.exit too, becomes a ValueError "`what`: its kind and message (file, line)", which has
    it as its cause."""
    try:
        yield
    except (Exception, SystemExit) as error:
        if isinstance(error, SystemExit):
            said = 'it calls sys.exit; put what is to run as a script under if __name__ == "__main__"'
        else:
            said = one_line(error)
        at = place(error)
        raise ValueError(f"{what}: {said}{f' ({at})' if at else ''}") from error


def one_line(error: BaseException) -> str:
    """Kind and message, as the last line of a traceback has them, on one line and not endless."""
    said = " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")
    return said if len(said) <= 300 else said[:297] + "..."


def place(error: BaseException) -> str:
    """File and line where it arose: the last place outside Python and installed libraries; else the last outside
    PyTorch and this package; "" where there is none."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}, line {error.lineno}"
    # Where torch failed it is loaded; to import it for this would cost a command that only reads reports its torch.
    torch = getattr(sys.modules.get("torch"), "__file__", None)
    besides = ("<", _OURS, str(Path(torch).parent) if torch else _OURS)
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(besides)]
    theirs = [f for f in frames if not f.filename.startswith(_LIBRARIES)] or frames
    return f"{theirs[-1].filename}, line {theirs[-1].lineno}" if theirs else ""


@contextmanager
def said_to_be_at(where: str) -> Iterator[None]:
    """What is wrong inside is said to be wrong at `where`."""
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{where}: {error}") from error
    except (ValueError, TypeError, OSError) as error:
        raise ValueError(f"{where}: {error}") from error
