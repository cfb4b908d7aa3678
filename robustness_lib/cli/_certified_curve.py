"""The curve of certified accuracy as a picture."""

from __future__ import annotations

import io

from matplotlib.figure import Figure

from robustness_lib.evaluation.certification import Certification
from robustness_lib.statistics import clopper_pearson

__all__ = ["curve_png"]

_BLUE, _GREY = "#2563a8", "#6b7280"
_MOST = 44  # characters of a name


def curve_png(found: Certification, model: str, data: str) -> bytes:
    """Certified accuracy against radius, as steps, with its 95 % band; the smoothed classifier's at 0. Of a
    certification that was asked for its curve. model, data: their names, for the small print."""
    end, (radii, shares) = found.question.end(found.sigma), found.steps()
    edges, steps = [*radii, max(end, radii[-1]) + found.sigma], [*shares[1:], 0.0]
    low, high = zip(*(clopper_pearson(round(share * found.n), found.n) for share in steps), strict=True)
    figure = Figure(figsize=(4.8, 3.2), dpi=150, layout="constrained")
    axes = figure.subplots()
    axes.stairs(high, edges, baseline=low, fill=True, color=_BLUE, alpha=0.18, linewidth=0, label="95 % interval")
    axes.stairs(steps, edges, baseline=None, color=_BLUE, linewidth=1.6,
                label=f"certified, σ = {found.sigma:g}, n = {found.n:,}")
    for radius in found.question.radii:
        axes.axvline(radius, color=_GREY, linewidth=0.8, linestyle=":")
    axes.set(xlim=(0, end), ylim=(0, 1.02), xlabel="L2 radius, in pixel units of [0, 1]", ylabel="certified accuracy")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, ncols=2, loc="lower left", bbox_to_anchor=(0, 1))  # above all lines
    figure.supxlabel(_small_print(found, model, data), fontsize=6, color=_GREY, parse_math=False)
    file = io.BytesIO()
    figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()


def _small_print(found: Certification, model: str, data: str) -> str:
    """What it is of, and by how many votes."""
    question = found.question
    named = "; ".join(f"{what} {_short(name)}" for what, name in (("model", model), ("data", data)))
    votes = f"up to {question.n:,} votes each, after {question.n0:,} that chose the class"
    return f"{named}\nα = {question.alpha:g}; {votes}"


def _short(name: str) -> str:
    """The end of a name, which is what tells files apart."""
    name = " ".join(name.replace("\\", "/").split())
    return name if len(name) <= _MOST else f"…{name[1 - _MOST:]}"
