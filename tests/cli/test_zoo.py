import json

from typer.testing import CliRunner

from robustness_lib import models
from robustness_lib.cli import app


def run(*arguments):
    return CliRunner().invoke(app, ["zoo", *arguments])


def test_list_has_every_model_with_its_figures():
    result = run("list")
    assert result.exit_code == 0
    for name in models.list_pretrained():
        assert f" {name} " in result.stdout
    assert "linf 8/255 55.3 %" in result.stdout


def test_list_as_json():
    entries = {entry["name"]: entry for entry in json.loads(run("list", "--json").stdout)}
    assert sorted(entries) == models.list_pretrained()
    about = models.card("signs-pgd")
    entry = entries["signs-pgd"]
    assert entry["data"] == "signs"
    assert entry["architecture"] == "small_cnn"
    assert entry["clean"] == about["accuracy"]["clean"]
    assert entry["robust"] == {k: v for k, v in about["accuracy"].items() if k != "clean"}


def test_show():
    result = run("show", "zoo:signs-pgd")
    assert result.exit_code == 0
    assert "python benchmarks/train.py" in result.stdout
    assert "55.3 % (95 %: 52.2–58.4, n = 1,000)" in result.stdout
    assert json.loads(run("show", "signs-pgd", "--json").stdout) == models.card("signs-pgd")


def test_an_unknown_model():
    result = run("show", "resnet")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "signs-pgd" in result.stderr
    assert "Traceback" not in result.stderr
