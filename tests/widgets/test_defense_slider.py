"""A slider with a switch: pages for the attacker who knows and for the one who does not, linked without a kernel."""

from __future__ import annotations

import re

import ipywidgets
import pytest
import torch

from robustness_lib.statistics import Accuracy
from robustness_lib.widgets import Defended, defense_slider


def points() -> list[Defended]:
    return [Defended(str(quality), torch.full((3, 4, 4), quality / 100), Accuracy(99, 100), Accuracy(90 - k, 100),
                     Accuracy(20 + k, 100)) for k, quality in enumerate((90, 50, 10))]


def part(box: ipywidgets.VBox, kind: type) -> ipywidgets.Widget:
    return next(child for child in box.children if isinstance(child, kind))


def test_each_side_of_the_switch_shows_its_own_accuracy() -> None:
    box = defense_slider(points(), defense="JPEG <b>", name="quality")
    unaware, adaptive = part(box, ipywidgets.Stack).children
    for stack, values, words in ((unaware, (90, 89, 88), "does not know that there is a defense"),
                                 (adaptive, (20, 21, 22), "knows the defense")):
        assert len(stack.children) == 3
        for page, value, quality in zip((child.value for child in stack.children), values, (90, 50, 10), strict=True):
            caption = re.findall(r'epsilon-caption">([^<]*)<', page)[0]
            assert caption.startswith(f"JPEG &lt;b&gt;, quality {quality}. The attacker {words}: {value} % (")
            assert "of 100 images" in caption
            assert re.findall(r"width:([0-9.]+)%", page) == ["99.0", f"{value}.0"]
            assert f'as the model sees it, quality {quality}"' in page
    pictures = [re.findall(r"base64,([^\"]+)", child.value)[0] for child in unaware.children]
    assert len(set(pictures)) == 3


def test_a_bar_that_is_told_falls_from_where_it_stood() -> None:
    unaware, adaptive = part(defense_slider(points(), defense="JPEG", name="quality"), ipywidgets.Stack).children
    assert [re.findall(r"--from:([0-9.]+)%", child.value) for child in adaptive.children] == [
        ["90.0"], ["89.0"], ["88.0"]]
    assert all("defense-fall" in child.value for child in adaptive.children)
    assert not any("defense-fall" in child.value for child in unaware.children)


def test_switch_and_slider_are_linked_in_the_page() -> None:
    box = defense_slider(points(), defense="JPEG", name="quality")
    slider, switch = part(box, ipywidgets.SelectionSlider), part(box, ipywidgets.ToggleButtons)
    stack = part(box, ipywidgets.Stack)
    assert [text for text, _ in slider.options] == ["90", "50", "10"]
    assert list(switch.options) == ["The attacker does not know", "Tell the attacker"]
    models = ipywidgets.Widget.get_manager_state()["state"].values()
    links = [(model["state"]["source"], model["state"]["target"]) for model in models
             if model["model_name"] == "LinkModel"]
    for source, target in ((switch, stack), (slider, stack.children[0]), (slider, stack.children[1])):
        assert ([f"IPY_MODEL_{source.model_id}", "index"], [f"IPY_MODEL_{target.model_id}", "selected_index"]) in [
            (list(a), list(b)) for a, b in links]


def test_wrong_input_is_refused() -> None:
    with pytest.raises(ValueError, match="no points"):
        defense_slider([], defense="JPEG", name="quality")
    one = Defended("75", torch.zeros(1, 3, 4, 4), *[Accuracy(1, 2)] * 3)
    with pytest.raises(ValueError, match=r"found \(1, 3, 4, 4\) at quality 75"):
        defense_slider([one], defense="JPEG", name="quality")
