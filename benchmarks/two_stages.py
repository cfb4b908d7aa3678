"""Systems of two stages, and the attack that knows both: a net answers what does not look odd; the rest is refused, or
sent on to a second net. Detectors (Carlini and Wagner 2017, arXiv 1705.07263), routers and separate nets are all this.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from robustness_lib import ThreatModel
from robustness_lib.attacks import AutoPGD, BoundedAttack
from robustness_lib.losses import margin_loss
from robustness_lib.querying import frozen

__all__ = ["REFUSED", "Doubt", "Excess", "Gated", "Outcome", "Suspicion", "TwoStages", "adaptive", "ask",
           "margin_past_the_gate", "threshold_at"]

REFUSED = -1
BATCH = 250


def ask(module: nn.Module, x: Tensor) -> Tensor:
    """What a module answers to the images x (N, ...), in eval mode, without gradients."""
    with frozen(module), torch.no_grad():
        return torch.cat([module(part) for part in torch.split(x, BATCH)])


# ---------------------------------------------------------------------------------------------------- what looks odd

class Doubt(nn.Module):
    """Minus the log-odds of a net's leading class, (N,): confidence, without the rounding to 1 that softmax ends in."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        logits = self.model(x)
        top, leading = logits.max(1)
        rest = logits.scatter(1, leading[:, None], -math.inf)
        return rest.logsumexp(1) - top


class Suspicion(nn.Module):
    """How much a detector with logits (N, 2), of clean and of attacked images, leans to the second: (N,)."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, x: Tensor) -> Tensor:
        logits = self.detector(x)
        return logits[:, 1] - logits[:, 0]


class Excess(nn.Module):
    """By how much a score passes its threshold, (N,); `sign` −1 turns it round."""

    def __init__(self, score: nn.Module, threshold: float, sign: int = 1) -> None:
        super().__init__()
        self.score, self.threshold, self.sign = score, threshold, sign

    def forward(self, x: Tensor) -> Tensor:
        return self.sign * (self.score(x) - self.threshold)

    def turned(self) -> Excess:
        return Excess(self.score, self.threshold, -self.sign)


def threshold_at(scores: Tensor, share: float) -> float:
    """The smallest of these scores (N,) that at most this share of them lie above."""
    kept = len(scores) - math.floor(share * len(scores) + 1e-9)
    return float(scores.sort().values[kept - 1])


class Gated(nn.Module):
    """The logits (N, K) of a net and one more, z_max + excess: the largest where the excess is above 0. So "class c,
    and past the gate" is one class of K + 1 like any other, with one gradient."""

    def __init__(self, model: nn.Module, excess: nn.Module) -> None:
        super().__init__()
        self.model, self.excess = model, excess

    def forward(self, x: Tensor) -> Tensor:
        logits = self.model(x)
        return torch.cat([logits, (logits.amax(1) + self.excess(x))[:, None]], 1)


def margin_past_the_gate(logits: Tensor, y: Tensor) -> Tensor:
    """Of `Gated` logits (N, K + 1), (N,): above 0 exactly where the net errs and the gate lets it pass."""
    classes, gate = logits[:, :-1], logits[:, -1]
    return torch.minimum(margin_loss(classes, y), classes.amax(1) - gate)


# ------------------------------------------------------------------------------------------------- system and attack

@dataclass(frozen=True)
class TwoStages:
    """`first` answers where `excess` is 0 or less; what lies above is sent on to `second`, or refused without one."""

    first: nn.Module
    excess: Excess
    second: nn.Module | None = None

    def answers(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The classes answered (N,), REFUSED among them, and what was sent on (N,) bool."""
        sent_on = ask(self.excess, x) > 0
        answer = ask(self.first, x).argmax(1)
        if self.second is None:
            return answer.masked_fill(sent_on, REFUSED), sent_on
        return torch.where(sent_on, ask(self.second, x).argmax(1), answer), sent_on

    def fooled(self, x: Tensor, y: Tensor) -> Tensor:
        """(N,) bool: a wrong class is answered. Refusing is not being fooled."""
        answer = self.answers(x)[0]
        return (answer != y) & (answer != REFUSED)

    def sides(self) -> list[Gated]:
        """What can be made to err: the first net where it answers, and the second where it does."""
        first = [Gated(self.first, self.excess)]
        return first if self.second is None else [*first, Gated(self.second, self.excess.turned())]


@dataclass(frozen=True)
class Outcome:
    """x_adv (N, ...): an image that fools the system where one was found, else x. standing (N,) bool: where none was.
    after: how many were standing after each attack, in order."""

    x_adv: Tensor
    standing: Tensor
    after: dict[str, int]


@dataclass(frozen=True)
class Try:
    """An attack on a part of the system; with a target (N,), toward that class."""

    name: str
    model: nn.Module
    attack: BoundedAttack
    target: Tensor | None = None


def adaptive(system: TwoStages, x: Tensor, y: Tensor, threat: ThreatModel, steps: int, classes: int = 3,
             tried: Mapping[str, Tensor] | None = None) -> Outcome:
    """The attacker who knows both nets and the gate: the worst case over no attack, the images `tried` by name, and
    the tries below. Each image is judged by the system itself, and attacked until it fools it."""
    standing, x_adv, after = ~system.fooled(x, y), x.clone(), {}
    after["no attack"] = int(standing.sum())

    def judge(name: str, rows: Tensor, found: Tensor) -> None:
        fooled = system.fooled(found, y[rows])
        standing[rows[fooled]] = False
        x_adv[rows[fooled]] = found[fooled]
        after[name] = int(standing.sum())

    for name, images in (tried or {}).items():
        rows = standing.nonzero()[:, 0]
        judge(name, rows, images[rows])
    for one in tries(system, x, y, threat, steps, classes):
        rows = standing.nonzero()[:, 0]
        target = None if one.target is None else one.target[rows]
        judge(one.name, rows, one.attack.run(one.model, x[rows], y[rows], target, index=rows).x_adv)
    return Outcome(x_adv, standing, after)


def tries(system: TwoStages, x: Tensor, y: Tensor, threat: ThreatModel, steps: int, classes: int) -> Iterator[Try]:
    """Auto-PGD on errors that pass the gate, on either side of it; toward the `classes` wrong classes that the first
    net thinks likeliest; on the second net as if there were no gate; and on each side once more, from another start
    with twice the steps: what that still finds, the others have missed."""
    climb = AutoPGD(threat, steps, loss=margin_past_the_gate, stop="never")
    for number, side in enumerate(system.sides(), 1):
        yield Try(f"side {number}", side, climb)
    likely = ask(system.first, x).scatter(1, y[:, None], -math.inf).argsort(1, descending=True)
    plain = AutoPGD(threat, steps, loss="margin")
    for rank in range(min(classes, likely.shape[1] - 1)):
        yield Try(f"side 1, class {rank + 1}", system.sides()[0], plain, likely[:, rank])
    if system.second is not None:
        yield Try("second net", system.second, plain)
    for number, side in enumerate(system.sides(), 1):
        yield Try(f"side {number}, again", side, replace(climb, steps=2 * steps, seed=1))
