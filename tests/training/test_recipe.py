"""Recipes: the shipped ones, what they may say, and that they make the same network again."""

import re
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from torch import nn

from robustness_lib import data, models
from robustness_lib.training import (
    AUGMENTATIONS,
    IBP,
    TRADES,
    FastFGSM,
    Flip,
    GaussianAugmentation,
    LipschitzMargin,
    OneCycle,
    PGDTraining,
    Piecewise,
    Shift,
    SmoothAdversarial,
    Standard,
    list_recipes,
    read_recipe,
)
from robustness_lib.training import recipe as recipes

FOLDER = Path(recipes.__file__).parent / "recipes"
KINDS = {"standard": Standard, "gaussian": GaussianAugmentation, "pgd": PGDTraining, "trades": TRADES,
         "fgsm-rs": FastFGSM, "smoothadv": SmoothAdversarial, "ibp": IBP, "lipschitz": LipschitzMargin}
PLAIN = {
    "model": 'builder = "small_cnn"\nchannels = [4]\nin_shape = [3, 8, 8]\nclasses = 3\nhidden = 8',
    "data": 'name = "train.npz"',
    "objective": 'kind = "pgd"\nthreat = "linf:4/255"\nsteps = 2',
    "fit": "epochs = 2\nbatch_size = 20",
}


def write(path, top="", **tables):
    """A recipe of PLAIN with these tables in place of its own; None leaves one out."""
    parts = [f"[{name}]\n{text}\n" for name, text in (PLAIN | tables).items() if text is not None]
    path.write_text("\n".join([top, *parts]), encoding="utf-8")
    return path


def images(n, seed=0):
    """Of class 1 with a bright left half, of class 2 with a bright upper one; grey levels, (N, 8, 8, 3)."""
    y = np.arange(n) % 3
    x = 0.6 * np.random.default_rng(seed).random((n, 8, 8, 3), dtype=np.float32)
    x[y == 1, :, :4] += 0.3
    x[y == 2, :4] += 0.3
    return x, y


@pytest.fixture
def here(tmp_path, monkeypatch):
    for name, n in (("train", 60), ("val", 30)):
        x, y = images(n, seed=n)
        np.savez(tmp_path / f"{name}.npz", images=x, labels=y)
    monkeypatch.chdir(tmp_path)
    return tmp_path


# The shipped ones.


@pytest.mark.parametrize("name", list_recipes())
def test_a_shipped_recipe_is_complete_and_says_its_objective(name):
    recipe, table = read_recipe(name), tomllib.loads((FOLDER / f"{name}.toml").read_text(encoding="utf-8"))
    set_name, _, rest = name.removesuffix("-tiny").partition("-")
    kind = rest.removeprefix("tiny-").removeprefix("preact-").rstrip("-.0123456789")
    assert (recipe.name, recipe.data, table["objective"]["kind"]) == (name, set_name, kind)
    assert type(recipe.objective) is KINDS[kind]
    if beta := re.search(r"trades-(\d+)$", name):
        assert recipe.objective.beta == int(beta[1])
    # Nothing that decides the result is left to a default of the program that may change.
    assert {"model", "data", "objective", "fit", "schedule"} == table.keys()
    assert {"epochs", "keep", "every"} <= table["fit"].keys()
    # Nets that are kept narrow by their bound fit the training images badly enough without changes.
    assert recipe.augment == (() if kind in ("ibp", "lipschitz") else AUGMENTATIONS[set_name])
    if noise := re.search(r"(gaussian|smoothadv)-([\d.]+)$", name):
        assert recipe.objective.sigma == float(noise[2])
        assert recipe.threat is None
    else:
        assert (recipe.threat or recipe.objective.threat).norm == ("l2" if kind == "lipschitz" else "linf")
    assert (recipe.settings["keep"], recipe.seed) == ("last", 0)  # so that nothing was chosen by looking


def passes(recipe):
    """Forward and backward, of images, in a training; and whatever else could tell two trainings apart."""
    objective = recipe.objective
    each = objective.samples * (objective.steps + 1) if isinstance(objective, SmoothAdversarial) else 1
    settings = {key: value for key, value in recipe.settings.items() if key not in ("epochs", "every")}
    return each * recipe.settings["epochs"], recipe.architecture, recipe.data, objective.sigma, settings


@pytest.mark.parametrize("name", [name for name in list_recipes() if "smoothadv" in name])
def test_adversarial_training_under_noise_costs_what_its_gaussian_twin_costs(name):
    assert passes(read_recipe(name)) == passes(read_recipe(name.replace("smoothadv", "gaussian")))


@pytest.mark.parametrize("name", list_recipes())
def test_a_shipped_recipe_builds_a_network_for_its_data(name):
    recipe = read_recipe(name)
    shape, classes = {"signs": ((3, 32, 32), 10), "gtsrb": ((3, 32, 32), 43), "mnist": ((1, 28, 28), 10),
                      "moons": ((2,), 2), "cifar10": ((3, 32, 32), 10)}[recipe.data]
    assert recipe.build().eval()(torch.rand(2, *shape)).shape == (2, classes)


def test_the_list():
    assert list_recipes() == sorted(path.stem for path in FOLDER.iterdir())
    assert {"signs-trades-3", "mnist-pgd", "moons-standard"} <= set(list_recipes())


def test_the_shipped_weights_of_the_moons_are_what_the_recipe_makes():
    """Bit by bit on the machine where they were made; kernels of another may round otherwise, over 1600 steps."""
    made, _ = read_recipe("moons-standard").run(progress=False)
    shipped = models.load_pretrained("moons-standard")
    x, y, _ = data.load("moons")
    with torch.no_grad():
        ours, theirs = made(x), shipped(x)
    assert torch.allclose(ours, theirs, atol=0.05)
    assert ((ours.argmax(1) == y) != (theirs.argmax(1) == y)).sum() <= 2


# What a recipe says.


def test_all_that_can_be_said(here):
    recipe = read_recipe(write(here / "mine.toml", "seed = 4", data='name = "train.npz"\nvalidation = "val.npz"\n'
                               'augment = ["flip", { kind = "shift", by = 1 }, "shift"]',
                               objective='kind = "trades"\nthreat = "l2:0.5"\nbeta = 2\nsteps = 3\nstep_size = 0.1\n'
                                         'label_smoothing = 0.1',
                               fit='epochs = 2\nbatch_size = 20\nthreat = "linf:8/255"\naveraging = 0.9\npatience = 1\n'
                                   'optimizer = "sgd"\nweight_decay = 0\nmixed_precision = false',
                               schedule='kind = "piecewise"\nstart = 0.1\nmilestones = [1, 1.5]\nfactor = 0.5'))
    assert (recipe.name, recipe.seed, recipe.data, recipe.validation) == ("mine", 4, "train.npz", "val.npz")
    assert recipe.augment == (Flip(), Shift(1), Shift(2))
    assert recipe.augment_given
    assert recipe.objective == TRADES(recipes.ThreatModel("l2", 0.5), 2, 3, 0.1, label_smoothing=0.1)
    assert recipe.threat == recipes.ThreatModel("linf", 8 / 255)
    assert recipe.schedule == Piecewise(0.1, (1, 1.5), 0.5)
    assert recipe.settings == {"epochs": 2, "batch_size": 20, "averaging": 0.9, "patience": 1, "optimizer": "sgd",
                               "weight_decay": 0, "mixed_precision": False}
    assert recipe.architecture["builder"] == "small_cnn"


def test_what_is_left_out(here):
    recipe = read_recipe(str(write(here / "mine.toml")))
    assert (recipe.seed, recipe.validation, recipe.threat, recipe.schedule) == (0, 1000, None, OneCycle())
    assert recipe.augment == ()
    assert not recipe.augment_given
    assert not recipe.named_data


@pytest.mark.parametrize(("text", "kind"), [
    ('kind = "standard"', Standard()), ('kind = "gaussian"\nsigma = 0.25', GaussianAugmentation(0.25)),
    ('kind = "smoothadv"\nthreat = "l2:0.5"\nsigma = 0.25\nsamples = 2\nsteps = 3\nstep_size = 0.2',
     SmoothAdversarial(recipes.ThreatModel("l2", 0.5), 0.25, 2, 3, 0.2)),
    ('kind = "fgsm-rs"\nthreat = "linf:8/255"\nstep_share = 1', FastFGSM(recipes.ThreatModel("linf", 8 / 255), 1)),
])
def test_objectives(here, text, kind):
    assert read_recipe(write(here / "mine.toml", objective=text)).objective == kind


def test_a_named_set_brings_its_own_augmentation(here):
    assert read_recipe(write(here / "a.toml", data='name = "fashion-mnist"')).augment == (Flip(), Shift(2))
    none = read_recipe(write(here / "b.toml", data='name = "signs"\naugment = []'))
    assert none.augment == ()
    assert none.augment_given


WRONG = [
    ({"top": "sed = 1"}, "the recipe has no setting 'sed'; did you mean seed? It takes data, fit, model"),
    ({"top": 'seed = "one"'}, "seed must be a whole number; found 'one'"),
    ({"top": "seed = -1"}, "seed must lie between 0 and 2^32 - 1; found -1"),
    ({"top": "epochs = 3"}, "the recipe has no setting 'epochs'"),
    ({"top": "fit = 3", "fit": None}, "a recipe needs a table [fit]"),
    *(({name: None}, f"a recipe needs a table [{name}]") for name in PLAIN),
    ({"model": "widths = [2, 2]"}, "[model] needs a builder of this package"),
    ({"model": "builder = 3"}, "[model] builder must be text in quotes; found 3"),
    ({"model": 'name = "m.py:make"\nweight = "w.pt"'}, "[model] has no setting 'weight'; did you mean weights? "),
    ({"model": 'name = "m.py:make"\nmean = "imagenet"'}, "[model] mean must be a list of numbers; found 'imagenet'"),
    ({"model": 'name = "m.py:make"\nmean = ["a"]'}, "[model] mean must be a list of numbers; found ['a']"),
    ({"model": 'name = "m.py:make"\noutput = 1.5'}, "[model] output must be text in quotes or a whole number; found "),
    ({"data": 'names = "signs"'}, "[data] has no setting 'names'; did you mean name?"),
    ({"data": "augment = []"}, "[data] needs a name"),
    ({"data": "name = 3"}, "[data] name must be text in quotes; found 3"),
    ({"data": 'name = "signs"\nvalidation = 0'}, "[data] validation must be at least 1 image, or a file; found 0"),
    ({"data": 'name = "signs"\nvalidation = true'}, "[data] validation must be text in quotes or a whole number; "),
    ({"data": 'name = "signs"\nresize = "8"'}, "[data] resize must be a whole number; found '8'"),
    ({"data": 'name = "signs"\naugment = "flip"'}, "[data] augment must be a list; found 'flip'"),
    ({"data": 'name = "signs"\naugment = [3]'}, "[data] augment, each entry, must be text in quotes or a table; "),
    ({"data": 'name = "signs"\naugment = ["flop"]'},
     "[data] augment needs a kind, one of flip, shift; found 'flop'; did you mean flip?"),
    ({"data": 'name = "signs"\naugment = [{ kind = "shift", by = 0 }]'}, "[data] augment shift: by must be at least 1"),
    ({"data": 'name = "signs"\naugment = [{ kind = "shift", by = "2" }]'},
     "[data] augment by must be a whole number"),
    ({"data": 'name = "signs"\naugment = [{ kind = "flip", by = 2 }]'}, "[data] augment flip has no setting 'by'. It "),
    ({"objective": "steps = 2"}, "[objective] needs a kind, one of standard, gaussian, fgsm-rs, pgd, trades, smooth"),
    ({"objective": 'kind = "trade"'}, "found 'trade'; did you mean trades?"),
    ({"objective": 'kind = ["pgd"]'}, "[objective] needs a kind"),
    ({"objective": 'kind = "pgd"'}, "[objective] pgd needs threat"),
    ({"objective": 'kind = "pgd"\nthreat = 8'}, "[objective] threat must be text in quotes; found 8"),
    ({"objective": 'kind = "pgd"\nthreat = "linf:8"'}, "[objective] threat: ε is in pixel units of [0, 1], so"),
    ({"objective": 'kind = "pgd"\nthreat = "linf:.1"\nsteps = 0'}, "[objective] pgd: steps must be at least 1"),
    ({"objective": 'kind = "pgd"\nthreat = "linf:.1"\nsteps = 2.0'}, "[objective] steps must be a whole number; f"),
    ({"objective": 'kind = "pgd"\nthreat = "linf:.1"\nstep_size = "a"'},
     "[objective] step_size must be a number; found 'a'"),
    ({"objective": 'kind = "trades"\nthreat = "linf:.1"\nbeta = -1'}, "[objective] trades: beta must be 0 or more"),
    ({"objective": 'kind = "trades"\nthreat = "linf:.1"\nbeta = true'}, "[objective] beta must be a number; "),
    ({"objective": 'kind = "standard"\nlabel_smoothing = 2'}, "[objective] standard: label_smoothing must lie in"),
    ({"fit": "ramp = 2"}, "[fit] needs epochs"),
    ({"fit": 'epochs = "ten"'}, "[fit] epochs must be a whole number; found 'ten'"),
    ({"fit": "epochs = 2.5"}, "[fit] epochs must be a whole number; found 2.5"),
    ({"fit": "epochs = true"}, "[fit] epochs must be a whole number; found True"),
    ({"fit": "epochs = 2\npatiense = 2"}, "[fit] has no setting 'patiense'; did you mean patience? It takes "),
    ({"fit": 'epochs = 2\nfolder = "x"'}, "[fit] has no setting 'folder'. It takes averaging, batch_size"),
    ({"fit": "epochs = 2\nseed = 2"}, "[fit] has no setting 'seed'"),
    ({"fit": "epochs = 2\nthreat = 8"}, "[fit] threat must be text in quotes; found 8"),
    ({"fit": 'epochs = 2\nthreat = "linf"'}, "[fit] threat: a threat is a norm and its ε"),
    ({"fit": 'epochs = 2\nkeep = "first"'}, "[fit] keep must be one of best, last; found 'first'"),
    ({"fit": 'epochs = 2\noptimizer = ["sgd"]'}, "[fit] optimizer must be one of adamw, sgd; found ['sgd']"),
    ({"fit": "epochs = 2\nmixed_precision = 1"}, "[fit] mixed_precision must be true or false; found 1"),
    ({"fit": 'epochs = 2\nclip = "1"'}, "[fit] clip must be a number; found '1'"),
    ({"fit": "epochs = 2020-01-01"}, "[fit] epochs must be a whole number; found "),
    ({"top": 'schedule = "one-cycle"'}, "[schedule] must be a table; found 'one-cycle'"),
    ({"schedule": "peak = 1"}, "[schedule] needs a kind, one of one-cycle, piecewise; found None"),
    ({"schedule": 'kind = "one-cycle"\nstart = 1'}, "[schedule] one-cycle has no setting 'start'"),
    ({"schedule": 'kind = "one-cycle"\npeak = nan'}, "[schedule] one-cycle: peak must be positive and finite; "),
    ({"schedule": 'kind = "piecewise"\nmilestones = ["a"]'},
     "[schedule] milestones must be a list of numbers; found ['a']"),
    ({"schedule": 'kind = "piecewise"\nmilestones = [2, 1]'}, "[schedule] piecewise: milestones must be positive"),
]


@pytest.mark.parametrize(("change", "words"), WRONG, ids=[words for _, words in WRONG])
def test_a_wrong_recipe_is_refused_by_file_table_and_key(here, change, words):
    path = write(here / "mine.toml", **change)
    with pytest.raises(ValueError, match=re.escape(words)) as error:
        read_recipe(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("content", "words"), [
    (b"[model", "at end of document"), (b"[model]\nbuilder = cnn", "line 2"), (b"\xff", "utf-8"),
    (b"", "needs a table [model]"),
])
def test_what_is_no_toml_is_refused(here, content, words):
    (here / "mine.toml").write_bytes(content)
    with pytest.raises(ValueError, match=r"^mine\.toml: ") as error:
        read_recipe("mine.toml")
    assert words in str(error.value)


@pytest.mark.parametrize("name", ["none", "none.toml", ".", "../recipes/signs-pgd"])
def test_an_unknown_recipe_lists_the_known_ones(here, name):
    with pytest.raises(FileNotFoundError, match=r"there is no recipe .*signs-trades-6"):
        read_recipe(name)


def test_a_hint_for_each_setting_is_understood():
    """A setting of `fit` whose type this file could not check would refuse every value."""
    for key, value in (("patience", 3), ("clip", 1), ("averaging", 0.9), ("keep", "last"), ("channels_last", True),
                       ("every", 2), ("ramp", 2), ("on_collapse", "warn"), ("validation_steps", 3)):
        settings = recipes._fit({"epochs": 1, key: value})["settings"]
        assert settings[key] == value


# Data.


def test_a_tenth_of_every_class_is_held_out(here):
    (x, y), (x_val, y_val) = read_recipe(write(here / "mine.toml")).load()
    assert (len(x), len(x_val)) == (54, 6)
    assert y_val.bincount().tolist() == [2, 2, 2]
    whole, labels, _ = data.find_data("train.npz")
    rows = {image.numpy().tobytes(): int(label) for image, label in zip(whole, labels, strict=True)}
    seen = [image.numpy().tobytes() for image in torch.cat([x, x_val])]
    assert len(set(seen)) == 60
    assert [rows[image] for image in seen] == torch.cat([y, y_val]).tolist()


def test_validation_from_a_file_or_fewer(here):
    (x, _), (x_val, y_val) = read_recipe(write(
        here / "a.toml", data='name = "train.npz"\nvalidation = "val.npz"')).load()
    assert (len(x), len(x_val)) == (60, 30)
    assert torch.equal(x_val, data.find_data("val.npz")[0])
    assert y_val.tolist() == [k % 3 for k in range(30)]
    (x, _), (x_val, _) = read_recipe(write(here / "b.toml", data='name = "train.npz"\nvalidation = 4')).load()
    assert (len(x), len(x_val)) == (54, 4)


def test_fewer_of_what_is_held_out_are_of_all_classes(here):
    """Files, and folders always, are in order of the classes."""
    np.savez("sorted.npz", images=np.random.default_rng(0).random((300, 8, 8, 3)), labels=np.arange(300) // 100)
    recipe = read_recipe(write(here / "mine.toml", data='name = "sorted.npz"\nvalidation = 12'))
    (_, y), (_, y_val) = recipe.load()
    assert len(y_val) == 12
    assert y_val.unique().tolist() == y.unique().tolist() == [0, 1, 2]
    assert torch.equal(recipe.load()[1][0], recipe.load()[1][0])


def test_the_initial_weights_of_a_named_network_follow_from_the_seed(here):
    (here / "mine.py").write_text("from torch import nn\ndef make(): return nn.Linear(2, 2)\n")
    first, again, other = (read_recipe(write(here / f"{name}.toml", f"seed = {seed}", model='name = "mine.py:make"'))
                           .build()(torch.ones(1, 2)) for name, seed in (("a", 1), ("b", 1), ("c", 2)))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_named_set_has_splits(here):
    (x, y), (x_val, y_val) = read_recipe("moons-standard").load()
    assert torch.equal(x, data.load("moons", "train")[0])
    assert torch.equal(y_val, data.load("moons", "validation")[1])
    np.savez("points.npz", x=np.random.default_rng(0).random((7, 2)), y=np.arange(7) % 2)
    own = read_recipe(write(here / "a.toml", data='name = "moons"\nvalidation = "points.npz"'))
    (x, _), (x_val, _) = own.load()
    assert (len(x), len(x_val)) == (len(y), 7)


def test_folders_of_images(here):
    for folder, classes in (("train", "abc"), ("val", "abc"), ("other", "ac")):
        for name in classes:
            (here / folder / name).mkdir(parents=True)
            for k in range(10):
                shade = np.full((9 + k % 2, 12, 3), 20 * k, np.uint8)
                Image.fromarray(shade).save(here / folder / name / f"{k}.png")
    text = 'name = "train"\nresize = 8\ncrop = 8\n'
    (x, y), (x_val, _) = read_recipe(write(here / "a.toml", data=text)).load()
    assert (x.shape, x_val.shape) == ((27, 3, 8, 8), (3, 3, 8, 8))
    assert y.unique().tolist() == [0, 1, 2]
    _, (x_val, _) = read_recipe(write(here / "b.toml", data=text + 'validation = "val"')).load()
    assert x_val.shape == (30, 3, 8, 8)
    with pytest.raises(ValueError, match=r"^\[data\] validation: the folders of other are not those of train.*: a, c$"):
        read_recipe(write(here / "c.toml", data=text + 'validation = "other"')).load()


@pytest.mark.parametrize(("text", "error", "words"), [
    ('name = "none.npz"', FileNotFoundError, "[data] name: there is no file none.npz"),
    ('name = "none"', FileNotFoundError, "[data] name: there is no data set, file or folder 'none'"),
    ('name = "train.npz"\nvalidation = "none.npz"', FileNotFoundError, "[data] validation: there is no file none.npz"),
    ('name = "train.npz"\nvalidation = "bad.npz"', ValueError, "[data] validation: bad.npz cannot be read as data"),
    ('name = "train.npz"\nresize = 8', ValueError, "[data] name: resize is for folders of images"),
])
def test_data_that_are_not_there(here, text, error, words):
    (here / "bad.npz").write_bytes(b"nothing")
    with pytest.raises(error) as caught:
        read_recipe(write(here / "mine.toml", data=text)).load()
    assert str(caught.value).startswith(words)


@pytest.mark.parametrize(("wrong", "words"), [
    ({"labels": np.arange(30) % 4}, "[data] validation: it has the label 3, and [model] has 3 outputs: labels from "),
    ({"images": np.zeros((30, 7, 7, 3), np.float32)}, "[data] validation: [model] fails on its first image, of shape "
                                                      "(3, 7, 7): RuntimeError: "),
])
def test_data_that_do_not_fit_the_model(here, wrong, words):
    x, y = images(30)
    np.savez("val.npz", **({"images": x, "labels": y} | wrong))
    recipe = read_recipe(write(here / "mine.toml", data='name = "train.npz"\nvalidation = "val.npz"'))
    with pytest.raises(ValueError, match="^" + re.escape(words)):
        recipe.run("run", progress=False)
    assert not (here / "run").exists()


# The network.


def test_the_seed_decides_the_initial_weights_and_the_global_generator_does_not(here):
    def built(seed, text=PLAIN["model"]):
        torch.manual_seed(seed + 10 * len(seen))
        seen.append(1)
        before = torch.get_rng_state()
        model = read_recipe(write(here / "mine.toml", f"seed = {seed}", model=text)).build()
        assert torch.equal(torch.get_rng_state(), before)
        return torch.cat([p.flatten() for p in model.parameters()])

    seen = []
    assert torch.equal(built(0), built(0))
    assert not torch.equal(built(0), built(1))
    torch.manual_seed(7)
    by_hand = models.small_cnn([4], in_shape=[3, 8, 8], classes=3, hidden=8)
    assert torch.equal(built(7), torch.cat([p.detach().flatten() for p in by_hand.parameters()]))


MINE = """
from torch import nn
def make():
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.ReLU(), nn.Dropout(.2), nn.Linear(8, 3))
def image():
    class Same(nn.Conv2d): pass
    return Same(3, 3, 1)
def in_place():
    class InPlace(nn.Sequential):
        def forward(self, x):
            return super().forward(x.clamp_(0.2, 0.8))
    return InPlace(nn.Flatten(), nn.Linear(192, 3))
def colour_last():
    class ColourLast(nn.Linear):
        def forward(self, x):
            return super().forward(x).mean((1, 2))
    return ColourLast(3, 3)
def heads():
    class Heads(nn.Linear):
        def forward(self, x):
            logits = super().forward(x)
            return (logits, logits) if self.training else logits
    return nn.Sequential(nn.Flatten(), Heads(192, 3))
"""


def test_a_model_and_data_of_ones_own_and_twice_the_same_weights(here):
    (here / "my_models.py").write_text(MINE)
    path = write(here / "mine.toml", model='name = "my_models.py:make"\nmean = [0.5, 0.5, 0.5]\nstd = [0.5, 0.5, 0.5]',
                 data='name = "train.npz"\naugment = ["flip", "shift"]')
    seen = []
    for folder in ("a", "b"):
        torch.rand(len(folder))  # moves the global generator
        before = torch.get_rng_state()
        model, history = read_recipe(path).run(folder, progress=False, on_start=lambda model, data, validation:
                                               seen.append((len(data[0]), len(validation[0]))))
        assert torch.equal(torch.get_rng_state(), before)
        assert not model.training
    assert seen == [(54, 6)] * 2
    assert (here / "a" / "kept.safetensors").read_bytes() == (here / "b" / "kept.safetensors").read_bytes()
    assert history.kept in (1, 2)
    kept = safetensors.torch.load_file(here / "a" / "kept.safetensors")
    assert all(torch.equal(kept[name], value) for name, value in model.state_dict().items())


def test_a_model_that_works_in_place(here):
    (here / "my_models.py").write_text(MINE)
    recipe = read_recipe(write(here / "mine.toml", model='name = "my_models.py:in_place"'))
    words = r"\[data\] name: \[model\] fails on its first image.*: the model changes its input in place"
    with pytest.raises(ValueError, match=words):
        recipe.run(progress=False)


def test_what_an_attack_says_of_a_model_is_said_once_and_as_it_is(here):
    (here / "my_models.py").write_text(MINE)
    recipe = read_recipe(write(here / "mine.toml", model='name = "my_models.py:colour_last"'))
    words = (r"\[data\] name: \[model\] fails on its first image, of shape \(3, 8, 8\): the model fails on images of "
             r"shape \(\d+, 3, 8, 8\): RuntimeError: .*my_models\.py, line \d+\)\. It takes images as \(N, H, W, C\): "
             r"x\.permute\(0, 2, 3, 1\)$")
    with pytest.raises(ValueError, match=words):
        recipe.run(progress=False)


def test_auxiliary_heads_are_left_alone(here):
    (here / "my_models.py").write_text(MINE)
    _, history = read_recipe(write(here / "mine.toml", model='name = "my_models.py:heads"')).run(progress=False)
    assert "auxiliary heads get no loss" in history.noted


def test_a_model_that_returns_no_logits(here):
    (here / "my_models.py").write_text(MINE)
    recipe = read_recipe(write(here / "mine.toml", model='name = "my_models.py:image"'))
    with pytest.raises(ValueError, match=r"must return logits of shape \(2, K\) for 2 images; found \(2, 3, 8, 8\)"):
        recipe.run(progress=False)


def test_settings_reach_the_training(here):
    """The same as the call that they stand for."""
    recipe = read_recipe(write(here / "mine.toml", "seed = 3", data='name = "train.npz"\naugment = ["shift"]',
                               fit='epochs = 2\nbatch_size = 18\noptimizer = "sgd"\nthreat = "linf:1/255"\nramp = 1',
                               schedule='kind = "piecewise"\nstart = 0.05'))
    made, history = recipe.run(progress=False)
    model, (training, validation) = recipe.build(), recipe.load()
    by_hand = recipes.fit(model, training, PGDTraining(recipes.ThreatModel("linf", 4 / 255), steps=2), epochs=2,
                          batch_size=18, optimizer="sgd", threat=recipes.ThreatModel("linf", 1 / 255), ramp=1, seed=3,
                          schedule=Piecewise(0.05), augment=[Shift(2)], validation=validation, progress=False)
    assert [epoch.robust for epoch in history] == [epoch.robust for epoch in by_hand]
    for a, b in zip(made.parameters(), model.parameters(), strict=True):
        assert torch.equal(a, b)
    assert isinstance(made, nn.Module)


def test_images_in_folders_are_resized_as_the_recipe_or_the_published_weights_say(here):
    for name in "abc":
        (here / "train" / name).mkdir(parents=True)
        for k in range(10):
            shade = np.random.default_rng(k).integers(0, 256, (19, 22, 3), dtype=np.uint8)
            Image.fromarray(shade).save(here / "train" / name / f"{k}.png")
    text = 'name = "train"\nresize = 8\ncrop = 8\n'
    (bilinear, _), _ = read_recipe(write(here / "a.toml", data=text)).load()
    recipe = read_recipe(write(here / "b.toml", data=f'{text}interpolation = "bicubic"\nantialias = false'))
    (blunt, _), _ = recipe.load()
    published = replace(recipe, model={"name": "torchvision:swin_t"}, prepare={"resize": 8, "crop": 8})
    assert published.preparation == {"resize": 8, "crop": 8, "interpolation": "bicubic", "antialias": True}
    (bicubic, _), _ = published.load()
    assert not torch.equal(bilinear, bicubic)
    assert not torch.equal(blunt, bicubic)
    with pytest.raises(ValueError, match=r"\[data\] antialias must be true or false"):
        read_recipe(write(here / "c.toml", data=f"{text}antialias = 1"))
