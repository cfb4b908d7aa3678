"""The steps of a verification: bounds, and attacks, each on the images that nothing before it has decided."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from robustness_lib.attacks.ensemble_run import EnsembleStep, ImagePart, Verdicts
from robustness_lib.attacks.ensemble_steps import AttackStep
from robustness_lib.certify._rounding import OWN_ROUNDING, ROUNDING, rounding_tolerance
from robustness_lib.certify.enclosure import Enclosure, GoOn
from robustness_lib.certify.input_region import InputRegion
from robustness_lib.certify.interval_bounds import in_batches
from robustness_lib.certify.margins import improve_margins, plain_margins
from robustness_lib.certify.relaxation import SLOPES
from robustness_lib.certify.traced_network import TracedNetwork
from robustness_lib.precision import full_precision
from robustness_lib.querying.batch_size import cut
from robustness_lib.state import Content
from robustness_lib.threat import ThreatModel

__all__ = ["METHODS", "PIECES", "LimitedAttackStep", "ProofStep"]


@dataclass(frozen=True)
class Method:
    """How bounds are found. tight: boxes inside the network by CROWN, and not by intervals alone. alpha_steps: of
    α-CROWN. rows: go back through bends at all."""

    tight: bool = False
    rows: bool = True
    alpha_steps: int = 0


METHODS = {"IBP": Method(rows=False), "CROWN-IBP": Method(), "CROWN": Method(tight=True),
           "α-CROWN": Method(tight=True, alpha_steps=20)}

# Each of the first two is cheap beside what follows it. The last two are one piece of work: the boxes inside the
# network, which are nearly all that CROWN costs, are those of α-CROWN too.
PIECES = (("IBP",), ("CROWN-IBP",), ("CROWN", "α-CROWN"))


# Entries of the widest value in the images that are worked on, and kept on disk, together: of wide networks few images,
# which may take seconds each.
_PIECE_VALUES = 50_000


class ProofStep(EnsembleStep):
    """Bounds by methods after each other, of which a later one begins with the boxes and margins of those before.
    seconds: that an image may take, with all steps together; None for no end. At most half of what is left of it goes
    to one step, so that those behind it have their turn; what an image leaves of its half is for those that follow."""

    def __init__(self, names: Sequence[str], network: TracedNetwork, threat: ThreatModel, seconds: float | None
                 ) -> None:
        self.name, self.names, self.network, self.threat = names[0], tuple(names), network, threat
        self.seconds = seconds
        self.piece = max(4, _PIECE_VALUES // network.widest)
        self._left, self._to_come = math.inf, 0  # seconds, and the images that these are for

    def begin(self, verdicts: Verdicts) -> None:
        n = len(verdicts.right)
        for name in self.names:
            verdicts.other[name] = {
                "tried": torch.zeros(n, dtype=torch.bool), "proved": torch.zeros(n, dtype=torch.bool),
                "late": torch.zeros(n, dtype=torch.bool), "margin": torch.full((n,), -torch.inf, dtype=torch.float64),
                "seconds": torch.zeros(n, dtype=torch.float64)}

    def rows(self, part: ImagePart, verdicts: Verdicts) -> Tensor:
        chosen = in_time(verdicts.open.nonzero()[:, 0], verdicts, self.seconds)
        self._to_come = len(chosen)
        if self.seconds is not None:
            self._left = float((self.seconds - spent(verdicts)[chosen]).sum()) / 2
        return chosen

    def work(self, part: ImagePart, rows: Tensor, size: int) -> Content:
        end = time.perf_counter() + self._left * len(rows) / self._to_come
        x, y, _ = part.at(rows)
        x, y = x.to(self.network.device), y.to(self.network.device)

        late = False

        def go_on() -> bool:
            nonlocal late
            late = late or time.perf_counter() >= end
            return not late

        seconds = dict.fromkeys(self.names, 0.0)
        found = [self._checked(x[some], y[some], go_on, seconds) for some in cut(len(x), size)]
        margins, proved = (torch.cat(columns).cpu() for columns in zip(*found, strict=True))
        return {"margins": margins, "proved": proved, "spent": list(seconds.values()), "late": late}

    def merge(self, part: ImagePart, rows: Tensor, content: Content, verdicts: Verdicts) -> None:
        for name, margin, proved, seconds in zip(self.names, content["margins"].T, content["proved"].T,
                                                 content["spent"], strict=True):
            columns, tried = verdicts.other[name], verdicts.open[rows]
            here = rows[tried]
            columns["tried"][here] = True
            columns["margin"][here], columns["proved"][here] = margin[tried], proved[tried]
            columns["late"][here] = content["late"]
            columns["seconds"][here] += seconds / max(1, len(here))
            verdicts.proved[rows[proved]] = True  # nothing more is to be done with them
        self._left, self._to_come = self._left - sum(content["spent"]), self._to_come - len(rows)

    def _checked(self, x: Tensor, y: Tensor, go_on: GoOn, seconds: dict[str, float]) -> tuple[Tensor, Tensor]:
        """The smallest margin of each image by each method (m, methods) float64, and whether it is surely positive,
        after a second look in float64 where rounding could matter."""
        margins, proved, close = self._judged(self.network, x, y, go_on, seconds)
        if self.network.dtype == torch.float32 and bool(close.any()):
            margins[close], proved[close], _ = self._judged(self.network.to(torch.float64), x[close], y[close], go_on,
                                                            seconds)
        return margins, proved

    def _judged(self, network: TracedNetwork, x: Tensor, y: Tensor, go_on: GoOn, seconds: dict[str, float]
                ) -> tuple[Tensor, Tensor, Tensor]:
        """The smallest margin of each image by each method (m, methods) float64, whether it is surely positive, and
        (m,) whether even the best is so near 0 that rounding could matter."""
        with torch.inference_mode(False), torch.no_grad(), full_precision():
            found = in_batches(lambda region, labels: self._margins(region, labels, network, go_on, seconds), network,
                               InputRegion(network.take(x), self.threat), y)
        margins, tolerance = (column.double() for column in found)
        return margins, margins > tolerance[:, None], margins[:, -1].abs() <= tolerance

    def _margins(self, region: InputRegion, y: Tensor, network: TracedNetwork, go_on: GoOn, seconds: dict[str, float]
                 ) -> tuple[Tensor, Tensor]:
        """The smallest margin of each image by each method (m, methods), and the tolerance for it (m,)."""
        began = time.perf_counter()
        enclosure = Enclosure.by_intervals(network, region)
        kind = self.network.dtype  # the model's, whose own answers are rounded, too
        tolerance = rounding_tolerance(enclosure, ROUNDING[kind] if network.dtype == kind else OWN_ROUNDING[kind])
        margins, smallest, tight = plain_margins(enclosure, y), [], False
        for name in self.names:
            method = METHODS[name]
            if method.tight and not tight:
                enclosure, tight = enclosure.tightened(SLOPES, go_on), True
            if method.rows:
                improve_margins(margins, enclosure, y, SLOPES, method.alpha_steps, enough=2 * tolerance, go_on=go_on)
            smallest.append(margins.amin(1))
            began, before = time.perf_counter(), began
            seconds[name] += began - before
        return torch.stack(smallest, 1), tolerance


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
