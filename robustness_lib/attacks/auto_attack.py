"""AutoAttack: four attacks, each with fixed settings, on what the ones before left standing
(Croce and Hein 2020, arXiv 2003.01690)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from robustness_lib.attacks._attack import Attack
from robustness_lib.attacks.auto_pgd import AutoPGD
from robustness_lib.attacks.ensemble import AttackEnsemble, NamedAttack
from robustness_lib.attacks.ensemble_run import EnsembleRun, EnsembleStep, ImagePart, StepFailed, Verdicts
from robustness_lib.attacks.ensemble_steps import AttackStep, CleanStep
from robustness_lib.attacks.ensemble_warnings import ensemble_warnings, voiding_warnings
from robustness_lib.attacks.fab import FAB
from robustness_lib.attacks.square import SquareAttack
from robustness_lib.inputs import check_count, check_images, check_index, check_labels
from robustness_lib.querying.batch_size import ShrinkingBatchSize, default_batch_size
from robustness_lib.querying.first_look import FirstLook, first_look
from robustness_lib.querying.frozen import Classifier, Mode, answers_by_batch
from robustness_lib.querying.queried_model import QueriedModel
from robustness_lib.querying.warnings import AttackWarning, clamped
from robustness_lib.state import Chunks, Content, fingerprint, model_fingerprint
from robustness_lib.statistics import Accuracy
from robustness_lib.threat import ThreatModel

__all__ = ["AutoAttack", "AutoAttackResult", "StageReport"]

_DRAWS = 20  # of a model that answers at random, per point (version "rand")


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
    one, else x. distance: (N,) float64 from x. stages: what each attack did and spent. warnings: reasons for doubt;
    where one of them `voids` the verdict, no accuracy may be told of it (`valid` is false).
    """

    x_adv: Tensor
    clean: Tensor
    robust: Tensor
    broken_by: tuple[str | None, ...]
    distance: Tensor
    stages: tuple[StageReport, ...]
    warnings: tuple[AttackWarning, ...] = ()

    @property
    def valid(self) -> bool:
        """Nothing that was seen voids the verdict: see `ensemble_warnings.voiding_warnings`."""
        return not any(warning.voids for warning in self.warnings)

    @property
    def clean_accuracy(self) -> Accuracy:
        return Accuracy(int(self.clean.sum()), len(self.clean))

    @property
    def robust_accuracy(self) -> Accuracy:
        """An upper bound on the true one, with its interval; says nothing where the verdict is not `valid`."""
        return Accuracy(int(self.robust.sum()), len(self.robust))


@dataclass(frozen=True)
class AutoAttack(AttackEnsemble):
    """The standard test of a robustness claim: it has no step size and no iteration count to choose.

    version "standard": Auto-PGD on cross-entropy; Auto-PGD on the targeted DLR loss toward 9 classes; FAB toward 9
    classes; Square with 5000 queries. "rand", for models that answer at random: Auto-PGD on cross-entropy and on the
    DLR loss, with gradients and answers averaged over 20 draws. For a model of too few classes for the DLR losses
    the margin takes their place, and a warning says so.
    In version "rand", and wherever the model says that it answers at random (a part of it has a true `stochastic`),
    the attacks take all their steps: one that stops at its first success stops at a lucky draw, which the next answer
    takes back.
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

    @property
    def draws(self) -> int:
        return _DRAWS if self.version == "rand" else 1

    @property
    def least_classes(self) -> int:
        return 3 if self.version == "rand" else 4

    def attacks(self, classes: int) -> dict[str, Attack]:
        """The attacks by name, in their order, for a model of this many classes."""
        threat, seed, mode = self.threat, 4 * self.seed, self.mode  # four attacks, each with starts of its own
        if self.version == "rand":
            second = "dlr" if classes >= 3 else "margin"
            return {f"apgd-{loss}": AutoPGD(threat, loss=loss, eot=_DRAWS, seed=seed + number, mode=mode,
                                            stop="keep-success") for number, loss in enumerate(("ce", second))}
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
        to the model's device together, halved (and said) where its memory runs out; survivors are packed anew for each
        attack, but not of a model that answers by its batch's statistics.
        state: a folder. What is finished is kept there; after a kill the same call goes on from there and ends with
        the same verdicts.

        Raises TypeError or ValueError for input that cannot be attacked (see `Attack.run`), and ValueError for a
        state of another model, other data, another threat model, other settings or another batch size.
        """
        given, x = x, check_images(x)
        check_labels(y, x)
        if batch_size is not None:
            check_count("batch_size", batch_size)
        part = ImagePart(x.detach(), y.detach(), check_index(index, x))
        if len(x) == 0:
            nobody = torch.zeros(0, dtype=torch.bool)
            return AutoAttackResult(x.clone(), nobody, nobody, (), torch.zeros(0, dtype=torch.float64), ())
        piece = batch_size or default_batch_size(x, QueriedModel(model).device(x))
        size = ShrinkingBatchSize(piece, fixed=answers_by_batch(model, self.mode))
        look = first_look(model, part.x, part.y, part.index, self.threat, size=size, mode=self.mode, draws=self.draws)
        named = self.named_attacks(look) if self.threat.eps > 0 else []
        header = {} if state is None else {
            "format": "2", "model": model_fingerprint(model), "data": fingerprint(part.x, part.y, part.index),
            "threat": repr(self.threat), "settings": f"{self!r} {[one.attack for one in named]!r}",
            "batch size": str(piece),
        }
        chunks = Chunks(None if state is None else Path(state), header,
                        None if self.draws > 1 or look.varies else look.answers)
        steps: list[EnsembleStep] = [CleanStep(model, self.mode, self.draws)]
        steps += [AttackStep(one, model, self.threat, self.mode, keep=_keep_images) for one in named]
        try:
            verdicts = EnsembleRun(steps, chunks, size, piece)(part)
        except StepFailed as failed:  # here nobody goes on without the images at hand
            raise failed.cause from None
        return _result(self, part, named, look, verdicts, (*clamped(given, x), *size.warnings))


def _keep_images(step: AttackStep, part: ImagePart, rows: Tensor, x_adv: Tensor, content: Content) -> Content:
    return {"x_adv": x_adv.cpu()}


def _result(attack: AutoAttack, part: ImagePart, named: list[NamedAttack], look: FirstLook,
            verdicts: Verdicts, said: tuple[AttackWarning, ...]) -> AutoAttackResult:
    """said: warnings about the images given and the run."""
    x_adv, device = part.x.clone(), part.x.device
    broken_by: list[str | None] = [None] * len(part)
    stages = []
    for name, columns in verdicts.attacks.items():
        for rows, kept in columns.kept:
            if len(rows):
                x_adv[rows.to(device)] = kept["x_adv"].to(x_adv)
            for row in rows.tolist():
                broken_by[row] = name
        spent = columns.spent
        stages.append(StageReport(name, int(columns.tried.sum()), int(columns.broke.sum()), spent["calls"],
                                  spent["queries"], spent["gradients"], float(spent["seconds"])))
    return AutoAttackResult(
        x_adv=x_adv, clean=verdicts.right.to(device), robust=verdicts.standing.to(device), broken_by=tuple(broken_by),
        distance=attack.threat.distance(x_adv, part.x), stages=tuple(stages),
        warnings=_said_once(tuple(voiding_warnings([(0, verdicts)], named, look)),
                            (*look.warnings, *attack.warnings(look), *said),
                            tuple(ensemble_warnings([(0, verdicts)], named))))


def _said_once(*groups: tuple[AttackWarning, ...]) -> tuple[AttackWarning, ...]:
    """What one group says of the model attacked, no later one says again."""
    told: list[AttackWarning] = []
    for group in groups:
        kinds = {warning.kind for warning in told if not warning.rows}
        told += [warning for warning in group if warning.about or warning.kind not in kinds]
    return tuple(told)
