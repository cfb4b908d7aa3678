"""Augmentations: what they do, and for which data they keep the label."""

import pytest
import torch

from robustness_lib.data import NAMES
from robustness_lib.training import AUGMENTATIONS, Flip, Shift


def images(n=40, channels=3, height=7, width=5):
    """Every pixel value another one, so that no mistake in moving them goes unseen."""
    return torch.arange(n * channels * height * width, dtype=torch.float32).reshape(n, channels, height, width)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def shifted_pixel_by_pixel(x, down, right):
    _, height, width = x.shape
    out = torch.empty_like(x)
    for row in range(height):
        for column in range(width):
            from_row = min(max(row + down, 0), height - 1)
            from_column = min(max(column + right, 0), width - 1)
            out[:, row, column] = x[:, from_row, from_column]
    return out


@pytest.mark.parametrize("by", [1, 2, 4])
def test_shift_moves_and_repeats_the_edge(by):
    x, change = images(), Shift(by)
    drawn = change.draw(len(x), generator())
    moved = change.apply(x, drawn)
    assert moved.shape == x.shape
    assert moved.dtype == x.dtype
    for image, result, (down, right) in zip(x, moved, (drawn.T - by).tolist(), strict=True):
        assert result.equal(shifted_pixel_by_pixel(image, down, right))


def test_shift_reaches_all_it_may_and_no_more():
    drawn = Shift(2).draw(2000, generator())
    assert drawn.shape == (2, 2000)
    for axis in drawn:
        counts = torch.bincount(axis, minlength=5)
        assert len(counts) == 5
        assert (counts > 330).all()  # 400 of each expected, ± 18
    assert not drawn[0].equal(drawn[1])
    assert Shift(2).apply(images(1), torch.tensor([[2], [2]])).equal(images(1))  # the middle: nothing moves


def test_nothing_comes_back_in_at_the_other_side():
    x = torch.zeros(1, 1, 6, 6)
    x[0, 0, 0] = 1  # the top row
    for down in range(5):
        moved = Shift(2).apply(x, torch.tensor([[down], [2]]))
        assert moved[0, 0, 3:].sum() == 0


def test_flip_changes_half_of_the_images_and_all_of_each():
    x, change = images(400), Flip()
    drawn = change.draw(400, generator())
    assert drawn.shape == (1, 400)
    flipped = drawn[0].bool()
    assert 150 < flipped.sum() < 250
    result = change.apply(x, drawn)
    assert result[~flipped].equal(x[~flipped])
    for column in range(5):
        assert result[flipped][..., column].equal(x[flipped][..., 4 - column])


@pytest.mark.parametrize("change", [Shift(2), Flip()], ids=str)
def test_each_process_changes_its_part_as_one_process_would(change):
    x = images()
    drawn = change.draw(len(x), generator())
    whole = change.apply(x, drawn)
    for rank in range(4):
        assert change.apply(x[rank::4], drawn[:, rank::4]).equal(whole[rank::4])


@pytest.mark.parametrize("change", [Shift(2), Flip()], ids=str)
def test_what_is_drawn_follows_from_the_generator_alone(change):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, again, other = (change.draw(50, generator(seed)) for seed in (1, 1, 2))
    assert first.equal(again)
    assert not first.equal(other)
    x = images()
    change.apply(x, first[:, :40])
    assert x.equal(images())  # the caller's images stay
    assert torch.equal(torch.get_rng_state(), before)


def test_every_data_set_has_its_list_and_labels_are_kept():
    assert AUGMENTATIONS.keys() == set(NAMES)
    for name in ("signs", "gtsrb", "mnist", "moons"):  # a "keep left" in a mirror says "keep right"
        assert not any(isinstance(change, Flip) for change in AUGMENTATIONS[name])
    assert AUGMENTATIONS["moons"] == ()
    for name in ("cifar10", "fashion-mnist"):
        assert Flip() in AUGMENTATIONS[name]


@pytest.mark.parametrize(("by", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError)])
def test_a_shift_by_nothing_is_refused(by, error):
    with pytest.raises(error, match="by must be"):
        Shift(by)
