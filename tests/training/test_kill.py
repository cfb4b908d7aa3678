"""A training that is really killed, and started again: it ends as if nothing had happened.

    python test_kill.py FOLDER     as a script: all of DEATHS, each in a process of its own, under this folder
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import traceback
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from robustness_lib import ThreatModel, models
from robustness_lib.training import (
    Flip,
    History,
    Objective,
    OneCycle,
    PGDTraining,
    Shift,
    Standard,
    _folder,
    fit,
    history,
)

EPOCHS, STEPS = 4, 4
THREAT = ThreatModel("linf", 0.05)
# Moments: "epoch 2" (after that epoch), "step 7" (before the step after this one), "file 5" (half of the file of this
# number is written), "never". Where each ends: epoch and step in the state, or None where there is none.
DEATHS = {
    "between epochs": (["epoch 2"], (2, 0)),
    "in the first epoch": (["step 2"], (0, 2)),
    "in the third epoch": (["step 11"], (2, 3)),
    "in the header": (["file 1"], None),
    "in the first state": (["file 2"], None),
    "in the best weights": (["file 5"], (0, 3)),
    "in the last weights": (["file 6"], (0, 3)),
    "in the history": (["file 7"], (0, 3)),
    "in the state of an epoch": (["file 8"], (0, 3)),
    "again and again": (["step 3", "file 4", "step 2", "epoch 3"], (3, 0)),
}


def net():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return models.small_cnn((4, 6), in_shape=(3, 8, 8), classes=3, hidden=8, batch_norm=True, dropout=0.3)


def images(n=38):
    """Of class 1 with a bright left half, of class 2 with a bright upper one."""
    generator = torch.Generator().manual_seed(1)
    y = torch.arange(n) % 3
    x = 0.6 * torch.rand((n, 3, 8, 8), generator=generator)
    x[y == 1, :, :, :4] += 0.3
    x[y == 2, :, :4] += 0.3
    return x, y


def train(folder, objective=None, data=None, **settings):
    """A training with everything that has a memory: dropout, batch norm, momentum, schedule, averaging, random
    shifts and starts, best weights, patience."""
    model, (x, y) = net(), images()
    record = fit(model, (x, y) if data is None else data, objective or PGDTraining(THREAT, steps=2), **({
        "epochs": EPOCHS, "batch_size": 9, "schedule": OneCycle(5e-2), "averaging": 0.8, "clip": 1.0, "ramp": 2,
        "augment": (Flip(), Shift(1)), "validation": (x[:20], y[:20]), "validation_steps": 2, "patience": 3,
        "save_seconds": 0, "seed": 5, "folder": folder, "progress": False} | settings))
    return model, record


def without_seconds(record):
    content = record.to_dict()
    for epoch in content["epochs"]:
        del epoch["seconds"]
    return content


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def train_until(folder, result, moment):
    kind, _, number = moment.partition(" ")
    if kind == "epoch":
        _folder.TrainingFolder.write = killed_after_epoch(int(number))
    elif kind == "step":
        nn.Sequential.__call__ = killed_after_passes(int(number))
    elif kind == "file":
        _folder.write_whole = history.write_whole = killed_half_way(int(number))
    model, record = train(folder)
    torch.save(model.state_dict(), f"{result}.pt")
    record.save(f"{result}.json")


def killed_after_epoch(number, write=_folder.TrainingFolder.write):
    def write_and_die(self, state):
        write(self, state)
        if state["position"]["epoch"] == number:
            die()

    return write_and_die


def killed_after_passes(number, call=nn.Sequential.__call__):
    """Passes in train mode: one a step."""
    passes = []

    def wrapped(self, *inputs):
        passes.extend([1] * self.training)
        if len(passes) > number:
            die()
        return call(self, *inputs)

    return wrapped


def killed_half_way(number, write_whole=_folder.write_whole):
    written = []

    def write(path, content):
        written.append(path)
        if len(written) == number:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.with_name(f"{path.name}.0123.part").write_bytes(content[:len(content) // 2])
            die()
        write_whole(path, content)

    return write


def in_a_process(*arguments):
    """How it ended: 0, or minus the signal. A fork: PyTorch is loaded once for all of them."""
    child = os.fork()
    if child == 0:
        try:
            train_until(*arguments)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.fixture(scope="module")
def unbroken():
    return train(None)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of an unbroken training."""
    folder = tmp_path_factory.mktemp("whole")
    train(folder)
    return folder


@pytest.fixture(scope="module")
def dead(tmp_path_factory):
    """A folder for each of DEATHS, and "finished", where a fresh process has gone on after "again and again"."""
    folder = tmp_path_factory.mktemp("dead")
    done = subprocess.run([sys.executable, __file__, str(folder)], env=os.environ | {"OMP_NUM_THREADS": "1"}, text=True,
                          capture_output=True, timeout=500)
    assert done.returncode == 0, done.stderr
    expected = {name: [-signal.SIGKILL] * len(moments) for name, (moments, _) in DEATHS.items()} | {"finished": [0]}
    assert json.loads(done.stdout) == expected, done.stderr
    return folder


def die_all_deaths(folder):
    ends = {name: [in_a_process(folder / name, folder / f"{name} result", moment) for moment in moments]
            for name, (moments, _) in DEATHS.items()}
    shutil.copytree(folder / "again and again", folder / "finished")
    ends["finished"] = [in_a_process(folder / "finished", folder / "finished result", "never")]
    print(json.dumps(ends))


@pytest.mark.parametrize("name", DEATHS)
def test_killed_and_started_again_it_ends_with_the_same_weights(unbroken, whole, dead, name):
    folder, at = dead / name, DEATHS[name][1]
    assert not (dead / f"{name} result.pt").exists()
    assert not (folder / "kept.safetensors").exists()
    assert bool(list(folder.glob("*.part"))) == name.startswith("in the ") * ("file" in DEATHS[name][0][0])
    if at is None:
        assert not (folder / "state.pt").exists()
    else:
        position = torch.load(folder / "state.pt", weights_only=True)["position"]
        assert (position["epoch"], position["step"]) == at
    model, record = train(folder)
    check_the_same(model, record, *unbroken)
    assert name == "in the header" or not list(folder.glob("*.part"))  # that one is not begun yet
    assert History.load(folder / "history.json") == record
    for kind in ("best", "last", "kept"):
        assert (folder / f"{kind}.safetensors").read_bytes() == (whole / f"{kind}.safetensors").read_bytes(), kind


@pytest.mark.parametrize("file", range(1, 18))
def test_no_moment_leaves_a_file_that_is_never_mended(whole, tmp_path, monkeypatch, file):
    """Stopped before each file that is written in turn."""
    count, write = [], _folder.write_whole

    def stopped(path, content):
        count.append(path)
        if len(count) == file:
            raise KeyboardInterrupt
        write(path, content)

    for module in (_folder, history):
        monkeypatch.setattr(module, "write_whole", stopped)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, save_seconds=1000)
    train(tmp_path, save_seconds=1000)
    for kind in ("best", "last", "kept"):
        assert (tmp_path / f"{kind}.safetensors").read_bytes() == (whole / f"{kind}.safetensors").read_bytes(), kind


def check_the_same(model, record, expected, expected_record):
    for name, value in expected.state_dict().items():
        assert model.state_dict()[name].equal(value), name
    assert without_seconds(record) == without_seconds(expected_record)
    assert not model.training


def test_finished_by_a_process_of_its_own(unbroken, dead):
    model, record = net(), History.load(dead / "finished result.json")
    model.load_state_dict(torch.load(dead / "finished result.pt", weights_only=True))
    check_the_same(model.eval(), record, *unbroken)


def test_the_training_has_all_that_could_be_forgotten(unbroken):
    """Each of these changes the weights, so that a state without it would be seen."""
    model, record = unbroken
    weights = model.state_dict()["9.weight"]
    assert record.kept < EPOCHS
    assert len({epoch.robust.correct for epoch in record}) > 1
    for other in ({"averaging": 0.7}, {"augment": (Flip(),)}, {"clip": 0.1}, {"ramp": 0}, {"seed": 6},
                  {"schedule": OneCycle(1e-2)}, {"keep": "last"}):
        assert not train(None, **other)[0].state_dict()["9.weight"].equal(weights), other


@dataclass(frozen=True)
class Interrupted(Objective):
    """PGD training that is interrupted at its call of this number, as by Ctrl-C; to a folder it is always the same."""

    at: int | None = field(repr=False)
    exception: type[BaseException] = field(default=KeyboardInterrupt, repr=False)
    calls: list[int] = field(default_factory=list, repr=False)

    def __call__(self, model, x, y, *, index=None, seed=0):
        self.calls.append(1)
        if len(self.calls) == self.at:
            raise self.exception
        return PGDTraining(THREAT, steps=1)(model, x, y)


def interrupted(at, exception=KeyboardInterrupt):
    return Interrupted(at, exception)


@pytest.mark.parametrize("at", [1, 2, 5, 8, 16])
@pytest.mark.parametrize("kind", ["tensors", "dataset"])
def test_interrupted_at_any_step_it_goes_on_from_there(tmp_path, at, kind):
    data = None if kind == "tensors" else TensorDataset(*images())
    expected = train(None, interrupted(None), data)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, interrupted(at), data)
    objective = interrupted(None)
    model, record = train(tmp_path, objective, data)
    check_the_same(model, record, *expected)
    assert len(objective.calls) == EPOCHS * STEPS - (at - 1)


def test_a_state_is_written_only_every_so_many_seconds(tmp_path, monkeypatch):
    saved = []
    monkeypatch.setattr(_folder.TrainingFolder, "write", lambda self, state: saved.append(state["position"]["step"]))
    train(tmp_path / "often", Standard())
    assert saved == [1, 2, 3, 0] * EPOCHS
    saved.clear()
    train(tmp_path / "seldom", Standard(), save_seconds=1000)
    assert saved == [0] * EPOCHS


# A finished folder.


@pytest.mark.parametrize("keep", ["best", "last"])
def test_a_finished_training_comes_back_at_once(tmp_path, keep):
    model, record = train(tmp_path, interrupted(None), keep=keep)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert before.keys() == {"header.json", "state.pt", "history.json", "best.safetensors", "last.safetensors",
                             "kept.safetensors"}
    again, same = train(tmp_path, interrupted(1), keep=keep)  # a single step would raise
    check_the_same(again, same, model, record)
    assert same == record
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_one_that_has_stopped_early_is_finished(tmp_path):
    settings = {"patience": 1, "schedule": OneCycle(1e-9), "augment": (), "averaging": 0.5}  # nothing gets better
    model, record = train(tmp_path, interrupted(None), **settings)
    assert len(record) == 3  # the first at full ε
    again, same = train(tmp_path, interrupted(1), **settings)
    check_the_same(again, same, model, record)
    assert same.stopped == "no better epoch in the last 1 measured"


# A folder that is not this training's, or damaged.


@pytest.fixture
def begun(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, interrupted(3))
    return tmp_path


@pytest.mark.parametrize(("change", "words"), [
    ({"epochs": 5}, r"not the same epochs \(was 4, is 5\)\. Go on with what it was begun with"),
    ({"batch_size": 8}, r"batch_size \(was 9, is 8\)"),
    ({"seed": 6}, r"seed \(was 5, is 6\)"),
    ({"averaging": None}, r"averaging \(was 0\.8, is None\)"),
    ({"augment": (Shift(1),)}, r"augment \(was \(Flip\(\), Shift\(by=1\)\), is \(Shift\(by=1\),\)\)"),
    ({"schedule": OneCycle(1e-2)}, r"schedule \(was OneCycle\(peak=0\.05, warm_up=0\.3\), is OneCycle\(peak=0\.01"),
    ({"validation": None, "patience": None}, r"patience \(was 3, is None\); validation \(was [0-9a-f]+\.*, is none\)"),
    ({"data": (images()[0], images()[1].flip(0))}, r"data \(was "),
    ({"data": TensorDataset(*images())}, r"is TensorDataset, 38 examples\)"),
    ({"optimizer": "sgd"}, r"optimizer \(was 'adamw', is 'sgd'\)"),
    ({"threat": ThreatModel("linf", 0.2)}, r"threat \(was None, is ThreatModel"),
    ({"weight_decay": 0.0}, r"weight_decay \(was 0\.0005, is 0\.0\)"),
], ids=lambda value: "-".join(value) if isinstance(value, dict) else "says")
def test_another_training_is_refused_and_what_differs_is_named(begun, change, words):
    before = (begun / "state.pt").read_bytes()
    with pytest.raises(ValueError, match=words) as caught:
        train(begun, interrupted(None), **change)
    assert f"the training in {begun} is another one" in str(caught.value)
    assert (begun / "state.pt").read_bytes() == before


def test_another_objective_and_another_model_are_refused(tmp_path):
    train(tmp_path, Standard(), epochs=1, averaging=None)
    with pytest.raises(ValueError, match=r"objective \(was Standard\(label_smoothing=0\.0\), is Standard\(label"):
        train(tmp_path, Standard(label_smoothing=0.1), epochs=1, averaging=None)
    (x, y), other = images(), nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    with pytest.raises(ValueError, match=r"model \(was Sequential"):
        fit(other, (x, y), Standard(), epochs=1, folder=tmp_path, progress=False)


class Scaled(nn.Module):
    """A setting that is neither printed nor in the weights, as normalization is."""

    def __init__(self, by):
        super().__init__()
        self.register_buffer("by", torch.tensor(by), persistent=False)

    def forward(self, x):
        return x * self.by


def test_a_model_that_computes_something_else_is_refused(tmp_path):
    x, y = images()
    settings = {"epochs": 1, "folder": tmp_path, "progress": False}
    for by, seed in ((1.0, 0), (1.0, 1), (2.0, 0)):
        torch.manual_seed(seed)
        model = nn.Sequential(Scaled(by), nn.Flatten(), nn.Linear(192, 3))
        if by == 1.0:  # other initial weights are of no account: those of the state take their place
            fit(model, (x, y), Standard(), **settings)
        else:
            with pytest.raises(ValueError, match="not the same what the model computes"):
                fit(model, (x, y), Standard(), **settings)


def test_a_function_that_has_closed_over_something_else_is_refused(tmp_path):
    def weighted(by):
        return lambda model, x, y: by * torch.nn.functional.cross_entropy(model(x), y)

    train(tmp_path, weighted(1.0), ramp=0)
    train(tmp_path, weighted(1.0), ramp=0)
    with pytest.raises(ValueError, match="not the same objective"):
        train(tmp_path, weighted(-5.0), ramp=0)


def test_a_folder_with_files_of_others_is_left_alone(tmp_path):
    (tmp_path / "best.safetensors").write_text("mine", encoding="utf-8")
    with pytest.raises(ValueError, match="holds other files and no training; name an empty or a new folder"):
        train(tmp_path)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("best.safetensors", "mine")]


def test_what_belongs_to_a_run_may_change(begun, unbroken):
    """How often it is saved, and who watches."""
    seen = []
    train(begun, interrupted(None), save_seconds=7, on_epoch=lambda model, record: seen.append(record.epoch))
    assert seen == [1, 2, 3, 4]


class Own(Shift):
    """An augmentation that prints as objects do, with an address."""

    __repr__ = object.__repr__


def test_an_address_in_memory_is_no_difference(tmp_path):
    train(tmp_path, interrupted(None), augment=(Own(1),))
    train(tmp_path, interrupted(1), augment=(Own(1),))


def damage(path, how):
    content = path.read_bytes()
    path.write_bytes({"empty": b"", "half": content[:len(content) // 2], "text": b"not a state"}[how])


@pytest.mark.parametrize("how", ["empty", "half", "text"])
def test_a_damaged_state_is_a_clear_error(begun, how):
    damage(begun / "state.pt", how)
    with pytest.raises(ValueError, match=r"state\.pt is damaged \(.*delete the folder to begin again"):
        train(begun, interrupted(None))


@pytest.mark.parametrize("how", ["empty", "half", "text", "list"])
def test_a_damaged_header_is_a_clear_error(begun, how):
    if how == "list":
        (begun / "header.json").write_text(json.dumps([1, 2]), encoding="utf-8")
    else:
        damage(begun / "header.json", how)
    with pytest.raises(ValueError, match=r"header\.json cannot be read \(.*delete the folder to begin again"):
        train(begun, interrupted(None))


def test_a_state_without_a_header_is_refused(begun):
    (begun / "header.json").unlink()
    with pytest.raises(ValueError, match=r"holds other files and no training; name an empty or a new folder"):
        train(begun, interrupted(None))


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    path = tmp_path / "training"
    path.write_text("mine", encoding="utf-8")
    with pytest.raises(ValueError, match="is a file; a training is kept in a folder"):
        train(path)
    assert path.read_text(encoding="utf-8") == "mine"


def test_the_folder_may_be_given_as_text(tmp_path, unbroken):
    model, record = train(str(tmp_path / "a" / "b"))
    check_the_same(model, record, *unbroken)


if __name__ == "__main__":
    torch.set_num_threads(1)
    die_all_deaths(Path(sys.argv[1]))
