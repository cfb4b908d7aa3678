"""smoothing_numbers.js in a real browser against PyTorch, scipy and the library: net, noise, bound, vote, attack."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import betainc, ndtri
from scipy.stats import kstest
from torch import Tensor, nn

from robustness_lib import models, widgets
from robustness_lib.statistics import clopper_pearson_lower

pytestmark = pytest.mark.browser

ALPHA = 0.001
READ = """async ({ widths, weights, ...given }) => {
    const numbers = await import('/smoothing_numbers.js');
    const bytes = Uint8Array.from(atob(weights ?? ''), (c) => c.charCodeAt(0));
    const network = widths && numbers.readNetwork(widths, new DataView(bytes.buffer));
    return (%s)(numbers, network, given);
}"""
Run = Callable[..., Any]


@pytest.fixture(scope="module")
def run(chromium: Any, serve_folder: Any) -> Iterator[Run]:
    """run(function, net, **given): what a JavaScript function of (numbers, network, given) returns in the browser."""
    with serve_folder(Path(widgets.__file__).parent) as address:
        page = chromium.new_page()
        page.goto(address + "smoothing_votes.css")

        def run(function: str, net: nn.Module | None = None, **given: Any) -> Any:
            if net is not None:
                votes = widgets.smoothing_votes(net, sigmas=[0.1])
                given |= {"widths": votes.widths, "weights": base64.b64encode(votes.weights).decode()}
            return page.evaluate(READ % function, given)

        yield run
        page.close()


def net(name: str) -> nn.Sequential:
    torch.manual_seed(1)
    if name == "crooked":  # nested, of odd widths, one layer without a bias
        return nn.Sequential(nn.Sequential(nn.Linear(2, 7), nn.ReLU()), nn.Linear(7, 5, bias=False), nn.ReLU(),
                             nn.Linear(5, 2))
    model = nn.Sequential(nn.Linear(2, 2)) if name == "linear" else models.load_pretrained(name)
    assert isinstance(model, nn.Sequential)
    return model


class Noise:
    """The browser's noise, written down once more: sfc32, 53 bits a number, Box and Muller."""

    def __init__(self, seed: int) -> None:
        self.a, self.b, self.c, self.counter = 0, seed, 0, 1
        for _ in range(12):
            self.bits()

    def bits(self) -> int:
        whole = 2**32
        out = (self.a + self.b + self.counter) % whole
        self.counter += 1
        self.a = self.b ^ (self.b >> 9)
        self.b = self.c * 9 % whole
        self.c = ((self.c << 21 | self.c >> 11) + out) % whole
        return out

    def uniform(self) -> float:
        return ((self.bits() >> 5) * 2**26 + (self.bits() >> 6)) / 2**53

    def pairs(self, n: int) -> Tensor:
        out = []
        for _ in range(n):
            length = math.sqrt(-2 * math.log1p(-self.uniform()))
            angle = 2 * math.pi * self.uniform()
            out.append((length * math.cos(angle), length * math.sin(angle)))
        return torch.tensor(out, dtype=torch.float64).reshape(n, 2)


def loss_and_gradient(model: nn.Module, x: Tensor, label: int) -> tuple[Tensor, Tensor]:
    x = x.clone().requires_grad_()
    loss = nn.functional.cross_entropy(model(x), torch.full((len(x),), label), reduction="none")
    return loss.detach(), torch.autograd.grad(loss.sum(), x)[0]


@pytest.mark.parametrize("name", ["moons-standard", "crooked", "linear"])
def test_logits_and_gradient_equal_pytorch(run: Run, name: str) -> None:
    x = 3 * torch.rand(50, 2, dtype=torch.float64) - 1  # votes fall outside the square too
    found = run("""(numbers, network, { points }) => points.map((point) => ({
        logits: [...numbers.logits(network, point)], label: numbers.predict(network, point),
        each: [0, 1].map((label) => numbers.lossGradient(network, point, label)),
    }))""", net(name), points=x.tolist())
    model = net(name).double()
    logits = model(x).detach()
    assert (torch.tensor([one["logits"] for one in found]) - logits).abs().max() < 1e-5 * logits.abs().max()
    assert [one["label"] for one in found] == logits.argmax(1).tolist()
    for label in (0, 1):
        loss, gradient = loss_and_gradient(model, x, label)
        of = torch.tensor([[one["each"][label]["loss"], *one["each"][label]["gradient"]] for one in found],
                          dtype=torch.float64)
        assert (of[:, 0] - loss).abs().max() < 1e-10 * loss.max()
        assert (of[:, 1:] - gradient).abs().max() < 1e-10 * gradient.abs().max()


def test_noise_is_seeded_and_normal(run: Run) -> None:
    draw = "(numbers, _, { seed, n }) => { const next = numbers.%s(seed); return Array.from({ length: n }, next); }"
    for seed in (0, 1, 2**32 - 1):
        mirror = Noise(seed)
        assert run(draw % "uniforms", seed=seed, n=1000) == [mirror.uniform() for _ in range(1000)]
        pairs = torch.tensor(run(draw % "normalPairs", seed=seed, n=1000), dtype=torch.float64)
        assert (pairs - Noise(seed).pairs(1000)).abs().max() < 1e-13
    pairs = np.array(run(draw % "normalPairs", seed=3, n=20_000))
    assert kstest(pairs.ravel(), "norm").pvalue > 0.001
    assert kstest((pairs[:, 0] + pairs[:, 1]) / math.sqrt(2), "norm").pvalue > 0.001
    assert abs(np.corrcoef(pairs.T)[0, 1]) < 4 / math.sqrt(20_000)


def counts() -> list[tuple[int, int]]:
    """(k, n) from 1 to 100,000: none, one, few, around a half, all but few, all."""
    found = []
    for n in (1, 2, 3, 10, 15, 16, 17, 100, 999, 1_000, 10_000, 99_999, 100_000):
        ks = {0, 1, 2, 15, 16, n // 10, n // 2, n // 2 + 1, 9 * n // 10, n - 17, n - 2, n - 1, n}
        found += [(k, n) for k in sorted(ks) if 0 <= k <= n]
    return found


def test_the_lower_bound_equals_scipys(run: Run) -> None:
    cases = list(product(counts(), (0.05, ALPHA, 1e-6)))
    found = run("(numbers, _, { cases }) => cases.map(([[k, n], alpha]) => numbers.lowerBound(k, n, alpha))",
                cases=cases)
    for ((k, n), alpha), bound in zip(cases, found, strict=True):
        assert bound == pytest.approx(clopper_pearson_lower(k, n, alpha), rel=1e-9, abs=0), (k, n, alpha)


def test_the_tail_is_the_incomplete_beta_function(run: Run) -> None:
    cases = [(k, n, share * k / n) for k, n in counts() if k for share in (0.5, 0.9, 0.99)]
    found = run("(numbers, _, { cases }) => cases.map(([k, n, p]) => numbers.upperTail(k, n, p))", cases=cases)
    for (k, n, p), tail in zip(cases, found, strict=True):
        assert tail == pytest.approx(betainc(k, n - k + 1, p), rel=1e-9, abs=1e-280), (k, n, p)


def test_the_inverse_normal_equals_scipys(run: Run) -> None:
    tails = np.geomspace(1e-9, 0.5, 400)
    p = np.concatenate([tails[tails >= 1e-6], 1 - tails, np.linspace(0.4, 0.6, 41), [1e-6, 1 - 1e-9]])
    found = run("(numbers, _, { p }) => p.map(numbers.inverseNormal)", p=p.tolist())
    assert np.abs(np.array(found) - ndtri(p)).max() < 1e-9


def test_the_radius_is_sigma_times_phi_inverse_and_none_up_to_one_half(run: Run) -> None:
    lowers = [0, 0.2, 0.4999999, 0.5, 0.5000001, 0.841344746068543, 0.999]
    found = run("(numbers, _, { lowers }) => lowers.map((lower) => numbers.certifiedRadius(lower, 0.25))",
                lowers=lowers)
    assert found[:4] == [None] * 4
    assert found[4:] == pytest.approx([0.25 * ndtri(lower) for lower in lowers[4:]], abs=1e-10)
    assert found[5] == pytest.approx(0.25)


POLL = """(numbers, network, { seeds, point, sigma, choosing, counting, alpha, stops }) => seeds.map((seed) => {
    const noise = numbers.normalPairs(seed);
    const poll = numbers.openPoll({ network, point, sigma, choosing, counting, noise });
    return stops.map((stop) => {
        numbers.castVotes(poll, stop - poll.cast);
        return { ...numbers.certificate(poll, alpha), chosen: poll.chosen, chose: poll.chose, cast: poll.cast,
            labels: [...poll.labels.slice(0, poll.cast)] };
    });
})"""


def test_one_sample_chooses_and_a_fresh_one_counts(run: Run) -> None:
    """At a point where the answers are nearly tied, so that the class which is chosen often loses the count."""
    point, sigma, choosing, counting = (0.4, 0.61), 0.06, 10, 20
    found = run(POLL, net("moons-standard"), seeds=list(range(40)), point=point, sigma=sigma, choosing=choosing,
                counting=counting, alpha=ALPHA, stops=[choosing - 1, choosing, choosing + 7, 100])
    model = net("moons-standard").double()
    overruled = 0
    for seed, (before, chosen, partial, whole) in enumerate(found):
        places = torch.tensor(point, dtype=torch.float64) + sigma * Noise(seed).pairs(choosing + counting)
        labels = model(places).argmax(1)
        assert whole["labels"] == labels.tolist()
        assert whole["cast"] == choosing + counting  # and no more
        top = int(labels[:choosing].sum() > choosing / 2)
        assert before["chosen"] is None
        assert before["lower"] == chosen["lower"] == chosen["count"] == 0
        assert chosen["chosen"] == whole["chosen"] == top
        for state, count in ((partial, 7), (whole, counting)):
            agree = int((labels[choosing:choosing + count] == top).sum())
            assert (state["count"], state["agree"]) == (count, agree)
            lower = clopper_pearson_lower(agree, count, ALPHA)
            assert state["lower"] == pytest.approx(lower, rel=1e-9)
            assert state["radius"] == (None if lower <= 0.5 else pytest.approx(sigma * ndtri(lower), abs=1e-10))
        assert (partial["complete"], whole["complete"]) == (False, True)
        overruled += whole["agree"] < counting / 2
    assert overruled >= 5


def test_the_shares_of_votes_are_those_of_the_drawn_boundary(run: Run) -> None:
    votes = widgets.smoothing_votes(sigmas=[0.06])
    line = votes.boundaries[0][0]
    points, n = [line[k] for k in range(10, len(line), 40)], 4_000
    found = run("""(numbers, network, { points, n }) => points.map((point, seed) => {
        const noise = numbers.normalPairs(seed);
        const poll = numbers.openPoll({ network, point, sigma: 0.06, choosing: 1, counting: n, noise });
        numbers.castVotes(poll, n + 1);
        return poll.counted[1] / n;
    })""", net("moons-standard"), points=points, n=n)
    assert len(found) >= 5
    assert max(abs(share - 0.5) for share in found) < 4 * 0.5 / math.sqrt(n)


ATTACK = """(numbers, network, { points, sigma, choosing, counting, alpha, options }) => points.map((point, seed) => {
    const noise = numbers.normalPairs(seed);
    const poll = numbers.openPoll({ network, point, sigma, choosing, counting, noise });
    numbers.castVotes(poll, choosing + counting);
    const attack = numbers.startAttack(poll, options);
    const against = [];
    while (!attack.over) {
        numbers.attackStep(attack);
        against.push(attack.against);
    }
    return { ...numbers.certificate(poll, alpha), label: attack.label, path: attack.path, changed: attack.changed,
        against };
})"""


def test_each_step_of_the_attack_climbs_the_mean_loss_over_fresh_noise(run: Run) -> None:
    sigma, options = 0.06, {"draws": 30, "votes": 100, "stepSize": 0.02, "alpha": 1e-3}
    (found,) = run(ATTACK, net("moons-standard"), points=[[0.5, 0.65]], sigma=sigma, choosing=10, counting=20,
                   alpha=ALPHA, options=options)
    assert found["label"] == 0
    assert found["changed"]
    model, noise = net("moons-standard").double(), Noise(0)
    noise.pairs(30)  # the votes
    point = torch.tensor([0.5, 0.65], dtype=torch.float64)
    for place, against in zip(found["path"][1:], found["against"], strict=True):
        _, gradients = loss_and_gradient(model, point + sigma * noise.pairs(30), 0)
        step = gradients.mean(0)
        point = point + 0.02 * step / step.norm()
        assert (torch.tensor(place, dtype=torch.float64) - point).abs().max() < 1e-9
        wrong = int(model(point + sigma * noise.pairs(100)).argmax(1).sum())
        assert against == wrong
        assert (clopper_pearson_lower(wrong, 100, 1e-3) > 0.5) == (place == found["path"][-1])


@pytest.mark.parametrize("sigma", [0.03, 0.06, 0.12])
def test_the_attack_succeeds_outside_the_circle(run: Run, sigma: float) -> None:
    ticks = np.linspace(0.1, 0.9, 4)
    points = [[across, up] for across in ticks for up in ticks]
    found = run(ATTACK, net("moons-standard"), points=points, sigma=sigma, choosing=100, counting=1_000, alpha=ALPHA,
                options={"draws": 60, "votes": 400})
    certified = [one for one in found if one["radius"]]
    changed = [one for one in certified if one["changed"]]
    assert len(certified) >= 13
    assert len(changed) >= 0.9 * len(certified)
    for one in certified:
        path = torch.tensor(one["path"], dtype=torch.float64)
        assert (path[1:] - path[:-1]).norm(dim=1).max() < 0.01 + 1e-9
        assert (path - path[0]).norm(dim=1).max() < 0.5 + 1e-9
        assert 0 <= path.min() <= path.max() <= 1
        if one["changed"]:
            assert (path[-1] - path[0]).norm() > one["radius"]


def test_the_attack_stays_in_its_ball_and_says_where_it_failed(run: Run) -> None:
    (found,) = run(ATTACK, net("moons-standard"), points=[[0.3, 0.9]], sigma=0.06, choosing=100, counting=1_000,
                   alpha=ALPHA, options={"farthest": 0.05, "mostSteps": 12, "draws": 50, "votes": 200})
    path = torch.tensor(found["path"], dtype=torch.float64)
    assert not found["changed"]
    assert len(path) == 13
    assert (path - path[0]).norm(dim=1).max() == pytest.approx(0.05)
