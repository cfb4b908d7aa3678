"""Every page of the built book in a real browser: it loads, alone; it fits a phone; it can be read by everyone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.browser


def sound(opened: Any) -> None:
    assert opened.strangers == [], "the page asks other hosts for files"
    assert opened.problems == []


def too_wide(page: Any) -> list[str]:
    """What sticks out of the page to the right, outside any box that scrolls. Empty if nothing scrolls sideways."""
    return page.evaluate(
        """() => {
            if (document.documentElement.scrollWidth <= window.innerWidth) return [];
            return [...document.querySelectorAll('body *')]
                .filter((box) => box.getBoundingClientRect().right > window.innerWidth + 1)
                .map((box) => box.outerHTML.slice(0, 120)).slice(-5).concat(['the page scrolls sideways']);
        }"""
    )


def serious(page: Any) -> list[str]:
    """What axe-core finds of impact serious or critical."""
    from axe_playwright_python.sync_playwright import Axe

    # Without preload: else axe fetches style sheets itself, by wrong addresses, and the record fills with 404s.
    # Of what passes it need not keep a list: on a chapter that is megabytes, and nearly half of the time.
    options = {"preload": False, "resultTypes": ["violations"]}
    found = Axe().run(page, options=options).response["violations"]
    return [
        f"{violation['impact']} {violation['id']}: {node['html'][:160]}"
        for violation in found if violation["impact"] in ("serious", "critical")
        for node in violation["nodes"]
    ]


def unread(page: Any) -> list[str]:
    """Paragraphs, list items and cells in which Markdown or a role stands as it was written: rows of a table, stars,
    brackets. Code is not looked at."""
    return page.evaluate(
        r"""() => {
            const copy = document.querySelector('article, main').cloneNode(true);
            copy.querySelectorAll('pre, code, script, style, .math, mjx-container').forEach((part) => part.remove());
            return [...copy.querySelectorAll('p, li, td, th, figcaption')].map((part) => part.textContent)
                .filter((text) => /\|\s*(-{2,}|—)\s*\||^\s*\|.*\|\s*$|\*\*|\]\(|\{[a-z:]+\}/m.test(text))
                .map((text) => text.slice(0, 120));
        }"""
    )


def theme(page: Any) -> str:
    return page.evaluate("document.documentElement.dataset.theme")


def test_loads_alone_and_can_be_read_by_everyone(visit: Any, site: str, path: str) -> None:
    opened = visit(site + path)
    assert theme(opened.page) == "light"
    assert unread(opened.page) == []
    assert serious(opened.page) == []
    opened.page.emulate_media(color_scheme="dark")
    opened.page.wait_for_function("document.documentElement.dataset.theme === 'dark'")
    opened.page.wait_for_timeout(600)  # the theme fades from colour to colour
    assert serious(opened.page) == []
    sound(opened)


def test_fits_a_phone(visit: Any, site: str, path: str) -> None:
    opened = visit(site + path, width=320, height=640, touch=True, dark=True)
    assert theme(opened.page) == "dark"
    assert too_wide(opened.page) == []
    assert serious(opened.page) == []
    for width in (360, 390):
        opened.page.set_viewport_size({"width": width, "height": 800})
        opened.page.wait_for_timeout(300)
        assert too_wide(opened.page) == []
    sound(opened)


def test_opens_from_the_file_system(visit: Any, book: Path) -> None:
    """No server at all: the page with the most widgets, by file://."""
    page = max(book.glob("book/*.html"), key=lambda file: file.read_text(encoding="utf-8").count("widget-view+json"))
    sound(visit(page.as_uri()))


@pytest.mark.parametrize(
    ("break_it", "found"),
    [
        ('<script src="https://example.org/x.js"></script>', "strangers"),
        ('<img src="missing.png" alt="missing">', "problems"),
        ("<script>undefined_name()</script>", "problems"),
        ('<div style="width:2000px">wide</div>', "too_wide"),
        ('<img src="data:image/gif;base64,R0lGODlhAQABAAAAACw=">', "serious"),
    ],
)
def test_a_broken_page_is_noticed(
    visit: Any, serve_folder: Any, tmp_path: Path, break_it: str, found: str
) -> None:
    (tmp_path / "page.html").write_text(
        f"<!doctype html><html lang=en><title>t</title><link rel=icon href='data:,'><main><h1>t</h1>{break_it}</main>"
    )
    with serve_folder(tmp_path) as address:
        opened = visit(address + "page.html", wait=False)
        opened.page.wait_for_timeout(300)
        noticed = {"strangers": opened.strangers, "problems": opened.problems,
                   "too_wide": too_wide(opened.page), "serious": serious(opened.page)}
    assert noticed[found]
