"""benchmarks/folklore.py: what it keeps of a killed run; gates, attacks on both sides of them, and what can be seen."""

import importlib
import json
from pathlib import Path

import pytest
import torch
from torch import nn

from robustness_lib import ThreatModel, models

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
THREAT = ThreatModel("linf", 0.1)


@pytest.fixture
def benchmark(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(BENCHMARKS)
    module = importlib.import_module("folklore")
    monkeypatch.setattr(module, "KEPT", tmp_path / "kept")
    return module


@pytest.fixture
def stages(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("two_stages")


@pytest.fixture
def visibility(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("visibility")


class Linear(nn.Module):
    """Logits that are linear in two pixel values: the nearest error is known."""

    def __init__(self, weight, bias):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.tensor(weight)), nn.Parameter(torch.tensor(bias))

    def forward(self, x):
        return x.flatten(1) @ self.weight.T + self.bias


class Value(nn.Module):
    """The second of two pixel values as a score."""

    def forward(self, x):
        return x.flatten(1)[:, 1]


def points(*pairs):
    return torch.tensor(pairs).view(-1, 1, 1, 2)


BY_FIRST_VALUE = ([[0.0, 0.0], [8.0, 0.0], [-9.0, 0.0]], [0.0, -4.0, -9.0])  # class 1 where it is above ½


# ------------------------------------------------------------------------------------------------ killed and resumed

class Killed(BaseException):
    """As a signal would."""


def test_a_run_goes_on_after_a_kill_with_the_trainings_it_has(benchmark, monkeypatch, tmp_path):
    taught = []

    def quick_training(model, objective, seed, size):
        taught.append((type(objective).__name__, seed, len(getattr(objective, "static", ()))))
        if len(taught) == 4 and killed:
            raise Killed
        return model

    monkeypatch.setattr(benchmark, "taught", quick_training)
    monkeypatch.setattr(benchmark, "plain_knob", lambda size: models.knob_cnn(width=1))
    monkeypatch.setattr(benchmark, "under_attacks", lambda model, size: {"clean": benchmark.share(torch.ones(4))})
    killed = True
    with pytest.raises(Killed):
        list(benchmark.ensemble_training(benchmark.QUICK, tmp_path))
    killed, before = False, taught[:3]
    figures = list(benchmark.ensemble_training(benchmark.QUICK, tmp_path))[-1]
    assert before == [("Standard", 0, 0), ("EnsembleFGSM", 0, 0), ("EnsembleFGSM", 0, 2)]
    assert taught[4:] == [("FastFGSM", 0, 0), ("PGDTraining", 0, 0)]  # what was killed, and what had not begun
    assert {name: len(rows) for name, rows in figures["methods"].items()} == dict.fromkeys(
        ("standard", "fgsm", "ensemble", "fgsm-rs", "pgd-5"), 1)
    assert set(figures["shipped"]) == {"signs-fgsm-rs", "signs-pgd"}


# ------------------------------------------------------------------------------------------------ gates and systems

def test_doubt_is_minus_the_log_odds_of_the_leading_class(stages):
    model = Linear([[0.0, 0.0], [8.0, 0.0], [-9.0, 0.0]], [0.0, -4.0, -9.0])
    x = points((0.9, 0.0), (0.1, 0.0))
    p = model(x).softmax(1).amax(1)
    assert torch.allclose(stages.Doubt(model)(x), -(p / (1 - p)).log(), atol=1e-5)
    certain = Linear([[0.0, 0.0], [800.0, 0.0], [-9.0, 0.0]], [0.0, -4.0, -9.0])
    assert stages.Doubt(certain)(points((0.9, 0.0))).item() == pytest.approx(-716, abs=1e-3)  # softmax says 1


@pytest.mark.parametrize(("share", "above"), [(0.0, 0), (0.1, 1), (0.05, 0), (0.5, 5)])
def test_a_threshold_leaves_the_share_above_it(stages, share, above):
    scores = torch.arange(10.0)[torch.randperm(10)]
    assert int((scores > stages.threshold_at(scores, share)).sum()) == above


def test_the_gates_column_leads_exactly_where_the_excess_is_positive(stages):
    model, gate = Linear(*BY_FIRST_VALUE), stages.Excess(Value(), 0.5)
    x = torch.rand(200, 1, 1, 2)
    assert torch.equal(stages.Gated(model, gate)(x).argmax(1) == 3, x[:, 0, 0, 1] > 0.5)
    assert torch.equal(stages.Gated(model, gate.turned())(x).argmax(1) == 3, x[:, 0, 0, 1] < 0.5)


def test_the_margin_past_the_gate_is_positive_exactly_where_a_wrong_class_passes(stages):
    model, gate = Linear(*BY_FIRST_VALUE), stages.Excess(Value(), 0.5)
    x, y = torch.rand(200, 1, 1, 2), torch.arange(200) % 2
    wrong = (model(x).argmax(1) != y) & (gate(x) < 0)
    found = stages.margin_past_the_gate(stages.Gated(model, gate)(x), y) > 0
    assert wrong.any()
    assert torch.equal(found, wrong)


def test_a_system_answers_sends_on_or_refuses(stages):
    first, second = Linear(*BY_FIRST_VALUE), Linear([[0.0] * 2] * 3, [0.0, 0.0, 1.0])
    x, y = points((0.9, 0.2), (0.9, 0.8), (0.1, 0.2)), torch.tensor([1, 1, 1])
    gate = stages.Excess(Value(), 0.5)
    answer, sent_on = stages.TwoStages(first, gate, second).answers(x)
    assert answer.tolist() == [1, 2, 0]
    assert sent_on.tolist() == [False, True, False]
    refusing = stages.TwoStages(first, gate)
    assert refusing.answers(x)[0].tolist() == [1, stages.REFUSED, 0]
    assert refusing.fooled(x, y).tolist() == [False, False, True]


def test_the_adaptive_attack_finds_what_there_is_and_nothing_else(stages):
    """Class 0 is right. ε is 0.1: the first value must come above ½, and the second stay below ½."""
    first, gate = Linear(*BY_FIRST_VALUE), stages.Excess(Value(), 0.5)
    x = points((0.45, 0.45), (0.45, 0.55), (0.45, 0.65), (0.35, 0.2), (0.6, 0.2))
    y = torch.zeros(5, dtype=torch.int64)
    found = stages.adaptive(stages.TwoStages(first, gate), x, y, THREAT, steps=10)
    assert found.standing.tolist() == [False, False, True, True, False]
    assert found.after["no attack"] == 4
    assert found.after["side 1"] == found.after["side 1, again"] == 2
    assert (found.x_adv - x).abs().max() <= 0.1 + 1e-6
    assert torch.equal(found.x_adv[[2, 3]], x[[2, 3]])
    hidden = torch.where(found.standing[:, None, None, None], x, found.x_adv)
    assert stages.TwoStages(first, gate).fooled(hidden, y).tolist() == [True, True, False, False, True]


def test_the_adaptive_attack_reaches_the_second_net_through_the_gate(stages):
    """The first net never errs; the second always does, where it is asked."""
    first, second = Linear([[0.0] * 2] * 3, [1.0, 0.0, 0.0]), Linear([[0.0] * 2] * 3, [0.0, 0.0, 1.0])
    x, y = points((0.5, 0.45), (0.5, 0.35)), torch.zeros(2, dtype=torch.int64)
    system = stages.TwoStages(first, stages.Excess(Value(), 0.5), second)
    found = stages.adaptive(system, x, y, THREAT, steps=10)
    assert found.standing.tolist() == [False, True]
    assert found.after["side 1"] == 2
    assert found.after["side 2"] == 1


def test_images_tried_count_only_where_the_system_is_fooled(stages):
    system = stages.TwoStages(Linear(*BY_FIRST_VALUE), stages.Excess(Value(), 0.5))
    x, y = points((0.1, 0.2), (0.1, 0.2)), torch.zeros(2, dtype=torch.int64)
    tried = points((0.9, 0.2), (0.9, 0.9))
    found = stages.adaptive(system, x, y, THREAT, steps=2, tried={"given": tried})
    assert found.after["given"] == 1
    assert torch.equal(found.x_adv, torch.stack([tried[0], x[1]]))


def test_a_roc_by_hand(benchmark):
    found = benchmark.curve(torch.arange(10.0), torch.tensor([9.5, 8.5, 3.0, -1.0]))
    assert found["auc"] == (10 + 9 + 3.5 + 0) / 40
    assert [found["caught"][rate]["right"] for rate in ("0.01", "0.05", "0.1")] == [1, 1, 2]


def test_what_a_router_costs_by_hand(benchmark, stages, monkeypatch):
    monkeypatch.setattr(benchmark, "median_seconds", lambda calls, rounds: {
        name: {"first": 1.0, "second": 4.0, "gate": 0.5}[name] for name in calls})
    figures = {"sent on": {"clean": {"right": 10, "n": 100}}}
    system = stages.TwoStages(Linear(*BY_FIRST_VALUE), stages.Excess(Value(), 0.5), Linear(*BY_FIRST_VALUE))
    key = "clean, over second alone"
    assert benchmark.costs(system, figures, None, benchmark.QUICK)[key] == (1 + 0.1 * 4) / 4
    assert benchmark.costs(system, figures, Value(), benchmark.QUICK)[key] == round((0.5 + 0.9 + 0.1 * 4) / 4, 3)


# ------------------------------------------------------------------------------------------------ ensemble training

def test_sources_are_drawn_anew_for_each_batch_and_follow_from_the_seed(benchmark):
    x, net = torch.rand(4, 3, 32, 32), models.tiny_cnn()
    objective = benchmark.EnsembleFGSM(benchmark.THREAT, static=(models.tiny_cnn(), models.tiny_cnn()))
    drawn = [objective.source(net, x, torch.arange(4) + 4 * number, 7) for number in range(300)]
    counts = [sum(one is source for one in drawn) for source in (net, *objective.static)]
    assert min(counts) > 60
    assert all(one is other for one, other in zip(
        drawn, (objective.source(net, x, torch.arange(4) + 4 * number, 7) for number in range(300)), strict=True))
    assert benchmark.EnsembleFGSM(benchmark.THREAT).source(net, x, None, 3) is net


def test_the_loss_is_half_clean_and_half_on_another_nets_images(benchmark):
    torch.manual_seed(0)
    x, y, net, other = torch.rand(8, 3, 32, 32), torch.arange(8), models.tiny_cnn(), models.tiny_cnn()
    objective = benchmark.EnsembleFGSM(benchmark.THREAT, static=(other,))
    object.__setattr__(objective, "source", lambda *_: other)
    eps = benchmark.THREAT.eps
    at = x.clone().requires_grad_()
    slope, = torch.autograd.grad(nn.functional.cross_entropy(other(at), y), at)
    x_adv = (x + eps * slope.sign()).clamp(0, 1)
    expected = [nn.functional.cross_entropy(net(shown), y) for shown in (x, x_adv)]
    assert objective(net, x, y).item() == pytest.approx(sum(expected).item() / 2, abs=1e-6)


# ------------------------------------------------------------------------------------------------ smoothed radii

def test_radii_count_from_where_they_reach_and_pairs_from_the_first_net_to_the_second(benchmark):
    rows = {("signs-standard", 0.25): {"radius": [-1, 0.0, 0.3, 0.6]},
            ("signs-pgd", 0.25): {"radius": [0.1, 0.3, -1, 1]}}
    assert benchmark.reached(rows["signs-standard", 0.25], 0).tolist() == [False, False, True, True]
    found = benchmark.paired(rows)
    assert list(found) == ["signs-standard to signs-pgd, σ = 0.25"]
    assert {r: (one["lost"], one["gained"]) for r, one in found["signs-standard to signs-pgd, σ = 0.25"].items()} == {
        "0": (1, 2), "0.25": (1, 1), "0.5": (0, 0)}


# ------------------------------------------------------------------------------------------------ visibility

def test_what_survives_saving_by_hand(visibility):
    x = torch.full((1, 1, 1, 5), 100 / 255)
    change = torch.tensor([0.3, 0.6, -0.6, 1.0, 0.0]) / 255
    assert visibility.surviving(x + change, x) == 0.75  # of the four that have changed
    assert visibility.surviving(x, x) == 0
    assert torch.allclose(visibility.saved(x + change) * 255, torch.tensor([100.0, 101, 99, 101, 100]))


def test_colors_of_the_standard(visibility):
    """As colour tables print them for sRGB and D65."""
    known = {(0, 0, 0): (0, 0, 0), (1, 1, 1): (100, 0, 0), (1, 0, 0): (53.24, 80.09, 67.20),
             (0, 1, 0): (87.74, -86.18, 83.18), (0, 0, 1): (32.30, 79.19, -107.86), (0.5, 0.5, 0.5): (53.39, 0, 0)}
    for color, expected in known.items():
        found = visibility.lab(torch.tensor(color, dtype=torch.float32).view(1, 3, 1, 1)).flatten()
        assert torch.allclose(found, torch.tensor(expected, dtype=torch.float64), atol=0.02)
    black, white = torch.zeros(1, 3, 1, 1), torch.ones(1, 3, 1, 1)
    assert visibility.color_difference(black, white).item() == pytest.approx(100)


def test_flat_pixels_have_no_neighbour_that_differs_in_any_channel(visibility):
    x = torch.full((1, 3, 5, 5), 0.5)
    x[0, 1, 0, 0] += 9 / 255
    found = visibility.flat(x, 8)[0]
    assert not found[:2, :2].any()
    assert int(found.sum()) == 21
    assert visibility.flat(x, 9).all()


# ------------------------------------------------------------------------------------------------ what is committed

def test_the_figures_that_are_kept_are_whole():
    results = json.loads((BENCHMARKS / "results" / "folklore.json").read_text(encoding="utf-8"))
    assert list(results) == ["routing", "detector", "two-models", "ensemble-training", "smoothed-radii", "visible"]
    for name in ("routing", "two-models"):
        after = list(results[name]["adaptive"]["left after"].values())
        assert after == sorted(after, reverse=True)
        assert results[name]["adaptive"]["right"] == after[-1]
    assert all(len(rows) == results["ensemble-training"]["seeds"]
               for rows in results["ensemble-training"]["methods"].values())
