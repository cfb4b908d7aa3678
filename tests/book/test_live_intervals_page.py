"""The intervals on every page of the built book that has them: they answer, on a phone and in the dark too."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from fingers import drag_slider

pytestmark = pytest.mark.browser


def found(box: Any) -> list[dict[str, list[float]]]:
    return json.loads(box.get_attribute("data-found"))


def widest(box: Any) -> list[float]:
    return [max(b - a for a, b in zip(one["lower"], one["upper"], strict=True)) for one in found(box)]


def inside(box: Any) -> bool:
    return all(low - 1e-9 <= value <= high + 1e-9 for one in found(box)
               for low, value, high in zip(one["lower"], one["attacked"], one["upper"], strict=True))


def test_answers_to_every_control(visit: Any, site: str, intervals_path: str) -> None:
    opened = visit(site + intervals_path)
    boxes = opened.page.locator(".live-intervals").all()
    assert boxes, "the page announces intervals and shows none"
    for box in boxes:
        box.scroll_into_view_if_needed()
        slider = box.locator("input[type=range]")
        slider.focus()
        widths = [widest(box)]
        for _ in range(3):
            for _ in range(4):
                slider.press("ArrowRight")
            widths.append(widest(box))
            assert inside(box)
        for small, large in itertools.pairwise(widths):
            assert all(b > a for a, b in zip(small, large, strict=True))
        assert widths[-1][0] > 10 * widths[-1][1], "the net that was trained for bounds has the narrow ones"
        before = box.get_attribute("data-found")
        box.get_by_role("group", name="Image").get_by_role("button").nth(1).click()
        assert box.get_attribute("data-found") != before
    assert opened.strangers == []
    assert opened.problems == []


def test_a_finger_in_the_dark(visit: Any, site: str, intervals_path: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    opened = visit(site + intervals_path, width=320, height=640, touch=True, dark=True)
    page = opened.page
    for box in page.locator(".live-intervals").all():
        slider = box.locator("input[type=range]")
        slider.scroll_into_view_if_needed()
        drag_slider(page, slider, 0.6)
        page.wait_for_timeout(200)
        assert int(slider.input_value()) > 5
        assert inside(box)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    page.wait_for_timeout(600)  # the theme fades from colour to colour
    found = Axe().run(page, context=".live-intervals", options={"preload": False, "resultTypes": ["violations"]})
    assert [(one["id"], one["nodes"][0]["html"][:160]) for one in found.response["violations"]] == []
    assert opened.problems == []
