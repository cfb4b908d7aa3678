"""A network of 1-Lipschitz layers beside what attacks find, and beside two other certificates on the same images.

    python benchmarks/lipschitz.py                  all of it, about a quarter of an hour of one core
    python benchmarks/lipschitz.py --only attacks   one section
    python benchmarks/lipschitz.py --quick          small, into _build/

Writes benchmarks/results/lipschitz.json. Radii of randomized smoothing are those of benchmarks/results/smoothing.json.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from sections import ROOT, Figures, figure, run_sections
from torch import Tensor

from robustness_lib import ThreatModel, data, models
from robustness_lib.attacks import FAB, PGD
from robustness_lib.certify import certify_lipschitz, interval_margins, trace
from robustness_lib.querying.confirm_predictions import predict_logits
from robustness_lib.statistics import Accuracy

NET = "signs-lipschitz"
RADII = (36 / 255, 72 / 255, 108 / 255)
SMOOTHED = ("signs-gaussian-0.25", "signs-gaussian-0.5", "signs-smoothadv-0.25")
INTERVALS = "signs-ibp"
IN_LINF = (0.25 / 255, 0.5 / 255, 1 / 255, 2 / 255)


@dataclass(frozen=True)
class Size:
    attacked: int = 1000
    compared: int = 200  # that smoothing was asked about
    steps: int = 20


QUICK = Size(attacked=12, compared=12, steps=3)


def of_constants(size: Size, folder: Path) -> Iterator[Figures]:
    """The bound K of some shipped nets, and how much of it each layer of ours is. A net that was not trained for it has
    a constant, too."""
    found: Figures = {}
    for name in (NET, INTERVALS, "signs-tiny-standard", "signs-standard", "signs-pgd"):
        x, y, _ = data.load("signs", "test", n=size.compared)
        model = models.load_pretrained(name)
        certificates = certify_lipschitz(model, x)
        bound = certificates.bound
        found[name] = {"constant": float(f"{bound.constant:.6g}"), "rounding": float(f"{bound.rounding:.3g}"),
                       "median radius": round(float(certificates.radius.median()), 6),
                       "layers": [{"layer": layer.layer, "operation": layer.operation,
                                   "constant": round(max(layer.constants), 6)} for layer in bound.layers
                                  if layer.operation in ("linear", "conv2d")],
                       "clean": figure(Accuracy.of(predict_logits(model, x, size=200).argmax(1) == y))}
        yield {"n": len(x), "nets": found}


def of_attacks(size: Size, folder: Path) -> Iterator[Figures]:
    """Certificates and attacks on the same images: nothing may be found inside a radius. The gap is what the bound
    gives away, or what the attack does not find."""
    x, y, _ = data.load("signs", "test", n=size.attacked)
    model = models.load_pretrained(NET)
    certificates = certify_lipschitz(model, x)
    found: Figures = {"net": NET, "n": len(x),
                      "clean": figure(Accuracy.of(predict_logits(model, x, size=200).argmax(1) == y)), "at": {}}
    stands = certificates.prediction == y
    for radius in RADII:
        result = PGD(ThreatModel("l2", radius), steps=size.steps).run(model, x, y)
        found["at"][f"{radius * 255:g}/255"] = {
            "certified": figure(certificates.accuracy(y, radius)),
            f"right under PGD-{size.steps}": figure(Accuracy.of(~result.success)),
            "certified and broken": int((certificates.at(radius) & stands & result.success).sum())}
        yield found
    rows = certificates.certified.nonzero()[:, 0]
    radius = certificates.radius[rows]
    nearest = FAB(norm="l2", steps=size.steps, target_classes=2).run(model, x[rows], certificates.prediction[rows])
    ratio = (nearest.distance / radius)[nearest.success]
    found["FAB"] = {"steps": size.steps, "target classes": 2, "attacked": len(rows),
                    "found": int(nearest.success.sum()), "inside the radius": int((nearest.distance < radius).sum()),
                    "distance over radius": {name: round(float(ratio.quantile(share)), 3) for name, share in (
                        ("least", 0.0), ("median", 0.5), ("nine of ten below", 0.9))},
                    "median radius": round(float(radius.median()), 4)}
    yield found


def of_certificates(size: Size, folder: Path) -> Iterator[Figures]:
    """Three certificates on the same images: right, and unchanged within L2 radii; and within L∞.

    An L∞ ball of ε lies in the L2 ball of ε·√d, and holds the one of ε: the Lipschitz net and smoothing certify it by
    the first, and intervals certify L2 balls either by their own rule for these or by the second, whichever does."""
    x, y, _ = data.load("signs", "test", n=size.compared)
    root, d = math.sqrt(x[0].numel()), x[0].numel()
    radii = {NET: right_radii(*certify_lipschitz(models.load_pretrained(NET), x), y)}
    nets = json.loads((ROOT / "benchmarks/results/smoothing.json").read_text(encoding="utf-8"))["models"]["nets"]
    for name in SMOOTHED:
        kept = nets[name]
        if kept["label"][:len(x)] != y.tolist():
            raise SystemExit("smoothing.json is of other images than these: run benchmarks/smoothing.py --only models")
        radii[name] = right_radii(torch.tensor(kept["prediction"][:len(x)]),
                                  torch.tensor(kept["radius"][:len(x)], dtype=torch.float64), y)
    network = trace(models.load_pretrained(INTERVALS), x)

    def by_intervals(norm: str, eps: float) -> Tensor:
        return interval_margins(network, x, y, ThreatModel(norm, eps)).amin(1) > 1e-3

    l2: dict[str, Figures] = {}
    for radius in (*IN_LINF[-1:], *RADII):
        l2[f"{radius * 255:g}/255"] = {name: figure(Accuracy.of(found >= radius)) for name, found in radii.items()} | {
            INTERVALS: figure(Accuracy.of(by_intervals("l2", radius) | by_intervals("linf", radius)))}
    linf = {f"{eps * 255:g}/255": {name: figure(Accuracy.of(found >= eps * root)) for name, found in radii.items()} |
            {INTERVALS: figure(Accuracy.of(by_intervals("linf", eps)))} for eps in IN_LINF}
    yield {"n": len(x), "d": d, "kinds": {NET: "Lipschitz", INTERVALS: "intervals",
                                          **dict.fromkeys(SMOOTHED, "smoothing, α = 0.001 an image, 10,000 votes")},
           "l2": l2, "linf": linf}


def right_radii(prediction: Tensor, radius: Tensor, y: Tensor) -> Tensor:
    """Where the answer is right; below every radius elsewhere."""
    return torch.where(prediction == y, radius, -1.0)


if __name__ == "__main__":
    run_sections({"constants": of_constants, "attacks": of_attacks, "certificates": of_certificates}, Size(), QUICK,
                 ThreatModel("l2", RADII[0]))
