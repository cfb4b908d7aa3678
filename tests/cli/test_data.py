import json

import numpy as np
import pytest
from typer.testing import CliRunner

from robustness_lib import data
from robustness_lib.cli import app


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ROBUSTNESS_CACHE", str(tmp_path))
    monkeypatch.delenv("ROBUSTNESS_DATA", raising=False)
    for part in ("train", "test"):
        np.savez(tmp_path / f"cifar10-{part}.npz", images=np.zeros((1200, 3, 32, 32), np.uint8),
                 labels=np.arange(1200) % 10)
    return tmp_path


def test_list_says_what_is_here(cache, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    lines = CliRunner().invoke(app, ["data", "list"]).stdout.splitlines()
    row = {name: next(line for line in lines if f" {name} " in line) for name in data.NAMES}
    assert "drawn here" in row["signs"]
    assert "20,000" in row["signs"]
    assert str(cache) in row["cifar10"]
    assert "1,080" in row["cifar10"]
    assert "robustness data fetch mnist" in row["mnist"]


def test_list_as_json(cache):
    result = CliRunner().invoke(app, ["data", "list", "--json"])
    assert result.exit_code == 0
    held = {one["name"]: one for one in json.loads(result.stdout)}
    assert tuple(held) == data.NAMES
    assert held["cifar10"]["sizes"] == {"train": 1080, "validation": 120, "test": 1200}
    assert held["cifar10"]["folder"] == str(cache)
    assert held["signs"]["drawn"]
    assert held["gtsrb"]["here"] is False


def test_a_damaged_set_is_said(cache):
    (cache / "mnist-test.npz").write_text("damaged")
    held = {one["name"]: one for one in json.loads(CliRunner().invoke(app, ["data", "list", "--json"]).stdout)}
    assert "mnist-test.npz is damaged" in held["mnist"]["problem"]


def test_fetch_names_the_files(cache):
    result = CliRunner().invoke(app, ["data", "fetch", "cifar10"])
    assert result.exit_code == 0
    assert result.stdout.split() == [str(cache / "cifar10-train.npz"), str(cache / "cifar10-test.npz")]
    result = CliRunner().invoke(app, ["data", "fetch", "imagenet"])
    assert result.exit_code != 0
    assert "choose one of mnist" in result.stderr
