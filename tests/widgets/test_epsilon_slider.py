"""The slider's parts, its weight, and its words; that it moves is tested in a browser (tests/book)."""

from __future__ import annotations

import re
from pathlib import Path

import ipywidgets
import pytest
from torch import Tensor, nn

from robustness_lib.attacks import PGD
from robustness_lib.threat import ThreatModel
from robustness_lib.widgets import Frame, epsilon_frames, epsilon_slider
from robustness_lib.widgets.epsilon_slider import frame_html

ATTACK = PGD(ThreatModel("linf", 8 / 255), steps=3)
EPSILONS = [k / 255 for k in range(0, 17, 2)]


@pytest.fixture
def frames(model: nn.Sequential, image: Tensor) -> list[Frame]:
    return epsilon_frames(model, image, 2, ATTACK, EPSILONS, ["a", "b", "<c>", "d", "e"])


def part(box: ipywidgets.VBox, kind: type) -> ipywidgets.Widget:
    return next(child for child in box.children if isinstance(child, kind))


def test_slider_and_stack_are_linked_in_the_page(frames: list[Frame]) -> None:
    box = epsilon_slider(frames)
    slider, stack = part(box, ipywidgets.SelectionSlider), part(box, ipywidgets.Stack)
    assert stack.selected_index == slider.index == 0
    assert [text for text, _ in slider.options] == ["0", *(f"{k}/255" for k in range(2, 17, 2))]
    assert [child.value for child in stack.children] == [frame_html(frame) for frame in frames]
    # jslink makes a widget of its own, which runs in the page; a Python callback would be frozen there.
    models = ipywidgets.Widget.get_manager_state()["state"].values()
    links = [model["state"] for model in models if model["model_name"] == "LinkModel"]
    expected = [f"IPY_MODEL_{slider.model_id}", "index"], [f"IPY_MODEL_{stack.model_id}", "selected_index"]
    assert any((link["source"], link["target"]) == expected for link in links)


def test_the_slider_can_run_over_something_else(frames: list[Frame]) -> None:
    assert part(epsilon_slider(frames), ipywidgets.SelectionSlider).description == "ε"
    assert part(epsilon_slider(frames, name="queries"), ipywidgets.SelectionSlider).description == "queries"


def test_the_call_with_a_model_shows_the_same(model: nn.Sequential, image: Tensor, frames: list[Frame]) -> None:
    stack = part(epsilon_slider(model, image, 2, ATTACK, EPSILONS, frames[0].classes), ipywidgets.Stack)
    assert [child.value for child in stack.children] == [frame_html(frame) for frame in frames]


def test_a_frame_is_small_and_says_what_it_shows(frames: list[Frame]) -> None:
    for frame in frames:
        html = frame_html(frame)
        assert len(html) < 40_000
        alts = re.findall(r'alt="([^"]+)"', html)
        assert len(alts) == html.count("<img") == 3
        assert frame.budget in alts[2]
        assert "<c>" not in html  # a class name is text
        assert html.count('class="epsilon-true"') == 1
        assert len(re.findall(r"width:[\d.]+%", html)) == 5


def test_needs_everything_or_frames(model: nn.Sequential, image: Tensor) -> None:
    with pytest.raises(TypeError, match="needs"):
        epsilon_slider(model, image, 2)
    with pytest.raises(ValueError, match="no frames"):
        epsilon_slider([])


def test_colours_come_from_the_page() -> None:
    """Text in a colour of our own would be unreadable in either light or dark."""
    for name in ("epsilon_slider.css", "controls.css", "live_attack.css"):
        style = (Path(__file__).parents[2] / "robustness_lib" / "widgets" / name).read_text(encoding="utf-8")
        assert not re.search(r"(?<!-)color:\s*(#|rgb|black|white)", style)
