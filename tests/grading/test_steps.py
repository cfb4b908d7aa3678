"""A check runs to its end whatever the learner's code does, and its points are those of what it saw."""

import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from cProfile import Profile

import pytest
import torch
from answers import marked

from robustness_lib import ThreatModel, grading
from robustness_lib.attacks import PGD
from robustness_lib.grading import Observation, Points, ScoreCard, need, step, steps, torch_settings, wrong


@pytest.fixture(autouse=True)
def no_marks_before(monkeypatch):
    monkeypatch.setattr(steps, "_MARKS", {})


@step(points=3, shares=4, forbidden=("attacks",))
def doubles(mine, by=2):
    """Whether a function doubles."""
    yield need(mine(1) == by, "doubles 1", "does not double 1")
    if not isinstance(mine(2), int):
        yield wrong("returns no whole number")
        return
    yield need(mine(2) == 2 * by, "doubles 2", "does not double 2", share=2)
    yield need(torch.tensor(mine(3) == 3 * by), "doubles 3", "does not double 3")


def test_right_answers_get_all_points():
    assert marked(doubles, lambda n: 2 * n) == (3, 3, "✓ doubles 1\n✓ doubles 2\n✓ doubles 3\n")


def test_points_go_by_the_shares():
    assert marked(doubles, lambda n: 2 * n if n != 2 else 0)[:2] == (1.5, 3)


def test_what_ends_a_check_ends_it():
    points, _, said = marked(doubles, lambda n: 2.0 * n)
    assert (points, said) == (0.75, "✓ doubles 1\n✗ returns no whole number\n")


def test_an_exception_keeps_what_was_right_before_it():
    def mine(n):
        return 2 if n == 1 else {}["nothing"]

    points, _, said = marked(doubles, mine)
    assert (points, said) == (0.75, "✓ doubles 1\n✗ your code raises KeyError: 'nothing'\n")


def test_leaving_is_an_exception_too():
    assert "raises SystemExit" in marked(doubles, lambda n: sys.exit(1))[2]


def test_what_is_not_written_yet_is_said():
    def mine(n):
        raise NotImplementedError

    assert marked(doubles, mine) == (0, 3, "✗ not written yet\n")


class TestWhatTheCheckCannotRead:
    def said(self, mine):
        @step(points=1, shares=1)
        def adds(mine):
            one, two = mine(1)
            yield need(one + two == 3, "adds up", "does not add up")

        return marked(adds, mine)[2]

    def test_a_forgotten_return_is_named(self):
        assert self.said(lambda n: None) == "✗ returns None: is there a `return` at the end?\n"

    @pytest.mark.parametrize(("found", "words"), [
        ([1], "(list of int): ValueError: not enough"), (torch.ones(3), "(Tensor of shape (3,)): ValueError: too many"),
        (5, "(int): TypeError"), ((None, "x"), "(tuple of NoneType, str): TypeError"), ([0] * 9, "(list): ValueError")])
    def test_is_not_blamed_on_the_learners_code(self, found, words):
        said = self.said(lambda n: found)
        assert said.startswith("✗ the check cannot read what your function returns " + words)

    def test_an_exception_of_the_learners_is(self):
        assert self.said(lambda n: [1, 2][n + 1]) == "✗ your code raises IndexError: list index out of range\n"

    def test_an_exception_on_the_way_to_the_check_is_the_learners(self):
        def generator(n):
            yield 1
            raise KeyError("two")

        assert self.said(generator) == "✗ your code raises KeyError: 'two'\n"

    def test_a_generator_is_as_good_as_a_list(self):
        assert self.said(lambda n: iter([1, 2])) == "✓ adds up\n"


class TestSettingsOfTorch:
    @step(points=1, shares=2)
    def asks_twice(mine):
        for _ in range(2):
            mine()
            x = torch.ones(1, requires_grad=True)
            yield need((2 * x).requires_grad and x.dtype == torch.float32 and x.device.type == "cpu", "fine", "not so")

    @pytest.mark.parametrize("switch", [lambda: torch.set_grad_enabled(False),
                                        lambda: torch.set_default_dtype(torch.float64),
                                        lambda: torch.set_default_device("meta")])
    def test_that_a_step_leaves_switched_over_are_switched_back(self, switch):
        try:
            assert marked(self.asks_twice, switch)[0] == 1
            assert torch.is_grad_enabled()
            assert (torch.get_default_dtype(), torch.get_default_device().type) == (torch.float32, "cpu")
            switch()  # in a cell, before a check
            assert marked(self.asks_twice, lambda: None)[0] == 1
            assert (torch.is_grad_enabled(), torch.get_default_dtype(), torch.get_default_device().type) != (
                True, torch.float32, "cpu")
        finally:
            torch_settings.switch_back()


def test_nothing_reaches_stderr(capsys):
    def mine(n):
        print("to stderr", file=sys.stderr)
        warnings.warn("a warning", stacklevel=1)
        return 2 * n

    assert doubles(mine) == 3
    assert capsys.readouterr().err == ""


class TestCallsOfTheLibrary:
    def attacking(self, n):
        x = torch.full((1, 1, 2, 2), 0.5)
        PGD(ThreatModel("linf", 0.1), steps=1)(lambda z: z.flatten(1), x, torch.tensor([0]))
        return 2 * n

    def test_are_named_and_worth_nothing(self):
        points, _, said = marked(doubles, self.attacking)
        assert points == 0
        assert "robustness_lib.attacks.pgd" in said

    def test_of_other_rooms_are_allowed(self):
        def mine(n):
            return 2 * n + int(0 * ThreatModel("linf", 0.1).eps)

        assert marked(doubles, mine)[0] == 3

    def test_cannot_be_hidden_by_a_bare_except(self):
        def mine(n):
            try:
                return self.attacking(n)
            except BaseException:
                return 2 * n

        assert marked(doubles, mine)[0] == 0

    def test_are_seen_in_threads(self):
        def mine(n):
            with ThreadPoolExecutor(1) as pool:
                return pool.submit(self.attacking, n).result()

        assert "library's own work" in marked(doubles, mine)[2]

    def test_are_seen_where_a_generator_makes_them(self):
        @step(points=1, shares=1, forbidden=("attacks",))
        def is_two(mine):
            yield need(next(iter(mine(1))) == 2, "two", "not two")

        def mine(n):
            yield self.attacking(n)

        assert "library's own work" in marked(is_two, mine)[2]

    @pytest.mark.parametrize("back", [True, False])
    def test_cannot_be_hidden_from_the_profiler(self, back):
        def mine(n):
            profiler = sys.getprofile()
            sys.setprofile(None)
            found = self.attacking(n)
            sys.setprofile(profiler if back else None)
            return found

        points, _, said = marked(doubles, mine)
        assert points == 0
        assert "switches off the profiler by which this check sees who calls the library" in said

    def test_cannot_be_hidden_by_another_profiler(self):
        assert "switches off the profiler" in marked(doubles, lambda n: Profile().runcall(self.attacking, n))[2]

    def test_a_profiler_is_at_work_again_afterwards(self):
        def profiler(*_):
            return None

        sys.setprofile(profiler)
        try:
            marked(doubles, self.attacking)
            assert sys.getprofile() is profiler
        finally:
            sys.setprofile(None)


def test_in_grading_has_points_and_a_name_of_its_own():
    assert marked(doubles, lambda n: 2 * n)[0] == 3
    points, of, _ = marked(doubles.in_grading, lambda n: 3 * n, by=3, points=1)
    assert (points, of) == (1, 1)
    assert steps.marks_so_far() == {"doubles": 3, "doubles, in grading": 1}


def test_points_are_a_number_for_nbgrader_and_a_line_for_the_learner():
    assert repr(Points(1.5, 2)) == "1.5"
    for got, colour, full in ((2, "success", "true"), (1.5, "warning", "false"), (0, "danger", "false")):
        page = Points(got, 2)._repr_html_()
        assert f"--pst-color-{colour}" in page
        assert f'data-full="{full}"' in page
        assert f"{got:g} of 2 points" in page


def test_the_score_card_adds_up():
    assert repr(grading.score_card()) == "No check has been run yet."
    marked(doubles, lambda n: 0)
    marked(doubles, lambda n: 2 * n if n != 2 else 0)
    marked(doubles.in_grading, lambda n: 2 * n, points=1)
    card = grading.score_card()
    assert (card.points, card.of) == (2.5, 4)
    assert repr(card).splitlines()[-1].split() == ["together", "2.5", "of", "4"]
    assert "2.5 of 4 points" in card._repr_html_()


def test_a_card_escapes_names():
    assert "<b>" not in ScoreCard({"<b>": Points(1, 1)})._repr_html_()


def test_an_observation_reads_as_one_line():
    assert str(Observation(True, "fine", 1)) == "✓ fine"
    assert str(Observation(False, "not fine", 1)) == "✗ not fine"


def test_cells_that_need_the_steps_wait_for_them(capsys):
    with grading.once_written("The picture"):
        raise NotImplementedError
    with grading.once_written("The picture"):
        raise KeyError("x")
    with grading.once_written("The picture"):
        print("drawn")
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["The picture comes when the steps above are written.",
                     "The picture cannot be shown: KeyError: 'x'", "drawn"]
