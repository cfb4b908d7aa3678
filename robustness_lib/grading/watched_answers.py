"""A learner's functions as a check calls them: with a note of what they returned and whom they called, and with nothing
left switched over behind them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from traceback import extract_tb, walk_tb
from types import CodeType
from typing import Any

import numpy as np
from torch import Tensor

from robustness_lib.grading.library_calls import LibraryCalls
from robustness_lib.grading.torch_settings import switch_back

__all__ = ["WatchedAnswers"]

_NOTHING = object()


class WatchedAnswers:
    """The functions that an exercise's step is given, for one run of its check.

    forbidden: the library's rooms and functions that they may not call, as `LibraryCalls` takes them; `calls` knows
    afterwards which were called.
    """

    def __init__(self, forbidden: Iterable[str]) -> None:
        self.calls = LibraryCalls(forbidden)
        self._returned: Any = _NOTHING
        self._wrapper: CodeType | None = None

    def watch(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, watched. Where it is a generator, it is run to its end at once."""
        def answer(*given: Any, **named: Any) -> Any:
            self._returned = _NOTHING
            try:
                with self.calls.noted():
                    found = function(*given, **named)
                    self._returned = list(found) if isinstance(found, Iterator) else found
            finally:
                switch_back()
            return self._returned

        self._wrapper = answer.__code__
        return answer

    def failure(self, error: BaseException) -> str:
        """An exception in words: with the last line of the learner's own code that it came from or, where it was the
        check that could not go on, with what it was given back."""
        what = type(error).__name__ + (f": {error}" if str(error) else "")
        own = [line for line in extract_tb(error.__traceback__) if "ipython" in line.filename.lower()
               or "ipykernel" in line.filename]
        if own and own[-1].line:
            return f"your code raises {what} (at: {own[-1].line})"
        if own or self._returned is _NOTHING or any(frame.f_code is self._wrapper
                                                    for frame, _ in walk_tb(error.__traceback__)):
            return f"your code raises {what}"
        if self._returned is None:
            return "returns None: is there a `return` at the end?"
        return f"the check cannot read what your function returns ({_described(self._returned)}): {what}"


def _described(found: Any) -> str:
    """The type of a value, with its shape or its parts where it has any."""
    name = type(found).__name__
    if isinstance(found, Tensor | np.ndarray):
        return f"{name} of shape {tuple(found.shape)}"
    if isinstance(found, tuple | list) and 0 < len(found) <= 4:
        return f"{name} of {', '.join(type(part).__name__ for part in found)}"
    return name
