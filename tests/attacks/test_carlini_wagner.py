"""What Carlini and Wagner's attack in particular must get right: each test would have caught a mistake that people
really make."""

import dataclasses
from itertools import pairwise

import pytest
import torch
from shared_problems import Counting, bound_problem, exact_distance, linear, mlp_problem, problem

import robustness_lib.attacks.carlini_wagner as module
from robustness_lib.attacks.carlini_wagner import CarliniWagnerL2
from robustness_lib.losses import margin_loss


def linear_problem(n=24, d=20, low=0.3, high=0.7, seed=4):
    g = torch.Generator().manual_seed(seed)
    w = torch.randn(d, generator=g, dtype=torch.float64)
    x = low + (high - low) * torch.rand((n, d), generator=g, dtype=torch.float64)
    return w, x, (x - 0.5) @ w


def net(classes=4):
    return mlp_problem(scale=3, n=30, classes=classes)


@pytest.mark.parametrize("lr", [0.01, 0.001])
def test_the_closed_form_on_a_linear_model(lr):
    """Adam's first steps have length lr whatever the gradient: nearer errors need a smaller one."""
    w, x, score = linear_problem()
    exact = score.abs() / w.norm()
    chosen = (exact > 0.04) if lr == 0.01 else (exact < 0.04)
    x, exact = x[chosen], exact[chosen]
    assert len(x) >= 5
    result = CarliniWagnerL2(lr=lr).run(linear(w, -0.5 * w.sum()), x, (score[chosen] > 0).long())
    assert (result.distance >= exact * (1 - 1e-9)).all()
    assert (result.distance <= exact * 1.01).all()


def test_where_the_box_binds():
    """Pixels at and near 0 and 1, and a boundary far away: the exact solution rests on the box's faces."""
    model, w, x, height = bound_problem()
    result = CarliniWagnerL2().run(model, x, torch.ones(len(x), dtype=torch.int64))
    assert not result.x_adv.isnan().any()
    exact = torch.tensor([exact_distance("l2", z, w, h) for z, h in zip(x, height, strict=True)], dtype=torch.float64)
    assert (exact > 1.02 * height / w.norm()).sum() > 4
    assert (result.distance >= exact * (1 - 1e-5)).all()  # pixel 0, which says how far, is squeezed by 1e-6
    assert (result.distance <= exact * 1.01).all()


def with_scales(w, bias):
    """The same boundary for all, under logits whose size pixel 0 decides: 1e-3 to 1e3. Each example needs another c."""
    def model(z):
        return linear(w, bias)(z) * 10 ** (6 * (z.flatten(1)[:, :1].detach() - 0.5))

    return model


def scaled_problem():
    w, x, _ = linear_problem(n=12)
    w[0] = 0
    x[:, 0] = torch.linspace(0.1, 0.9, 12, dtype=torch.float64)
    score = (x - 0.5) @ w
    return with_scales(w, -0.5 * w.sum()), x, (score > 0).long(), score.abs() / w.norm()


def test_each_example_has_its_own_c():
    model, x, y, exact = scaled_problem()
    result = CarliniWagnerL2(search_steps=12, initial_c=1e-2).run(model, x, y)
    assert (result.distance <= exact * 1.02).all()
    assert (result.distance >= exact * (1 - 1e-9)).all()


def test_an_example_does_not_feel_its_batch():
    """A loss averaged over the batch, or a c or an end shared by it, would show here."""
    model, x, y, _ = scaled_problem()
    attack = CarliniWagnerL2(search_steps=5, steps=60, lr=0.02)
    together = attack.run(model, x, y)
    for i in range(len(x)):
        alone = attack.run(model, x[i:i + 1], y[i:i + 1])
        torch.testing.assert_close(alone.distance, together.distance[i:i + 1], rtol=1e-6, atol=0)
        assert alone.queries[0] == together.queries[i]
        assert alone.gradients[0] == together.gradients[i]


def rounds_of(attack, model, x, y):
    """The c of each round, from what an observer sees: at a fixed point of one step, Adam's first step reveals
    nothing, so c is read where the attack hands it on."""
    seen = []

    class Spy(type(attack)):
        def _minimize(self, run, w, c):
            seen.append(c.clone())
            return super()._minimize(run, w, c)

    spy = Spy(**{f.name: getattr(attack, f.name) for f in dataclasses.fields(attack)})
    result = spy.run(model, x, y)
    return torch.stack(seen), result


def test_c_grows_tenfold_until_it_succeeds_and_is_bisected_from_there():
    model, x, y, _ = scaled_problem()
    cs, result = rounds_of(CarliniWagnerL2(search_steps=9, steps=200, initial_c=1e-2), model, x, y)
    growth = cs[1:] / cs[:-1]
    firsts = []
    for i in range(len(x)):
        tenfold = [abs(float(r) - 10) < 1e-9 for r in growth[:, i]]
        first = tenfold.index(False)  # the round that first succeeded
        firsts.append(first)
        low, high = (0.0 if first == 0 else float(cs[first - 1, i])), float(cs[first, i])
        for c in cs[first + 1:, i].tolist():
            assert c == pytest.approx((low + high) / 2)
            later = cs[(cs[:, i] == c).nonzero()[0, 0] + 1:, i].tolist()
            if later:
                low, high = (low, c) if later[0] < c else (c, high)
    assert len(set(firsts)) >= 4
    assert result.success.all()


def test_enormous_c_does_not_overflow():
    """An unreachable class makes c grow in every round, to the largest one and no farther."""
    def model(z):
        return torch.stack([z.sum(1) * 1e6 + 1e9, z[:, 0] * 1e6], 1)

    x, y = torch.rand(4, 6), torch.zeros(4, dtype=torch.int64)
    points = []
    attack = CarliniWagnerL2(search_steps=50, steps=15)
    result = attack.run(model, x, y, on_step=lambda s: points.append(s.x_adv))
    assert not any(p.isnan().any() for p in points)
    assert result.distance.isinf().all()
    assert torch.equal(result.x_adv, x)
    cs, _ = rounds_of(attack, model, x, y)
    assert (cs[0] == 1e-3).all()
    assert (cs[-1] == 1e10).all()


@pytest.mark.parametrize("targeted", [False, True])
def test_confidence_is_kept_and_paid_for(targeted):
    model, x, y = net()
    target = (y + 1) % 4 if targeted else None
    distances = []
    for confidence in (0.0, 0.3, 1.0):
        attack = CarliniWagnerL2(confidence, search_steps=6, steps=150, lr=0.03)
        result = attack.run(model, x, y, target)
        margin = -margin_loss(model(result.x_adv), target) if targeted else margin_loss(model(result.x_adv), y)
        assert (margin[result.success] >= confidence).all()
        assert result.success.sum() > 20
        distances.append(result.distance)
    for near, far in pairwise(distances):
        both = far.isfinite() & (far > 0)
        assert (near[both] < far[both]).all()


def test_targeted_ends_in_the_target_and_untargeted_is_no_farther():
    model, x, y = net()
    attack = CarliniWagnerL2(search_steps=6, steps=150, lr=0.03)
    anywhere = attack.run(model, x, y)
    nearest = torch.full_like(anywhere.distance, torch.inf)
    for shift in (1, 2, 3):
        target = (y + shift) % 4
        result = attack.run(model, x, y, target)
        assert (model(result.x_adv).argmax(1) == target)[result.success].all()
        nearest = torch.minimum(nearest, result.distance)
    assert (nearest <= anywhere.distance * 1.05).sum() > 25
    assert (anywhere.distance <= nearest * 1.2).sum() > 25


def test_the_best_over_all_c_and_all_steps_is_kept():
    """The last c often fails, and the last iterate of a round is seldom the nearest."""
    model, x, y = net()
    attack, steps = CarliniWagnerL2(search_steps=5, steps=60, lr=0.03), []
    result = attack.run(model, x, y, on_step=steps.append)
    per_round = torch.full((5, len(x)), torch.inf, dtype=torch.float64)
    last = per_round.clone()
    for s in steps:
        d = (s.x_adv - x[s.rows]).norm(dim=1).masked_fill(~s.success, torch.inf)
        last[s.restart, s.rows] = d
        per_round[s.restart, s.rows] = torch.minimum(per_round[s.restart, s.rows], d)
    best, where = per_round.min(0)
    torch.testing.assert_close(result.distance, best)
    assert len(where.unique()) >= 3
    assert (last.min(0).values > best * 1.0001).sum() > 10


def test_a_success_at_the_very_last_iterate_counts():
    w, x, score = linear_problem()
    far = score.abs() > 0.1 * w.norm()
    x, y, model = x[far], (score[far] > 0).long(), linear(w, -0.5 * w.sum())
    assert len(x) > 2
    attack, steps = CarliniWagnerL2(search_steps=1, steps=400, initial_c=1e4), []
    attack.run(model, x, y, on_step=steps.append)
    for i in range(len(x)):
        first = next(s.step for s in steps if s.success[i])
        assert CarliniWagnerL2(search_steps=1, steps=first, initial_c=1e4).run(model, x, y).success[i]
        assert first > 1
        assert not CarliniWagnerL2(search_steps=1, steps=first - 1, initial_c=1e4).run(model, x, y).success[i]


def test_calls_are_counted_and_none_is_wasted():
    model, x, y, _ = problem()
    for rounds, steps in ((3, 1), (2, 7), (4, 40)):
        counting = Counting(model)
        result = CarliniWagnerL2(search_steps=rounds, steps=steps, lr=0.05).run(counting, x[4:5], y[4:5])
        assert result.calls == counting.forwards == result.queries[0]
        assert counting.backwards == result.gradients[0] <= rounds * steps
        assert result.calls <= 1 + rounds * (steps + 1)
        if steps == 1:
            assert result.calls == 1 + rounds * 2
            assert counting.backwards == rounds


def test_ending_early_saves_calls_and_changes_nothing_to_speak_of(monkeypatch):
    model, x, y = net()
    attack = CarliniWagnerL2(search_steps=6, steps=300, lr=0.02)
    early = attack.run(model, x, y)
    monkeypatch.setattr(module, "_PROGRESS", 1e9)
    full = attack.run(model, x, y)
    assert (full.gradients == 6 * 300).all()
    assert early.gradients.sum() < 0.8 * full.gradients.sum()
    assert len(early.gradients.unique()) > 3
    torch.testing.assert_close(early.distance, full.distance, rtol=0.01, atol=1e-4)
    assert torch.equal(early.success, full.success)


def test_it_begins_at_the_start():
    model, x, y = net()
    start = (x + 0.2).clamp(0, 1.0) * 1.3  # outside the box, too
    steps = []
    CarliniWagnerL2(search_steps=2, steps=3).run(model, x, y, start=start, on_step=steps.append)
    for s in steps:
        if s.step == 0:
            torch.testing.assert_close(s.x_adv, start.clamp(0, 1)[s.rows], atol=1e-6, rtol=0)
    assert sum(s.step == 0 for s in steps) == 2


@pytest.mark.parametrize(("options", "error", "words"), [
    ({"confidence": -1.0}, ValueError, "confidence"),
    ({"confidence": float("nan")}, ValueError, "confidence"),
    ({"search_steps": 0}, ValueError, "search_steps"),
    ({"steps": 1.5}, TypeError, "steps"),
    ({"lr": 0.0}, ValueError, "lr"),
    ({"initial_c": 0.0}, ValueError, "initial_c"),
    ({"initial_c": 1e11}, ValueError, "initial_c"),
])
def test_wrong_settings_are_refused_in_words(options, error, words):
    with pytest.raises(error, match=words):
        CarliniWagnerL2(**options)


def test_the_iterates_are_those_of_a_ten_line_version_with_autograd():
    model, x, y = net()
    x = torch.where(torch.rand(x.shape, generator=torch.Generator().manual_seed(3)) < 0.3, x.round(), x)
    y, c, confidence = model(x).argmax(1), 3.0, 0.5
    w = torch.arctanh((2 * x - 1) * (1 - 1e-6)).requires_grad_()
    adam, expected = torch.optim.Adam([w], lr=0.05), []
    for _ in range(12):
        image = (w.tanh() + 1) / 2
        expected.append(image.detach())
        loss = (image - x).square().sum() + c * (-margin_loss(model(image), y)).clamp(min=-confidence).sum()
        adam.zero_grad()
        loss.backward()
        adam.step()
    steps = []
    attack = CarliniWagnerL2(confidence, search_steps=1, steps=12, lr=0.05, initial_c=c)
    attack.run(model, x, y, on_step=lambda s: steps.append(s.x_adv) if len(s.rows) == len(x) else None)
    assert len(steps) >= 6  # later, some have ended
    for ours, theirs in zip(steps, expected, strict=False):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)
