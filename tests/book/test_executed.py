"""What nbval ran is what the book shows: outputs and widgets are kept as they were, of notebooks that passed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

BOOK = Path(__file__).resolve().parents[2] / "book"
WIDGETS = "application/vnd.jupyter.widget-state+json"

CELLS = (
    "print('first')",
    "import ipywidgets\nslider = ipywidgets.IntSlider(3)\nslider",
    "slider.value = 5\nslider.description = 'moved'",
    "from IPython.display import clear_output, display\nprint('gone')\nclear_output()",
    "seen = display('old', display_id=1)",
    "seen.update('new')\nipywidgets.Image(value=b'\\x00\\x01', format='png')",
    "import sys, matplotlib.pyplot as plt\nplt.plot([1, 2, 1])\nprint('aloud', file=sys.stderr)",
    "",
    "import threading, time\nthreading.Timer(0.3, lambda: print('late')).start()\n6 * 7",
    "time.sleep(0.6)\nraise SystemError('meant')",
)


def write(path: Path, *sources: str) -> NotebookNode:
    cells = [new_markdown_cell("# A page"), *(new_code_cell(source) for source in sources)]
    if "meant" in sources[-1]:
        cells[-1].metadata.tags = ["raises-exception"]
    notebook = new_notebook(cells=cells, metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}})
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)
    return notebook


@pytest.fixture
def book(pytester: pytest.Pytester) -> Path:
    """A folder like the book's, with nothing in it but what keeps the outputs."""
    (pytester.path / "book").mkdir()
    shutil.copy(BOOK / "conftest.py", pytester.path / "book")
    return pytester.path / "book"


def run(pytester: pytest.Pytester) -> dict[str, int]:
    """How the cells of all notebooks of the book ended."""
    return pytester.runpytest_subprocess("--nbval-lax", "--nbval-current-env", "book").parseoutcomes()


def without_names(value: Any, kinds: dict[str, str]) -> Any:
    """Widgets are named at random: here by their kind."""
    if isinstance(value, dict):
        return {key: without_names(inner, kinds) for key, inner in value.items()}
    if isinstance(value, list):
        return [without_names(inner, kinds) for inner in value]
    return kinds.get(value.removeprefix("IPY_MODEL_"), value) if isinstance(value, str) else value


def comparable(notebook: NotebookNode) -> tuple[Any, Any]:
    """Outputs of each cell, and the state of each widget, without what differs from run to run."""
    state = notebook.metadata.widgets[WIDGETS]["state"]
    kinds = {name: widget["model_name"] for name, widget in state.items()}
    outputs = [
        [dict(output, execution_count=None, traceback=None) for output in cell.get("outputs", [])]
        for cell in notebook.cells
    ]
    widgets = sorted(json.dumps(without_names(widget, kinds), sort_keys=True) for widget in state.values())
    return without_names(outputs, kinds), widgets


def test_what_is_kept_is_what_executing_it_gives(pytester: pytest.Pytester, book: Path) -> None:
    before = write(book / "page.ipynb", *CELLS)
    assert run(pytester) == {"passed": len(CELLS)}
    kept = nbformat.read(book.parent / "_build" / "executed" / "page.ipynb", as_version=4)
    nbformat.validate(kept)
    assert [cell.id for cell in kept.cells] == [cell.id for cell in before.cells]
    assert [cell.execution_count for cell in kept.cells[1:]] == list(range(1, len(CELLS) + 1))
    assert kept.metadata.language_info.pygments_lexer == "ipython3"

    expected = NotebookClient(before, record_timing=False, resources={"metadata": {"path": str(book)}}).execute()
    assert comparable(kept) == comparable(expected)
    state = kept.metadata.widgets[WIDGETS]["state"].values()
    slider = next(widget for widget in state if widget["model_name"] == "IntSliderModel")
    assert (slider["state"]["value"], slider["state"]["description"]) == (5, "moved")
    assert [buffer["path"] for widget in state for buffer in widget.get("buffers", [])] == [["value"]]
    assert kept.cells[5].outputs[0]["data"]["text/plain"] == "'new'"


def test_a_notebook_with_a_cell_that_raises_fails_and_is_not_kept(pytester: pytest.Pytester, book: Path) -> None:
    write(book / "good.ipynb", "6 * 7")
    write(book / "bad.ipynb", "1 + 1", "1 / 0", "'after'")
    folder = book.parent / "_build" / "executed"
    folder.mkdir(parents=True)
    (folder / "bad.ipynb").write_text("from an earlier run")
    assert run(pytester) == {"passed": 3, "failed": 1}
    assert [path.name for path in folder.iterdir()] == ["good.ipynb"]


def test_a_notebook_of_which_a_cell_was_not_run_is_not_kept(pytester: pytest.Pytester, book: Path) -> None:
    write(book / "page.ipynb", "1 + 1", "# NBVAL_SKIP\n6 * 7")
    assert run(pytester) == {"passed": 1, "skipped": 1}
    assert not (book.parent / "_build" / "executed").exists()
