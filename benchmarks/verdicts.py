"""The verdicts of the suites on shipped nets, image by image, and whether two versions of the library agree on them.

    python benchmarks/verdicts.py run verdicts.json               every suite on four nets, in both norms
    python benchmarks/verdicts.py compare before.json after.json  image by image
    python benchmarks/verdicts.py speed ../before                 PGD and AutoAttack here and in another checkout

A change that moves code and is not to move a verdict is held against the version before it: `run` in a checkout of
each (the file may be copied there: it imports only what is public), then `compare`, which names every image that is
judged otherwise and ends with 1 where there is one. What is finished stands in the file, so that a killed run goes on.
`speed` starts a process for either checkout, lets them work in turn, and prints the ratio of their processor times.

MNIST is looked for as everywhere (ROBUSTNESS_DATA, or the cache); without it its net is left out, and said so.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
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


def compare(before: Path, after: Path) -> int:
    """How many images are judged otherwise, each named; what the suites ran and what was found beside it is said."""
    first, second = (json.loads(path.read_text(encoding="utf-8")) for path in (before, after))
    keys = [key for key in first if key in second and key != "made with"]
    apart = len(first.keys() ^ second.keys()) + (not keys)
    for key in sorted(first.keys() ^ second.keys()):
        print(f"{key}: stands in one file only")
    for key in keys:
        a, b = first[key], second[key]
        for column in ("clean", "robust", "broken by", "mistaken for", "distance"):
            for image, (was, now) in enumerate(zip(a[column], b[column], strict=True)):
                if was != now and not (column == "distance" and was and now and abs(was - now) < 1e-4):
                    apart += 1
                    print(f"{key}: image {image}: {column} was {was}, is {now} (broken by {a['broken by'][image]}, "
                          f"then {b['broken by'][image]})")
        for name in sorted(a["attacks"].keys() ^ b["attacks"].keys()):
            print(f"{key}: {name} stands in one report only")
        for name in (name for name in a["attacks"] if name in b["attacks"]):
            for count in ("tried", "broke"):
                differ = sum(x != y for x, y in zip(a["attacks"][name][count], b["attacks"][name][count], strict=True))
                if differ:
                    print(f"{key}: {name} {count} {differ} images that it did not, or the other way round")
        for eps in a["curve"] or ():
            differ = sum(x != y for x, y in zip(a["curve"][eps], (b["curve"] or {})[eps], strict=True))
            if differ:
                print(f"{key}: the curve at {eps} differs on {differ} images")
        if a["findings"] != b["findings"]:
            print(f"{key}: findings were {a['findings']}, are {b['findings']}")
    print(f"{len(keys)} runs compared, {apart} entries apart")
    return apart


WORK = """
import sys, time, torch
from robustness_lib import ThreatModel, data, models
from robustness_lib.attacks import PGD, AutoAttack

torch.set_num_threads(1)
x, y, _ = data.load("signs", "test", n=128)
linf = ThreatModel("linf", 8 / 255)
jobs = {
    "PGD-20 on signs-pgd": (models.load_pretrained("signs-pgd"), PGD(linf, steps=20), 128),
    "PGD-20, all steps, on signs-tiny-pgd": (models.load_pretrained("signs-tiny-pgd"),
                                             PGD(linf, steps=20, stop="never"), 128),
    "AutoAttack on signs-tiny-pgd": (models.load_pretrained("signs-tiny-pgd"), AutoAttack(linf), 48),
}
for line in sys.stdin:
    model, attack, n = jobs[line.strip()]
    began = time.process_time()
    attack.run(model, x[:n], y[:n])
    print(time.process_time() - began, flush=True)
"""
JOBS = {"PGD-20 on signs-pgd": 25, "PGD-20, all steps, on signs-tiny-pgd": 25, "AutoAttack on signs-tiny-pgd": 7}


def speed(other: Path) -> None:
    """Medians of the processor time of one job, here over there, in turn."""
    here = Path(__file__).resolve().parent.parent
    workers = [subprocess.Popen([sys.executable, "-c", WORK], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                env=os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"})
               for root in (here, other.resolve())]

    def ask(worker: subprocess.Popen[str], job: str) -> float:
        assert worker.stdin is not None
        assert worker.stdout is not None
        print(job, file=worker.stdin, flush=True)
        return float(worker.stdout.readline())

    for job, repeats in JOBS.items():
        for worker in workers:
            ask(worker, job)  # once to warm up
        ratios, seconds = [], []
        for _ in range(repeats):
            mine, theirs = (ask(worker, job) for worker in workers)
            ratios.append(mine / theirs)
            seconds.append(mine)
        low, middle, high = statistics.quantiles(ratios, n=4)
        print(f"{job}: {statistics.median(seconds):.2f} s; ratio {middle:.3f} (quartiles {low:.3f}–{high:.3f}, "
              f"{repeats} pairs)", flush=True)
    for worker in workers:
        worker.communicate()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("run").add_argument("out", type=Path)
    both = commands.add_parser("compare")
    both.add_argument("before", type=Path)
    both.add_argument("after", type=Path)
    commands.add_parser("speed").add_argument("other", type=Path)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    if chosen.command == "run":
        run(chosen.out)
    elif chosen.command == "speed":
        speed(chosen.other)
    else:
        return 1 if compare(chosen.before, chosen.after) else 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
