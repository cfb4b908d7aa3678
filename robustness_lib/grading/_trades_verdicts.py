"""Checks of the exercise `trades_vs_pgd` on the nets: trained for a while, judged, and compared image by image."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn

from robustness_lib.attacks import PGD, AutoPGD
from robustness_lib.grading._trades_task import FIRST, TradesVsPgdTask, given_nets, nets_of, written_here
from robustness_lib.grading.given import trades_vs_pgd as given
from robustness_lib.grading.observations import Observation, need, wrong
from robustness_lib.grading.steps import step

__all__ = ["conclude", "judged", "robust", "trained", "trap", "which_is_better"]


@step(points=3, shares=4, forbidden=written_here("trades_point", "trades_loss", "pgd_loss", "pgd_point"))
def trained(point: Callable[..., Tensor], loss: Callable[..., Tensor], pgd: Callable[..., Tensor],
            task: TradesVsPgdTask = FIRST) -> Iterator[Observation]:
    """Both losses at work: nets trained for some updates resist about as much as those of the given losses."""
    nets = nets_of(point, loss, pgd, task)
    before, peers = _standing(task.model(), task), _given_standing(task)
    for name, net, peer in zip(("TRADES", "PGD training"), nets, peers, strict=True):
        ours = _standing(net, task)
        words = (f"{name}, {task.updates} updates: {ours} of {task.images} images stand PGD, {before} before the "
                 f"training and {peer} with the given losses")
        yield need(ours >= min(peer, before + 0.6 * (peer - before)), words, f"{words}: too few", share=2)


def _standing(net: nn.Module, task: TradesVsPgdTask) -> int:
    """On how many images PGD of ten steps finds no error."""
    x, y = task.data()
    return len(x) - int(PGD(task.threat, steps=10).run(net, x, y).success.sum())


@lru_cache(maxsize=8)
def _given_standing(task: TradesVsPgdTask) -> list[int]:
    return [_standing(net, task) for net in given_nets(task)]


@step(points=2, shares=5, forbidden=("evaluation", "grading/given/trades_vs_pgd.py:robust"))
def robust(mine: Callable[..., Tensor], task: TradesVsPgdTask = FIRST, n: int = 24) -> Iterator[Observation]:
    """Who is robust: right as it is, and right after each attack. On images whose fate is known."""
    draw = task.generator()
    fate = torch.rand(n, 4, generator=draw) < 0.6  # what the model reads: at first, and after each of three attacks
    fate[:5] = torch.tensor([[1, 1, 1, 1], [0, 1, 1, 1], [1, 0, 1, 1], [1, 1, 0, 1], [1, 1, 1, 0]]).bool()
    fate = fate[torch.randperm(n, generator=draw)]
    x = torch.cat([torch.zeros(n, 1), fate.float()], 1)[:, :, None, None]  # which reading is due, and the readings
    y = torch.randint(2, (n,), generator=draw)
    x = torch.where((torch.arange(5) > 0)[:, None, None] & (y == 0)[:, None, None, None], 1 - x, x)
    found = mine(_Oracle(), x, y, [_Turned(number) for number in (1, 2, 3)])
    if not isinstance(found, Tensor) or found.shape != (n,) or found.dtype != torch.bool:
        shown = f"{found.dtype} {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
        yield wrong(f"returns {shown}: a verdict for each image, bool ({n},). Averages over attacks hide that each "
                    "image has its own worst one")
        return
    mistake = "these are not the images that are right as they are and after every attack"
    only = "looks at the first attack only"
    for other, words in ((fate[:, 1:].all(1), "counts images that are wrong without any attack: an attack that happens "
                                              "to repair one makes it no more robust"),
                         (fate[:, 0], "runs no attack"),
                         (fate[:, :2].all(1), f"{only}, and that may be the one of the training"),
                         (fate[:, 1], f"{only}, and that may be the one of the training"),
                         (fate[:, 0] & fate[:, 3], "looks at the last attack only"),
                         (fate[:, 0] & fate[:, 1:].any(1), "counts an image that resists any of the attacks: it has to "
                                                           "resist every one")):
        if torch.equal(found, other):
            mistake = words
    yield need(torch.equal(found, fate.all(1)), "right as it is, and after every attack", mistake, share=5)


class _Oracle(nn.Module):
    """Two classes. Of an image's five values the first says which of the others is the answer."""

    def forward(self, x: Tensor) -> Tensor:
        values = x.flatten(1)
        answer = values.gather(1, values[:, :1].long() + 1)[:, 0]
        return torch.stack([1 - answer, answer], 1)


@dataclass(frozen=True)
class _Turned:
    """An attack on `_Oracle`, whose effect stands in the image."""

    number: int

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        x_adv = x.clone()
        x_adv[:, 0] = self.number
        return x_adv


@dataclass(frozen=True)
class _Kept:
    """An attack that was run on images x before. Asked about some of them, in any order, it hands out what it found."""

    x: Tensor
    x_adv: Tensor

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        same = (x[:, None] == self.x).flatten(2).all(2)
        if not same.any(1).all():
            raise ValueError("the attacks are for the images of the test set: hand them on as they are")
        return self.x_adv[same.int().argmax(1)]


@lru_cache(maxsize=8)
def _attacks(task: TradesVsPgdTask) -> dict[str, tuple[nn.Module, list[_Kept]]]:
    """Of each training the net, the attack that it was trained with, and two short Auto-PGD."""
    x, y = task.data()
    first, second = given_nets(task)
    own = {"TRADES": (first, given.trades_point(first, x, task.eps, task.steps, task.generator(10))),
           "PGD training": (second, given.pgd_point(second, x, y, task.eps, task.steps, task.generator(10)))}
    judges = (AutoPGD(task.threat, loss="ce", steps=20),
              AutoPGD(task.threat, loss="targeted-dlr", steps=10, target_classes=5))
    return {name: (net, [_Kept(x, x_adv), *(_Kept(x, judge(net, x, y)) for judge in judges)])
            for name, (net, x_adv) in own.items()}


def judged(mine: Callable[..., Tensor], task: TradesVsPgdTask = FIRST) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
    """By the name of its training, each net's verdicts (N,): without an attack, by the attack that it was trained with,
    and by that and two short Auto-PGD."""
    mine(_Oracle(), torch.ones(1, 5, 1, 1), torch.ones(1).long(), [_Turned(1)])  # is it written? The rest takes long
    x, y = task.data()
    return {name: (given.robust(net, x, y, []), mine(net, x, y, attacks[:1]), mine(net, x, y, attacks))
            for name, (net, attacks) in _attacks(task).items()}


@step(points=2, shares=4, forbidden=("evaluation", "grading/given/trades_vs_pgd.py:robust"))
def trap(mine: Callable[..., Tensor], task: TradesVsPgdTask = FIRST) -> Iterator[Observation]:
    """Each net by the attack of its own training, and both by the same judges."""
    found = judged(mine, task)
    rightly = judged(given.robust, task)
    for name, columns in found.items():
        if not all(isinstance(one, Tensor) and one.shape == (task.images,) for one in columns):
            yield wrong(f"a verdict for each of the {task.images} images is needed")
            return
        clean, own, both = (int(one.sum()) for one in columns)
        words = (f"{name}: of {task.images} images {clean} are right unattacked, {own} after the attack of its own "
                 f"training, {both} after Auto-PGD as well")
        off = max(int((a != b).sum()) for a, b in zip(columns, rightly[name], strict=True))
        yield need(not off, words, f"{words}: {off} verdicts are not the right ones", share=2)


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
