"""The steps of a verification: bounds, and attacks, each on the images that nothing before it has decided."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from robustness_lib.attacks.ensemble_run import EnsembleStep, ImagePart, Verdicts
from robustness_lib.attacks.ensemble_steps import AttackStep
from robustness_lib.certify._rounding import rounding_tolerance
from robustness_lib.certify.enclosure import Enclosure
from robustness_lib.certify.input_region import InputRegion
from robustness_lib.certify.interval_bounds import in_batches
from robustness_lib.certify.margins import improve_margins, plain_margins
from robustness_lib.certify.relaxation import SLOPES
from robustness_lib.certify.traced_network import TracedNetwork
from robustness_lib.precision import full_precision
from robustness_lib.querying.batch_size import cut
from robustness_lib.state import Content
from robustness_lib.threat import ThreatModel

__all__ = ["METHODS", "LimitedAttackStep", "ProofStep"]


@dataclass(frozen=True)
class Method:
    """How bounds are found. tight: boxes inside the network by CROWN, and not by intervals alone. alpha_steps: of
    α-CROWN. rows: go back through bends at all."""

    tight: bool = False
    rows: bool = True
    alpha_steps: int = 0


METHODS = {"IBP": Method(rows=False), "CROWN-IBP": Method(), "CROWN": Method(tight=True),
           "α-CROWN": Method(tight=True, alpha_steps=20)}


class ProofStep(EnsembleStep):
    """Bounds by one method. seconds: that an image may take, with all steps together; None for no end."""

    def __init__(self, name: str, network: TracedNetwork, threat: ThreatModel, seconds: float | None) -> None:
        self.name, self.method, self.network, self.threat = name, METHODS[name], network, threat
        self.seconds = seconds
        self._left: float | None = None

    def begin(self, verdicts: Verdicts) -> None:
        n = len(verdicts.right)
        verdicts.other[self.name] = {
            "tried": torch.zeros(n, dtype=torch.bool), "proved": torch.zeros(n, dtype=torch.bool),
            "margin": torch.full((n,), -torch.inf, dtype=torch.float64),
            "seconds": torch.zeros(n, dtype=torch.float64)}

    def rows(self, part: ImagePart, verdicts: Verdicts) -> Tensor:
        chosen = in_time(verdicts.standing.nonzero()[:, 0], verdicts, self.seconds)
        if self.seconds is not None and len(chosen):
            self._left = self.seconds - float(spent(verdicts)[chosen].mean())
        return chosen

    def work(self, part: ImagePart, rows: Tensor, size: int) -> Content:
        began = time.perf_counter()
        end = None if self._left is None else began + self._left * len(rows)
        x, y, _ = part.at(rows)
        x, y = x.to(self.network.device), y.to(self.network.device)

        def go_on() -> bool:
            return end is None or time.perf_counter() < end

        found = [self._checked(x[some], y[some], go_on) for some in cut(len(x), size)]
        margin, proved = (torch.cat(columns).cpu() for columns in zip(*found, strict=True))
        return {"margin": margin, "proved": proved, "spent": time.perf_counter() - began}

    def merge(self, part: ImagePart, rows: Tensor, content: Content, verdicts: Verdicts) -> None:
        columns = verdicts.other[self.name]
        columns["tried"][rows] = True
        columns["seconds"][rows] += content["spent"] / len(rows)
        columns["margin"][rows], columns["proved"][rows] = content["margin"], content["proved"]
        verdicts.standing[rows[content["proved"]]] = False  # nothing more is to be done with them

    def _checked(self, x: Tensor, y: Tensor, go_on: Callable[[], bool]) -> tuple[Tensor, Tensor]:
        """The smallest margin of each image (m,) float64, and whether it is surely positive, after a second look in
        float64 where rounding could matter."""
        margin, proved, close = self._judged(self.network, x, y, go_on)
        if self.network.dtype == torch.float32 and bool(close.any()):
            margin[close], proved[close], _ = self._judged(self.network.to(torch.float64), x[close], y[close], go_on)
        return margin, proved

    def _judged(self, network: TracedNetwork, x: Tensor, y: Tensor, go_on: Callable[[], bool]
                ) -> tuple[Tensor, Tensor, Tensor]:
        """The smallest margin of each image (m,) float64, whether it is surely positive, and whether it is so near 0
        that rounding could matter."""
        with torch.inference_mode(False), torch.no_grad(), full_precision():
            found = in_batches(lambda region, labels: self._margins(region, labels, network, go_on), network,
                               InputRegion(network.take(x), self.threat), y)
        margin, tolerance = (column.double() for column in found)
        return margin, margin > tolerance, margin.abs() <= tolerance

    def _margins(self, region: InputRegion, y: Tensor, network: TracedNetwork, go_on: Callable[[], bool]
                 ) -> tuple[Tensor, Tensor]:
        """The smallest margin of each image, and the tolerance for it."""
        tolerance = rounding_tolerance(network, region)
        enclosure = Enclosure.by_intervals(network, region)
        margins = plain_margins(enclosure, y)
        if self.method.rows:
            enclosure = enclosure.tightened(SLOPES) if self.method.tight else enclosure
            for steps in dict.fromkeys((0, self.method.alpha_steps)):
                improve_margins(margins, enclosure, y, SLOPES, steps, enough=2 * tolerance, go_on=go_on)
        return margins.amin(1), tolerance


class LimitedAttackStep(AttackStep):
    """An attack on the images that still have time. seconds: that an image may take, with all steps together."""

    seconds: float | None = None

    def rows(self, part: ImagePart, verdicts: Verdicts) -> Tensor:
        return in_time(super().rows(part, verdicts), verdicts, self.seconds)


def spent(verdicts: Verdicts) -> Tensor:
    """Seconds that each image took so far (n,): its share of what it was worked on with."""
    total = torch.zeros(len(verdicts.right), dtype=torch.float64)
    for columns in verdicts.other.values():
        total += columns["seconds"]
    for attack in verdicts.attacks.values():
        total[attack.tried] += float(attack.spent["seconds"]) / max(1, int(attack.tried.sum()))
    return total


def in_time(rows: Tensor, verdicts: Verdicts, seconds: float | None) -> Tensor:
    return rows if seconds is None else rows[spent(verdicts)[rows] < seconds]
