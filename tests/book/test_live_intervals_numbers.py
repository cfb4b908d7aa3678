"""intervals.js in a real browser against robustness_lib.certify on the same weights: boxes, margins, verdicts."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from page_networks import build, networks
from torch import Tensor, nn

from robustness_lib import ThreatModel, widgets
from robustness_lib.certify import interval_bounds, interval_margins

pytestmark = pytest.mark.browser

EPSILONS = (0.0, 0.4 / 255, 2 / 255, 0.2)
RUN = """async ({ networks, weights, images, labels, epsilons }) => {
    const live = await import('/module.js');
    const bytes = Uint8Array.from(atob(weights), (c) => c.charCodeAt(0));
    const network = live.readNetwork(networks[0], new DataView(bytes.buffer));
    const steps = live.forIntervals(network);
    return epsilons.map((eps) => images.map((numbers, i) => {
        const image = Float64Array.from(numbers);
        const { logits, margins } = live.intervalBounds(steps, image, labels[i], eps);
        const attacked = live.logits(network, live.pgd(network, image, labels[i], eps, 20));
        const clean = live.logits(network, image);
        const start = performance.now();
        live.intervalBounds(steps, image, labels[i], eps);
        return {
            lower: [...live.lowerEnds(logits)], upper: [...live.upperEnds(logits)], margins: [...margins],
            attacked: [...attacked], milliseconds: performance.now() - start,
            verdict: live.verdict({ clean, attacked, margins, label: labels[i] }),
        };
    }));
}"""


def bent_last() -> nn.Sequential:
    """Its last layer is no linear one, and there is no difference to take the bound of."""
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 4), nn.ReLU())


def case(name: str) -> tuple[nn.Sequential, tuple[int, int, int]]:
    if name == "bent-last":
        torch.manual_seed(0)
        return bent_last(), (3, 2, 2)
    return build(name)


@pytest.fixture(scope="module")
def results(chromium: Any, serve_folder: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """results(name): the model in float64, images, labels, and what the browser computed, by ε and image."""
    known: dict[str, Any] = {}
    folder = tmp_path_factory.mktemp("intervals")
    (folder / "module.js").write_text(widgets.LiveIntervals._esm, encoding="utf-8")
    with serve_folder(folder) as address:
        page = chromium.new_page()
        page.goto(address)

        def compute(name: str) -> tuple[nn.Module, Tensor, Tensor, list[list[dict[str, Any]]]]:
            if name not in known:
                model, shape = case(name)
                x = (torch.rand(4, *shape) * 255).round() / 255
                x[0, 0, 0, :2] = torch.tensor([0.0, 1.0])  # at the edges of the pixel box
                y = model(x).argmax(1)
                y[3] = (y[3] + 1) % 4  # one is wrong
                live = widgets.live_intervals({"one": model, "two": model}, x, y,
                                              classes=[str(k) for k in range(model(x).shape[1])])
                found = page.evaluate(RUN, {
                    "networks": live.networks, "weights": base64.b64encode(live.weights).decode(),
                    "images": x.double().flatten(1).tolist(), "labels": y.tolist(), "epsilons": list(EPSILONS),
                })
                known[name] = (model.double(), x.double(), y, found)
            return known[name]

        yield compute
        page.close()


def column(found: list[dict[str, Any]], key: str) -> Tensor:
    return torch.tensor([one[key] for one in found], dtype=torch.float64)


ALL = [*networks(), "bent-last"]


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("number", range(len(EPSILONS)), ids=[f"{255 * eps:.3g}-levels" for eps in EPSILONS])
def test_boxes_and_margins_equal_pythons(results: Any, name: str, number: int) -> None:
    model, x, y, found = results(name)
    threat = ThreatModel("linf", EPSILONS[number])
    lower, upper = interval_bounds(model, x, threat)
    size = float(upper.abs().max())
    assert (column(found[number], "lower") - lower).abs().max() < 1e-9 * size
    assert (column(found[number], "upper") - upper).abs().max() < 1e-9 * size
    margins = interval_margins(model, x, y, threat)
    here = column(found[number], "margins")
    if name == "bent-last":  # Python takes the layers before the bend into the difference no more than the page does
        assert (here <= margins.nan_to_num(posinf=0) + 1e-9).all()
        return
    others = margins.isfinite()
    assert (here - margins)[others].abs().max() < 1e-9 * size
    assert (here[~others] == 0).all()


@pytest.mark.parametrize("name", ALL)
def test_attacked_points_lie_inside_and_boxes_grow(results: Any, name: str) -> None:
    _, _, _, found = results(name)
    for at in found:
        attacked = column(at, "attacked")
        slack = 1e-9 * attacked.abs().max()
        assert (column(at, "lower") <= attacked + slack).all()
        assert (attacked <= column(at, "upper") + slack).all()
    for small, large in itertools.pairwise(found):
        assert (column(large, "lower") < column(small, "lower")).any()
        assert (column(large, "upper") >= column(small, "upper") - 1e-12).all()


@pytest.mark.parametrize("name", ALL)
def test_verdicts_are_those_of_the_bounds_and_the_attack(results: Any, name: str) -> None:
    model, x, y, found = results(name)
    right = model(x).argmax(1) == y
    for eps, at in zip(EPSILONS, found, strict=True):
        proved = interval_margins(model, x, y, ThreatModel("linf", eps)).amin(1) > 1e-6
        misread = column(at, "attacked").argmax(1) != y
        for k, one in enumerate(at):
            expected = "wrong" if not right[k] else "broken" if misread[k] else "proved" if proved[k] else "open"
            assert one["verdict"] == expected, (eps, k)
    assert {one["verdict"] for one in found[0]} == {"proved", "wrong"}


def test_one_network_takes_milliseconds(results: Any) -> None:
    milliseconds = min(one["milliseconds"] for one in results("tiny")[3][2])
    print(f"intervals in the browser: {milliseconds:.1f} ms")
    assert milliseconds < 100
