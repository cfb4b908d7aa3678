"""What PGD in particular must get right: each test would have caught a mistake that people really make."""

import dataclasses
import statistics
import time

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from robustness_lib import ThreatModel
from robustness_lib.attacks import FGSM, PGD
from robustness_lib.losses import cross_entropy, margin_loss
from robustness_lib.models import small_cnn

THREAT = ThreatModel("linf", 0.1)


def mlp(seed=0, d=12, classes=4, width=24, dtype=torch.float64):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Linear(d, width), nn.Tanh(), nn.Linear(width, classes)).to(dtype)
        for p in net.parameters():
            p.data.mul_(4)
    return net


def problem(n=60, d=12, dtype=torch.float64):
    model = mlp(dtype=dtype)
    x = torch.rand((n, d), generator=torch.Generator().manual_seed(1), dtype=dtype)
    return model, x, model(x).argmax(1)


def ten_line_pgd(model, x, y, eps, steps, start):
    """As one would write it on a napkin, for L∞ and without any bookkeeping: every iterate is judged."""
    z, broken = start.clone(), torch.zeros(len(x), dtype=torch.bool)
    for _ in range(steps):
        z = z.detach().requires_grad_()
        logits = model(z)
        broken |= logits.argmax(1) != y
        F.cross_entropy(logits, y, reduction="sum").backward()
        z = (z + 2.5 * eps / steps * z.grad.sign()).clamp(x - eps, x + eps).clamp(0, 1)
    return z.detach(), broken | (model(z).argmax(1) != y)


def test_it_breaks_what_a_ten_line_pgd_breaks_from_the_same_start():
    model, x, y = problem()
    start = THREAT.random_point(x, seed=3, index=torch.arange(len(x)))
    last, broken = ten_line_pgd(model, x, y, 0.1, 20, start)
    result = PGD(THREAT, steps=20).run(model, x, y, start=start)
    assert torch.equal(result.success, broken)
    assert 5 < broken.sum() < 55
    iterates = {}
    attack = PGD(THREAT, steps=20, stop="never")
    attack.run(model, x, y, start=start, on_step=lambda s: iterates.update({s.step: s.x_adv}))
    torch.testing.assert_close(iterates[20], last)


def test_highest_loss_iterate_per_example_is_returned_when_nobody_stops():
    model, x, y = problem()
    steps = []
    result = PGD(THREAT, steps=9, restarts=3, step_size=0.09, stop="never").run(model, x, y, on_step=steps.append)
    assert len(steps) == 3 * 10
    losses = torch.stack([s.loss for s in steps])
    best, where = losses.max(0)
    torch.testing.assert_close(cross_entropy(model(result.x_adv), y), best)
    assert len(where.unique()) > 5  # the best step differs from example to example, or this tests nothing
    assert (result.gradients == 27).all()
    assert (result.queries == 30).all()
    assert result.calls == 30


def test_resisting_examples_come_back_at_their_highest_loss():
    model, x, y = problem()
    steps = []
    attack = PGD(ThreatModel("linf", 0.03), steps=12)
    result = attack.run(model, x, y, on_step=steps.append)
    best = torch.full((len(x),), -torch.inf, dtype=x.dtype)
    for s in steps:
        best[s.rows] = torch.maximum(best[s.rows], s.loss)
    resist = ~result.success
    assert 5 < resist.sum() < len(x)
    torch.testing.assert_close(cross_entropy(model(result.x_adv), y)[resist], best[resist])


def test_the_first_success_is_kept():
    model, x, y = problem()
    first = {}

    def note(s):
        for row, x_adv, success in zip(s.rows.tolist(), s.x_adv, s.success.tolist(), strict=True):
            if success and row not in first:
                first[row] = x_adv.clone()

    result = PGD(THREAT, steps=20).run(model, x, y, on_step=note)
    assert sorted(first) == result.success.nonzero()[:, 0].tolist()
    for row, x_adv in first.items():
        assert torch.equal(result.x_adv[row], x_adv)


def test_an_iterate_that_succeeded_is_not_lost_when_later_steps_fail():
    """The model errs in a thin shell only: the last iterate is classified right again."""

    def model(z):
        moved = z[:, 0] - 0.5
        score = torch.where((moved > 0.02) & (moved < 0.04), -1.0, 1.0) - moved
        return torch.stack([score, torch.zeros_like(moved)], 1)

    x, y = torch.full((1, 3), 0.5), torch.tensor([0])
    attack = PGD(THREAT, steps=20, step_size=0.01, random_start=False)
    assert attack.run(model, x, y).success.all()


def test_restarts_keep_each_examples_best_not_the_best_batch():
    model, x, y = problem()
    losses = {}
    one = PGD(THREAT, steps=3, restarts=1, stop="never")
    many = dataclasses.replace(one, restarts=4)
    result = many.run(model, x, y, on_step=lambda s: losses.setdefault(s.restart, []).append(s.loss))
    per_restart = torch.stack([torch.stack(v).max(0).values for v in losses.values()])
    torch.testing.assert_close(cross_entropy(model(result.x_adv), y), per_restart.max(0).values)
    best_batch = per_restart[per_restart.mean(1).argmax()]
    assert (per_restart.max(0).values > best_batch + 1e-6).sum() > 10


def test_restarts_run_on_survivors_only_and_never_lose_a_success():
    model, x, y = problem(n=120)
    threat = ThreatModel("linf", 0.05)
    one = PGD(threat, steps=4).run(model, x, y)
    many = PGD(threat, steps=4, restarts=6).run(model, x, y)
    assert (many.success | ~one.success).all()
    assert torch.equal(many.x_adv[one.success], one.x_adv[one.success])
    assert torch.equal(many.queries[one.success], one.queries[one.success])
    assert (many.gradients[~many.success] == 24).all()


@pytest.mark.parametrize("eps", [0.001, 0.1, 0.7])
def test_the_default_step_size_follows_eps(eps):
    model, x, y = problem()
    steps = []
    PGD(ThreatModel("linf", eps), steps=10, stop="never", random_start=False).run(model, x, y, on_step=steps.append)
    inner = ((x > eps) & (x < 1 - eps)) if eps < 0.5 else torch.zeros_like(x, dtype=torch.bool)
    moved = (steps[1].x_adv - x).abs()
    if inner.any():
        torch.testing.assert_close(moved[inner], torch.full_like(moved[inner], 2.5 * eps / 10))
    assert (steps[-1].x_adv - x).abs().max() == pytest.approx(eps)


def test_finished_examples_leave_the_batch_in_chunks():
    model, x, y = problem(n=200)
    sizes = []
    model.register_forward_hook(lambda m, inputs, output: sizes.append(len(inputs[0])))
    result = PGD(ThreatModel("linf", 0.13), steps=40).run(model, x, y)  # 200 points fit one batch
    assert 20 < result.success.sum() < 180
    assert sizes == sorted(sizes, reverse=True)
    resisting = int((~result.success).sum())
    assert sizes[-1] <= resisting / (1 - 1 / 8) + 1  # what is carried along at the end is little
    assert 2 < len(set(sizes)) < 10  # and new batch shapes are few
    assert result.queries.sum() <= sum(sizes)


def test_it_stops_when_nobody_stands():
    model, x, y = problem()
    result = PGD(ThreatModel("linf", 1.0), steps=500, restarts=5).run(model, x, y)
    assert result.success.all()
    assert result.calls < 200  # of the 2,506 that it would take to the end


def test_random_numbers_of_a_restart_are_its_own():
    model, x, y = problem(n=3)
    starts = []
    PGD(THREAT, steps=1, restarts=3, stop="never").run(
        model, x, y, on_step=lambda s: starts.append(s.x_adv) if s.step == 0 else None)
    assert len({tuple(row.tolist()) for row in torch.cat(starts)}) == 9


def test_a_start_is_projected_and_used_once():
    model, x, y = problem(n=5)
    starts = []
    PGD(THREAT, steps=1, restarts=2, stop="never").run(
        model, x, y, start=torch.ones_like(x), on_step=lambda s: starts.append(s.x_adv) if s.step == 0 else None)
    torch.testing.assert_close(starts[0], (x + 0.1).clamp(max=1))
    assert not torch.equal(starts[1], starts[0])


def test_an_example_weighs_the_same_in_every_batch():
    """A mean over the batch would scale gradients by 1/N, and lose those near the smallest number that there is."""
    model, x, y = problem(dtype=torch.float32)
    tiny = PGD(THREAT, steps=1, random_start=False, stop="never", loss=lambda z, y: 1e-44 * cross_entropy(z, y))
    moved = (tiny(model, x, y) != x).float().mean()
    alone = (torch.cat([tiny(model, x[i:i + 1], y[i:i + 1]) for i in range(60)]) != x).float().mean()
    assert moved == alone > 0.02
    model, x, y = problem()
    attack = PGD(ThreatModel("l2", 0.3), steps=8, stop="never")
    together = attack(model, x, y)
    alone = torch.cat([attack(model, x[i:i + 1], y[i:i + 1], index=torch.tensor([i])) for i in range(10)])
    torch.testing.assert_close(together[:10], alone, atol=1e-9, rtol=0)


def saturated(model, scale=1e4):
    return lambda z: scale * model(z)


def test_a_saturated_softmax_is_reported_and_the_margin_gets_through():
    model, x, y = problem(dtype=torch.float32)
    blind = PGD(THREAT, steps=20).run(saturated(model), x, y)
    (warning,) = blind.warnings
    assert warning.kind == "zero gradient"
    assert 'loss="margin"' in str(warning)
    sighted = PGD(THREAT, steps=20, loss="margin").run(saturated(model), x, y)
    assert sighted.warnings == ()
    assert sighted.success.sum() > blind.success.sum() + 5


def test_who_was_broken_in_the_end_is_not_called_unattacked():
    def flat_left_of_the_middle(z):
        return torch.stack([torch.full((len(z),), 0.1), torch.relu(5 * (z[:, 0] - 0.55))], 1)

    x, y = torch.full((50, 1), 0.5), torch.zeros(50, dtype=torch.int64)
    result = PGD(ThreatModel("linf", 0.2), steps=10, restarts=8).run(flat_left_of_the_middle, x, y)
    resisting = int((~result.success).sum())
    assert resisting < 20
    assert all(f"for {resisting} of 50" in w.message for w in result.warnings)
    assert result.warnings


def test_a_large_eps_does_not_jump_over_an_island():
    def island(z):
        return torch.stack([0.2 - 2 * (z[:, 0] - 0.71).abs(), torch.zeros(len(z))], 1).flip(1)

    x, y = torch.full((5, 1), 0.5), torch.zeros(5, dtype=torch.int64)
    for eps in (0.3, 1, 10, 1000):
        attack = PGD(ThreatModel("linf", eps), random_start=False, loss="margin")
        assert attack.run(island, x, y).success.all()


def test_honest_models_raise_no_warning():
    model, x, y = problem()
    for attack in (FGSM(THREAT), PGD(THREAT)):
        assert attack.run(model, x, y).warnings == ()


def test_own_losses_can_be_climbed():
    model, x, y = problem()
    ours = PGD(THREAT, loss=lambda z, y: margin_loss(z, y)).run(model, x, y)
    named = PGD(THREAT, loss="margin").run(model, x, y)
    assert torch.equal(ours.x_adv, named.x_adv)


@pytest.mark.parametrize(("options", "words"), [
    ({"steps": 0}, "steps must be at least 1"),
    ({"restarts": 0}, "restarts must be at least 1"),
    ({"step_size": 0.0}, "step_size must be positive"),
    ({"step_size": float("nan")}, "step_size must be positive"),
    ({"step_size": float("inf")}, "step_size must be positive"),
    ({"steps": 10.0}, "steps must be a whole number"),
    ({"restarts": True}, "restarts must be a whole number"),
    ({"seed": 1.5}, "seed must be a whole number"),
    ({"restarts": 2, "random_start": False}, "repeat the same run"),
])
def test_wrong_settings_are_refused_in_words(options, words):
    with pytest.raises((ValueError, TypeError), match=words):
        PGD(THREAT, **options)


def test_training_mode_of_use_costs_one_pass_more_than_its_gradients():
    model, x, y = problem()
    assert PGD(THREAT, steps=7, stop="never").run(model, x, y).calls == 8


def test_a_random_start_costs_less_than_a_twentieth_of_forty_steps():
    model, x, y = small_cnn().eval(), torch.rand(50, 3, 32, 32), torch.zeros(50, dtype=torch.int64)
    index, attack = torch.arange(50), PGD(THREAT, steps=40, random_start=False, stop="never")

    def seconds(call):
        began = time.process_time()  # what others do on this machine does not count
        call()
        return time.process_time() - began

    starts = [seconds(lambda r=r: THREAT.random_point(x, seed=r, index=index)) for r in range(5)]
    attacks = [seconds(lambda: attack(model, x, y)) for _ in range(2)]
    assert statistics.median(starts) < 0.05 * min(attacks)
