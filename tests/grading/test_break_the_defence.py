"""Only for break_the_defence: random numbers, what the unaware attack leaves, and what is given."""

import pytest
import torch
from answers import marked, solved

from robustness_lib.attacks.adaptive import BPDA, EOT
from robustness_lib.defenses import BitDepth
from robustness_lib.grading import break_the_defence as checks
from robustness_lib.grading.break_the_defence.random_answers import InTurn, NotedResizePad


def test_the_checks_leave_the_random_numbers_as_they_were():
    answers = solved("break_the_defence")
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    for name in ("stands", "straight_through", "eot_gradient", "three_bars"):
        marked(getattr(checks, name), answers[name])
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("variant", range(4))
def test_the_unaware_attack_leaves_far_more_than_the_exercise_asks_for(variant):
    """In every variant, also where it takes all its steps; and the bare network falls to it."""
    task = checks.DefenseTask(variant)
    _, y = task.data()
    stops, goes_on = task.unaware(), task.unaware(all_steps=True)
    with torch.no_grad():
        assert (task.net()(stops).argmax(1) == y).double().mean() < 0.05
    first, deep = (task.judge(task.defense(), points)[0].double().mean() for points in (stops, goes_on))
    assert first > 0.7
    assert deep > task.most + 0.03


def test_the_given_gradient_through_the_rounding_is_the_librarys():
    x = torch.rand(2, 3, 4, 4).requires_grad_()
    defense = BitDepth(torch.nn.Flatten(), 2)
    found = []
    for scores in (BPDA(defense)(x), defense.model(checks.given.straight_through(defense.transform, x))):
        assert torch.allclose(scores, defense(x))
        found.append(torch.autograd.grad((scores**3).sum(), x)[0])
    assert torch.allclose(*found, atol=1e-5)


def test_a_count_is_the_librarys():
    """The given count says what EOT.judge says of the same answers."""
    draw = torch.Generator().manual_seed(3)
    x, y = torch.rand(30, 1, 4, 4, generator=draw), torch.randint(2, (30,), generator=draw)
    answers = torch.randn(9, 30, 2, generator=draw)
    mine = checks.given.stands(InTurn(x, answers), x, y, 9)
    verdict = EOT(InTurn(x, answers), 9, decision="majority").judge(x, y, draws=9)
    assert torch.equal(mine, ~verdict.success)
    assert 5 < mine.sum() < 25


def test_answers_in_turn_are_those_that_were_dealt():
    images = torch.rand(3, 1, 2, 2)
    bias = torch.arange(12.0).reshape(2, 3, 2)
    model = InTurn(images, bias)
    assert torch.equal(model(images[[2, 0]]), bias[0, [2, 0]])
    assert torch.equal(model(images[[2, 2, 1]]), torch.stack([bias[1, 2], bias[0, 2], bias[0, 1]]))
    assert model.asked.tolist() == [1, 1, 3]


def test_the_log_sees_gradients_and_draws_used_again():
    defense = BitDepth(NotedResizePad(torch.nn.Flatten(), 0.5), 3)
    x = torch.rand(4, 1, 6, 6)
    for seed in (0, 1, 0):
        torch.manual_seed(seed)
        defense(x)
    defense.model(x.requires_grad_())
    log = defense.model.log
    assert (log.rows, log.climbed, log.repeated) == (16, 4, 1)
