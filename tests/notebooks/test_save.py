"""`make notebooks`: what is saved is the same on every run."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import nbformat
import pytest
from from_book import from_book
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook


@pytest.fixture(scope="module")
def saver() -> ModuleType:
    module: ModuleType = from_book("notebooks")
    return module


def write(path: Path, *sources: str) -> list[str]:
    cells = [new_markdown_cell("# A page"), *(new_code_cell(source) for source in sources)]
    nbformat.write(new_notebook(cells=cells), path)
    return [cell.id for cell in cells]


RESTLESS = (
    "import matplotlib.pyplot as plt, torch\nplt.plot([1, 2, 1]); torch.arange(3)",
    "import ipywidgets\nipywidgets.VBox([ipywidgets.IntSlider()])",
    "from tqdm.auto import tqdm\nfor i in tqdm(range(20)): pass\nprint('done')",
    "import tqdm\nfor i in tqdm.tqdm(range(20), leave=False): pass",
    "import sys, tqdm\nfor i in tqdm.tqdm(range(20)): pass\nprint('a warning', file=sys.stderr)",
)


def test_a_second_run_changes_nothing(saver: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "page.ipynb"
    ids = write(path, *RESTLESS)
    assert saver.main([str(path)]) == 0
    first = path.read_bytes()
    assert saver.main([str(path)]) == 0
    assert path.read_bytes() == first

    saved = nbformat.read(path, as_version=4)
    assert [cell.id for cell in saved.cells] == ids
    assert "widgets" not in saved.metadata
    assert not saved.cells[4].outputs  # the bar that went away left nothing
    text = first.decode()
    for never in ("widget-view", "model_id", "iopub", "it/s", "shell.execute_reply"):
        assert never not in text
    for always in ("tensor([0, 1, 2])", "image/png", saver.WIDGET_STAND_IN, "done", "a warning"):
        assert always in text


def test_a_notebook_that_fails_is_left_as_it_was(saver: ModuleType, tmp_path: Path) -> None:
    good, bad = tmp_path / "good.ipynb", tmp_path / "bad.ipynb"
    write(good, "6 * 7")
    write(bad, "1 / 0")
    before = bad.read_bytes()
    assert saver.main([str(bad), str(good)]) == 1
    assert bad.read_bytes() == before
    assert '"42"' in good.read_text()
