"""PGD beside torchattacks' PGD: time as a ratio, same net, images, starts' distribution, steps, step size and ε.

    python benchmarks/pgd.py            writes results/pgd.json

Interleaved in one process, one thread, after one warm-up each; medians of five. Three cases on `signs-pgd` and
`signs-standard`, L∞, 40 steps, 500 images: images that nothing breaks, a model that loses about half of them, and
one that loses nearly all. Success is compared too: a fast attack that breaks less would not be fast.

torchattacks: pip install --no-deps torchattacks (its pin of an old requests disagrees with jupyterlab's).
"""

from __future__ import annotations

import datetime
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torchattacks
from torch import Tensor, nn

from robustness_lib import ThreatModel, data, models
from robustness_lib.attacks import PGD

STEPS, N, REPEATS = 40, 500, 5
RESULT = Path(__file__).parent / "results" / "pgd.json"


def processor() -> str:
    """The processor's name; nothing else about the machine."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        return next(line.split(": ")[1] for line in info.read_text().splitlines() if line.startswith("model name"))
    return platform.processor()


def seconds(call: Callable[[], Tensor]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def cases() -> dict[str, tuple[nn.Module, Tensor, Tensor, float]]:
    """Model, images that it gets right, labels, ε."""
    x, y, _ = data.load("signs")
    standard, robust = models.load_pretrained("signs-standard"), models.load_pretrained("signs-pgd")

    def right(model: nn.Module) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            rows = (model(x).argmax(1) == y).nonzero()[:, 0]
        return x[rows], y[rows]

    xr, yr = right(robust)
    tough = (~PGD(ThreatModel("linf", 4 / 255), steps=40, restarts=2, seed=9).run(
        robust, xr[:1500], yr[:1500], batch_size=250).success).nonzero()[:, 0]
    xs, ys = right(standard)
    eps = half_broken_at(standard, xs[:N], ys[:N])
    return {
        "unbreakable": (robust, xr[tough][:N], yr[tough][:N], 2 / 255),
        "half robust": (standard, xs[:N], ys[:N], eps),
        "nearly all broken": (standard, xs[:N], ys[:N], 8 / 255),
    }


def half_broken_at(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """The ε, by bisection, at which PGD breaks about half."""
    low, high = 0.0, 8 / 255
    for _ in range(8):
        middle = (low + high) / 2
        share = PGD(ThreatModel("linf", middle), steps=10).run(model, x, y, batch_size=250).success.float().mean()
        low, high = (middle, high) if share < 0.5 else (low, middle)
    return (low + high) / 2


def compare(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> dict[str, object]:
    ours = PGD(ThreatModel("linf", eps), steps=STEPS)
    theirs = torchattacks.PGD(model, eps=eps, alpha=2.5 * eps / STEPS, steps=STEPS, random_start=True)
    times: dict[str, list[float]] = {"ours": [], "torchattacks": []}
    for repeat in range(REPEATS + 1):
        pair = {"ours": seconds(lambda: ours(model, x, y)), "torchattacks": seconds(lambda: theirs(x, y))}
        if repeat:
            for name, value in pair.items():
                times[name].append(value)
    theirs_adv = theirs(x, y)
    with torch.no_grad():
        broken_by_theirs = int((model(theirs_adv).argmax(1) != y).sum())
    result = ours.run(model, x, y)
    median = {name: statistics.median(values) for name, values in times.items()}
    return {
        "eps": eps, "n": len(x), "steps": STEPS,
        "broken": {"ours": int(result.success.sum()), "torchattacks": broken_by_theirs},
        "median_seconds": {name: round(value, 3) for name, value in median.items()},
        "times_as_fast": round(median["torchattacks"] / median["ours"], 3),
        "gradients": {"ours": int(result.gradients.sum()), "torchattacks": len(x) * STEPS},
    }


def random_start_share() -> float:
    """Seconds of one random start as a share of PGD-40 on the same 100 images."""
    model = models.load_pretrained("signs-pgd")
    x, y, _ = data.load("signs", n=100)
    threat, index = ThreatModel("linf", 4 / 255), torch.arange(100)
    attack = PGD(threat, steps=STEPS, stop="never")
    starts, attacks = [], []
    for repeat in range(REPEATS + 1):
        start = seconds(lambda r=repeat: threat.random_point(x, seed=r, index=index))
        whole = seconds(lambda: attack(model, x, y))
        if repeat:
            starts.append(start)
            attacks.append(whole)
    return statistics.median(starts) / statistics.median(attacks)


def main() -> None:
    torch.set_num_threads(1)
    result: dict[str, object] = {
        "command": "python benchmarks/pgd.py",
        "date": datetime.date.today().isoformat(),
        "machine": f"{processor()}, one thread",
        "versions": {"torch": torch.__version__, "torchattacks": torchattacks.__version__},
        "cases": {name: compare(*case) for name, case in cases().items()},
        "random_start_share_of_pgd40": round(random_start_share(), 4),
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
