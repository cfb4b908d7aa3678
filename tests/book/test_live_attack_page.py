"""The live attack answers to each of its controls, by mouse, keys and finger, on every page that has one."""

from __future__ import annotations

from typing import Any

import pytest
from fingers import drag_slider

pytestmark = pytest.mark.browser

# What is seen: the attacked image, the change, the bars, and the sentence.
SEEN = """(box) => {
    const [clean, change, attacked] = [...box.querySelectorAll('figure canvas')].map((c) => c.toDataURL());
    const bars = [...box.querySelectorAll('li b')].map((bar) => bar.style.width).join();
    return { clean, change, attacked, bars, sentence: box.querySelector('[role=status]').textContent };
}"""


def at_level(slider: Any, level: int) -> None:
    slider.focus()
    slider.press("Home")
    for _ in range(level):
        slider.press("ArrowRight")


def test_answers_to_every_control(visit: Any, site: str, live_path: str) -> None:
    opened = visit(site + live_path)
    boxes = opened.page.locator(".live-attack").all()
    assert boxes, "the page announces a live attack and shows none"
    for box in boxes:
        box.scroll_into_view_if_needed()
        slider = box.locator("input[type=range]")
        first = box.evaluate(SEEN)  # it may begin with an attack that has succeeded
        begun = slider.input_value() != "0"
        assert (first["clean"] != first["attacked"]) == begun == ("; it is" in first["sentence"])
        at_level(slider, 0)
        clean = box.evaluate(SEEN)
        assert clean["clean"] == clean["attacked"]
        at_level(slider, 8)
        fgsm = box.evaluate(SEEN)
        assert fgsm["clean"] == clean["clean"]
        assert all(fgsm[part] != clean[part] for part in ("change", "attacked", "bars"))
        box.get_by_role("button", name="20 steps, PGD").click()
        pgd = box.evaluate(SEEN)
        assert pgd["attacked"] != fgsm["attacked"]
        box.get_by_role("group", name="Model").get_by_role("button").nth(1).click()
        other = box.evaluate(SEEN)
        assert other["attacked"] != pgd["attacked"]
        assert other["bars"] != pgd["bars"]
        assert other["sentence"] != pgd["sentence"]
        box.get_by_role("group", name="Image").get_by_role("button").nth(1).click()
        assert box.evaluate(SEEN)["clean"] != clean["clean"]
        at_level(slider, 0)
        back = box.evaluate(SEEN)
        assert back["clean"] == back["attacked"]
    assert opened.problems == []


@pytest.mark.parametrize("touch", [False, True], ids=["mouse", "finger"])
def test_epsilon_can_be_dragged(visit: Any, site: str, live_path: str, touch: bool) -> None:
    opened = visit(site + live_path, width=390 if touch else 1280, touch=touch)
    page = opened.page
    for box in page.locator(".live-attack").all():
        slider = box.locator("input[type=range]")
        slider.scroll_into_view_if_needed()
        before = box.evaluate(SEEN)
        if touch:
            drag_slider(page, slider, 0.6)
        else:
            track = slider.bounding_box()
            y = track["y"] + track["height"] / 2
            page.mouse.move(track["x"] + 22, y)
            page.mouse.down()
            page.mouse.move(track["x"] + 0.6 * track["width"], y, steps=10)
            page.mouse.up()
        page.wait_for_timeout(100)
        assert 6 <= int(slider.input_value()) <= 13
        after = box.evaluate(SEEN)
        assert all(after[part] != before[part] for part in ("change", "attacked", "bars"))
    assert opened.problems == []
