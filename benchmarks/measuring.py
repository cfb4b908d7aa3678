"""Attackers in turn on the same images: seconds, model calls, and what was broken."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from cases import Case, Figures, Size
from peers import Attacker
from torch import Tensor, nn

from robustness_lib import ThreatModel

__all__ = ["Counter", "compare", "processor", "same_for_all", "seconds"]

SLOW = 30.0  # seconds a round; who needs more is timed once


class Counter:
    """Counts the images that models see (`forward`) and those that gradients come back for (`gradients`)."""

    def __init__(self, *watched: nn.Module) -> None:
        self.forward, self.gradients = 0, 0
        # The last layer is called by everybody; ART goes through a Sequential layer by layer.
        self._hooks = [list(model.modules())[-1].register_forward_hook(self._saw) for model in watched]

    def _saw(self, module: nn.Module, inputs: tuple[Tensor], logits: Tensor) -> None:
        self.forward += len(logits)
        if logits.requires_grad:
            logits.register_hook(self._came_back)

    def _came_back(self, gradient: Tensor) -> None:
        self.gradients += len(gradient)

    def __enter__(self) -> Counter:
        return self

    def __exit__(self, *error: object) -> None:
        for hook in self._hooks:
            hook.remove()


def seconds(call: Callable[[], object]) -> float:
    """Of processor time: the whole process is one thread, and what else runs on the machine hardly counts."""
    began = time.process_time()
    call()
    return time.process_time() - began


def same_for_all(model: nn.Module, round_number: int) -> None:
    """The peers draw from global generators and leave gradients in the parameters."""
    torch.manual_seed(round_number)
    np.random.seed(round_number)  # noqa: NPY002, ART draws from it
    model.zero_grad(set_to_none=True)


def compare(case: Case, attackers: dict[str, Attacker], size: Size, norm: str = "linf") -> Figures:
    """All attackers in turn, round by round: what they broke, how near, in how much time and how many model calls."""
    found: dict[str, Tensor] = {}
    libraries: dict[str, Figures] = {}
    times: dict[str, list[float]] = {}
    for name, attacker in attackers.items():
        same_for_all(case.model, 0)
        began = time.process_time()
        with Counter(case.model) as counter:
            found[name] = attacker(case.model, case.x, case.y)
        times[name] = [time.process_time() - began]
        libraries[name] = {"forward": counter.forward, "gradients": counter.gradients}
    repeated = [name for name in attackers if times[name][0] <= SLOW or name == "ours"]
    for name in repeated:
        times[name] = []
    for repeat in range(1, size.repeats + 1):
        for name in repeated:
            same_for_all(case.model, repeat)
            times[name].append(seconds(lambda name=name: attackers[name](case.model, case.x, case.y)))
    verdicts = judge(case, found, norm)
    for name in attackers:
        libraries[name] = {"seconds": round(statistics.median(times[name]), 3),
                           "all_seconds": [round(value, 3) for value in times[name]]} | verdicts[name] | libraries[name]
    ours = libraries["ours"]["seconds"]
    ratios = {name: round(libraries[name]["seconds"] / ours, 3) for name in attackers if name != "ours"}
    return case.figures() | {"libraries": libraries, "times_as_fast": ratios}


def judge(case: Case, found: dict[str, Tensor], norm: str) -> dict[str, Figures]:
    with torch.no_grad():
        broken = {name: case.model(x_adv).argmax(1) != case.y for name, x_adv in found.items()}
    distance = {name: ThreatModel(norm, 1).distance(x_adv, case.x) for name, x_adv in found.items()}
    verdicts: dict[str, Figures] = {}
    for name in found:
        verdicts[name] = {"broken": int(broken[name].sum())}
        if case.eps is not None:
            verdicts[name]["largest_distance_over_eps"] = round(float(distance[name].max()) / case.eps, 5)
            continue
        common, both = torch.stack(list(broken.values())).all(0), broken[name] & broken["ours"]
        verdicts[name] |= {
            "broken_by_all": int(common.sum()),
            "mean_distance": round(float(distance[name][common].mean()), 5),
            # Image by image, over those that both broke: theirs over ours.
            "mean_ratio_to_ours": round(float((distance[name] / distance["ours"])[both].mean()), 4),
            "ours_nearer": int((distance["ours"] < 0.999 * distance[name])[both].sum()),
            "theirs_nearer": int((distance[name] < 0.999 * distance["ours"])[both].sum()),
        }
    return verdicts


def processor() -> str:
    """The processor's name; nothing else about the machine."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        return next(line.split(": ")[1] for line in info.read_text().splitlines() if line.startswith("model name"))
    return platform.processor()
