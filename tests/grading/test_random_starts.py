"""A uniform start is never found uneven, and others are."""

import pytest
import torch

from robustness_lib.grading.random_starts import uneven


def test_a_uniform_start_is_never_found_uneven():
    for seed in range(200):
        assert uneven(2 * torch.rand(2500, generator=torch.Generator().manual_seed(seed)) - 1) is None


@pytest.mark.parametrize(("start", "words"), [
    (lambda normal: torch.special.ndtr(normal), "one direction"), (torch.sign, "ends only"),
    (lambda normal: normal.clamp(-1, 1), "equally likely"), (lambda normal: 0.05 * normal, "equally likely")])
def test_other_starts_are(start, words):
    assert words in uneven(start(torch.randn(2500, generator=torch.Generator().manual_seed(0))))
