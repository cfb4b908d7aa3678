"""A uniform start is never found uneven, and others are."""

import pytest
import torch

from robustness_lib.grading.random_starts import not_uniform


def test_a_uniform_start_is_never_found_uneven():
    for seed in range(200):
        assert not_uniform(2 * torch.rand(40, 50, generator=torch.Generator().manual_seed(seed)) - 1) is None


@pytest.mark.parametrize(("start", "words"), [
    (lambda normal: torch.special.ndtr(normal), "one direction"), (torch.sign, "ends only"),
    (lambda normal: 2 * torch.special.ndtr(normal[:, :1]).expand(-1, 50) - 1, "several pixels"),
    (lambda normal: normal.clamp(-0.999, 0.999) + 0.0001 * normal, "equally likely"),
    (lambda normal: 0.05 * normal, "equally likely")])
def test_other_starts_are(start, words):
    assert words in not_uniform(start(torch.randn(40, 50, generator=torch.Generator().manual_seed(0))))
