"""The report as a page: what it says, that strangers' names do no harm, that it needs nothing and fits a phone."""

from __future__ import annotations

import dataclasses
import re
from importlib.resources import files
from itertools import pairwise
from xml.etree import ElementTree

import numpy as np
import pytest
from made_reports import make_report
from page_reading import EVIL, LONG, Reader, check_in_a_browser, visit

from robustness_lib.reports import _charts
from robustness_lib.reports._methods import duration
from robustness_lib.reports.findings import Finding
from robustness_lib.reports.page import inline, page, save_page
from robustness_lib.reports.pictures import picture
from robustness_lib.reports.report import Failure
from robustness_lib.statistics import Accuracy
from robustness_lib.threat import ThreatModel

CURVE = {0.0: range(90), 2 / 255: range(70), 4 / 255: range(55), 8 / 255: range(20), 0.5: range(3)}


def full_report(**more):
    """Everything that a page can hold: ten classes, three attacks, curve, findings, examples, notes, failures."""
    image = np.linspace(0, 1, 48).reshape(3, 4, 4)
    fields = {
        "wrong": range(90, 100),
        "broken": {"fgsm": range(60, 90), "pgd-20": range(50, 90), "apgd-t": range(45, 50)}, "survivors": ["apgd-t"],
        "classes": 10, "names": [f"sign {i}" for i in range(10)], "curve": CURVE,
        "findings": (Finding("black box ahead", "Square broke more than PGD. Attack with it.", 1e-5, 0.115, 23, 200),),
        "notes": ("the loss was still rising",), "failures": (Failure(100, 163, "pgd-20", "RuntimeError: no memory"),),
        "pictures": (picture(3, 3, 4, "pgd-20", image, (image + 4 / 255).clip(max=1), 4 / 255, "linf"),),
    } | more
    return make_report(100, **fields)


def test_the_sentence_comes_first():
    report = full_report()
    shown = Reader(page(report))
    assert shown.text.startswith(f"| {report.sentence} | What this number does not say")
    assert Reader(inline(report)).text.startswith(f"| {report.sentence}")


@pytest.mark.parametrize("view", [page, inline])
def test_it_needs_nothing_from_outside(view):
    html = view(full_report())
    shown = Reader(html)
    assert not {"script", "link", "iframe", "object", "base", "form"} & {tag for tag, _ in shown.tags}
    for _, attributes in shown.tags:
        assert not {"href", "srcset", "background"} & attributes.keys()
        assert (attributes.get("src") or "data:image/png;base64,").startswith("data:image/png;base64,")
    assert not re.search(r"url\(|@import|https?:", html)
    if view is page:
        policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
        assert {"http-equiv": "Content-Security-Policy", "content": policy} in shown.of("meta")


@pytest.mark.parametrize("view", [page, inline])
def test_strangers_names_do_no_harm(view):
    broken = {f"fgsm {EVIL}": range(60, 90), f"apgd {EVIL}": range(45, 50)}
    report = full_report(
        names=[f"{EVIL} {i}" for i in range(10)], broken=broken, suite=EVIL, notes=(EVIL,),
        survivors=[f"apgd {EVIL}"], findings=(Finding(EVIL, EVIL, 0.001, 0.1, 1, 2),),
        failures=(Failure(1, 2, EVIL, EVIL),), fingerprints={"model": EVIL, EVIL: "x"}, environment={EVIL: EVIL},
        pictures=(dataclasses.replace(full_report().pictures[0], attack=EVIL, clean=f'" onload="{EVIL}'),),
    )
    html = view(report)
    shown = Reader(html)
    assert "script" not in {tag for tag, _ in shown.tags}
    assert not [name for _, attributes in shown.tags for name in attributes if name.startswith("on")]
    assert all((image["src"] or "").startswith("data:") for image in shown.of("img"))
    assert EVIL in shown.text  # shown as it is, and only shown
    many = full_report(classes=30, names=[f"{EVIL} {i}" for i in range(30)])
    assert "script" not in {tag for tag, _ in Reader(view(many)).tags}


def test_it_says_what_the_number_does_not():
    text = Reader(page(full_report())).text
    for words in ("upper bound", "patches and stickers, rotation and shifts, colour", "100 images were attacked",
                  "L∞ 4/255 leaves out", "Trained again"):
        assert words in text
    assert "proved" not in text
    certified = make_report(10, broken={"pgd": [0, 1]}, certified=np.array([0] * 6 + [1] * 4, dtype=np.bool_))
    text = Reader(page(certified)).text
    assert "What is proved is 40.0 % (95 %: 12.2–73.8, n = 10)" in text
    assert "| Right and proved not to change 4 of 10 | 40.0 % | 12.2–73.8" in text


def test_clean_and_attack_figures_with_intervals():
    report = full_report()
    text = Reader(page(report)).text
    assert "| Right without an attack (top-1) 90 of 100 | 90.0 % | 82.4–95.1" in text
    assert "| Label among the first five (top-5) 100 of 100 | 100.0 % | 96.4–100.0" in text
    assert "| Right and broken by no attack 45 of 100 | 45.0 % | 35.0–55.3" in text
    assert "| fgsm broke 30 of 90 | 60.0 % 49.7–69.7 | 60.0 % 49.7–69.7 | 0.5 s 1 call" in text
    assert "| pgd-20 broke 40 of 90 | 50.0 % 39.8–60.2 | 50.0 % 39.8–60.2" in text
    assert "| apgd-t broke 5 of 50 | cumulative only: met 50 survivors | 45.0 % 35.0–55.3" in text
    own = Reader(page(make_report(10, broken={"first": [0, 1], "second": [1, 2, 3]}))).text
    assert "| second broke 3 of 10 | 70.0 % 34.8–93.3 | 60.0 % 26.2–87.8" in own
    assert "top-5" not in own.split("Step by step")[0]  # two classes: nothing to say


def test_steps_are_listed():
    for view in (page, inline):
        text = Reader(view(full_report())).text
        assert "| pgd-20: 50.0 % (95 %: 39.8–60.2, n = 100) alone, 50.0 % cumulative." in text


def test_findings():
    shown = Reader(page(full_report())).text
    assert "black box ahead: Square broke more than PGD. Attack with it. 23 of 200 images, 11.5 points, p = 1e-05" \
        in shown
    assert "p < 1e-300" in page(full_report(findings=(Finding("k", "m", 0.0, 0.5, 1, 2),))).replace("&lt;", "<")
    assert "found no sign of masked gradients" in Reader(page(full_report(findings=()))).text
    assert "Nobody looked for masked gradients" in Reader(inline(full_report(findings=None))).text


def test_notes_and_failures():
    text = Reader(page(full_report())).text
    assert "| the loss was still rising" in text
    assert "No verdict for images 100 to 163, which are in no figure of this page: pgd-20 stopped with" in text
    assert "“RuntimeError: no memory”" in text
    assert "Notes and failures" not in Reader(page(full_report(notes=(), failures=()))).text


# The curve.


def heights(marks):
    """Accuracy in percent from the y of marks."""
    return [round(100 * (_charts.BOTTOM - mark.y) / (_charts.BOTTOM - _charts.TOP), 6) for mark in marks]


def test_the_curve_is_drawn_where_it_is():
    report = full_report()
    chart = _charts.curve_chart(report)
    assert heights(chart.alone) == [90, 70, 55, 20]
    assert heights(chart.carried) == [90, 70, 45, 20]  # the suite broke 45 at 4/255
    # On a square-root scale a quarter of the largest ε lies in the middle.
    middle = (_charts.LEFT + chart.axis_end) / 2
    assert [mark.x for mark in chart.alone] == pytest.approx([_charts.LEFT, middle, 216.53, chart.axis_end], abs=0.1)
    assert (chart.at, chart.at_text) == (chart.alone[2].x, "ε = 4/255")
    low, high = report.curve_carried[1].interval
    assert chart.carried[1].low == pytest.approx(_charts.BOTTOM - (_charts.BOTTOM - _charts.TOP) * low)
    assert chart.carried[1].high == pytest.approx(_charts.BOTTOM - (_charts.BOTTOM - _charts.TOP) * high)
    assert len(chart.band.split()) == 8
    assert [tick.text for tick in chart.ticks] == ["0", "2", "4", "8"]
    assert "at ε = 2/255: 70.0\N{NO-BREAK SPACE}% alone" in chart.description
    assert "<desc>Accuracy at ε = 0/255" in page(report)


def test_half_grey_stands_behind_a_break():
    far = _charts.curve_chart(full_report()).far
    assert (heights(far.alone), heights(far.carried), [tick.text for tick in far.ticks]) == ([3], [3], [".5"])
    assert _charts.curve_chart(full_report()).axis_end < far.left <= far.alone[0].x <= far.right
    assert far.limit == pytest.approx(_charts.BOTTOM - 0.1 * (_charts.BOTTOM - _charts.TOP))  # ten classes alike
    others = [full_report(threat=ThreatModel("l2", 0.25)), full_report(threat=ThreatModel("linf", 0.5)),
              full_report(curve={2 / 255: range(70), 64 / 255: range(5)})]
    for report in others:
        chart = _charts.curve_chart(report)
        assert chart.far is None
        assert chart.axis_end == _charts.RIGHT
        assert len(chart.alone) == len(report.curve.eps) + (report.curve.eps[0] > 0)  # begins with the clean accuracy
        assert (chart.alone[0].x, heights(chart.alone)[0]) == (_charts.LEFT, 90)


def test_half_grey_allows_the_largest_class():
    report = make_report(10, labels=[0] * 7 + [1] * 3, curve={4 / 255: range(9), 0.5: range(8)})
    assert _charts.curve_chart(report).far.limit == pytest.approx(_charts.BOTTOM - 0.7 * (_charts.BOTTOM - _charts.TOP))
    assert "no more than the largest class, 70.0 % of the images" in Reader(page(report)).text
    assert "the attack of this curve failed" in Reader(page(report)).text


@pytest.mark.parametrize(("standing", "says"), [
    (10, "Here 10.0 % resist, which is no more than that."),
    (11, "Here 11.0 % resist, so the attack of this curve failed"),
])
def test_what_half_grey_proves(standing, says):
    for view in (page, inline):
        text = Reader(view(full_report(curve=CURVE | {0.5: range(standing)}))).text
        assert "no more than the largest class, 10.0 % of the images, can resist" in text
        assert says in text
    for other in ({"curve": {0.1: range(3)}}, {"threat": ThreatModel("l2", 0.5)}, {"curve": None}):
        assert "same grey" not in Reader(page(full_report(**other))).text


def test_without_a_curve_or_attacks_the_page_still_stands():
    assert "Accuracy over ε" not in Reader(page(full_report(curve=None))).text
    bare = make_report(4, environment={}, fingerprints={})
    assert "100.0 %" in Reader(page(bare)).text
    assert "no attack broke any" in Reader(inline(bare)).text


@pytest.mark.parametrize(("fields", "says"), [
    ({"threat": ThreatModel("linf", 0.0), "broken": {"pgd": []}, "curve": {0.0: range(20)}},
     "at most 100 % (95 %: 83–100)"),
    ({"threat": ThreatModel("l2", 0.0), "broken": {"pgd": []}, "curve": {0.0: range(20), 0.5: []}}, "L2 0 at most"),
    ({"broken": {"pgd": range(20)}, "curve": {4 / 255: []}}, "at most 0 % (95 %: 0–17)"),
    ({"broken": {"pgd": []}, "curve": {4 / 255: range(20)}}, "no attack broke any"),
    ({"wrong": range(20), "broken": {"pgd": []}}, "No better than chance"),
    ({"threat": ThreatModel("linf", 1.0), "broken": {"pgd": [0]}, "curve": {0.5: [1], 1.0: []}}, "L∞ 255/255"),
    ({"broken": {"pgd": [0]}, "curve": {0.5: [1], 0.6: [1], 0.75: [], 1.0: []}}, "the same grey"),
    ({"labels": [0] * 20, "classes": 1, "broken": {}}, "no attack broke any"),
    ({"threat": ThreatModel("linf", 32 / 255), "curve": {2 / 255: range(9)}}, "L∞ 32/255"),  # beyond the whole curve
])
def test_at_the_edges_the_page_stands_and_its_charts_are_whole(fields, says):
    report = make_report(20, **fields)
    html = page(report)
    assert says in Reader(html).text
    for view in (html, inline(report)):
        for chart in re.findall(r"<svg.*?</svg>", view, re.S):
            drawn = ElementTree.fromstring(chart)
            numbers = [float(value) for part in drawn.iter() for name in ("x", "x1", "x2", "cx", "y", "y1", "y2", "cy")
                       if (value := part.get(name, "0").removesuffix("%"))]
            assert all(0 <= number <= 360 for number in numbers)  # no NaN, and nothing outside the picture


def test_ticks_do_not_overlap_and_the_marked_one_stays():
    grid = {i / 255: range(50) for i in range(0, 65)}
    chart = _charts.curve_chart(full_report(curve=grid, threat=ThreatModel("linf", 7 / 255)))
    assert "7" in [tick.text for tick in chart.ticks]
    ends = [(tick.text_at - 3.7 * len(tick.text), tick.text_at + 3.7 * len(tick.text)) for tick in chart.ticks]
    assert all(left[1] < right[0] for left, right in pairwise(ends))
    assert ends[-1][1] <= _charts.WIDTH


def test_the_names_of_versions_stay_inside_the_picture():
    names = [f"release-{i}" for i in range(12)]
    values = [Accuracy(50 + i, 100) for i in range(12)]
    chart = _charts.trend_chart(names, values, values[::-1], [i == 4 for i in range(12)])
    assert chart.ticks[-1].text == "release-11"[:8] + "…"  # the newest
    assert chart.ticks[-1].text_at + 3.7 * 9 <= _charts.WIDTH
    assert heights(chart.clean) == list(range(50, 62))
    assert heights(chart.robust) == list(range(61, 49, -1))
    assert chart.alerts == (chart.robust[4],)
    assert "release-4: clean 54.0\N{NO-BREAK SPACE}%, robust 57.0\N{NO-BREAK SPACE}%, alert;" in chart.description


def test_the_curve_in_numbers():
    text = Reader(page(full_report())).text
    assert "| 4/255 | 55.0 % 44.7–65.0 | 45.0 % 35.0–55.3" in text
    assert "| 0.5 | 3.0 % 0.6–8.5 | 3.0 % 0.6–8.5" in text


# Classes and confusions.


def test_classes_worst_first_with_what_they_are_mistaken_for():
    report = make_report(40, classes=4, names=["a", "b", "c", "d"], wrong=[0],
                         broken={"pgd": [i for i in range(1, 40) if i % 4 == 1 and i < 38] + [2, 6]})
    shown = Reader(page(report))
    text = shown.text.split("| Class by class")[1].split("What is mistaken")[0]
    assert re.findall(r"\| ([abcd]) ", text) == ["b", "c", "a", "d"]
    assert "| b below 20 % robust 0.0 % (0.0–30.8), clean 100.0 % (69.2–100.0), n = 10; " \
           "under attack mistaken for c (10×)" in text
    assert "1 is flagged: fewer than 20 % resist" in text
    widths = [bar["width"] for bar in shown.of("rect")]
    assert widths[:4] == ["100.0%", "0.0%", "100.0%", "80.0%"]
    assert "None is flagged" in Reader(page(make_report(4))).text


def test_inline_shows_flagged_classes_only():
    report = make_report(40, classes=4, names=["a", "b", "c", "d"], broken={"pgd": range(1, 40, 4)})
    text = Reader(inline(report)).text
    assert "1 class of which fewer than 20 % resist" in text
    assert "| b below 20 %" in text
    assert "| a " not in text


def test_a_thousand_classes():
    report = make_report(3000, classes=1000, names=[f"n{i:03}" for i in range(1000)], broken={"pgd": range(500)})
    html = page(report)
    shown = Reader(html)
    assert "The worst 20 of 1,000 classes" in shown.text
    assert len(shown.of("rect")) == 40
    bars = html.split('class="rb-classes"')[1].split("</ul>")[0]
    assert re.findall(r'class="rb-name">(\w+)<', bars) == [f"n{i:03}" for i in range(20)]  # of 500 equally bad ones
    assert html.count("<details") == 1
    for i in (0, 499, 999):
        assert f"| n{i:03} n = 3 |" in shown.text  # in the fold-out
    assert shown.text.count("| n") > 1000
    assert "rb-heat\"" not in html
    assert len(html) < 1_000_000
    assert len(inline(report)) < 60_000


def test_a_small_confusion_is_a_whole_table():
    report = full_report()
    html = page(report)
    heat = html.split("rb-table rb-heat")[1].split("</table>")[0]
    found = [[int(cell.replace("·", "0")) for cell in re.findall(r"<td[^>]*>([^<]*)</td>", row)]
             for row in heat.split("<tbody>")[1].split("<tr>")[1:]]
    assert found == report.confusion.tolist()
    shares = re.findall(r' style="--share: ([\d.]+)">(\d+)</td>', heat)
    assert len(shares) == (report.confusion > 0).sum()
    assert [float(share) for share, _ in shares] == pytest.approx([int(count) / 10 for _, count in shares])
    assert heat.count("rb-hit") == sum(count > 0 for count in report.confusion.diagonal().tolist())


def test_a_large_confusion_is_a_list_most_frequent_first():
    labels = [0] * 30 + [1] * 20 + [i % 30 for i in range(50)]
    text = Reader(page(full_report(classes=30, names=[f"c{i}" for i in range(30)], labels=labels, broken={},
                                   wrong=range(45), survivors=[]))).text
    table = text.split("The most frequent confusions")[1].split("| Examples")[0]
    rows = re.findall(r"\| (c\d+) \| (c\d+) \| (\d+) of (\d+)", table)
    assert rows == [("c0", "c1", "30", "32"), ("c1", "c2", "15", "22")]
    assert "Nothing was mistaken for anything else" in Reader(page(make_report(30, classes=15))).text


# Examples, methods, files.


def test_examples_have_names_and_descriptions():
    report = full_report()
    shown = Reader(page(report))
    assert [image["alt"] for image in shown.of("img")] == [
        "Image 3, unchanged: sign 3", "Image 3: the change that pgd-20 made, magnified",
        "Image 3, attacked: read as sign 4"]
    assert [image["src"] for image in shown.of("img")] == [
        f"data:image/png;base64,{png}" for png in (report.pictures[0].clean, report.pictures[0].change,
                                                   report.pictures[0].adversarial)]
    assert "Image 3: sign 3, read as sign 4 after pgd-20" in shown.text
    assert "The full scale is ±ε = ±4/255, the same in every example" in shown.text
    l2 = Reader(page(full_report(threat=ThreatModel("l2", 0.5)))).text
    assert "The full scale is the largest change in that image" in l2
    assert '<h2 id="examples"' not in page(full_report(pictures=()))
    assert not Reader(inline(report)).of("img")


def test_methods_hold_every_setting():
    report = full_report(environment={"torch": "2.15.0", "device": "cpu", "precision": "float32", "seed": "0"},
                         fingerprints={"model": "a1" * 32, "data": "b2" * 32}, seconds=3725.0)
    text = Reader(page(report)).text.split("Methods, ready to cite")[1]
    for words in ("n = 100 images of 10 classes were attacked under L∞ 4/255", "model fingerprint " + "a1" * 32,
                  "data fingerprint " + "b2" * 32, "torch 2.15.0; device cpu; precision float32; seed 0",
                  "took 1 h 2 min", "| fgsm: fgsm(), on all images that were right (90 images; 100 forward and 100 "
                  "backward passes).", "| apgd-t: apgd-t(), on what the attacks before it left (50 images;",
                  "started afresh at ε = 0/255, 2/255, 4/255, 8/255, 0.5", "suite “standard”"):
        assert words in text, words


@pytest.mark.parametrize(("attack", "source"), [
    ("fgsm", "Goodfellow"), ("pgd-20", "Madry"), ("apgd-ce", "Croce and Hein (2020), Reliable"),
    ("fab-t", "Croce and Hein (2020), Minimally"), ("square", "Andriushchenko"), ("CarliniWagnerL2", "Carlini"),
])
def test_only_what_was_used_is_cited(attack, source):
    text = Reader(page(make_report(4, broken={attack: [0]}))).text.split("Sources:")[1]
    assert source in text
    assert "Clopper and Pearson (1934)" in text
    assert text.count("|") == 2


@pytest.mark.parametrize(("seconds", "words"), [
    (0.04, "0.0 s"), (59.94, "59.9 s"), (59.96, "1 min 0 s"), (125.4, "2 min 5 s"), (3599.6, "1 h 0 min"),
    (7380.0, "2 h 3 min"),
])
def test_durations(seconds, words):
    assert duration(seconds).replace("\N{NO-BREAK SPACE}", " ") == words


def test_save_page(tmp_path):
    report = full_report()
    path = save_page(report, tmp_path / "run" / "report.html")
    assert path.read_text(encoding="utf-8") == page(report)
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]


def test_templates_are_in_the_package():
    templates = {entry.name for entry in (files("robustness_lib.reports") / "templates").iterdir()}
    pages, shared = {"page.html", "inline.html", "trend.html"}, {"parts.html", "charts.html", "page.css", "report.css"}
    assert templates >= pages | shared


def test_inline_leaks_no_style_and_no_name():
    report = full_report()
    html = inline(report)
    assert report._repr_html_() == html
    shown = Reader(html)
    assert not [attributes for _, attributes in shown.tags if "id" in attributes]  # two reports in one notebook
    assert not {"h1", "h2", "h3", "html", "body", "main"} & {tag for tag, _ in shown.tags}
    style = re.sub(r"/\*.*?\*/", "", html.split("<style>")[1].split("</style>")[0], flags=re.S)
    selectors = [part.strip() for head in re.findall(r"([^{}]+)\{", style) for part in head.split(",")]
    assert len(selectors) > 30
    for selector in selectors:
        assert selector.startswith("@media") or ".robustness-report" in selector, selector


# In a browser.

REPORTS = {
    "usual": full_report(),
    "evil": full_report(names=[f"{EVIL} {LONG} {i}" for i in range(10)], notes=(EVIL + LONG * 3,)),
    "many": full_report(classes=25, names=[f"{LONG} {i}" for i in range(25)], threat=ThreatModel("l2", 0.5)),
}


@pytest.mark.browser
@pytest.mark.parametrize(("name", "width", "dark"), [("usual", 1280, False), ("evil", 320, True), ("many", 320, False)])
def test_in_a_browser(browser, tmp_path, name, width, dark):
    check_in_a_browser(browser, page(REPORTS[name]), tmp_path / "page.html", width, dark)


@pytest.mark.browser
def test_counts_of_confusions_stay_whole_on_a_phone(browser, tmp_path):
    report = make_report(6000, classes=12, broken={"pgd": range(0, 4000, 2)})
    view, _ = visit(browser, page(report), tmp_path / "page.html", 320, False)
    lines = view.evaluate("""[...document.querySelectorAll('.rb-heat tbody td')].map(cell => {
        const text = document.createRange(); text.selectNodeContents(cell); return text.getClientRects().length })""")
    assert (len(lines), set(lines)) == (144, {1})
    assert view.evaluate("document.documentElement.scrollWidth") <= 320
    view.locator(".rb-scroll").hover()
    view.mouse.wheel(10_000, 0)  # a reader can reach the last column
    view.wait_for_function("""() => document.querySelector('.rb-heat tbody tr:last-child td:last-child')
        .getBoundingClientRect().right <= 320""", timeout=5000)
    view.close()


@pytest.mark.browser
@pytest.mark.parametrize("dark", [False, True])
def test_inline_in_a_narrow_notebook(browser, tmp_path, dark):
    colours = "--pst-color-text-base: #ced6dd; --pst-color-text-muted: #9ca4af; --pst-color-background: #121212" \
        if dark else "--pst-color-text-base: #222832; --pst-color-text-muted: #48566b; --pst-color-background: #fff"
    around = (f"<!DOCTYPE html><html lang='en'><title>t</title><style>:root {{ {colours} }} p {{ color: rgb(1, 2, 3) }}"
              f"</style><main><h1 style='margin: 0'>h</h1><p id='outside'>outside</p>{inline(REPORTS['evil'])}"
              f"{inline(REPORTS['usual'])}</main>")
    view, troubles = visit(browser, around, tmp_path / "inline.html", 320, dark)
    view.evaluate("for (const fold of document.querySelectorAll('details')) fold.open = true")
    assert view.evaluate("[...document.querySelectorAll('.robustness-report')]"
                         ".map(e => e.scrollWidth - e.clientWidth)") == [0, 0]
    assert view.evaluate("getComputedStyle(document.querySelector('#outside')).color") == "rgb(1, 2, 3)"
    assert troubles == []
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(view, ".robustness-report", options={"preload": False}).response["violations"]
    assert [(entry["id"], entry["nodes"][0]["html"]) for entry in found] == []
    view.close()


@pytest.mark.browser
def test_on_paper_folds_are_open_and_the_ground_is_white(browser, tmp_path):
    view, _ = visit(browser, page(REPORTS["usual"]), tmp_path / "page.html", 700, True)
    folded = view.evaluate("document.documentElement.scrollHeight")
    view.emulate_media(media="print")
    assert view.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert view.locator("details table td").first.is_visible()
    assert view.evaluate("document.documentElement.scrollHeight") > folded
    view.close()
