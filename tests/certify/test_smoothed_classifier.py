"""The smoothed classifier as a module that attacks can attack."""

import pytest
import torch
from torch import nn
from vote_models import Line, at_distance

from robustness_lib import ThreatModel
from robustness_lib.attacks import PGD
from robustness_lib.certify import RandomizedSmoothing, SmoothedClassifier

SIGMA = 0.25
LINE = Line([3.0, -1.0, 0.5, 2.0], 1.6)


def test_it_answers_what_most_noisy_copies_are_called():
    class Corner(nn.Module):
        """Class 1 in a strip above 0.55, with logits of great size in between: votes and means differ."""

        def forward(self, x):
            inside = (x[:, 0] > 0.55) & (x[:, 0] < 0.6)
            return torch.stack((torch.ones(len(x)), 1000.0 * inside), dim=1)

    torch.manual_seed(0)
    smoothed = SmoothedClassifier(Corner(), SIGMA, 400)
    x = torch.full((3, 1), 0.5)
    assert smoothed(x).argmax(1).tolist() == [0, 0, 0]  # hardly a tenth of the votes, and the larger mean
    assert RandomizedSmoothing(Corner(), SIGMA).predict(x, progress=False).tolist() == [0, 0, 0]


def test_noise_is_not_clipped_and_new_each_time():
    seen = []

    class Watched(nn.Module):
        def forward(self, x):
            seen.append(x.detach().clone())
            return torch.cat((x, 1 - x), dim=1)

    SmoothedClassifier(Watched(), SIGMA, 50)(torch.zeros(20, 1))
    drawn = torch.stack(seen)
    assert drawn.shape == (50, 20, 1)
    assert drawn.min() < -0.1
    assert len(drawn.unique()) >= 999
    assert float(drawn.std()) == pytest.approx(SIGMA, rel=0.1)


def test_an_attack_succeeds_just_outside_the_radius_and_not_well_inside():
    x = at_distance(LINE, [0.3] * 12)
    y = torch.ones(12, dtype=torch.int64)
    smoothed = RandomizedSmoothing(LINE, SIGMA).classifier(samples=64)
    for eps, most in ((0.2, 0), (0.4, 12)):
        result, verdict = smoothed.attacked(PGD(ThreatModel("l2", eps), steps=10), x, y, draws=1000)
        assert int(verdict.success.sum()) == most
        assert (result.distance <= eps * (1 + 1e-5) + 1e-6).all()


def test_it_says_what_it_is():
    smoothed = RandomizedSmoothing(LINE, SIGMA).classifier(samples=7)
    assert smoothed.bare is LINE
    assert smoothed.sigma == SIGMA
    assert smoothed.samples == 7
    assert "sigma=0.25, samples=7, decision=majority" in repr(smoothed)


def test_the_mode_of_the_model_is_left_alone():
    net = nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(4, 2)).train()
    smoothed = SmoothedClassifier(net, SIGMA)
    assert net.training
    assert smoothed.training
    assert not smoothed.eval().bare.training


@pytest.mark.parametrize(("arguments", "error", "words"), [
    ((LINE, 0), ValueError, "sigma must be positive"), ((LINE, SIGMA, 0), ValueError, "samples"),
    ((lambda x: x, SIGMA), TypeError, "torch.nn.Module"),
])
def test_what_cannot_be_smoothed_is_refused(arguments, error, words):
    with pytest.raises(error, match=words):
        SmoothedClassifier(*arguments)
