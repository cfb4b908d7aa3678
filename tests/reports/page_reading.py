"""Pages read by a parser and looked at in a browser, for tests of each page."""

from __future__ import annotations

from html.parser import HTMLParser

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"
LONG = "a_class_name_without_any_place_to_break_it_however_long_it_goes_on"


class Reader(HTMLParser):
    """Tags with their attributes, and the text, white space squeezed, `|` between the cells and items."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.pieces: list[str] = []
        self.silent = False
        self.feed(html)
        self.text = " ".join("".join(self.pieces).replace("\N{NO-BREAK SPACE}", " ").split())

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.silent = tag in ("style", "title", "desc")
        self.pieces.append(" | " if tag in ("td", "th", "li", "tr", "h1", "h2", "p") else " " if tag == "small" else "")

    def handle_endtag(self, tag):
        self.silent = False

    def handle_data(self, data):
        self.pieces.append("" if self.silent else data)

    def of(self, name):
        return [attributes for tag, attributes in self.tags if tag == name]


def visit(browser, html, path, width, dark):
    """The opened page; whatever it asked for, said or ran is in the list."""
    path.write_text(html, encoding="utf-8")
    view = browser.new_page(viewport={"width": width, "height": 800}, color_scheme="dark" if dark else "light")
    troubles = []
    view.on("console", lambda message: troubles.append(message.text))
    view.on("dialog", lambda dialog: (troubles.append(dialog.message), dialog.dismiss()))
    view.on("request", lambda request: None if request.url.startswith(("file:", "data:")) else
            troubles.append(request.url))
    view.goto(path.as_uri())
    return view, troubles


def check_in_a_browser(browser, html, path, width, dark):
    """Nothing to scroll sideways, nothing cut off, nothing asked for, and whatever axe looks for."""
    from axe_playwright_python.sync_playwright import Axe

    view, troubles = visit(browser, html, path, width, dark)
    assert view.evaluate("document.documentElement.scrollWidth") <= width
    ground = view.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(20, 23, 27)") == dark
    view.evaluate("for (const fold of document.querySelectorAll('details')) fold.open = true")
    assert view.evaluate("document.documentElement.scrollWidth") <= width
    # Table cells too: what is cut off inside the page shows in no scroll width.
    assert view.evaluate("[...document.querySelectorAll('main, section, .rb-classes, .rb-examples')]"
                         ".filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.className)") == []
    assert troubles == []
    found = Axe().run(view, options={"preload": False}).response["violations"]
    assert [(entry["id"], entry["nodes"][0]["html"]) for entry in found] == []
    view.close()
