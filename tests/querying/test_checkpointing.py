"""Models that compute their activations anew in the backward pass, by torch.utils.checkpoint."""

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

from robustness_lib import ThreatModel
from robustness_lib.attacks import FAB, FGSM, PGD, AutoAttack, AutoPGD, CarliniWagnerL2, SquareAttack
from robustness_lib.diagnosis import diagnose
from robustness_lib.diagnosis.inspect_model import inspect_model
from robustness_lib.evaluation import evaluate
from robustness_lib.evaluation.planning import measure
from robustness_lib.training import TRADES, FastFGSM, PGDTraining, fit

THREAT = ThreatModel("linf", 0.1)


class Checkpointed(nn.Module):
    """how: "layer" by layer or "sequential"; training_only, as Hugging Face's models do it."""

    def __init__(self, reentrant, how="layer", training_only=False):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.Tanh(), nn.Linear(8, 4))
        self.reentrant, self.how, self.training_only = reentrant, how, training_only

    def forward(self, x):
        if self.training_only and not self.training:
            return self.layers(x)
        if self.how == "sequential":
            return checkpoint_sequential(self.layers, 2, x, use_reentrant=self.reentrant)
        return checkpoint(self.layers, x, use_reentrant=self.reentrant)


def images():
    torch.manual_seed(1)
    x = torch.rand(8, 1, 6, 6)
    return x, Checkpointed(False).eval()(x).argmax(1)


ASKS = {
    "pgd": lambda m, x, y: PGD(THREAT, steps=2).run(m, x, y),
    "fgsm": lambda m, x, y: FGSM(THREAT).run(m, x, y),
    "auto-pgd": lambda m, x, y: AutoPGD(THREAT, steps=2).run(m, x, y),
    "fab": lambda m, x, y: FAB("linf", steps=2).run(m, x, y),
    "cw": lambda m, x, y: CarliniWagnerL2(steps=2, search_steps=1).run(m, x, y),
    "ensemble": lambda m, x, y: AutoAttack(THREAT).run(m, x, y),
    "function": lambda m, x, y: PGD(THREAT, steps=2).run(lambda z: m(z), x, y),
    "evaluate": lambda m, x, y: evaluate(m, x, y, THREAT, "quick"),
    "measure": lambda m, x, y: measure(m, x, y, THREAT),
    "diagnose": lambda m, x, y: diagnose(m, x, y, THREAT),
    "inspect": lambda m, x, y: inspect_model(m, x, y),
    "fit": lambda m, x, y: fit(m, (x, y), PGDTraining(THREAT, steps=2), epochs=1, batch_size=4, progress=False),
    "fit, TRADES": lambda m, x, y: fit(m, (x, y), TRADES(THREAT, steps=2), epochs=1, batch_size=4, progress=False),
    "fit, one step": lambda m, x, y: fit(m, (x, y), FastFGSM(THREAT), epochs=1, batch_size=4, progress=False),
}


@pytest.mark.filterwarnings("ignore:None of the inputs")
@pytest.mark.parametrize("how", ["layer", "sequential"])
@pytest.mark.parametrize("name", ASKS)
def test_the_reentrant_way_is_refused_in_one_line_wherever_a_gradient_is_asked(name, how):
    model = Checkpointed(True, how)
    with pytest.raises(ValueError, match="use_reentrant=False") as caught:
        ASKS[name](model, *images())
    assert "\n" not in str(caught.value)
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("how", ["layer", "sequential"])
def test_the_advice_is_true(how):
    x, y = images()
    found, expected = (PGD(THREAT, steps=5).run(m, x, y) for m in (Checkpointed(False, how),
                                                                  Checkpointed(True, training_only=True)))
    assert torch.equal(found.x_adv, expected.x_adv)
    assert not torch.equal(found.x_adv, x)
    for name in ("evaluate", "inspect", "fit"):
        ASKS[name](Checkpointed(False, how), x, y)


@pytest.mark.filterwarnings("ignore:None of the inputs")
def test_attacks_without_gradients_do_not_mind():
    assert SquareAttack(THREAT, queries=5).run(Checkpointed(True), *images()).calls


@pytest.mark.filterwarnings("ignore:None of the inputs")
def test_where_training_alone_checkpoints_it_is_said_in_that_mode_alone():
    x, y = images()
    model = Checkpointed(True, training_only=True).train()
    assert PGD(THREAT, steps=2).run(model, x, y).calls
    with pytest.raises(ValueError, match="use_reentrant=False"):
        PGD(THREAT, steps=2, mode="keep").run(model, x, y)
