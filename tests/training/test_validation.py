"""Accuracies of a model in training, and the watch for catastrophic overfitting."""

import importlib
import json
from pathlib import Path

import pytest
import torch
from shared_problems import problem, same, snapshot

from robustness_lib import ThreatModel, data, models
from robustness_lib.attacks import FGSM, PGD
from robustness_lib.distributed import Team
from robustness_lib.statistics import Accuracy
from robustness_lib.training import Epoch, Piecewise, collapse, fit

accuracies = importlib.import_module("robustness_lib.training.validation").accuracies
LINF, L2 = ThreatModel("linf", 0.03), ThreatModel("l2", 0.2)


def plane():
    """A half-trained net of the plane, and more points than go into one batch."""
    x, y, _ = data.load("moons", "train", n=700)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = models.mlp((2, 16, 2))
    fit(model, (x, y), lambda model, x, y: torch.nn.functional.cross_entropy(model(x), y), epochs=3,
        schedule=Piecewise(3e-2), progress=False)
    return model, x, y


def problems():
    model, x, y, _ = problem()
    y[3:10] = (y[3:10] + 1) % 5
    return model, x, y


@pytest.mark.parametrize(("make", "threat", "steps"), [
    (problems, LINF, 3), (problems, L2, 3), (problems, LINF, 1), (plane, ThreatModel("linf", 0.04), 1),
    (plane, ThreatModel("l2", 0.06), 4),
])
def test_they_are_those_of_the_attacks_run_by_hand(make, threat, steps):
    model, x, y = make()
    model.eval()
    index = torch.arange(len(x))
    right = model(x).argmax(1) == y
    fgsm = right & (model(FGSM(threat)(model, x, y)).argmax(1) == y)
    attacked = PGD(threat, steps=steps, loss="margin")(model, x, y, index=index)
    robust = right & (model(attacked).argmax(1) == y)
    found = accuracies(model, x, y, threat, steps, Team())
    assert found == {"clean": Accuracy(int(right.sum()), len(x)), "fgsm": Accuracy(int(fgsm.sum()), len(x)),
                     "robust": Accuracy(int(robust.sum()), len(x))}
    assert 0 < found["robust"].correct < found["clean"].correct < len(x)


def test_pgd_is_asked_for_its_steps_on_the_margin_and_for_each_images_own_start(monkeypatch):
    asked = []
    run = PGD.run

    def recorded(self, model, x, y, **settings):
        asked.append((self, settings["index"]))
        return run(self, model, x, y, **settings)

    monkeypatch.setattr(PGD, "run", recorded)
    model, x, y = problems()
    accuracies(model.eval(), x, y, LINF, 7, Team())
    [(attack, index)] = asked
    assert attack == PGD(LINF, steps=7, loss="margin")
    assert index.tolist() == (model(x).argmax(1) == y).nonzero()[:, 0].tolist()


def test_without_a_threat_only_clean_accuracy():
    model, x, y = problems()
    assert accuracies(model, x, y, None, 3, Team()) == {"clean": Accuracy(14, 24)}


@pytest.mark.parametrize(("right", "expected"), [(False, 0), (True, 24)])
def test_where_the_model_is_always_wrong_or_always_right(right, expected):
    model, x, y, _ = problem()
    y = model(x).argmax(1)
    found = accuracies(model, x, y if right else (y + 1) % 5, ThreatModel("linf", 0), 3, Team())
    assert {name: accuracy.correct for name, accuracy in found.items()} == dict.fromkeys(
        ("clean", "fgsm", "robust"), expected)


def test_a_team_counts_what_one_process_would():
    """Each its share of the images, under the random starts that these images have anyway."""
    class Alone(Team):
        def gather(self, mine):
            return [mine]

    model, x, y = plane()
    threat = ThreatModel("linf", 0.04)
    whole = accuracies(model, x, y, threat, 1, Team())
    parts = [accuracies(model, x, y, threat, 1, Alone(rank, 3)) for rank in range(3)]
    for name, accuracy in whole.items():
        assert accuracy == Accuracy(sum(part[name].correct for part in parts), len(x))
        assert len({part[name].correct for part in parts}) > 1  # not three times the same images


def test_the_model_and_the_global_generator_are_as_they_were():
    model, x, y = problems()
    model.train()
    model.body[4].eval()  # a mixed state
    model.body[0].weight.requires_grad_(False)
    torch.nn.functional.cross_entropy(model(x), y).backward()
    before = snapshot(model)
    torch.manual_seed(11)
    random = torch.get_rng_state()
    found = accuracies(model, x, y, LINF, 3, Team())
    assert same(snapshot(model), before)
    assert torch.equal(torch.get_rng_state(), random)
    assert found == accuracies(model.eval(), x, y, LINF, 3, Team())  # it was asked in eval mode


# Catastrophic overfitting, on made-up histories.


def epochs(*figures):
    """(fgsm, robust) of each epoch, of 100 images; None where nothing was measured."""
    return [Epoch(number + 1, 1.0, 1e-3, 1.0) if pair is None else
            Epoch(number + 1, 1.0, 1e-3, 1.0, Accuracy(90, 100), *(Accuracy(v, 100) for v in pair))
            for number, pair in enumerate(figures)]


@pytest.mark.parametrize("figures", [
    [(50, 40), (60, 0)],
    [(50, 40), (50, 30)],  # a fall of exactly a tenth, and one-step accuracy stays
    [(30, 20), (50, 40), (55, 41), (70, 5)],
    [(50, 40), None, (60, 0)],
    [(50, 40), (45, 38), (55, 10)],
    [(80, 5), (50, 40), (90, 20)],
], ids=str)
def test_it_is_seen(figures):
    found = collapse(epochs(*figures))
    assert found is not None
    assert found.startswith("catastrophic overfitting: accuracy under PGD fell from")


@pytest.mark.parametrize("figures", [
    [],
    [None],
    [(60, 0)],
    [None, (60, 0)],
    [(50, 40), (60, 31)],  # noise
    [(50, 40), (30, 20)],  # both fall: something else went wrong
    [(50, 40), (49, 0)],
    [(10, 5), (40, 30), (70, 60)],
    [(60, 0), (50, 40)],  # recovered
    [(0, 0), (90, 0)],  # never was robust
], ids=str)
def test_it_is_not_seen_where_it_is_not(figures):
    assert collapse(epochs(*figures)) is None


APART = (60, 10)  # a quarter would be 15


@pytest.mark.parametrize(("figures", "ramp"), [
    ([APART, APART], 0), ([(30, 19), APART, APART], 1), ([APART, (40, 19), APART], 0), ([(20, 0), (90, 0), (95, 1)], 0),
    ([(20, 10), None, APART, None, APART], 2)], ids=str)
def test_it_is_seen_where_accuracy_under_pgd_never_rose(figures, ramp):
    found = collapse(epochs(*figures), ramp)
    assert found is not None
    assert found.startswith("catastrophic overfitting: accuracy under one step is")


@pytest.mark.parametrize(("figures", "ramp"), [
    ([APART], 0), ([APART, (30, 19)], 0), ([APART, (30, 19), (30, 19), APART], 0), ([(60, 15), (60, 15)], 0),
    ([(22, 3), (22, 3)], 0),  # a fifth is too little to be sure
    ([APART, APART], 1), ([APART, APART], 2), ([(0, 0), (0, 0)], 0)], ids=str)
def test_it_is_not_seen_in_what_can_be_chance_or_the_ramp(figures, ramp):
    assert collapse(epochs(*figures), ramp) is None


def test_few_images_say_nothing():
    few = [Epoch(n, 1.0, 1e-3, 1.0, Accuracy(9, 10), Accuracy(5, 10), Accuracy(1, 10)) for n in (1, 2, 3)]
    assert collapse(few) is None


def test_the_runs_on_mnist_that_collapsed_and_those_that_did_not():
    """As chapter 5's benchmark keeps them: taking the step from the image itself collapses, at once without a ramp."""
    file = Path(__file__).parents[2] / "benchmarks/results/training.json"
    section = json.loads(file.read_text(encoding="utf-8"))["collapse"]
    seen = set()
    for name, run in section["runs"].items():
        done = [Epoch(e["epoch"], e["loss"], 1e-3, 1.0, *(Accuracy(e[kind], section["validation"]) for kind in
                                                          ("clean", "fgsm", "robust"))) for e in run["epochs"]]
        if any(collapse(done[:k], 0 if "no ramp" in name else 3) for k in range(1, len(done) + 1)):
            seen.add(name)
    assert len(section["runs"]) >= 9
    assert seen == {name for name in section["runs"] if name.startswith("mnist, ε 0.3, from the image")}


def test_without_a_threat_nothing_can_collapse():
    clean = [Epoch(n, 1.0, 1e-3, 1.0, Accuracy(90 - 40 * n, 100)) for n in (1, 2)]
    assert collapse(clean) is None


def test_the_words_name_the_epochs_and_say_what_to_do():
    words = collapse(epochs((30, 20), (50, 40), None, (60, 3)))
    assert "from 40.0 %" in words
    assert "in epoch 2 to 3.0 %" in words
    assert "in epoch 4, while accuracy under one step went from 50.0 %" in words
    assert "to 60.0 %" in words
    assert "Take more steps, a shorter step, or a smaller ε" in words
