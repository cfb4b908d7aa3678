"""robustness train, as a user types it."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from typer.testing import CliRunner

from robustness_lib import models
from robustness_lib.cli import app
from robustness_lib.evaluation import Report
from robustness_lib.training import History, Recipe, list_recipes

MAKE = """
from torch import nn
def make():
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.ReLU(), nn.Linear(8, 3))
"""
RECIPE = """
[model]
name = "my_models.py:make"
[data]
name = "train.npz"
validation = "val.npz"
[objective]
kind = "pgd"
threat = "linf:4/255"
steps = 2
[fit]
epochs = 3
batch_size = 20
[schedule]
kind = "one-cycle"
peak = 5e-2
"""


def call(*arguments: object, code: int = 0) -> Any:
    result = CliRunner().invoke(app, ["train", *map(str, arguments)])
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result


def write_images(path: Path, n: int, seed: int) -> None:
    """Of class 1 with a bright left half, of class 2 with a bright upper one."""
    generator = np.random.default_rng(seed)
    y = np.arange(n) % 3
    x = 0.6 * generator.random((n, 8, 8, 3), dtype=np.float32)
    x[y == 1, :, :4] += 0.3
    x[y == 2, :4] += 0.3
    np.savez(path, images=x, labels=y)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model file, images and a recipe, which is the current one."""
    (tmp_path / "my_models.py").write_text(MAKE)
    (tmp_path / "mine.toml").write_text(RECIPE)
    for name, n, seed in (("train", 60, 0), ("val", 30, 1), ("test", 30, 2)):
        write_images(tmp_path / f"{name}.npz", n, seed)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def changed(here: Path, old: str, new: str) -> Path:
    text = (here / "mine.toml").read_text()
    assert text.count(old) == 1
    (here / "mine.toml").write_text(text.replace(old, new))
    return here / "mine.toml"


def test_the_folder_has_all_of_it_and_the_next_command_works_as_printed(here: Path) -> None:
    result = call("mine.toml", "--out", "my run")
    folder = here / "my run"
    assert {path.name for path in folder.iterdir()} == {
        "kept.safetensors", "best.safetensors", "last.safetensors", "history.json", "recipe.toml", "state.pt",
        "header.json"}
    assert (folder / "recipe.toml").read_text() == (here / "mine.toml").read_text()
    history = History.load(folder / "history.json")
    assert len(history) == 3
    for name in ("kept", "best", "last"):
        assert f"{name}.safetensors: " in result.stdout
    kept = history.epochs[history.kept - 1]
    assert f"Kept: {kept} " in result.stdout
    (command,) = (line.removeprefix("Next: ") for line in result.stdout.splitlines() if line.startswith("Next: "))
    assert "--model 'recipe:my run/recipe.toml'" in command
    assert "--threat linf:4/255" in command
    assert "For a figure to quote, name in place of val.npz images that" in result.stdout
    program, *words = shlex.split(command)
    assert program == "robustness"
    evaluated = CliRunner().invoke(app, [*words, "--suite", "quick"])
    assert evaluated.exit_code == 0, evaluated.output
    report = Report.load(here / "run" / "report.json")
    assert report.clean_accuracy == kept.clean
    assert report.clean_accuracy.correct >= 18  # chance is 10
    # The same network in Python, by the same name of the function.
    assert models.find_model("my_models.py:make", folder / "kept.safetensors").training is False


def test_it_says_beforehand_what_it_decided(here: Path) -> None:
    said = " ".join(call("mine.toml", "--out", "run").stderr.split())
    for words in ("mine: my_models.py:make, 1,571 parameters to train, on cpu",
                  "data: train.npz, 60 images for training, 30 for validation (a file or folder of its own)",
                  "augmentation: none, since what keeps a label depends on the data",
                  "objective: PGDTraining, threat L∞ 4/255, steps 2",
                  "epochs: 3; kept are the weights of the best by accuracy within L∞ 4/255 under PGD",
                  "epoch 1: loss ", "epoch 3: loss "):
        assert words in said
    assert said.index("objective:") < said.index("epoch 1:")


def test_what_is_held_out_is_said(here: Path) -> None:
    changed(here, 'validation = "val.npz"', 'augment = ["flip", { kind = "shift", by = 1 }]')
    result = call("mine.toml", "--out", "run")
    assert "54 images for training, 6 for validation (held out, a tenth of every class; " in result.stderr
    assert "augmentation: Flip(), Shift(by=1), as the recipe says" in result.stderr
    assert "--data train.npz --threat" in result.stdout
    assert "name in place of train.npz images that training and the choice of an epoch have not seen. It has been " \
           "trained on most of these." in result.stdout


@pytest.mark.parametrize(("objective", "keep", "words"), [
    ('kind = "standard"', "last", "of the last; clean accuracy is watched on the validation images"),
    ('kind = "standard"\nlabel_smoothing = 0.1', "best", "of the best by clean accuracy on the validation images"),
])
def test_without_a_threat(here: Path, objective: str, keep: str, words: str) -> None:
    changed(here, 'kind = "pgd"\nthreat = "linf:4/255"\nsteps = 2', objective)
    changed(here, "epochs = 3", f'epochs = 2\nkeep = "{keep}"')
    result = call("mine.toml", "--out", "run")
    assert words in result.stderr
    assert ("label_smoothing 0.1" in result.stderr) == ("smoothing" in objective)
    assert "--threat linf:8/255" in result.stdout


def test_json_is_all_that_stands_on_stdout(here: Path) -> None:
    content = json.loads(call("mine.toml", "--out", "run", "--json").stdout)
    history = History.load(here / "run" / "history.json")
    kept = history.epochs[history.kept - 1]
    assert kept.robust is not None
    assert content["robust"] == kept.robust.value
    assert (content["validation"], content["epochs"], content["kept"]) == (30, 3, history.kept)
    assert (content["stopped"], content["collapsed"]) == (None, False)
    assert Path(content["weights"]).is_file()
    assert content["next"].startswith("robustness evaluate --model recipe:run/recipe.toml --weights run/kept.safe")


def test_without_out_the_folder_is_named_after_the_recipe(here: Path) -> None:
    call("mine.toml")
    assert (here / "training" / "mine" / "kept.safetensors").is_file()


def test_a_finished_training_is_done_and_says_so(here: Path) -> None:
    call("mine.toml", "--out", "run")
    before = (here / "run" / "kept.safetensors").read_bytes()
    result = call("run/recipe.toml", "--out", "run")  # its own copy is the same recipe
    assert "run holds a finished training: nothing is left to do" in result.stderr
    assert "Kept: epoch" in result.stdout
    assert (here / "run" / "kept.safetensors").read_bytes() == before


def test_another_recipe_in_the_same_folder_is_refused(here: Path) -> None:
    """What is evaluated by the folder's recipe must be what was trained by it: here, its normalization."""
    normal = 'name = "my_models.py:make"\nmean = [0.5, 0.5, 0.5]\nstd = [0.2, 0.2, 0.2]'
    changed(here, 'name = "my_models.py:make"', normal)
    call("mine.toml", "--out", "run")
    changed(here, "mean = [0.5, 0.5, 0.5]", "mean = [0.1, 0.5, 0.5]")
    before = (here / "run" / "recipe.toml").read_bytes()
    said = call("mine.toml", "--out", "run", code=2).stderr
    assert "not the same [model] mean (was [0.5, 0.5, 0.5], is [0.1, 0.5, 0.5]). Name another" in " ".join(said.split())
    (here / "run" / "recipe.toml").unlink()  # as after a kill
    assert "not the same what the model computes" in " ".join(call("mine.toml", "--out", "run", code=2).stderr.split())
    changed(here, "mean = [0.1, 0.5, 0.5]", "mean = [0.5, 0.5, 0.5]")
    (here / "run" / "recipe.toml").write_bytes(b"# A comment is no other recipe.\n" + before)
    call("mine.toml", "--out", "run")
    said = call("mine.toml", "--out", ".", code=2).stderr
    assert "holds other files and no training" in " ".join(said.split())


def test_a_network_that_drops_the_axis_of_a_single_image_is_trained(here: Path) -> None:
    (here / "drops.py").write_text(MAKE.replace("def make", "class Drops(nn.Sequential):\n"
                                                "    def forward(self, x): return super().forward(x).squeeze()\n"
                                                "def make").replace("nn.Sequential(nn.Flatten", "Drops(nn.Flatten"))
    changed(here, "my_models.py:make", "drops.py:make")
    call("mine.toml", "--out", "run")


@pytest.mark.parametrize(("line", "words"), [
    ("raise KeyError('no luck')", "KeyError: 'no luck' ("),
    ("raise ValueError('no luck')", "ValueError: no luck ("),
    ("return checkpoint(self.net, x, use_reentrant=True)", "use_reentrant=False"),
])
def test_a_network_that_fails_is_one_line_with_its_place(here: Path, line: str, words: str) -> None:
    (here / "failing.py").write_text(f"""
from torch import nn
from torch.utils.checkpoint import checkpoint
class Failing(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    def forward(self, x):
        {line}
""")
    changed(here, "my_models.py:make", "failing.py:Failing")
    said = call("mine.toml", "--out", "run", code=2).stderr.strip().splitlines()[-1]
    assert words in said
    assert "failing.py, line 9)" in said or "use_reentrant" in said
    traced = CliRunner().invoke(app, ["train", "mine.toml", "--out", "run", "--debug"])
    assert traced.exit_code == 2
    assert "Traceback (most recent call last)" in traced.stderr
    assert traced.stderr.strip().splitlines()[-1] == said


def test_a_network_of_this_package_can_be_evaluated_by_its_recipe(here: Path) -> None:
    changed(here, 'name = "my_models.py:make"',
            'builder = "small_cnn"\nchannels = [4]\nin_shape = [3, 8, 8]\nclasses = 3\nhidden = 8')
    call("mine.toml", "--out", "run")
    (here / "mine.toml").unlink()
    weights = safetensors.torch.load_file(here / "run" / "kept.safetensors")
    model = models.find_model("recipe:run/recipe.toml", "run/kept.safetensors")
    inner = model.model
    assert isinstance(inner, torch.nn.Module)
    for name, value in inner.state_dict().items():
        assert torch.equal(value, weights[name])
    with pytest.raises(ValueError, match=r"give its weights too, such as run/kept\.safetensors"):
        models.find_model("recipe:run/recipe.toml")


def test_normalization_in_the_recipe_is_in_the_evaluated_model_too(here: Path) -> None:
    changed(here, 'name = "my_models.py:make"',
            'name = "my_models.py:make"\nmean = [0.5, 0.4, 0.3]\nstd = [0.2, 0.2, 0.2]')
    result = call("mine.toml", "--out", "run", "--json")
    model = models.find_model("recipe:run/recipe.toml", "run/kept.safetensors")
    with np.load("val.npz") as arrays:
        x, y = torch.from_numpy(arrays["images"]).permute(0, 3, 1, 2), torch.from_numpy(arrays["labels"])
    with torch.no_grad():
        right = float((model(x).argmax(1) == y).float().mean())
    assert right == pytest.approx(json.loads(result.stdout)["clean"])
    plain = models.find_model("my_models.py:make", "run/kept.safetensors")
    normal = (x - torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1)) / 0.2
    with torch.no_grad():
        assert torch.allclose(model(x), plain(normal), atol=1e-5)
        assert not torch.allclose(model(x), plain(x), atol=1e-2)
    for option in ({"mean": [0.5], "std": [0.2]}, {"classes": 3}, {"output": 0}):
        with pytest.raises(ValueError, match="says classes, mean, std and output itself"):
            models.find_model("recipe:run/recipe.toml", "run/kept.safetensors", **option)


@pytest.mark.parametrize("content", [None, "[data]\nname = 3", "[model", "[model]\nwidths = [2]", "model = 3"])
def test_what_is_no_recipe_names_no_model(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "r.toml"
    if content is not None:
        path.write_text(content)
    with pytest.raises((ValueError, FileNotFoundError), match=r"r\.toml"):
        models.find_model(f"recipe:{path}", "kept.safetensors")


def test_list_and_example() -> None:
    lines = call("--list").stdout.splitlines()
    assert [line.split()[0] for line in lines] == list_recipes()
    assert all(line.endswith(".") and "#" not in line for line in lines)
    assert "epochs = 20" in call("--example").stdout
    missing = call(code=2)
    assert "name a recipe" in missing.stderr
    assert "signs-trades-3" in missing.stderr
    assert missing.stdout == ""


def test_the_example_trains(here: Path) -> None:
    """As it is printed, but for a smaller number of epochs and files of this size."""
    text = call("--example").stdout
    assert text.count("epochs = 20") == 1
    Path("example.toml").write_text(text.replace("epochs = 20", "epochs = 2"))
    result = call("example.toml", "--out", "run")
    assert "objective: TRADES, threat L∞ 4/255, beta 3, steps 10" in result.stderr
    assert History.load("run/history.json").kept in (1, 2)


@pytest.mark.parametrize(("old", "new", "words"), [
    ('name = "train.npz"', 'name = "none.npz"', "[data] name: there is no file none.npz"),
    ('validation = "val.npz"', 'validation = "none.npz"', "[data] validation: there is no file none.npz"),
    ('name = "my_models.py:make"', 'name = "my_models.py:made"',
     "[model]: my_models.py has no 'made'; it defines make"),
    ('name = "my_models.py:make"', 'name = "none.py:make"', "[model]: there is no file none.py"),
    ('name = "my_models.py:make"', 'builder = "smal_cnn"', "[model]: unknown architecture 'smal_cnn'; known: "),
    ('name = "my_models.py:make"', 'builder = "mlp"\nwidth = [2]', "[model]: the arguments do not fit mlp: "),
    ('name = "my_models.py:make"', 'builder = "mlp"\nwidths = [2, -1]', "[model]: it cannot be built: "),
    ('name = "my_models.py:make"', 'builder = "small_cnn"', "[data] name: [model] fails on its first image, of shape "
                                                            "(3, 8, 8): RuntimeError: "),
    ('name = "my_models.py:make"',
     'builder = "small_cnn"\nchannels = [4]\nin_shape = [3, 8, 8]\nclasses = 2',
     "[data] name: it has the label 2, and [model] has 2 outputs: labels from 0 to 1"),
    ("epochs = 3", "epochs = 0", "[fit] epochs must be at least 1; found 0"),
    ("epochs = 3", "epochs = 3\naveraging = 2", "[fit] averaging is a decay between 0 and 1"),
    ("epochs = 3", "epochs = 3\nclip = -1", "[fit] clip must be positive"),
    ("epochs = 3", "epochs = 3\nweight_decay = -1", "[fit] weight_decay must be 0 or more; found -1"),
    ("epochs = 3", 'epochs = "ten"', "[fit] epochs must be a whole number; found 'ten'"),
    ("epochs = 3", "epoch = 3", "[fit] has no setting 'epoch'; did you mean epochs? It takes "),
])
def test_wrong_input_is_one_line_that_names_file_table_and_key(here: Path, old: str, new: str, words: str) -> None:
    changed(here, old, new)
    result = call("mine.toml", "--out", "run", code=2)
    assert result.stdout == ""
    *described, line = result.stderr.splitlines()
    assert line.startswith(f"mine.toml: {words}")
    assert not described or described[0].startswith("mine: my_models.py:make, ")
    assert not (here / "run").exists()


@pytest.mark.parametrize(("arguments", "words"), [
    (["none.toml"], "there is no recipe none.toml: give a .toml file, or one of cifar10-gaussian-0.25, "),
    (["mine.toml", "--device", "nowhere"], "the model cannot be moved to nowhere"),
])
def test_wrong_usage_is_one_line_and_code_2(here: Path, arguments: list[str], words: str) -> None:
    (line,) = call(*arguments, "--out", "run", code=2).stderr.splitlines()
    assert words in line


def test_a_folder_with_another_training_is_refused(here: Path) -> None:
    call("mine.toml", "--out", "run")
    copy = (here / "run" / "recipe.toml").read_text()
    changed(here, "epochs = 3", "epochs = 4")
    said = call("mine.toml", "--out", "run", code=2).stderr
    assert "the training in run is another one: not the same [fit] epochs (was 3, is 4)" in said
    assert (here / "run" / "recipe.toml").read_text() == copy


def test_a_model_that_fails_in_training_is_one_line(here: Path) -> None:
    (here / "my_models.py").write_text(MAKE + """
class Fails(nn.Sequential):
    def forward(self, x):
        if self.training:
            raise RuntimeError("no such layer")
        return super().forward(x)
def fails():
    return Fails(*make())
""")
    changed(here, ":make", ":fails")
    said = call("mine.toml", "--out", "run", code=2).stderr.splitlines()[-1]
    assert said.startswith("mine.toml: the model or the objective fails on the first batch, images of shape "
                           "(20, 3, 8, 8): RuntimeError: no such layer (")
    assert "my_models.py, line 9" in said


def test_a_loss_that_is_no_number_ends_with_code_3(here: Path) -> None:
    changed(here, "peak = 5e-2", "peak = 1e30")
    result = call("mine.toml", "--out", "run", code=3)
    assert "Stopped: " in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(("setting", "code"), [("", 3), ('on_collapse = "warn"', 0)])
def test_a_collapse_ends_with_code_3_unless_only_a_warning_was_asked_for(
        here: Path, monkeypatch: pytest.MonkeyPatch, setting: str, code: int) -> None:
    monkeypatch.setattr(sys.modules["robustness_lib.training.fit"], "collapse",
                        lambda epochs, ramp: "catastrophic overfitting: as if" if len(epochs) == 2 else None)
    changed(here, "epochs = 3", f"epochs = 3\n{setting}")
    changed(here, 'kind = "pgd"\nthreat = "linf:4/255"\nsteps = 2', 'kind = "fgsm-rs"\nthreat = "linf:4/255"')
    result = call("mine.toml", "--out", "run", code=code)
    assert f"{'Stopped early' if code else 'Noted'}: catastrophic overfitting: as if" in result.stdout
    assert len(History.load("run/history.json")) == (2 if code else 3)
    assert (here / "run" / "kept.safetensors").is_file()
    call("mine.toml", "--out", "run", code=code)  # asked again, it says the same


def test_patience_is_no_failure(here: Path) -> None:
    changed(here, "peak = 5e-2", "peak = 1e-12")
    changed(here, "epochs = 3", "epochs = 5\npatience = 2")
    assert "Stopped early: no better epoch in the last 2 measured" in call("mine.toml", "--out", "run").stdout


def test_interrupted(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Recipe, "run", interrupted)
    said = call("mine.toml", "--out", "run", code=130).stderr
    assert "Interrupted. The same command goes on from the last state in run." in said


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_killed_it_goes_on_and_ends_with_the_same_weights(here: Path, how: signal.Signals) -> None:
    changed(here, "epochs = 3", "epochs = 60\nevery = 30\naveraging = 0.9")
    call("mine.toml", "--out", "whole")
    command = [sys.executable, "-c", "from robustness_lib.cli import app; app()", "train", "mine.toml", "--out", "run"]
    root = Path(models.__file__).parents[2]
    path = os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])
    # A shell's background job, as these tests may be, ignores SIGINT and hands that on; a terminal's does not.
    running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True,
                               env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    deadline = time.monotonic() + 120
    while not (here / "run" / "state.pt").exists():
        assert running.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    running.send_signal(how)
    said = running.communicate(timeout=60)[1]
    assert running.returncode == (-signal.SIGKILL if how is signal.SIGKILL else 130)
    assert ("goes on from the last state in run" in said) == (how is signal.SIGINT)
    assert not (here / "run" / "kept.safetensors").exists()
    assert "going on with what is in run" in call("mine.toml", "--out", "run").stderr
    for name in ("kept", "best", "last"):
        assert (here / "run" / f"{name}.safetensors").read_bytes() == (
            here / "whole" / f"{name}.safetensors").read_bytes()
