"""A slider over ε that moves without a kernel: frames in a stack, linked in the page's own JavaScript."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import ipywidgets
from torch import Tensor, nn

from robustness_lib.png import png_bytes
from robustness_lib.widgets._pages import bar, pages_under_slider, png_url
from robustness_lib.widgets.epsilon_frames import Frame, epsilon_frames

__all__ = ["epsilon_slider"]


def epsilon_slider(
    model: nn.Module | Sequence[Frame], x: Tensor | None = None, y: Tensor | int | None = None, attack: Any = None,
    epsilons: Sequence[float] | None = None, classes: Sequence[str] | None = None, *, name: str = "ε",
) -> ipywidgets.VBox:
    """Clean image, perturbation, adversarial image and class bars for one image, under a slider over ε.

    The same widget moves in JupyterLab and in the built page. Arguments as in `epsilon_frames`; frames that are
    already there can be passed instead: `epsilon_slider(frames)`. name: what the slider runs over, where the frames
    are a kind of their own that differs in something else (their `eps_text` is what the handle says).
    """
    if not isinstance(model, Sequence):
        if x is None or y is None or attack is None or epsilons is None:
            raise TypeError("epsilon_slider needs (model, x, y, attack, epsilons), or the frames of epsilon_frames")
        frames: Sequence[Frame] = epsilon_frames(model, x, y, attack, epsilons, classes)
    else:
        frames = model
    if not frames:
        raise ValueError("epsilon_slider was given no frames")
    # HTML and not Image: it carries alt text, follows dark mode, and weighs a few kilobytes.
    return pages_under_slider([frame_html(frame) for frame in frames], [frame.eps_text for frame in frames], name)


def frame_html(frame: Frame) -> str:
    """One ε as a piece of HTML: three pictures, a caption in words, the class bars."""
    # dark-light is the theme's word for a picture that dark mode must not dim.
    magnified = f"change × {frame.magnification:.2g}"
    pictures = [
        ("clean", frame.clean, f"Clean image of {frame.classes[frame.label]}"),
        (magnified, frame.perturbation, f"The change, magnified {frame.magnification:.2g} times; grey is no change"),
        ("attacked", frame.adversarial, f"Attacked image. {frame.caption}"),
    ]
    figures = "".join(
        f'<figure><img class="epsilon-picture dark-light" alt="{escape(alt)}" src="{png_url(png_bytes(pixels))}">'
        f"<figcaption>{escape(name)}</figcaption></figure>"
        for name, pixels, alt in pictures
    )
    bars = "".join(_bar(frame, k) for k in range(len(frame.classes)))
    return (
        f'<div class="epsilon-frame"><p class="epsilon-caption">{escape(frame.caption)}</p>'
        f'<div class="epsilon-pictures">{figures}</div><ul class="epsilon-bars">{bars}</ul></div>'
    )


def _bar(frame: Frame, k: int) -> str:
    kind = "true" if k == frame.label else "wrong" if k == frame.predicted else "other"
    return bar(frame.classes[k] + (" ✓" if k == frame.label else ""), frame.probabilities[k], kind)
