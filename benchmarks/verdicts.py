"""The verdicts of the suites on shipped nets, image by image, and whether two versions of the library agree on them.

    python benchmarks/verdicts.py run verdicts.json             every suite on four nets, in both norms
    python benchmarks/verdicts.py compare before.json after.json

A change that moves code and is not to move a verdict is held against the version before it: `run` in a checkout of
each (they import only what is public), then `compare`, which names every image that is judged otherwise and ends with
1 where there is one. What is finished is kept beside the file, so that a killed run goes on.

MNIST is looked for as everywhere (ROBUSTNESS_DATA, or the cache); without it its net is left out, and said so.
"""

from __future__ import annotations

import json
import platform
import sys
import time
from pathlib import Path
from typing import Any

import torch

from robustness_lib import ThreatModel, data, models
from robustness_lib.evaluation import evaluate

IMAGES = 200
SUITES = ("quick", "standard", "random")
# Of each net both norms at an ε where it has neither lost nor kept everything; the random suite is dear, and dearest
# where nothing breaks.
NETS = {
    "signs-tiny-standard": ("signs", {"linf": 4 / 255, "l2": 0.25}),
    "signs-tiny-pgd": ("signs", {"linf": 8 / 255, "l2": 0.75}),
    "signs-standard": ("signs", {"linf": 6 / 255, "l2": 0.5}),
    "mnist-standard": ("mnist", {"linf": 0.1, "l2": 1.5}),
}


def verdicts(net: str, norm: str, suite: str) -> dict[str, Any]:
    """What the suite says of each image, as plain values."""
    name, epsilons = NETS[net]
    x, y, _ = data.load(name, "test", n=IMAGES)
    began = time.perf_counter()
    report = evaluate(models.load_pretrained(net), x, y, ThreatModel(norm, epsilons[norm]), suite)
    seconds = time.perf_counter() - began
    curve = report.curve
    return {
        "clean": bits(report.clean), "robust": bits(report.robust), "broken by": list(report.examples.broken_by),
        "mistaken for": report.examples.mistaken_for.tolist(),
        "distance": [None if d != d else round(d, 5) for d in report.examples.distance.tolist()],
        "attacks": {a.name: {"tried": bits(a.tried), "broke": bits(a.broke), "queries": a.queries,
                             "gradients": a.gradients} for a in report.attacks},
        "curve": None if curve is None else {f"{eps:.6g}": bits(row)
                                             for eps, row in zip(curve.eps, curve.stood, strict=True)},
        "findings": None if report.findings is None else [finding.kind for finding in report.findings],
        "notes": list(report.notes), "sentence": report.sentence, "seconds": round(seconds, 1),
    }


def bits(column: Any) -> str:
    return "".join("01"[bool(entry)] for entry in column.tolist())


def run(out: Path) -> None:
    kept = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}
    kept["made with"] = {"command": f"python benchmarks/verdicts.py run {out.name}", "torch": torch.__version__,
                         "machine": f"{platform.machine()}, {torch.get_num_threads()} thread"}
    for suite in SUITES:
        for net in NETS:
            for norm in NETS[net][1]:
                key = f"{suite}, {net}, {norm}"
                if key in kept:
                    continue
                try:
                    kept[key] = verdicts(net, norm, suite)
                except FileNotFoundError as error:
                    print(f"{key}: left out ({error})", flush=True)
                    continue
                out.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
                print(f"{key}: {kept[key]['sentence']} ({kept[key]['seconds']} s)", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    run(Path(sys.argv[2]))
