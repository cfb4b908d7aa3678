"""The curve of certified accuracy as a picture."""

from __future__ import annotations

import io

import numpy as np
from matplotlib.figure import Figure

from robustness_lib.evaluation.certification import Certification

__all__ = ["curve_png"]

_BLUE, _GREY = "#2563a8", "#6b7280"


def curve_png(found: Certification) -> bytes:
    """Certified accuracy against radius, as steps, with its 95 % band; the smoothed classifier's at 0. Of a
    certification that was asked for its curve."""
    end, (radii, shares) = found.question.end(found.sigma), found.steps()
    grid = np.linspace(0, end, 121)
    low, high = zip(*(found.certified(radius).interval for radius in grid.tolist()), strict=True)
    figure = Figure(figsize=(4.8, 3.2), dpi=150, layout="constrained")
    axes = figure.subplots()
    axes.fill_between(grid, low, high, color=_BLUE, alpha=0.18, linewidth=0, label="95 % interval")
    axes.stairs([*shares[1:], 0], [*radii, max(end, radii[-1]) + found.sigma], baseline=None, color=_BLUE,
                linewidth=1.6, label=f"certified, σ = {found.sigma:g}, n = {found.n:,}")
    for radius in found.question.radii:
        axes.axvline(radius, color=_GREY, linewidth=0.8, linestyle=":")
    axes.set(xlim=(0, end), ylim=(0, 1.02), xlabel="L2 radius, in pixel units of [0, 1]", ylabel="certified accuracy")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    file = io.BytesIO()
    figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()
