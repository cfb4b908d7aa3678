"""Fingerprints: what decides a model's answers is in them. (States on disk: attacks/ and evaluation/.)"""

from __future__ import annotations

import pytest
import torch
from torch import nn

from robustness_lib.state import model_fingerprint, structure_fingerprint


def net() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2)).eval()


@pytest.mark.parametrize("held", ["0.weight", "1.bias", "1.running_mean", "1.running_var"])
def test_every_parameter_and_buffer_counts_and_is_no_structure(held: str) -> None:
    model = net()
    model.state_dict()[held].view(-1)[0] += 1e-6
    assert model_fingerprint(model) != model_fingerprint(net()) == model_fingerprint(net())
    assert structure_fingerprint(model) == structure_fingerprint(net())


def test_a_setting_counts_and_the_mode_does_not() -> None:
    model = net()
    model.train()
    assert model_fingerprint(model) == model_fingerprint(net())
    model[1].eps = 1e-4
    assert model_fingerprint(model) != model_fingerprint(net())
    assert structure_fingerprint(model) != structure_fingerprint(net())
