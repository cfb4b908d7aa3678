"""What exercises are about: their variants."""

import pytest
import torch
from exercise_table import EXERCISES

SETTINGS = ("name", "eps", "beta", "sigmas")


@pytest.mark.parametrize("variant", range(4))
@pytest.mark.parametrize("name", EXERCISES)
def test_grading_is_about_something_else(name, variant):
    """Other settings and other random numbers than the learner sees, and the same sizes."""
    task = EXERCISES[name].checks.task(variant)
    other = type(task).for_grading(task)
    assert any(getattr(task, setting) != getattr(other, setting) for setting in SETTINGS if hasattr(task, setting))
    assert not torch.equal(torch.rand(3, generator=task.generator()), torch.rand(3, generator=other.generator()))
    assert {key for key in vars(task) if vars(task)[key] != vars(other)[key]} == {"variant"}


@pytest.mark.parametrize("name", EXERCISES)
def test_random_numbers_follow_from_variant_and_number(name):
    task = EXERCISES[name].checks.task
    draws = [torch.rand(3, generator=task(variant).generator(number)).tolist()
             for variant in range(3) for number in range(3)]
    assert len({tuple(draw) for draw in draws}) == 9
    assert torch.rand(3, generator=task(1).generator(2)).tolist() == draws[5]
