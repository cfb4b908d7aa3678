"""Catastrophic overfitting as it really happens, and what `fit` does about it."""

import pytest
import torch
import torch.nn.functional as F

from robustness_lib import ThreatModel, data, models
from robustness_lib.attacks import FGSM, PGD
from robustness_lib.querying import frozen
from robustness_lib.training import FastFGSM, Piecewise, bare, fit

LARGE = ThreatModel("linf", 0.3)


class FromTheImage(FastFGSM):
    """One step of ε without the random start that cures it."""

    def __call__(self, model, x, y, *, index=None, seed=0):
        with frozen(model):
            at = x.detach().requires_grad_()
            (slope,) = torch.autograd.grad(F.cross_entropy(bare(model)(at), y, reduction="sum"), at)
        step = self.threat.steepest_step(slope, self.threat.reach(x))
        return F.cross_entropy(model(self.threat.project(x + step, x)), y)


@pytest.mark.reference
def test_one_step_training_from_the_image_itself_collapses_and_is_stopped(real_data):
    x, y, _ = data.load("mnist", "train", n=3000)
    x_val, y_val, _ = data.load("mnist", "validation", n=250)
    torch.manual_seed(0)
    model = models.small_cnn(in_shape=(1, 28, 28))
    history = fit(model, (x, y), FromTheImage(LARGE), epochs=12, schedule=Piecewise(1e-3), keep="last",
                  validation=(x_val, y_val), validation_steps=10, channels_last=True, progress=False)
    assert history.collapsed
    assert len(history) < 12
    assert history.stopped.startswith("catastrophic overfitting")
    last, kept = history.epochs[-1], history.epochs[history.kept - 1]
    assert last.fgsm.value > last.robust.value + 0.2
    assert kept.robust.value >= max(epoch.robust.value for epoch in history)
    # The kept weights are those of that epoch, by attacks of its own kind.
    for attack, accuracy in ((FGSM(LARGE), kept.fgsm), (PGD(LARGE, steps=10, loss="margin"), kept.robust)):
        assert abs(int((~attack.run(model, x_val, y_val).success).sum()) - accuracy.correct) <= 2
