"""Checks of `trades_vs_pgd` on which of two nets is better, image by image."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from robustness_lib.grading.given import trades_vs_pgd as given
from robustness_lib.grading.observations import Observation, need, wrong
from robustness_lib.grading.steps import step
from robustness_lib.grading.trades_vs_pgd.variants import FIRST, TradesVsPgdTask, written_here

__all__ = ["conclude", "which_is_better"]


@step(points=3, shares=9, forbidden=(*written_here("which_is_better"), "evaluation"))
def which_is_better(mine: Callable[[Tensor, Tensor], str], task: TradesVsPgdTask = FIRST,
                    n: int = 200) -> Iterator[Observation]:
    """The comparison: image by image, by an exact test, and "cannot tell" where chance would do as much."""
    cases = {
        "none differ": (0, 0), "as many lost as gained": (9, 9), "a few gained, none lost": (0, 4),
        "a few lost, none gained": (5, 0), "six gained": (0, 6), "many gained, few lost": (2, 14),
        "many lost, few gained": (15, 3), "as many differ, but both ways": (12, 17), "all of one kind": (0, n // 3),
    }
    answers = {}
    for number, (name, (lost, gained)) in enumerate(cases.items()):
        first, second = _columns(lost, gained, n, task.generator(number))
        answers[name] = mine(first, second)
    if not set(answers.values()) <= {"first", "second", "cannot tell"}:
        odd = next(one for one in answers.values() if one not in ("first", "second", "cannot tell"))
        yield wrong(f'returns {odd!r}: one of "first", "second" and "cannot tell"')
        return
    rules = {name: [rule(lost, gained, n) for lost, gained in cases.values()] for name, rule in _RULES.items()}
    mistake = next((_RULE_MISTAKES[name] for name, said in rules.items()
                    if name != "paired" and said == list(answers.values())), "")
    for said, right, (lost, gained) in zip(answers.values(), rules["paired"], cases.values(), strict=True):
        words = f"{lost} lost, {gained} gained of {n}: {said}"
        yield need(said == right, words, f"{words}, and it is “{right}”. {mistake or _what_is_said(said, right)}")


def _columns(lost: int, gained: int, n: int, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """Verdicts (n,) on two nets that differ on so many images; of the rest three quarters are right twice."""
    first = torch.arange(n) >= n // 4
    second = first.clone()
    second[n - lost:] = False
    second[:gained] = True
    if gained > n // 4:
        first[:gained] = False
    order = torch.randperm(n, generator=draw)
    return first[order], second[order]


def _better(lost: int, gained: int, _: int) -> str:
    return "second" if gained > lost else "first" if lost > gained else "cannot tell"


def _by_tail(lost: int, gained: int, limit: float) -> str:
    tail = sum(math.comb(lost + gained, k) for k in range(min(lost, gained) + 1)) / 2 ** (lost + gained)
    return _better(lost, gained, 0) if tail < limit else "cannot tell"


def _apart(lost: int, gained: int, n: int) -> str:
    """Two independent shares, as if other images had been shown to the second net."""
    before = (n - n // 4) / n if gained <= n // 4 else (n - gained) / n
    after = before + (gained - lost) / n
    spread = math.sqrt((before * (1 - before) + after * (1 - after)) / n)
    return _better(lost, gained, n) if abs(after - before) > 1.96 * spread else "cannot tell"


_RULES: dict[str, Callable[[int, int, int], str]] = {
    "paired": lambda lost, gained, n: _by_tail(lost, gained, 0.025),
    "larger": _better,
    "swapped": lambda lost, gained, n: _by_tail(gained, lost, 0.025),
    "one-sided": lambda lost, gained, n: _by_tail(lost, gained, 0.05),
    "unpaired": _apart,
    "never": lambda lost, gained, n: "cannot tell",
}

_RULE_MISTAKES = {
    "larger": "The larger count is no proof: ask how often chance alone would do as much",
    "swapped": "The two are swapped: where the second net gained more, it is the second that is better",
    "one-sided": "A one-sided test, after looking which is ahead, counts half of the chances: two-sided",
    "unpaired": "Two intervals side by side forget that the images are the same: only those that changed count, paired",
    "never": "Where the test is clear, one can tell",
}


def _what_is_said(said: str, right: str) -> str:
    if right == "cannot tell":
        return "An interval that includes 0, or p ≥ .05, shows nothing"
    if said == "cannot tell":
        return "The same images were shown to both: count those that changed, paired, and not two separate intervals"
    return _RULE_MISTAKES["swapped"]


@step(points=2, shares=4, forbidden=("evaluation",))
def conclude(mine: Callable[..., list[str]], task: TradesVsPgdTask = FIRST,
             questions: tuple[tuple[str, str, int], ...] | None = None) -> Iterator[Observation]:
    """Four questions on shipped nets, of which some cannot be answered at this number of images."""
    asked, verdicts = questions or task.questions, given.sign_verdicts()
    found = list(mine(list(asked), {name: column.clone() for name, column in verdicts.items()}))
    if len(found) != len(asked):
        yield wrong(f"returns {len(found)} answers to {len(asked)} questions")
        return
    for (first, second, n), said in zip(asked, found, strict=True):
        one, other = verdicts[first][:n], verdicts[second][:n]
        told = given.which_is_better(one, other)
        right = {"first": first, "second": second}.get(told, told)
        lost, gained = int((one & ~other).sum()), int((other & ~one).sum())
        words = f"{first} or {second} on {n:,} images ({int(one.sum())} and {int(other.sum())} resist): {said}"
        yield need(said == right, words, f"{words}. {lost} are lost, {gained} gained from the one to the other: "
                   f"“{right}”" + (" at this number of images" if right == "cannot tell" else ""), share=4 / len(asked))
