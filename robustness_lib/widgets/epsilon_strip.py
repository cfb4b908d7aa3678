"""The slider's printed twin: four ε side by side, for paper, for code hosts and for slow phones."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from matplotlib.figure import Figure
from torch import Tensor, nn

from robustness_lib.widgets._shown_figure import ShownFigure
from robustness_lib.widgets.epsilon_frames import Frame, epsilon_frames

__all__ = ["epsilon_strip"]

STRIP_EPSILONS = (0, 2 / 255, 4 / 255, 8 / 255)


def epsilon_strip(
    model: nn.Module | Sequence[Frame], x: Tensor | None = None, y: Tensor | int | None = None, attack: object = None,
    epsilons: Sequence[float] = STRIP_EPSILONS, classes: Sequence[str] | None = None,
) -> Figure:
    """A figure 4.5 inches wide: the attacked image above its perturbation at each of `epsilons`, with a caption.

    Arguments as in `epsilon_frames`; or the frames themselves, of which those at `epsilons` are drawn (all of
    them, if four or fewer). Raises ValueError if none of the frames is at one of `epsilons`.
    """
    if isinstance(model, nn.Module):
        if x is None or y is None or attack is None:
            raise TypeError("epsilon_strip needs (model, x, y, attack), or the frames of epsilon_frames")
        frames: Sequence[Frame] = epsilon_frames(model, x, y, attack, epsilons, classes)
    else:
        frames = model if len(model) <= 4 else [f for f in model if any(abs(f.eps - e) < 1e-9 for e in epsilons)]
    if not frames:
        raise ValueError("epsilon_strip found no frame to draw: pass the epsilons that the frames were made with")
    return _draw(frames)


def _draw(frames: Sequence[Frame]) -> Figure:
    caption = "\n".join(textwrap.wrap(_caption(frames), 72))
    lines = caption.count("\n") + 1
    figure = ShownFigure(figsize=(4.5, 3.0 + 0.17 * lines), dpi=150)
    figure.set_layout_engine("none")  # the margins below are the figure's own
    grid = figure.add_gridspec(2, len(frames), left=0.06, right=0.995, top=0.86, bottom=0.08 + 0.035 * lines,
                               wspace=0.06, hspace=0.04)
    for column, frame in enumerate(frames):
        for row, pixels in enumerate((frame.adversarial, frame.perturbation)):
            axes = figure.add_subplot(grid[row, column])
            axes.imshow(pixels, interpolation="nearest")
            axes.set_xticks([])
            axes.set_yticks([])
            if column == 0:
                axes.set_ylabel(("attacked", f"change × {frame.magnification:.2g}")[row], fontsize=9)
            if row == 0:
                says = textwrap.shorten(frame.classes[frame.predicted], 16, placeholder="…")
                axes.set_title(f"ε = {frame.eps_text}\n{says}", fontsize=9,
                               color="black" if frame.predicted == frame.label else "#a8320a")
    figure.text(0.01, 0.015, caption, fontsize=8, va="bottom")
    return figure


def _caption(frames: Sequence[Frame]) -> str:
    first, last = frames[0], frames[-1]
    wrong = next((frame for frame in frames if frame.predicted != frame.label), None)
    found = (f"first wrong at ε = {wrong.eps_text} (“{wrong.classes[wrong.predicted]}”)" if wrong
             else f"right at every ε up to {last.eps_text}")
    return (f"“{first.classes[first.label]}” under attack: {found}. "
            f"Lower row: the change, magnified {last.magnification:.2g} times; grey is no change.")
