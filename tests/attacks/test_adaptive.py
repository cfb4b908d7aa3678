"""Attacks on defenses that the attacker knows: exact forward, honest backward, success over fresh randomness."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from robustness_lib import ThreatModel, data, models
from robustness_lib.attacks import FAB, FGSM, PGD, AutoAttack, AutoPGD, CarliniWagnerL2, SquareAttack
from robustness_lib.attacks.adaptive import BPDA, EOT, identity
from robustness_lib.defenses import BitDepth, FeatureSqueezing, MeanSmoothing, ResizePad
from robustness_lib.state import model_fingerprint

LINF = ThreatModel("linf", 0.1)


class Staircase(nn.Module):
    """Four levels; its gradient is zero."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def transform(self, x):
        return (3 * x).round() / 3

    def forward(self, x):
        return self.model(self.transform(x))


class Half(nn.Module):
    """Another shape than it got, as one defense in a notebook has."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def transform(self, x):
        return x[..., ::2].round()


class Noisy(nn.Module):
    """Adds N(0, σ²) to the logits of a linear model on one pixel: z = (0, pixel − ½ + noise)."""

    def __init__(self, sigma):
        super().__init__()
        self.sigma, self.asked = sigma, 0

    def forward(self, x):
        self.asked += 1
        z = x.flatten(1)[:, :1] - 0.5 + self.sigma * torch.randn(len(x), 1)
        return torch.cat([torch.zeros_like(z), z], 1)


def linear(pixels=12, classes=3, seed=0):
    model = nn.Sequential(nn.Flatten(), nn.Linear(pixels, classes))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model


def images(n=8, seed=0):
    return torch.rand((n, 3, 2, 2), generator=torch.Generator().manual_seed(seed))


def pixel(value, n=1):
    return torch.full((n, 1, 1, 1), value)


# ---------------------------------------------------------------------------------------------------------- BPDA


def test_the_forward_pass_is_the_defences_own_to_the_bit():
    defense, x = Staircase(linear()), images(500)
    seen = []
    defense.model.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach().clone()))
    for wrapped in (BPDA(defense), BPDA(defense, lambda x: 0.3 * x + 0.21)):
        with torch.no_grad():
            assert torch.equal(wrapped(x), defense(x))
        assert torch.equal(wrapped(x.clone().requires_grad_()).detach(), defense(x).detach())
    assert all(torch.equal(z, defense.transform(x)) for z in seen)


def test_the_backward_pass_is_that_of_the_substitute():
    """Of a linear model behind a transform taken for slope 2: twice its weights, wherever the transform went."""
    defense = Staircase(linear())
    for substitute, slope in ((identity, 1.0), (lambda x: 2 * x - 0.3, 2.0), (lambda x: x**2, None)):
        x = images().requires_grad_()
        (gradient,) = torch.autograd.grad(BPDA(defense, substitute)(x)[:, 1].sum(), x)
        weight = defense.model[1].weight[1].reshape(3, 2, 2)
        expected = weight * (2 * x.detach() if slope is None else slope)
        assert torch.allclose(gradient, expected.expand_as(gradient), atol=1e-6)


def test_the_gradient_is_taken_where_the_transform_went():
    """The model behind it is not linear: its slope at T(x) is wanted, not at x."""

    class Square(nn.Module):
        def forward(self, x):
            return x.flatten(1) ** 2

    x = images().requires_grad_()
    (gradient,) = torch.autograd.grad(BPDA(Staircase(Square()))(x).sum(), x)
    assert torch.allclose(gradient, 2 * Staircase(Square()).transform(x.detach()))


def test_it_finds_what_the_attack_that_does_not_know_cannot_find():
    """On a linear model behind a staircase the best point within ε is known: each pixel goes as far as it may."""
    torch.manual_seed(0)
    model, x = linear(classes=2), images(60)
    defense = Staircase(model)
    y = defense(x).argmax(1)
    threat = ThreatModel("linf", 0.2)
    direction = (model[1].weight[1] - model[1].weight[0]).sign().reshape(3, 2, 2)
    farthest = (x + (1 - 2 * y.view(-1, 1, 1, 1)) * 0.2 * direction).clamp(0, 1)
    breakable = defense(farthest).argmax(1) != y
    assert 0.2 < breakable.double().mean() < 0.9
    unaware = PGD(threat, steps=20, random_start=False).run(defense, x, y)
    assert not unaware.success.any()
    assert "zero gradient" in {warning.kind for warning in unaware.warnings}
    for attack in (FGSM(threat), PGD(threat, steps=20), AutoPGD(threat, loss="margin")):
        known = attack.run(BPDA(defense), x, y)
        assert torch.equal(known.success, breakable)
        assert torch.equal(defense(known.x_adv).argmax(1) != y, known.success)
        assert (known.distance <= 0.2 * (1 + 1e-5) + 1e-6).all()


def test_a_part_of_a_stack_can_be_wrapped():
    inner = BPDA(Staircase(linear()))
    both = BPDA(Staircase(inner))
    x = images().requires_grad_()
    (gradient,) = torch.autograd.grad(both(x)[:, 0].sum(), x)
    assert torch.allclose(gradient[0].flatten(), inner.defense.model[1].weight[0], atol=1e-6)


def test_the_attacked_model_is_as_it_was():
    defense = Staircase(linear())
    before = copy.deepcopy(defense.state_dict())
    PGD(LINF, steps=3)(BPDA(defense), images(), torch.zeros(8, dtype=torch.long))
    assert all(torch.equal(value, before[name]) for name, value in defense.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in defense.parameters())


@pytest.mark.parametrize("by_method", [False, True], ids=["module", "method"])
def test_a_substitute_with_state_is_held_still_and_moves_along(by_method):
    class Near(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm2d(3)

        def forward(self, x):
            return self.norm(x)

        transform = forward

    near = Near().train()
    wrapped = BPDA(Staircase(linear()), near.transform if by_method else near)
    PGD(LINF, steps=3)(wrapped, images(), torch.zeros(8, dtype=torch.long))
    assert near.norm.training
    assert near.norm.num_batches_tracked == 0
    assert torch.equal(near.norm.running_mean, torch.zeros(3))
    twin = copy.deepcopy(wrapped).double()
    assert next(near.parameters()).dtype == torch.float32
    x = images().double().requires_grad_()
    assert torch.autograd.grad(twin(x)[:, 0].sum(), x)[0].dtype == torch.float64
    assert wrapped.to("meta") is wrapped
    assert next(near.parameters()).is_meta


def test_a_substitute_that_draws_is_refused():
    """Its slope would belong to another draw than the answer."""
    defense = ResizePad(nn.Identity())
    with pytest.raises(ValueError, match=r"draws at random \(ResizePad\).*by EOT alone"):
        BPDA(defense, defense.transform)


def test_another_substitute_is_another_model_to_a_state():
    """The answers are the same: a state that looked at these alone would resume with what a weaker attack found."""
    defense = Staircase(linear())
    substitutes = (identity, lambda x: -x, lambda x: 2 * x, nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 3, padding=1),
                   MeanSmoothing(nn.Identity(), 3).transform, MeanSmoothing(nn.Identity(), 5).transform)
    prints = [model_fingerprint(BPDA(defense, substitute)) for substitute in substitutes]
    assert len(set(prints)) == len(prints)
    assert prints[0] == model_fingerprint(BPDA(defense))
    assert model_fingerprint(EOT(defense, 3)) != model_fingerprint(EOT(defense, 4))
    assert model_fingerprint(EOT(defense, 3)) != model_fingerprint(EOT(defense, 3, decision="majority"))
    detectors = [FeatureSqueezing(defense, [BitDepth(nn.Identity(), bits).transform]) for bits in (2, 4)]
    assert model_fingerprint(detectors[0]) != model_fingerprint(detectors[1])


@pytest.mark.parametrize(("defense", "found"), [
    (nn.Linear(2, 2), "found Linear"), (Staircase, "found the class Staircase"), (lambda x: x, "found function")],
    ids=["layer", "class", "function"])
def test_what_is_no_defense_is_refused(defense, found):
    with pytest.raises(TypeError, match=found):
        BPDA(defense)


@pytest.mark.parametrize("substitute", [None, 3, Staircase], ids=["none", "number", "class"])
def test_what_is_no_substitute_is_refused(substitute):
    with pytest.raises(TypeError, match="substitute must be a function of images"):
        BPDA(Staircase(linear()), substitute)


def test_a_substitute_of_another_shape_is_named():
    y, attack = torch.zeros(8, dtype=torch.long), PGD(LINF, stop="never")
    with pytest.raises(ValueError, match=r"transform's shape, \(8, 3, 2, 1\); found \(8, 3, 2, 2\)"):
        attack(BPDA(Half(linear(6))), images(), y)
    with pytest.raises(ValueError, match=r"\(8, 3, 2, 2\); found \(8, 3\)\. Pass a defense's \.transform, not the"):
        attack(BPDA(Staircase(linear()), Staircase(linear())), images(), y)
    with pytest.raises(ValueError, match="substitute's output does not depend"):
        attack(BPDA(Staircase(linear()), lambda x: x.detach() + 0), images(), y)


# ----------------------------------------------------------------------------------------------------------- EOT


def test_logits_are_means_over_draws():
    torch.manual_seed(0)
    model = Noisy(sigma=1.0)
    z = EOT(model, samples=100)(pixel(0.7, 400))[:, 1]
    assert model.asked == 100
    assert abs(float(z.mean()) - 0.2) < 4 / math.sqrt(40_000)
    assert 0.085 < float(z.std()) < 0.115  # 1/√100


def test_the_gradient_is_that_of_the_expectation():
    """E[(pixel + noise)³] has slope 3(pixel² + σ²); the slope without noise would be 3 pixel²."""

    class Cube(nn.Module):
        def forward(self, x):
            z = (x.flatten(1) + 0.5 * torch.randn(len(x), 1)) ** 3
            return torch.cat([torch.zeros_like(z), z], 1)

    torch.manual_seed(0)
    for decision in ("logits", "majority"):
        x = pixel(0.4, 200).requires_grad_()
        z = EOT(Cube(), samples=200, decision=decision)(x)
        (gradient,) = torch.autograd.grad(z[:, 1].sum(), x)
        assert abs(float(gradient.mean()) - 3 * (0.16 + 0.25)) < 0.03


def test_majority_counts_votes_and_not_logits():
    """Two of three draws say class 1, the third says class 0 very loudly."""

    class Three(nn.Module):
        def __init__(self):
            super().__init__()
            self.turn = 0

        def forward(self, x):
            self.turn += 1
            z = torch.tensor([0.0, 1.0]) if self.turn % 3 else torch.tensor([9.0, 0.0])
            return z + 0 * x.flatten(1)[:, :1]

    x = pixel(0.5, 4)
    assert EOT(Three(), samples=3)(x).argmax(1).tolist() == [0] * 4
    z = EOT(Three(), samples=3, decision="majority")(x)
    assert torch.allclose(z, torch.tensor([2 / 3, 3.0]))  # the mean is (3, ⅔); the leader has changed places
    # Among equal votes the mean logits decide.
    assert EOT(Three(), samples=6, decision="majority")(x).argmax(1).tolist() == [1] * 4
    two = Three()
    two.turn = 1
    assert EOT(two, samples=2, decision="majority")(x).argmax(1).tolist() == [0] * 4
    torch.manual_seed(0)
    loud = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(1, 2)).train()  # dropped: (.1, 0); kept: (.1, 8)
    with torch.no_grad():
        loud[2].weight.copy_(torch.tensor([[0.0], [8.0]]))
        loud[2].bias.copy_(torch.tensor([0.1, 0.0]))
    z = EOT(loud, samples=2, decision="majority")(pixel(0.5, 100))
    even = (z[:, 1] > 1) & (z[:, 1] < 7)  # one draw of two: mean logits (.1, 4)
    assert 20 < int(even.sum()) < 80
    assert (z[even].argmax(1) == 1).all()
    assert (z[z[:, 1] < 1].argmax(1) == 0).all()
    for decision, expected in (("logits", False), ("majority", True)):
        verdict = EOT(Three(), samples=3, decision=decision).judge(x, torch.zeros(4, dtype=torch.long), draws=300)
        assert verdict.success.tolist() == [expected] * 4
        assert torch.allclose(verdict.shares, torch.full((4,), 2 / 3, dtype=torch.float64))
        assert (verdict.decision, verdict.draws) == (decision, 300)


ALL_LOSSES = [
    FGSM(LINF), PGD(LINF, steps=10), PGD(LINF, steps=10, loss="margin"), PGD(LINF, steps=10, loss="dlr"),
    AutoPGD(LINF, steps=10), AutoPGD(LINF, steps=10, loss="dlr"), AutoPGD(LINF, steps=10, loss="targeted-dlr"),
    FAB("linf", steps=10), CarliniWagnerL2(steps=20), SquareAttack(LINF, queries=50)]


@pytest.mark.parametrize("attack", ALL_LOSSES, ids=[
    f"{type(attack).__name__}-{getattr(attack, 'loss', '')}" for attack in ALL_LOSSES])
@pytest.mark.parametrize("decision", ["logits", "majority"])
def test_around_a_model_without_chance_it_changes_nothing(attack, decision):
    """Every loss and every linear model of an attack finds what it finds on the bare model: no answer is rescaled."""
    model, x = linear(classes=5), images(40)
    with torch.no_grad():
        model[1].weight *= 0.2
    y = model(x).argmax(1)
    bare = attack.run(model, x, y)
    wrapped = attack.run(EOT(model, samples=2, decision=decision), x, y)
    assert bare.success.sum() > 0
    assert torch.equal(wrapped.success, bare.success)
    assert torch.allclose(wrapped.x_adv, bare.x_adv, atol=1e-5)


class Chance(nn.Module):
    """Wrong by chance alone, in three draws of ten; the gradient is zero."""

    def forward(self, x):
        wrong = (torch.rand(len(x), 1) < 0.3).to(x.dtype)
        return torch.cat([1 - wrong, wrong], 1) + 0 * x.flatten(1)[:, :1]


@pytest.mark.parametrize("samples", [1, 10])
def test_luck_does_not_hide_that_there_was_no_gradient(samples):
    torch.manual_seed(0)
    x, y = pixel(0.5, 50), torch.zeros(50, dtype=torch.long)
    result, verdict = EOT(Chance(), samples).attacked(PGD(LINF, steps=20), x, y, draws=100)
    assert not verdict.success.any()
    (warning,) = (warning for warning in result.warnings if warning.kind == "zero gradient")
    assert "50 of 50" in str(warning)
    honest, _ = EOT(Noisy(0.2), samples).attacked(PGD(LINF, steps=3), pixel(0.65, 6), torch.ones(6, dtype=torch.long))
    assert not honest.warnings
    square, _ = EOT(Chance(), samples).attacked(SquareAttack(LINF, queries=5), x, y, draws=100)
    assert "zero gradient" not in {warning.kind for warning in square.warnings}  # it wanted none


def test_the_verdict_is_about_the_model_that_was_attacked():
    """Dropout kept in train mode: eval mode would never be wrong, and never in doubt."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(1, 2)).train()
    with torch.no_grad():
        model[2].weight.copy_(torch.tensor([[0.0], [8.0]]))
        model[2].bias.copy_(torch.tensor([1.0, 0.0]))
    x, y = pixel(0.6, 20), torch.ones(20, dtype=torch.long)
    eot = EOT(model, samples=4)
    for mode, low, high in (("keep", 0.4, 0.6), ("eval", 0.0, 0.0)):
        _, verdict = eot.attacked(PGD(LINF, steps=2, mode=mode), x, y, draws=100)
        assert low <= float(verdict.shares.mean()) <= high
    assert model.training


def test_a_wrapped_model_in_eval_mode_is_in_eval_mode():
    for training in (True, False):
        defense = Staircase(linear()).train(training)
        assert BPDA(defense).training == EOT(defense).training == training


def test_no_more_images_than_the_batch_size_travel_together():
    sizes = []

    class Seen(Noisy):
        def forward(self, x):
            sizes.append(len(x))
            return super().forward(x)

    x, y = pixel(0.55, 50), torch.ones(50, dtype=torch.long)
    for attack in (PGD(LINF, steps=2), FAB("linf", steps=3)):
        EOT(Seen(0.05), 2).attacked(attack, x, y, draws=5, batch_size=7)
    EOT(Seen(0.05), 2).judge(x, y, draws=3, batch_size=7)
    assert max(sizes) == 7
    with pytest.raises(ValueError, match="batch_size must be at least 1; found 0"):
        EOT(Seen(0.05), 2).judge(x, y, batch_size=0)


def test_draws_are_not_one_draw_again_and_again():
    """A defense that counts in a buffer: its draws move on, and the counter is put back when all is done."""

    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("turn", torch.zeros((), dtype=torch.long))

        def forward(self, x):
            self.turn += 1
            z = torch.tensor([1.0, 0.0]) if self.turn % 4 else torch.tensor([0.0, 1.0])
            return z + 0 * x.flatten(1)[:, :1]

    model = Counting()
    verdict = EOT(model).judge(pixel(0.5, 3), torch.zeros(3, dtype=torch.long), draws=40)
    assert verdict.shares.tolist() == [0.25] * 3
    assert model.turn == 0


@pytest.mark.parametrize("place", [0, 1])  # of the class that it errs to, and of the label
def test_answers_that_are_no_number_do_not_save_an_image(place):
    class Sometimes(nn.Module):
        """Wrong in two answers of five; in the others no number stands for one of the classes."""

        def __init__(self):
            super().__init__()
            self.turn = 0

        def forward(self, x):
            self.turn += 1
            z = torch.tensor([1.0, 0.0])
            if self.turn % 5 < 3:
                z[place] = torch.nan
            return z + 0 * x.flatten(1)[:, :1]

    for decision in ("logits", "majority"):
        verdict = EOT(Sometimes(), decision=decision).judge(pixel(0.5, 3), torch.ones(3, dtype=torch.long), draws=50)
        assert verdict.success.tolist() == [True] * 3
        assert verdict.shares.tolist() == pytest.approx([0.4] * 3)
        assert verdict.no_number.tolist() == [30] * 3


def test_a_mean_that_is_no_number_is_no_success():
    class Extremes(nn.Module):
        def __init__(self):
            super().__init__()
            self.turn = 0

        def forward(self, x):
            self.turn += 1
            return torch.tensor([0.0, torch.inf if self.turn % 2 else -torch.inf]) + 0 * x.flatten(1)[:, :1]

    assert not EOT(Extremes()).judge(pixel(0.5), torch.zeros(1, dtype=torch.long), draws=10).success.any()


@pytest.mark.parametrize(("target", "kind", "found"), [
    (torch.zeros(6), TypeError, "target must be an int64 tensor"),
    (torch.zeros(1, dtype=torch.long), ValueError, r"target must have shape \(6,\)"),
    (torch.zeros(6, 1, dtype=torch.long), ValueError, r"target must have shape \(6,\)"),
    ], ids=["float", "one", "column"])
def test_wrong_targets_are_refused(target, kind, found):
    with pytest.raises(kind, match=found):
        EOT(Noisy(0.1)).judge(pixel(0.5, 6), torch.ones(6, dtype=torch.long), target)


def test_a_lucky_draw_is_no_success():
    """A model that is wrong by chance alone, in three draws of ten: no attack can change it, and fresh draws say so."""
    torch.manual_seed(0)
    x, y = pixel(0.5, 100), torch.zeros(100, dtype=torch.long)
    naive = PGD(LINF, steps=40, random_start=True).run(Chance(), x, y)
    assert naive.success.double().mean() > 0.99  # sooner or later every image has its draw
    result, verdict = EOT(Chance(), samples=10).attacked(PGD(LINF, steps=40, random_start=True), x, y, draws=200)
    assert not result.success.any()
    assert abs(float(verdict.shares.mean()) - 0.3) < 4 * math.sqrt(0.21 / 20_000)


def test_success_is_what_the_defense_does_on_average():
    """z = pixel − ½ + noise: the decision turns at ½. Within ε = .1 a pixel of .55 gets there, one of .65 does not."""
    torch.manual_seed(0)
    x = torch.cat([pixel(0.55, 20), pixel(0.65, 20)])
    y = torch.ones(40, dtype=torch.long)
    result, verdict = EOT(Noisy(sigma=0.2), samples=20).attacked(PGD(LINF, steps=10), x, y, draws=1000)
    assert torch.equal(result.success, torch.tensor([True] * 20 + [False] * 20))
    assert torch.equal(result.success, verdict.success)
    normal = torch.distributions.Normal(0.0, 1.0)
    # Single answers at .45 and .55, the farthest points: P(noise < ∓.05).
    for part, margin in ((slice(0, 20), -0.05), (slice(20, 40), 0.05)):
        expected = float(normal.cdf(torch.tensor(-margin / 0.2)))
        assert abs(float(verdict.shares[part].mean()) - expected) < 4 * math.sqrt(0.25 / 20_000)
    assert (result.distance <= 0.1 * (1 + 1e-5) + 1e-6).all()


def test_the_attack_takes_all_its_steps():
    model = Noisy(sigma=0.0)
    EOT(model, samples=2).attacked(PGD(LINF, steps=7), pixel(0.51), torch.ones(1, dtype=torch.long), draws=5)
    assert model.asked == 2 * 8 + 5  # seven gradients and the last point, of two draws each; then the verdict


@pytest.mark.parametrize("attack", [
    PGD(ThreatModel("linf", 0.2), steps=10), FGSM(ThreatModel("linf", 0.2)),
    AutoPGD(ThreatModel("linf", 0.2), steps=10, loss="margin"), SquareAttack(ThreatModel("linf", 0.2), queries=50),
    ], ids=lambda attack: type(attack).__name__)
@pytest.mark.parametrize("decision", ["logits", "majority"])
def test_any_attack_can_be_used(attack, decision):
    torch.manual_seed(0)
    x, y = pixel(0.55, 6), torch.ones(6, dtype=torch.long)
    result, verdict = EOT(Noisy(sigma=0.05), samples=10, decision=decision).attacked(attack, x, y, draws=50)
    assert result.success.all()
    assert (verdict.shares > 0.5).all()


@pytest.mark.parametrize("attack", [CarliniWagnerL2(steps=100), FAB("l2", steps=30), FAB("linf", steps=30)],
                         ids=["cw", "fab-l2", "fab-linf"])
def test_nearest_points_are_moved_to_where_fresh_draws_confirm_them(attack):
    """z = pixel − ½ + noise: the nearest point lies at ½, where the draws are even and every second verdict says no."""
    torch.manual_seed(0)
    x, y = pixel(0.6, 20), torch.ones(20, dtype=torch.long)
    eot = EOT(Noisy(sigma=0.2), samples=5)
    result, verdict = eot.attacked(attack, x, y, draws=400)
    assert torch.equal(result.success, verdict.success)
    assert result.success.sum() >= 14  # over five seeds 15 to 20; without the moves none or one (C&W), 8 to 13 (FAB)
    assert eot.judge(result.x_adv[result.success], y[result.success], draws=4000).success.double().mean() > 0.8
    assert 0.1 <= result.distance[result.success].median() < 0.13
    assert torch.equal(result.distance.isinf(), ~result.success)
    assert torch.equal(result.x_adv[~result.success], x[~result.success])  # no distance without a success


def test_points_that_went_too_far_are_moved_back():
    """Asked one draw at a time, FAB goes where three answers in a row agree: three times as far as need be."""
    torch.manual_seed(0)
    x, y = pixel(0.52, 30), torch.ones(30, dtype=torch.long)
    result, _ = EOT(Noisy(sigma=0.1), samples=1).attacked(FAB("linf", steps=20), x, y, draws=1000)
    assert result.success.sum() >= 15
    assert 0.02 <= result.distance[result.success].median() < 0.04  # over four seeds .025; without the way back .06


@pytest.mark.parametrize("attack", [CarliniWagnerL2(steps=100), FAB("l2", steps=30)], ids=["cw", "fab"])
def test_a_minimum_norm_attack_does_not_keep_the_nearest_lucky_draw(attack):
    """Asked alone, too. One answer of fifty is wrong, whatever the pixel: a hundred looks would see it for certain."""

    class Seldom(nn.Module):
        stochastic = True

        def forward(self, x):
            wrong = 5 * (torch.rand(len(x), 1) < 0.02).to(x.dtype)
            return torch.cat([1 + 0 * wrong, wrong], 1) + x.flatten(1)[:, :1] * torch.tensor([1e-3, 0.0])

    torch.manual_seed(0)
    x, y = pixel(0.5, 40), torch.zeros(40, dtype=torch.long)
    assert attack.run(Seldom(), x, y).success.sum() <= 1
    Seldom.stochastic = False
    assert attack.run(Seldom(), x, y).success.sum() > 10


def test_a_point_that_is_no_success_on_average_is_not_moved_for_ever():
    """Half of all draws are wrong, whatever the pixel, and a little more are right: nothing is found, at distance ∞."""
    torch.manual_seed(0)
    x, y = pixel(0.5, 20), torch.zeros(20, dtype=torch.long)

    class Even(Chance):
        def forward(self, x):
            wrong = (torch.rand(len(x), 1) < 0.4).to(x.dtype)
            return torch.cat([1 - wrong, wrong], 1) + x.flatten(1)[:, :1] * torch.tensor([1e-3, 0.0])

    result, verdict = EOT(Even(), samples=1).attacked(FAB("l2", steps=30), x, y, draws=400)
    assert not verdict.success.any()
    assert result.distance.isinf().all()
    assert torch.equal(result.x_adv, x)


def test_who_is_finished_is_asked_no_more():
    """Wrong a step away, beyond doubt: the first success is near enough, and the other steps are not counted for it."""

    class Line(nn.Module):
        stochastic = True

        def forward(self, x):
            z = 5 * (x.flatten(1)[:, :1] - 0.5)
            return torch.cat([torch.zeros_like(z), z], 1)

    x, y = torch.cat([pixel(0.52), pixel(0.9, 31)]), torch.ones(32, dtype=torch.long)
    result = FAB("linf", steps=20, stop_within=0.1).run(Line(), x, y)
    assert result.success.all()
    assert result.gradients[0] == 1
    assert result.queries[0] == 1 + 1 + 1 + 2  # itself, at the gradient, the step, and again twice


def test_a_worst_point_is_a_success_where_there_is_one():
    """Cross-entropy is higher at a point of three even classes, read rightly, than at one that a second class wins."""

    class Three(nn.Module):
        def forward(self, x):
            p = x.flatten(1)[:, :1]
            low, high = torch.tensor([0.45, 0.55, 1e-9]).log(), torch.tensor([0.34, 0.33, 0.33]).log()
            return torch.where(p < 0.5, low, torch.where(p > 0.6, high, torch.tensor([2.0, 0.0, 0.0]))) + 0 * p

    x, y = pixel(0.55, 40), torch.zeros(40, dtype=torch.long)
    pgd = PGD(LINF, steps=2, restarts=10)  # without a gradient: twenty random points
    found = {stop: replace(pgd, stop=stop).run(Three(), x, y) for stop in ("success", "never", "keep-success")}
    assert found["success"].success.sum() >= 35
    assert not found["never"].success.any()
    assert torch.equal(found["keep-success"].success, found["success"].success)
    assert (found["keep-success"].queries == found["never"].queries).all()
    _, verdict = EOT(Three(), 2).attacked(pgd, x, y, draws=3)
    assert torch.equal(verdict.success, found["success"].success)


def test_answers_without_a_number_do_not_hold_a_point_for_good():
    class Sometimes(nn.Module):
        stochastic, asked = True, 0

        def forward(self, x):
            self.asked += 1
            z = (x - 0.5).flatten(1).sum(1, keepdim=True)
            z = torch.where((torch.rand(len(x), 1) < 0.2) & (self.asked > 1), torch.nan, z)
            return torch.cat([torch.zeros_like(z), z], 1)

    torch.manual_seed(0)
    x, y = torch.full((40, 1, 4, 4), 0.55), torch.ones(40, dtype=torch.long)
    for stop in ("never", "keep-success"):
        result = SquareAttack(LINF, queries=100, stop=stop).run(Sometimes(), x, y)
        assert ((result.x_adv - 0.5).flatten(1).sum(1) < 0).all()


@pytest.mark.parametrize("attack", [PGD(LINF, steps=2), FAB("linf", steps=3)], ids=["pgd", "fab"])
def test_results_hold_no_graph(attack):
    x = pixel(0.55, 4).requires_grad_()
    result, _ = EOT(Noisy(0.05), 2).attacked(attack, x, torch.ones(4, dtype=torch.long), draws=5)
    assert not result.x_adv.requires_grad
    assert not result.distance.requires_grad


def test_confirmations_are_counted():
    class Wrong(nn.Module):
        stochastic = True

        def forward(self, x):
            return torch.tensor([0.0, 1.0]) + 0 * x.flatten(1)[:, :1]

    result = FAB("l2", steps=3).run(Wrong(), pixel(0.5, 2), torch.zeros(2, dtype=torch.long))
    assert result.queries.tolist() == [11, 11]  # the image itself is wrong, and five times two answers more say so
    assert result.calls == 11


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("part", [False, True], ids=["itself", "inside"])
def test_square_compares_points_and_not_draws(norm, part):
    """z = Σ of the pixels, under noise nearly as large as all that the attack can gain. Of two points under the same
    draw the better one is the better one: the search goes as it would without noise."""

    class Sum(nn.Module):
        stochastic = True

        def __init__(self, sigma):
            super().__init__()
            self.sigma = sigma

        def forward(self, x):
            z = (x - 0.5).flatten(1).sum(1, keepdim=True) + self.sigma * torch.randn(len(x), 1)
            return torch.cat([torch.zeros_like(z), z], 1)

    torch.manual_seed(0)
    x, y = torch.full((30, 1, 4, 4), 0.55), torch.ones(30, dtype=torch.long)
    threat = ThreatModel("linf", 0.1) if norm == "linf" else ThreatModel("l2", 0.4)
    attack = SquareAttack(threat, queries=200, stop="never")
    noisy = Sum(0.6)
    result = attack.run(nn.Sequential(noisy) if part else noisy, x, y)
    quiet = attack.run(Sum(0.0), x, y)
    assert torch.isclose(result.x_adv, quiet.x_adv, atol=1e-5).flatten(1).all(1).double().mean() > 0.9
    assert (result.queries == 399).all()  # 200 points, and the best one again before each but the first
    noisy.stochastic = False
    deaf = attack.run(noisy, x, y)
    assert deaf.x_adv.sum() > quiet.x_adv.sum() + 30 * 0.3


def test_toward_a_target():
    torch.manual_seed(0)
    x, y = torch.cat([pixel(0.55), pixel(0.9)]), torch.ones(2, dtype=torch.long)
    result, verdict = EOT(Noisy(sigma=0.05), samples=10).attacked(
        PGD(LINF, steps=10), x, y, torch.zeros(2, dtype=torch.long), draws=50)
    assert result.success.tolist() == [True, False]
    assert verdict.shares[0] > 0.5 > verdict.shares[1]


def test_an_answer_that_is_no_number_is_no_success():
    class Broken(nn.Module):
        def forward(self, x):
            return torch.where(x.flatten(1) > 0.6, torch.nan, torch.tensor([1.0, 0.0]))

    x = torch.cat([pixel(0.5), pixel(0.7)])
    for target in (None, torch.zeros(2, dtype=torch.long)):
        verdict = EOT(Broken(), samples=1).judge(x, torch.ones(2, dtype=torch.long), target, draws=4)
        assert verdict.success.tolist() == [True, False]
        assert verdict.shares.tolist() == [1.0, 0.0]


def test_no_images_no_verdicts():
    empty = EOT(Noisy(0.1)).attacked(PGD(LINF), torch.empty(0, 1, 1, 1), torch.empty(0, dtype=torch.long))
    assert empty[0].success.shape == empty[1].success.shape == empty[1].shares.shape == (0,)
    assert empty[1].success.dtype == torch.bool
    assert empty[1].shares.dtype == torch.float64


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match="samples must be at least 1; found 0"):
        EOT(Noisy(0.1), samples=0)
    with pytest.raises(ValueError, match='decision must be "logits" or "majority"; found \'mean\''):
        EOT(Noisy(0.1), decision="mean")
    with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module; found function"):
        EOT(lambda x: x)
    eot, x, y = EOT(Noisy(0.1)), pixel(0.5), torch.ones(1, dtype=torch.long)
    for call in (lambda: eot.attacked(PGD(LINF), x, y, draws=0), lambda: eot.judge(x, y, draws=0)):
        with pytest.raises(ValueError, match="draws must be at least 1; found 0"):
            call()
    with pytest.raises(TypeError, match="takes one attack, such as PGD"):
        eot.attacked(AutoAttack(LINF), x, y)
    with pytest.raises(ValueError, match=r"labels must lie in 0 \.\.\. 1 for 2 logits; found 5 to 5"):
        eot.judge(x, 5 * y)


def test_on_a_real_net_the_attack_that_knows_is_stronger():
    """Random noise in front of the signs' net: one draw's gradient against that of the expectation."""

    class Noise(nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, x):
            return self.model((x + 0.06 * torch.randn_like(x)).clamp(0, 1))

    x, y, _ = data.load("signs", "test", 40)
    defense, threat = Noise(models.load_pretrained("signs-standard")).eval(), ThreatModel("linf", 4 / 255)
    torch.manual_seed(0)
    shares = [float(EOT(defense, samples=samples).attacked(
        PGD(threat, steps=10, loss="margin"), x, y, draws=30)[1].shares.mean())
              for samples in (1, 15)]
    clean = float(EOT(defense).judge(x, y, draws=30).shares.mean())
    assert clean < 0.02 < shares[0] < shares[1] - 0.05
