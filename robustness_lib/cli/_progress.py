"""What goes on, as lines on standard error, where no terminal shows a bar that moves."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator

import typer

__all__ = ["Lines", "lines_without_terminal", "on_terminal"]

_MINUTE = 60.0  # seconds


def on_terminal() -> bool:
    """One that can move a bar: others show nothing of it."""
    return sys.stderr.isatty() and os.environ.get("TERM", "").lower() not in ("dumb", "unknown")


class Lines:
    """words: what goes on now; may be set. speaks: whether anything is printed."""

    def __init__(self, words: str, speaks: bool) -> None:
        self.words, self.speaks = words, speaks
        self.over = threading.Event()
        self._began = self._last = time.monotonic()

    def say(self, words: str) -> None:
        """From now on these words hold; printed with the time that has passed."""
        self.words, self._last = words, time.monotonic()
        if self.speaks:
            from robustness_lib.evaluation.planning import duration_words  # only now: `train` needs no evaluation

            typer.echo(f"{words}, after {duration_words(self._last - self._began)}", err=True)

    def each_minute(self) -> None:
        """Say the words again for every minute in which nothing was said, until it is over."""
        while not self.over.wait(max(0.0, self._last + _MINUTE - time.monotonic())):
            if time.monotonic() >= self._last + _MINUTE:
                self.say(self.words)


@contextlib.contextmanager
def lines_without_terminal(words: str, speaks: bool = True) -> Iterator[Lines]:
    """Inside, at least a line a minute. speaks: false for all but the first of several processes."""
    lines = Lines(words, speaks and not on_terminal())
    clock = threading.Thread(target=lines.each_minute, daemon=True)
    if lines.speaks:
        clock.start()
    try:
        yield lines
    finally:
        lines.over.set()
        if lines.speaks:
            clock.join()
