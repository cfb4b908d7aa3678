"""Suites: which attacks, in which order."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from robustness_lib.attacks import FGSM, PGD, Attack, AutoAttack, SquareAttack
from robustness_lib.attacks.ensemble import AttackEnsemble, NamedAttack, RunnableAttack
from robustness_lib.attacks.foreign import ForeignAttack, ForeignFunction
from robustness_lib.certify.proof_steps import METHODS
from robustness_lib.querying.first_look import FirstLook
from robustness_lib.querying.frozen import Mode
from robustness_lib.querying.warnings import AttackWarning
from robustness_lib.state import model_fingerprint
from robustness_lib.threat import ThreatModel

__all__ = ["SUITES", "Suite", "SuiteEntry", "SuiteLike", "another_threat", "attack_settings", "find_suite"]

# Steps that every evaluation may have.
_RESERVED = {*METHODS, "clean", "gradients", "square probe", "curve", "diagnostics"}
_SHORT = 500  # queries of Square for a first look

SUITES = {
    "quick": "clean, FGSM, PGD-20; a short Square where no gradient could be followed, and as a probe. A first look, "
             "in seconds; not a verdict.",
    "standard": "clean, FGSM, PGD-20 with 5 restarts, AutoAttack, the curve over ε, diagnostics. The verdict.",
    "prove": "clean, proofs by bounds (IBP, CROWN-IBP, CROWN, α-CROWN), and AutoAttack on what is not proved. For "
             "networks that were trained for bounds.",
    "random": "for models that answer at random: clean, AutoAttack's version for them (gradients and answers averaged "
              "over 20 draws), diagnostics.",
}


@dataclass(frozen=True)
class SuiteEntry:
    """An attack of a suite, or an ensemble of several. attack: also a function (model, x, y) -> x_adv, before
    `find_suite` wraps it. prefix: stands before the names of an ensemble's attacks. on: the images that a single attack
    meets, see `NamedAttack`."""

    name: str
    attack: RunnableAttack | AttackEnsemble | ForeignFunction
    prefix: str = ""
    on: str = "correct"

    @property
    def draws(self) -> int:
        """Answers averaged at each point: more than one in what is made for models that answer at random."""
        return self.attack.draws if isinstance(self.attack, AttackEnsemble) else 1

    def named_attacks(self, look: FirstLook) -> list[NamedAttack]:
        """What the loop runs on the model looked at. An ensemble meets what the others left standing; everything else
        meets, as a rule, every image that was right."""
        if isinstance(self.attack, AttackEnsemble):
            return self.attack.named_attacks(look, self.prefix)
        return [NamedAttack(self.name, cast(RunnableAttack, self.attack), self.on)]  # `find_suite` has wrapped it

    @property
    def fingerprint(self) -> str:
        """Of what decides what it finds, a function's code too."""
        given: Any = getattr(self.attack, "function", self.attack)
        return model_fingerprint(given)

    def warnings(self, look: FirstLook) -> tuple[AttackWarning, ...]:
        return self.attack.warnings(look) if isinstance(self.attack, AttackEnsemble) else ()


@dataclass(frozen=True)
class Suite:
    """name: of one of `SUITES`, or "own". entries: the attacks in order. curve: also attack at other ε.
    diagnostics: also look for masked gradients. prove: bounds come before the attacks."""

    name: str
    entries: tuple[SuiteEntry, ...]
    curve: bool
    diagnostics: bool
    prove: bool = False

    def __str__(self) -> str:
        return f"{self.name}: " + "; ".join(f"{entry.name} {attack_settings(entry.attack)}" for entry in self.entries)


SuiteLike = str | Suite | Attack | AttackEnsemble | ForeignFunction | Mapping[str, Any] | Sequence[Any]


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
        entries = [SuiteEntry(name, attack, prefix=f"{name}/") for name, attack in suite.items()]
    else:
        attacks = list(suite) if isinstance(suite, Sequence) else [suite]
        entries = [SuiteEntry(name, attack, prefix=f"{name}/" if name != "autoattack" else "")
                   for name, attack in zip(_names(attacks), attacks, strict=True)]
    if not entries:
        raise ValueError("a suite needs at least one attack; found none")
    names = [entry.name for entry in entries]
    if taken := sorted(set(names) & _RESERVED | {name for name in names if names.count(name) > 1}):
        raise ValueError(f"each attack needs a name of its own, other than {', '.join(sorted(_RESERVED))}; found "
                         f"{', '.join(taken)}")
    for entry in entries:
        _check(entry, threat)
    runnable = tuple(_runnable(entry, threat, seed, mode) for entry in entries)
    return replace(suite, entries=runnable) if isinstance(suite, Suite) else Suite("own", runnable, False, False)


def _named(name: str, threat: ThreatModel, seed: int, mode: Mode) -> Suite:
    own = -1 - seed  # AutoAttack's parts take 4·seed to 4·seed + 3: other starts than those
    auto_attack = AutoAttack(threat, seed=seed, mode=mode)
    fgsm = SuiteEntry("fgsm", FGSM(threat, mode=mode))
    if name == "quick":
        pgd = SuiteEntry("pgd-20", PGD(threat, steps=20, seed=own, mode=mode))
        square = SquareAttack(threat, queries=_SHORT, seed=own, mode=mode)
        return Suite(name, (fgsm, pgd, SuiteEntry("square", square, on="not followed")), False, False)
    if name == "standard":
        pgd = SuiteEntry("pgd-20", PGD(threat, steps=20, restarts=5, seed=own, mode=mode))
        return Suite(name, (fgsm, pgd, SuiteEntry("autoattack", auto_attack)), True, True)
    if name == "prove":
        return Suite(name, (SuiteEntry("autoattack", auto_attack),), False, False, prove=True)
    if name == "random":
        averaging = AutoAttack(threat, version="rand", seed=seed, mode=mode)
        return Suite(name, (SuiteEntry("autoattack", averaging),), False, True)
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
    if isinstance(attack, (Attack, AttackEnsemble)):
        return type(attack).__name__.lower()
    return getattr(attack, "__name__", type(attack).__name__).strip("<>")


def attack_settings(attack: object) -> str:
    """In words; without addresses, so that two runs agree."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(attack))


def _check(entry: SuiteEntry, threat: ThreatModel) -> None:
    attack = entry.attack
    if not callable(attack) and not isinstance(attack, (AttackEnsemble, ForeignAttack)):
        raise TypeError(f"attack {entry.name!r} cannot be called: give one of this library's attacks, or a function "
                        f"(model, x, y) -> x_adv; found {type(attack).__name__}")
    if isinstance(attack, (Attack, AttackEnsemble)) and (theirs := another_threat(attack, threat)):
        raise ValueError(f"attack {entry.name!r} has {theirs}, and the evaluation {threat}: give both the same")


def another_threat(attack: Attack | AttackEnsemble, threat: ThreatModel) -> str | None:
    """The threat model of the attack, or its norm, where it is not this one."""
    theirs, norm = getattr(attack, "threat", threat), getattr(attack, "norm", threat.norm)
    if theirs != threat:
        return str(theirs)
    return None if norm == threat.norm else f"the norm {norm}"


def _runnable(entry: SuiteEntry, threat: ThreatModel, seed: int, mode: Mode) -> SuiteEntry:
    """A function is bound to this threat model, also one that was bound to another before."""
    attack = entry.attack.function if isinstance(entry.attack, ForeignAttack) else entry.attack
    if isinstance(attack, (Attack, AttackEnsemble)):
        return entry
    return replace(entry, attack=ForeignAttack(entry.name, cast(ForeignFunction, attack), threat, seed, mode))
