"""The checks of the exercise fgsm_first_steps, checked: wrong answers lose marks in words that name the mistake, right
ones get all."""

import pytest
import torch
import torch.nn.functional as F
from answers import hidden_checks, marked, run_graded, solved
from fgsm_first_steps_answers import RIGHT, WRONG

from robustness_lib import ThreatModel
from robustness_lib.attacks import FGSM
from robustness_lib.grading import fgsm_first_steps as checks
from robustness_lib.grading.given import fgsm_first_steps as given
from robustness_lib.grading.small_models import linear_gradient
from robustness_lib.models import load_pretrained
from robustness_lib.notebook import linear_model

HIDDEN = hidden_checks("fgsm_first_steps")
STEPS = ("input_gradient", "margin_drops", "fgsm", "still_right", "smallest_eps")


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.name)
def test_a_wrong_answer_loses_marks_and_reads_why(wrong):
    points, of, said = marked(getattr(checks, wrong.step), wrong.answer)
    if wrong.hidden:
        assert points == of, said
        points, of, said = marked(getattr(HIDDEN, wrong.step), wrong.answer, checks.FgsmFirstStepsTask())
    assert points < of
    assert any(wrong.words in line for line in said.splitlines() if line.startswith("✗")), said


@pytest.mark.parametrize("variant", range(4))
def test_the_solution_gets_full_marks_in_every_variant(variant):
    names = solved("fgsm_first_steps")
    names["task"] = checks.FgsmFirstStepsTask(variant)
    found = run_graded("fgsm_first_steps", names)
    assert all(points == of for points, of in found.values()), found
    assert len(found) == 10


def assert_right(answers, variant):
    task = checks.FgsmFirstStepsTask(variant)
    for name, answer in answers.items():
        points, of, said = marked(getattr(checks, name), answer, task=task)
        assert points == of, said
        points, of, said = marked(getattr(HIDDEN, name), answer, task)
        assert points == of, said


@pytest.mark.parametrize("variant", [0, 5, 10])
@pytest.mark.parametrize("answers", RIGHT.values(), ids=list(RIGHT))
def test_right_answers_of_other_kinds_get_full_marks(answers, variant):
    assert_right(answers, variant)


@pytest.mark.slow
@pytest.mark.parametrize("answers", RIGHT.values(), ids=list(RIGHT))
def test_fifty_reruns_of_right_answers(answers):
    for variant in range(50):
        assert_right(answers, variant)


@pytest.mark.slow
@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.name)
def test_wrong_answers_lose_marks_in_ten_other_variants(wrong):
    for variant in range(1, 11):
        task = checks.FgsmFirstStepsTask(variant)
        points, of, said = (marked(getattr(HIDDEN, wrong.step), wrong.answer, task) if wrong.hidden else
                            marked(getattr(checks, wrong.step), wrong.answer, task=task))
        assert points < of
        assert any(wrong.words in line for line in said.splitlines() if line.startswith("✗")), said


def test_nothing_written_is_worth_nothing_and_says_so():
    def mine(*given_to):
        raise NotImplementedError

    for name in STEPS:
        assert marked(getattr(checks, name), mine)[0::2] == (0, "✗ not written yet\n")
        assert marked(getattr(HIDDEN, name), mine, checks.FgsmFirstStepsTask())[0] == 0


# What the checks compare with.


def test_the_formula_of_the_gradient_is_autograds():
    model, x, y = checks._half_misread(checks.FgsmFirstStepsTask(3), (9, 2, 4, 5))
    pixels = x.double().requires_grad_()
    loss = F.cross_entropy(model.double().eval()(pixels), y, reduction="sum")
    assert torch.allclose(linear_gradient(model, x, y), torch.autograd.grad(loss, pixels)[0], atol=1e-12)


def test_the_given_step_is_the_librarys():
    x, y = checks.FgsmFirstStepsTask().data()
    model = load_pretrained("signs-tiny-pgd")
    theirs = FGSM(ThreatModel("linf", 0.02), stop="never")(model, x, y)
    right = model(x).argmax(1) == y  # the library leaves images that are misread as they are
    assert torch.allclose(given.fgsm(model, x, y, 0.02)[right], theirs[right], atol=1e-6)


def test_the_smallest_eps_is_where_the_librarys_step_begins_to_break():
    w, b = torch.tensor([2.0, -1.0], dtype=torch.float64), torch.tensor(0.0, dtype=torch.float64)
    x, y = torch.tensor([[0.5, 0.4]], dtype=torch.float64), torch.tensor([1])
    eps = solved("fgsm_first_steps")["smallest_eps"](x, y, w, b).item()
    assert eps == pytest.approx(0.2)
    for share, breaks in ((0.99, False), (1.01, True)):
        assert FGSM(ThreatModel("linf", share * eps)).run(linear_model(w, b), x, y).success.item() == breaks


@pytest.mark.parametrize("variant", range(50))
def test_on_waves_every_kind_of_image_comes(variant):
    """Right twice, broken, wrong twice, and wrong before and right after by accident."""
    task = checks.FgsmFirstStepsTask(variant)
    model, x, y = checks._waves(task, 60)
    before, after = (answer == y for answer in checks._answers(model, x, y, task.eps))
    assert all((a & b).any() for a in (before, ~before) for b in (after, ~after))
