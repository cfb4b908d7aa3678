"""How many times as fast as its peers each attack is: a picture of results/attacks.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

from robustness_lib import plotting

__all__ = ["plot"]

ROWS = [  # section, case, what the row says
    ("pgd", "unbreakable", "PGD, nothing breaks"), ("pgd", "half robust", "PGD, half break"),
    ("pgd", "nearly all broken", "PGD, nearly all break"), ("apgd", "unbreakable", "Auto-PGD, nothing breaks"),
    ("apgd", "half robust", "Auto-PGD, half break"), ("cw", "signs-pgd", "Carlini–Wagner L2"),
    ("fab", "linf", "FAB L∞"), ("fab", "l2", "FAB L2"), ("square", "unbreakable", "Square, nothing breaks"),
    ("square", "nearly all broken", "Square, ε = 8/255"), ("autoattack", None, "AutoAttack"),
]
MARKS = {"torchattacks": ("o", plotting.BLUE, "torchattacks"), "authors": ("o", plotting.BLUE, None),
         "foolbox": ("s", plotting.ORANGE, "foolbox"), "art": ("^", plotting.GREY, "ART")}


def times_as_fast(results: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Row of the plot → peer → how many times as long it took as ours."""
    rows = {}
    for section, case, label in ROWS:
        if section in results:
            figures = results[section] if case is None else results[section]["cases"][case]
            rows[label] = {name: ratio for name, ratio in figures["times_as_fast"].items() if name in MARKS}
    return rows


def plot(file: Path, to: Path) -> None:
    rows = times_as_fast(json.loads(file.read_text(encoding="utf-8")))
    plotting.use_style()
    figure, axes = plt.subplots(figsize=(4.5, 0.4 + 0.24 * (len(rows) + 2)))
    for name, (marker, colour, label) in MARKS.items():
        points = [(peers[name], row) for row, peers in enumerate(rows.values()) if name in peers]
        if points:
            axes.plot(*zip(*points, strict=True), marker, color=colour, markersize=5, label=label)
    axes.axvline(1, color="black", linewidth=1)
    for row in range(len(rows)):
        axes.axhline(row, color="0.9", linewidth=0.8, zorder=0)
    axes.set(xscale="log", yticks=range(len(rows)), yticklabels=rows, ylim=(len(rows) - 0.5, -0.5),
             xlabel="peer's time ÷ ours, log scale\n(right of the line ours is faster)")
    ticks = [tick for tick in (0.5, 1, 2, 5, 10, 20, 50, 100) if axes.get_xlim()[0] <= tick <= axes.get_xlim()[1]]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.tick_params(axis="y", length=0)
    figure.legend(loc="outside upper center", ncols=3, handletextpad=0.2, columnspacing=1.2)
    to.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(to, dpi=150)
