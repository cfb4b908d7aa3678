"""How good is the model so far? Asked on validation images, in eval mode, without a trace on the model."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robustness_lib.attacks import FGSM, PGD, BoundedAttack, held_still
from robustness_lib.distributed import Team
from robustness_lib.intervals import Accuracy
from robustness_lib.threat import ThreatModel
from robustness_lib.training.history import Epoch

__all__ = ["accuracies", "collapse"]

_FALL = 0.10  # a fall of PGD accuracy that validation's noise does not make
_BATCH = 250


def accuracies(model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel | None, steps: int,
               team: Team) -> dict[str, Accuracy]:
    """Accuracy on the images (N, ...), "clean", and where there is a threat model "fgsm" and "robust": under one step,
    and under PGD with `steps` steps on the margin. Processes of a team share the images."""
    rows = torch.arange(team.rank, len(x), team.size)
    x, y = x[rows], y[rows]
    right = _right(model, x, y)
    standing = {"clean": right}
    if threat is not None:
        attacks: dict[str, BoundedAttack] = {"fgsm": FGSM(threat), "robust": PGD(threat, steps=steps, loss="margin")}
        for name, attack in attacks.items():
            found = attack.run(model, x[right], y[right], index=rows[right], batch_size=_BATCH).success
            standing[name] = right.clone()
            standing[name][right] = ~found
    counts = team.gather({name: (int(mask.sum()), len(rows)) for name, mask in standing.items()})
    return {name: Accuracy(sum(count[name][0] for count in counts), sum(count[name][1] for count in counts))
            for name in standing}


def _right(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    device = next((p.device for p in model.parameters()), x.device)
    with held_still(model), torch.no_grad():
        parts = [model(part.to(device)).argmax(1).cpu() for part in torch.split(x, _BATCH)]
    return torch.cat(parts) == y.cpu() if parts else torch.empty(0, dtype=torch.bool)


def collapse(epochs: list[Epoch]) -> str | None:
    """Catastrophic overfitting, in words, if the last epoch shows it: accuracy under PGD has fallen by a tenth of all
    images from its best, while accuracy under one step has not fallen (Wong, Rice and Kolter 2020, arXiv 2001.03994;
    Andriushchenko and Flammarion 2020, arXiv 2007.02617): the model has learned to bend its surface where one step
    lands."""
    measured = [epoch for epoch in epochs if epoch.robust is not None and epoch.fgsm is not None]
    if len(measured) < 2:
        return None
    now, best = measured[-1], max(measured, key=lambda epoch: epoch.robust.value if epoch.robust else 0)
    assert now.robust
    assert now.fgsm
    assert best.robust
    assert best.fgsm
    if now.robust.value > best.robust.value - _FALL or now.fgsm.value < best.fgsm.value:
        return None
    return (f"catastrophic overfitting: accuracy under PGD fell from {best.robust} in epoch {best.epoch} to "
            f"{now.robust} in epoch {now.epoch}, while accuracy under one step went from {best.fgsm} to {now.fgsm}. "
            f"Take more steps, a shorter step, or a smaller ε")
