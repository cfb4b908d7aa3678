"""Every exercise with its answers, right and wrong, and with what these are tried on; and how they are judged."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import ModuleType
from typing import Any

from answers import Wrong, hidden_checks, marked

from robustness_lib.grading import GradedStep


@dataclass(frozen=True)
class Exercise:
    """An exercise, and what its answers are tried on.

    cells: how many of its notebook's cells are graded without a person.
    variants: those in which right answers are tried: the settings of the first, and other random numbers.
    settings: of the task, where it is to be quicker than the learner's; solved: others for the whole solution; of_step:
    others for an answer to one step; later: others for reruns after the first three.
    checked_by: the checks that look at an answer, where they are not just the one of its name.
    long: what is checked in grading only in the first three reruns; long_later: what also other tests check, and reruns
    after the first three do not.
    """

    name: str
    cells: int
    variants: tuple[int, ...] = (0, 4, 8)
    settings: Mapping[str, int] = field(default_factory=dict)
    solved: Mapping[str, int] = field(default_factory=dict)
    of_step: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    later: Mapping[str, int] = field(default_factory=dict)
    checked_by: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    long: tuple[str, ...] = ()
    long_later: tuple[str, ...] = ()

    @cached_property
    def checks(self) -> ModuleType:
        return importlib.import_module(f"robustness_lib.grading.{self.name}")

    @cached_property
    def hidden(self) -> ModuleType:
        """Its checks in grading. They take the variant from a task and nothing else; here with this table's settings.
        """
        module = hidden_checks(self.name)
        if self.settings:
            vars(module).update(other=lambda task: self.task(task.variant + 5),
                                same=lambda task: self.task(task.variant))
        return module

    @cached_property
    def wrong(self) -> list[Wrong]:
        found: list[Wrong] = importlib.import_module(f"{self.name}_answers").WRONG
        return found

    @cached_property
    def right(self) -> dict[str, dict[str, Any]]:
        """Answers by step, of several kinds."""
        found: dict[str, dict[str, Any]] = importlib.import_module(f"{self.name}_answers").RIGHT
        return found

    @property
    def steps(self) -> list[str]:
        return [name for name in self.checks.__all__ if isinstance(getattr(self.checks, name), GradedStep)]

    def task(self, variant: int = 0, **settings: int) -> Any:
        return replace(self.checks.task(variant), **{**self.settings, **settings})

    def marked(self, step: str, *answers: Any, task: Any) -> tuple[float, float, str]:
        return marked(getattr(self.checks, step), *answers, task=task)

    def marked_in_grading(self, step: str, *answers: Any, task: Any) -> tuple[float, float, str]:
        return marked(getattr(self.hidden, step), *answers, task)

    def takes(self, step: str) -> int:
        """How many answers a check takes at once."""
        return list(inspect.signature(getattr(self.checks, step).check).parameters).index("task")


EXERCISES = {exercise.name: exercise for exercise in (
    Exercise("break_the_defence", 10, long=("adaptive_attack",)),
    Exercise("certified_accuracy", 16, settings={"images": 8, "n0": 20, "n": 100}, long_later=("attacked_accuracy",)),
    Exercise("fgsm_first_steps", 10, variants=(0, 5, 10)),
    Exercise("ibp_by_hand", 10),
    Exercise("pgd_and_restarts", 13, variants=(0, 5, 10), later={"images": 20}, long_later=("pgd",),
             checked_by={"pgd_with_restarts": ("pgd_with_restarts", "flat_floor")}),
    Exercise("square_attack", 13, checked_by={"square_attack": ("attack", "masked")}, long=("attack",)),
    Exercise("trades_vs_pgd", 18, solved={"updates": 10, "images": 60}, of_step={"trap": {"updates": 5, "images": 50}}),
)}


def assert_wrong(exercise: Exercise, wrong: Wrong, variant: int) -> None:
    """Whether a wrong answer loses marks, in words that name the mistake; in grading only, where nothing else shows
    it."""
    task = exercise.task(variant, **exercise.of_step.get(wrong.step, {}))
    points, of, said = exercise.marked(wrong.step, wrong.answer, task=task)
    if wrong.hidden:
        assert points == of, said
        points, of, said = exercise.marked_in_grading(wrong.step, wrong.answer, task=task)
    assert points < of
    assert any(wrong.words in line for line in said.splitlines() if line.startswith("✗")), said


def assert_right(exercise: Exercise, answers: Mapping[str, Any], task: Any, without: Iterable[str] = ()) -> None:
    """Whether answers get full marks, at once and in grading. without: what is not checked in grading."""
    for name, answer in answers.items():
        for step in exercise.checked_by.get(name, (name,)):
            points, of, said = exercise.marked(step, answer, task=task)
            assert points == of, said
            if hasattr(exercise.hidden, step) and step not in without:
                points, of, said = exercise.marked_in_grading(step, answer, task=task)
                assert points == of, said
