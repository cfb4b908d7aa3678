"""The student's page: nbgrader's, with what a person gave, what was put right, and nothing in it that can run."""

from __future__ import annotations

import html
import re

from tables import Result, short, total

# A page shows what a student wrote, in the browser of whoever reads it.
NOTHING_RUNS = "script-src 'none'; object-src 'none'; frame-src 'none'; base-uri 'none'; form-action 'none'"
POLICY = f'<meta http-equiv="Content-Security-Policy" content="{NOTHING_RUNS}">'
EMPTY = """<!DOCTYPE html>
<html><head><meta charset="utf-8"><title>{title}</title></head>
<body><h4>{title} (Score: 0)</h4></body></html>
"""


def page_for(result: Result, page: str | None) -> str:
    """The page for the student.

    page: nbgrader's; None where a notebook could not be run.
    """
    page = EMPTY.format(title=html.escape(result["exercise"])) if page is None else with_points_by_hand(page, result)
    page = re.sub(r"(<head[^>]*>)", lambda head: head[1] + POLICY, page, count=1)
    page = re.sub(r'(<a href="#([^"]*)">)Test cell</a>', r"\g<1>\g<2></a>", page)
    remarks = "".join(f"<li>{html.escape(remark)}</li>" for remark in result["remarks"])
    return re.sub(r"(<h4>.*?</h4>)", rf"\g<1>{_literal(f'<ul>{remarks}</ul>')}" if remarks else r"\g<1>", page, count=1)


def _literal(text: str) -> str:
    """A text as it stands, in the replacement of a pattern."""
    return text.replace("\\", r"\\")


def with_points_by_hand(page: str, result: Result) -> str:
    """nbgrader's page, with the points that a person gave, or a word that they are still to come.

    nbgrader counts an answer that nobody has read as 0.
    """
    said = f"Score: {short(total(result, 'points'))} / {short(total(result, 'of'))}"
    if still := total(result, "open"):
        said += f"; {short(still)} more are for a person to give"
    page = re.sub(r"(<h4>[^<]*\()Score: [^)]*", rf"\g<1>{said}", page, count=1)
    for name in result["answers"]:
        cell, words = result["cells"][name], result["words"].get(name, "")
        said = f"Score: {short(cell['points'])} / {short(cell['of'])}"
        if cell["open"]:
            said = f"{short(cell['of'])} points, for a person to give"
        page = re.sub(rf'(<a href="#{re.escape(html.escape(name))}">[^<]*</a> \()Score: [^)]*', rf"\g<1>{said}", page)
        before, here, after = page.partition(f'<a name="{html.escape(name)}">')
        after = re.sub(r"Score: [\d.]+ / [\d.]+", said, after, count=1)
        if words:
            body = '<div class="panel-body">'
            after = after.replace(body, f"{body}\n<p><em>{html.escape(words)}</em></p>", 1)
        page = before + here + after
    return page
