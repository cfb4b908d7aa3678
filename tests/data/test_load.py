from __future__ import annotations

from pathlib import Path

import pytest

from robustness_lib import data


def test_an_unknown_name_lists_the_choices() -> None:
    with pytest.raises(ValueError, match=r"'imagenet'.*signs, moons, mnist, fashion-mnist, cifar10, gtsrb"):
        data.load("imagenet")


def test_an_unknown_split_lists_the_choices() -> None:
    with pytest.raises(ValueError, match=r"'dev'.*train, validation, test"):
        data.load("moons", "dev")


@pytest.mark.parametrize("n", [0, -3])
def test_less_than_one_example_is_refused(n: int) -> None:
    with pytest.raises(ValueError, match=f"found {n}"):
        data.load("moons", n=n)


def test_more_than_there_are_is_refused_with_the_count() -> None:
    with pytest.raises(ValueError, match="moons has 1000 test examples here; 1001 were asked for"):
        data.load("moons", "test", n=1_001)


def test_importing_and_drawing_writes_nothing(cache: Path) -> None:
    data.load("moons")
    data.load("signs", "validation", n=10)
    assert not cache.exists()
