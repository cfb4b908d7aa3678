"""What an attack holds in memory: the images given, those found, and one batch at work."""

from __future__ import annotations

import gc

import pytest
import torch
from quick_auto_attack import Quick
from torch import nn

from robustness_lib import ThreatModel
from robustness_lib.attacks import FAB, PGD, SquareAttack

LINF = ThreatModel("linf", 0.05)
N, BATCH = 256, 8
IMAGE = 3 * 32 * 32 * 4  # bytes


def live_bytes() -> int:
    """Of all tensors alive that hold more than one image; those that share memory count once."""
    storages = {}
    for thing in gc.get_objects():
        if isinstance(thing, torch.Tensor) and thing.numel() * thing.element_size() > IMAGE:
            storages[thing.untyped_storage().data_ptr()] = thing.untyped_storage().nbytes()
    return sum(storages.values())


class Watched(nn.Module):
    """A linear model that notes the most that was alive when it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(48, 5))
        self.most = self.asked = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.asked += 1
        if self.asked % 23 == 1:  # counting takes longer than answering
            self.most = max(self.most, live_bytes())
        return self.net(x)


@pytest.mark.parametrize("attack", [PGD(LINF, steps=3), SquareAttack(LINF, queries=5), FAB("linf", steps=2)],
                         ids=lambda attack: type(attack).__name__)
def test_an_attack_holds_its_result_and_one_batch(attack) -> None:
    torch.manual_seed(0)
    model = Watched().eval()
    x = torch.rand(N, 3, 32, 32)
    y = model.net(x).argmax(1).detach()
    gc.collect()
    before = live_bytes()  # the images given among it
    result = attack.run(model, x, y, batch_size=BATCH)
    # A batch at work has at most twenty tensors of its size (FAB sixteen); once more the data set would be 32 of them.
    assert model.most - before <= N * IMAGE + 20 * BATCH * IMAGE, (model.most - before) / (N * IMAGE)
    gc.collect()
    assert live_bytes() - before <= N * IMAGE + BATCH * IMAGE  # x_adv, and nothing of the search
    assert result.x_adv.shape == x.shape


def test_an_ensemble_keeps_what_it_found_and_no_more() -> None:
    torch.manual_seed(0)
    model = Watched().net.eval()
    x = torch.rand(N, 3, 32, 32)
    y = model(x).argmax(1).detach()
    gc.collect()
    before = live_bytes()
    result = Quick(LINF).run(model, x, y, batch_size=BATCH)
    gc.collect()
    assert live_bytes() - before <= N * IMAGE + BATCH * IMAGE
    assert result.x_adv.shape == x.shape
