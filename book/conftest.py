"""While nbval runs the chapters, keep what each cell showed, so that the book can be built from those very outputs.

A notebook whose cells have all passed is written to `_build/executed/`, where `book/build.py --executed` finds it:
with the pictures and words that its cells gave, and with the state of its widgets, without which no slider would move.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from nbval.kernel import RunningKernel
from nbval.plugin import IPyNbCell, IPyNbFile

EXECUTED = Path(__file__).resolve().parent.parent / "_build" / "executed"


class Record:
    """An executed copy of a notebook, made from the messages that nbval reads.

    nbval asks only whether a cell raised. What the messages mean for a notebook, nbclient knows: it executes the
    chapters where the book is built without nbval. Here it executes nothing, and is handed each message.
    """

    def __init__(self, notebook: IPyNbFile) -> None:
        self.path = EXECUTED / notebook.path.name
        self.path.unlink(missing_ok=True)  # that of an earlier run
        self.kernel: RunningKernel = notebook.kernel
        self.notebook = copy.deepcopy(notebook.nb)
        self.client = NotebookClient(self.notebook, record_timing=False)
        self.client.kc = self.kernel.kc
        self.places = [place for place, cell in enumerate(self.notebook.cells) if cell.cell_type == "code"]
        self.passed = 0

    @contextmanager
    def listening(self, number: int) -> Iterator[None]:
        """Keep what the code cell of this number shows; nothing, if it raises."""
        heard: list[dict[str, Any]] = []
        get_message = self.kernel.get_message

        def overheard(stream: str, timeout: float | None = None) -> dict[str, Any]:
            message = get_message(stream, timeout=timeout)
            if stream == "iopub":
                heard.append(message)
            return message

        self.kernel.get_message = overheard
        try:
            yield
        finally:
            self.kernel.get_message = get_message
        self._keep(number, heard)

    def _keep(self, number: int, heard: list[dict[str, Any]]) -> None:
        place = self.places[number]
        cell = self.notebook.cells[place]
        cell.outputs = []
        self.client.clear_before_next_output = False
        own = heard[-1]["parent_header"]["msg_id"]  # the last says that the kernel has done what this cell asked
        for message in heard:
            if message["parent_header"].get("msg_id") == own and message["msg_type"] != "status":
                self.client.process_message(message, cell, place)
        cell.execution_count = number + 1  # nbval lets the kernel count nothing
        self.passed += 1
        if self.passed == len(self.places):
            self._save()

    def _save(self) -> None:
        self.client.set_widgets_metadata()
        self.notebook.metadata.language_info = self.kernel.kc.kernel_info(reply=True)["content"]["language_info"]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(self.notebook, self.path)


RECORD = pytest.StashKey[Record]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Where a cell runs. One that raises, raises through here, and its notebook is not kept."""
    if not isinstance(item, IPyNbCell):
        return (yield)
    if RECORD not in item.parent.stash:
        item.parent.stash[RECORD] = Record(item.parent)
    with item.parent.stash[RECORD].listening(item.cell_num):
        return (yield)
