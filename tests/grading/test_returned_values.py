"""What a learner's function returned is looked at before it is judged."""

import math

import numpy as np
import pytest
import torch

from robustness_lib.grading.linear_models import linear_classifier
from robustness_lib.grading.returned_values import (
    in_box,
    is_number,
    matching,
    misread,
    not_a_tensor,
    not_images,
    within,
)

X = torch.full((2, 1, 2, 2), 0.5)


@pytest.mark.parametrize(("found", "words"), [
    (None, "returns NoneType"), (X[:1], "returns shape (1, 1, 2, 2)"), (X.long(), "pixels are real numbers"),
    (X / 0 * 0, "pixels are real numbers")], ids=["none", "too few", "whole numbers", "nan"])
def test_what_are_no_images_is_said(found, words):
    assert words in not_images(found, X).words


def test_images_are_images_in_any_precision():
    assert not_images(X, X) is None
    assert not_images(X.double(), X) is None


def test_ball_and_box():
    assert in_box(X)
    assert not in_box(X + 0.51)
    assert within(X + 0.1, X, 0.1)
    assert not within(X + 0.101, X, 0.1)


def test_who_is_misread_in_eval_mode():
    model = torch.nn.Sequential(torch.nn.Dropout(1.0), linear_classifier(torch.ones(1, 2, 2), -1)).train()
    assert misread(model, torch.stack([X[0], 0 * X[0]]).double(), torch.tensor([1, 1])).tolist() == [False, True]


@pytest.mark.parametrize("found", [1, 0.5, True, np.float32(2), torch.tensor(3.0), torch.tensor([4.0])])
def test_numbers(found):
    assert is_number(found)


@pytest.mark.parametrize("found", [None, "1", math.nan, math.inf, torch.ones(2), [1.0]])
def test_no_numbers(found):
    assert not is_number(found)


def test_infinity_where_it_may_be():
    assert is_number(math.inf, finite=False)


def test_numbers_match_up_to_rounding():
    assert matching(torch.tensor(100.0), torch.tensor(100.005))
    assert not matching(torch.tensor(0.0), torch.tensor(0.001))


def test_what_is_no_tensor_is_said():
    assert not_a_tensor(X) is None
    assert "is there a `return` at the end?" in not_a_tensor(None).words
    assert "returns ndarray of shape (2, 1, 2, 2), and a torch tensor is needed: stay with" in not_a_tensor(
        X.numpy()).words
    assert "returns list, and a torch tensor is needed" in not_a_tensor([1]).words
