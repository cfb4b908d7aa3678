"""Photographs that are shipped: what they are, and that nobody's work is used without their terms."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from robustness_lib import data
from robustness_lib.data import photos

FOLDER = Path(photos.__file__).parent / "photographs"


@pytest.mark.parametrize("name", ["cat", "coffee", "rocket"])
def test_a_photograph_is_a_batch_of_one_with_whole_grey_levels(name: str) -> None:
    x = data.photograph(name)
    assert x.shape == (1, 3, 224, 224)
    assert x.dtype == torch.float32
    assert 0 <= float(x.min()) < 0.2 < 0.6 < float(x.max()) <= 1
    assert torch.equal((x * 255).round() / 255, x)
    assert float(x.std((0, 2, 3)).min()) > 0.05  # no channel is flat


def test_another_name_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"'dog'; there are cat, coffee, rocket"):
        data.photograph("dog")


def test_each_has_its_author_and_terms() -> None:
    terms = (FOLDER / "LICENCE.md").read_text(encoding="utf-8")
    assert {file.name for file in FOLDER.glob("*.png")} == {line.split("|")[1].strip() for line in terms.splitlines()
                                                            if ".png" in line}
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) < 400_000
