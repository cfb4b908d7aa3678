"""A browser that can reach nothing but the book, and a record of everything that goes wrong on a page."""

from __future__ import annotations

import base64
import contextlib
import functools
import http.server
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anywidget
import pytest

ROOT = Path(__file__).resolve().parents[2]
# Another built book, for instance one that was broken on purpose.
BOOK = Path(os.environ.get("ROBUSTNESS_BOOK_HTML", ROOT / "_build" / "html"))
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
]
# Noise of the theme's own scripts, harmless.
KNOWN = ("THEBE_JS_URL' has already been declared", "Got invalid theme mode")

_ALONE = """<!doctype html><html lang="en" data-theme="light"><title>alone</title><link rel="icon" href="data:,">
<meta name="viewport" content="width=device-width"><style>%(css)s body { margin: 28px }</style>
<main><h1>Alone</h1><div id="here"></div></main><script type="module">
    import widget from "./%(name)s.js";
    const state = %(state)s;
    const bytes = (text) => new DataView(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);
    const get = (name) => (state[name].bytes === undefined ? state[name] : bytes(state[name].bytes));
    window.leave = widget.render({ model: { get }, el: document.getElementById("here") });
</script></html>"""


# Look at every answer without a guess. Returns how many predictions there were.
_LOOK = """(() => {
    const skips = document.querySelectorAll('.guess-skip');
    skips.forEach((one) => one.click());
    return skips.length;
})()"""


@dataclass
class Opened:
    """A page of the book in the browser, and what went wrong on it."""

    page: Any
    strangers: list[str] = field(default_factory=list)  # requests to other hosts; all were refused
    problems: list[str] = field(default_factory=list)  # console errors, exceptions, failed requests


# What a page must hold for a test to be run on it: a test that asks for `slider_path` sees only pages with sliders.
KINDS = {"path": "", "predicting_path": "tag_answer", "slider_path": "SelectionSliderModel",
         "switch_path": "ToggleButtonsModel",
         "live_path": "widgets.live_attack.LiveAttack", "votes_path": "widgets.smoothing_votes.SmoothingVotes",
         "intervals_path": "widgets.live_intervals.LiveIntervals"}


def pages(holding: str) -> list[str]:
    """Every page of the built book that holds the text, by its path below _build/html."""
    found = (
        path.relative_to(BOOK).as_posix() for path in BOOK.rglob("*.html")
        if holding in path.read_text(encoding="utf-8")
    )
    return sorted(path for path in found if not path.startswith("_static/"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    for name, holding in KINDS.items():
        if name in metafunc.fixturenames:
            what = f"that holds {holding} " if holding else ""
            no_page = pytest.mark.skip(reason=f"no built page {what}to test in {BOOK}: run `make book`")
            missing = pytest.param("", marks=no_page)
            metafunc.parametrize(name, pages(holding) or [missing])


@pytest.fixture(scope="session")
def book() -> Path:
    if not (BOOK / "index.html").is_file():
        pytest.skip(f"there is no built book at {BOOK}: run `make book`")
    return BOOK


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    executable = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if executable is None:
        pytest.skip(f"no browser: install chromium (looked for {', '.join(CHROMIUM)})")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        yield browser
        browser.close()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        """A test's output is no place for an access log."""


@contextlib.contextmanager
def serve(folder: Path) -> Iterator[str]:
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="session")
def site(book: Path) -> Iterator[str]:
    with serve(book) as address:
        yield address


@pytest.fixture(scope="session")
def serve_folder() -> Callable[[Path], contextlib.AbstractContextManager[str]]:
    return serve


@pytest.fixture(scope="session")
def own_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A folder that is served, and its address."""
    folder = tmp_path_factory.mktemp("alone")
    with serve(folder) as address:
        yield folder, address


@pytest.fixture
def show_alone(visit: Any, own_folder: tuple[Path, str]) -> Callable[..., Opened]:
    """show_alone(widget, selector, **options of visit): a plain page that holds an anywidget and nothing else, once
    something is there that the selector finds."""
    folder, site = own_folder

    def show_alone(widget: Any, selector: str, **options: Any) -> Opened:
        own = [name for name in widget.traits(sync=True) if name not in anywidget.AnyWidget.class_traits()
               and not name.startswith("_")]
        values = {name: getattr(widget, name) for name in own}
        state = {name: {"bytes": base64.b64encode(value).decode()} if isinstance(value, bytes) else value
                 for name, value in values.items()}
        name = f"alone{len(list(folder.iterdir()))}"
        (folder / f"{name}.js").write_text(widget._esm, encoding="utf-8")
        page = _ALONE % {"css": widget._css, "name": name, "state": json.dumps(state)}
        (folder / f"{name}.html").write_text(page, encoding="utf-8")
        opened = visit(f"{site}{name}.html", wait=False, **options)
        opened.page.wait_for_selector(selector, timeout=10_000)
        return opened

    return show_alone


@pytest.fixture
def visit(chromium: Any) -> Iterator[Callable[..., Opened]]:
    """visit(address, width=, height=, dark=, touch=) opens a page, waits for its widgets, looks at every answer without
    a guess (but for guessing=True), and records."""
    contexts = []

    def visit(address: str, *, width: int = 1280, height: int = 900, dark: bool = False, touch: bool = False,
              wait: bool = True, guessing: bool = False) -> Opened:
        context = chromium.new_context(
            viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light", has_touch=touch
        )
        contexts.append(context)
        opened = Opened(context.new_page())
        _record(opened, context, address)
        opened.page.goto(address, wait_until="load")
        if wait:
            _wait_until_drawn(opened.page)
        if not guessing and opened.page.evaluate(_LOOK):
            opened.page.wait_for_timeout(800)  # the theme then looks anew for boxes that scroll
        return opened

    yield visit
    for context in contexts:
        context.close()


def _record(opened: Opened, context: Any, address: str) -> None:
    own = address[: address.index("/", len("http://"))] + "/" if address.startswith("http") else "file://"

    def decide(route: Any) -> None:
        if route.request.url.startswith((own, "data:", "blob:")):
            route.continue_()
        else:
            opened.strangers.append(route.request.url)
            route.abort()

    def note(text: str) -> None:
        if not any(known in text for known in KNOWN):
            opened.problems.append(text)

    context.route("**/*", decide)
    page = opened.page
    page.on("console", lambda message: note(f"console: {message.text}") if message.type == "error" else None)
    page.on("pageerror", lambda error: note(f"exception: {error}"))
    page.on("requestfailed", lambda request: note(f"failed: {request.url}"))
    page.on("response", lambda reply: note(f"{reply.status}: {reply.url}") if reply.status >= 400 else None)


def _wait_until_drawn(page: Any) -> None:
    """Until each widget that the page announces stands there, and each formula is set."""
    page.wait_for_function(
        """() => {
            const announced = document.querySelectorAll('script[type="application/vnd.jupyter.widget-view+json"]');
            const drawn = document.querySelectorAll('.widget-subarea');
            const live = [...drawn].every((area) => area.childElementCount > 0);
            const formulas = document.querySelectorAll('.math').length;
            const set = formulas === 0 || document.querySelector('mjx-container') !== null;
            const themed = Boolean(document.documentElement.dataset.theme); // also: no longer redirecting
            return drawn.length >= announced.length && live && set && themed;
        }""",
        timeout=60_000,
    )
    page.wait_for_timeout(500)  # the widgets' styles and names follow a moment later
