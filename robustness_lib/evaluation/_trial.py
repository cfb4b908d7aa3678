"""One attack on one part of the data: what it broke, each success asked about once more."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from robustness_lib.attacks import Attack, AttackWarning, AutoAttack, held_still
from robustness_lib.attacks._asking import ask, confirm, within
from robustness_lib.attacks._victim import Mode, NoGradient, Victim
from robustness_lib.counter_random import uniform
from robustness_lib.evaluation.suites import Entry
from robustness_lib.precision import full_precision
from robustness_lib.threat import ThreatModel

__all__ = ["Refused", "Trial", "try_attack"]

_SQUARE = {"Square ahead", "Square found more"}  # said of a part; of the whole it is asked again at the end


class Refused(ValueError):
    """An attack broke the rules: what it returned cannot be counted."""


@dataclass
class Trial:
    """Columns over the m images tried. stage: (m,) int64, which stage of the attack broke the image, −1 for none.
    x_adv: of the broken ones, in order. mistaken_for, distance: (m,), −1 and NaN where nothing broke.
    spent: per stage calls, queries, gradients, seconds. doubts: (stage, kind, rows)."""

    stage: Tensor
    x_adv: Tensor
    mistaken_for: Tensor
    distance: Tensor
    spent: dict[str, dict[str, float]]
    doubts: list[tuple[str, str, list[int]]] = field(default_factory=list)


def try_attack(entry: Entry, model: Any, x: Tensor, y: Tensor, index: Tensor, threat: ThreatModel, *, classes: int,
               size: int, mode: Mode, seed: int) -> Trial:
    """The attack of this entry on images x (m, ...) that the model has right, in batches of `size`."""
    began = time.perf_counter()
    names = list(entry.stages(classes))
    spent: dict[str, dict[str, float]] = {name: dict.fromkeys(("calls", "queries", "gradients", "seconds"), 0.0)
                                          for name in names}
    nothing = Trial(torch.full((len(x),), -1), x[:0], torch.full((len(x),), -1),
                    torch.full((len(x),), torch.nan, dtype=torch.float64), spent)
    if len(x) == 0 or threat.eps == 0:
        return nothing
    if isinstance(entry.attack, AutoAttack):
        return _auto_attack(entry, model, x, y, index, threat, nothing, size, mode)
    try:
        with full_precision():
            x_adv, found, costs, doubts = (_ours if isinstance(entry.attack, Attack) else _foreign)(
                entry, model, x, y, index, threat, size, mode, seed)
    except NoGradient:
        nothing.doubts.append((entry.name, "no gradient", list(range(len(x)))))
        return nothing
    trial = _confirmed(nothing, model, x_adv, x, y, found, threat, size, mode)
    trial.stage[trial.mistaken_for >= 0] = 0
    trial.doubts += [(entry.name, warning.kind, list(warning.rows)) for warning in doubts]
    if isinstance(entry.attack, Attack) and (lost := (found & (trial.stage < 0)).nonzero()[:, 0].tolist()):
        trial.doubts.append((entry.name, "not confirmed", lost))
    trial.spent = {entry.name: costs | {"seconds": time.perf_counter() - began}}
    return trial


Found = tuple[Tensor, Tensor, dict[str, float], tuple[AttackWarning, ...]]


def _ours(entry: Entry, model: Any, x: Tensor, y: Tensor, index: Tensor, threat: ThreatModel, size: int, mode: Mode,
          seed: int) -> Found:
    result = entry.attack.run(model, x, y, index=index, batch_size=size)
    costs = {"calls": float(result.calls), "queries": float(result.queries.sum()),
             "gradients": float(result.gradients.sum())}
    return result.x_adv, result.success.cpu() & within(threat, result.distance).cpu(), costs, result.warnings


def _foreign(entry: Entry, model: Any, x: Tensor, y: Tensor, index: Tensor, threat: ThreatModel, size: int, mode: Mode,
             seed: int) -> Found:
    """Someone else's attack, held to the rules. It may draw from the global generator, which is set for each part, so
    that a resumed run ends alike, and put back afterwards."""
    device = Victim(model).device(x)
    draws = torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])
    made = []
    with draws, held_still(model, mode):
        torch.manual_seed(int(uniform((), seed=seed, index=index[:1], step=0).item() * 2**31))
        for part in torch.split(torch.arange(len(x)), size):
            there = part.to(x.device)
            answer = entry.attack(model, x[there].to(device, copy=True), y[part.to(y.device)].to(device))
            made.append(_checked(entry.name, answer, x[there], index[part], threat))
    x_adv = torch.cat(made)
    return x_adv, torch.ones(len(x), dtype=torch.bool), {"calls": 0.0, "queries": 0.0, "gradients": 0.0}, ()


def _checked(name: str, x_adv: Any, x: Tensor, index: Tensor, threat: ThreatModel) -> Tensor:
    if not isinstance(x_adv, Tensor) or x_adv.shape != x.shape:
        found = f"a tensor of shape {tuple(x_adv.shape)}" if isinstance(x_adv, Tensor) else type(x_adv).__name__
        raise Refused(f"attack {name!r} must return images of shape {tuple(x.shape)}; found {found}")
    x_adv = x_adv.detach().to(x)
    rows = x_adv.flatten(1)
    outside = rows.isnan().any(1) | (rows < -1e-6).any(1) | (rows > 1 + 1e-6).any(1)
    if outside.any():
        raise Refused(f"attack {name!r} left the pixel box [0, 1], or returned NaN, on image "
                      f"{int(index[outside.cpu()][0])}")
    distance = threat.distance(x_adv, x).cpu()
    worst = int(distance.argmax())
    boxed: Tensor = x_adv.clamp(0, 1)
    if not within(threat, distance).all():
        raise Refused(f"attack {name!r} left the threat model {threat}: image {int(index[worst])} moved by "
                      f"{float(distance[worst]):.5g}, and ε is {threat.eps:.5g}. Does it count ε in other units "
                      f"(grey levels of 255, or normalized pixels)?")
    return boxed


def _confirmed(trial: Trial, model: Any, x_adv: Tensor, x: Tensor, y: Tensor, found: Tensor, threat: ThreatModel,
               size: int, mode: Mode) -> Trial:
    rows = found.nonzero()[:, 0]
    if len(rows) == 0:
        return trial
    there = rows.to(x.device)
    points, logits, wrong = confirm(model, x_adv[there], x[there], y[rows.to(y.device)], threat, size=size, mode=mode)
    broken = rows[wrong]
    trial.x_adv = points[wrong.to(x.device)]
    trial.mistaken_for[broken] = logits[wrong].argmax(1)
    trial.distance[broken] = threat.distance(trial.x_adv, x[broken.to(x.device)]).cpu()
    return trial


def _auto_attack(entry: Entry, model: Any, x: Tensor, y: Tensor, index: Tensor, threat: ThreatModel, trial: Trial,
                 size: int, mode: Mode) -> Trial:
    """AutoAttack confirms its own successes; what is asked here is only what they are mistaken for."""
    result = entry.attack.run(model, x, y, index=index, batch_size=size)
    names = {stage.name: number for number, stage in enumerate(result.stages)}
    trial.stage = torch.tensor([-1 if by is None else names[by] for by in result.broken_by])
    rows = (trial.stage >= 0).nonzero()[:, 0]
    for stage in result.stages:
        trial.spent[entry.prefix + stage.name] = {"calls": float(stage.calls), "queries": float(stage.queries),
                                                  "gradients": float(stage.gradients), "seconds": stage.seconds}
    trial.doubts = [(entry.prefix + warning.during if warning.during else "", warning.kind, list(warning.rows))
                    for warning in result.warnings if warning.kind not in _SQUARE]
    if len(rows):
        trial.x_adv = result.x_adv[rows.to(x.device)]
        others = ask(model, trial.x_adv, size=size, mode=mode)
        others[torch.arange(len(rows)), y.cpu()[rows]] = -torch.inf  # a model that answers at random may waver
        trial.mistaken_for[rows] = others.argmax(1)
        trial.distance[rows] = result.distance.cpu()[rows]
    return trial

