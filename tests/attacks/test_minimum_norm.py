"""What every minimum-norm attack promises, run for each attack × dtype × targeted.

A new attack joins by one line in ATTACKS. What an attack's own code keeps or breaks is tried on each of them; what
`Attack.run` keeps for all (test_promises.py says which that is), on one for each way in which a model can be asked.
"""

import dataclasses

import pytest
import torch
from shared_problems import (
    Net,
    attacked_where_only_clean_images_have_answers,
    bad_inputs,
    check_it_works_with_autograd_off,
    check_no_global_draw,
    check_the_mode,
    check_the_model_is_as_it_was,
    problem,
)
from torch import nn

from robustness_lib import ThreatModel
from robustness_lib.attacks import Attack
from robustness_lib.attacks.carlini_wagner import CarliniWagnerL2
from robustness_lib.attacks.fab import FAB

ATTACKS = {
    "fab-linf": lambda **options: FAB("linf", steps=10, **options),
    "fab-l2": lambda **options: FAB("l2", **{"steps": 10, "restarts": 2, **options}),
    "fab-within": lambda **options: FAB("linf", steps=10, stop_within=0.02, **options),
    "cw": lambda **options: CarliniWagnerL2(search_steps=4, steps=25, initial_c=0.1, lr=0.05, **options),
}
NORM = {name: "l2" if name in ("fab-l2", "cw") else "linf" for name in ATTACKS}

each_attack = pytest.mark.parametrize("name", ATTACKS)
# One of each of the two: neither has a way of asking that the other lacks.
each_way_of_asking = pytest.mark.parametrize("name", ["fab-linf", "cw"])
each_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
each_goal = pytest.mark.parametrize("targeted", [False, True])


@each_attack
def test_no_attack_has_a_run_of_its_own(name):
    """What `each_way_of_asking` rests on: one that has belongs into that list."""
    own = type(ATTACKS[name]())
    for shared in ("__call__", "run", "_begin", "_default_batch_size"):
        assert getattr(own, shared) is getattr(Attack, shared)


def unbeatable(z):
    """Class 0 whatever comes, with a gradient that says otherwise."""
    score = z.flatten(1).sum(1)
    return torch.stack([score + 1000, score * 2], 1)


@each_attack
@each_dtype
@each_goal
def test_results_are_in_the_box_and_say_the_truth(name, dtype, targeted):
    model, x, y, target = problem(dtype, targeted=targeted)
    result = ATTACKS[name]().run(model, x, y, target)
    x_adv = result.x_adv
    assert x_adv.shape == x.shape
    assert x_adv.dtype == dtype
    assert x_adv.device == x.device
    assert not x_adv.requires_grad
    assert ((x_adv >= 0) & (x_adv <= 1)).all()
    with torch.no_grad():
        predicted = model(x_adv).argmax(1)
    assert torch.equal(result.success, predicted == target if targeted else predicted != y)
    assert result.success.sum() > 12
    assert result.distance.dtype == torch.float64
    measured = ThreatModel(NORM[name], 0).distance(x_adv, x)
    torch.testing.assert_close(result.distance, torch.where(result.success, measured, torch.inf))


@each_attack
@each_goal
def test_already_successful_examples_come_back_untouched(name, targeted):
    model, x, y, target = problem(targeted=targeted)
    result = ATTACKS[name]().run(model, x, y, target)
    done = torch.arange(3, 5) if targeted else torch.arange(3)
    assert torch.equal(result.x_adv[done], x[done])
    assert result.success[done].all()
    assert (result.distance[done] == 0).all()
    assert (result.queries[done] == 1).all()
    assert (result.gradients[done] == 0).all()
    assert (result.distance > 0).sum() == len(x) - len(done)


@each_attack
@each_dtype
def test_failure_returns_x_at_infinite_distance(name, dtype):
    x, y = torch.rand(5, 3, 4, 4, dtype=dtype), torch.tensor([0, 0, 1, 0, 0])
    result = ATTACKS[name]().run(unbeatable, x, y)
    assert torch.equal(result.x_adv, x)
    assert result.success.tolist() == [False, False, True, False, False]
    assert result.distance.tolist() == [torch.inf, torch.inf, 0, torch.inf, torch.inf]


@each_attack
@each_goal
def test_results_do_not_depend_on_the_batch(name, targeted):
    """float64, where a convolution over another batch size gives the same steps; Adam divides tiny gradients by their
    size, and magnifies what rounding differs."""
    model, x, y, target = problem(torch.float64, targeted=targeted)
    attack = ATTACKS[name]()
    whole = attack.run(model, x, y, target)
    pieces = attack.run(model, x, y, target, batch_size=7)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(3))
    shuffled = attack.run(model, x[order], y[order], target[order] if targeted else None, index=order)
    alone = attack.run(model, x[9:10], y[9:10], target[9:10] if targeted else None, index=torch.tensor([9]))
    for other, rows in ((pieces, slice(None)), (shuffled, order), (alone, [9])):
        torch.testing.assert_close(other.x_adv, whole.x_adv[rows], atol=1e-5 if name == "cw" else 1e-9, rtol=0)
        assert torch.equal(other.success, whole.success[rows])
        assert torch.equal(other.queries, whole.queries[rows])
        assert torch.equal(other.gradients, whole.gradients[rows])


@each_attack
def test_the_nearest_success_that_was_seen_is_returned(name):
    model, x, y, _ = problem(torch.float64)
    attack, steps = ATTACKS[name](), []
    if name == "fab-within":
        attack = dataclasses.replace(attack, stop_within=None)
    result = attack.run(model, x, y, on_step=steps.append)
    threat, nearest = ThreatModel(NORM[name], 0), torch.full((len(x),), torch.inf, dtype=torch.float64)
    nearest[:3] = 0
    for s in steps:
        with torch.no_grad():
            assert torch.equal(s.success, model(s.x_adv).argmax(1) != y[s.rows])
        distance = threat.distance(s.x_adv, x[s.rows]).masked_fill(~s.success, torch.inf)
        nearest[s.rows] = torch.minimum(nearest[s.rows], distance)
    # An example whose loss no longer falls under its c takes no further part in that round, but may still be shown.
    if name == "cw":
        assert (result.distance >= nearest * (1 - 1e-9)).all()
    else:
        torch.testing.assert_close(result.distance, nearest)


@each_way_of_asking
@pytest.mark.parametrize("mode", ["eval", "keep"])
@pytest.mark.parametrize("fails", [False, True])
def test_the_model_is_as_it_was(name, mode, fails):
    check_the_model_is_as_it_was(ATTACKS[name](mode=mode), fails_at=5 if fails else None)


@each_way_of_asking
def test_the_model_is_attacked_in_eval_mode_unless_told_otherwise(name):
    check_the_mode(ATTACKS[name](), ATTACKS[name](mode="keep"))


@each_attack
def test_no_draw_from_the_global_generator(name):
    check_no_global_draw(ATTACKS[name]())


@each_way_of_asking
def test_it_works_with_autograd_switched_off_by_the_caller(name):
    check_it_works_with_autograd_off(ATTACKS[name]())


@each_attack
def test_an_empty_batch_and_one_that_is_all_wrong_cost_nothing(name):
    model, x, y, _ = problem()
    result = ATTACKS[name]().run(model, x[:0], y[:0])
    assert result.x_adv.shape == (0, 3, 8, 6)
    assert len(result.success) == len(result.distance) == len(result.queries) == result.calls == 0
    result = ATTACKS[name]().run(model, x[:3], y[:3])
    assert result.calls == 1
    assert result.distance.tolist() == [0, 0, 0]


@each_attack
def test_neither_the_inputs_nor_what_an_observer_holds_are_written_to(name):
    model, x, y, _ = problem()
    start = (x + 0.1).clamp(0, 1)
    before, held = [t.clone() for t in (x, y, start)], []
    ATTACKS[name]().run(model, x, y, start=start, on_step=lambda s: held.append((s.x_adv, s.x_adv.clone())))
    assert all(torch.equal(a, b) for a, b in zip((x, y, start), before, strict=True))
    assert all(torch.equal(a, b) for a, b in held)
    flat = nn.Sequential(nn.Unflatten(1, (3, 8, 6)), model)  # no copy on the way to the observer here
    held.clear()
    ATTACKS[name]().run(flat, x.flatten(1), y, on_step=lambda s: held.append((s.x_adv, s.x_adv.clone())))
    assert all(torch.equal(a, b) for a, b in held)


@each_way_of_asking
@pytest.mark.parametrize("case", bad_inputs())
def test_wrong_input_is_refused_in_words(name, case):
    arguments, error, words = bad_inputs()[case]
    with pytest.raises(error, match=words):
        ATTACKS[name]().run(*arguments)


@each_attack
def test_a_wrong_mode_or_start_is_refused(name):
    model, x, y, _ = problem()
    with pytest.raises(ValueError, match="mode must be"):
        ATTACKS[name](mode="train")
    with pytest.raises(ValueError, match="start"):
        ATTACKS[name]().run(model, x, y, start=x[:2])
    with pytest.raises(ValueError, match="start contains NaN"):
        ATTACKS[name]().run(model, x, y, start=x * torch.nan)


@each_attack
def test_nan_answers_never_count_and_are_reported(name):
    result = attacked_where_only_clean_images_have_answers(ATTACKS[name]())
    assert "not a number" in [w.kind for w in result.warnings]


@each_attack
@pytest.mark.parametrize("size", [torch.nan, torch.inf, 1e30, 1e-30])
def test_gradients_beyond_all_bounds_leave_no_nan(name, size):
    """The gradient is NaN, infinite, enormous or tiny; the answers are as they should be."""
    model, x, y, _ = problem()

    def odd(z):
        z = z.clone()
        if z.requires_grad:
            z.register_hook(lambda gradient: gradient * size)
        return model(z)

    points = []
    result = ATTACKS[name]().run(odd, x, y, on_step=lambda s: points.append(s.x_adv))
    assert not any(p.isnan().any() for p in points)
    assert not result.x_adv.isnan().any()
    if size == 1e-30 and name != "cw":  # C&W's c cannot make up for that; a projection need not
        assert result.success.sum() > 12


@each_attack
def test_a_model_without_gradient_is_reported(name):
    model, x, y, _ = problem()
    result = ATTACKS[name]().run(lambda z: model((z * 0).add(0.5)), x, y)
    assert "zero gradient" in [w.kind for w in result.warnings] or result.success.all()


@each_attack
def test_gradients_that_share_their_memory_are_fine(name):
    x, y = torch.rand(4, 3, 5, 5), torch.tensor([0, 1, 0, 1])
    result = ATTACKS[name]().run(lambda z: torch.stack([z.sum((1, 2, 3)), 37.5 * torch.ones(len(z))], 1), x, y)
    assert result.success.sum() >= 2


@each_attack
@pytest.mark.parametrize("shape", [(7,), (1, 5), (3, 4, 6), (2, 3, 4, 2)])
def test_images_of_any_shape(name, shape):
    g = torch.Generator().manual_seed(5)
    x = torch.rand((9, *shape), generator=g)
    w = torch.randn((x[0].numel(), 3), generator=g)

    def model(z):
        return 3 * (z.flatten(1) - 0.5) @ w

    y = model(x).argmax(1)
    result = ATTACKS[name]().run(model, x, y)
    assert result.x_adv.shape == x.shape
    assert result.success.sum() >= 6


@pytest.mark.cuda
@each_attack
def test_batches_travel_to_the_models_device(name):
    model, x, y, _ = problem(torch.float64)
    expected = ATTACKS[name]().run(model, x, y)
    result = ATTACKS[name]().run(model.cuda(), x, y, batch_size=7)
    assert result.x_adv.device == x.device
    torch.testing.assert_close(result.distance, expected.distance, atol=1e-4, rtol=1e-3)


def test_the_shared_problem_is_one():
    """Some images are wrong at first, the rest right: else the promises above promise little."""
    model, x, y, _ = problem()
    assert isinstance(model, Net)
    assert (model(x).argmax(1) != y).tolist() == [True] * 3 + [False] * (len(x) - 3)
