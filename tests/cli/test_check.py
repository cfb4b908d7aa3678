import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner

from robustness_lib import ThreatModel, data, models
from robustness_lib.cli import app
from robustness_lib.cli._options import find_subject, parse_normalization

MINE = """
import torch
from torch import nn
from robustness_lib.models import load_pretrained, tiny_cnn

print("hello from the user's file")

class Normalized(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = load_pretrained("signs-tiny-standard")
    def forward(self, x):
        print("and from its forward pass")
        std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
        return self.net(x * std + torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1))

class Two(nn.Module):
    def forward(self, x):
        return {"a": x.mean((2, 3)), "b": [x.mean((1, 2, 3)), x.flatten(1)[:, :2]]}

def fails():
    return [][1]

def make():
    return tiny_cnn()
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    before, path = set(sys.modules), list(sys.path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(MINE)
    x, y, _ = data.load("signs", n=120)
    np.savez("val.npz", images=(x * 255).round().byte().numpy(), labels=y.numpy())
    save_file(models.load_pretrained("signs-tiny-standard").state_dict(), "w.safetensors")
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(tmp_path) in (getattr(sys.modules[name], "__file__", None) or ""):
            del sys.modules[name]
    sys.path[:] = path


def run(*arguments):
    return CliRunner().invoke(app, ["check", *map(str, arguments)])


def refused(result, *words):
    """Exit code 2, one line on stderr, nothing on stdout, no traceback."""
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit)
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    last = result.stderr.strip().splitlines()[-1]
    for word in words:
        assert word in last
    return True


def test_a_model_that_is_fine(here):
    result = run("--model", "zoo:signs-tiny-standard", "--data", "signs", "-n", 100, "--threat", "linf:8/255")
    assert result.exit_code == 0, result.output
    assert "Nothing speaks against an evaluation." in result.stdout
    assert "n = 100" in result.stdout


def test_a_model_that_expects_normalized_input_and_its_repair(here):
    result = run("--model", "mine:Normalized", "--data", "val.npz", "-n", 100)
    assert result.exit_code == 1, result.output
    line = next(line for line in result.stdout.splitlines() if line.startswith("problem pixels"))
    flags = line.partition("use ")[2].partition(" (or")[0].split()
    assert flags[::2] == ["--mean", "--std"]
    for repair in (flags, ["--mean", "imagenet"]):
        result = run("--model", "mine:Normalized", "--data", "val.npz", "-n", 100, *repair)
        assert result.exit_code == 0, result.output
    assert "100 of the 120 images" in result.stderr


def test_json_and_nothing_else(here):
    result = run("--model", "mine:Normalized", "--data", "val.npz", "--json")
    assert result.exit_code == 1
    content = json.loads(result.stdout)
    assert content["fine"] is False
    assert content["accuracy"]["n"] == 120
    assert "hello from the user's file" in result.stderr
    assert "and from its forward pass" in result.stderr


def test_weights_and_files(here):
    result = run("--model", "mine.py:make", "--weights", "w.safetensors", "--data", "val.npz", "--json")
    assert result.exit_code == 0, result.output
    x, y, _ = data.load("signs", n=120)
    with torch.no_grad():
        right = int((models.load_pretrained("signs-tiny-standard")(x).argmax(1) == y).sum())
    assert json.loads(result.stdout)["accuracy"]["correct"] == right
    assert run("--model", "mine:make", "--weights", "random", "--data", "val.npz").exit_code == 1


def test_a_library_model(here):
    result = run("--model", "torchvision:squeezenet1_1", "--weights", "random", "--classes", 10, "--data", "val.npz",
                 "-n", 64, "--batch-size", 32, "--json")
    assert result.exit_code == 1
    content = json.loads(result.stdout)
    assert content["outputs"] == 10
    assert content["batch"] == 32
    assert "guessing" in {remark["kind"] for remark in content["remarks"]}


def test_the_place_of_the_logits(here):
    assert run("--model", "mine:Two", "--data", "val.npz", "--output", "a", "--json").exit_code == 1
    assert json.loads(run("--model", "mine:Two", "--data", "val.npz", "--output", "a", "--json").stdout)["outputs"] == 3
    refused(run("--model", "mine:Two", "--data", "val.npz"), "no logits found")
    refused(run("--model", "mine:Two", "--data", "val.npz", "--output", "c"), "has no 'c'")


@pytest.mark.parametrize(("arguments", "words"), [
    (["--model", "zoo:resnet", "--data", "signs"], "no shipped model"),
    (["--model", "mine", "--data", "signs"], "names no model"),
    (["--model", "mine:fails", "--data", "signs"], "IndexError: list index out of range"),
    (["--model", "mine:make", "--weights", "gone.pt", "--data", "signs"], "no file gone.pt"),
    (["--model", "mine:make", "--weights", "mine.py", "--data", "signs"], "mine.py is damaged"),
    (["--model", "mine:make", "--data", "sings"], "there is no data set"),
    (["--model", "mine:make", "--data", "mine.py"], "neither an .npz file nor a folder"),
    (["--model", "mine:make", "--data", "signs", "--split", "all"], "no split 'all'"),
    (["--model", "mine:make", "--data", "signs", "--mean", "0.5"], "give both --mean and --std"),
    (["--model", "mine:make", "--data", "signs", "--mean", "0.5 0.5", "--std", "1"], "commas"),
    (["--model", "mine:make", "--data", "signs", "--mean", "0.5,0.5", "--std", "1,1"], "found 2 for images with 3"),
    (["--model", "mine:make", "--data", "signs", "--mean", "mnist", "--std", "1"], "has its own --std"),
    (["--model", "mine:make", "--data", "signs", "--mean", "124,116,104", "--std", "58,57,57"], "divide by 255"),
    (["--model", "mine:make", "--data", "signs", "--threat", "linf:8"], "did you mean linf:8/255"),
    (["--model", "mine:make", "--data", "signs", "--device", "nowhere"], "cannot be moved to nowhere"),
    (["--model", "zoo:mnist-standard", "--data", "signs"],
     "the model fails on images of shape (20, 3, 32, 32): RuntimeError"),
])
def test_wrong_input_is_one_line(here, arguments, words):
    assert refused(run(*arguments, "-n", "20"), words)


def test_wrong_usage(here):
    assert run("--data", "signs").exit_code == 2
    assert run("--model", "zoo:signs-pgd", "--data", "signs", "-n", 0).exit_code == 2


def test_the_place_of_a_failure_is_named(here):
    result = run("--model", "mine:fails", "--data", "signs", "-n", 20)
    assert "mine.py, line 22)" in result.stderr


def test_normalizations():
    assert parse_normalization(None, None, 3) == (None, None)
    assert parse_normalization("0.5,1/2, .5", "1", 3) == ((0.5, 0.5, 0.5), (1, 1, 1))
    assert parse_normalization("mnist", None, 1) == ((0.1307,), (0.3081,))
    assert parse_normalization("half", "half", 3) == ((0.5,) * 3, (0.5,) * 3)
    assert parse_normalization("bytes", None, 3)[1] == (1 / 255,) * 3
    for mean, std in ((None, "1"), ("0.5", None), ("x", "1"), ("1/0", "1"), ("imagenet", "mnist")):
        with pytest.raises(ValueError, match="--mean"):
            parse_normalization(mean, std, 3)
    with pytest.raises(ValueError, match="found 3 for images with 1"):
        parse_normalization("imagenet", None, 1)


def test_threats():
    assert str(ThreatModel.parse("linf:8/255")) == "L∞ 8/255"
    assert ThreatModel.parse("l2:0.5").eps == 0.5
    assert ThreatModel.parse("Linf:.03").eps == 0.03
    assert ThreatModel.parse("l2:2").eps == 2
    for text in ("linf", "linf:", "8/255", "linf:8/0", "linf:-1", "linf:eight", "linf:1/2/3"):
        with pytest.raises(ValueError, match=r"linf|zero"):
            ThreatModel.parse(text)
    with pytest.raises(ValueError, match="norm must be"):
        ThreatModel.parse("l3:0.5")


def write_pictures(folder):
    for name in "ab":
        (folder / name).mkdir(parents=True)
        for k in range(3):
            pixels = np.random.default_rng(k).integers(0, 256, (40, 48, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{k}.png")


def test_images_are_resized_as_the_published_weights_that_are_named_have_it(here, monkeypatch, capsys):
    write_pictures(here / "val")
    monkeypatch.setattr("robustness_lib.cli._options.find_model", lambda *names, **options: torch.nn.Flatten())
    bicubic, _, _ = data.find_data("val", resize=8, interpolation="bicubic")
    x = find_subject("torchvision:swin_t", "val", None, resize=8).x
    assert torch.equal(x, bicubic)
    assert "Images are resized as torchvision:swin_t has it: bicubic, with antialiasing." in capsys.readouterr().err
    blunt = find_subject("torchvision:swin_t", "val", None, resize=8, antialias=False).x
    assert torch.equal(blunt, data.find_data("val", resize=8, interpolation="bicubic", antialias=False)[0])
    capsys.readouterr()
    given = find_subject("torchvision:swin_t", "val", None, resize=8, interpolation="nearest").x
    assert torch.equal(given, data.find_data("val", resize=8, interpolation="nearest")[0])
    assert "resized" not in capsys.readouterr().err
    own = find_subject("mine:make", "val", None, resize=8).x
    assert torch.equal(own, data.find_data("val", resize=8)[0])
    assert "nothing says how those of the model were" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["check", "evaluate"])
def test_options_say_how_images_are_resized(here, command):
    write_pictures(here / "val")
    more = ["--threat", "linf:8/255", "--out", "run", "--suite", "quick"] if command == "evaluate" else []
    arguments = [command, "--model", "zoo:signs-tiny-standard", "--data", "val", "--crop", "32", *more]
    for options, words in ((["--resize", "32", "--interpolation", "cubic"], "must be one of nearest"),
                           (["--antialias"], "no resize is given"), (["--no-antialias"], "no resize is given")):
        result = CliRunner().invoke(app, [*arguments, *options])
        assert result.exit_code == 2
        assert words in result.stderr
    result = CliRunner().invoke(app, [*arguments, "--resize", "32", "--interpolation", "bicubic", "--no-antialias"])
    assert result.exit_code in (0, 1), result.output
    assert "resized" not in result.stderr


# Models that fail, each in its own way: one line with its place, and the traceback where it is asked for.

FAILING = """
import torch
from torch import nn
from robustness_lib.models import tiny_cnn

class Failing(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.net, self.how, self.calls = tiny_cnn(), how, 0
    def forward(self, x):
        self.calls += 1
        self.how(self)
        return self.net(x)

def fails_with(error, at=1):
    def how(model):
        if model.calls >= at:
            raise error
    return lambda: Failing(how)

key, value, os_, runtime = (fails_with(kind("no luck")) for kind in (KeyError, ValueError, OSError, RuntimeError))
late = fails_with(AssertionError("no luck"), at=6)
leaves = fails_with(SystemExit(0))
recursion = lambda: Failing(lambda model: model.how(model))

class Slope(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x): return x.clone()
    @staticmethod
    def backward(ctx, g): raise LookupError("no luck behind")

class Backward(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = tiny_cnn()
    def forward(self, x): return self.net(Slope.apply(x))
class Two(nn.Module):
    def forward(self, x, mask): return x
"""
WAYS = {"key": "KeyError: 'no luck'", "value": "ValueError: no luck", "os_": "OSError: no luck",
        "runtime": "RuntimeError: no luck", "late": "AssertionError: no luck", "leaves": "it calls sys.exit",
        "recursion": "RecursionError", "Backward": "LookupError: no luck behind", "Two": "missing 1 required"}


@pytest.mark.parametrize("command", ["check", "evaluate"])
@pytest.mark.parametrize("name", WAYS)
def test_a_model_that_fails_is_one_line_with_its_place(here, name, command):
    (here / "failing.py").write_text(FAILING)
    more = ["--threat", "linf:8/255", "--suite", "quick", "--out", "run"] if command == "evaluate" else []
    arguments = [command, "--model", f"failing.py:{name}", "--data", "val.npz", "-n", "40", *more]
    result = CliRunner().invoke(app, arguments)
    refused(result, WAYS[name], *(["failing.py, line "] if name != "Two" else []))
    traced = CliRunner().invoke(app, [*arguments, "--debug"])
    assert traced.exit_code == 2
    assert "Traceback (most recent call last)" in traced.stderr
    assert "robustness_lib" in traced.stderr
    assert traced.stderr.strip().splitlines()[-1] == result.stderr.strip().splitlines()[-1]


def test_debug_changes_nothing_where_nothing_fails_and_shows_what_is_in_words_too(here):
    result = run("--model", "zoo:signs-tiny-standard", "--data", "signs", "-n", 100, "--debug")
    assert result.exit_code == 0
    assert "Traceback" not in result.stderr
    result = run("--model", "zoo:no-such", "--data", "signs", "--debug")
    assert "Traceback" in result.stderr
    assert "no shipped model" in result.stderr.strip().splitlines()[-1]


@pytest.mark.filterwarnings("ignore")
def test_a_program_is_checked(here):
    torch.jit.script(models.load_pretrained("signs-tiny-standard")).save("net.pt")
    for name in ("net.pt", "uses.py:make"):
        (here / "uses.py").write_text("import torch\ndef make(): return torch.jit.load('net.pt')\n")
        result = run("--model", name, "--data", "val.npz", "-n", 100)
        assert result.exit_code == 0, result.output
    refused(run("--model", "mine.py:make", "--weights", "net.pt", "--data", "val.npz"), "--model net.pt")
