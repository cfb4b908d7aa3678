"""A step of an exercise: a check that looks at what the learner wrote, says what it found, and gives points.

A check runs to its end whatever it meets. A notebook that nobody has solved yet still runs from top to bottom, and
nbgrader takes anything on stderr in a graded cell for a failure: so exceptions become observations, and warnings
ordinary output.
"""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from robustness_lib.grading.observations import Observation, Points
from robustness_lib.grading.torch_settings import default_settings
from robustness_lib.grading.watched_answers import WatchedAnswers

__all__ = ["GradedStep", "marks_so_far", "step"]

StepCheck = Callable[..., Iterator[Observation]]

_MARKS: dict[str, Points] = {}


def marks_so_far() -> dict[str, Points]:
    """The points of each check that has been run, by the check's name; the latest of each."""
    return dict(_MARKS)


@dataclass(frozen=True)
class GradedStep:
    """A check with its points. Called with what the learner wrote, it prints its observations and returns the points.

    Points are given by the shares of the observations that are right. What would have come after an exception, or after
    an observation with which the check ended, is missing from them.

    check: takes the answers (functions, or values) and, by name, what they are tried on; yields observations.
    shares: of all its observations together, where nothing is wrong.
    forbidden: files and folders of the library that the answers may not call. Where they do, there are no points.
    """

    check: StepCheck
    points: float
    shares: float
    forbidden: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.check.__name__

    @property
    def __doc__(self) -> str | None:  # type: ignore[override]
        return self.check.__doc__

    def __call__(self, *answers: Any, **tried_on: Any) -> Points:
        """Look at the answers at once, as the learner does. tried_on: by default the exercise's first variant."""
        return self._mark(self.name, self.points, answers, tried_on)

    def in_grading(self, *answers: Any, points: float, **tried_on: Any) -> Points:
        """Look at the answers again, on something else than the learner has seen, for points of their own."""
        return self._mark(f"{self.name}, in grading", points, answers, tried_on)

    def observations(self, *answers: Any, **tried_on: Any) -> list[Observation]:
        """What the check finds, without a word."""
        mine, found = WatchedAnswers(self.forbidden), list[Observation]()
        watched = [mine.watch(answer) if callable(answer) else answer for answer in answers]
        with contextlib.redirect_stderr(sys.stdout), warnings.catch_warnings(), default_settings():
            warnings.simplefilter("ignore")
            try:
                for observation in self.check(*watched, **tried_on):
                    found.append(observation)  # one by one: those before an exception are kept
            except NotImplementedError:
                found.append(Observation(False, "not written yet", 0))
            except (Exception, SystemExit) as error:  # sys.exit() would end the kernel's cell with words on stderr
                found.append(Observation(False, mine.failure(error), 0))
        if mine.calls.called:
            names = ", ".join(sorted(mine.calls.called))
            return [Observation(False, f"calls the library's own work ({names}): this step is to write it yourself", 0)]
        if mine.calls.switched_off:
            return [Observation(False, "switches off the profiler by which this check sees who calls the library: "
                                       "leave sys.setprofile alone", 0)]
        return found

    def _mark(self, name: str, of: float, answers: tuple[Any, ...], tried_on: dict[str, Any]) -> Points:
        observations = self.observations(*answers, **tried_on)
        print("\n".join(str(observation) for observation in observations))
        got = sum(observation.share for observation in observations if observation.right)
        _MARKS[name] = Points(round(of * got / self.shares, 2), of)
        return _MARKS[name]


def step(points: float, shares: float, forbidden: tuple[str, ...] = ()) -> Callable[[StepCheck], GradedStep]:
    """Make a check a step."""
    def made(check: StepCheck) -> GradedStep:
        return GradedStep(check, points, shares, forbidden)

    return made
