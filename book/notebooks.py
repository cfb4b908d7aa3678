"""Execute the chapters again and save them in place: `python book/notebooks.py [NOTEBOOK]...`.

What is saved depends on nothing but what the cells computed, so that a second run changes nothing: no times,
no widget state (its names are random), no progress bars. Cell ids stay. A notebook that fails is not saved.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError
from nbformat import NotebookNode

BOOK = Path(__file__).resolve().parent
CELL_SECONDS = 300
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
WIDGET_STAND_IN = "An interactive widget. It moves in the built book, and here once the cell is run."
PROGRESS_BAR = re.compile(r"\d+%\||\d+it \[|it/s\]")


def clean_output(output: NotebookNode) -> NotebookNode | None:
    """An output as it is saved; None for what is not."""
    if output.output_type == "stream":
        # A bar that went away has written blanks over itself.
        bar = PROGRESS_BAR.search(output.text) or not output.text.strip()
        return None if output.name == "stderr" and bar else output
    if WIDGET_VIEW in output.get("data", {}):
        if PROGRESS_BAR.search(output.data.get("text/plain", "")):
            return None
        output.data = NotebookNode({"text/plain": WIDGET_STAND_IN})
    return output


def clean(notebook: NotebookNode) -> NotebookNode:
    """Take out, in place, whatever differs from run to run or from machine to machine."""
    notebook.metadata = NotebookNode(
        kernelspec={"display_name": "Python 3", "language": "python", "name": "python3"},
        language_info={"name": "python"},
    )
    for cell in notebook.cells:
        for key in ("execution", "ExecuteTime", "collapsed", "scrolled"):
            cell.metadata.pop(key, None)
        if cell.cell_type == "code":
            cell.outputs = [kept for output in cell.outputs if (kept := clean_output(output)) is not None]
    return notebook


def execute(path: Path) -> bool:
    """Run one notebook in its own folder and save it. Returns whether the file changed."""
    before = path.read_text(encoding="utf-8")
    notebook = nbformat.reads(before, as_version=4)
    NotebookClient(
        notebook, timeout=CELL_SECONDS, kernel_name="python3", record_timing=False, coalesce_streams=True,
        resources={"metadata": {"path": str(path.parent)}},
    ).execute()  # fmt: skip
    after = nbformat.writes(clean(notebook)) + "\n"
    if after != before:
        path.write_text(after, encoding="utf-8")
    return after != before


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", nargs="*", type=Path, help="all of book/ if none is named")
    paths = parser.parse_args(arguments).notebooks or sorted(BOOK.glob("*.ipynb"))
    os.environ["OMP_NUM_THREADS"] = "1"  # with more, small networks crawl when another process holds a core
    os.environ.pop("MPLBACKEND", None)  # where it is set, the kernel would not show figures inline

    failed = 0
    for path in paths:
        start = time.monotonic()
        try:
            result = "saved" if execute(path) else "unchanged"
        except (CellExecutionError, CellTimeoutError) as error:
            print(error, file=sys.stderr)
            result = "FAILED, and left as it was"
            failed += 1
        print(f"{path.name}: {result} ({time.monotonic() - start:.0f} s)", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
