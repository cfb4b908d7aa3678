"""Standard output and error that outlive their readers: `| head -1` or a full disk ends no work and changes no verdict.

This must run where `robustness doctor` does: it imports nothing of this package and keeps to the syntax of Python 3.8.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO

__all__ = ["lasting_streams"]


class _Lasting(io.FileIO):
    """A file descriptor that takes everything. What cannot be written is dropped, from the first time on.

    error: what went wrong, other than that the reader has gone: a reader may stop when it has seen enough."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self.gone = False
        self.error: OSError | None = None

    def write(self, content: Any, /) -> int:
        if not self.gone:
            try:
                return super().write(content)
            except OSError as error:
                self.gone = True
                if not isinstance(error, ConnectionError) and not (os.name == "nt" and error.errno == 22):
                    self.error = error  # (Windows says EINVAL where the reader has gone)
        return len(memoryview(content).cast("B"))


@contextlib.contextmanager
def lasting_streams() -> Iterator[None]:
    """Inside, nothing that is printed can raise. Afterwards SystemExit(2), said on standard error, where standard
    output could not be written for another reason than that its reader has gone: the answer is not whole."""
    before = sys.stdout, sys.stderr
    out, sys.stdout = _lasting(sys.stdout)
    _, sys.stderr = _lasting(sys.stderr)
    inside = sys.stdout, sys.stderr
    try:
        yield
    finally:
        for stream in inside:
            with contextlib.suppress(ValueError):  # somebody closed it
                stream.flush()
        if out is not None and out.error is not None:
            print(f"standard output: {out.error.strerror}, so the answer there is not whole", file=sys.stderr,
                  flush=True)
        sys.stdout, sys.stderr = before
        if out is not None and out.error is not None:
            raise SystemExit(2)


def _lasting(stream: TextIO | None) -> tuple[_Lasting | None, TextIO]:
    """The stream to use in its place, and what is under it, where that is a file of the system's."""
    if stream is None:  # closed by whoever called, as in `>&-`
        return None, open(os.devnull, "w", encoding="utf-8")
    buffer = getattr(stream, "buffer", None)
    raw = getattr(buffer, "raw", buffer)  # with PYTHONUNBUFFERED there is nothing between
    if not isinstance(stream, io.TextIOWrapper) or type(raw) is not io.FileIO:
        return None, stream
    with contextlib.suppress(OSError):
        stream.flush()
    lasting = _Lasting(raw.fileno())
    return lasting, io.TextIOWrapper(io.BufferedWriter(lasting), encoding=stream.encoding, errors="replace",
                                     line_buffering=stream.line_buffering, write_through=stream.write_through)
