"""A slider over pictures that were drawn beforehand: a boundary epoch by epoch, say."""

from __future__ import annotations

import io
from collections.abc import Sequence
from html import escape

import ipywidgets
from matplotlib.figure import Figure

from robustness_lib.widgets._pages import pages_under_slider, png_url

__all__ = ["picture_slider"]


def picture_slider(pictures: Sequence[Figure], positions: Sequence[str], captions: Sequence[str], *,
                   name: str) -> ipywidgets.VBox:
    """One figure at a time, below its caption in words, under a slider that moves in JupyterLab and in the built page.

    positions: what the handle says at each picture. captions: what there is to see; they are the alt text too.
    name: what the slider runs over. Close the figures afterwards, or a notebook shows them once more.

    Raises ValueError where there are no pictures, or not as many positions and captions as pictures.
    """
    if not len(pictures) == len(positions) == len(captions) > 0:
        raise ValueError(f"picture_slider needs a position and a caption for each picture; found {len(pictures)} "
                         f"pictures, {len(positions)} positions and {len(captions)} captions")
    pages = [_page(picture, caption) for picture, caption in zip(pictures, captions, strict=True)]
    return pages_under_slider(pages, positions, name)


def _page(picture: Figure, caption: str) -> str:
    buffer = io.BytesIO()
    picture.savefig(buffer, format="png", dpi=110, facecolor="white")
    text = escape(caption)
    return (f'<div class="epsilon-frame"><p class="epsilon-caption">{text}</p>'
            f'<img style="width: 100%; max-width: 30rem; height: auto" alt="{text}" '
            f'src="{png_url(buffer.getvalue())}"></div>')
