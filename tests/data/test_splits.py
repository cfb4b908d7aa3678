from __future__ import annotations

import numpy as np
import pytest

from robustness_lib.data._splits import held_out, shuffled


def test_a_tenth_of_every_class_to_the_nearest_image() -> None:
    labels = np.repeat(np.arange(5), [10, 100, 1004, 1006, 3])[np.random.default_rng(0).permutation(2_123)]
    counts = np.bincount(labels[held_out(labels)], minlength=5)
    assert counts.tolist() == [1, 10, 100, 101, 1]


def test_the_choice_is_fixed() -> None:
    labels = np.arange(60) % 3
    assert np.flatnonzero(held_out(labels)).tolist() == [11, 17, 33, 43, 46, 51]


def test_the_choice_is_spread_over_the_set() -> None:
    chosen = np.flatnonzero(held_out(np.zeros(10_000, dtype=np.int64)))
    assert len(chosen) == 1_000
    counts, _ = np.histogram(chosen, bins=10, range=(0, 10_000))
    assert counts.min() > 60


def test_groups_stay_whole() -> None:
    groups = np.repeat(np.arange(100), 30)
    labels = groups % 4
    chosen = held_out(labels, groups)
    assert not set(groups[chosen]) & set(groups[~chosen])
    assert np.bincount(labels[chosen]).tolist() == [60, 60, 60, 60]  # 2 of 25 groups of 30


@pytest.mark.parametrize("size", [0, 1, 50])
def test_shuffled_keeps_every_number(size: int) -> None:
    index = np.arange(size)
    assert sorted(shuffled(index).tolist()) == index.tolist()
    if size > 1:
        assert shuffled(index).tolist() != index.tolist()
        assert (shuffled(index) == shuffled(index)).all()
