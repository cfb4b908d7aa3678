"""A model whose parameters move when it is asked is refused: what was found of it would be of another model."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from robustness_lib import ThreatModel
from robustness_lib.attacks import PGD
from robustness_lib.evaluation import evaluate
from robustness_lib.querying.frozen import frozen

LINF = ThreatModel("linf", 0.02)


class Moving(nn.Module):
    """Its forward pass changes it, in the way named."""

    def __init__(self, way: str) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.norm, self.net, self.way = nn.BatchNorm1d(4), nn.Linear(4, 3), way
        self.eval()

    def forward(self, x):
        if self.way.startswith("TENT"):
            return self.adapted(x)
        with torch.no_grad():
            for p in self.parameters():
                if self.way == "in place":
                    p.mul_(1 - 1e-6)
                elif self.way == ".data in place":
                    p.data.mul_(1.01)
                elif self.way == ".data":
                    p.data = p.data * 1.01
            if self.way == "another tensor":
                self.net.weight = nn.Parameter(self.net.weight * 1.01)
        return self.net(self.norm(x))

    def adapted(self, x):
        with torch.enable_grad():
            if self.way == "TENT":
                for p in self.norm.parameters():
                    p.requires_grad_(True)
            entropy = torch.distributions.Categorical(logits=self.net(self.norm(x.detach()))).entropy().sum()
            entropy.backward()
            torch.optim.SGD(self.norm.parameters(), lr=0.1).step()
        return self.net(self.norm(x))


def data():
    return torch.rand(6, 4, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 3


WAYS = {"pgd": lambda model: PGD(LINF, steps=2).run(model, *data()),
        "evaluate": lambda model: evaluate(model, *data(), LINF, "quick")}


@pytest.mark.parametrize("ask", WAYS)
@pytest.mark.parametrize("way", ["in place", ".data in place", ".data", "another tensor", "TENT"])
def test_a_model_that_moves_its_parameters_is_refused(way, ask):
    with pytest.raises(ValueError, match=r"changed its parameter \S+.* cannot be attacked"):
        WAYS[ask](Moving(way))


@pytest.mark.parametrize("ask", WAYS)
def test_a_model_that_adapts_without_thawing_is_told_that_it_is_frozen(ask):
    with pytest.raises(ValueError, match="parameters are frozen"):
        WAYS[ask](Moving("TENT, as it comes"))


def test_another_exception_comes_through():
    model = Moving("in place")

    def moves_and_fails():
        with frozen(model):
            model(data()[0])
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        moves_and_fails()


def test_what_stays_is_asked_as_ever():
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    model.register_parameter("odd", nn.Parameter(torch.tensor(torch.nan)))
    model.register_parameter("empty", nn.Parameter(torch.empty(0, 3)))
    assert PGD(LINF, steps=2).run(model, *data()).x_adv.shape == (6, 4)
    for quiet in (model, nn.utils.parametrizations.spectral_norm(nn.Linear(4, 3))):
        with frozen(quiet):
            quiet(data()[0])
