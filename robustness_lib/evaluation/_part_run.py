"""Everything that an evaluation does with one part of the data, step by step. Each finished step is kept on disk."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial

import torch
from torch import Tensor

from robustness_lib.attacks import PGD
from robustness_lib.attacks._asking import ask
from robustness_lib.attacks._victim import Classifier, Mode
from robustness_lib.evaluation._evidence import gather, grey_eps
from robustness_lib.evaluation._memory import Batch
from robustness_lib.evaluation._parts import Part
from robustness_lib.evaluation._trial import Refused, Trial, try_attack
from robustness_lib.evaluation.pictures import picture
from robustness_lib.evaluation.suites import Entry, Suite
from robustness_lib.inputs import check_logits
from robustness_lib.state import Chunks, Content
from robustness_lib.threat import ThreatModel

__all__ = ["DIAGNOSED", "Contradiction", "PartFailed", "PartRun"]

DIAGNOSED = 200  # images on which masked gradients are looked for: effects of 2 points need no more to show
_SHOWN_PARTS, _SHOWN = 4, 2  # pictures are taken from the first parts, so many for each attack


class Contradiction(ValueError):
    """An image was proved constant and broken all the same: the certificate or the check of the attack is wrong.

    index: its number in the data. x, x_adv: (...) the image and the one that breaks it (None where it was not kept:
    `diagnose` finds it again). label, mistaken_for: classes. attack: what found it. distance: in the threat model's
    norm.
    """

    def __init__(self, index: int, x: Tensor, x_adv: Tensor | None, label: int, mistaken_for: int, attack: str,
                 distance: float, threat: ThreatModel) -> None:
        super().__init__(f"image {index} is certified under {threat}, and {attack} found a point at distance "
                         f"{distance:.6g} that the model takes for class {mistaken_for} instead of {label}. One of the "
                         f"two is wrong, and no number can be given before that is known: the error carries x and "
                         f"x_adv.")
        self.index, self.x, self.x_adv, self.label = index, x, x_adv, label
        self.mistaken_for, self.attack, self.distance = mistaken_for, attack, distance


class PartFailed(Exception):
    """The model, or an attack, raised on this part. step: where. The cause is what was raised."""

    def __init__(self, step: str) -> None:
        super().__init__(step)
        self.step = step


class PartRun:
    """What is the same for all parts."""

    def __init__(self, model: Classifier, threat: ThreatModel, suite: Suite, curve: Sequence[float] | None,
                 certified: Tensor | None, seed: int, mode: Mode) -> None:
        self.model, self.threat, self.suite, self.curve, self.certified = model, threat, suite, curve, certified
        self.seed, self.mode = seed, mode
        if curve is not None and not (len(curve) and all(math.isfinite(eps) and eps >= 0 for eps in curve)):
            raise ValueError(f"curve needs at least one ε, each finite and at least 0; found {list(curve)}")
        # What the curve finds at smaller ε, and the diagnostics anywhere, lies within the threat model: it counts.
        self.entries = suite.entries
        if curve is not None or suite.curve:
            self.entries += (Entry("curve", self.curve_attack(threat.eps)),)
        if suite.diagnostics:
            self.entries += (Entry("diagnostics", "PGD, FGSM, Square and random search, as diagnose runs them",
                                   late=True),)

    def curve_at(self, pixels: int) -> tuple[float, ...]:
        """The ε of the curve, ascending, for images of so many values."""
        if self.curve is not None:
            return tuple(sorted(set(map(float, self.curve))))
        grey, eps = grey_eps(self.threat.norm, pixels), self.threat.eps
        return tuple(sorted({eps / 4, eps / 2, eps, min(2 * eps, grey), grey}))

    def __call__(self, part: Part, chunks: Chunks, batch: Batch, report: Callable[[str, float], None]) -> Content:
        """All columns of this part. report: told each step and the share of them that is done.

        Raises PartFailed, Contradiction, Refused; ValueError where the state holds something else.
        """
        took: list[float] = []

        def step(name: str, work: Callable[[int], Content]) -> Content:
            report(name, len(took) / (2 + len(self.entries)))
            content = chunks.get(f"{part.first:07d}+{len(part.x)}-{len(took)}", lambda: _guarded(name, batch, work))
            took.append(content["took"])
            return content

        columns = step("clean", partial(self._clean, part))
        if columns["digest"] != part.digests:
            raise ValueError(f"the state holds other images at {part.first} to {part.first + len(part.x) - 1}: the "
                             f"data have changed, or their order. Name another folder to begin again.")
        clean = columns["predicted"] == part.y.cpu()
        standing, columns["trials"] = clean.clone(), {}
        for entry in self.suite.entries:
            tried = standing if entry.on == "survivors" else clean
            trial = step(entry.name, partial(self._attack, part, entry, tried.clone(), columns["classes"]))
            columns["trials"][entry.name] = trial
            standing &= trial["stage"] < 0
        if self.curve is not None or self.suite.curve:
            content = step("curve", partial(self._curve, part, clean))
            columns["curve"], columns["trials"]["curve"] = content["stood"], content
            standing &= content["stage"] < 0
        if self.suite.diagnostics:
            columns["evidence"] = {}
            if part.first < DIAGNOSED:
                evidence = step("diagnostics", partial(self._evidence, part))
                columns["evidence"] = {name: column for name, column in evidence.items() if isinstance(column, Tensor)}
            columns["trials"]["diagnostics"] = self._found_by_diagnostics(part, standing, columns["evidence"])
        return columns | {"took": sum(took)}

    def _clean(self, part: Part, size: int) -> Content:
        logits = ask(self.model, part.x, size=size, mode=self.mode, labels=part.y)
        check_logits(logits, part.x, (part.y,))
        top = logits.topk(min(5, logits.shape[1]), dim=1).indices
        return {"classes": logits.shape[1], "pixels": part.x[0].numel(), "digest": part.digests, "label": part.y.cpu(),
                "predicted": logits.argmax(1), "top5": (top == part.y.cpu()[:, None]).any(1)}

    def _attack(self, part: Part, entry: Entry, tried: Tensor, classes: int, size: int) -> Content:
        """Columns over the part; `stage` is −1 where nothing broke, also where nothing was tried."""
        rows = tried.nonzero()[:, 0]
        x, y = part.x[rows.to(part.x.device)], part.y[rows.to(part.y.device)]
        trial = try_attack(entry, self.model, x, y, part.index[rows], self.threat, classes=classes, size=size,
                           mode=self.mode, seed=self.seed)
        return self._columns(part, rows, tried, trial)

    def _columns(self, part: Part, rows: Tensor, tried: Tensor, trial: Trial) -> Content:
        """What a trial on these rows of the part found, as columns over the part; held against what is proved."""
        names = list(trial.spent)
        broken = (trial.stage >= 0).nonzero()[:, 0]
        there = rows[broken]
        by = [names[stage] for stage in trial.stage[broken].tolist()]
        self._hold_against_proofs(part, there, trial.x_adv, trial.mistaken_for[broken], trial.distance[broken], by)
        content = _untried(len(part.y)) | {
            "tried": tried, "spent": trial.spent,
            "doubts": [[during, kind, rows[at].tolist()] for during, kind, at in trial.doubts],
        }
        for name in ("stage", "mistaken_for", "distance"):
            content[name][rows] = getattr(trial, name)
        shown = range(min(_SHOWN, len(broken))) if part.number < _SHOWN_PARTS else ()
        pictures = [picture(part.first + int(there[k]), int(part.y[there[k]]), int(trial.mistaken_for[broken[k]]),
                            by[k], part.x[there[k]], trial.x_adv[k], self.threat.eps, self.threat.norm) for k in shown]
        return content | {"pictures": [asdict(taken) for taken in pictures if taken is not None]}

    def _found_by_diagnostics(self, part: Part, standing: Tensor, evidence: dict[str, Tensor]) -> Content:
        """Images that stood until then and fell in the diagnostics, which keep no adversarial image. Of a model that
        answers at random they prove nothing."""
        seen = torch.zeros_like(standing)
        broken = torch.zeros_like(standing)
        if evidence:
            few = len(evidence["label"])
            seen[:few] = standing[:few]
            for name in ("fgsm", "pgd", "again", "square", "random"):
                broken[:few] |= evidence.get(name, broken[:few]) & ~evidence["varied"]
        broken &= seen
        for row in broken.nonzero()[:, 0].tolist():
            if self.certified is not None and self.certified[part.first + row]:
                raise Contradiction(part.first + row, part.x[row], None, int(part.y[row]), -1, "diagnostics",
                                    math.nan, self.threat)
        return _untried(len(part.y)) | {"tried": seen, "stage": torch.where(broken, 0, -1)}

    def _hold_against_proofs(self, part: Part, rows: Tensor, x_adv: Tensor, mistaken_for: Tensor, distance: Tensor,
                             attacks: list[str]) -> None:
        if self.certified is None:
            return
        for k, row in enumerate(rows.tolist()):
            if self.certified[part.first + row]:
                raise Contradiction(part.first + row, part.x[row], x_adv[k], int(part.y[row]), int(mistaken_for[k]),
                                    attacks[k], float(distance[k]), self.threat)

    def curve_attack(self, eps: float) -> PGD:
        """Each ε has its own step size: PGD's follows from ε. One step size for all would crawl at large ε."""
        return PGD(self.threat.with_eps(eps), steps=20, seed=-1 - self.seed, mode=self.mode)

    def _curve(self, part: Part, clean: Tensor, size: int) -> Content:
        rows = clean.nonzero()[:, 0]
        x, y = part.x[rows.to(part.x.device)], part.y[rows.to(part.y.device)]
        stood, all_found = [], _untried(len(part.y)) | {"tried": clean, "pictures": []}
        for eps in self.curve_at(part.x[0].numel()):
            trial = try_attack(Entry("curve", self.curve_attack(eps)), self.model, x, y, part.index[rows],
                               self.threat.with_eps(eps), classes=2, size=size, mode=self.mode, seed=self.seed)
            at = clean.clone()
            at[rows] = trial.stage < 0
            stood.append(at)
            for cost, spent in trial.spent["curve"].items():
                all_found["spent"]["curve"][cost] += spent
            if eps <= self.threat.eps:
                found = self._columns(part, rows, clean, trial)
                new = (all_found["stage"] < 0) & (found["stage"] >= 0)
                for name in ("stage", "mistaken_for", "distance"):
                    all_found[name] = torch.where(new, found[name], all_found[name])
        return all_found | {"stood": torch.stack(stood)}

    def _evidence(self, part: Part, size: int) -> Content:
        few = slice(0, DIAGNOSED - part.first)
        return dict(gather(self.model, part.x[few], part.y[few], self.threat, index=part.index[few], seed=self.seed,
                           mode=self.mode, batch_size=size))


def _untried(n: int) -> Content:
    """The columns of an attack before it has found anything."""
    nothing = dict.fromkeys(("calls", "queries", "gradients", "seconds"), 0.0)
    return {"stage": torch.full((n,), -1), "mistaken_for": torch.full((n,), -1),
            "distance": torch.full((n,), torch.nan, dtype=torch.float64), "tried": torch.zeros(n, dtype=torch.bool),
            "spent": {"curve": nothing, "diagnostics": dict(nothing)}, "doubts": [], "pictures": []}


def _guarded(step: str, batch: Batch, work: Callable[[int], Content]) -> Content:
    began = time.perf_counter()
    try:
        return batch.run(work) | {"took": time.perf_counter() - began}
    except (Contradiction, Refused):
        raise
    except Exception as error:  # whatever a model may raise
        raise PartFailed(step) from error
