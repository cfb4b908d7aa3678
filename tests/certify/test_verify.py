"""Verdicts on nets whose truth is known, by whoever tries to shake them."""

import copy
from collections import Counter
from dataclasses import replace

import pytest
import torch
from known_nets import THREAT, exact_margin, linear, linear_margins, problem, relu_net
from quick_auto_attack import Quick
from torch import nn

from robustness_lib import ThreatModel
from robustness_lib.attacks import PGD
from robustness_lib.certify import verify
from robustness_lib.certify.proof_steps import ProofStep


@pytest.fixture(scope="module")
def found():
    return verify(*problem(), THREAT)


def check_shown(model, x, y, threat, found):
    """What is called broken is: inside ball and box, and answered wrongly when asked afresh."""
    broken, wrong = found.are("broken"), found.are("wrong")
    with torch.no_grad():
        answers = model(found.x_adv).argmax(1)
        assert torch.equal(wrong, model(x).argmax(1) != y)
    assert (answers != y)[broken].all()
    assert threat.allows(threat.distance(found.x_adv, x)).all()
    assert found.x_adv.min() >= 0
    assert found.x_adv.max() <= 1
    assert torch.equal(found.x_adv[~broken], x[~broken])
    assert (found.margin[broken | wrong] <= 0).all()
    assert (found.margin[found.are("robust")] > 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("threat", [ThreatModel("linf", 0.03), ThreatModel("l2", 0.2)], ids=str)
@pytest.mark.parametrize("classes", [2, 5])
def test_linear_models_are_decided_exactly(classes, threat, dtype):
    generator = torch.Generator().manual_seed(classes)
    model = linear(torch.randn(classes, 12, generator=generator), torch.randn(classes, generator=generator) / 3, dtype)
    x = torch.rand(60, 12, generator=generator).to(dtype)
    x = x if threat.norm == "linf" else 0.3 + 0.4 * x  # of the L2 ball nothing lies outside the box
    y = torch.randint(classes, (60,), generator=generator)
    y[::2] = model(x).argmax(1)[::2]
    truth, found = linear_margins(model, x, y, threat), verify(model, x, y, threat)
    right = model(x).argmax(1) == y
    expected = ["wrong" if not ok else "robust" if margin > 0 else "broken"
                for ok, margin in zip(right, truth, strict=True)]
    assert list(found.verdicts) == expected
    assert {"wrong", "robust", "broken"} == set(expected)
    torch.testing.assert_close(found.margin[found.are("robust")], truth[found.are("robust")], rtol=1e-5, atol=1e-5)
    check_shown(model, x, y, threat, found)


def test_the_pixel_box_cuts_the_ball():
    """At black pixels nothing can become darker: half of the ball would break it, and that half is outside."""
    model, x, y = linear([[1.0, 1.0], [0.0, 0.0]], [0.05, 0.0]), torch.zeros(1, 2), torch.tensor([0])
    assert verify(model, x, y, ThreatModel("linf", 0.2)).verdicts == ("robust",)
    assert verify(model, x, y, ThreatModel("l2", 0.2)).verdicts == ("robust",)
    assert verify(model, x + 0.3, y, ThreatModel("l2", 0.2)).verdicts == ("robust",)
    assert verify(model, x + 0.3, y, ThreatModel("linf", 0.5)).verdicts == ("robust",)
    assert verify(model, 1 - x, y + 1, ThreatModel("linf", 0.2)).verdicts == ("wrong",)


@pytest.mark.parametrize("seed", range(4))
def test_no_verdict_contradicts_all_patterns_of_a_net(seed):
    net, eps = relu_net(seed), 0.1
    x = torch.rand(8, 3, generator=torch.Generator().manual_seed(seed))
    y = net(x).argmax(1)
    found = verify(net, x, y, ThreatModel("linf", eps))
    for image, (verdict, margin) in enumerate(zip(found.verdicts, found.margin.tolist(), strict=True)):
        truth = exact_margin(net, x[image], int(y[image]), eps)
        assert verdict in (("robust", "unknown") if truth > 0 else ("broken", "unknown"))
        assert margin <= truth + 1e-6 if verdict != "broken" else margin >= truth - 1e-6
    assert found.verdicts.count("unknown") <= 2
    check_shown(net, x, y, ThreatModel("linf", eps), found)


def test_every_verdict_occurs_and_is_right(found):
    model, x, y = problem()
    assert set(found.verdicts) == {"robust", "broken", "wrong", "unknown"}
    assert {"clean", "PGD", "CROWN-IBP", "CROWN", "α-CROWN", "AutoPGD", None} == set(found.decided_by)
    assert all((by == "clean") == (verdict == "wrong") and (by is None) == (verdict == "unknown")
               for verdict, by in zip(found.verdicts, found.decided_by, strict=True))
    check_shown(model, x, y, THREAT, found)


@pytest.mark.parametrize("threat", [THREAT, ThreatModel("l2", 0.1)], ids=str)
def test_what_is_proved_withstands_strong_attacks_and_any_point(threat):
    model, x, y = problem()
    robust = verify(model, x, y, threat).certified
    x, y = x[robust], y[robust]
    assert len(x) >= 8
    assert Quick(threat).run(model, x, y).robust.all()
    assert not PGD(threat, steps=60, restarts=8, loss="margin").run(model, x, y).success.any()
    with torch.no_grad():
        for seed in range(300):
            assert torch.equal(model(threat.random_point(x, seed=seed, index=torch.arange(len(x)))).argmax(1), y)


def test_the_methods_come_in_their_order_and_add_up(found):
    stages = {stage.name: stage for stage in found.stages}
    assert list(stages) == ["clean", "PGD", "IBP", "CROWN-IBP", "CROWN", "α-CROWN", "AutoPGD"]
    left = found.n
    for stage in found.stages:
        assert stage.attempted == left, "each meets what those before it left"
        left -= stage.decided
        assert stage.decided == found.decided_by.count(stage.name)
    assert left == found.verdicts.count("unknown") == 1


def test_without_a_perturbation_what_is_right_is_robust():
    model, x, y = problem()
    found = verify(model, x, y, ThreatModel("linf", 0))
    assert Counter(found.verdicts) == {"robust": 27, "wrong": 3}
    assert set(found.decided_by) == {"clean", "IBP"}
    logits = model(x).detach().double()
    others = logits.scatter(1, y[:, None], -torch.inf).amax(1)
    torch.testing.assert_close(found.margin, logits.gather(1, y[:, None])[:, 0] - others, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(verify(model, x, y, ThreatModel("l2", 0)).margin, found.margin)


def test_a_tie_is_not_robust():
    """The answer is the first of two equal scores, by chance and not for a reason."""
    tied = linear([[1.0, 2.0], [1.0, 2.0]], [0.0, 0.0])
    for eps in (0.0, 0.1):
        assert verify(tied, torch.tensor([[0.3, 0.4]]), torch.tensor([0]), ThreatModel("linf", eps)).verdicts == \
            ("unknown",)
    nothing = linear(torch.zeros(3, 2), [0.0, 0.0, 0.0])
    assert verify(nothing, torch.rand(2, 2), torch.tensor([0, 1]), THREAT).verdicts == ("unknown", "wrong")


def test_a_batch_may_be_empty_or_one(found):
    model, x, y = problem()
    empty = verify(model, x[:0], y[:0], THREAT)
    assert len(empty) == 0
    assert empty.x_adv.shape == (0, 1, 4, 4)
    assert empty.verdicts == ()
    for image in (0, 1, 2, 3):
        alone = verify(model, x[image:image + 1], y[image:image + 1], THREAT, index=torch.tensor([image]))
        assert alone.verdicts[0] == found.verdicts[image]
        torch.testing.assert_close(alone.margin[0], found.margin[image], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("how", ["in small batches", "in another order", "without the others", "asked twice"])
def test_a_verdict_belongs_to_its_image(found, how):
    model, x, y = problem()
    order, more = torch.arange(len(x)), {}
    if how == "in small batches":
        more = {"batch_size": 7}
    elif how == "in another order":
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    elif how == "without the others":
        order = order[1::3]
    again = verify(model, x[order], y[order], THREAT, index=order, **more)
    assert again.verdicts == tuple(found.verdicts[k] for k in order)
    assert again.decided_by == tuple(found.decided_by[k] for k in order)
    torch.testing.assert_close(again.margin, found.margin[order], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(again.x_adv, found.x_adv[order], rtol=0, atol=1e-5)


def seen(model, x, y):
    """Everything of the user's that could be touched."""
    return (copy.deepcopy(model.state_dict()), [part.training for part in model.modules()],
            [(p.requires_grad, None if p.grad is None else p.grad.tolist()) for p in model.parameters()], x.clone(),
            y.clone(), torch.get_rng_state(), torch.is_grad_enabled())


def same(before, after):
    return all(torch.equal(before[0][name], after[0][name]) for name in before[0]) and before[1:3] == after[1:3] and \
        all(torch.equal(before[k], after[k]) for k in (3, 4, 5)) and before[6] == after[6]


def users_problem():
    """With dropout and batch norm in training mode, a frozen parameter and gradients."""
    model, x, y = problem()
    model = nn.Sequential(nn.BatchNorm2d(1), nn.Dropout(0.2), *model).train()
    model[2].bias.requires_grad_(False)
    model[3].eval()
    model[5].weight.grad = torch.ones(12, 64)
    return model, x[:8], y[:8]


def test_the_users_things_are_as_they_were():
    model, x, y = users_problem()
    before = seen(model, x, y)
    verify(model, x, y, THREAT)
    assert same(before, seen(model, x, y))


@pytest.mark.parametrize(("owner", "method"), [(ProofStep, "_margins"), (PGD, "run")])
def test_also_after_an_exception(monkeypatch, owner, method):
    def broken(*args, **more):
        raise RuntimeError("out of luck")

    model, x, y = users_problem()
    monkeypatch.setattr(owner, method, broken)
    before = seen(model, x, y)
    with pytest.raises(RuntimeError, match="out of luck"):
        verify(model, x, y, THREAT)
    assert same(before, seen(model, x, y))


def test_a_claim_of_an_attack_counts_only_when_it_is_confirmed(monkeypatch):
    """Here PGD lies: it calls every image broken."""
    run = PGD.run

    def lie(self, model, x, y, **more):
        result = run(self, model, x, y, **more)
        return replace(result, success=torch.ones_like(result.success), x_adv=x.clone(),
                       distance=torch.zeros_like(result.distance))

    monkeypatch.setattr(PGD, "run", lie)
    model, x, y = problem()
    found = verify(model, x, y, THREAT)
    assert "PGD" not in found.decided_by
    check_shown(model, x, y, THREAT, found)


def test_a_model_without_a_gradient_can_still_be_proved():
    """No attack can begin on it; bounds do not care."""
    def model(z):
        return 4 * z.detach()[:, :3]

    x = torch.tensor([[0.9, 0.1, 0.5, 0.0], [0.5, 0.51, 0.1, 0.0]])
    found = verify(model, x, torch.tensor([0, 1]), ThreatModel("linf", 0.05))
    assert found.verdicts == ("robust", "unknown")
