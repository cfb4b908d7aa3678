"""Objectives against their formulas, written out here in plain torch and float64: values and gradients."""

import copy
import importlib

import pytest
import torch
import torch.nn.functional as F
from shared_problems import problem, same, snapshot

from robustness_lib import ThreatModel, counter_random
from robustness_lib.attacks import PGD
from robustness_lib.training import (
    TRADES,
    FastFGSM,
    GaussianAugmentation,
    Objective,
    PGDTraining,
    SmoothAdversarial,
    Standard,
)

LINF, L2 = ThreatModel("linf", 0.05), ThreatModel("l2", 0.5)
INDEX = torch.arange(100, 124)
SEED = 3
ADVERSARIAL = {
    "fgsm": FastFGSM(LINF),
    "fgsm-l2": FastFGSM(L2),
    "pgd": PGDTraining(LINF, steps=3),
    "pgd-l2": PGDTraining(L2, steps=3, step_size=0.2),
    "trades": TRADES(LINF, steps=3),
    "trades-l2": TRADES(L2, steps=3, step_size=0.2, beta=2),
    "smoothadv": SmoothAdversarial(L2, 0.25, samples=2, steps=3, step_size=0.2),
}
ALL = {"standard": Standard(), "gaussian": GaussianAugmentation(0.25), **ADVERSARIAL}
each = pytest.mark.parametrize("objective", ALL.values(), ids=ALL)
each_adversarial = pytest.mark.parametrize("objective", ADVERSARIAL.values(), ids=ADVERSARIAL)


def net():
    """A net with batch norm and dropout in train mode, 24 images, labels (the first three answered wrong)."""
    model, x, y, _ = problem(torch.float64)
    return model.train(), x, y


def asked(model):
    """What the model will be shown, in order: (train mode?, images)."""
    calls = []
    model.register_forward_pre_hook(lambda module, inputs: calls.append((module.training, inputs[0].detach().clone())))
    return calls


def gradients(loss, model):
    return torch.autograd.grad(loss, list(model.parameters()))


def value_and_gradients(objective, model, x, y):
    torch.manual_seed(0)  # the dropout
    loss = objective(model, x, y, index=INDEX, seed=SEED)
    return loss.detach(), gradients(loss, model)


def agree(objective, by_hand):
    """The same value, parameter gradients and batch-norm statistics."""
    model, x, y = net()
    twin = copy.deepcopy(model)
    loss, found = value_and_gradients(objective, model, x, y)
    torch.manual_seed(0)
    value = by_hand(twin, x, y)
    assert loss.shape == ()
    torch.testing.assert_close(loss, value.detach(), rtol=1e-9, atol=1e-12)
    for a, b in zip(found, gradients(value, twin), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-10)
    for a, b in zip(model.buffers(), twin.buffers(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def mean_cross_entropy(logits, y, smoothing=0.0):
    classes = logits.shape[1]
    target = (1 - smoothing) * F.one_hot(y, classes).double() + smoothing / classes
    log_p = logits - logits.exp().sum(1, keepdim=True).log()
    return -(target * log_p).sum(1).mean()


def kl(from_logits, to_logits):
    p, q = from_logits.softmax(1), to_logits.softmax(1)
    return (p * (p / q).log()).sum(1)


def input_gradient(loss, x):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(loss(x).sum(), x)[0]


def steepest(threat, gradient, size):
    if threat.norm == "linf":
        return size * gradient.sign()
    return size * gradient / gradient.flatten(1).norm(dim=1)[:, None, None, None]


def noise(x):
    return counter_random.bulk_normal(x.shape[1:], seed=SEED, index=INDEX, dtype=x.dtype)


def draws(x, count):
    """(count, N, ...), the draws of an image one after the other from its own stream."""
    numbers = counter_random.bulk_normal((count, *x.shape[1:]), seed=SEED, index=INDEX, dtype=x.dtype)
    return [numbers[:, draw] for draw in range(count)]


def start_in_the_ball(threat, x):
    if threat.norm == "l2":
        return threat.random_point(x, seed=SEED, index=INDEX)
    u = counter_random.bulk_uniform(x.shape[1:], seed=SEED, index=INDEX, dtype=x.dtype)
    low, high = (x - threat.eps).clamp(0, 1), (x + threat.eps).clamp(0, 1)
    return low + u * (high - low)


def climb(threat, loss, x, x_adv, steps, size):
    """PGD by hand: of all points that were visited, each image's worst."""
    best, worst = x_adv.clone(), torch.full((len(x),), -torch.inf, dtype=x.dtype)
    for step in range(steps + 1):
        with torch.no_grad():
            value = loss(x_adv)
        better = value > worst
        best[better], worst[better] = x_adv[better], value[better]
        if step < steps:
            x_adv = threat.project(x_adv + steepest(threat, input_gradient(loss, x_adv), size), x)
    return best


def in_eval_mode(model):
    return copy.deepcopy(model).eval().requires_grad_(False)


# The formulas.


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
def test_standard(smoothing):
    agree(Standard(label_smoothing=smoothing), lambda model, x, y: mean_cross_entropy(model(x), y, smoothing))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_gaussian_noise(smoothing):
    agree(GaussianAugmentation(0.25, label_smoothing=smoothing),
          lambda model, x, y: mean_cross_entropy(model(x + 0.25 * noise(x)), y, smoothing))


def test_gaussian_noise_is_not_clipped_to_the_box():
    model, x, y = net()
    calls = asked(model)
    GaussianAugmentation(0.25)(model, x, y, index=INDEX, seed=SEED)
    [(_, shown)] = calls
    assert shown.equal(x + 0.25 * noise(x))
    assert shown.min() < -0.1
    assert shown.max() > 1.1


@pytest.mark.parametrize("share", [1.25, 0.5, 3.0])
@pytest.mark.parametrize("threat", [LINF, L2], ids=["linf", "l2"])
def test_fast_fgsm(threat, share):
    def by_hand(model, x, y):
        still = in_eval_mode(model)
        start = start_in_the_ball(threat, x)
        gradient = input_gradient(lambda z: F.cross_entropy(still(z), y, reduction="none"), start)
        x_adv = start + steepest(threat, gradient, share * threat.eps)
        if threat.norm == "linf":
            x_adv = torch.minimum(torch.maximum(x_adv, x - threat.eps), x + threat.eps).clamp(0, 1)
        else:
            x_adv = threat.project(x_adv, x)
        return mean_cross_entropy(model(x_adv), y, 0.1)

    agree(FastFGSM(threat, step_share=share, label_smoothing=0.1), by_hand)


@pytest.mark.parametrize(("threat", "step_size"), [(LINF, None), (LINF, 0.02), (L2, None), (L2, 0.2)])
def test_pgd_training(threat, step_size):
    def by_hand(model, x, y):
        still = in_eval_mode(model)
        x_adv = climb(threat, lambda z: F.cross_entropy(still(z), y, reduction="none"), x,
                      start_in_the_ball(threat, x), 4, step_size or 2.5 * threat.eps / 4)
        return mean_cross_entropy(model(x_adv), y, 0.1)

    agree(PGDTraining(threat, steps=4, step_size=step_size, label_smoothing=0.1), by_hand)


def trades_by_hand(threat, beta, step_size=None, steps=4, smoothing=0.0, detached=False):
    def by_hand(model, x, y):
        still = in_eval_mode(model)
        clean = still(x)
        x_adv = climb(threat, lambda z: kl(clean, still(z)), x, (x + 0.001 * noise(x)).clamp(0, 1), steps,
                      step_size or 2.5 * threat.eps / steps)
        logits = model(x)
        near = kl(logits.detach() if detached else logits, model(x_adv))
        return mean_cross_entropy(logits, y, smoothing) + beta * near.mean()

    return by_hand


@pytest.mark.parametrize(("threat", "step_size"), [(LINF, None), (LINF, 0.02), (L2, None), (L2, 0.2)])
def test_trades(threat, step_size):
    agree(TRADES(threat, beta=6, steps=4, step_size=step_size, label_smoothing=0.1),
          trades_by_hand(threat, 6, step_size, smoothing=0.1))


@pytest.mark.parametrize("threat", [LINF, L2], ids=["linf", "l2"])
def test_trades_goes_back_through_the_clean_branch_too(threat):
    """With that branch detached the value is the same and the gradient another one."""
    model, x, y = net()
    twin = copy.deepcopy(model)
    loss, found = value_and_gradients(TRADES(threat, beta=6, steps=4), model, x, y)
    torch.manual_seed(0)
    detached = trades_by_hand(threat, 6, detached=True)(twin, x, y)
    torch.testing.assert_close(loss, detached.detach())
    ours, theirs = (torch.cat([g.flatten() for g in of]) for of in (found, gradients(detached, twin)))
    assert (ours - theirs).norm() > 0.1 * theirs.norm()


def test_trades_with_beta_0_is_standard_training():
    model, x, y = net()
    twin = copy.deepcopy(model)
    loss, found = value_and_gradients(TRADES(LINF, beta=0, steps=1, label_smoothing=0.1), model, x, y)
    standard, expected = value_and_gradients(Standard(label_smoothing=0.1), twin, x, y)
    assert loss.equal(standard)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)


def test_the_attack_inside_trades_does_not_look_at_labels():
    shown = []
    for shift in (0, 1):
        model, x, y = net()
        calls = asked(model)
        TRADES(LINF, steps=3)(model, x, (y + shift) % 5, index=INDEX, seed=SEED)
        shown.append(calls[-1][1])
    assert shown[0].equal(shown[1])


@pytest.mark.parametrize(("samples", "step_size", "smoothing"), [(1, None, 0.0), (3, None, 0.1), (3, 0.2, 0.0)])
def test_smooth_adversarial_training(samples, step_size, smoothing):
    def by_hand(model, x, y):
        still, noise = in_eval_mode(model), [0.25 * draw for draw in draws(x, samples)]

        def loss(z):
            p = torch.stack([still(z + draw).softmax(1) for draw in noise]).mean(0)
            return -p[torch.arange(len(y)), y].log()

        x_adv = climb(L2, loss, x, x, 4, step_size or 2.5 * L2.eps / 4)
        return mean_cross_entropy(model(torch.cat([x_adv + draw for draw in noise])), y.repeat(samples), smoothing)

    agree(SmoothAdversarial(L2, 0.25, samples=samples, steps=4, step_size=step_size, label_smoothing=smoothing),
          by_hand)


def test_smooth_adversarial_training_against_nobody_is_gaussian_noise():
    agree(SmoothAdversarial(ThreatModel("l2", 0.0), 0.25, label_smoothing=0.1),
          lambda model, x, y: mean_cross_entropy(model(x + 0.25 * noise(x)), y, 0.1))


def test_kl_divergence():
    kl_divergence = importlib.import_module("robustness_lib.training.objectives").kl_divergence
    p, q = (10 * torch.randn(500, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(s)) for s in (1, 2))
    expected = F.kl_div(q.log_softmax(1), p.log_softmax(1), log_target=True, reduction="none").sum(1)
    torch.testing.assert_close(kl_divergence(p, q), expected)
    assert (kl_divergence(p, q) >= 0).all()
    assert not kl_divergence(p, q).allclose(kl_divergence(q, p))
    torch.testing.assert_close(kl_divergence(p, p + 3), torch.zeros(500, dtype=torch.float64), rtol=0, atol=1e-12)


# What the model sees.


@pytest.mark.parametrize(("objective", "in_eval", "in_train"), [
    (Standard(), 0, 1), (GaussianAugmentation(0.1), 0, 1), (FastFGSM(LINF), 1, 1),
    (PGDTraining(LINF, steps=3), 4, 1),  # a gradient for each step, and a look at where the last one ends
    (TRADES(LINF, steps=3), 5, 2),  # the same, after one clean pass
    (TRADES(LINF, steps=6), 8, 2),
    (SmoothAdversarial(L2, 0.25, samples=2, steps=3), 4, 1),  # all draws in one pass
])
def test_the_attack_sees_eval_mode_and_the_step_train_mode(objective, in_eval, in_train):
    model, x, y = net()
    calls, inside = asked(model), []
    model.body[1].register_forward_hook(lambda module, *_: inside.append(module.training))
    model.body[4].register_forward_hook(lambda module, *_: inside.append(module.training))
    before = int(model.body[1].num_batches_tracked)
    objective(model, x, y, index=INDEX, seed=SEED).backward()
    assert [training for training, _ in calls] == [False] * in_eval + [True] * in_train
    assert inside == [False] * 2 * in_eval + [True] * 2 * in_train
    assert int(model.body[1].num_batches_tracked) - before == in_train
    assert model.training


def test_where_trades_looks():
    model, x, y = net()
    calls = asked(model)
    TRADES(LINF, steps=2)(model, x, y, index=INDEX, seed=SEED)
    shown = [images for _, images in calls]
    assert shown[0].equal(x)
    torch.testing.assert_close(shown[1], (x + 0.001 * noise(x)).clamp(0, 1), rtol=0, atol=1e-15)
    assert shown[-2].equal(x)
    assert not shown[-1].equal(x)


@each_adversarial
def test_it_trains_on_images_inside_the_threat(objective):
    model, x, y = net()
    calls = asked(model)
    objective(model, x, y, index=INDEX, seed=SEED)
    shown, rounding = calls[-1][1], 0.0
    if isinstance(objective, SmoothAdversarial):  # the noise is no part of the change
        shown, other = (part - objective.sigma * draw
                        for part, draw in zip(shown.split(len(x)), draws(x, 2), strict=True))
        torch.testing.assert_close(shown, other)
        rounding = 1e-12
    distance = objective.threat.distance(shown, x)
    assert (distance <= objective.threat.eps * (1 + 1e-5) + 1e-6).all()
    assert (distance > 0.9 * objective.threat.eps).sum() > 12
    assert shown.min() >= -rounding
    assert shown.max() <= 1 + rounding


def test_an_image_that_is_already_wrong_still_takes_all_its_steps():
    """An attack that stops at success would train against a weaker attacker."""
    model, x, y = net()
    model.eval()  # the loss is then that of the images alone
    calls = asked(model)
    loss = PGDTraining(LINF, steps=5)(model, x, y, index=INDEX, seed=SEED)
    shown = calls[-1][1]
    stopped = PGD(LINF, steps=5, seed=SEED)(model, x, y, index=INDEX)
    weaker = F.cross_entropy(model(stopped), y, reduction="none")
    stronger = F.cross_entropy(model(shown), y, reduction="none")
    wrong = model(x).argmax(1) != y
    assert wrong.sum() == 3
    assert stopped[wrong].equal(x[wrong])  # the other attack did not touch them
    assert (stronger[wrong] > weaker[wrong] + 0.01).all()
    torch.testing.assert_close(loss, stronger.mean())
    assert loss > weaker.mean() + 0.01


@pytest.mark.parametrize(("objective", "call"), [
    (GaussianAugmentation(0.1), 0), (FastFGSM(LINF), 0), (FastFGSM(L2), 0), (PGDTraining(LINF, steps=1), 0),
    (PGDTraining(L2, steps=1), 0), (TRADES(LINF, steps=1), 1), (SmoothAdversarial(L2, 0.25, steps=1), 0),
])
def test_random_numbers_follow_image_and_seed(objective, call):
    def starts(rows, index=INDEX, seed=SEED):
        model, x, y = net()
        calls = asked(model)
        objective(model, x[rows], y[rows], index=None if index is None else index[rows], seed=seed)
        return calls[call][1]

    whole, order = torch.arange(24), torch.randperm(24, generator=torch.Generator().manual_seed(5))
    usual = starts(whole)
    assert starts(order).equal(usual[order])
    assert starts(order[:5]).equal(usual[order[:5]])
    assert not (starts(whole, seed=SEED + 1) == usual).flatten(1).all(1).any()
    assert not (starts(whole, INDEX + 100) == usual).flatten(1).all(1).any()
    assert starts(whole, None).equal(starts(whole, whole))


# What it leaves as it was.


@each
def test_the_model_is_as_it_was(objective):
    model, x, y = net()
    model.body[4].eval()  # a mixed state, to be restored module by module
    model.body[0].weight.requires_grad_(False)
    F.cross_entropy(model(x), y).backward()  # gradients that belong to the caller
    model.body[1].momentum = 0.0  # the statistics stay, so that everything can be compared but the counter
    before = snapshot(model)
    loss = objective(model, x, y)
    model.body[1].num_batches_tracked.copy_(before[0]["body.1.num_batches_tracked"])
    assert same(snapshot(model), before)
    loss.backward()
    assert model.body[0].weight.grad is None


@each
def test_no_draw_from_the_global_generator(objective):
    model, x, y = net()
    model.body[4].p = 0.0
    model.body[4].eval()
    torch.manual_seed(11)
    before = torch.get_rng_state()
    objective(model, x, y)
    assert torch.equal(torch.get_rng_state(), before)


@each_adversarial
def test_an_exception_inside_leaves_the_model_as_it_was(objective):
    model, x, y = net()
    before = snapshot(model)

    def explode(module, inputs):
        raise RuntimeError("out of luck")

    model.body[2].register_forward_pre_hook(explode)
    with pytest.raises(RuntimeError, match="out of luck"):
        objective(model, x, y)
    assert same(snapshot(model), before)


# A share of ε, for the ramp.


def test_a_share_of_epsilon():
    assert Standard(label_smoothing=0.1).with_share(0.5) == Standard(label_smoothing=0.1)
    assert GaussianAugmentation(0.5).with_share(0.5) == GaussianAugmentation(0.25)
    assert FastFGSM(LINF, step_share=2).with_share(0.5) == FastFGSM(ThreatModel("linf", 0.025), step_share=2)
    assert PGDTraining(LINF, steps=3).with_share(0.5) == PGDTraining(ThreatModel("linf", 0.025), steps=3)
    for kind in (PGDTraining, TRADES):
        half = kind(L2, steps=3, step_size=0.2, label_smoothing=0.1).with_share(0.5)
        assert half == kind(ThreatModel("l2", 0.25), steps=3, step_size=0.1, label_smoothing=0.1)
    assert TRADES(LINF, beta=2).with_share(1.0) == TRADES(LINF, beta=2)
    half = SmoothAdversarial(L2, 0.25, samples=2, steps=3, step_size=0.2).with_share(0.5)
    assert half == SmoothAdversarial(ThreatModel("l2", 0.25), 0.25, samples=2, steps=3, step_size=0.1)


# Bad input.


@pytest.mark.parametrize(("make", "error", "words"), [
    (lambda: Standard(label_smoothing=1.0), ValueError, r"label_smoothing must lie in \[0, 1\); found 1"),
    (lambda: Standard(label_smoothing=-0.1), ValueError, "label_smoothing"),
    (lambda: GaussianAugmentation(0), ValueError, "sigma must be positive; found 0"),
    (lambda: GaussianAugmentation(float("nan")), ValueError, "sigma"),
    (lambda: GaussianAugmentation(0.1, label_smoothing=2), ValueError, "label_smoothing"),
    (lambda: FastFGSM(8 / 255), TypeError, r'ThreatModel\("linf", 8/255\)'),
    (lambda: FastFGSM(LINF, step_share=0), ValueError, "step_share must be positive"),
    (lambda: FastFGSM(LINF, label_smoothing=1), ValueError, "label_smoothing"),
    (lambda: PGDTraining("linf:0.1"), TypeError, "threat"),
    (lambda: PGDTraining(LINF, steps=0), ValueError, "steps must be at least 1"),
    (lambda: PGDTraining(LINF, steps=2.5), TypeError, "steps must be a whole number"),
    (lambda: PGDTraining(LINF, step_size=-1), ValueError, "step_size"),
    (lambda: TRADES(None), TypeError, "threat"),
    (lambda: TRADES(LINF, beta=-1), ValueError, "beta must be 0 or more; found -1"),
    (lambda: TRADES(LINF, beta=float("nan")), ValueError, "beta"),
    (lambda: TRADES(LINF, steps=0), ValueError, "steps"),
    (lambda: TRADES(LINF, step_size=-1), ValueError, "step_size"),
    (lambda: SmoothAdversarial(0.5, 0.25), TypeError, "threat"),
    (lambda: SmoothAdversarial(LINF, 0.25), ValueError, r"certifies L2 balls.*found L∞ 0.05"),
    (lambda: SmoothAdversarial(L2, 0), ValueError, "sigma must be positive; found 0"),
    (lambda: SmoothAdversarial(L2, 0.25, samples=0), ValueError, "samples must be at least 1; found 0"),
    (lambda: SmoothAdversarial(L2, 0.25, samples=1.5), TypeError, "samples must be a whole number"),
    (lambda: SmoothAdversarial(L2, 0.25, steps=0), ValueError, "steps"),
    (lambda: SmoothAdversarial(L2, 0.25, step_size=-1), ValueError, "step_size"),
    (lambda: SmoothAdversarial(L2, 0.25, label_smoothing=1), ValueError, "label_smoothing"),
    (lambda: Objective(), TypeError, "abstract"),
])
def test_wrong_settings_are_refused(make, error, words):
    with pytest.raises(error, match=words):
        make()


@pytest.mark.parametrize("objective", [GaussianAugmentation(0.1), *ADVERSARIAL.values()],
                         ids=["gaussian", *ADVERSARIAL])
def test_wrong_indices_are_refused(objective):
    model, x, y = net()
    with pytest.raises(ValueError, match="index must be int64 of shape"):
        objective(model, x, y, index=INDEX[:3])


@pytest.mark.parametrize("objective", [ADVERSARIAL["pgd"], ADVERSARIAL["trades"], ADVERSARIAL["smoothadv"]],
                         ids=["pgd", "trades", "smoothadv"])
def test_images_outside_the_box_are_refused(objective):
    model, x, y = net()
    with pytest.raises(ValueError, match="normalization outside the model"):
        objective(model, 4 * x - 2, y)


@pytest.mark.parametrize("sigma", ["0.25", None, True])
def test_a_sigma_that_is_no_number_is_refused(sigma):
    with pytest.raises(TypeError, match="sigma must be a number"):
        GaussianAugmentation(sigma)
    with pytest.raises(TypeError, match="sigma must be a number"):
        SmoothAdversarial(ThreatModel("l2", 0.25), sigma)
