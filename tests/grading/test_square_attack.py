"""Only for square_attack: what is given, and how much grading asks for."""

from dataclasses import replace

import torch

from robustness_lib.attacks._squares import linf_sides
from robustness_lib.attacks.square import SquareAttack
from robustness_lib.grading import square_attack as checks
from robustness_lib.grading.given import square_attack as given
from robustness_lib.grading.square_attack.search_log import SearchLog
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


class TestTheLog:
    def asked(self, points):
        """What is noted of queries on two grey images, of 100 in all."""
        x = torch.full((2, 3, 8, 8), 0.5)
        log = SearchLog(x, 0.1, 100)
        for query, point in enumerate(points):
            log.note(point, torch.arange(2), torch.full((2,), query), torch.ones(2, dtype=torch.bool))
        return log

    def stripes(self):
        return given.stripes(torch.full((2, 3, 8, 8), 0.5), 0.1, torch.Generator().manual_seed(1))

    def test_knows_stripes(self):
        assert self.asked([self.stripes()]).striped.all()
        for other in (self.stripes().mT, torch.full((2, 3, 8, 8), 0.6), torch.full((2, 3, 8, 8), 0.5)):
            log = self.asked([other])
            assert not log.striped.any()
            assert log.leapt.all()

    def test_knows_windows_of_the_schedule(self):
        side = given.window_side(1, 100, 8, 8)
        for size, fitting in ((side, 2), (side + 1, 0), (side - 1, 0)):
            made = self.stripes()
            made[0, 0, :size, :size], made[1, 0, 1:1 + size, 1:1 + size] = 0.5, 0.5
            log = self.asked([self.stripes(), made])
            assert (log.changed, log.fitting, log.apart, log.alike) == (2, fitting, fitting // 2, 0)
            assert log.misfit == (None if fitting else (1, size, size, side))
            assert not log.leapt.any()

    def test_sees_one_place_for_all(self):
        made = self.stripes()
        made[:, :, 2:6, 2:6] = 0.5
        log = self.asked([self.stripes(), made])
        assert (log.apart, log.alike) == (0, 1)

    def test_sees_a_leap(self):
        assert self.asked([self.stripes(), 1 - self.stripes()]).leapt.all()
