"""What goes on, as lines on standard error, where no terminal shows a bar that moves."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

__all__ = ["ImagesDone", "Lines", "images_done", "lines_without_terminal", "on_terminal"]

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


class ImagesDone:
    """Called with the number of images that are done and the step at hand, it moves a bar, or says a line when a step
    first begins. standing: what else its lines say; may be set."""

    def __init__(self, n: int, lines: Lines, progress: Progress) -> None:
        self.n, self.standing = n, ""
        self._lines, self._progress = lines, progress
        self._task = progress.add_task("clean", total=n)
        self._begun: set[str] = set()

    def __call__(self, done: int, step: str) -> None:
        self._progress.update(self._task, completed=done, description=step)
        words = f"{step}: {done:,} of {self.n:,} images{self.standing}"
        if step in self._begun or (step == "done" and done < self.n):  # it is, of every part
            self._lines.words = words
        else:
            self._begun.add(step)
            self._lines.say(words)


@contextlib.contextmanager
def images_done(n: int, lines: Lines, speaks: bool = True) -> Iterator[ImagesDone]:
    """A progress bar on stderr, from the first process, where somebody can see it move; lines elsewhere, one for each
    step when it first begins and one a minute. speaks: false for all but the first of several processes."""
    columns = (TextColumn("{task.description:<12}"), BarColumn(), MofNCompleteColumn(), TextColumn("images"),
               TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True,
                  disable=not (speaks and on_terminal())) as progress:
        yield ImagesDone(n, lines, progress)
