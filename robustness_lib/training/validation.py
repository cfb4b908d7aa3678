"""How good is the model so far? Asked on validation images, in eval mode, without a trace on the model."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robustness_lib.attacks import FGSM, PGD, BoundedAttack
from robustness_lib.distributed import Team
from robustness_lib.querying.confirm_predictions import predict_logits
from robustness_lib.statistics import Accuracy
from robustness_lib.threat import ThreatModel
from robustness_lib.training.history import Epoch

__all__ = ["accuracies", "collapse"]

_FALL = 0.10  # a fall of PGD accuracy that validation's noise does not make
_GAP = 0.20  # between accuracy under one step and under PGD; and the one is then _TIMES the other
_TIMES = 4
_BATCH = 250


def accuracies(model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel | None, steps: int,
               team: Team) -> dict[str, Accuracy]:
    """Accuracy on the images (N, ...), "clean", and where there is a threat model "fgsm" and "robust": under one step,
    and under PGD with `steps` steps on the margin. Processes of a team share the images."""
    with team.together():
        mine = _counts(model, x, y, threat, steps, team)
    counts = team.gather(mine)
    return {name: Accuracy(sum(count[name] for count in counts), len(x)) for name in counts[0]}


def _counts(model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel | None, steps: int,
            team: Team) -> dict[str, int]:
    """Of this process's share of the images."""
    rows = torch.arange(team.rank, len(x), team.size)
    x, y = x[rows], y[rows]
    right = _right(model, x, y)
    counts = {"clean": int(right.sum())}
    if threat is not None:
        attacks: dict[str, BoundedAttack] = {"fgsm": FGSM(threat), "robust": PGD(threat, steps=steps, loss="margin")}
        for name, attack in attacks.items():
            found = attack.run(model, x[right], y[right], index=rows[right], batch_size=_BATCH).success
            counts[name] = int((~found).sum())
    return counts


def _right(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    if len(x) == 0:
        return torch.empty(0, dtype=torch.bool)
    return predict_logits(model, x, size=_BATCH).argmax(1) == y.cpu()


def collapse(epochs: list[Epoch], ramp: int = 0) -> str | None:
    """Catastrophic overfitting, in words, if the epochs end with it: the model has learned to bend its surface where
    one step lands, and is wrong a little further on (Wong, Rice and Kolter 2020, arXiv 2001.03994; Andriushchenko and
    Flammarion 2020, arXiv 2007.02617). ramp: the epochs in which ε still grew.

    Either accuracy under PGD has fallen by a tenth of all images from its best, while accuracy under one step has not
    fallen. Or, at full ε and in two of the last three measured epochs, accuracy under one step is four times that under
    PGD, a fifth of all images apart, and with intervals apart: so it looks where PGD's accuracy never rose. (Ordinary
    training can end like this too, with nothing gone wrong: `fit` stops one-step training only.)
    """
    measured = [epoch for epoch in epochs if epoch.robust is not None and epoch.fgsm is not None]
    if not measured:
        return None
    now, best = measured[-1], max(measured, key=lambda epoch: epoch.robust.value if epoch.robust else 0)
    advice = "Take more steps, a shorter step, or a smaller ε"
    if now.robust.value <= best.robust.value - _FALL and now.fgsm.value >= best.fgsm.value:  # type: ignore[union-attr]
        return (f"catastrophic overfitting: accuracy under PGD fell from {best.robust} in epoch {best.epoch} to "
                f"{now.robust} in epoch {now.epoch}, while accuracy under one step went from {best.fgsm} to "
                f"{now.fgsm}. {advice}")
    if _apart(now) and sum(_apart(epoch) for epoch in measured[-3:] if epoch.epoch > ramp) >= 2 and now.epoch > ramp:
        return (f"catastrophic overfitting: accuracy under one step is {now.fgsm} in epoch {now.epoch}, and under PGD "
                f"{now.robust}. {advice}")
    return None


def _apart(epoch: Epoch) -> bool:
    one_step, several = epoch.fgsm, epoch.robust
    assert one_step
    assert several
    return (one_step.value >= several.value + _GAP and one_step.value > _TIMES * several.value
            and one_step.interval[0] > several.interval[1])
