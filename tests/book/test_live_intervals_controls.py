"""The intervals' controls, words and picture on a plain page that holds nothing else: no built book is needed."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from fingers import drag_slider
from torch import Tensor, nn

from robustness_lib import ThreatModel, widgets
from robustness_lib.certify import interval_bounds, interval_margins

pytestmark = pytest.mark.browser


def two_classes(gain: float) -> nn.Sequential:
    """Logits that move together, as far as you like, and apart by the mean of the pixels: the label is 0 above 1/2."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2), nn.ReLU(), nn.Linear(2, 2))
    with torch.no_grad():
        net[1].weight.copy_(torch.full((2, 4), 0.25))
        net[1].bias.zero_()
        net[3].weight.copy_(torch.tensor([[gain + 1.0, 0.0], [gain, 0.0]]))
        net[3].bias.copy_(torch.tensor([0.0, 0.5]))
    return net


GREY = torch.full((2, 1, 2, 2), 153 / 255)
GREY[1] = 51 / 255  # its label is 1
STEEP, FLAT = two_classes(100.0), two_classes(0.0)


@pytest.fixture
def show(show_alone: Callable[..., Any]) -> Callable[..., Any]:
    def show(images: Tensor = GREY, labels: Tensor | None = None, **options: Any) -> Any:
        widget = widgets.live_intervals({"flat": FLAT, "steep": STEEP}, images,
                                        torch.tensor([0, 1]) if labels is None else labels, ["bright", "dark"], 300)
        return show_alone(widget, ".live-intervals[data-verdicts]", **options)

    return show


def at(page: Any, tenth: int) -> None:
    page.locator(".live-intervals input").evaluate(
        "(slider, value) => { slider.value = value; slider.dispatchEvent(new Event('input')); }", str(tenth))


def verdicts(page: Any) -> list[str]:
    words = page.locator(".live-intervals").get_attribute("data-verdicts").split()
    assert page.locator(".live-intervals-head em").all_inner_texts() == words
    return words


def said(page: Any) -> list[str]:
    return [text.replace("\u00a0", " ") for text in page.locator("[role=status] p").all_inner_texts()]


def test_it_begins_without_any_change(show: Any) -> None:
    opened = show()
    page = opened.page
    assert verdicts(page) == ["proved", "proved"]
    assert page.locator("label").inner_text() == "ε = 0: no change allowed"
    assert said(page)[0] == "flat: proved. “bright” stays ahead of “dark” by 0.100 at least."
    assert opened.problems == []


def test_intervals_that_cross_may_still_be_a_proof(show: Any) -> None:
    """The steep net's logits run far, but together: the bound of their difference is that of the flat net."""
    page = show().page
    at(page, 20)
    assert page.locator("label").inner_text() == "ε = 2/255"
    assert verdicts(page) == ["proved", "proved"]
    flat, steep = said(page)
    assert "cross" not in flat
    assert steep == ("steep: proved. The intervals cross, but “bright” stays ahead of “dark” by 0.0921 at least: that "
                     "is the bound of the difference.")
    at(page, 250)  # the mean moves by 25 / 255, less than a tenth: proved to the end
    assert verdicts(page) == ["proved", "proved"]
    at(page, 260)
    assert verdicts(page) == ["broken", "broken"]
    assert said(page)[0] == "flat: broken. PGD’s point is read as “dark”."


def test_what_it_shows_is_what_python_computes(show: Any) -> None:
    page = show().page
    at(page, 73)
    x, y = GREY[:1].double(), torch.tensor([0])
    threat = ThreatModel("linf", 7.3 / 255)
    found = json.loads(page.locator(".live-intervals").get_attribute("data-found"))
    for net, shown in zip((FLAT, STEEP), found, strict=True):
        model = two_classes(net[3].weight[1, 0].item()).double()
        lower, upper = interval_bounds(model, x, threat)
        assert shown["lower"] == pytest.approx(lower[0].tolist(), rel=1e-6)
        assert shown["upper"] == pytest.approx(upper[0].tolist(), rel=1e-6)
        assert shown["margins"][1] == pytest.approx(float(interval_margins(model, x, y, threat)[0, 1]), rel=1e-5)
        assert all(a - 1e-9 <= b <= c + 1e-9 for a, b, c in
                   zip(shown["lower"], shown["attacked"], shown["upper"], strict=True))


BARS = """() => [...document.querySelectorAll('.live-intervals-rows li:not(.live-intervals-head) i')].map((track) => {
    const [edge, bar, dot] = ['s', 'b', 'u'].map((tag) => track.querySelector(tag).style);
    return { left: parseFloat(bar.left), width: parseFloat(bar.width), dot: parseFloat(dot.left),
             edge: parseFloat(edge.left), cut: track.querySelector('b').className };
})"""


def test_bars_grow_hold_the_dot_and_show_where_they_are_cut(show: Any) -> None:
    page = show().page
    before = page.evaluate(BARS)
    assert all(bar["width"] < 1e-9 for bar in before)
    at(page, 10)
    small = page.evaluate(BARS)
    at(page, 200)
    large = page.evaluate(BARS)
    for number, (narrow, wide) in enumerate(zip(small, large, strict=True)):
        # The steep net's fill their tracks at once, and the flat one's second logit is a constant.
        assert wide["width"] > narrow["width"] > 0 or number > 0
        for bar in (narrow, wide):
            assert bar["left"] - 1e-6 <= bar["dot"] <= bar["left"] + bar["width"] + 1e-6
    for bars in (small, large):  # the line stands at the lower end of the label's bar, in both rows
        for k in (0, 1):
            assert bars[k]["edge"] == bars[2 + k]["edge"] == pytest.approx(bars[k]["left"], abs=1e-6)
    assert {bar["cut"].strip() for bar in small[::2]} == {""}
    assert all("live-intervals-left" in bar["cut"] and "live-intervals-right" in bar["cut"] for bar in large[1::2])


def test_another_image_and_a_wrong_one(show: Any) -> None:
    page = show(labels=torch.tensor([0, 0])).page
    at(page, 10)
    page.get_by_role("button", name="image 2: bright").click()
    assert verdicts(page) == ["wrong", "wrong"]
    assert said(page)[0] == "flat: wrong without any change."
    page.get_by_role("button", name="image 1: bright").click()
    assert verdicts(page) == ["proved", "proved"]


def test_open_where_neither_attack_nor_bound_decides(show_alone: Any) -> None:
    """The same value comes by two ways and goes out again: intervals take it for two."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2), nn.ReLU(), nn.Linear(2, 1), nn.ReLU(), nn.Linear(1, 2))
    with torch.no_grad():
        for layer in (net[1], net[3], net[5]):
            layer.bias.zero_()
        net[1].weight.fill_(0.25)
        net[3].weight.copy_(torch.tensor([[1.0, -1.0]]))  # always 0
        net[5].weight.copy_(torch.tensor([[-1.0], [0.0]]))
        net[5].bias.copy_(torch.tensor([0.1, 0.0]))
    page = show_alone(widgets.live_intervals({"a": net, "b": FLAT}, GREY[:1], [0], ["bright", "dark"], 300),
                      ".live-intervals[data-verdicts]").page
    at(page, 200)
    assert verdicts(page) == ["open", "proved"]
    assert said(page)[0] == ("a: open. PGD finds nothing, and nothing is proved: of the lead over “dark” it is "
                             "only known to be at least −0.0569.")


def test_a_lower_bound_is_rounded_down(show: Any) -> None:
    page = show().page
    at(page, 240)  # 0.1 less 24/255 is .00588...
    assert said(page)[0] == "flat: proved. “bright” stays ahead of “dark” by 0.00588 at least."


@pytest.mark.parametrize("width", [320, 390])
def test_fits_a_phone_and_a_finger(show: Any, width: int) -> None:
    opened = show(width=width, height=700, touch=True)
    page = opened.page
    at(page, 100)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for one in page.locator(".live-intervals :is(button, input)").all():
        size = one.bounding_box()
        assert min(size["width"], size["height"]) >= 44
    drag_slider(page, page.locator(".live-intervals input"), 0.9)
    page.wait_for_timeout(100)
    assert int(page.locator(".live-intervals input").input_value()) > 200
    page.get_by_role("button", name="image 2: dark").tap()
    assert page.get_by_role("button", name="image 2: dark").get_attribute("aria-pressed") == "true"
    assert opened.problems == []


def test_everyone_can_read_it(show: Any) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page = show().page
    at(page, 260)
    found = Axe().run(page, options={"preload": False, "resultTypes": ["violations"]}).response["violations"]
    assert [(one["id"], one["nodes"][0]["html"][:160]) for one in found] == []
