import itertools
import json
import os
import pickle

import pytest
import torch

from robustness_lib import ThreatModel, data, models
from robustness_lib.attacks import FGSM, PGD
from robustness_lib.intervals import clopper_pearson
from robustness_lib.models import zoo

SHIPPED = models.list_pretrained()
MUST_SHIP = {"signs-standard", "signs-pgd", "mnist-standard", "signs-tiny-standard", "signs-tiny-pgd", "moons-standard"}


def test_what_the_book_needs_is_shipped():
    assert set(SHIPPED) >= MUST_SHIP


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_model_loads_and_answers(name):
    model, about = models.load_pretrained(name), models.card(name)
    assert not model.training
    assert all(p.dtype == torch.float32 for p in model.parameters())
    shape = {"signs": (3, 32, 32), "mnist": (1, 28, 28), "moons": (2,)}[name.split("-")[0]]
    assert model(torch.rand(2, *shape)).shape == (2, 2 if name.startswith("moons") else 10)
    assert about["name"] == name
    assert about["recipe"]["command"] == f"python benchmarks/train.py {name}"


@pytest.mark.parametrize("name", SHIPPED)
def test_a_card_says_what_was_measured(name):
    accuracy = models.card(name)["accuracy"]
    assert "clean" in accuracy
    assert len(accuracy) == 4
    for figures in accuracy.values():
        assert figures["accuracy"] == figures["correct"] / figures["n"]
        assert figures["interval_95"] == pytest.approx(clopper_pearson(figures["correct"], figures["n"]), abs=1e-4)
        assert figures["n"] >= 1000
    shares = [figures["accuracy"] for figures in accuracy.values()]
    assert all(a > b for a, b in itertools.pairwise(shares[1:]))  # ε grows down the card


@pytest.mark.parametrize("name", [name for name in SHIPPED if name.startswith(("signs", "moons"))])
def test_the_clean_accuracy_on_the_card_is_the_files(name):
    x, y, _ = data.load(name.split("-")[0], "test")
    with torch.no_grad():
        correct = int((models.load_pretrained(name)(x).argmax(1) == y).sum())
    # Another machine's convolutions may differ in the last bit, and a near tie with them.
    assert correct == pytest.approx(models.card(name)["accuracy"]["clean"]["correct"], abs=2)


def test_files_are_small():
    sizes = [path.stat().st_size for path in zoo._FOLDER.iterdir()]
    assert max(sizes) <= 2_000_000
    assert sum(sizes) <= 25_000_000


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match="moons-standard"):
        models.load_pretrained("resnet")
    with pytest.raises(ValueError, match="no shipped model"):
        models.card("../zoo")


ABOUT = {"name": "m", "architecture": {"builder": "mlp", "arguments": {"widths": [2, 3, 2]}}}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(zoo, "_FOLDER", tmp_path)
    return tmp_path


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_what_is_saved_is_loaded(folder, dtype):
    model = models.mlp([2, 3, 2])
    models.save_pretrained("m", model, ABOUT, dtype=dtype, folder=folder)
    loaded = models.load_pretrained("m")
    for a, b in zip(model.parameters(), loaded.parameters(), strict=True):
        assert b.dtype == torch.float32
        assert torch.equal(a.to(dtype).float(), b)
    assert sorted(path.name for path in folder.iterdir()) == ["m.json", "m.safetensors"]


def test_a_changed_file_is_refused(folder):
    models.save_pretrained("m", models.mlp([2, 3, 2]), ABOUT, folder=folder)
    path = folder / "m.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="checksum"):
        models.load_pretrained("m")
    path.unlink()
    with pytest.raises(ValueError, match="missing"):
        models.load_pretrained("m")


def test_tensors_that_do_not_fit_are_named(folder):
    models.save_pretrained("m", models.mlp([2, 3, 2]), ABOUT, folder=folder)
    card = json.loads((folder / "m.json").read_text())
    card["architecture"]["arguments"]["widths"] = [2, 4, 2]
    (folder / "m.json").write_text(json.dumps(card))
    with pytest.raises(ValueError, match=r"0\.bias, 0\.weight, 2\.weight"):
        models.load_pretrained("m")


def test_a_pickle_is_never_opened(folder):
    class Bomb:
        def __reduce__(self):
            return os.system, ("touch boom",)

    models.save_pretrained("m", models.mlp([2, 3, 2]), ABOUT, folder=folder)
    content = pickle.dumps(Bomb())
    (folder / "m.safetensors").write_bytes(content)
    card = json.loads((folder / "m.json").read_text())
    card["file"]["sha256"] = __import__("hashlib").sha256(content).hexdigest()
    (folder / "m.json").write_text(json.dumps(card))
    with pytest.raises(Exception, match=r"(?i)header"):
        models.load_pretrained("m")
    assert not os.path.exists("boom")


def test_large_files_and_unknown_architectures_are_refused(folder):
    with pytest.raises(ValueError, match="2 MB"):
        models.save_pretrained("m", models.mlp([2, 10**6, 2]), {"architecture": {
            "builder": "mlp", "arguments": {"widths": [2, 10**6, 2]}}}, folder=folder)
    with pytest.raises(ValueError, match="unknown architecture"):
        models.save_pretrained("m", models.mlp(), {"architecture": {"builder": "os.system"}}, folder=folder)
    assert not list(folder.iterdir())


@pytest.mark.parametrize(("name", "eps"), [("signs-standard", "linf 4/255"), ("signs-pgd", "linf 8/255"),
                                           ("signs-tiny-pgd", "linf 4/255")])
def test_the_attacked_accuracy_on_the_card_is_the_files(name, eps):
    """One attack on the first 200 images leaves at least what several left, and not much more."""
    figures = models.card(name)["accuracy"][eps]
    x, y, _ = data.load("signs", n=200)
    attack = PGD(ThreatModel("linf", int(eps.split()[1].split("/")[0]) / 255), steps=20)
    standing = int((~attack.run(models.load_pretrained(name), x, y).success).sum())
    low, high = clopper_pearson(standing, 200, level=0.999)
    assert low <= figures["accuracy"] <= high


@pytest.mark.reference
def test_fgsm_and_pgd_on_mnist_agree_with_the_card(real_data):
    model, figures = models.load_pretrained("mnist-standard"), models.card("mnist-standard")["accuracy"]
    x, y, _ = data.load("mnist")
    with torch.no_grad():
        assert int((model(x).argmax(1) == y).sum()) == pytest.approx(figures["clean"]["correct"], abs=2)
    x, y = x[:1000], y[:1000]
    threat = ThreatModel("linf", 0.1)
    one, many = FGSM(threat).run(model, x, y), PGD(threat, steps=20).run(model, x, y)
    assert (one.success & ~many.success).sum() <= 5
    left = 1000 - int(many.success.sum())
    assert left < 1000 - int(one.success.sum()) - 50
    assert figures["linf 0.1"]["correct"] <= left <= figures["linf 0.1"]["correct"] + 80
