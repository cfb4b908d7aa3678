"""Suites: which attacks, in which order."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from robustness_lib.attacks import FAB, FGSM, PGD, Attack, AutoAttack, BoundedAttack, CarliniWagnerL2
from robustness_lib.attacks._ensemble import with_all_steps
from robustness_lib.attacks._victim import Mode
from robustness_lib.threat import ThreatModel

__all__ = ["SUITES", "Entry", "ForeignAttack", "Suite", "SuiteLike", "find_suite"]

ForeignAttack = Callable[[Any, Tensor, Tensor], Tensor]

RESERVED = {"clean", "curve", "diagnostics"}  # steps that every evaluation may have

SUITES = {
    "quick": "clean, FGSM, PGD-20. A first look, in seconds; not a verdict.",
    "standard": "clean, FGSM, PGD-20 with 5 restarts, AutoAttack, the curve over ε, diagnostics. The verdict.",
    "random": "for models that answer at random: clean, AutoAttack's version for them (gradients and answers averaged "
              "over 20 draws), diagnostics.",
}


@dataclass(frozen=True)
class Entry:
    """An attack of a suite. prefix: stands before the names of an ensemble's parts. late: it meets only what the
    others left standing, as AutoAttack does by itself."""

    name: str
    attack: Any
    prefix: str = ""
    late: bool = False

    @property
    def on(self) -> str:
        """AutoAttack meets what the others left standing; everything else meets every image that was right."""
        return "survivors" if self.late or isinstance(self.attack, AutoAttack) else "correct"

    def stages(self, classes: int, random: bool = False) -> dict[str, str]:
        """Names of what it consists of, with their settings in words. random: on a model that says it answers so."""
        if isinstance(self.attack, AutoAttack):
            parts = self.attack.attacks(classes)
            parts = with_all_steps(parts) if random else parts
            return {self.prefix + name: repr(part) for name, part in parts.items()}
        return {self.name: _words(self.attack)}


@dataclass(frozen=True)
class Suite:
    """name: of one of `SUITES`, or "own". entries: the attacks in order. curve: also attack at other ε.
    diagnostics: also look for masked gradients."""

    name: str
    entries: tuple[Entry, ...]
    curve: bool
    diagnostics: bool

    def __str__(self) -> str:
        return f"{self.name}: " + "; ".join(f"{entry.name} {_words(entry.attack)}" for entry in self.entries)


SuiteLike = str | Suite | Attack | AutoAttack | ForeignAttack | Mapping[str, Any] | Sequence[Any]


def find_suite(suite: SuiteLike, threat: ThreatModel, *, seed: int = 0, mode: Mode = "eval") -> Suite:
    """suite: a name of `SUITES`; a `Suite` made by hand; an attack; attacks in a list; or attacks by name in a
    mapping. An attack is one of this library's, or any function (model, x, y) -> x_adv.

    Raises ValueError for an unknown name, an empty list, and an attack that has another threat model or norm than
    `threat`; TypeError for what cannot be called.
    """
    if isinstance(suite, str):
        return _named(suite, threat, seed, mode)
    if isinstance(suite, Suite):
        entries = list(suite.entries)
    elif isinstance(suite, Mapping):
        entries = [Entry(name, attack, prefix=f"{name}/") for name, attack in suite.items()]
    else:
        attacks = list(suite) if isinstance(suite, Sequence) else [suite]
        entries = [Entry(name, attack, prefix=f"{name}/" if name != "autoattack" else "")
                   for name, attack in zip(_names(attacks), attacks, strict=True)]
    if not entries:
        raise ValueError("a suite needs at least one attack; found none")
    names = [entry.name for entry in entries]
    if taken := sorted(set(names) & RESERVED | {name for name in names if names.count(name) > 1}):
        raise ValueError(f"each attack needs a name of its own, other than {', '.join(sorted(RESERVED))}; found "
                         f"{', '.join(taken)}")
    for entry in entries:
        _check(entry, threat)
    return suite if isinstance(suite, Suite) else Suite("own", tuple(entries), curve=False, diagnostics=False)


def _named(name: str, threat: ThreatModel, seed: int, mode: Mode) -> Suite:
    own = -1 - seed  # AutoAttack's parts take 4·seed to 4·seed + 3: other starts than those
    auto_attack = AutoAttack(threat, seed=seed, mode=mode)
    fgsm = Entry("fgsm", FGSM(threat, mode=mode))
    if name == "quick":
        return Suite(name, (fgsm, Entry("pgd-20", PGD(threat, steps=20, seed=own, mode=mode))), False, False)
    if name == "standard":
        pgd = Entry("pgd-20", PGD(threat, steps=20, restarts=5, seed=own, mode=mode))
        return Suite(name, (fgsm, pgd, Entry("autoattack", auto_attack)), True, True)
    if name == "random":
        averaging = AutoAttack(threat, version="rand", seed=seed, mode=mode)
        return Suite(name, (Entry("autoattack", averaging),), False, True)
    raise ValueError(f"there is no suite {name!r}; choose {', '.join(SUITES)}, or give a list of attacks")


def _names(attacks: Iterable[Any]) -> list[str]:
    names: list[str] = []
    for attack in attacks:
        name = _name(attack)
        twins = sum(re.sub(r" \(\d+\)$", "", other) == name for other in names)
        names.append(f"{name} ({twins + 1})" if twins else name)
    return names


def _name(attack: Any) -> str:
    if isinstance(attack, PGD):
        return f"pgd-{attack.steps}"
    if isinstance(attack, (Attack, AutoAttack)):
        return type(attack).__name__.lower()
    return getattr(attack, "__name__", type(attack).__name__).strip("<>")


def _words(attack: Any) -> str:
    """Settings; without addresses, so that two runs agree."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(attack))


def _check(entry: Entry, threat: ThreatModel) -> None:
    attack, theirs = entry.attack, None
    if not callable(attack):
        raise TypeError(f"attack {entry.name!r} cannot be called: give one of this library's attacks, or a function "
                        f"(model, x, y) -> x_adv; found {type(attack).__name__}")
    if isinstance(attack, (BoundedAttack, AutoAttack)) and attack.threat != threat:
        theirs = str(attack.threat)
    elif isinstance(attack, (FAB, CarliniWagnerL2)) and (norm := getattr(attack, "norm", "l2")) != threat.norm:
        theirs = f"the norm {norm}"
    if theirs is not None:
        raise ValueError(f"attack {entry.name!r} has {theirs}, and the evaluation {threat}: give both the same")
