"""On a linear model everything is known in closed form: an image with margin m errs first at L∞ distance |m|/‖w‖₁
and at L2 distance |m|/‖w‖₂. Weights are small and images central, so that the pixel box does not bind."""

import pytest
import torch

from robustness_lib import ThreatModel
from robustness_lib.attacks import FGSM, PGD
from robustness_lib.losses import margin_loss


def linear_problem(n=40, d=20):
    generator = torch.Generator().manual_seed(4)
    w = torch.randn(d, generator=generator, dtype=torch.float64)
    x = 0.5 + 0.1 * torch.rand((n, d), generator=generator, dtype=torch.float64) - 0.05
    score = (x - 0.5) @ w
    y = (score > 0).long()

    def model(z):
        score = (z.flatten(1) - 0.5) @ w
        return torch.stack([torch.zeros_like(score), score], 1)

    return model, x, y, score.abs(), w


def smallest(norm, margin, w):
    return margin / (w.abs().sum() if norm == "linf" else w.norm())


ATTACKS = {"fgsm": FGSM, "pgd": lambda threat: PGD(threat, steps=20),
           "pgd-margin": lambda threat: PGD(threat, steps=20, loss="margin", random_start=False)}


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_it_breaks_exactly_what_can_be_broken(name, norm):
    model, x, y, margin, w = linear_problem()
    distance = smallest(norm, margin, w)
    for eps in distance.quantile(torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)).tolist():
        success = ATTACKS[name](ThreatModel(norm, eps)).run(model, x, y).success
        # On the sphere, fixed steps only approach the pole; every other case is exact.
        tolerance = 0.03 if norm == "l2" and name.startswith("pgd") else 1e-6
        clear = (distance - eps).abs() > tolerance * eps
        assert not (success & (distance > eps * (1 + 1e-6))).any()
        assert torch.equal(success[clear], (distance < eps)[clear])
        assert 0 < success.sum() < len(x)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_fgsm_lowers_the_margin_by_exactly_eps_times_the_dual_norm(norm):
    model, x, y, margin, w = linear_problem()
    eps = 0.01
    x_adv = FGSM(ThreatModel(norm, eps), stop="never")(model, x, y)
    dual = w.abs().sum() if norm == "linf" else w.norm()
    torch.testing.assert_close(-margin_loss(model(x_adv), y), margin - eps * dual)


def test_l2_uses_up_its_budget():
    model, x, y, _, w = linear_problem()
    threat = ThreatModel("l2", 0.05)
    x_adv = PGD(threat, steps=40, stop="never")(model, x, y)
    assert (threat.distance(x_adv, x) >= 0.999 * 0.05).all()
    dropped = (margin_loss(model(x_adv), y) - margin_loss(model(x), y)) / (0.05 * w.norm())
    assert (dropped > 0.96).all()  # fixed steps creep along the sphere; forty end within 15 degrees of the pole


def test_numbers_by_hand():
    """w = (2, −1), ε = .1: the sign step lowers the margin by .3, the best L2 step of length .1 by .224."""
    w = torch.tensor([2.0, -1.0], dtype=torch.float64)

    def model(z):
        return torch.stack([torch.zeros(len(z), dtype=z.dtype), z @ w], 1)

    x, y = torch.tensor([[0.5, 0.5]], dtype=torch.float64), torch.tensor([1])
    for norm, drop in (("linf", 0.3), ("l2", 5**0.5 / 10)):
        x_adv = FGSM(ThreatModel(norm, 0.1), stop="never")(model, x, y)
        assert (x - x_adv)[0] @ w == pytest.approx(drop)


def test_targeted_steps_go_towards_the_target():
    generator = torch.Generator().manual_seed(0)
    w = torch.randn((4, 20), generator=generator, dtype=torch.float64)
    x = torch.full((4, 20), 0.5, dtype=torch.float64)
    target = torch.arange(4)
    y = (target + 1) % 4
    for attack in (FGSM(ThreatModel("linf", 0.05), stop="never"), PGD(ThreatModel("linf", 0.05), stop="never")):
        x_adv = attack(lambda z: z @ w.T, x, y, target)
        gain = (x_adv - x) @ w.T
        before, after = (x @ w.T).log_softmax(1), (x_adv @ w.T).log_softmax(1)
        assert (after[target, target] > before[target, target]).all()
        assert (gain[1:].argmax(1) == target[1:]).all()


def test_the_box_binds_where_it_must():
    """A pixel at the box's face cannot move outwards: FGSM then lowers the margin by less than ε‖w‖₁."""
    w = torch.tensor([1.0, 1.0])
    x, y = torch.tensor([[0.0, 0.5]]), torch.tensor([1])

    def model(z):
        return torch.stack([torch.full((len(z),), 0.1), z @ w], 1)

    x_adv = FGSM(ThreatModel("linf", 0.2), stop="never")(model, x, y)
    torch.testing.assert_close(x_adv, torch.tensor([[0.0, 0.3]]))
