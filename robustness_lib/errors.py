"""When somebody else's code fails: one line that says what and where, in place of a traceback through ours."""

from __future__ import annotations

import sys
import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["blame", "callers_level", "described", "in_words", "one_line", "place", "said_to_be_at",
           "spoken"]

_STANDARD = tuple({sysconfig.get_path("stdlib"), str(Path(sysconfig.get_path("stdlib")).resolve())})
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
        raise ValueError(f"{what}: {described(error)}") from error


def in_words(error: BaseException) -> bool:
    """Whether it says all in its own words, as what this package raises about its input does: a ValueError, TypeError
    or OSError that was raised here, or by Python itself."""
    if not isinstance(error, (ValueError, TypeError, OSError)):
        return False
    frames = traceback.extract_tb(error.__traceback__)
    if not frames or frames[-1].filename.startswith(_OURS):
        return True
    return frames[-1].filename.startswith(_STANDARD) and "site-packages" not in frames[-1].filename


def described(error: BaseException) -> str:
    """Kind, message and place, on one line. Of an error of ours, the place of its cause."""
    at = place(error) or (place(error.__cause__) if error.__cause__ else "")
    return f"{one_line(error)}{f' ({at})' if at else ''}"


def one_line(error: BaseException) -> str:
    """Kind and message, as the last line of a traceback has them, on one line and not endless."""
    if isinstance(error, SystemExit):
        return 'it calls sys.exit; put what is to run as a script under if __name__ == "__main__"'
    text = str(error)
    if "TorchScript interpreter" in text:  # a traceback of its own, of which the last line says what is wrong
        text = text.strip().splitlines()[-1].removeprefix(f"{type(error).__name__}: ")
    said = " ".join(f"{type(error).__name__}: {text}".split()).removesuffix(":")
    return said if len(said) <= 300 else said[:297] + "..."


def spoken(error: BaseException) -> str:
    """Kind and message on one line; where there is no message, kind and place."""
    return one_line(error) if str(error).strip() else described(error)


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


def callers_level() -> int:
    """The `stacklevel` with which `warnings.warn`, called where this is, names the line that called this package."""
    frame, level, made = sys._getframe(1), 1, ("<string>", "__init__")  # made: a dataclass's
    while frame.f_back is not None and (frame.f_code.co_filename.startswith(_OURS)
                                        or (frame.f_code.co_filename, frame.f_code.co_name) == made):
        frame, level = frame.f_back, level + 1
    return level
