"""The checks of the exercise break_the_defence, checked: wrong answers lose marks in words that name the mistake, right
ones get all."""

import pytest
import torch
from answers import hidden_checks, marked, run_graded, solved
from break_the_defence_answers import RIGHT, WRONG

from robustness_lib.attacks.adaptive import BPDA, EOT
from robustness_lib.defenses import BitDepth
from robustness_lib.grading import break_the_defence as checks
from robustness_lib.grading.draws import InTurn, NotedResizePad

HIDDEN = hidden_checks("break_the_defence")
STEPS = ("stands", "straight_through", "eot_gradient", "adaptive_attack", "three_bars")


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.name)
def test_a_wrong_answer_loses_marks_and_reads_why(wrong):
    points, of, said = marked(getattr(checks, wrong.step), wrong.answer)
    if wrong.hidden:
        assert points == of, said
        points, of, said = marked(getattr(HIDDEN, wrong.step), wrong.answer, checks.DefenseTask())
    assert points < of
    assert any(wrong.words in line for line in said.splitlines() if line.startswith("✗")), said


@pytest.mark.parametrize("variant", range(4))
def test_the_solution_gets_full_marks_in_every_variant(variant):
    names = solved("break_the_defence")
    names["task"] = checks.DefenseTask(variant)
    found = run_graded("break_the_defence", names)
    assert all(points == of for points, of in found.values()), found
    assert len(found) == 10


def assert_right(answers, task, quick=True):
    for name, answer in answers.items():
        points, of, said = marked(getattr(checks, name), answer, task=task)
        assert points == of, said
        if not (quick and name == "adaptive_attack"):
            points, of, said = marked(getattr(HIDDEN, name), answer, task)
            assert points == of, said


@pytest.mark.parametrize("variant", [0, 4, 8])
@pytest.mark.parametrize("answers", RIGHT.values(), ids=list(RIGHT))
def test_right_answers_of_other_kinds_get_full_marks(answers, variant):
    """Variants that differ by four differ in their random numbers alone."""
    assert_right(answers, checks.DefenseTask(variant))


@pytest.mark.slow
@pytest.mark.parametrize("answers", RIGHT.values(), ids=list(RIGHT))
def test_fifty_reruns_of_right_answers(answers):
    for variant in range(50):
        assert_right(answers, checks.DefenseTask(variant), quick=variant >= 3)


def test_nothing_written_is_worth_nothing_and_says_so():
    def mine(*given_to):
        raise NotImplementedError

    for name in STEPS:
        assert marked(getattr(checks, name), mine)[0::2] == (0, "✗ not written yet\n")


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
