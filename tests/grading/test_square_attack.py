"""The checks of the exercise square_attack, checked: wrong answers lose marks in words that name the mistake, right
ones get all."""

from dataclasses import replace

import pytest
from answers import hidden_checks, marked, run_graded, solved
from square_attack_answers import RIGHT, WRONG

from robustness_lib.attacks._squares import linf_sides
from robustness_lib.attacks.square import SquareAttack
from robustness_lib.grading import square_attack as checks
from robustness_lib.grading.given import square_attack as given
from robustness_lib.threat import ThreatModel

HIDDEN = hidden_checks("square_attack")


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.name)
def test_a_wrong_answer_loses_marks_and_reads_why(wrong):
    points, of, said = marked(getattr(checks, wrong.step), wrong.answer)
    if wrong.hidden:
        assert points == of, said
        points, of, said = marked(getattr(HIDDEN, wrong.step), wrong.answer, checks.SquareTask())
    assert points < of
    assert any(wrong.words in line for line in said.splitlines() if line.startswith("✗")), said


@pytest.mark.parametrize("variant", range(4))
def test_the_solution_gets_full_marks_in_every_variant(variant):
    names = solved("square_attack")
    names["task"] = checks.SquareTask(variant)
    found = run_graded("square_attack", names)
    assert all(points == of for points, of in found.values()), found
    assert len(found) == 13


STEPS = {"stripes": ("stripes",), "window_side": ("window_side",), "propose": ("propose",), "accept": ("accept",),
         "square_attack": ("attack", "masked"), "broken_within": ("broken_within",)}


def assert_right(answers, task, quick=True):
    for name, answer in answers.items():
        for step in STEPS[name]:
            points, of, said = marked(getattr(checks, step), answer, task=task)
            assert points == of, said
            if hasattr(HIDDEN, step) and not (quick and step == "attack"):
                points, of, said = marked(getattr(HIDDEN, step), answer, task)
                assert points == of, said


@pytest.mark.parametrize("variant", [0, 4, 8])
@pytest.mark.parametrize("answers", RIGHT.values(), ids=list(RIGHT))
def test_right_answers_of_other_kinds_get_full_marks(answers, variant):
    """Variants that differ by four differ in their random numbers alone."""
    assert_right(answers, checks.SquareTask(variant))


@pytest.mark.slow
@pytest.mark.parametrize("answers", RIGHT.values(), ids=list(RIGHT))
def test_fifty_reruns_of_right_answers(answers):
    for variant in range(50):
        assert_right(answers, checks.SquareTask(variant), quick=variant >= 3)


def test_nothing_written_is_worth_nothing_and_says_so():
    def mine(*given_to):
        raise NotImplementedError

    for name in ("stripes", "window_side", "propose", "accept", "attack", "masked", "broken_within"):
        assert marked(getattr(checks, name), mine)[0::2] == (0, "✗ not written yet\n")


def test_the_given_schedule_is_the_librarys():
    for queries in (10_000, 500, 300):
        attack = SquareAttack(ThreatModel("linf", 0.1), queries=queries)
        for query in range(1, queries):
            expected = linf_sides(attack._share(query), 32, 32)
            if query * 10_000 // queries not in given.HALVED_AFTER:  # the library rounds the query's number down
                assert (given.window_side(query, queries, 32, 32),) * 2 == expected


def test_the_checks_in_grading_ask_for_what_the_exercise_promises():
    full = replace(checks.SquareTask(), images=300, queries=500, seeds=3, behind=0.1)
    x, y = full.data()
    assert len(x) == len(y) == 300
