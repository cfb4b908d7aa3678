"""Rounding proves nothing: what float32 makes of large terms that cancel, and the second look in float64."""

import copy
from itertools import pairwise

import pytest
import torch
from known_nets import linear, linear_margins
from torch import nn

from robustness_lib import ThreatModel
from robustness_lib.certify import crown_margins, interval_margins, trace, verify
from robustness_lib.certify._rounding import ROUNDING, rounding_tolerance
from robustness_lib.certify.enclosure import Enclosure
from robustness_lib.certify.input_region import InputRegion
from robustness_lib.certify.proof_steps import ProofStep

Y = torch.tensor([0])


def cancelling(seed, threat, hidden=False):
    """Scores of large weights that cancel, with a true smallest margin just below 0; and its image."""
    generator = torch.Generator().manual_seed(seed)
    w, x = 1e4 * torch.randn(1, 60, generator=generator), 0.1 + 0.8 * torch.rand(1, 60, generator=generator)
    weight = torch.cat([w, torch.zeros(1, 60)])
    bias = float(linear_margins(linear(weight, [0.0, 0.0]), x, Y, threat))
    last = linear(weight, [0.0, torch.nextafter(torch.tensor(bias), torch.tensor(torch.inf))])
    assert -0.1 < linear_margins(last, x, Y, threat) < 0
    return nn.Sequential(linear(torch.eye(60), torch.zeros(60)), nn.ReLU(), last) if hidden else last, x


@pytest.fixture
def looks(monkeypatch):
    """What each look at images had: method, type and number of images."""
    made, judged = [], ProofStep._judged

    def spy(self, network, x, *rest):
        made.append((self.name, network.dtype, len(x)))
        return judged(self, network, x, *rest)

    monkeypatch.setattr(ProofStep, "_judged", spy)
    return made


@pytest.mark.parametrize("hidden", [False, True])
@pytest.mark.parametrize("threat", [ThreatModel("linf", 0.01), ThreatModel("linf", 0), ThreatModel("l2", 0.05)],
                         ids=str)
def test_a_margin_that_rounding_made_positive_proves_nothing(threat, hidden):
    positive = 0
    for seed in range(6):
        model, x = cancelling(seed, threat, hidden)
        with torch.no_grad():
            positive += bool((crown_margins(model, x, Y, threat) > 0).all())
        assert verify(model, x, Y, threat).verdicts[0] != "robust", seed
    assert positive >= 1, "none of them would have misled anybody"


def test_a_close_call_is_looked_at_again_in_float64(looks):
    """Of the first two images the margins are clear, of the third it is less than a bound's tolerance in float32, and
    more than what the model's own answers may be off."""
    model = linear([[0.0, 1.0], [1.0, 0.0]], [0.5, 0.5])
    x = torch.tensor([[0.2, 0.8], [0.9, 0.9], [0.5, 0.5 + 2**-20]])
    found = verify(model, x, torch.tensor([0, 1, 0]), ThreatModel("linf", 0))
    assert found.verdicts == ("robust", "wrong", "robust")
    assert found.margin[2] == 2**-20
    assert looks == [("IBP", torch.float32, 2), ("IBP", torch.float64, 1)]


@pytest.mark.parametrize("margin", [0, 2**-22])
def test_what_the_models_own_rounding_may_turn_stays_open(looks, margin):
    model = linear([[0.0, 1.0], [1.0, 0.0]], [0.5, 0.5])
    assert verify(model, torch.tensor([[0.5, 0.5 + margin]]), Y, ThreatModel("linf", 0)).verdicts == ("unknown",)
    assert [kind for name, kind, _ in looks if name == "CROWN"] == [torch.float32, torch.float64]


def test_in_float64_there_is_no_second_look(looks):
    model = linear([[0.0, 1.0], [1.0, 0.0]], [0.5, 0.5], torch.float64)
    x = torch.tensor([[0.5, 0.5 + 2**-22], [0.5, 0.5 + 2**-46], [0.5, 0.5]], dtype=torch.float64)
    verdicts = verify(model, x, torch.tensor([0, 0, 0]), ThreatModel("linf", 0)).verdicts
    assert verdicts == ("robust", "unknown", "unknown")
    assert {kind for _, kind, _ in looks} == {torch.float64}


def test_no_robust_image_is_broken_by_the_rounding_of_the_models_own_answers():
    """Linear scores whose exact smallest margin is a hair above 0: float32 answers wrongly near that corner."""
    eps, broken = 1 / 32, 0
    for seed in range(30):
        generator = torch.Generator().manual_seed(seed)
        x = torch.randint(0, 257, (1, 784), generator=generator) / 256
        model = linear(torch.randn(2, 784, generator=generator), [0.0, 0.0])
        w = (model.weight[0].double() - model.weight[1].double()).detach()
        corner = torch.where(w > 0, (x.double() - eps).clamp(min=0), (x.double() + eps).clamp(max=1))
        with torch.no_grad():
            model.bias[0] = torch.nextafter((-(corner @ w)).float(), torch.tensor(torch.inf))[0]
        few = torch.zeros(600, 784).scatter_(1, torch.randint(0, 784, (600, 2), generator=generator), 1)
        steps = torch.where(w > 0, 1, -1) * 2**-24 * torch.randint(1, 4, (600, 784), generator=generator) * few
        points = (corner + steps).clamp(0, 1).float()
        allowed = (points.double() - x.double()).abs().amax(1) <= eps
        with torch.no_grad():
            answers = torch.cat([model(points[:300]), *map(model, points[300:].split(1))])
        wrong = bool(((answers.argmax(1) != 0) & allowed).any())
        found = verify(model, x, Y, ThreatModel("linf", eps))
        broken += wrong
        assert not (wrong and found.verdicts[0] == "robust"), seed
    assert broken >= 5, "none of them would have misled anybody"


def steep(act, layers):
    """Random large sums, nearly cancelled, and pushed up by curves that are steeper than 1."""
    torch.manual_seed(0)
    turned = torch.linalg.qr(torch.randn(64, 64, dtype=torch.float64))[0].float()
    net = nn.Sequential(linear(30 * turned, torch.zeros(64)), linear(turned.mean(1)[None] / 30, [-0.31]),
                        *[act() for _ in range(layers)], linear([[1.0], [0.0]], [0.0, 0.0]))
    x = 0.31 + 1e-7 * (torch.randn(400, 64) - 2)
    with torch.no_grad():
        net[-1].bias[0] = -copy.deepcopy(net).double()(x.double())[:, 0].median()
    return net, x


@pytest.mark.parametrize(("act", "layers"), [(nn.SELU, 20), (lambda: nn.ELU(10.0), 4)], ids=["SELU", "ELU 10"])
def test_steep_curves_enlarge_what_rounding_did_before(act, layers):
    net, x = steep(act, layers)
    y = torch.zeros(len(x), dtype=torch.int64)
    with torch.no_grad():
        real = copy.deepcopy(net).double()(x.double()).argmax(1)
        own = torch.cat([net(one[None]) for one in x]).argmax(1)
    assert (own[real == 0] != 0).any(), "rounding turns some"
    robust = verify(net, x, y, ThreatModel("linf", 1e-12)).certified
    assert not (robust & ((real != 0) | (own != 0))).any()


def test_where_rounding_may_reach_over_a_jump_nothing_is_known():
    """Levels of 1/4: of small sums the nearest is known, of large ones that cancel it is not."""
    x, y = torch.tensor([[0.9, 0.1]]), torch.tensor([0])
    for size, verdict in ((1.0, "robust"), (1e6, "unknown")):
        first = linear([[1 + size, -size], [-size, size + 1]], [0.1 * size - 0.9 * size] * 2)
        net = nn.Sequential(linear(torch.eye(2), [0.0, 0.0]), first, Levels(), linear(torch.eye(2), [size, 0.0]))
        assert verify(net, x, y, ThreatModel("linf", 0)).verdicts == (verdict,)


class Levels(nn.Module):
    def forward(self, z):
        return torch.round(4 * z) / 4


@pytest.mark.parametrize("act", [nn.ReLU, nn.Tanh, nn.GELU, nn.Sigmoid])
@pytest.mark.parametrize("scale", [1, 100])
def test_the_tolerance_covers_what_rounding_does(act, scale):
    """Bounds in float32 against the same ones in float64."""
    for seed in range(2):
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), act(), nn.Flatten(), nn.Linear(108, 40), act(),
                            nn.Linear(40, 5)).eval()
        net[0].weight.data.mul_(scale)
        x, y, threat = torch.rand(6, 2, 6, 6), torch.randint(5, (6,)), ThreatModel("linf", 0.02)
        network = trace(net, x)
        with torch.no_grad():
            tolerance = rounding_tolerance(Enclosure.by_intervals(network, InputRegion(x, threat)), 1e-6)
        for bounds in (interval_margins, crown_margins):
            small, large = (bounds(network.to(dtype), x, y, threat).double() for dtype in ROUNDING)
            error = torch.where(large.isfinite(), small - large, 0).abs().amax(1)
            assert (error < tolerance / 4).all()


def test_it_grows_with_what_the_scores_are_added_up_from():
    x, threat = torch.tensor([[0.5, 0.25]]), ThreatModel("linf", 0.25)

    def tolerance(model, threat=threat):
        with torch.no_grad():
            return float(rounding_tolerance(Enclosure.by_intervals(trace(model, x), InputRegion(x, threat)), 1))

    assert tolerance(linear([[2.0, -4.0], [1.0, 1.0]], [-3.0, 0.0])) == pytest.approx(2 * 0.75 + 4 * 0.5 + 3)
    first = linear([[100.0, -100.0]], [0.0])
    nets = [nn.Sequential(first, act, linear([[1.0], [-1.0]], [0.0, 0.0])) for act in (nn.Identity(), nn.Sigmoid())]
    assert [tolerance(net) for net in nets] == pytest.approx([125, 125]), "a flat end undoes no rounding"
    sizes = [tolerance(nets[0], ThreatModel("linf", eps)) for eps in (0, 0.1, 0.25)]
    assert all(a < b for a, b in pairwise(sizes))


def test_numbers_that_overflow_prove_nothing():
    net = nn.Sequential(linear([[1e30, 0.0], [0.0, 1e30]], [0.0, 0.0]), nn.ReLU(),
                        linear([[1e7, -1e7], [0.0, 0.0]], [1.0, 0.0]))
    found = verify(net, torch.tensor([[0.5, 0.2], [0.5, 0.5]]), torch.tensor([0, 0]), ThreatModel("linf", 0.01))
    assert found.verdicts[0] == "robust", "float64 tells"
    assert found.verdicts[1] in ("unknown", "broken")
    assert not found.margin.isnan().any()
