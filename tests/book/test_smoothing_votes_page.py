"""The vote on the plane on every page of the built book that has one: it draws, casts, attacks, on a phone and in the
dark too. What it says is tested on a page of its own (test_smoothing_votes_controls.py)."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.browser

PICTURE = "(box) => box.querySelector('canvas').toDataURL()"


def still(page: Any) -> None:
    page.wait_for_function("[...document.querySelectorAll('.smoothing-votes')]"
                           ".every((box) => box.dataset.phase === 'still')", timeout=20_000)


def test_votes_fall_and_the_attack_runs(visit: Any, site: str, votes_path: str) -> None:
    opened = visit(site + votes_path)
    page = opened.page
    boxes = page.locator(".smoothing-votes").all()
    assert boxes, "the page announces a vote and shows none"
    for box in boxes:
        box.scroll_into_view_if_needed()
        status = box.locator("[role=status]")
        empty = box.evaluate(PICTURE)
        box.get_by_role("button", name="Cast votes").click()
        still(page)
        assert "votes are in" in status.inner_text()
        voted = box.evaluate(PICTURE)
        assert voted != empty
        box.get_by_role("button", name="Run PGD").click()
        still(page)
        assert "outside the circle" in status.inner_text()
        assert box.evaluate(PICTURE) != voted
    assert opened.strangers == []
    assert opened.problems == []


def test_a_finger_in_the_dark(visit: Any, site: str, votes_path: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    opened = visit(site + votes_path, width=320, height=640, touch=True, dark=True)
    page = opened.page
    for box in page.locator(".smoothing-votes").all():
        canvas = box.locator("canvas")
        canvas.scroll_into_view_if_needed()
        canvas.tap(position={"x": 80, "y": 60})
        box.get_by_role("button", name="Skip").tap()
        assert "votes are in" in box.locator("[role=status]").inner_text()
        for one in box.locator("button").all():
            size = one.bounding_box()
            assert min(size["width"], size["height"]) >= 44
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    page.wait_for_timeout(600)  # the theme fades from colour to colour
    found = Axe().run(page, context=".smoothing-votes", options={"preload": False, "resultTypes": ["violations"]})
    assert [(one["id"], one["nodes"][0]["html"][:160]) for one in found.response["violations"]] == []
    assert opened.problems == []
