import json

import pytest
from typer.testing import CliRunner

from robustness_lib import models
from robustness_lib.cli import app


def run(*arguments):
    return CliRunner().invoke(app, ["zoo", *arguments], env={"COLUMNS": "200"})


def test_list_has_every_model_with_its_figures():
    result = run("list")
    assert result.exit_code == 0
    for name in models.list_pretrained():
        assert f" {name} " in result.stdout
    for name, figures in models.card("signs-pgd")["accuracy"].items():
        words = f"{100 * figures['accuracy']:.1f} %"
        assert (words if name == "clean" else f"{name} {words}") in result.stdout


def test_list_as_json():
    entries = {entry["name"]: entry for entry in json.loads(run("list", "--json").stdout)}
    assert sorted(entries) == models.list_pretrained()
    about = models.card("signs-pgd")
    entry = entries["signs-pgd"]
    assert entry["data"] == "signs"
    assert entry["architecture"] == "small_cnn"
    assert entry["clean"] == about["accuracy"]["clean"]
    assert entry["robust"] == {k: v for k, v in about["accuracy"].items() if k != "clean"}


@pytest.mark.parametrize("name", models.list_pretrained())
def test_show(name):
    result = run("show", f"zoo:{name}")
    assert result.exit_code == 0
    assert f"command python benchmarks/train.py {name}" in result.stdout
    for figures in models.card(name)["accuracy"].values():
        low, high = (f"{100 * bound:.1f}" for bound in figures["interval_95"])
        words = f"{100 * figures['accuracy']:.1f} % (95 %: {low}–{high}, n = {figures['n']:,})"
        assert words in result.stdout
    assert not {"{", "}"} & set(result.stdout)  # words, and no piece of Python
    assert json.loads(run("show", name, "--json").stdout) == models.card(name)


CARD = {"name": "signs-pgd", "architecture": {"builder": "small_cnn", "arguments": {"channels": [4, 8], "deep": True}},
        "recipe": {"command": "python x.py", "data": {"name": "signs"}, "objective": {"kind": "pgd", "steps": 5}},
        "seed": 0, "trained": {}, "accuracy": {"clean": {"accuracy": 0.5, "n": 1000, "interval_95": [0.4, 0.6]}}}


def test_inner_tables_have_a_line_each(monkeypatch):
    monkeypatch.setattr("robustness_lib.cli._zoo.card", lambda name: CARD)
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in run("show", "any").stdout.splitlines()]
    assert [row for row in rows if row] == [
        ["name", "signs-pgd"], ["architecture", "builder small_cnn"], ["", "arguments: channels [4, 8], deep true"],
        ["recipe", "command python x.py"], ["", "data: name signs"], ["", "objective: kind pgd, steps 5"],
        ["seed", "0"], ["accuracy, clean", "50.0 % (95 %: 40.0–60.0, n = 1,000)"]]


def test_a_model_that_is_not_measured_yet_is_listed_as_that(monkeypatch):
    about = models.card("signs-pgd") | {"accuracy": {}}
    monkeypatch.setattr("robustness_lib.cli._zoo.card", lambda name: about)
    assert "not measured" in run("list").stdout
    assert run("show", "signs-pgd").exit_code == 0


def test_how_to_train_such_a_one_is_said_where_a_recipe_of_the_name_exists(monkeypatch):
    monkeypatch.setattr("robustness_lib.cli._zoo.card", lambda name: CARD | {"name": name})
    assert "robustness train signs-pgd trains" in run("show", "signs-pgd").stdout
    assert "robustness train" not in run("show", "other").stdout


def test_an_unknown_model():
    result = run("show", "resnet")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "signs-pgd" in result.stderr
    assert "Traceback" not in result.stderr
