"""Auto-PGD against the algorithm written out one example at a time, in plain Python, as the paper states it."""

import pytest
import torch
from torch import nn

from robustness_lib import ThreatModel
from robustness_lib.attacks import PGD, AutoPGD
from robustness_lib.attacks.auto_pgd import _checkpoints
from robustness_lib.losses import LOSSES, PAIR_LOSSES


def problem(n=12, classes=6, dtype=torch.float64):
    torch.manual_seed(3)
    model = nn.Sequential(nn.Conv2d(2, 6, 3), nn.Tanh(), nn.Flatten(), nn.Linear(6 * 5 * 4, classes)).to(dtype).eval()
    with torch.no_grad():
        model[3].weight.mul_(6)
    x = torch.rand(n, 2, 7, 6, dtype=dtype)
    with torch.no_grad():
        y = model(x).argmax(1)
    return model, x, y


def written_out(model, x, y, start, threat, steps, value, rho=0.75):
    """One example: the loss of every iterate. x, start: (1, ...)."""
    def look(z):
        z = z.clone().requires_grad_()
        loss = value(model(z), y)[0]
        (gradient,) = torch.autograd.grad(loss, z)
        return float(loss.detach()), gradient

    z, old, eta = start, start, 2 * threat.eps
    loss, gradient = look(z)
    losses, best = [loss], (loss, z, gradient)
    interval, since, then, halved_before = int(0.22 * steps), 0, loss, True
    for k in range(steps):
        stepped = threat.project(z + threat.steepest_step(gradient, eta), x)
        if k > 0:
            stepped = threat.project(0.75 * stepped + 0.5 * z - 0.25 * old, x)  # z + ¾(stepped − z) + ¼(z − old)
        old, z = z, stepped
        loss, gradient = look(z)
        losses.append(loss)
        if loss > best[0]:
            best = (loss, z, gradient)
        since += 1
        if since == interval:
            rises = sum(losses[j + 1] > losses[j] for j in range(len(losses) - 1 - interval, len(losses) - 1))
            halve = rises <= rho * interval or (not halved_before and best[0] <= then)
            if halve:
                eta, z, gradient = eta / 2, best[1], best[2]
            halved_before, then, since = halve, best[0], 0
            interval = max(interval - int(0.03 * steps), int(0.06 * steps))
    return losses


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("loss", ["ce", "dlr", "margin"])
@pytest.mark.parametrize("rho", [0.75, 0.45])
def test_it_walks_as_the_paper_does(norm, loss, rho):
    model, x, y = problem()
    threat = ThreatModel(norm, 0.25 if norm == "linf" else 0.8)
    seen = []
    attack = AutoPGD(threat, steps=100, loss=loss, rho=rho, stop="never")
    x_adv = attack.run(model, x, y, on_step=seen.append).x_adv
    losses = torch.stack([step.loss for step in seen], 1)
    starts = seen[0].x_adv
    for i in range(len(x)):
        row = slice(i, i + 1)
        expected = written_out(model, x[row], y[row], starts[row], threat, 100, LOSSES[loss], rho)
        expected = torch.tensor(expected, dtype=torch.float64)
        # At the very top the loss is flat, and a difference of 1e-16 can change a count of rises.
        torch.testing.assert_close(losses[i, :88], expected[:88], atol=1e-6, rtol=0)
        torch.testing.assert_close(losses[i].amax(), expected.amax(), atol=1e-3, rtol=0)
        with torch.no_grad():
            torch.testing.assert_close(LOSSES[loss](model(x_adv[row]), y[row])[0], losses[i].amax())


def test_steps_halve_for_each_example_alone():
    """A batch in which everybody halved together would fail above; here, that some halve and some do not."""
    model, x, y = problem()
    sizes = []

    class Watching(ThreatModel):
        def steepest_step(self, gradient, step_size):
            sizes.append(step_size.clone())
            return super().steepest_step(gradient, step_size)

    AutoPGD(Watching("linf", 0.05), rho=0.45, stop="never").run(model, x, y, on_step=lambda step: None)
    sizes = torch.stack(sizes)
    assert (sizes[:22] == 0.1).all()
    assert any(len(row.unique()) > 1 for row in sizes)
    for size in sizes.T:
        changes = (size[1:] != size[:-1]).nonzero()[:, 0] + 1
        assert set(changes.tolist()) <= {22, 41, 57, 70, 80, 87, 93, 99}
        assert ((size[1:] == size[:-1]) | (size[1:] == size[:-1] / 2)).all()


def test_checkpoints_in_whole_numbers():
    assert list(_checkpoints(100)) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert list(_checkpoints(100).values()) == [22, 19, 16, 13, 10, 7, 6, 6]
    assert list(_checkpoints(20))[:5] == [4, 7, 9, 10, 11]
    assert list(_checkpoints(1)) == [1]
    assert max(_checkpoints(7)) <= 7


@pytest.mark.parametrize("loss", PAIR_LOSSES)
def test_each_class_that_follows_is_tried_in_the_order_of_the_clean_logits(loss):
    model, x, y = problem()
    with torch.no_grad():
        order = model(x).argsort(1, descending=True)[:, 1:]
    seen = []
    AutoPGD(ThreatModel("linf", 0.01), steps=4, loss=loss, stop="never").run(model, x, y, on_step=seen.append)
    assert [step.restart for step in seen[::5]] == [0, 1, 2, 3, 4]
    for number in range(5):
        start = seen[5 * number]
        with torch.no_grad():
            torch.testing.assert_close(start.loss, PAIR_LOSSES[loss](model(start.x_adv), y, order[:, number]))
    starts = [seen[5 * number].x_adv for number in range(5)]
    assert not torch.equal(starts[0], starts[1])  # each search begins at a point of its own


def test_target_classes_limits_the_searches_and_any_error_counts():
    model, x, y = problem()
    seen = []
    result = AutoPGD(ThreatModel("linf", 0.2), steps=20, loss="targeted-dlr", target_classes=2).run(
        model, x, y, on_step=seen.append)
    assert {step.restart for step in seen} <= {0, 1}
    with torch.no_grad():
        assert torch.equal(model(result.x_adv).argmax(1) != y, result.success)
    assert result.success.any()


def test_a_given_target_is_the_only_class_searched():
    model, x, y = problem()
    target = (y + 1) % 6
    seen = []
    result = AutoPGD(ThreatModel("linf", 0.3), steps=20, loss="targeted-dlr").run(
        model, x, y, target, on_step=seen.append)
    assert {step.restart for step in seen} == {0}
    with torch.no_grad():
        assert torch.equal(model(result.x_adv).argmax(1) == target, result.success)
    assert result.success.any()


@pytest.mark.parametrize(("loss", "classes", "least"), [("dlr", 2, 3), ("targeted-dlr", 3, 4)])
def test_too_few_classes_are_named(loss, classes, least):
    model, x, y = problem(classes=classes)
    with pytest.raises(ValueError, match=f"at least {least} classes; found {classes}"):
        AutoPGD(ThreatModel("linf", 0.01), loss=loss)(model, x, y)


def test_calls_are_counted_and_the_last_gradient_is_not_computed():
    model, x, y = problem(n=5)
    calls = []
    model.register_forward_hook(lambda module, inputs, output: calls.append(output.requires_grad))
    threat = ThreatModel("linf", 1e-9)  # nobody is broken
    result = AutoPGD(threat, steps=30, restarts=2).run(model, x, y)
    assert result.gradients.tolist() == [60] * 5
    assert result.queries.tolist() == [1 + 2 * 31] * 5
    assert len(calls) == result.calls == 63
    assert sum(calls) == 60
    result = AutoPGD(threat, steps=30, loss="targeted-dlr", target_classes=3).run(model, x, y)
    assert result.gradients.tolist() == [90] * 5
    assert result.queries.tolist() == [1 + 3 * 31] * 5


def test_restarts_search_on_among_survivors_only():
    model, x, y = problem(n=40)
    threat = ThreatModel("linf", 0.03)
    once = AutoPGD(threat, steps=10).run(model, x, y)
    thrice = AutoPGD(threat, steps=10, restarts=3).run(model, x, y)
    assert 0 < once.success.sum() < 40
    assert (once.success <= thrice.success).all()
    assert torch.equal(once.gradients[once.success], thrice.gradients[once.success])
    assert (thrice.gradients[~thrice.success] == 30).all()


def test_draws_are_averaged_for_a_model_that_answers_at_random():
    model, x, y = problem(n=4)
    generator = torch.Generator().manual_seed(0)
    answers = []

    def noisy(z):
        logits = model(z) + 3 * torch.randn(len(z), 6, generator=generator, dtype=z.dtype)
        answers.append(logits.detach())
        return logits

    seen = []
    result = AutoPGD(ThreatModel("linf", 0.02), steps=3, loss="margin", eot=20, stop="never").run(
        noisy, x, y, on_step=seen.append)
    assert result.calls == len(answers) == 4 * 20
    assert result.queries.tolist() == [80] * 4
    assert result.gradients.tolist() == [60] * 4
    first = torch.stack(answers[:20])
    torch.testing.assert_close(seen[0].loss, LOSSES["margin"](first.flatten(0, 1), y.repeat(20)).view(20, 4).mean(0))
    assert torch.equal(seen[0].success, first.mean(0).argmax(1) != y)


def test_it_climbs_higher_than_fixed_steps_of_equal_cost():
    model, x, y = problem(n=60)
    threat = ThreatModel("l2", 0.15)
    higher = []
    for attack in (AutoPGD(threat, stop="never", loss="margin"), PGD(threat, steps=100, stop="never", loss="margin")):
        with torch.no_grad():
            higher.append(LOSSES["margin"](model(attack(model, x, y)), y))
    # Each tops out near the same maxima; not one example may be left clearly below.
    assert (higher[0] > higher[1] - 0.01 * higher[1].abs()).float().mean() > 0.95
    assert higher[0].mean() > higher[1].mean() - 1e-3


@pytest.mark.parametrize(("options", "words"), [
    ({"steps": 0}, "steps must be at least 1"), ({"restarts": 0}, "restarts"), ({"rho": 1.5}, "rho must lie"),
    ({"eot": 0}, "eot"), ({"target_classes": 0}, "target_classes"), ({"loss": "cw"}, "targeted-dlr"),
])
def test_wrong_settings_are_refused_in_words(options, words):
    with pytest.raises(ValueError, match=words):
        AutoPGD(ThreatModel("linf", 0.1), **options)
