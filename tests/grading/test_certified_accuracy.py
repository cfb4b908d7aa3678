"""Only for certified_accuracy: what is given, and what its checks are made of."""

import math

import pytest
import torch
from scipy.stats import binom, norm

from robustness_lib.certify import RandomizedSmoothing
from robustness_lib.grading import certified_accuracy as checks
from robustness_lib.grading.certified_accuracy.noise import alike, noise_mistake
from robustness_lib.grading.given import certified_accuracy as given
from robustness_lib.grading.linear_models import linear_classifier, points_at


def quick(variant=0):
    """The exercise with few votes on few images: the checks' own judgement is the same."""
    return checks.CertifiedAccuracyTask(variant, images=8, n0=20, n=100)



def test_the_given_bound_has_the_probability_that_it_says():
    for hits, n, alpha in ((1, 7, 0.1), (50, 60, 0.001), (400, 400, 0.02)):
        assert binom.sf(hits - 1, n, given.lower_bound(hits, n, alpha)) == pytest.approx(alpha)
    assert given.lower_bound(0, 9, 0.01) == 0


def test_the_given_parts_make_the_librarys_certificate():
    """On a model whose share is known, both certify nearly its distance."""
    w = torch.ones(3, 4, 4)
    model, x = linear_classifier(w, -24), points_at(torch.tensor([0.2, -0.3]), w, -24)
    votes = given.count_votes(model, x, 0.25, 3000, torch.Generator().manual_seed(0))
    mine = [given.certified_radius(given.lower_bound(int(row.max()), 3000, 0.001), 0.25) for row in votes]
    _, theirs = RandomizedSmoothing(model, 0.25).certify(x, n=3000, progress=False)
    assert mine == pytest.approx(theirs.tolist(), abs=0.03)
    assert votes.argmax(1).tolist() == [1, 0]


@pytest.mark.parametrize("sigma", [0.1, 0.25, 0.5, 1.5])
def test_normal_noise_is_never_found_wrong(sigma):
    for seed in range(100):
        noise = sigma * torch.randn(24, 432, generator=torch.Generator().manual_seed(seed))
        assert noise_mistake(noise, sigma) is None
        assert not alike(noise).any()


def test_noise_that_is_shared_is_found():
    noise = torch.randn(5, 40)
    noise[3] = noise[1]
    assert alike(noise).nonzero().tolist() == [[1, 3], [3, 1]]


def test_votes_certify_no_farther_than_they_can():
    task = quick()
    for sigma in task.sigmas:
        prediction, radius = task.voted(sigma)
        assert len(prediction) == len(radius) == 8
        assert radius.max() <= sigma * norm.ppf(task.alpha ** (1 / task.n)) + 1e-9
        assert ((prediction == -1) == (radius == 0)).all()
    assert task.radii[-1] > radius.max()
    assert math.isclose(task.radii[0], 0)
