"""Who calls the library's own attack in an exercise whose point is to write one."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import robustness_lib

__all__ = ["ATTACKING", "LibraryCalls"]

# Rooms and files in which the library attacks, or has parts of an attack.
ATTACKING = ("attacks", "threat.py", "norm_balls.py", "querying", "evaluation")

_PACKAGE = Path(robustness_lib.__file__).parent


class LibraryCalls:
    """Notes each call into some rooms of the library while a learner's function runs, however it was imported.

    rooms: files or folders of the package, "attacks" or "training/objectives.py", or one function of a file,
    "grading/given/square_attack.py:accept". What stands in `called` afterwards are the modules, as one would import
    them, or the functions. `switched_off` says whether somebody took away or replaced the profiler that notes them.
    """

    def __init__(self, rooms: Iterable[str]) -> None:
        named = [room.partition(":")[::2] for room in rooms]
        self._places = tuple(str(_PACKAGE / room) for room, function in named if not function)
        self._functions = {(str(_PACKAGE / room), function) for room, function in named if function}
        self.called: set[str] = set()
        self.switched_off = False

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Note what is called in the block, also in threads that it starts. A profiler that is at work meanwhile is
        interrupted."""
        if not self._places and not self._functions:
            yield
            return
        before = sys.getprofile(), threading.getprofile()
        threading.setprofile(self._look)
        sys.setprofile(self._look)
        try:
            yield
        finally:
            self.switched_off |= sys.getprofile() != self._look
            sys.setprofile(before[0])
            threading.setprofile(before[1])

    def _look(self, frame: FrameType, event: str, argument: Any) -> None:
        if event == "c_call" and argument is sys.setprofile:
            self.switched_off |= frame.f_code.co_filename != __file__
        if event != "call":
            return
        file, function = frame.f_code.co_filename, frame.f_code.co_qualname
        if self._places and file.startswith(self._places):
            self.called.add(_module(file))
        elif (file, function) in self._functions:
            self.called.add(f"{_module(file)}.{function}")


def _module(file: str) -> str:
    return ".".join(Path(file).relative_to(_PACKAGE.parent).with_suffix("").parts)
