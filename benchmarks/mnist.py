"""FGSM and PGD on handwritten digits: the figure and the figures that chapter 00 shows.

    python benchmarks/mnist.py      writes results/mnist.json and book/assets/mnist.png

`mnist-standard` on the first 1,000 test images. Needs MNIST (`robustness data fetch mnist`), which a chapter must not.
"""

from __future__ import annotations

import datetime
import json
from pathlib import Path

import matplotlib.pyplot as plt
import torch

from robustness_lib import ThreatModel, data, models, plotting
from robustness_lib.attacks import FGSM, PGD

ROOT = Path(__file__).resolve().parent.parent
EPS, N, SHOWN = 0.1, 1000, 5


def main() -> None:
    torch.set_num_threads(1)
    model = models.load_pretrained("mnist-standard")
    x, y, _ = data.load("mnist", n=N)
    threat = ThreatModel("linf", EPS)
    with torch.no_grad():
        right = model(x).argmax(1) == y
    one, many = FGSM(threat).run(model, x, y), PGD(threat, steps=20, restarts=2).run(model, x, y)
    result = {
        "command": "python benchmarks/mnist.py",
        "date": datetime.date.today().isoformat(),
        "model": "mnist-standard", "eps": EPS, "n": N,
        "correct": {"clean": int(right.sum()), "fgsm": int((~one.success).sum()), "pgd": int((~many.success).sum())},
    }
    path = ROOT / "benchmarks/results/mnist.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))

    plotting.use_style()
    chosen = (right & many.success).nonzero()[:SHOWN, 0]  # the first that were right and fell
    with torch.no_grad():
        said = model(many.x_adv[chosen]).argmax(1)
    figure, axes = plt.subplots(3, SHOWN, figsize=(4.5, 3.1))
    for column, row in zip(axes.T, range(SHOWN), strict=True):
        i = chosen[row]
        plotting.image(column[0], x[i], f"“{int(y[i])}”")
        plotting.perturbation(column[1], many.x_adv[i] - x[i], EPS, "")
        plotting.image(column[2], many.x_adv[i], f"“{int(said[row])}”")
    figure.savefig(ROOT / "book/assets/mnist.png", dpi=150)


if __name__ == "__main__":
    main()
