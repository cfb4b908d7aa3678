"""Pages of HTML under a slider that the page itself moves: no kernel needed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import ipywidgets

__all__ = ["pages_under_slider"]

_STYLE = Path(__file__).with_name("epsilon_slider.css")


def pages_under_slider(pages: Sequence[str], positions: Sequence[str], name: str) -> ipywidgets.VBox:
    """pages: HTML. positions: what the handle says at each. name: what the slider runs over."""
    stack = ipywidgets.Stack([ipywidgets.HTML(page) for page in pages], selected_index=0)
    slider = ipywidgets.SelectionSlider(
        options=[(position, i) for i, position in enumerate(positions)], index=0, description=name,
        layout={"width": "100%"}, style={"description_width": f"{0.5 + len(name):g}em"},
    )
    ipywidgets.jslink((slider, "index"), (stack, "selected_index"))
    style = ipywidgets.HTML(f"<style>{_STYLE.read_text(encoding='utf-8')}</style>", layout={"display": "none"})
    box = ipywidgets.VBox([style, slider, stack], layout={"width": "100%"})
    box.add_class("epsilon-slider")
    return box
