"""What training for bounds buys: the sandwich over ε, what proofs save an evaluation, how far CIFAR-10 gets, and what
helps such a training.

    python benchmarks/interval_training.py                  all of it, about two hours of one core
    python benchmarks/interval_training.py --only prove     one section
    python benchmarks/interval_training.py --quick          small, into _build/

Writes benchmarks/results/interval_training.json. A run of `prove`, `cifar10` or `helps` that was killed continues.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from sections import ROOT, Figures, figure, run_sections
from torch import Tensor, nn

from robustness_lib import ThreatModel, data, models
from robustness_lib.attacks import PGD, AutoAttack
from robustness_lib.certify import crown_margins, interval_margins, trace
from robustness_lib.certify.enclosure import Enclosure
from robustness_lib.evaluation import Report, evaluate
from robustness_lib.querying.confirm_predictions import predict_logits
from robustness_lib.statistics import Accuracy
from robustness_lib.training import IBP, CrownIBP, Flip, Piecewise, Shift, fit, initialize_for_bounds

STATE = ROOT / "_build/interval_training"
PROVED = "mnist-ibp"


@dataclass(frozen=True)
class Size:
    sandwich: int = 200
    proved: int = 1000
    cifar_epochs: int = 20
    cifar_images: int = 1000
    helps_epochs: int = 24


QUICK = Size(sandwich=4, proved=8, cifar_epochs=1, cifar_images=20, helps_epochs=1)

SANDWICHES = {"mnist-pgd": (0.02, 0.05, 0.1, 0.15, 0.2, 0.3), "mnist-ibp": (0.05, 0.1, 0.2, 0.25, 0.3, 0.35, 0.4)}
METHODS: dict[str, dict[str, Any]] = {"CROWN-IBP": {"intermediate": "interval"}, "CROWN": {},
                                      "α-CROWN": {"alpha_steps": 20}}


def of_sandwiches(size: Size, folder: Path) -> Iterator[Figures]:
    """Images proved by each method alone, and right under an attack, at each ε."""
    nets: dict[str, Any] = {}
    for name, epsilons in SANDWICHES.items():
        x, y, _ = data.load(name.split("-")[0], "test", n=size.sandwich)
        model = models.load_pretrained(name)
        network = trace(model, x)
        clean = predict_logits(model, x, size=200).argmax(1) == y
        nets[name] = {"n": len(x), "clean": figure(Accuracy.of(clean)), "at": {}}
        for eps in epsilons:
            threat = ThreatModel("linf", eps)
            stands = clean & ~PGD(threat, steps=50, restarts=2).run(model, x, y).success
            found = nets[name]["at"][f"{eps:g}"] = {"right under PGD-50 with 2 restarts": figure(Accuracy.of(stands))}
            asked: dict[str, Callable[[], Tensor]] = {"IBP": lambda: interval_margins(network, x, y, threat)}  # noqa: B023
            for method, how in METHODS.items():
                asked[method] = lambda how=how: crown_margins(network, x, y, threat, **how)  # noqa: B023
            for method, margins in asked.items():
                proved = margins().amin(1) > 0
                found[method] = figure(Accuracy.of(proved)) | {"proved and broken": int((proved & ~stands).sum())}
                yield {"nets": nets}


def of_proofs(size: Size, folder: Path) -> Iterator[Figures]:
    """One evaluation that begins with proofs, and one by AutoAttack alone: verdicts, model calls, seconds."""
    x, y, classes = data.load("mnist", "test", n=size.proved)
    model, threat = models.load_pretrained(PROVED), ThreatModel("linf", 0.3)
    found: Figures = {"net": PROVED, "n": len(x)}
    for name, suite in (("prove", "prove"), ("AutoAttack", AutoAttack(threat))):
        report = evaluate(model, x, y, threat, suite, classes=classes, state=STATE / f"{name}-{len(x)}")
        found[name] = verdicts(report) | {"seconds": round(report.seconds, 1)}
        yield found
    found["ratio"] = round(found["AutoAttack"]["forward passes"] / found["prove"]["forward passes"], 1)
    yield found


def verdicts(report: Report) -> Figures:
    """And what they cost in passes over one image. A gradient is a pass forward and one back, of twice the work."""
    attacks = sum(record.queries + 2 * record.gradients for record in report.attacks)
    certified = report.certified_accuracy
    return {"right": figure(report.clean_accuracy), "not broken": figure(report.robust_accuracy),
            "proved": None if certified is None else figure(certified),
            "forward passes": round(attacks + sum(bound.passes for bound in report.bounds)),
            "of these bounds": round(sum(bound.passes for bound in report.bounds)),
            "bounds": {bound.name: {"tried": int(bound.tried.sum()), "proved": int(bound.proved.sum()),
                                    "forward passes": round(bound.passes)} for bound in report.bounds}}


def of_cifar10(size: Size, folder: Path) -> Iterator[Figures]:
    """A small net, some twenty minutes of one core each: the ε of the training a tenth above the one that is proved."""
    x, y, _ = data.load("cifar10", "train")
    x_test, y_test, _ = data.load("cifar10", "test", n=size.cifar_images)
    found: list[Figures] = []
    for level in (2, 8):
        threat = ThreatModel("linf", level / 255)
        torch.manual_seed(0)
        model = models.strided_cnn([32, 64, 128], in_shape=(3, 32, 32), hidden=128, batch_norm=True)
        initialize_for_bounds(model)
        history = fit(model, (x, y), IBP(ThreatModel("linf", 1.1 * threat.eps)), epochs=size.cifar_epochs,
                      ramp=size.cifar_epochs // 2, schedule=Piecewise(1e-3, [0.8 * size.cifar_epochs], 0.2),
                      weight_decay=0.0, augment=(Flip(), Shift(2)), keep="last", channels_last=True,
                      folder=STATE / f"cifar10-{level}-{size.cifar_epochs}")
        margins = interval_margins(model, x_test, y_test, threat)
        right = predict_logits(model, x_test, size=200).argmax(1) == y_test
        broken = PGD(threat, steps=50, restarts=2).run(model, x_test, y_test).success
        found.append({"threat": threat.text, "minutes": round(history.seconds / 60, 1), "epochs": len(history),
                      "parameters": sum(p.numel() for p in model.parameters()),
                      "clean": figure(Accuracy.of(right)), "proved": figure(Accuracy.of(margins.amin(1) > 0)),
                      "right under PGD-50 with 2 restarts": figure(Accuracy.of(right & ~broken))})
        yield {"nets": found}


@dataclass(frozen=True)
class Regularized(IBP):
    """With the two penalties of Shi et al. 2021 (arXiv 2103.17268) while ε grows: on boxes that widen from the images
    to a ReLU, and on ReLUs that let far more, or far less, through than they hold back."""

    _penalties: list[Tensor] = field(default_factory=list, repr=False, compare=False)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, **more: Any) -> Tensor:
        self._penalties.clear()
        loss = super().__call__(model, x, y, **more)
        return loss + 0.5 * (1 - self._grown) * sum(self._penalties, torch.zeros(()))

    def _margins(self, enclosure: Enclosure, y: Tensor) -> Tensor:
        befores = [enclosure.boxes[step.inputs[0]] for step in enclosure.network.steps
                   if step.operation.call.name == "relu"]
        for box in befores:
            passed, held = box.centre.relu(), (-box.centre).relu()
            shares = [enclosure.boxes[0].width.mean() / box.width.mean(), _alike(passed.mean(), held.mean()),
                      _alike(passed.var(), held.var())]
            self._penalties.extend(2 * (0.5 - share).relu() / len(befores) for share in shares)
        return super()._margins(enclosure, y)


def _alike(a: Tensor, b: Tensor) -> Tensor:
    """1 where they are equal, 0 where one of them is nothing."""
    return torch.minimum(a, b) / torch.maximum(a, b).clamp(min=1e-9)


HELPS: dict[str, dict[str, bool]] = {
    "plain": {}, "initial weights": {"initial": True}, "batch norm": {"batch_norm": True},
    "initial weights, batch norm": {"initial": True, "batch_norm": True},
    "initial weights, batch norm, penalties": {"initial": True, "batch_norm": True, "penalties": True},
    "initial weights, batch norm, CROWN-IBP": {"initial": True, "batch_norm": True, "crown": True}}


def of_what_helps(size: Size, folder: Path) -> Iterator[Figures]:
    """A small net for MNIST, on 2,000 validation images: one training for each of these, all else equal."""
    (x, y, _), (x_held, y_held, _) = data.load("mnist", "train"), data.load("mnist", "validation")
    x_held, y_held, threat = x_held[:2000], y_held[:2000], ThreatModel("linf", 0.35)
    found: dict[str, Figures] = {}
    for name, how in HELPS.items():
        torch.manual_seed(0)
        model = models.strided_cnn(batch_norm=how.get("batch_norm", False))
        if how.get("initial"):
            initialize_for_bounds(model)
        kind = Regularized if how.get("penalties") else CrownIBP if how.get("crown") else IBP
        epochs = size.helps_epochs
        history = fit(model, (x, y), kind(threat), epochs=epochs, ramp=epochs // 3, weight_decay=0.0, keep="last",
                      schedule=Piecewise(1e-3, [0.7 * epochs, 0.9 * epochs], 0.2), progress=False,
                      folder=STATE / f"helps-{name.replace(', ', '-').replace(' ', '-')}-{epochs}")
        margins = interval_margins(model, x_held, y_held, ThreatModel("linf", 0.3))
        right = predict_logits(model, x_held, size=500).argmax(1) == y_held
        found[name] = {"minutes": round(history.seconds / 60, 1), "clean": figure(Accuracy.of(right)),
                       "proved": figure(Accuracy.of(margins.amin(1) > 0))}
        yield {"epochs": epochs, "nets": found}


if __name__ == "__main__":
    run_sections({"sandwich": of_sandwiches, "prove": of_proofs, "cifar10": of_cifar10, "helps": of_what_helps}, Size(),
                 QUICK, ThreatModel("linf", 0.3))
