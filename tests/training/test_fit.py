"""fit: that it learns, that its steps are those of a loop written by hand, what it keeps, and what it refuses."""

import copy
import importlib

import pytest
import torch
import torch.nn.functional as F
from shared_problems import Net, problem
from torch import nn
from torch.optim import SGD, AdamW
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils.data import Dataset, IterableDataset

from robustness_lib import ThreatModel, data, models
from robustness_lib.attacks import PGD
from robustness_lib.distributed import Team
from robustness_lib.statistics import Accuracy
from robustness_lib.training import (
    TRADES,
    Diverged,
    FastFGSM,
    Flip,
    GaussianAugmentation,
    History,
    OneCycle,
    PGDTraining,
    Piecewise,
    Shift,
    SmoothAdversarial,
    Standard,
)
from robustness_lib.training import fit as fit_

fit_module = importlib.import_module("robustness_lib.training.fit")
accuracies = importlib.import_module("robustness_lib.training.validation").accuracies
LINF = ThreatModel("linf", 0.05)


def fit(model, data, objective, **settings):
    usual = {"progress": False, "batch_size": 8, "schedule": Piecewise(1e-2)}
    return fit_(model, data, objective, **(usual | settings))


def images(n=40):
    """A net with batch norm and dropout, images and labels."""
    model, x, y, _ = problem(n=n)
    return model, x, (y + torch.arange(n) // 2) % 5


def net(seed=0):
    return Net(seed)


def cross_entropy(model, x, y):
    return F.cross_entropy(model(x), y)


def plane(n=200, split="train"):
    x, y, _ = data.load("moons", split, n=n)
    return x, y


def mlp(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return models.mlp((2, 64, 64, 2))


def state(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def equal(first, second):
    first, second = (of if isinstance(of, dict) else of.state_dict() for of in (first, second))
    return first.keys() == second.keys() and all(first[name].equal(second[name]) for name in first)


def history_without_seconds(history):
    content = history.to_dict()
    for epoch in content["epochs"]:
        del epoch["seconds"]
    return content


class Scripted:
    """Accuracies that a test chooses, in place of measured ones: (clean, fgsm, robust) of 100, epoch by epoch."""

    def __init__(self, monkeypatch, *figures):
        self.figures, self.asked = list(figures), []
        monkeypatch.setattr(fit_module, "accuracies", self)

    def __call__(self, model, x, y, threat, steps, team):
        self.asked.append((state(model), len(x), threat, steps))
        names = ("clean", "fgsm", "robust") if threat is not None else ("clean",)
        return {name: Accuracy(value, 100) for name, value in zip(names, self.figures.pop(0), strict=False)}


# It learns.


@pytest.fixture(scope="module")
def on_the_plane():
    """Three trainings of the same net on the moons: {objective: (model, history)}."""
    threat, trained = ThreatModel("linf", 0.08), {}
    for objective in (Standard(), PGDTraining(threat, steps=5), TRADES(threat, steps=5)):
        model = mlp()
        history = fit(model, plane(), objective, epochs=100, batch_size=50, schedule=OneCycle(3e-2))
        trained[type(objective)] = model, history
    return threat, trained


def test_standard_training_learns_the_moons(on_the_plane):
    model, history = on_the_plane[1][Standard]
    x, y = plane()
    assert (model(x).argmax(1) == y).float().mean() > 0.98
    assert history.epochs[-1].loss < 0.05 < 0.5 < history.epochs[0].loss
    assert len(history) == history.kept == 100
    assert history.stopped is None


@pytest.mark.parametrize("objective", [PGDTraining, TRADES])
def test_adversarial_training_is_more_robust_than_standard_training(on_the_plane, objective):
    threat, trained = on_the_plane
    robust = {kind: accuracies(trained[kind][0], *plane(400, "test"), threat, 20, Team())["robust"].value
              for kind in (Standard, objective)}
    assert robust[objective] > robust[Standard] + 0.05


# Step by step.


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
@pytest.mark.parametrize("objective", [Standard(label_smoothing=0.1), PGDTraining(LINF, steps=2)],
                         ids=["standard", "pgd"])
def test_its_steps_are_those_of_a_loop_written_by_hand(objective, kind):
    """Bit by bit: shuffle, augmentation, attack, dropout, step, schedule."""
    model, x, y = images(n=43)  # the last three of each epoch are left out
    twin = copy.deepcopy(model).train()
    history = fit(model, (x, y), objective, epochs=3, seed=7, schedule=OneCycle(1e-2), weight_decay=0.02, clip=0.5,
                  optimizer=kind, augment=(Flip(), Shift(1)))
    descent = (AdamW(twin.parameters(), lr=1e-2, weight_decay=0.02) if kind == "adamw" else
               SGD(twin.parameters(), lr=1e-2, weight_decay=0.02, momentum=0.9, nesterov=True))
    scheduler = OneCycleLR(descent, 1e-2, total_steps=15)
    torch.manual_seed(7)
    losses, clipped = [], 0
    for epoch in range(3):
        generator = torch.Generator().manual_seed(7000 + epoch)
        order = torch.randperm(43, generator=generator)[:40].split(8)
        draws = [(Flip().draw(8, generator), Shift(1).draw(8, generator)) for _ in order]
        for rows, (flips, shifts) in zip(order, draws, strict=True):
            batch = Shift(1).apply(Flip().apply(x[rows], flips), shifts)
            loss = objective(twin, batch, y[rows], index=rows, seed=7000 + epoch)
            descent.zero_grad()
            loss.backward()
            clipped += bool(nn.utils.clip_grad_norm_(twin.parameters(), 0.5) > 0.5)
            descent.step()
            scheduler.step()
            losses.append(loss.item())
    assert equal(model, twin)
    assert clipped > 5
    for number, record in enumerate(history):
        assert record.epoch == number + 1
        assert record.loss == pytest.approx(sum(losses[5 * number:5 * number + 5]) / 5)


def test_each_epoch_is_another_shuffle_of_all_images():
    _, x, y = images(n=43)
    seen = []

    def recorded(model, x, y):
        seen.append((x.clone(), y.clone()))
        return cross_entropy(model, x, y)

    fit(net(), (x, y), recorded, epochs=3)
    assert [len(batch) for batch, _ in seen] == [8] * 15
    epochs = []
    for number in range(3):
        rows = []
        for batch, labels in seen[5 * number:5 * number + 5]:
            found = (batch[:, None] == x).flatten(2).all(2).nonzero()[:, 1]
            assert y[found].equal(labels)
            rows += found.tolist()
        assert len(set(rows)) == 40
        epochs.append(rows)
    assert epochs[0] != epochs[1] != epochs[2]


def test_the_seed_decides():
    _, x, y = images()

    def trained(seed):
        model = net()
        fit(model, (x, y), Standard(), epochs=1, seed=seed)
        return state(model)

    assert equal(trained(1), trained(1))
    assert not equal(trained(1), trained(2))


def test_a_batch_larger_than_the_data_is_all_of_it():
    _, x, y = images()
    whole, larger = net(), net()
    fit(whole, (x, y), Standard(), epochs=2, batch_size=40)
    fit(larger, (x, y), Standard(), epochs=2, batch_size=1000)
    assert equal(whole, larger)
    assert not equal(whole, net())


def test_a_frozen_parameter_stays_and_the_rest_learns():
    _, x, y = images()
    model = net()
    model.body[0].weight.requires_grad_(False)
    before = state(model)
    fit(model, (x, y), PGDTraining(LINF, steps=1), epochs=1, weight_decay=0.5)
    after = model.state_dict()
    assert after["body.0.weight"].equal(before["body.0.weight"])
    assert not after["body.0.bias"].equal(before["body.0.bias"])
    assert not model.body[0].weight.requires_grad


def test_weight_decay_shrinks_weights():
    _, x, y = images()
    norms = []
    for decay in (0.0, 2.0):
        model = net()
        fit(model, (x, y), Standard(), epochs=4, weight_decay=decay)
        norms.append(model.body[5].weight.norm().item())
    assert norms[1] < 0.8 * norms[0]


def test_clip_bounds_the_gradient():
    """With plain numbers: the first SGD step with Nesterov momentum moves by rate × 1.9 × gradient."""
    _, x, y = images()
    moved = {}
    for clip in (None, 1e-3):
        model = nn.Sequential(nn.Flatten(), nn.Linear(144, 5))
        before = nn.utils.parameters_to_vector(model.parameters()).detach().clone()
        fit(model, (x, y), Standard(), epochs=1, batch_size=40, optimizer="sgd", schedule=Piecewise(1.0), clip=clip,
            weight_decay=0.0)
        moved[clip] = (nn.utils.parameters_to_vector(model.parameters()) - before).norm().item()
    assert moved[1e-3] == pytest.approx(1.9e-3, rel=1e-3)
    assert moved[None] > 1e-2


def test_the_recorded_rate_is_that_of_the_epochs_last_step():
    _, x, y = images()
    history = fit(net(), (x, y), Standard(), epochs=3, schedule=Piecewise(0.01, (1, 2)))
    assert [record.rate for record in history] == pytest.approx([1e-2, 1e-3, 1e-4])
    history = fit(net(), (x, y), Standard(), epochs=1, schedule=OneCycle(0.01))
    assert history.epochs[0].rate == pytest.approx(0.01 / 25e4)


# ε grows.


@pytest.mark.parametrize("objective", [FastFGSM(LINF), PGDTraining(LINF, steps=1, step_size=0.02),
                                       GaussianAugmentation(0.2)], ids=["fgsm", "pgd", "gaussian"])
def test_a_ramp_lets_epsilon_grow_by_equal_amounts(objective, monkeypatch):
    _, x, y = images()
    sizes, shares = [], []
    with_share = type(objective).with_share

    def recorded(self, share):
        shares.append(share)
        return with_share(self, share)

    monkeypatch.setattr(type(objective), "with_share", recorded)
    model = net()
    model.register_forward_pre_hook(lambda module, inputs: sizes.append(
        (inputs[0].detach()[:, None] - x).abs().flatten(2).amax(2).amin(1).max()) if module.training else None)
    fit(model, (x, y), objective, epochs=5, ramp=3)
    assert shares == [0.25, 0.5, 0.75, 1.0, 1.0]
    largest = torch.stack(sizes).reshape(5, 5).amax(1)
    if not isinstance(objective, GaussianAugmentation):
        torch.testing.assert_close(largest, torch.tensor([0.25, 0.5, 0.75, 1, 1]) * 0.05, rtol=1e-2, atol=1e-6)
    assert largest[0] < largest[1] < largest[2] < largest[3]


def test_without_a_ramp_epsilon_is_full_from_the_start(monkeypatch):
    _, x, y = images()
    shares = []
    monkeypatch.setattr(FastFGSM, "with_share", lambda self, share: (shares.append(share), self)[1])
    fit(net(), (x, y), FastFGSM(LINF), epochs=2)
    assert shares == [1.0, 1.0]


# Averaging.


def test_averaged_weights_and_buffers_are_the_moving_average_by_hand(monkeypatch):
    _, x, y = images()
    steps, plain, averaged = [], net(), net()
    step = AdamW.step

    def recorded(self, *arguments, **settings):
        result = step(self, *arguments, **settings)
        steps.append(state(model))
        return result

    monkeypatch.setattr(AdamW, "step", recorded)
    model = plain
    fit(plain, (x, y), Standard(), epochs=2)
    steps.clear()
    model, shown = averaged, []
    scripted = Scripted(monkeypatch, (50,), (60,))
    fit(averaged, (x, y), Standard(), epochs=2, averaging=0.7, validation=(x, y), keep="last",
        on_epoch=lambda of, record: shown.append(state(of)))
    assert equal(steps[-1], plain)  # averaging does not change the path
    expected = {name: value.double() for name, value in steps[0].items()}
    for now in steps[1:]:
        expected = {name: 0.7 * value + 0.3 * now[name].double() for name, value in expected.items()}
    for name, value in averaged.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value.double(), expected[name], rtol=1e-5, atol=1e-6)
    assert not equal(averaged, plain)
    assert equal(averaged, shown[1])  # what is handed on, validated and kept
    assert equal(averaged, scripted.asked[1][0])
    assert not equal(shown[0], shown[1])


# What is kept, and when it stops.


FIGURES = [(90, 50, 30), (91, 52, 45), (91, 55, 45), (99, 40, 41), (95, 50, 44)]


@pytest.mark.parametrize(("keep", "kept"), [("best", 2), ("last", 5)])
def test_which_epochs_weights_are_kept(monkeypatch, tmp_path, keep, kept):
    _, x, y = images()
    scripted, model, after = Scripted(monkeypatch, *FIGURES), net(), []
    history = fit(model, (x, y), Standard(), epochs=5, validation=(x[:7], y[:7]), threat=LINF, validation_steps=4,
                  keep=keep, folder=tmp_path, on_epoch=lambda of, record: after.append((state(of), record)))
    assert history.kept == kept
    assert history.best is history.epochs[1]
    assert equal(model, after[kept - 1][0])
    assert [record for _, record in after] == history.epochs
    assert [record.robust.correct for record in history] == [30, 45, 45, 41, 44]
    assert [asked[1:] for asked in scripted.asked] == [(7, LINF, 4)] * 5
    for name, epoch in (("best", 2), ("last", 5), ("kept", kept)):
        on_disk = safe(tmp_path / f"{name}.safetensors")
        assert equal(on_disk, after[epoch - 1][0])
    assert History.load(tmp_path / "history.json") == history


def safe(path):
    return importlib.import_module("safetensors.torch").load_file(path)


def test_without_validation_the_last_epoch_is_kept():
    _, x, y = images()
    best, last = net(), net()
    history = fit(best, (x, y), Standard(), epochs=2)
    fit(last, (x, y), Standard(), epochs=2, keep="last")
    assert history.kept == 2
    assert history.best is None
    assert equal(best, last)


def test_without_a_threat_epochs_are_compared_by_clean_accuracy(monkeypatch):
    _, x, y = images()
    scripted = Scripted(monkeypatch, (50,), (70,), (60,))
    history = fit(net(), (x, y), Standard(), epochs=3, validation=(x, y))
    assert history.kept == 2
    assert [asked[2] for asked in scripted.asked] == [None] * 3


def test_the_objectives_own_threat_is_validated_against_at_full_size(monkeypatch):
    _, x, y = images()
    scripted = Scripted(monkeypatch, *FIGURES[:3])
    fit(net(), (x, y), FastFGSM(LINF), epochs=3, ramp=2, validation=(x, y))
    assert [asked[2:] for asked in scripted.asked] == [(LINF, 20)] * 3


@pytest.mark.parametrize(("every", "epochs", "measured"), [(1, 3, [1, 2, 3]), (2, 5, [2, 4, 5]), (3, 6, [3, 6]),
                                                           (9, 3, [3])])
def test_validation_every_so_many_epochs_and_at_the_last(monkeypatch, every, epochs, measured):
    _, x, y = images()
    Scripted(monkeypatch, *FIGURES)
    history = fit(net(), (x, y), Standard(), epochs=epochs, validation=(x, y), threat=LINF, every=every)
    assert [record.epoch for record in history if record.robust is not None] == measured
    assert [record.epoch for record in history if record.score is None] == [
        epoch for epoch in range(1, epochs + 1) if epoch not in measured]


def test_patience(monkeypatch):
    _, x, y = images()
    Scripted(monkeypatch, (90, 50, 30), (90, 50, 45), (90, 50, 44), (90, 50, 45), (90, 50, 99))
    model, after = net(), []
    history = fit(model, (x, y), Standard(), epochs=9, validation=(x, y), threat=LINF, patience=2,
                  on_epoch=lambda of, record: after.append(state(of)))
    assert len(history) == 4  # an epoch as good as the best is no better one
    assert history.kept == 2
    assert history.stopped == "no better epoch in the last 2 measured"
    assert equal(model, after[1])


def test_patience_counts_measured_epochs(monkeypatch):
    _, x, y = images()
    Scripted(monkeypatch, (90, 50, 45), (90, 50, 44), (90, 50, 43))
    history = fit(net(), (x, y), Standard(), epochs=20, validation=(x, y), threat=LINF, patience=2, every=3)
    assert len(history) == 9
    assert history.kept == 3


@pytest.mark.parametrize("objective", [FastFGSM(LINF), PGDTraining(LINF, steps=1)], ids=["fgsm-rs", "pgd-1"])
@pytest.mark.parametrize(("on_collapse", "epochs"), [("stop", 3), ("warn", 5)])
def test_catastrophic_overfitting_stops_the_training_or_is_noted(monkeypatch, objective, on_collapse, epochs):
    _, x, y = images()
    Scripted(monkeypatch, (90, 50, 30), (90, 50, 45), (90, 80, 2), (90, 40, 40), (90, 40, 41))
    model, after = net(), []
    history = fit(model, (x, y), objective, epochs=5, validation=(x, y), on_collapse=on_collapse, keep="last",
                  on_epoch=lambda of, record: after.append(state(of)))
    assert len(history) == epochs
    assert history.collapsed
    assert (history.stopped if on_collapse == "stop" else history.noted).startswith("catastrophic overfitting")
    assert (history.noted if on_collapse == "stop" else history.stopped) is None
    # Weights that collapsed are not handed on, whatever was to be kept; a run to its end hands on its last.
    assert history.kept == (2 if on_collapse == "stop" else 5)
    assert equal(model, after[history.kept - 1])


@pytest.mark.parametrize("objective", [Standard(), PGDTraining(LINF, steps=2), lambda model, x, y: F.cross_entropy(
    model(x), y)], ids=["standard", "pgd", "function"])
def test_with_other_objectives_it_is_noted_and_training_goes_on(monkeypatch, objective):
    """Ordinary training can end like that too: quick against one step, and nothing gone wrong."""
    _, x, y = images()
    Scripted(monkeypatch, (90, 50, 30), (90, 50, 45), (90, 80, 2), (90, 80, 2), (90, 40, 41))
    history = fit(net(), (x, y), objective, epochs=5, validation=(x, y), threat=LINF)
    assert len(history) == 5
    assert (history.stopped, history.collapsed, history.kept) == (None, False, 2)
    assert history.noted.startswith("catastrophic overfitting")


def test_one_step_training_that_nobody_watches_says_so():
    _, x, y = images()
    assert "nobody watched" in fit(net(), (x, y), FastFGSM(LINF), epochs=1).noted
    assert fit(net(), (x, y), Standard(), epochs=1).noted is None


def test_patience_begins_at_full_size(monkeypatch):
    """Epochs in which ε grows get worse by themselves."""
    _, x, y = images()
    Scripted(monkeypatch, (90, 80, 70), *[(90, 60, 50 - k) for k in range(5)], (90, 80, 60), (90, 80, 60))
    settings = {"epochs": 8, "validation": (x, y), "patience": 3}
    assert len(fit(net(), (x, y), PGDTraining(LINF, steps=1), ramp=3, on_collapse="warn", **settings)) == 6


def test_on_epoch_sees_the_model_of_that_epoch_and_may_change_its_mode():
    _, x, y = images()
    watched, alone, seen = net(), net(), []

    def look(model, record):
        seen.append((record.epoch, model is watched))
        model.eval()
        torch.manual_seed(3)

    fit(watched, (x, y), Standard(), epochs=3, on_epoch=look)
    fit(alone, (x, y), Standard(), epochs=3, on_epoch=lambda model, record: torch.manual_seed(3))
    assert seen == [(1, True), (2, True), (3, True)]
    assert equal(watched, alone)


# Traces.


def test_validation_leaves_no_trace_on_the_training():
    """Weights, batch-norm statistics and dropout are those of a training that was never measured."""
    _, x, y = images()
    measured, alone = net(), net()
    fit(measured, (x, y), Standard(), epochs=3, validation=(x, y), threat=LINF, validation_steps=2, keep="last")
    fit(alone, (x, y), Standard(), epochs=3)
    assert equal(measured, alone)
    assert int(alone.body[1].num_batches_tracked) == 15


@pytest.mark.parametrize(("objective", "passes"), [(Standard(), 1), (PGDTraining(LINF, steps=2), 1),
                                                   (TRADES(LINF, steps=2), 2)], ids=["standard", "pgd", "trades"])
def test_batch_norm_statistics_move_by_the_steps_passes_alone(objective, passes):
    _, x, y = images()
    model = net()
    fit(model, (x, y), objective, epochs=2, validation=(x, y), keep="last")
    assert int(model.body[1].num_batches_tracked) == 10 * passes


def test_the_global_generator_is_as_it_was_and_does_not_matter():
    _, x, y = images()
    first, second = net(), net()
    torch.manual_seed(11)
    before = torch.get_rng_state()
    fit(first, (x, y), PGDTraining(LINF, steps=1), epochs=1, validation=(x, y), augment=(Shift(1),))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(12)
    fit(second, (x, y), PGDTraining(LINF, steps=1), epochs=1, validation=(x, y), augment=(Shift(1),))
    assert equal(first, second)


def test_the_model_is_left_in_eval_mode_and_the_data_as_they_were():
    model, x, y = images()
    before = x.clone(), y.clone()
    fit(model.train(), (x, y), PGDTraining(LINF, steps=1), epochs=1, augment=(Flip(), Shift(1)))
    assert not any(module.training for module in model.modules())
    assert x.equal(before[0])
    assert y.equal(before[1])


def test_nothing_is_written_without_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, x, y = images()
    fit(net(), (x, y), Standard(), epochs=1, validation=(x, y), save_seconds=0)
    assert not list(tmp_path.iterdir())


# Data and objectives of other kinds.


class Pairs(Dataset):
    def __init__(self, x, y):
        self.x, self.y = x, y

    def __len__(self):
        return len(self.x)

    def __getitem__(self, number):
        return self.x[number], int(self.y[number])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_dataset_gives_the_same_as_tensors(workers):
    _, x, y = images(n=43)
    tensors, dataset = net(), net()
    settings = {"epochs": 2, "augment": (Flip(), Shift(1)), "seed": 4}
    first = fit(tensors, (x, y), PGDTraining(LINF, steps=1), **settings)
    second = fit(dataset, Pairs(x, y), PGDTraining(LINF, steps=1), workers=workers, **settings)
    assert equal(tensors, dataset)  # its dropout too
    assert history_without_seconds(first) == history_without_seconds(second)


def test_a_datasets_images_are_checked():
    _, x, y = images()
    with pytest.raises(ValueError, match="normalization outside the model"):
        fit(net(), Pairs(4 * x - 2, y), Standard(), epochs=1)


def test_any_function_can_be_the_objective():
    _, x, y = images()
    ours, theirs = net(), net()
    fit(ours, (x, y), Standard(), epochs=2, validation=(x, y))
    fit(theirs, (x, y), cross_entropy, epochs=2, validation=(x, y))
    assert equal(ours, theirs)


def test_images_of_double_precision():
    _, x, y = images()
    model = net().double()
    fit(model, (x.double(), y), TRADES(LINF, steps=1), epochs=1, validation=(x.double(), y))
    assert model.body[0].weight.dtype == torch.float64


def test_channels_last_is_the_same_training_up_to_rounding():
    _, x, y = images()
    plain, last = net(), net()
    plain.body[4].p = last.body[4].p = 0.0  # masks are drawn in the order of memory
    fit(plain, (x, y), Standard(), epochs=1, optimizer="sgd")  # Adam would blow up a gradient that is all rounding
    fit(last, (x, y), Standard(), epochs=1, optimizer="sgd", channels_last=True)
    assert last.body[0].weight.is_contiguous(memory_format=torch.channels_last)
    for a, b in zip(plain.state_dict().values(), last.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("objective", [Standard(), PGDTraining(LINF, steps=2), TRADES(LINF, steps=2),
                                       SmoothAdversarial(ThreatModel("l2", 0.5), 0.1, samples=2)],
                         ids=["standard", "pgd", "trades", "smoothadv"])
def test_mixed_precision_is_close(objective):
    _, x, y = images()
    losses = {}
    for mixed in (False, True):
        model, types = net(), []
        model.body[5].register_forward_hook(lambda module, inputs, output, types=types: types.append(output.dtype))
        model.body[4].p = 0.0
        history = fit(model, (x, y), objective, epochs=3, batch_size=20, mixed_precision=mixed,
                      schedule=Piecewise(1e-3))
        assert set(types) == {torch.bfloat16 if mixed else torch.float32}
        assert all(p.dtype == torch.float32 for p in model.parameters())
        losses[mixed] = [record.loss for record in history]
    assert losses[True] == pytest.approx(losses[False], rel=0.05)
    assert losses[True] != losses[False]


# A loss that is no number.


class Broken:
    """Cross-entropy that fails at its step of this number (from 1), by the loss or by its gradient alone."""

    def __init__(self, at, what="loss"):
        self.at, self.what, self.calls, self.shown = at, what, 0, None

    def __call__(self, model, x, y):
        self.calls += 1
        loss = cross_entropy(model, x, y)
        if self.calls != self.at:
            return loss
        self.shown = x.clone()
        if self.what == "gradient":
            return loss + (model(x).sum() * 0).sqrt()
        return loss * {"loss": torch.nan, "infinite": torch.inf}[self.what]


@pytest.mark.parametrize("what", ["loss", "infinite", "gradient"])
@pytest.mark.parametrize("averaging", [None, 0.8])
def test_a_loss_that_is_no_number_ends_the_training_with_the_last_good_weights(tmp_path, what, averaging):
    _, x, y = images()
    model, good, after = net(), net(), []
    objective = Broken(at=5 + 3, what=what)
    with pytest.raises(Diverged, match=r"in epoch 2, step 3 \(images \d+, ") as caught:
        fit(model, (x, y), objective, epochs=3, validation=(x, y), folder=tmp_path, averaging=averaging,
            on_epoch=lambda of, record: after.append(state(of)))
    fit(good, (x, y), cross_entropy, epochs=1)
    assert equal(model, good)
    assert all(value.isfinite().all() for value in model.state_dict().values())
    assert not model.training
    words = str(caught.value)
    assert {"loss": "the loss is nan", "infinite": "the loss is inf",
            "gradient": "the gradient's length is"}[what] in words
    assert f"{tmp_path} keeps the last good state" in words
    assert "clip=1.0" in words
    named = [int(number) for number in words.split("(images ")[1].split(", ...")[0].split(", ")]
    assert x[named].equal(objective.shown[:5])
    assert equal(safe(tmp_path / "best.safetensors"), after[0])
    assert equal(safe(tmp_path / "last.safetensors"), after[0])
    assert not (tmp_path / "kept.safetensors").exists()
    assert len(History.load(tmp_path / "history.json")) == 1


def test_from_the_state_that_is_left_a_mended_training_goes_on(tmp_path):
    _, x, y = images()
    broken, unbroken = net(), net()
    objective = Broken(at=8)
    settings = {"epochs": 3, "validation": (x, y), "averaging": 0.8}
    with pytest.raises(Diverged):
        fit(broken, (x, y), objective, folder=tmp_path, **settings)
    mended = fit(broken, (x, y), objective, folder=tmp_path, **settings)
    whole = fit(unbroken, (x, y), Broken(at=None), **settings)
    assert equal(broken, unbroken)
    assert history_without_seconds(mended) == history_without_seconds(whole)


def test_in_the_first_epoch_the_weights_are_the_callers():
    _, x, y = images()
    model = net()
    with pytest.raises(Diverged, match="epoch 1, step 2"):
        fit(model, (x, y), Broken(at=2), epochs=2)
    assert equal(model, net())


def test_a_training_that_really_diverges():
    _, x, y = images()
    model = nn.Sequential(nn.Flatten(), nn.Linear(144, 64), nn.ReLU(), nn.Linear(64, 5))
    before = state(model)
    with pytest.raises(Diverged, match=r"the loss is (nan|inf)"):
        fit(model, (x, y), Standard(), epochs=1, optimizer="sgd", schedule=Piecewise(1e30))
    assert equal(model, before)


FLAT = {
    "mlp": lambda: nn.Sequential(nn.Flatten(), nn.Linear(144, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(),
                                 nn.Linear(16, 5)),
    "batch norm": lambda: nn.Sequential(nn.Flatten(), nn.Linear(144, 16), nn.BatchNorm1d(16), nn.ReLU(),
                                        nn.Linear(16, 5)),
}


@pytest.mark.parametrize("build", FLAT)
@pytest.mark.parametrize("rate", [1e10, 1e18, 3e38])
@pytest.mark.parametrize("objective", [PGDTraining(LINF, steps=2), TRADES(LINF, steps=2), FastFGSM(LINF)],
                         ids=["pgd", "trades", "fgsm-rs"])
def test_it_diverges_in_so_many_words_whatever_notices_it_first(tmp_path, build, rate, objective):
    """The loss, the gradient, the attack inside, the validation, or statistics of batch norm that are left."""
    _, x, y = images()
    torch.manual_seed(0)
    model, after = FLAT[build](), []
    start = state(model)
    with pytest.raises(Diverged, match=r"epoch \d") as caught:
        fit(model, (x, y), objective, epochs=9, optimizer="sgd", schedule=Piecewise(rate), validation=(x, y),
            validation_steps=2, folder=tmp_path, on_epoch=lambda of, record: after.append(state(of)))
    assert equal(model, after[-1] if after else start)
    assert not model.training
    assert "Try a lower learning rate" in str(caught.value)
    assert ("keeps the last good state" in str(caught.value)) == (tmp_path / "state.pt").exists()


def test_a_model_that_answers_nan_to_validation_images_has_diverged():
    """Finite in train mode, where batch norm takes the batch's own statistics; its running variance is negative."""
    _, x, y = images()
    model = net()

    def spoil(of, inputs):
        if of.training:
            next(module for module in of.modules() if isinstance(module, nn.BatchNorm2d)).running_var.fill_(-1.0)

    model.register_forward_pre_hook(spoil)
    settings = {"epochs": 2, "threat": LINF, "validation": (x, y), "schedule": Piecewise(1e-9)}
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.0
    with pytest.raises(Diverged, match="after epoch 1 the model answers NaN to validation images"):
        fit(model, (x, y), Standard(), **settings)
    assert not model.training


def test_statistics_that_are_no_numbers_are_not_kept(tmp_path, monkeypatch):
    """Weights and losses are finite all the way; batch norm's running mean is not."""
    _, x, y = images()
    model, step = net(), AdamW.step
    norm = next(module for module in model.modules() if isinstance(module, nn.BatchNorm2d))

    def spoil(self, *arguments, **settings):
        norm.running_mean.fill_(torch.inf)
        return step(self, *arguments, **settings)

    monkeypatch.setattr(AdamW, "step", spoil)
    with pytest.raises(Diverged, match="last step of epoch 1 left weights that are no numbers"):
        fit(model, (x, y), Standard(), epochs=2, folder=tmp_path, save_seconds=0)
    assert equal(model, net())
    assert not (tmp_path / "state.pt").exists()


def test_weights_that_the_last_step_of_an_epoch_has_ruined_are_not_kept(tmp_path):
    """The loss was finite; the step that it led to was not."""
    _, x, y = images()
    model = nn.Sequential(nn.Flatten(), nn.Linear(144, 5))
    before = state(model)
    with pytest.raises(Diverged, match="last step of epoch 1 left weights that are no numbers"):
        fit(model, (x, y), Standard(), epochs=2, batch_size=40, optimizer="sgd", schedule=Piecewise(1e38),
            weight_decay=100.0, validation=(x, y), folder=tmp_path)
    assert equal(model, before)
    assert not model.training
    assert not (tmp_path / "state.pt").exists()


# The bar.


def test_the_bar_shows_clean_and_robust_accuracy(monkeypatch, capsys):
    bar = fit_module.tqdm
    monkeypatch.setattr(fit_module, "tqdm", lambda **settings: bar(**settings | {"delay": 0, "mininterval": 0}))
    _, x, y = images()
    settings = {"epochs": 2, "validation": (x, y), "validation_steps": 2}
    history = fit(net(), (x, y), PGDTraining(LINF, steps=1), progress=True, **settings)
    first = history.epochs[0]
    said = capsys.readouterr().err
    assert "epoch 1/2" in said
    assert "5/5" in said
    second = said.split("epoch 2/2")[1]
    assert f"clean {100 * first.clean.value:.1f} %, robust {100 * first.robust.value:.1f} %" in second
    fit(net(), (x, y), Standard(), progress=False, **settings)
    assert capsys.readouterr().err == ""


def test_a_short_training_shows_no_bar(capsys):
    _, x, y = images()
    fit(net(), (x, y), Standard(), epochs=1, progress=True)
    assert capsys.readouterr().err == ""


# What it refuses.


def few():
    _, x, y = images()
    return x, y


def without(x, y):
    return x[:0], y[:0]


@pytest.mark.parametrize(("settings", "error", "words"), [
    ({"epochs": 0}, ValueError, "epochs must be at least 1; found 0"),
    ({"epochs": 1.5}, TypeError, "epochs must be a whole number"),
    ({"batch_size": 0}, ValueError, "batch_size must be at least 1"),
    ({"every": 0}, ValueError, "every must be at least 1"),
    ({"validation_steps": 0}, ValueError, "validation_steps must be at least 1"),
    ({"ramp": -1}, ValueError, "ramp must be at least 0"),
    ({"seed": 0.5}, TypeError, "seed must be a whole number"),
    ({"keep": "first"}, ValueError, "keep must be one of best, last; found 'first'"),
    ({"on_collapse": "ignore"}, ValueError, "on_collapse must be one of stop, warn"),
    ({"optimizer": "adam"}, ValueError, "optimizer must be one of adamw, sgd"),
    ({"averaging": 0.0}, ValueError, "averaging is a decay between 0 and 1"),
    ({"averaging": 1.0}, ValueError, "averaging is a decay between 0 and 1"),
    ({"patience": 2}, ValueError, r"patience compares epochs on validation images: give validation=\(x, y\)"),
    ({"patience": 0, "validation": few()}, ValueError, "patience must be at least 1"),
    ({"weight_decay": -1.0}, ValueError, "weight_decay"),
    ({"clip": 0.0}, ValueError, "clip must be positive"),
    ({"clip": -1.0}, ValueError, "clip must be positive"),
    ({"clip": float("nan")}, ValueError, "clip must be positive"),
    ({"threat": "linf:0.1"}, TypeError, "threat must be a ThreatModel"),
    ({"schedule": "one-cycle"}, TypeError, r"schedule must be OneCycle\(...\) or Piecewise"),
    ({"schedule": OneCycle}, TypeError, "schedule must be"),
    ({"validation": list(few())}, TypeError, r"validation must be images and labels, \(x, y\); found list of 2"),
    ({"validation": 5}, TypeError, "validation must be images and labels, .* found int"),
    ({"validation": Pairs(*few())}, TypeError, "validation must be images and labels, .* found Pairs"),
    ({"seed": 2**60}, ValueError, r"seed must be smaller than 2\^48; found 1152921504606846976"),
    ({"augment": Flip()}, TypeError, r"augment must be a list of augmentations, such as \[Flip\(\), Shift"),
    ({"augment": "flip"}, TypeError, "augment must be a list of augmentations"),
    ({"augment": ("flip",)}, TypeError, "augment must be a list of augmentations"),
    ({"clip": "1"}, TypeError, "clip must be a number; found '1'"),
    ({"weight_decay": "1"}, TypeError, "weight_decay must be a number"),
    ({"averaging": 0.99}, ValueError, r"averaging = 0\.99 over 5 steps would still be 95 % the first step's weights: "
                                      r"take 0\.63 or less"),
    ({"workers": -1}, ValueError, "workers must be at least 0"),
    ({"validation": without(*few())}, ValueError, "no images"),
    ({"validation": (few()[0], few()[1][:3])}, ValueError, "one label per image"),
    ({"validation": (4 * few()[0], few()[1])}, ValueError, "normalization outside the model"),
], ids=lambda value: "-".join(value) if isinstance(value, dict) else "says")
def test_wrong_arguments_are_refused_before_any_work(settings, error, words):
    model = net()
    with pytest.raises(error, match=words):
        fit(model, few(), Standard(), **({"epochs": 1} | settings))
    assert equal(model, net())


@pytest.mark.parametrize(("wrong", "error", "words"), [
    (lambda x, y: (4 * x - 2, y), ValueError, "normalization outside the model"),
    (lambda x, y: ((255 * x).to(torch.uint8), y), TypeError, "Divide 8-bit images by 255"),
    (lambda x, y: (x, y.float()), TypeError, "int64"),
    (lambda x, y: (x, y[:5]), ValueError, "one label per image"),
    (without, ValueError, "no images to train on"),
    (lambda x, y: Pairs(x[:0], y[:0]), ValueError, "no images to train on"),
    (lambda x, y: (x.numpy(), y.numpy()), TypeError, "torch.Tensor"),
    (lambda x, y: [x, y], TypeError, r"\(x, y\)"),
    (lambda x, y: x, TypeError, r"\(x, y\)"),
    (lambda x, y: (x, y, y), TypeError, r"\(x, y\)"),
    (lambda x, y: (x, y + 1), ValueError, r"labels must lie in 0 \.\.\. 4 for 5 logits; found 1 to 5"),
    (lambda x, y: (x, torch.where(y == 1, -100, y)), ValueError, "labels must be 0 or more; found -100"),
    (lambda x, y: Pairs(x, torch.full_like(y, -100)), ValueError, "labels must be 0 or more; found -100"),
], ids=["normalized", "integers", "float labels", "few labels", "none", "empty dataset", "arrays", "list", "images",
        "three", "too large", "ignored", "ignored in a dataset"])
def test_wrong_data_are_refused(wrong, error, words):
    with pytest.raises(error, match=words):
        fit(net(), wrong(*few()), Standard(), epochs=1)


class Endless(IterableDataset):
    def __iter__(self):
        yield from ()


def test_a_stream_is_refused():
    with pytest.raises(TypeError, match="map-style Dataset; found Endless"):
        fit(net(), Endless(), Standard(), epochs=1)


@pytest.mark.parametrize("wrong", [Standard, PGDTraining, "standard", None])
def test_what_is_no_objective_is_refused(wrong):
    with pytest.raises(TypeError, match=r"Standard\(\) with its parentheses"):
        fit(net(), few(), wrong, epochs=1)


@pytest.mark.parametrize(("returned", "found"), [
    (lambda loss: torch.stack([loss, loss]), r"found shape \(2,\), with a gradient"),
    (lambda loss: loss.detach(), r"found shape \(\), without a gradient"),
    (lambda loss: loss.item(), r"found \d\.\d+"), (lambda loss: None, "found None")],
    ids=["two", "no gradient", "number", "none"])
def test_what_is_no_loss_is_refused(returned, found):
    with pytest.raises(TypeError, match=f"must return one number with a gradient, .*{found}"):
        fit(net(), few(), lambda model, x, y: returned(cross_entropy(model, x, y)), epochs=1)


def test_a_function_cannot_be_ramped():
    with pytest.raises(ValueError, match="leave out ramp = 3"):
        fit(net(), few(), cross_entropy, epochs=1, ramp=3)


def test_points_have_no_pixels_to_move():
    with pytest.raises(ValueError, match=r"images \(N, C, H, W\); found shape \(200, 2\)"):
        fit(mlp(), plane(), Standard(), epochs=1, augment=(Flip(),))


def test_a_model_without_anything_to_train_is_refused():
    with pytest.raises(ValueError, match="nothing to train"):
        fit(net().requires_grad_(False), few(), Standard(), epochs=1)
    with pytest.raises(ValueError, match="nothing to train"):
        fit(nn.Flatten(), few(), Standard(), epochs=1)


def test_robust_accuracy_is_that_of_the_kept_model():
    """What the history says of the kept epoch, measured again on the model that is handed back."""
    _, x, y = images()
    model = net()
    history = fit(model, (x, y), PGDTraining(LINF, steps=2), epochs=4, validation=(x, y), validation_steps=5)
    kept = history.epochs[history.kept - 1]
    robust = PGD(LINF, steps=5, loss="margin").run(model, x, y).success
    assert kept.robust == Accuracy(int((~robust).sum()), 40)
    assert kept.clean == Accuracy(int((model(x).argmax(1) == y).sum()), 40)
