"""Who calls the library's own attack in an exercise whose point is to write one."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import robustness_lib

__all__ = ["LibraryCalls"]

_PACKAGE = Path(robustness_lib.__file__).parent


class LibraryCalls:
    """Notes each call into some rooms of the library while a learner's function runs, however it was imported.

    rooms: files or folders of the package, "attacks" or "training/objectives.py". What stands in `called` afterwards
    are the modules, as one would import them.
    """

    def __init__(self, rooms: Iterable[str]) -> None:
        self._places = tuple(str(_PACKAGE / room) for room in rooms)
        self.called: set[str] = set()

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Note what is called in the block. A profiler that is at work meanwhile is interrupted."""
        if not self._places:
            yield
            return
        before = sys.getprofile()
        sys.setprofile(self._look)
        try:
            yield
        finally:
            sys.setprofile(before)

    def watch(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, with its calls noted."""
        def watched(*given: Any, **named: Any) -> Any:
            with self.noted():
                return function(*given, **named)

        return watched

    def _look(self, frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(self._places):
            path = Path(frame.f_code.co_filename).relative_to(_PACKAGE.parent).with_suffix("")
            self.called.add(".".join(path.parts))
