"""benchmarks/separation.py: the nearest two images of different classes."""

import importlib
import json
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("separation")


def test_the_nearest_of_another_class_by_hand(benchmark):
    levels = torch.tensor([[0, 0], [3, 1], [10, 200], [12, 193]])  # 3 apart, but of one class; 7 apart, of two
    x = levels.float().reshape(4, 1, 1, 2) / 255
    assert benchmark.nearest_of_another_class(x, torch.tensor([0, 0, 0, 1])) == 7
    assert benchmark.nearest_of_another_class(x, torch.tensor([0, 1, 2, 2])) == 3
    with pytest.raises(ValueError, match="one class alone"):
        benchmark.nearest_of_another_class(x, torch.zeros(4))


def test_what_is_kept_is_what_it_measures(benchmark):
    kept = json.loads((BENCHMARKS / "results/separation.json").read_text(encoding="utf-8"))["nearest"]
    assert tuple(kept["of"]) == benchmark.DATA
    assert {of["n"] for of in kept["of"].values()} == {benchmark.Size().images}
