"""What is proved, image by image, and the accuracies that follow."""

import pytest
import torch

from robustness_lib.certify import Certificates
from robustness_lib.statistics import Accuracy


def certificates(prediction, radius, asked=None):
    n = len(prediction)
    counts = torch.full((n,), 100)
    return Certificates(torch.tensor(prediction), torch.tensor(radius, dtype=torch.float64), torch.zeros(n).long(),
                        counts, counts, n0=10, n=100, asked=asked, sigma=0.25, alpha=0.001, seed=0, model="a")


FOUND = certificates([1, 2, -1, 0, 1], [0.5, 0.2, 0.0, 0.3, 0.25])
LABELS = torch.tensor([1, 2, 0, 1, 1])  # the fourth is certified to be wrong


def test_it_unpacks_into_prediction_and_radius():
    prediction, radius = FOUND
    assert prediction.tolist() == [1, 2, -1, 0, 1]
    assert radius.tolist() == [0.5, 0.2, 0.0, 0.3, 0.25]
    assert len(FOUND) == 5


def test_certified_is_unchanged_and_not_right():
    assert FOUND.certified.tolist() == [True, True, False, True, True]
    assert FOUND.at(0.25).tolist() == [True, False, False, True, True]
    assert FOUND.accuracy(LABELS) == Accuracy(3, 5)
    assert FOUND.accuracy(LABELS, 0.25) == Accuracy(2, 5)
    assert FOUND.accuracy(LABELS, 0.51) == Accuracy(0, 5)


def test_an_abstention_is_wrong_whatever_the_label():
    assert FOUND.accuracy(torch.full((5,), -1)) == Accuracy(0, 5)


def test_what_an_image_cost_holds_the_choice_too():
    assert FOUND.samples.tolist() == [110] * 5


def test_the_curve_is_the_accuracy_at_every_radius():
    radii, shares = FOUND.curve(LABELS)
    assert radii == [0.0, 0.2, 0.25, 0.5]
    assert shares == [FOUND.accuracy(LABELS, radius).value for radius in radii] == [0.6, 0.6, 0.4, 0.2]
    assert certificates([-1], [0.0]).curve(torch.tensor([0])) == ([0.0], [0.0])


def test_nothing_is_known_beyond_the_radius_that_was_asked_about():
    at = certificates([1, -1], [0.5, 0.0], asked=0.5)
    assert at.at(0.5).tolist() == [True, False]
    assert at.at(0.25).tolist() == [True, False]
    with pytest.raises(ValueError, match=r"asked for at radius 0.5, and say nothing of the larger 0.6"):
        at.at(0.6)


@pytest.mark.parametrize("radius", [-0.1, float("nan")])
def test_a_negative_radius_is_refused(radius):
    with pytest.raises(ValueError, match="at least 0"):
        FOUND.at(radius)


def test_labels_of_other_images_are_refused():
    with pytest.raises(ValueError, match="one label per image"):
        FOUND.accuracy(LABELS[:3])
    with pytest.raises(TypeError, match="int64"):
        FOUND.accuracy(LABELS.double())
