"""The checks of the exercise certified_accuracy, checked: wrong answers lose marks in words that name the mistake,
right ones get all."""

import math

import pytest
import torch
from answers import hidden_checks, marked, run_graded, solved
from certified_accuracy_answers import RIGHT, WRONG
from scipy.stats import binom, norm

from robustness_lib.certify import RandomizedSmoothing
from robustness_lib.grading import certified_accuracy as checks
from robustness_lib.grading.given import certified_accuracy as given
from robustness_lib.grading.linear import linear_classifier, points_at
from robustness_lib.grading.noise_watcher import NoiseWatcher, alike, noise_mistake

HIDDEN = hidden_checks("certified_accuracy")
STEPS = ("noise_loss", "count_votes", "lower_bound", "certified_radius", "certify", "certified_accuracy", "larger_wins",
         "attacked_accuracy")


def quick(variant=0):
    """The exercise with few votes on few images: the checks' own judgement is the same."""
    return checks.CertifiedAccuracyTask(variant, images=8, n0=20, n=100)


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.name)
def test_a_wrong_answer_loses_marks_and_reads_why(wrong):
    points, of, said = marked(getattr(checks, wrong.step), wrong.answer, task=quick())
    if wrong.hidden:
        assert points == of, said
        points, of, said = marked(getattr(HIDDEN, wrong.step), wrong.answer, quick())
    assert points < of
    assert any(wrong.words in line for line in said.splitlines() if line.startswith("✗")), said


@pytest.mark.parametrize("variant", range(4))
def test_the_solution_gets_full_marks_in_every_variant(variant):
    names = solved("certified_accuracy")
    names["task"] = quick(variant)
    found = run_graded("certified_accuracy", names)
    assert all(points == of for points, of in found.values()), found
    assert len(found) == 16


@pytest.mark.slow
@pytest.mark.parametrize("variant", range(4))
def test_the_solution_gets_full_marks_with_all_votes(variant):
    names = solved("certified_accuracy")
    names["task"] = checks.CertifiedAccuracyTask(variant)
    assert all(points == of for points, of in run_graded("certified_accuracy", names).values())


def assert_right(answers, task, *, attack_again=True):
    for step, answer in answers.items():
        points, of, said = marked(getattr(checks, step), answer, task=task)
        assert points == of, said
        if attack_again or step != "attacked_accuracy":
            points, of, said = marked(getattr(HIDDEN, step), answer, task)
            assert points == of, said


@pytest.mark.parametrize("variant", [0, 4, 8])
@pytest.mark.parametrize("answers", RIGHT.values(), ids=list(RIGHT))
def test_right_answers_of_other_kinds_get_full_marks(answers, variant):
    """Variants that differ by four differ in their random numbers alone."""
    assert_right(answers, quick(variant))


@pytest.mark.slow
@pytest.mark.parametrize("variant", range(50))
def test_fifty_reruns_of_right_answers(variant):
    """One variant after the other: its votes are counted once for all answers."""
    for answers in RIGHT.values():
        assert_right(answers, quick(variant), attack_again=variant < 3)


def test_nothing_written_is_worth_nothing_and_says_so():
    def mine(*given_to):
        raise NotImplementedError

    for name in STEPS:
        assert marked(getattr(checks, name), mine)[0::2] == (0, "✗ not written yet\n")
        assert marked(getattr(HIDDEN, name), mine, checks.CertifiedAccuracyTask())[0::2] == (0, "✗ not written yet\n")


# What the checks are made of.


def test_the_given_bound_has_the_probability_that_it_says():
    for hits, n, alpha in ((1, 7, 0.1), (50, 60, 0.001), (400, 400, 0.02)):
        assert binom.sf(hits - 1, n, given.lower_bound(hits, n, alpha)) == pytest.approx(alpha)
    assert given.lower_bound(0, 9, 0.01) == 0


def test_the_given_parts_make_the_librarys_certificate():
    """On a model whose share is known, both certify nearly its distance."""
    w = torch.ones(3, 4, 4)
    model, x = linear_classifier(w, -24), points_at(torch.tensor([0.2, -0.3]), w, -24)
    votes = given.count_votes(model, x, 0.25, 3000, torch.Generator().manual_seed(0))
    mine = [given.certified_radius(given.lower_bound(int(row.max()), 3000, 0.001), 0.25) for row in votes]
    _, theirs = RandomizedSmoothing(model, 0.25).certify(x, n=3000, progress=False)
    assert mine == pytest.approx(theirs.tolist(), abs=0.03)
    assert votes.argmax(1).tolist() == [1, 0]


def test_points_lie_at_the_distance_that_they_should():
    w, distances = torch.randn(3, 5, 5, generator=torch.Generator().manual_seed(1)), torch.tensor([0.1, -0.4, 0.0])
    x = points_at(distances, w, 0.7)
    assert ((x * w).sum((1, 2, 3)) + 0.7).div(w.norm()).tolist() == pytest.approx(distances.tolist(), abs=1e-5)
    logits = linear_classifier(w, 0.7)(x)
    assert (logits[:, 1] - logits[:, 0]).div(w.norm()).tolist() == pytest.approx(distances.tolist(), abs=1e-5)


def test_a_watched_model_remembers_all():
    watched = NoiseWatcher(linear_classifier(torch.ones(2))).train()
    first, second = torch.rand(3, 2), torch.rand(1, 2)
    answers = watched(first)
    watched.eval()
    with torch.no_grad():
        watched(second)
    assert torch.equal(watched.shown, torch.cat([first, second]))
    assert torch.equal(watched.answers[:3], answers)
    assert (watched.modes, watched.gradients) == ([True, False], True)
    watched.forget()
    assert (len(watched.shown), len(watched.answers), watched.modes, watched.gradients) == (0, 0, [], False)


@pytest.mark.parametrize("sigma", [0.1, 0.25, 0.5, 1.5])
def test_normal_noise_is_never_found_wrong(sigma):
    for seed in range(100):
        noise = sigma * torch.randn(24, 432, generator=torch.Generator().manual_seed(seed))
        assert noise_mistake(noise, sigma) is None
        assert not alike(noise).any()


def test_noise_that_is_shared_is_found():
    noise = torch.randn(5, 40)
    noise[3] = noise[1]
    assert alike(noise).nonzero().tolist() == [[1, 3], [3, 1]]


def test_votes_certify_no_farther_than_they_can():
    task = quick()
    for sigma in task.sigmas:
        prediction, radius = task.voted(sigma)
        assert len(prediction) == len(radius) == 8
        assert radius.max() <= sigma * norm.ppf(task.alpha ** (1 / task.n)) + 1e-9
        assert ((prediction == -1) == (radius == 0)).all()
    assert task.radii[-1] > radius.max()
    assert math.isclose(task.radii[0], 0)
