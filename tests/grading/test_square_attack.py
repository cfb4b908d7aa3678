"""Only for square_attack: what is given, and how much grading asks for."""

from dataclasses import replace

from robustness_lib.attacks._squares import linf_sides
from robustness_lib.attacks.square import SquareAttack
from robustness_lib.grading import square_attack as checks
from robustness_lib.grading.given import square_attack as given
from robustness_lib.threat import ThreatModel


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
