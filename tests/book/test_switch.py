"""The switch that tells the attacker about a defense: it is pressed, and the bar drops."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.browser

TOLD, UNTOLD = "Tell the attacker", "The attacker does not know"


def attacked(box: Any) -> float:
    """Percent of its track that the visible bar "attacked" fills, as drawn."""
    return box.evaluate("""(box) => {
        const lines = [...box.querySelectorAll('.epsilon-bars li')].filter((line) => line.offsetParent !== null);
        const line = lines.find((line) => line.firstChild.textContent === 'attacked');
        const bar = line.querySelector('b');
        return 100 * bar.getBoundingClientRect().width / bar.parentElement.getBoundingClientRect().width;
    }""")


def boxes(page: Any) -> list[Any]:
    found = page.locator(".epsilon-slider").filter(has=page.get_by_role("button", name=TOLD)).all()
    assert found, "the page announces a switch and shows none"
    return found


@pytest.mark.parametrize(("width", "touch"), [(1280, False), (390, True)], ids=["mouse", "finger"])
def test_the_bar_drops_when_the_attacker_is_told(visit: Any, site: str, switch_path: str, width: int, touch: bool
                                                 ) -> None:
    opened = visit(site + switch_path, width=width, touch=touch)
    page = opened.page
    for box in boxes(page):
        box.scroll_into_view_if_needed()
        handle = box.locator(".noUi-handle")
        steps = int(float(handle.get_attribute("aria-valuemax"))) + 1
        for position in range(steps):
            before = attacked(box)
            press(box, TOLD, touch)
            page.wait_for_timeout(1200)  # it falls, which takes a while
            fallen = attacked(box)
            assert fallen < before - 20, f"position {position}: from {before:.0f} to {fallen:.0f} %"
            press(box, UNTOLD, touch)
            page.wait_for_timeout(100)
            assert attacked(box) == pytest.approx(before, abs=1)
            handle.focus()
            page.keyboard.press("ArrowRight")
            page.wait_for_timeout(100)
    assert opened.problems == []


def press(box: Any, name: str, touch: bool) -> None:
    button = box.get_by_role("button", name=name, exact=True)
    button.tap() if touch else button.click()


def test_it_can_be_seen_to_fall(visit: Any, site: str, switch_path: str) -> None:
    page = visit(site + switch_path).page
    box = boxes(page)[0]
    box.scroll_into_view_if_needed()
    before = attacked(box)
    press(box, TOLD, False)
    first = attacked(box)
    page.wait_for_timeout(1200)
    assert attacked(box) < first <= before + 1


def test_buttons_can_be_hit_by_a_finger(visit: Any, site: str, switch_path: str) -> None:
    page = visit(site + switch_path, width=390, touch=True).page
    for box in boxes(page):
        for name in (TOLD, UNTOLD):
            size = box.get_by_role("button", name=name, exact=True).bounding_box()
            assert size["height"] >= 44
            assert size["width"] >= 44
