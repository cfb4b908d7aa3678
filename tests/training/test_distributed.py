"""Several processes share a training: the steps of one, the same weights in all, and nobody left waiting.

    torchrun ... test_distributed.py FOLDER TASK ...     as a script: these of TASKS, what each process found in FOLDER
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.nn.parallel import DistributedDataParallel
from torch.optim.optimizer import register_optimizer_step_pre_hook

from robustness_lib import ThreatModel, models
from robustness_lib.distributed import Team, team_from_environment
from robustness_lib.training import (
    TRADES,
    Diverged,
    FastFGSM,
    Flip,
    GaussianAugmentation,
    PGDTraining,
    Shift,
    SmoothAdversarial,
    Standard,
    fit,
    read_recipe,
)

THREAT = ThreatModel("linf", 0.05)
OBJECTIVES = {"pgd": PGDTraining(THREAT, steps=3), "trades": TRADES(THREAT, steps=3), "fgsm-rs": FastFGSM(THREAT),
              "gaussian": GaussianAugmentation(0.1), "standard": Standard(),
              "smoothadv": SmoothAdversarial(ThreatModel("l2", 0.3), 0.1, samples=2)}


def net(batch_norm=False):
    """In double precision: sums in another order differ by 1e-16, not by enough to turn the sign of a step."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return models.small_cnn((4, 6), in_shape=(3, 8, 8), classes=3, hidden=8, batch_norm=batch_norm).double()


def images(n=36, seed=1):
    """Of class 1 with a bright left half, of class 2 with a bright upper one."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % 3
    x = 0.6 * torch.rand((n, 3, 8, 8), generator=generator, dtype=torch.double)
    x[y == 1, :, :, :4] += 0.3
    x[y == 2, :, :4] += 0.3
    return x, y


def train(objective, model, **settings):
    return fit(model, images(), objective, **({
        "epochs": 2, "batch_size": 12, "augment": (Flip(), Shift(2)), "validation": images(25, 2), "threat": THREAT,
        "validation_steps": 2, "progress": False} | settings))


# What each process does.


def gradients(team, folder):
    """Of one step on all images, for each objective."""
    found = {}
    for name, objective in OBJECTIVES.items():
        model, seen = net(), []
        hook = register_optimizer_step_pre_hook(
            lambda *_, model=model, seen=seen: seen.append([p.grad.clone() for p in model.parameters()]))
        train(objective, model, epochs=1, batch_size=36, validation=None)
        hook.remove()
        (found[name],) = seen
    return found


def whole(team, folder):
    """Two epochs for each objective: weights, and what the history says."""
    found = {}
    for name, objective in OBJECTIVES.items():
        model = net()
        history = train(objective, model, averaging=0.5 if name == "pgd" else None)
        found[name] = {"weights": model.state_dict(), "losses": [epoch.loss for epoch in history], "accuracies": [
            str(getattr(epoch, attack)) for epoch in history for attack in ("clean", "fgsm", "robust")]}
    return found


def batch_norm(team, folder):
    """TRADES calls the wrapped model twice before it goes back."""
    model = net(batch_norm=True)
    seen, broadcast, passes = [], [], []
    hook = register_module_forward_pre_hook(
        lambda module, _: passes.append(1) if isinstance(module, DistributedDataParallel) else None)
    history = train(OBJECTIVES["trades"], model, averaging=0.5,
                    on_epoch=lambda model, epoch: seen.append({k: v.clone() for k, v in model.state_dict().items()}))
    hook.remove()

    def watching(model, x, y):
        broadcast.append(getattr(model, "broadcast_buffers", None))
        return torch.nn.functional.cross_entropy(model(x), y)
    train(watching, net(batch_norm=True), epochs=1, validation=None)
    return {"weights": model.state_dict(), "seen": seen, "losses": [epoch.loss for epoch in history],
            "broadcast": broadcast, "passes": len(passes)}


def no_number(team, folder):
    """In the last process, at the second step: by its gradient, or in its value alone."""
    said = {}
    for name in ("gradient", "value"):
        calls = []

        def objective(model, x, y, name=name, calls=calls):
            calls.append(1)
            loss = torch.nn.functional.cross_entropy(model(x), y)
            if team.rank < team.size - 1 or len(calls) < 2:
                return loss
            return loss * torch.nan if name == "gradient" else loss + torch.nan
        model = net()
        with pytest.raises(Diverged) as caught:
            train(objective, model)
        same = all(torch.equal(a, b) for a, b in zip(model.parameters(), net().parameters(), strict=True))
        said[name] = (str(caught.value), same)
    return said


def refusals(team, folder):
    """Each process says what it would not do."""
    said = {}
    for name, settings in (("odd", {"batch_size": 9}), ("few", {"batch_size": 99, "augment": ()}),
                           ("first", {"folder": folder / "one"}), ("another", {"folder": folder / "one", "seed": 5})):
        try:
            if name == "few":
                fit(net(), images(7), Standard(), epochs=1, batch_size=99)
            train(Standard(), net(), **settings)
            said[name] = None
        except (ValueError, RuntimeError) as error:
            said[name] = f"{type(error).__name__}: {error}"
    if team.rank == 0:
        (folder / "one" / "state.pt").write_bytes(b"no state")
    team.gather(None)
    try:
        train(Standard(), net(), folder=folder / "one")
    except (ValueError, RuntimeError) as error:
        said["damaged"] = f"{type(error).__name__}: {error}"
    return said


def killed(team, folder):
    """After the second of three epochs, where it is the first time; its weights, where it is not."""
    first = not (folder / "begun" / "state.pt").exists()

    def die(_, epoch):
        if first and epoch.epoch == 2 and team.rank == 0:
            os.kill(os.getpid(), signal.SIGKILL)
    model = net(batch_norm=True)
    model.add_module("dropout", torch.nn.Dropout(0.3))
    train(OBJECTIVES["pgd"], model, epochs=3, keep="last", averaging=0.5, folder=folder / "begun", on_epoch=die)
    return model.state_dict()


def unbroken(team, folder):
    model = net(batch_norm=True)
    model.add_module("dropout", torch.nn.Dropout(0.3))
    train(OBJECTIVES["pgd"], model, epochs=3, keep="last", averaging=0.5)
    return model.state_dict()


TASKS = {task.__name__: task for task in (gradients, whole, batch_norm, no_number, refusals, killed, unbroken)}

if __name__ == "__main__":
    torch.set_num_threads(1)
    with team_from_environment() as joined:
        for task in sys.argv[2:]:
            torch.save(TASKS[task](joined, Path(sys.argv[1])), Path(sys.argv[1]) / f"{task}.{joined.rank}")


def torchrun(*arguments):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    root = str(Path(models.__file__).parents[2])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": os.pathsep.join(
        [root, os.environ.get("PYTHONPATH", "")])}
    running = subprocess.Popen([*command, *map(str, arguments)], env=environment, text=True, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE)
    try:
        said, errors = running.communicate(timeout=300)
    except subprocess.TimeoutExpired:
        running.terminate()  # it ends its processes then; killed, it would leave them behind
        said, errors = running.communicate(timeout=60)
        pytest.fail(f"some process waits for ever\n{errors}")
    return subprocess.CompletedProcess(running.args, running.returncode, said, errors)


def found(folder, task):
    return [torch.load(folder / f"{task}.{rank}", weights_only=True) for rank in range(2)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What two processes found in all tasks; in one of these a process before them was killed."""
    path = tmp_path_factory.mktemp("two")
    broken = torchrun(__file__, path, "killed")
    assert broken.returncode != 0
    assert (path / "begun" / "state.pt").exists()
    assert not (path / "killed.0").exists()
    done = torchrun(__file__, path, *TASKS)
    assert done.returncode == 0, done.stderr
    return path


@pytest.fixture(scope="module")
def alone():
    """What one process finds."""
    return {task.__name__: task(Team(), None) for task in (gradients, whole)}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_gradients_are_those_of_one_process_on_the_whole_batch(folder, alone, name):
    for theirs in found(folder, "gradients"):
        for mine, other in zip(alone["gradients"][name], theirs[name], strict=True):
            assert mine.abs().max() > 0
            assert torch.allclose(mine, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_whole_training_ends_with_the_weights_of_one_process(folder, alone, name):
    expected, (first, second) = alone["whole"][name], (one[name] for one in found(folder, "whole"))
    for key, value in expected["weights"].items():
        assert torch.equal(first["weights"][key], second["weights"][key])
        assert torch.allclose(first["weights"][key], value, rtol=1e-6, atol=1e-8)
    assert first["losses"] == second["losses"] == pytest.approx(expected["losses"], rel=1e-9)
    assert first["accuracies"] == second["accuracies"] == expected["accuracies"]
    assert all("n = 25" in accuracy for accuracy in expected["accuracies"])


def test_processes_end_with_the_same_weights_and_statistics_under_batch_norm(folder):
    """Each normalizes by its own part of the batch, so these are not one process's."""
    first, second = found(folder, "batch_norm")
    assert "1.running_mean" in first["weights"]
    for a, b in zip((first["weights"], *first["seen"]), (second["weights"], *second["seen"]), strict=True):
        for key, value in a.items():
            assert torch.equal(value, b[key]), key
    assert len(first["seen"]) == 2
    assert first["passes"] == second["passes"] == 2 * 3 * 2  # two in each step, and none for the attack
    assert first["broadcast"] == second["broadcast"] == [False] * 3  # as the docs say: no exchange at each pass
    assert first["losses"] == second["losses"]


@pytest.mark.parametrize("where", ["gradient", "value"])
def test_a_loss_that_is_no_number_in_one_process_stops_all(folder, where):
    for said, weights_as_before in (one[where] for one in found(folder, "no_number")):
        assert "in epoch 1, step 2 (images " in said
        assert weights_as_before


def test_refusals_reach_all(folder):
    first, second = found(folder, "refusals")
    for said in (first, second):
        assert said["odd"] == "ValueError: a batch of 9 cannot be shared equally by 2 processes"
        assert said["few"] == "ValueError: a batch of 7 cannot be shared equally by 2 processes"
        assert said["first"] is None
    for name, words in (("another", "is another one: not the same seed (was 0, is 5)"),
                        ("damaged", "state.pt is damaged")):
        assert first[name].startswith("ValueError: ")
        assert second[name].startswith("RuntimeError: another process stopped: ValueError: ")
        for said in (first, second):
            assert words in said[name]


def test_killed_and_started_again_they_end_with_the_same_weights(folder):
    for theirs, expected in zip(found(folder, "killed"), found(folder, "unbroken"), strict=True):
        for key, value in expected.items():
            assert torch.equal(theirs[key], value), key


def test_robustness_train_under_torchrun(tmp_path):
    x, y = images()
    np.savez(tmp_path / "train.npz", images=x.float().permute(0, 2, 3, 1).numpy(), labels=y.numpy())
    recipe = tmp_path / "r.toml"
    recipe.write_text(f"""
[model]
builder = "small_cnn"
channels = [4]
in_shape = [3, 8, 8]
classes = 3
hidden = 8
[data]
name = "{tmp_path / 'train.npz'}"
[objective]
kind = "pgd"
threat = "linf:4/255"
steps = 2
[fit]
epochs = 2
batch_size = 10
""")
    command = [sys.executable, "-c", "from robustness_lib.cli import app; app()", "train", recipe]
    done = torchrun("--no-python", *command, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("r: small_cnn, ") == done.stderr.count("epoch 2: loss") == 1
    assert done.stdout.count("Next: robustness evaluate") == 1
    assert (tmp_path / "run" / "recipe.toml").read_text() == recipe.read_text()
    kept = safetensors.torch.load_file(tmp_path / "run" / "kept.safetensors")
    by_one, _ = read_recipe(recipe).run(progress=False)
    for key, value in by_one.state_dict().items():
        assert torch.allclose(kept[key], value, atol=1e-4), key
