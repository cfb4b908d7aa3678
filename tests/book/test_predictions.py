"""An answer stays away until the reader has guessed, or has asked to look without a guess."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.browser

ANSWERS = ".cell.tag_answer, .answer"
SEEN = f"[...document.querySelectorAll('{ANSWERS}')].map((one) => one.getClientRects().length > 0)"


def test_a_guess_unlocks_what_it_was_about_and_nothing_else(visit: Any, site: str, predicting_path: str) -> None:
    opened = visit(site + predicting_path, guessing=True, width=390)
    page = opened.page
    assert not any(page.evaluate(SEEN))
    forms = page.locator(".guess")
    asked = forms.count()
    assert asked >= 1
    first = forms.first
    first.get_by_role("button", name="Look", exact=True).click()  # with nothing written
    assert forms.count() == asked
    first.get_by_label("Your guess").fill("four <levels>")
    first.get_by_label("Your guess").press("Enter")
    assert "“four <levels>”" in page.locator(".guess-made").first.text_content()
    seen = page.evaluate(SEEN)
    assert any(seen)
    assert all(seen) == (asked == 1)
    while forms.count():
        forms.first.get_by_role("button", name="Look without a guess").click()
    assert all(page.evaluate(SEEN))
    assert opened.problems == []


def test_on_paper_everything_is_shown(visit: Any, site: str, predicting_path: str) -> None:
    page = visit(site + predicting_path, guessing=True).page
    page.emulate_media(media="print")
    assert all(page.evaluate(SEEN))
    assert not page.locator(".guess").first.is_visible()


def test_without_javascript_everything_is_shown(chromium: Any, site: str, predicting_path: str) -> None:
    context = chromium.new_context(java_script_enabled=False)
    try:
        page = context.new_page()
        page.goto(site + predicting_path)
        answers = page.locator(ANSWERS)
        assert answers.count() >= 1
        assert all(answers.nth(k).is_visible() for k in range(answers.count()))
    finally:
        context.close()
