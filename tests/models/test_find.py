import os
import pickle
import sys
import warnings

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from robustness_lib import models
from robustness_lib.models import find_model
from robustness_lib.models._state_dict_files import outputs_held
from robustness_lib.models.adapt import Normalize

MINE = """
from torch import nn

class Net(nn.Sequential):
    def __init__(self, outputs=3):
        super().__init__(nn.Flatten(), nn.Linear(12, 4), nn.ReLU(), nn.Linear(4, outputs))

class Inner(nn.Module):
    def __init__(self):
        super().__init__()
        self.model = Net()
    def forward(self, x):
        return self.model(x)

class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = Net()
    def forward(self, x):
        return {"features": x, "logits": self.net(x)}

class Constants(nn.Module):
    def __init__(self):
        super().__init__()
        import torch
        self.fc = nn.Linear(12, 3)
        self.register_buffer("mu", torch.full((3, 1, 1), 0.5))
        self.norm = nn.BatchNorm2d(3)
    def forward(self, x):
        return self.fc((self.norm(x) - self.mu).flatten(1))

def make():
    return Net()

def needs(width, depth=3):
    return Net()

def fails():
    raise RuntimeError("no such luck\\nsecond line")

def number():
    return 3

def half():
    return Net().half()

ready = Net()
setting = 5
class Holder:
    make = staticmethod(make)
"""
X = torch.rand(5, 3, 2, 2, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The current folder, with a file of models; what is imported from it is forgotten afterwards."""
    before, path = set(sys.modules), list(sys.path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(MINE)
    yield tmp_path
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in sys.modules[name].__file__:
            del sys.modules[name]
    sys.path[:] = path


def net(seed=1):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(12, 4), nn.ReLU(), nn.Linear(4, 3)).eval()


def said():
    sentences = []
    return sentences, sentences.append


@pytest.mark.parametrize("name", ["mine:make", "mine:Net", "mine:ready", "mine.py:make", "mine:Holder.make",
                                  "mine:Pair", "./mine.py:make"])
def test_own_models_are_found(here, name):
    state = torch.random.get_rng_state()
    model = find_model(name)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not any(module.training for module in model.modules())
    assert model(X).shape == (5, 3)
    if name != "mine:ready":  # which was made when its file was imported
        assert torch.equal(model(X), find_model(name)(X))


def test_a_package_and_neighbours_of_a_file(here):
    (here / "pkg" / "deep").mkdir(parents=True)
    (here / "pkg" / "__init__.py").write_text("")
    (here / "pkg" / "nets.py").write_text(
        "from mine import Net\ndef make():\n    from pkg import late\n    return Net()\n")
    (here / "pkg" / "late.py").write_text("")
    (here / "pkg" / "deep" / "json.py").write_text("import neighbour\nmake = neighbour.make\n")
    (here / "pkg" / "deep" / "neighbour.py").write_text("from mine import make\n")
    assert find_model("pkg.nets:make")(X).shape == (5, 3)
    assert find_model("pkg/deep/json.py:make")(X).shape == (5, 3)
    assert "site-packages" not in sys.modules["json"].__file__
    assert str(here) not in sys.modules["json"].__file__


@pytest.mark.parametrize(("name", "error", "words"), [
    ("mine", ValueError, "names no model"),
    ("mine:", ValueError, "names no model"),
    ("signs-pgd", ValueError, 'did you mean "zoo:signs-pgd"'),
    ("zoo:resnet", ValueError, "no shipped model"),
    ("nowhere:make", ValueError, "no module 'nowhere'"),
    ("mine.deeper:make", ValueError, r"no module|not a package"),
    ("nowhere.py:make", FileNotFoundError, "no file nowhere.py"),
    ("mine:makes", ValueError, "has no 'makes'; it defines .*make"),
    ("mine:setting", TypeError, "is a int"),
    ("mine:number", TypeError, "returned a int"),
    ("mine:needs", ValueError, "needs width;"),
    ("mine:fails", ValueError, r"mine:fails failed: RuntimeError: no such luck second line \(.*mine.py, line 39\)"),
    ("torchvision:resnet17", ValueError, r"no classifier 'resnet17'; did you mean .*resnet1"),
    ("torchvision:resnet18.V9", ValueError, "there are IMAGENET1K_V1"),
    ("timm:resnet17", ValueError, r"no model 'resnet17'; did you mean .*resnet1"),
    ("timm:resnet18.nothing", ValueError, "there are .*a1_in1k"),
])
def test_names_that_lead_nowhere(here, name, error, words):
    with pytest.raises(error, match=f"(?i){words}"):
        find_model(name)


@pytest.mark.parametrize(("content", "words"), [
    ("import torch\nx = 1 / 0\n", r"importing bad failed: ZeroDivisionError: division by zero \(.*bad.py, line 2\)"),
    ("def f(:\n", r"SyntaxError: .*bad.py, line 1"),
    ("import sys\nsys.exit(2)\n", r"sys.exit.*__main__.*line 2"),
    ("import missing_thing\n", r"No module named 'missing_thing' \(.*bad.py, line 1"),
    ("import torch\ntorch.zeros(2) @ torch.zeros(3)\n", r"RuntimeError.*bad.py, line 2\)"),
])
def test_code_that_fails_is_named_with_its_place(here, content, words):
    (here / "bad.py").write_text(content)
    with pytest.raises(ValueError, match=words):
        find_model("bad:make")
    with pytest.raises(ValueError, match=words.replace("importing bad failed", "importing bad.py failed")):
        find_model("bad.py:make")


def test_the_zoo_is_handed_on(here):
    model = find_model("zoo:moons-standard")
    assert type(model) is type(models.load_pretrained("moons-standard"))
    with pytest.raises(ValueError, match=r"comes with its weights, and .*would change nothing"):
        find_model("zoo:moons-standard", "random")
    x = torch.rand(4, 2)
    assert torch.equal(model(x), models.load_pretrained("moons-standard")(x))


def test_mean_and_std_go_inside(here):
    plain, normalized = find_model("mine:make"), find_model("mine:make", mean=[0.1, 0.2, 0.3], std=[0.5, 0.5, 0.25])
    z = (X - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)) / torch.tensor([0.5, 0.5, 0.25]).view(3, 1, 1)
    assert torch.allclose(normalized(X), plain(z))
    with pytest.raises(ValueError, match="both"):
        find_model("mine:make", mean=[0.5])


# Weights.

def layouts(state):
    return {
        "plain": state, "nested": {"state_dict": state, "epoch": 3}, "model": {"model": state, "optimizer": {}},
        "named": {"model_state_dict": state}, "parallel": {f"module.{k}": v for k, v in state.items()},
        "nested parallel": {"state_dict": {f"module.{k}": v for k, v in state.items()}},
        "compiled": {f"_orig_mod.{k}": v for k, v in state.items()},
        "both": {f"module._orig_mod.{k}": v for k, v in state.items()},
        "inner": {f"model.{k}": v for k, v in state.items()}, "net": {f"net.{k}": v for k, v in state.items()},
        "last": {"last": state, "best": state}, "last nested": {"last": {"state_dict": state}},
        "parallel inside": {k.replace(".", ".module.", 1): v for k, v in state.items()},
    }


@pytest.mark.parametrize("layout", sorted(layouts({})))
def test_layouts(here, layout):
    torch.save(layouts(net().state_dict())[layout], "w.pt")
    assert torch.equal(find_model("mine:make", "w.pt")(X), net()(X))


def test_a_prefix_that_the_model_has_and_the_file_lacks(here):
    torch.save(net().state_dict(), "w.pt")
    assert torch.equal(find_model("mine:Inner", "w.pt")(X), net()(X))
    assert torch.equal(find_model("mine:Pair", "w.pt")(X), net()(X))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_safetensors_and_half_precision(here, dtype):
    save_file({k: v.to(dtype) for k, v in net().state_dict().items()}, "w.safetensors")
    sentences, say = said()
    model = find_model("mine:make", "w.safetensors", say=say)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert torch.allclose(model(X), net()(X), atol=0.02)
    assert ("float32" in " ".join(sentences)) == (dtype != torch.float32)
    assert find_model("mine:half")(X).dtype == torch.float32


def test_of_several_weights_one_is_said(here):
    torch.save({"model_ema": net(2).state_dict(), "state_dict": net(1).state_dict()}, "w.pt")
    sentences, say = said()
    assert torch.equal(find_model("mine:make", "w.pt", say=say)(X), net(1)(X))
    assert "state_dict, model_ema" in sentences[0]


def test_constants_may_be_missing_but_nothing_else(here):
    from_file = find_model("mine:Constants", "random").model
    state = from_file.state_dict()
    del state["mu"], state["norm.num_batches_tracked"]
    state["fc.weight"] = state["fc.weight"] + 1
    torch.save(state, "w.pt")
    sentences, say = said()
    model = find_model("mine:Constants", "w.pt", say=say).model
    assert torch.equal(model.mu, from_file.mu)
    assert torch.equal(model.fc.weight, state["fc.weight"])
    assert "has no mu" in " ".join(sentences)
    del state["norm.running_mean"]
    torch.save(state, "w.pt")
    with pytest.raises(ValueError, match=r"norm\.running_mean is missing"):
        find_model("mine:Constants", "w.pt")


def test_up_to_five_tensors_that_do_not_fit_are_named(here):
    state = net().state_dict()
    state["3.weight"] = torch.zeros(7, 4)
    state["more"] = torch.zeros(1)
    del state["1.bias"]
    torch.save(state, "w.pt")
    with pytest.raises(ValueError, match="do not fit the model") as caught:
        find_model("mine:make", "w.pt")
    for words in ("3.weight is (7, 4), not (3, 4)", "1.bias is missing", "more is not the model's"):
        assert words in str(caught.value)
    torch.save({f"other{i}": torch.zeros(1) for i in range(9)}, "w.pt")
    with pytest.raises(ValueError, match="is missing") as caught:
        find_model("mine:make", "w.pt")
    assert str(caught.value).count(";") == 5  # five tensors, and the advice
    assert "8 more" in str(caught.value)


class Bomb:
    def __reduce__(self):
        return os.system, ("touch boom",)


def test_a_pickle_that_needs_more_is_refused(here):
    torch.save({"state_dict": net().state_dict(), "bomb": Bomb()}, "bomb.pt")
    torch.save(net(), "whole.pt")
    (here / "raw.pt").write_bytes(pickle.dumps({"a": Bomb()}))
    for name, words in (("bomb.pt", "posix.system|nt.system"), ("whole.pt", "torch.nn.modules.container.Sequential"),
                        ("raw.pt", "more than")):
        with pytest.raises(ValueError, match=words) as caught:
            find_model("mine:make", name)
        assert "torch.save(model.state_dict()" in str(caught.value)
        assert "\n" not in str(caught.value)
    assert not (here / "boom").exists()


def test_files_that_are_no_weights(here):
    (here / "text.pt").write_text("hello")
    (here / "empty.pt").write_bytes(b"")
    (here / "cut.safetensors").write_bytes(b"\x10\0\0\0")
    torch.save({"epoch": 3}, "none.pt")
    torch.save([1, 2], "list.pt")
    with pytest.warns(FutureWarning):
        torch.jit.script(nn.Linear(2, 2)).save("script.pt")
    for name, words in (("text.pt", "damaged"), ("empty.pt", "damaged"), ("cut.safetensors", "damaged"),
                        ("none.pt", "it holds epoch"), ("list.pt", "it holds list"), ("script.pt", "TorchScript")):
        with pytest.raises(ValueError, match=words):
            find_model("mine:make", name)
    with pytest.raises(FileNotFoundError, match=r"no file gone\.pt"):
        find_model("mine:make", "gone.pt")


# Libraries of models; their published weights cannot be had in a test.

@pytest.mark.parametrize("library", ["torchvision", "timm"])
def test_a_library_model_with_weights_of_ones_own(here, library):
    made = find_model(f"{library}:resnet18", "random", classes=7).model
    save_file({k: v + 0.01 if v.is_floating_point() else v for k, v in made.state_dict().items()}, "w.safetensors")
    sentences, say = said()
    model = find_model(f"{library}:resnet18", "w.safetensors", say=say)
    assert torch.equal(model.model.conv1.weight, made.conv1.weight + 0.01)
    assert model.model.fc.out_features == 7
    assert "7 outputs" in " ".join(sentences)
    assert not isinstance(model.normalize, Normalize)  # nobody knows what these weights expect
    with pytest.raises(ValueError, match=r"fc\.weight is \(7, 512\), not \(9, 512\)"):
        find_model(f"{library}:resnet18", "w.safetensors", classes=9)


@pytest.mark.parametrize(("name", "file"), [("torchvision:resnet18", "resnet18-f37072fd.pth"),
                                            ("torchvision:resnet18.IMAGENET1K_V1", "w.pth"),
                                            ("timm:resnet18.a1_in1k", "w.pth")])
def test_the_normalization_of_published_weights_is_filled_in(here, name, file):
    torch.save(find_model(name, "random").model.state_dict(), file)
    sentences, say = said()
    model = find_model(name, file, say=say)
    assert model.normalize.mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])
    assert model.normalize.std.flatten().tolist() == pytest.approx([0.229, 0.224, 0.225])
    assert "0.485,0.456,0.406 is subtracted" in " ".join(sentences)
    assert "224" in " ".join(sentences) or "288" in " ".join(sentences)
    given = find_model(name, file, mean=[0.5] * 3, std=[0.5] * 3)
    assert given.normalize.mean.flatten().tolist() == [0.5] * 3


@pytest.mark.parametrize("library", ["torchvision", "timm"])
def test_published_weights_that_cannot_be_fetched(here, library, monkeypatch):
    def refused(*args, **options):
        raise OSError("no network\nat all")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refused)
    monkeypatch.setattr("timm.create_model", refused)
    with pytest.raises(ValueError, match=r"resnet18 are not here, and fetching them failed \(no network\)"):
        find_model(f"{library}:resnet18")


def test_published_weights_are_never_unpickled(here, monkeypatch):
    asked = {}

    def fetched(url, **options):
        asked.update(options)
        return find_model("torchvision:resnet18", "random").model.state_dict()

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fetched)
    sentences, say = said()
    model = find_model("torchvision:resnet18", say=say)
    assert asked["weights_only"] is True
    assert isinstance(model.normalize, Normalize)
    assert "IMAGENET1K_V1" in sentences[0]
    with pytest.raises(ValueError, match="1000 outputs"):
        find_model("torchvision:resnet18", classes=10)


def test_timm_is_not_needed_for_the_others(here, monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    assert find_model("mine:make")(X).shape == (5, 3)
    with pytest.raises(ValueError, match="not installed"):
        find_model("timm:resnet18")


@pytest.fixture
def recipe(here):
    """Writes run/recipe.toml with this table [model], beside tables that matter to training alone."""
    def write(table):
        (here / "run").mkdir(exist_ok=True)
        (here / "run" / "recipe.toml").write_text(f'[objective]\nkind = "standard"\n[model]\n{table}')
        return "recipe:run/recipe.toml"
    return write


def test_a_recipe_that_names_a_network_of_this_package(here, recipe):
    trained = models.small_cnn([4], in_shape=(3, 4, 4), classes=3, hidden=8)
    save_file(trained.state_dict(), here / "run.safetensors")
    name = recipe('builder = "small_cnn"\nchannels = [4]\nin_shape = [3, 4, 4]\nclasses = 3\nhidden = 8')
    model = find_model(name, "run.safetensors")
    assert not model.training
    x = torch.rand(5, 3, 4, 4)
    torch.testing.assert_close(model(x), trained.eval()(x))
    # As in Python and under any name of the file, and without weights of any kind.
    torch.testing.assert_close(find_model(f"recipe:{here / 'run' / 'recipe.toml'}", here / "run.safetensors")(x),
                               trained(x))
    assert find_model(name, "random")(x).shape == (5, 3)


@pytest.mark.parametrize("further", ["", "mean = [0.5, 0.5, 0.5]\nstd = [0.2, 0.2, 0.2]"])
def test_a_recipe_that_names_a_network_of_ones_own(here, recipe, further):
    """Its weights are those of the whole of it, the normalization that the recipe puts in included."""
    name = recipe(f'name = "mine:make"\n{further}')
    table = {"mean": [0.5] * 3, "std": [0.2] * 3} if further else {}
    trained = find_model("mine:make", **table)
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.add_(1)
    save_file(trained.state_dict(), here / "run.safetensors")
    model = find_model(name, "run.safetensors")
    assert not model.training
    torch.testing.assert_close(model(X), trained(X))
    untrained = find_model(name, "random")
    torch.testing.assert_close(untrained(X), find_model("mine:make", **table)(X))
    assert not torch.allclose(untrained(X), trained(X))


@pytest.mark.parametrize(("table", "weights", "options", "error", "words"), [
    ('name = "mine:make"', None, {}, ValueError, r"give its weights too, such as run/kept\.safetensors"),
    ('builder = "mlp"', None, {}, ValueError, r"give its weights too, such as run/kept\.safetensors"),
    ('name = "mine:make"', "random", {"output": 0}, ValueError, "says classes, mean, std and output itself"),
    ('name = "mine:make"', "random", {"mean": [0.0], "std": [1.0]}, ValueError, "leave them out"),
    ('name = "mine:make"', "random", {"classes": 3}, ValueError, "leave them out"),
    ('name = "mine:make"', "none.pth", {}, FileNotFoundError, "none.pth"),
    ('builder = "mpl"', "random", {}, ValueError, "unknown architecture 'mpl'; known: small_cnn"),
    ('builder = "mlp"\nwidth = [2]', "random", {}, ValueError, "the arguments do not fit mlp"),
    ("classes = 3", "random", {}, ValueError, r"no table \[model\] with a builder or a name"),
    ("classes =", "random", {}, ValueError, r"run/recipe\.toml is no recipe: "),
])
def test_recipes_that_cannot_be_followed(here, recipe, table, weights, options, error, words):
    with pytest.raises(error, match=words):
        find_model(recipe(table), weights, **options)


def test_a_recipe_that_is_not_there(here):
    with pytest.raises(FileNotFoundError, match=r"there is no file run/none\.toml"):
        find_model("recipe:run/none.toml", "random")


def test_classes_and_devices_that_do_not_fit(here):
    with pytest.raises(ValueError, match="torchvision and timm"):
        find_model("mine:make", classes=4)
    with pytest.raises(ValueError, match="cannot be moved to nowhere"):
        find_model("mine:make", device="nowhere")


def test_outputs_are_only_guessed_where_they_alone_differ():
    model = net()
    held = model.state_dict()
    assert outputs_held(model, held) is None
    assert outputs_held(model, held | {"3.weight": torch.zeros(7, 4), "3.bias": torch.zeros(7)}) == 7
    assert outputs_held(model, held | {"3.weight": torch.zeros(7, 4), "1.bias": torch.zeros(9)}) is None
    assert outputs_held(model, held | {"3.weight": torch.zeros(7, 5)}) is None


@pytest.mark.parametrize(("name", "weights", "known"), [
    ("torchvision:resnet18", None, ("bilinear", True)), ("torchvision:swin_t", None, ("bicubic", True)),
    ("torchvision:resnet18", "folder/resnet18-f37072fd.pth", ("bilinear", True)),
    ("torchvision:resnet18", "w.pth", None), ("timm:resnet18.none", None, None),
    ("torchvision:swin_t.IMAGENET1K_V1", "w.pth", ("bicubic", True)), ("torchvision:swin_t", "random", None),
    ("timm:resnet18.a1_in1k", None, ("bicubic", True)), ("timm:resnet18", "w.pth", None),
    ("torchvision:nothing", None, None), ("torchvision:resnet18.V9", None, None), ("mine:make", None, None),
    ("zoo:signs-pgd", None, None), ("nothing", None, None),
])
def test_how_images_were_resized_is_known_of_published_weights(name, weights, known):
    assert models.published_resizing(name, weights) == known


@pytest.mark.parametrize(("given", "known"), [
    ({"resize": 8, "crop": None}, {"resize": 8, "interpolation": "bicubic", "antialias": True}),
    ({"resize": 8, "antialias": False}, {"resize": 8, "interpolation": "bicubic", "antialias": False}),
    ({"resize": 8, "interpolation": "nearest", "antialias": None}, {"resize": 8, "interpolation": "nearest"}),
    ({"resize": None, "crop": 8}, {"crop": 8}), ({}, {}),
])
def test_only_what_is_not_given_is_filled_in_from_published_weights(given, known):
    assert models.with_published_resizing("torchvision:swin_t", None, given) == known
    plain = {key: value for key, value in given.items() if value is not None}
    assert models.with_published_resizing("mine:make", None, given) == plain


# Whole programs, and models that are not modules.

PROGRAMS = """
import functools
import torch
from torch import nn

def plain():
    torch.manual_seed(3)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 3)).eval()

def script(): return torch.jit.load("script.pt")
def frozen(): return torch.jit.load("frozen.pt")
def program(): return torch.export.load("net.pt2")
def module(): return torch.export.load("net.pt2").module()
def function():
    net = plain()
    return lambda x: net(x)
def partial(): return functools.partial(nn.Module.__call__, plain())
class Held:
    def __init__(self): self.net = plain()
    def predict(self, x): return self.net(x)
def method(): return Held().predict
def lazy(): return nn.Sequential(nn.Flatten(), nn.LazyLinear(3))
def meta():
    with torch.device("meta"):
        return plain()
def text(): return "a model"
def a_class(): return nn.Linear
held = torch.jit.load("script.pt")
"""


@pytest.fixture
def programs(here):
    torch.manual_seed(3)
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 3)).eval()
    torch.save(net.state_dict(), "w.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(net).save("script.pt")
        torch.jit.freeze(torch.jit.script(net)).save("frozen.pt")
        shapes = ({0: torch.export.Dim.DYNAMIC},)
        torch.export.save(torch.export.export(net, (torch.rand(4, 3, 2, 2),), dynamic_shapes=shapes), "net.pt2")
    (here / "programs.py").write_text(PROGRAMS)
    return net


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["script.pt", "frozen.pt", "net.pt2", *(f"programs.py:{name}" for name in (
    "script", "frozen", "program", "module", "function", "partial", "method", "held"))])
def test_programs_and_functions_are_models_too(programs, name):
    x = torch.rand(5, 3, 2, 2)
    torch.testing.assert_close(find_model(name)(x), programs(x))
    shifted = find_model(name, mean=[0.5] * 3, std=[0.25] * 3)
    torch.testing.assert_close(shifted(x), programs((x - 0.5) / 0.25))


@pytest.mark.filterwarnings("ignore")
def test_the_advice_on_programs_given_as_weights_is_true(programs):
    for file in ("script.pt", "frozen.pt", "net.pt2"):
        with pytest.raises(ValueError, match="whole program") as caught:
            find_model("programs.py:plain", file)
        name = str(caught.value).rpartition("--model ")[2]
        assert find_model(name)(torch.rand(1, 3, 2, 2)).shape == (1, 3)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "words"), [
    ("w.pt", "holds no program.*--weights w.pt"),
    ("gone.pt", "no file gone.pt"),
    ("cut.pt", "no program.*it begins as an archive and its end is missing"),
    ("programs.py:lazy", r"1\.weight has no values yet"),
    ("programs.py:meta", "meta device"),
    ("programs.py:text", "returned a str"),
    ("programs.py:a_class", "returned a type"),
])
def test_what_is_no_model_is_said_in_one_line(programs, here, name, words):
    (here / "cut.pt").write_bytes((here / "script.pt").read_bytes()[:300])
    with pytest.raises((ValueError, TypeError, FileNotFoundError), match=words) as caught:
        find_model(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("content", "words"), [
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n", "is no program.*a Git LFS pointer.*lfs pull"),
    (b"<!-- saved --><!doctype html><html>", "a saved web page"), (b"", "is empty"), (bytes(99), "nothing but zeros"),
    (b"PK\3\4" + bytes(90), "its end is missing"), (b"\x93NUMPY\1\0", "a NumPy array"),
    (b"\x1f\x8b\x08\0", "compressed by gzip"), (b"\x08\x08\x12\x07pytorch", "an ONNX model"),
])
@pytest.mark.parametrize("name", ["net.pt", "net.pt2"])
def test_a_program_that_is_something_else_is_named_as_what_it_is(here, name, content, words):
    (here / name).write_bytes(content)
    with pytest.raises(ValueError, match=words) as caught:
        find_model(name)
    assert "\n" not in str(caught.value)
    assert "--weights" not in str(caught.value)


@pytest.mark.filterwarnings("ignore")
def test_weights_into_a_program_and_onto_the_meta_device(programs):
    x = torch.rand(5, 3, 2, 2)
    for name in ("script.pt", "programs.py:meta"):
        assert torch.equal(find_model(name, "w.pt")(x), programs(x))
    assert torch.equal(find_model("programs.py:lazy", "w.pt")(x), programs(x))
