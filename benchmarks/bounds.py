"""How many images bounds prove, method by method, what they cost beside a plain forward pass, and a whole verification.

    python benchmarks/bounds.py                    all of it, about half an hour of one core
    python benchmarks/bounds.py --only methods     one section
    python benchmarks/bounds.py --quick            small, into _build/

Writes benchmarks/results/bounds.json. WK17a, a net of other people, is read where ROBUSTNESS_REFERENCE_MODELS names its
folder, and is left out elsewhere.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from sections import Figures, figure, run_sections
from torch import Tensor, nn

from robustness_lib import ThreatModel, data, models
from robustness_lib.attacks import PGD
from robustness_lib.certify import crown_bounds, crown_margins, interval_margins, trace, verify
from robustness_lib.precision import full_precision
from robustness_lib.querying import frozen, predict_logits
from robustness_lib.statistics import Accuracy

WK17A = "mnist-wk17a"


@dataclass(frozen=True)
class Size:
    images: int = 1000
    shipped: int = 200
    costs: int = 200
    rounds: int = 3


QUICK = Size(images=20, shipped=4, costs=8, rounds=2)


@dataclass(frozen=True)
class Case:
    """A net, test images and a threat model."""

    name: str
    model: nn.Module
    x: Tensor
    y: Tensor
    threat: ThreatModel

    def figures(self) -> Figures:
        return {"net": self.name, "n": len(self.x), "threat": self.threat.text}


def cases(size: Size) -> Iterator[Case]:
    folder = os.environ.get("ROBUSTNESS_REFERENCE_MODELS")
    if folder:
        yield Case(WK17A, wk17a(Path(folder)), *data.load("mnist", "test", n=size.images)[:2], ThreatModel("linf", 0.1))
    for name, eps in (("mnist-pgd", 0.1), ("signs-tiny-pgd", 1 / 255), ("signs-tiny-pgd", 2 / 255)):
        x, y = data.load(name.split("-")[0], "test", n=size.shipped)[:2]
        yield Case(name, models.load_pretrained(name), x, y, ThreatModel("linf", eps))


def wk17a(folder: Path) -> nn.Module:
    """Wong and Kolter's small net for MNIST, which `strided_cnn` is like by default."""
    model = models.strided_cnn()
    weights = torch.load(folder / "mnist-wk17a.pt", weights_only=True)
    model.load_state_dict(dict(zip(model.state_dict(), weights.values(), strict=True)))
    return model.eval()


METHODS: dict[str, dict[str, Any]] = {
    "CROWN-IBP": {"intermediate": "interval"},
    "CROWN, parallel slopes, without pixel box": {"slopes": "parallel", "pixel_box": False},
    "CROWN, parallel slopes": {"slopes": "parallel"},
    "CROWN, adaptive slopes": {"slopes": "adaptive"},
    "CROWN": {},
    "α-CROWN": {"alpha_steps": 20},
}


def of_methods(size: Size, folder: Path) -> Iterator[Figures]:
    """Images proved by each method alone, and the seconds it took; right without an attack, and under PGD."""
    nets: list[Figures] = []
    for case in cases(size):
        network, x, y = trace(case.model, case.x), case.x, case.y
        right = predict_logits(case.model, x, size=200).argmax(1) == y
        broken = PGD(case.threat, steps=20).run(case.model, x, y).success & right
        found: Figures = {"right": figure(Accuracy.of(right)),
                          "right under PGD-20": figure(Accuracy.of(right & ~broken))}
        asked: dict[str, Callable[[], Tensor]] = {"IBP": lambda: interval_margins(network, x, y, case.threat)}  # noqa: B023
        for name, settings in METHODS.items():
            asked[name] = lambda s=settings: crown_margins(network, x, y, case.threat, **s)  # noqa: B023
        nets.append(case.figures() | {"figures": found})
        for name, margins in asked.items():
            began = time.perf_counter()
            proved = margins().amin(1) > 0
            found[name] = figure(Accuracy.of(proved)) | {"seconds": round(time.perf_counter() - began, 2),
                                                         "proved and broken": int((proved & broken).sum())}
            yield {"nets": nets}


def of_verification(size: Size, folder: Path) -> Iterator[Figures]:
    """The whole cascade: verdicts, and what each method decided of the images that reached it."""
    nets: list[Figures] = []
    for case in cases(size):
        began = time.perf_counter()
        found = verify(case.model, case.x, case.y, case.threat)
        nets.append(case.figures() | {
            "seconds": round(time.perf_counter() - began, 1), "sentence": found.sentence,
            "verdicts": {verdict: figure(found.share(verdict)) for verdict in ("robust", "unknown", "broken", "wrong")},
            "methods": [vars(stage) | {"seconds": round(stage.seconds, 2)} for stage in found.stages]})
        yield {"nets": nets}


def of_costs(size: Size, folder: Path) -> Iterator[Figures]:
    """Seconds as multiples of one plain forward pass over the same images, one after the other in turn: medians."""
    nets: list[Figures] = []
    for case in list(cases(size))[::2]:
        x, y, network = case.x[:size.costs], case.y[:size.costs], trace(case.model, case.x)

        def forward() -> object:
            with torch.no_grad(), full_precision(), frozen(case.model):  # noqa: B023
                return case.model(x)  # noqa: B023

        calls: dict[str, Callable[[], object]] = {
            "forward": forward, "trace": lambda: trace(case.model, x),  # noqa: B023
            "IBP": lambda: interval_margins(network, x, y, case.threat)}  # noqa: B023
        for name in ("CROWN-IBP", "CROWN, adaptive slopes", "CROWN"):
            calls[name] = lambda s=METHODS[name]: crown_margins(network, x, y, case.threat, **s)  # noqa: B023
        calls["CROWN of all logits, both ends"] = lambda: crown_bounds(network, x, case.threat)  # noqa: B023
        times = in_turn(calls, size.rounds)
        nets.append(case.figures() | {"n": len(x)} | {
            name: {"seconds": round(value, 4), "forward passes": round(value / times["forward"], 2),
                   "images a minute": round(60 * len(x) / value)} for name, value in times.items()})
        yield {"nets": nets}


def in_turn(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each, after one round that does not count."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds + 1):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            taken[name].append(time.perf_counter() - began)
    return {name: statistics.median(values[1:]) for name, values in taken.items()}


if __name__ == "__main__":
    run_sections({"methods": of_methods, "verification": of_verification, "costs": of_costs}, Size(), QUICK,
                 ThreatModel("linf", 0.1))
