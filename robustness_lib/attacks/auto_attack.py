"""AutoAttack: four attacks, each with fixed settings, on what the ones before left standing
(Croce and Hein 2020, arXiv 2003.01690)."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from robustness_lib.attacks._attack import Attack, default_batch
from robustness_lib.attacks._chunks import Chunks, Content, fingerprint, model_fingerprint
from robustness_lib.attacks._doubts import (
    AttackWarning,
    doubt,
    looks_like_probabilities,
    modes_seen,
    square_ahead,
    varies,
)
from robustness_lib.attacks._inputs import check_count, check_images, check_index, check_labels
from robustness_lib.attacks._precision import full_precision
from robustness_lib.attacks._victim import Classifier, Mode, NoGradient, Victim, held_still
from robustness_lib.attacks.auto_pgd import AutoPGD
from robustness_lib.attacks.fab import FAB
from robustness_lib.attacks.square import SquareAttack
from robustness_lib.intervals import Accuracy
from robustness_lib.threat import ThreatModel

__all__ = ["AutoAttack", "AutoAttackResult", "StageReport"]

_DRAWS = 20  # of a model that answers at random, per point (version "rand")
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


@dataclass(frozen=True)
class AutoAttack:
    """The standard test of a robustness claim: it has no step size and no iteration count to choose.

    version "standard": Auto-PGD on cross-entropy; Auto-PGD on the targeted DLR loss toward 9 classes; FAB toward 9
    classes; Square with 5000 queries. "rand", for models that answer at random: Auto-PGD on cross-entropy and on the
    DLR loss, with gradients and answers averaged over 20 draws. For a model of too few classes for the DLR losses
    the margin takes their place, and a warning says so.
    seed: any whole number. mode: "eval" attacks the model in eval mode, "keep" in whatever mode it is.

    Everything runs in full float32, with TF32 and autocast off. Every adversarial image is asked about once more,
    outside the attack; one that fails, or lies outside the threat model, does not count. The verdict is an upper bound
    on robust accuracy, never a proof.
    """

    threat: ThreatModel
    version: str = "standard"
    seed: int = 0
    mode: Mode = field(default="eval", kw_only=True)

    def __post_init__(self) -> None:
        if not isinstance(self.threat, ThreatModel):
            raise TypeError(f'threat must be a ThreatModel, such as ThreatModel("linf", 8/255); found {self.threat!r}')
        if self.version not in ("standard", "rand"):
            raise ValueError(f'version must be "standard" or "rand"; found {self.version!r}')
        if self.mode not in ("eval", "keep"):
            raise ValueError(f'mode must be "eval" or "keep"; found {self.mode!r}')
        check_count("seed", self.seed, least=None)

    def attacks(self, classes: int) -> dict[str, Attack]:
        """The attacks by name, in their order, for a model of this many classes."""
        threat, seed, mode = self.threat, 4 * self.seed, self.mode  # four attacks, each with starts of its own
        if self.version == "rand":
            second = "dlr" if classes >= 3 else "margin"
            return {
                "apgd-ce": AutoPGD(threat, loss="ce", eot=_DRAWS, seed=seed, mode=mode),
                f"apgd-{second}": AutoPGD(threat, loss=second, eot=_DRAWS, seed=seed + 1, mode=mode),
            }
        pairs = "targeted-dlr" if classes >= 4 else "targeted-margin"
        return {
            "apgd-ce": AutoPGD(threat, loss="ce", seed=seed, mode=mode),
            "apgd-t": AutoPGD(threat, loss=pairs, seed=seed + 1, mode=mode),
            "fab-t": FAB(threat.norm, stop_within=threat.eps, seed=seed + 2, mode=mode),
            "square": SquareAttack(threat, seed=seed + 3, mode=mode),
        }

    def __call__(self, model: Classifier, x: Tensor, y: Tensor, *, index: Tensor | None = None,
                 batch_size: int | None = None) -> Tensor:
        """Adversarial images (N, ...); see `run`."""
        return self.run(model, x, y, index=index, batch_size=batch_size).x_adv

    def run(self, model: Classifier, x: Tensor, y: Tensor, *, index: Tensor | None = None,
            batch_size: int | None = None, state: str | Path | None = None) -> AutoAttackResult:
        """Attack the images x (N, ...) in [0, 1], float32 or float64, with labels y (N,) int64.

        index: (N,) int64, each image's number in its data set (default 0 ... N − 1). batch_size: images that travel
        to the model's device together; survivors are packed anew for each attack.
        state: a folder. What is finished is kept there; after a kill the same call goes on from there and ends with
        the same verdicts.

        Raises TypeError or ValueError for input that cannot be attacked (see `Attack.run`), and ValueError for a
        state of another model, other data, another threat model, other settings or another batch size.
        """
        check_images(x)
        check_labels(y, x)
        if batch_size is not None:
            check_count("batch_size", batch_size)
        x, y, index = x.detach(), y.detach(), check_index(index, x)
        if len(x) == 0:
            nobody = torch.zeros(0, dtype=torch.bool)
            return AutoAttackResult(x.clone(), nobody, nobody, (), torch.zeros(0, dtype=torch.float64), ())
        job = _Job(self, model, x, y, index, batch_size or default_batch(x, Victim(model).device(x)),
                   None if state is None else Path(state))
        if self.threat.eps > 0:
            for name, attack in self.attacks(job.classes).items():
                job.stage(name, attack)
        return job.result()


class _Job:
    """One run: what is known of each example so far."""

    def __init__(self, settings: AutoAttack, model: Classifier, x: Tensor, y: Tensor, index: Tensor, size: int,
                 state: Path | None) -> None:
        self.settings, self.model, self.x, self.y, self.index, self.size = settings, model, x, y, index, size
        self.draws = _DRAWS if settings.version == "rand" else 1
        self.warnings: list[AttackWarning] = []
        self.blind: dict[str, set[int]] = {}  # attack → images that it had no gradient for
        answers = self._first_look()
        self.classes = answers.shape[1]
        self.chunks = Chunks(state, {} if state is None else {
            "format": "1", "model": model_fingerprint(model), "data": fingerprint(x, y, index),
            "threat": repr(settings.threat), "settings": f"{settings!r} {settings.attacks(self.classes)!r}",
            "batch size": str(size),
        }, None if self.draws > 1 or any(w.kind == "random answers" for w in self.warnings) else answers)
        self.clean = self.chunks.get("clean", self._clean)["clean"]
        self.robust = self.clean.clone()
        self.x_adv = x.clone()
        self.broken_by: list[str | None] = [None] * len(x)
        self.stages: list[StageReport] = []

    def _first_look(self) -> Tensor:
        """Logits on a few images and on points near them; and what is odd about the model."""
        few, y = self.x[:_PROBE], self.y[:_PROBE]
        near = self.settings.threat.random_point(few, seed=self.settings.seed, index=self.index[:_PROBE])
        probe, labels = torch.cat((few, near)), torch.cat((y, y))
        with modes_seen(self.model) as training:
            answers = self._ask(probe, labels, check=self.y)
        if training and self.settings.mode == "eval":
            self.warnings.append(doubt("changed mode"))
        self.warnings += looks_like_probabilities(answers)
        if self.draws == 1:
            self.warnings += varies(answers, self._ask(probe, labels))
        if answers.shape[1] < (4 if self.settings.version == "standard" else 3):
            self.warnings.append(doubt("few classes", of=answers.shape[1]))
        return answers

    def _clean(self) -> Content:
        return {"clean": self._ask(self.x, self.y).argmax(1) == self.y.cpu()}

    def _ask(self, x: Tensor, y: Tensor, check: Tensor | None = None) -> Tensor:
        """Logits (N, K) on fresh passes in full float32, batch by batch. check: labels to hold against K."""
        victim = Victim(self.model, self.draws)
        if check is not None:
            victim.expect((check,))
        with held_still(self.model, self.settings.mode), full_precision():
            return torch.cat([victim.logits(part.to(victim.device(x), copy=True)).cpu()
                              for part in torch.split(x, self.size)])

    def stage(self, name: str, attack: Attack) -> None:
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
        eps = self.settings.threat.eps
        found = (result.success.cpu() & (result.distance <= eps * (1 + 1e-5) + 1e-6).cpu()).nonzero()[:, 0]
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
        x_adv = self.settings.threat.project(x_adv[there], x[there])  # the attack's rounding is not the attacker's due
        y = y[found.to(y.device)]
        logits = self._ask(x_adv, y)
        wrong = (logits.argmax(1) != y.cpu()) & ~logits.isnan().any(1)
        return x_adv[wrong.to(x.device)], wrong

    def result(self) -> AutoAttackResult:
        return AutoAttackResult(
            x_adv=self.x_adv, clean=self.clean.to(self.x.device), robust=self.robust.to(self.x.device),
            broken_by=tuple(self.broken_by), distance=self.settings.threat.distance(self.x_adv, self.x),
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
