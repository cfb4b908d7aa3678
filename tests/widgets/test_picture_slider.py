"""Pictures under a slider: one page each, with words, and linked without a kernel."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator

import ipywidgets
import matplotlib.pyplot as plt
import pytest
from matplotlib.figure import Figure

from robustness_lib.widgets import picture_slider


@pytest.fixture
def pictures() -> Iterator[list[Figure]]:
    figures = []
    for k in range(3):
        figure, axes = plt.subplots(figsize=(1, 1))
        axes.plot([0, k])
        figures.append(figure)
    yield figures
    plt.close("all")


def part(box: ipywidgets.VBox, kind: type) -> ipywidgets.Widget:
    return next(child for child in box.children if isinstance(child, kind))


def test_each_picture_has_its_page_with_its_words(pictures: list[Figure]) -> None:
    box = picture_slider(pictures, ["0", "1", "5"], ["first", "a < b", "last"], name="epoch")
    pages = [child.value for child in part(box, ipywidgets.Stack).children]
    assert [re.findall(r'alt="([^"]*)"', page) for page in pages] == [["first"], ["a &lt; b"], ["last"]]
    images = [base64.b64decode(re.findall(r"base64,([^\"]+)", page)[0]) for page in pages]
    assert all(image.startswith(b"\x89PNG") for image in images)
    assert len(set(images)) == 3


def test_slider_and_stack_are_linked_in_the_page(pictures: list[Figure]) -> None:
    box = picture_slider(pictures, ["0", "1", "5"], ["a", "b", "c"], name="epoch")
    slider, stack = part(box, ipywidgets.SelectionSlider), part(box, ipywidgets.Stack)
    assert slider.description == "epoch"
    assert [text for text, _ in slider.options] == ["0", "1", "5"]
    models = ipywidgets.Widget.get_manager_state()["state"].values()
    links = [model["state"] for model in models if model["model_name"] == "LinkModel"]
    expected = [f"IPY_MODEL_{slider.model_id}", "index"], [f"IPY_MODEL_{stack.model_id}", "selected_index"]
    assert any((link["source"], link["target"]) == expected for link in links)


@pytest.mark.parametrize("words", [["a", "b"], []])
def test_pictures_without_words_are_refused(pictures: list[Figure], words: list[str]) -> None:
    with pytest.raises(ValueError, match="found 3 pictures"):
        picture_slider(pictures, ["0", "1", "5"], words, name="epoch")
    with pytest.raises(ValueError, match="found 0 pictures"):
        picture_slider([], [], [], name="epoch")
