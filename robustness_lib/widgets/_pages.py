"""Pages of HTML under a slider that the page itself moves: no kernel needed."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

import ipywidgets

__all__ = ["bar", "pages_under_slider", "pages_under_switch", "png_url"]

_STYLE = Path(__file__).with_name("epsilon_slider.css")


def pages_under_slider(pages: Sequence[str], positions: Sequence[str], name: str) -> ipywidgets.VBox:
    """pages: HTML. positions: what the handle says at each. name: what the slider runs over."""
    slider = _slider(positions, name)
    return _box(slider, _pages(pages, slider))


def pages_under_switch(pages: Mapping[str, Sequence[str]], positions: Sequence[str], name: str) -> ipywidgets.VBox:
    """The same, with a button for each key of `pages`: one sequence of pages is seen at a time, the first at first."""
    slider = _slider(positions, name)
    switch = ipywidgets.ToggleButtons(options=list(pages), index=0, style={"button_width": "auto"})
    stack = ipywidgets.Stack([_pages(part, slider) for part in pages.values()], selected_index=0)
    ipywidgets.jslink((switch, "index"), (stack, "selected_index"))
    return _box(slider, switch, stack)


def _slider(positions: Sequence[str], name: str) -> ipywidgets.SelectionSlider:
    return ipywidgets.SelectionSlider(
        options=[(position, i) for i, position in enumerate(positions)], index=0, description=name,
        layout={"width": "100%"}, style={"description_width": f"{0.5 + len(name):g}em"},
    )


def _pages(pages: Sequence[str], slider: ipywidgets.SelectionSlider) -> ipywidgets.Stack:
    stack = ipywidgets.Stack([ipywidgets.HTML(page) for page in pages], selected_index=0)
    ipywidgets.jslink((slider, "index"), (stack, "selected_index"))
    return stack


def _box(*parts: ipywidgets.Widget) -> ipywidgets.VBox:
    style = ipywidgets.HTML(f"<style>{_STYLE.read_text(encoding='utf-8')}</style>", layout={"display": "none"})
    box = ipywidgets.VBox([style, *parts], layout={"width": "100%"})
    box.add_class("epsilon-slider")
    return box


def bar(label: str, share: float, kind: str, style: str = "") -> str:
    """One line of a list of class epsilon-bars: what it is, a bar, percent. kind: its colour, in epsilon_slider.css."""
    return (f'<li class="epsilon-{kind}"><span>{escape(label)}</span>'
            f'<i><b style="width:{100 * share:.1f}%{style}"></b></i><span>{100 * share:.0f} %</span></li>')


def png_url(data: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(data).decode()
