"""Images that survive being saved: on the grid, inside the threat model, adversarial there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from robustness_lib import ThreatModel, data, models
from robustness_lib.attacks import FAB, PGD, CarliniWagnerL2, Quantized, SquareAttack, quantize
from robustness_lib.evaluation import evaluate

LINF, L2 = ThreatModel("linf", 8 / 255), ThreatModel("l2", 0.5)


@pytest.fixture(scope="module")
def signs() -> tuple[nn.Module, Tensor, Tensor]:
    x, y, _ = data.load("signs", split="test", n=24)
    return models.load_pretrained("signs-tiny-standard"), x, y


def saved(images: Tensor, folder: Path) -> Tensor:
    """Written as a user would write it, and read as a user would read it."""
    read = []
    for number, image in enumerate(images):
        pixels = (image.numpy().transpose(1, 2, 0) * 255).round().astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        read.append(np.asarray(Image.open(folder / f"{number}.png")).transpose(2, 0, 1).copy())
    return torch.from_numpy(np.stack(read)).float() / 255


ATTACKS = [PGD(LINF, steps=5), PGD(ThreatModel("linf", 0.03), steps=5), PGD(L2, steps=5),
           SquareAttack(LINF, queries=20), FAB(steps=5), FAB("l2", steps=5), CarliniWagnerL2(steps=60, search_steps=3),
           CarliniWagnerL2(steps=60, search_steps=3, confidence=1.0)]


@pytest.mark.parametrize("attack", ATTACKS, ids=repr)
def test_every_success_is_one_in_the_file_and_its_distance_too(attack, signs, tmp_path: Path) -> None:
    model, x, y = signs
    before, plain = x.clone(), attack.run(model, x, y)
    result = Quantized(attack).run(model, x, y)
    assert torch.equal(x, before)
    read = saved(result.x_adv, tmp_path)
    assert torch.equal(read, result.x_adv)  # on the grid, to the last bit
    assert result.success.any()
    with torch.no_grad():
        assert ((model(read).argmax(1) != y) | ~result.success).all()
    threat = getattr(attack, "threat", ThreatModel(getattr(attack, "norm", "linf"), 1e3))
    distance = threat.distance(read, x)
    assert threat.allows(distance).all()
    assert torch.equal(result.distance[result.success], distance[result.success])
    assert (result.queries >= plain.queries).all()
    assert not (result.success & ~plain.success).any() or hasattr(attack, "threat")
    if not hasattr(attack, "threat"):
        assert torch.equal(result.x_adv[~result.success], x[~result.success])
        assert result.distance[~result.success].isinf().all()


@pytest.mark.parametrize("attack", [FAB(steps=5), FAB("l2", steps=5), CarliniWagnerL2(steps=60, search_steps=3)],
                         ids=repr)
def test_what_rounding_loses_is_won_back_nearby(attack, signs) -> None:
    model, x, y = signs
    plain, grid = attack.run(model, x, y), Quantized(attack).run(model, x, y)
    with torch.no_grad():
        rounded = model((plain.x_adv * 255).round() / 255).argmax(1) != y
    found = plain.success
    assert rounded[found].float().mean() < 0.8
    assert torch.equal(grid.success, found)
    assert grid.distance[found].mean() < 1.25 * plain.distance[found].mean()


def test_targets_and_images_that_are_wrong_already(signs) -> None:
    model, x, y = signs
    target = (y + 1) % 10
    result = Quantized(PGD(ThreatModel("linf", 16 / 255), steps=20)).run(model, x, y, target)
    with torch.no_grad():
        answers = model(result.x_adv).argmax(1)
    assert result.success.any()
    assert torch.equal(answers == target, result.success)
    already = Quantized(PGD(LINF, steps=1)).run(model, x, target)
    assert torch.equal(already.x_adv, x)
    assert (already.distance == 0).all()


class Threshold(nn.Module):
    """Class 1 where the mean exceeds `at` by anything."""

    def __init__(self, at: float) -> None:
        super().__init__()
        self.at = at

    def forward(self, x: Tensor) -> Tensor:
        z = (x.flatten(1).double().mean(1) - self.at) * 1000
        return torch.stack([-z, z], 1).to(x.dtype)


def test_a_ball_without_a_level_in_it_has_no_success() -> None:
    model, y = Threshold(0.5001), torch.zeros(2, dtype=torch.int64)
    threat = ThreatModel("linf", 0.5 / 255)
    x = torch.full((2, 1, 3, 3), 127 / 255)
    assert not Quantized(PGD(threat, steps=5)).run(model, x, y).success.any()
    whole = Quantized(PGD(ThreatModel("linf", 1 / 255), steps=5)).run(model, x, y)
    assert whole.success.all()
    assert set((whole.x_adv * 255).round().flatten().tolist()) <= {127.0, 128.0}
    assert whole.x_adv.mean() > 0.5001
    # Off the grid: the change is measured from the images as they are.
    off = torch.full((2, 1, 3, 3), 127.6 / 255)
    some = Quantized(PGD(threat, steps=5)).run(model, off, y)
    assert some.success.all()
    assert torch.allclose(some.distance, torch.full((2,), 0.4 / 255, dtype=torch.float64), atol=1e-6)
    middle = torch.full((2, 1, 3, 3), 127.5 / 255)
    nowhere = Quantized(PGD(ThreatModel("linf", 0.3 / 255), steps=5)).run(model, middle, y)
    assert not nowhere.success.any()
    assert nowhere.x_adv.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_types_shapes_and_batches(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    for shape in ((7,), (2, 9), (13, 4, 4), (3, 2, 4, 4)):
        model = nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(shape)), 3)).to(dtype)
        x = ((torch.rand(10, *shape) * 255).round() / 255).to(dtype)
        y = model(x).argmax(1)
        attack = Quantized(PGD(ThreatModel("l2", 1.0), steps=5))
        whole, parts = attack.run(model, x, y), attack.run(model, x, y, batch_size=3)
        assert whole.x_adv.dtype == dtype
        assert torch.equal(whole.success, parts.success)
        assert torch.equal(whole.x_adv, parts.x_adv)
        assert torch.equal(attack(model, x, y), whole.x_adv)
        assert len(attack(model, x[:0], y[:0])) == 0


def test_images_of_others_and_what_is_no_image(signs) -> None:
    model, x, y = signs
    noisy = (x + 0.02 * torch.randn_like(x).sign()).clamp(0, 1)
    grid = quantize(model, x, y, noisy, LINF)
    assert grid.levels.dtype == torch.uint8
    with torch.no_grad():
        answers = model(grid.images(x)).argmax(1)
    assert torch.equal(answers, grid.predicted)
    assert torch.equal(grid.success, (answers != y) & LINF.allows(grid.distance))
    for wrong, words in ((noisy[:3], "x's shape"), (noisy * 255, "must lie in"), (noisy * torch.nan, "NaN")):
        with pytest.raises(ValueError, match=words):
            quantize(model, x, y, wrong, LINF)
    with pytest.raises(TypeError, match="one of this library's attacks"):
        Quantized(lambda model, x, y: x)


def test_an_evaluation_takes_it_for_an_attack_of_this_library(signs) -> None:
    model, x, y = signs
    inner = PGD(LINF, steps=3)
    report = evaluate(model, x, y, LINF, {"saved": Quantized(inner), "plain": inner, "far": Quantized(FAB(steps=3))})
    assert "Quantized(" in report.attack("saved").settings
    assert report.attack("saved").queries > 0
    assert not (report.attack("saved").broke & ~report.attack("plain").broke).any()
    with pytest.raises(ValueError, match="give both the same"):
        evaluate(model, x, y, ThreatModel("linf", 4 / 255), [Quantized(inner)])
    with pytest.raises(ValueError, match="give both the same"):
        evaluate(model, x, y, L2, [Quantized(FAB(steps=3))])


@pytest.mark.parametrize("eps", [1.2, 0.5, 3 / 255, 0.1])
def test_on_the_grid_the_threat_model_is_kept_exactly(eps: float) -> None:
    torch.manual_seed(0)
    x = (torch.rand(40, 3, 6, 6) * 255).round() / 255
    model, y = Threshold(-1.0), torch.zeros(40, dtype=torch.int64)  # everything is a success
    point = x + torch.randn_like(x)
    for threat in (ThreatModel("l2", eps), ThreatModel("linf", eps)):
        # L2: just outside, where an attack's rounding is forgiven
        near = (x + (point - x) / threat.distance(point, x).view(-1, 1, 1, 1).float() * eps * (1 + 9e-6)).clamp(0, 1)
        grid = quantize(model, x, y, near, threat)
        levels, before = grid.levels.double(), (x.double() * 255).round()
        change = (levels - before).flatten(1)
        size = change.norm(dim=1) if threat.norm == "l2" else change.abs().amax(1)
        assert grid.success.any()
        assert (size[grid.success] <= eps * 255).all()
        assert threat.norm == "linf" or (grid.distance[grid.success] <= eps).all()


def test_just_outside_the_ball_is_no_success() -> None:
    x, y = torch.full((1, 1, 1, 2), 100 / 255), torch.zeros(1, dtype=torch.int64)
    there = torch.tensor([103 / 255, 104 / 255]).view(1, 1, 1, 2)  # five levels away
    for eps, fits in ((5 / 255 * (1 - 5e-6), False), (5 / 255 * (1 + 1e-6), True)):
        grid = quantize(Threshold(102 / 255), x, y, there, ThreatModel("l2", eps))
        assert (grid.success.item() and grid.distance.item() > 4.9 / 255) == fits
        assert not grid.success.item() or grid.distance.item() <= eps


@pytest.mark.parametrize(("target", "words"), [
    (torch.tensor([0, 1, 0]), "for 2 of 3 images the target is the label"),
    (torch.tensor([1, 7, 1]), "to 7; the first such is 7, of image 1"),
    (torch.tensor([1, -1, 1]), "the first such is -1, of image 1"), (torch.tensor([1, 1]), "target must have shape"),
])
def test_targets_that_cannot_be_meant(target: Tensor, words: str) -> None:
    x, y = torch.full((3, 1, 2, 2), 0.2), torch.zeros(3, dtype=torch.int64)
    for batch_size in (None, 1):
        with pytest.raises(ValueError, match=words):
            quantize(Threshold(0.5), x, y, x, LINF, target, batch_size=batch_size)
    with pytest.raises(ValueError, match="for 2 logits; found 2 to 2"):
        quantize(Threshold(0.5), x, y + 2, x, LINF)


def test_what_rounding_left_outside_the_box_is_clamped() -> None:
    x, y = torch.full((1, 1, 2, 2), -5e-7), torch.zeros(1, dtype=torch.int64)
    grid = quantize(Threshold(-1.0), x, y, x, ThreatModel("l2", 1e-8))
    assert grid.success.all()
    assert (grid.distance == 0).all()
