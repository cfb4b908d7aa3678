"""Each slider of each page moves by mouse, by keys and by finger, and changes what is seen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.browser

SEEN = """(handle) => {
    const area = handle.closest('.widget-subarea, .jp-OutputArea');
    const seen = [...area.querySelectorAll('img')].filter((image) => image.offsetParent !== null);
    return seen.map((image) => image.src).join();
}"""


def drag(page: Any, handle: Any, share: float) -> None:
    """By mouse, from the handle to a share of the track."""
    (x, y), (to, _) = center(handle), along(handle, share)
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move((x + to) / 2, y, steps=5)
    page.mouse.move(to, y, steps=5)
    page.mouse.up()


def swipe(page: Any, handle: Any, share: float) -> None:
    """By a finger, from the handle to a share of the track."""
    (x, y), (to, _) = center(handle), along(handle, share)
    finger = page.context.new_cdp_session(page)
    finger.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [{"x": x, "y": y}]})
    for k in range(1, 11):
        at = [{"x": x + (to - x) * k / 10, "y": y}]
        finger.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": at})
    finger.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


def press(page: Any, handle: Any, share: float) -> None:
    """By arrow keys; to the right if the handle stands left of the share, else to the left."""
    handle.focus()
    key = "ArrowRight" if center(handle)[0] < along(handle, share)[0] else "ArrowLeft"
    for _ in range(3):
        page.keyboard.press(key)


def center(box: Any) -> tuple[float, float]:
    box = box.bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def along(handle: Any, share: float) -> tuple[float, float]:
    track = handle.locator("xpath=ancestor::*[contains(@class,'noUi-target')]").bounding_box()
    return track["x"] + share * track["width"], track["y"]


@pytest.mark.parametrize(
    ("move", "width", "touch"), [(drag, 1280, False), (press, 1280, False), (swipe, 390, True)],
    ids=["mouse", "keys", "finger"],
)
def test_every_slider_moves_and_changes_the_picture(
    visit: Any, site: str, slider_path: str, move: Callable[..., None], width: int, touch: bool
) -> None:
    opened = visit(site + slider_path, width=width, touch=touch)
    page = opened.page
    handles = page.locator(".noUi-handle").all()
    assert handles, "the page announces a slider and shows none"
    for handle in handles:
        handle.scroll_into_view_if_needed()
        # Somewhere in the middle, not at an end that the handle may already stand at.
        before, value = handle.evaluate(SEEN), handle.get_attribute("aria-valuenow")
        move(page, handle, 0.6)
        page.wait_for_timeout(200)
        assert handle.get_attribute("aria-valuenow") != value, "the handle did not move"
        there = handle.evaluate(SEEN)
        assert there != before, "the handle moved, the picture did not change"
        move(page, handle, 0.0)
        page.wait_for_timeout(200)
        assert handle.evaluate(SEEN) != there, "the picture did not change on the way back"
    assert opened.problems == []


def test_handles_have_names_and_can_be_hit_by_a_finger(visit: Any, site: str, slider_path: str) -> None:
    page = visit(site + slider_path, width=390, touch=True).page
    for handle in page.locator(".noUi-handle, .live-attack input[type=range]").all():
        handle.scroll_into_view_if_needed()
        box = handle.bounding_box()
        assert box["height"] >= 44
        assert box["width"] >= 44
    for handle in page.locator(".noUi-handle").all():
        assert handle.get_attribute("aria-label")
        assert handle.get_attribute("aria-valuetext")
