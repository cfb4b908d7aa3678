"""Several attacks, each on what the ones before left standing: the run of AutoAttack, and its verdicts."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from robustness_lib.attacks._asking import ask, confirm, within
from robustness_lib.attacks._attack import Attack
from robustness_lib.attacks._bounded import BoundedAttack
from robustness_lib.attacks._doubts import (
    AttackWarning,
    doubt,
    looks_like_probabilities,
    modes_seen,
    square_ahead,
    varies,
)
from robustness_lib.attacks._victim import Classifier, Mode, NoGradient, Victim
from robustness_lib.intervals import Accuracy
from robustness_lib.precision import full_precision
from robustness_lib.state import Chunks, Content, fingerprint, model_fingerprint
from robustness_lib.threat import ThreatModel

__all__ = ["AutoAttackResult", "Ensemble", "StageReport", "with_all_steps"]

_PROBE = 16  # images that are asked twice


@dataclass(frozen=True)
class StageReport:
    """One attack of the ensemble: on how many images it was tried, how many it broke, and what it spent.

    calls: batches sent through the model; queries, gradients: forward and backward passes, summed over the images
    (without the check of what was found; all 0 where the model has no gradient to follow). seconds: of the attack and
    its check, also of the parts that an earlier, killed run did.
    """

    name: str
    attempted: int
    broken: int
    calls: int
    queries: int
    gradients: int
    seconds: float


@dataclass(frozen=True)
class AutoAttackResult:
    """A verdict per example, in the order of the images given.

    clean: (N,) bool, right before any attack. robust: (N,) bool, right and not broken by any attack.
    broken_by: per example the attack that broke it, or None. x_adv: (N, ...): the adversarial image where there is
    one, else x. distance: (N,) float64 from x. stages: what each attack did and spent. warnings: reasons for doubt.
    """

    x_adv: Tensor
    clean: Tensor
    robust: Tensor
    broken_by: tuple[str | None, ...]
    distance: Tensor
    stages: tuple[StageReport, ...]
    warnings: tuple[AttackWarning, ...] = ()

    @property
    def clean_accuracy(self) -> Accuracy:
        return Accuracy(int(self.clean.sum()), len(self.clean))

    @property
    def robust_accuracy(self) -> Accuracy:
        """An upper bound on the true one, with its interval."""
        return Accuracy(int(self.robust.sum()), len(self.robust))


def with_all_steps(attacks: dict[str, Attack]) -> dict[str, Attack]:
    """As they are run on a model that answers at random: none stops at a lucky draw."""
    return {name: replace(attack, stop="worst") if isinstance(attack, BoundedAttack) else attack
            for name, attack in attacks.items()}


class Ensemble:
    """One run: what is known of each example so far.

    settings: what decides the verdicts, in words, for the state. attacks: by name, for a number of classes.
    least_classes: fewer, and the attacks are not those of the paper. draws: of a model that answers at random.
    """

    def __init__(self, model: Classifier, x: Tensor, y: Tensor, index: Tensor, *, threat: ThreatModel, mode: Mode,
                 attacks: Callable[[int], dict[str, Attack]], least_classes: int, draws: int, settings: str,
                 batch_size: int, state: Path | None) -> None:
        self.model, self.x, self.y, self.index = model, x, y, index
        self.threat, self.mode, self.draws, self.size = threat, mode, draws, batch_size
        self.warnings: list[AttackWarning] = []
        self.blind: dict[str, set[int]] = {}  # attack → images that it had no gradient for
        answers = self._first_look(least_classes)
        self.attacks = attacks(answers.shape[1])
        if Victim(model).random:
            self.attacks = with_all_steps(self.attacks)
        self.chunks = Chunks(state, {} if state is None else {
            "format": "1", "model": model_fingerprint(model), "data": fingerprint(x, y, index),
            "threat": repr(threat), "settings": f"{settings} {self.attacks!r}", "batch size": str(batch_size),
        }, None if self.draws > 1 or any(w.kind == "random answers" for w in self.warnings) else answers)
        self.clean = self.chunks.get("clean", self._clean)["clean"]
        self.robust = self.clean.clone()
        self.x_adv = x.clone()
        self.broken_by: list[str | None] = [None] * len(x)
        self.stages: list[StageReport] = []

    def _first_look(self, least_classes: int) -> Tensor:
        """Logits on a few images and on points near them; and what is odd about the model."""
        few = self.x[:_PROBE]
        near = self.threat.random_point(few, seed=0, index=self.index[:_PROBE])
        probe = torch.cat((few, near))
        with modes_seen(self.model) as training:
            answers = self._ask(probe, labels=self.y)
        if training and self.mode == "eval":
            self.warnings.append(doubt("changed mode"))
        self.warnings += looks_like_probabilities(answers)
        if self.draws == 1:
            self.warnings += varies(answers, self._ask(probe))
        if answers.shape[1] < least_classes:
            self.warnings.append(doubt("few classes", of=answers.shape[1]))
        return answers

    def _clean(self) -> Content:
        return {"clean": self._ask(self.x).argmax(1) == self.y.cpu()}

    def _ask(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        return ask(self.model, x, size=self.size, mode=self.mode, draws=self.draws, labels=labels)

    def run(self) -> AutoAttackResult:
        if self.threat.eps > 0:
            for name, attack in self.attacks.items():
                self._stage(name, attack)
        return self._result()

    def _stage(self, name: str, attack: Attack) -> None:
        survivors = self.robust.nonzero()[:, 0]
        spent: Counter[str] = Counter()
        seconds, doubts = 0.0, dict[str, list[int]]()
        for number, rows in enumerate(torch.split(survivors, self.size) if len(survivors) else ()):
            content = self.chunks.get(f"{name}-{number:05d}", partial(self._attack, attack, rows))
            if not torch.equal(content["rows"], rows):
                raise ValueError(f"the state holds {name} on other images than stand now; delete it and begin again")
            broken = rows[content["broken"]]
            self.robust[broken] = False
            self.x_adv[broken.to(self.x.device)] = content["x_adv"].to(self.x)
            for row in broken.tolist():
                self.broken_by[row] = name
            spent.update(content["spent"])
            for kind, images in content["doubts"].items():
                doubts.setdefault(kind, []).extend(rows[images].tolist())
            seconds += content["seconds"]
        self.blind[name] = set(doubts.pop("zero gradient", ()))
        self.stages.append(StageReport(name, len(survivors), int((~self.robust[survivors]).sum()), spent["calls"],
                                       spent["queries"], spent["gradients"], seconds))
        self.warnings += [doubt(kind, images, len(survivors), during=name) for kind, images in doubts.items()]

    def _attack(self, attack: Attack, rows: Tensor) -> Content:
        """What one attack finds on the images of these rows; positions in it count within the rows."""
        began = time.perf_counter()
        there = rows.to(self.x.device)
        x, y = self.x[there], self.y[rows.to(self.y.device)]
        content: Content = {"rows": rows, "broken": torch.zeros(len(rows), dtype=torch.bool), "x_adv": x[:0].cpu(),
                            "spent": {}, "doubts": {}}
        try:
            with full_precision():
                result = attack.run(self.model, x, y, index=self.index[rows], batch_size=self.size)
        except NoGradient:
            return content | {"doubts": {"no gradient": list(range(len(rows)))},
                              "seconds": time.perf_counter() - began}
        found = (result.success.cpu() & within(self.threat, result.distance).cpu()).nonzero()[:, 0]
        x_adv, confirmed = self._confirmed(result.x_adv, x, y, found)
        content["broken"][found[confirmed]] = True
        content["doubts"] = {warning.kind: list(warning.rows) for warning in result.warnings}
        if not confirmed.all():
            content["doubts"]["not confirmed"] = found[~confirmed].tolist()
        spent = {"calls": result.calls, "queries": int(result.queries.sum()), "gradients": int(result.gradients.sum())}
        return content | {"x_adv": x_adv.cpu(), "spent": spent, "seconds": time.perf_counter() - began}

    def _confirmed(self, x_adv: Tensor, x: Tensor, y: Tensor, found: Tensor) -> tuple[Tensor, Tensor]:
        """The points of `found` that are wrong when asked again, and which of them those are: (M,) bool."""
        if len(found) == 0:
            return x_adv[:0].cpu(), torch.zeros(0, dtype=torch.bool)
        there = found.to(x.device)
        x_adv, _, wrong = confirm(self.model, x_adv[there], x[there], y[found.to(y.device)], self.threat,
                                  size=self.size, mode=self.mode, draws=self.draws)
        return x_adv[wrong.to(x.device)], wrong

    def _result(self) -> AutoAttackResult:
        return AutoAttackResult(
            x_adv=self.x_adv, clean=self.clean.to(self.x.device), robust=self.robust.to(self.x.device),
            broken_by=tuple(self.broken_by), distance=self.threat.distance(self.x_adv, self.x),
            stages=tuple(self.stages), warnings=tuple(self._all_warnings()),
        )

    def _all_warnings(self) -> Iterable[AttackWarning]:
        n, once = len(self.x), {"changed mode", "no gradient"}  # these are about the model, not about one attack
        said = set()
        for warning in self.warnings:
            if warning.kind in once and warning.kind not in said:
                yield doubt(warning.kind)
            elif warning.kind not in once:
                yield warning
            said.add(warning.kind)
        standing = set(self.robust.nonzero()[:, 0].tolist())
        climbing = [name for name in self.blind if name != "square"]
        everywhere = standing.intersection(*(self.blind[name] for name in climbing)) if climbing else set()
        if everywhere:
            yield doubt("zero gradient", sorted(everywhere), n)
        for name in climbing:
            if only_here := sorted((self.blind[name] & standing) - everywhere):
                yield doubt("one loss blind", only_here, n, during=name)
        if "no gradient" not in said:
            yield from square_ahead([row for row, by in enumerate(self.broken_by) if by == "square"], n)
