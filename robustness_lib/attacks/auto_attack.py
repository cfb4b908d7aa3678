"""AutoAttack: four attacks, each with fixed settings, on what the ones before left standing
(Croce and Hein 2020, arXiv 2003.01690)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from robustness_lib.attacks._attack import Attack, default_batch
from robustness_lib.attacks._ensemble import AutoAttackResult, Ensemble
from robustness_lib.attacks._victim import Classifier, Mode, Victim
from robustness_lib.attacks.auto_pgd import AutoPGD
from robustness_lib.attacks.fab import FAB
from robustness_lib.attacks.square import SquareAttack
from robustness_lib.inputs import check_count, check_images, check_index, check_labels
from robustness_lib.threat import ThreatModel

__all__ = ["AutoAttack"]

_DRAWS = 20  # of a model that answers at random, per point (version "rand")


@dataclass(frozen=True)
class AutoAttack:
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

    def attacks(self, classes: int) -> dict[str, Attack]:
        """The attacks by name, in their order, for a model of this many classes."""
        threat, seed, mode = self.threat, 4 * self.seed, self.mode  # four attacks, each with starts of its own
        if self.version == "rand":
            second = "dlr" if classes >= 3 else "margin"
            return {
                "apgd-ce": AutoPGD(threat, loss="ce", eot=_DRAWS, seed=seed, mode=mode, stop="worst"),
                f"apgd-{second}": AutoPGD(threat, loss=second, eot=_DRAWS, seed=seed + 1, mode=mode, stop="worst"),
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
        return Ensemble(
            model, x, y, index, threat=self.threat, mode=self.mode, attacks=self.attacks, settings=repr(self),
            least_classes=4 if self.version == "standard" else 3, draws=_DRAWS if self.version == "rand" else 1,
            batch_size=batch_size or default_batch(x, Victim(model).device(x)),
            state=None if state is None else Path(state),
        ).run()
