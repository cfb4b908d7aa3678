"""What every attack inside a threat model promises, run for each attack × norm × dtype × targeted.

A new attack joins by one line in ATTACKS. What an attack's own code keeps or breaks is tried on each of them; what
`Attack.run` keeps for all, on one for each way in which a model can be asked.
"""

import dataclasses
import math
import weakref

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
from robustness_lib.attacks import FGSM, PGD, Attack, AutoPGD, SquareAttack, Transfer


def surrogate(z):
    return Net(seed=0).to(z.dtype).eval()(z)


ATTACKS = {
    "fgsm": lambda threat, **options: FGSM(threat, **options),
    "pgd": lambda threat, **options: PGD(threat, steps=10, restarts=2, **options),
    "pgd-margin": lambda threat, **options: PGD(threat, **{"steps": 10, "loss": "margin", **options}),
    "auto-pgd": lambda threat, **options: AutoPGD(threat, **{"steps": 10, "restarts": 2, **options}),
    "auto-pgd-dlr": lambda threat, **options: AutoPGD(threat, **{"steps": 10, "loss": "dlr", **options}),
    "auto-pgd-t": lambda threat, **options: AutoPGD(threat, **{"steps": 10, "loss": "targeted-dlr", **options}),
    "square": lambda threat, **options: SquareAttack(threat, **{"queries": 300, **options}),
    "transfer": lambda threat, **options: Transfer(threat, surrogate, **options),
}
# FGSM has no random start and takes one step, and Transfer's is not on the victim: some promises are about starts.
RANDOM = [name for name in ATTACKS if name not in ("fgsm", "transfer")]
NO_GRADIENTS = ("square", "transfer")

each_attack = pytest.mark.parametrize("name", ATTACKS)
# Promises that no attack keeps by itself: `run` checks what it is given and cuts the batches, `frozen` switches
# autograd on and puts the model back, `QueriedModel` looks at every answer. It is enough to ask by gradients, by
# answers alone, and by way of another attack's `run`.
each_way_of_asking = pytest.mark.parametrize("name", ["pgd", "square", "transfer"])
takes_gradients = pytest.mark.parametrize("name", [name for name in ATTACKS if name not in NO_GRADIENTS])
each_norm = pytest.mark.parametrize("norm", ["linf", "l2"])
each_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
each_goal = pytest.mark.parametrize("targeted", [False, True])


def threat_of(norm):
    return ThreatModel(norm, 0.06 if norm == "linf" else 0.35)


@each_attack
def test_no_attack_has_a_run_of_its_own(name):
    """What `each_way_of_asking` rests on: one that has belongs into that list."""
    own = type(ATTACKS[name](threat_of("linf")))
    for shared in ("__call__", "run", "_begin", "_default_batch_size"):
        assert getattr(own, shared) is getattr(Attack, shared)


@each_attack
@each_norm
@each_dtype
@each_goal
@pytest.mark.parametrize("stop", ["success", "never"])
def test_results_are_inside_and_say_the_truth(name, norm, dtype, targeted, stop):
    model, x, y, target = problem(dtype, targeted=targeted)
    threat = threat_of(norm)
    result = ATTACKS[name](threat, stop=stop).run(model, x, y, target)
    x_adv = result.x_adv
    assert x_adv.shape == x.shape
    assert x_adv.dtype == dtype
    assert x_adv.device == x.device
    assert not x_adv.requires_grad
    assert (threat.distance(x_adv, x) <= threat.eps * (1 + 1e-5) + 1e-6).all()
    assert ((x_adv >= 0) & (x_adv <= 1)).all()
    torch.testing.assert_close(result.distance, threat.distance(x_adv, x))
    with torch.no_grad():
        predicted = model(x_adv).argmax(1)
    truth = predicted == target if targeted else predicted != y
    assert torch.equal(result.success, truth)
    assert result.success.sum() >= 4  # the problem is breakable ...
    if stop == "success":
        assert result.queries.max() > result.queries.min()  # ... and not equally for all


@each_attack
@each_norm
@each_goal
def test_already_successful_examples_come_back_untouched(name, norm, targeted):
    model, x, y, target = problem(targeted=targeted)
    result = ATTACKS[name](threat_of(norm)).run(model, x, y, target)
    done = torch.arange(3, 5) if targeted else torch.arange(3)
    assert torch.equal(result.x_adv[done], x[done])
    assert result.success[done].all()
    assert (result.queries[done] == 1).all()
    assert (result.gradients[done] == 0).all()


@each_attack
@each_norm
@pytest.mark.parametrize("stop", ["success", "never"])
def test_zero_eps_returns_x(name, norm, stop):
    model, x, y, _ = problem()
    assert torch.equal(ATTACKS[name](ThreatModel(norm, 0), stop=stop)(model, x, y), x)


@each_attack
@each_norm
@pytest.mark.parametrize("stop", ["success", "never"])
def test_results_do_not_depend_on_the_batch(name, norm, stop):
    """float64, where a convolution over another batch size gives the same signs."""
    model, x, y, _ = problem(torch.float64)
    attack = ATTACKS[name](threat_of(norm), stop=stop)
    whole = attack.run(model, x, y)
    pieces = attack.run(model, x, y, batch_size=7)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(3))
    shuffled = attack.run(model, x[order], y[order], index=order)
    for other, rows in ((pieces, slice(None)), (shuffled, order)):
        torch.testing.assert_close(other.x_adv, whole.x_adv[rows], atol=1e-9, rtol=0)
        assert torch.equal(other.success, whole.success[rows])
        assert torch.equal(other.queries, whole.queries[rows])


@pytest.mark.parametrize("name", RANDOM)
def test_the_same_index_and_seed_give_the_same_numbers_and_others_give_others(name):
    model, x, y, _ = problem()
    x, y = x[5:7].repeat(2, 1, 1, 1), y[5:7].repeat(2)
    attack = ATTACKS[name](ThreatModel("linf", 0.01), stop="never")
    same = attack(model, x, y, index=torch.tensor([4, 9, 4, 9]))
    assert torch.equal(same[:2], same[2:])
    starts = []
    attack.run(model, x, y, on_step=lambda s: starts.append(s.x_adv) if s.step == 0 else None)
    assert not torch.equal(starts[0][:2], starts[0][2:])  # default index: other examples
    reseeded = []
    dataclasses.replace(attack, seed=1).run(
        model, x, y, on_step=lambda s: reseeded.append(s.x_adv) if s.step == 0 else None)
    assert not torch.equal(starts[0], reseeded[0])


@each_way_of_asking
@pytest.mark.parametrize("mode", ["eval", "keep"])
@pytest.mark.parametrize("fails", [False, True])
def test_the_model_is_as_it_was(name, mode, fails):
    check_the_model_is_as_it_was(ATTACKS[name](threat_of("linf"), mode=mode), fails_at=2 if fails else None)


@each_way_of_asking
def test_the_model_is_attacked_in_eval_mode_unless_told_otherwise(name):
    check_the_mode(ATTACKS[name](threat_of("linf")), ATTACKS[name](threat_of("linf"), mode="keep"))


@each_attack
def test_no_draw_from_the_global_generator(name):
    check_no_global_draw(ATTACKS[name](threat_of("l2")))


@each_way_of_asking
def test_a_stochastic_models_own_draws_advance(name):
    model, x, y, _ = problem()
    torch.manual_seed(11)
    before = torch.get_rng_state()
    ATTACKS[name](threat_of("linf")).run(lambda z: model(z + 0.01 * torch.randn_like(z)), x, y)
    assert not torch.equal(torch.get_rng_state(), before)


@each_way_of_asking
def test_it_works_with_autograd_switched_off_by_the_caller(name):
    check_it_works_with_autograd_off(ATTACKS[name](threat_of("linf")))


@each_way_of_asking
def test_an_empty_batch_returns_empty(name):
    model, x, y, _ = problem()
    result = ATTACKS[name](threat_of("linf")).run(model, x[:0], y[:0])
    assert result.x_adv.shape == (0, 3, 8, 6)
    assert len(result.success) == len(result.distance) == len(result.queries) == result.calls == 0


@each_way_of_asking
def test_a_batch_is_let_go_before_the_next_travels(name):
    """Of images that travel to a device, its memory holds one batch at a time."""
    model, x, y, _ = problem()
    parts, travelled, alive = torch.split(x, 8), [], []

    def watch(z):
        if any(torch.equal(z, part) for part in parts):  # the first answer on a batch is that on its clean images
            alive.append(sum(ref() is not None for ref in travelled))
            travelled.append(weakref.ref(z))
        return model(z)

    ATTACKS[name](threat_of("linf")).run(watch, x, y, batch_size=8)
    assert alive == [0, 0, 0]


@each_attack
def test_the_inputs_are_not_written_to(name):
    model, x, y, _ = problem()
    x_before, y_before = x.clone(), y.clone()
    ATTACKS[name](threat_of("linf")).run(model, x, y)
    assert torch.equal(x, x_before)
    assert torch.equal(y, y_before)


@each_way_of_asking
@pytest.mark.parametrize("case", bad_inputs())
@pytest.mark.parametrize("stop", ["success", "never"])
def test_wrong_input_is_refused_in_words(name, case, stop):
    if name in NO_GRADIENTS and case in ("detached", "constant"):
        return  # nothing is wrong with these for an attack that takes no gradients
    arguments, error, words = bad_inputs()[case]
    with pytest.raises(error, match=words):
        ATTACKS[name](threat_of("linf"), stop=stop).run(*arguments)


@each_attack
@pytest.mark.parametrize(("options", "error", "words"), [
    ({"loss": "dlr2"}, ValueError, "loss must be"),
    ({"stop": "first"}, ValueError, "stop must be"),
    ({"mode": "train"}, ValueError, "mode must be"),
])
def test_wrong_settings_are_refused_in_words(name, options, error, words):
    with pytest.raises(error, match=words):
        ATTACKS[name](threat_of("linf"), **options)


def test_a_threat_model_is_needed():
    with pytest.raises(TypeError, match="ThreatModel"):
        FGSM(8 / 255)


@each_way_of_asking
def test_a_wrong_start_index_or_batch_size_is_refused(name):
    model, x, y, _ = problem()
    attack = ATTACKS[name](threat_of("linf"))
    with pytest.raises(ValueError, match="start"):
        attack.run(model, x, y, start=x[:2])
    with pytest.raises(ValueError, match="start contains NaN"):
        attack.run(model, x, y, start=x * torch.nan)
    with pytest.raises(TypeError, match="start must be a tensor"):
        attack.run(model, x, y, start=[0])
    with pytest.raises(TypeError, match="index must be"):
        attack.run(model, x, y, index=[0])
    with pytest.raises(TypeError, match="whole number"):
        attack.run(model, x, y, batch_size=2.0)
    with pytest.raises(ValueError, match="index"):
        attack.run(model, x, y, index=torch.arange(3))
    with pytest.raises(ValueError, match="batch_size"):
        attack.run(model, x, y, batch_size=0)


@each_attack
def test_nan_answers_never_count_as_success_and_nan_gradients_never_leave_the_ball(name):
    result = attacked_where_only_clean_images_have_answers(ATTACKS[name](threat_of("linf")))
    assert [w.kind for w in result.warnings] == ["not a number"]
    assert f"{len(result.x_adv) - 3} of {len(result.x_adv)}" in result.warnings[0].message


@pytest.mark.parametrize("name", [name for name in ATTACKS if name != "transfer"])  # whose one answer is its first
def test_nan_that_only_the_last_answer_holds_is_reported(name):
    model, x, y, _ = problem()
    calls = []

    def fails_at_the_end(z):
        calls.append(1)
        return model(z) * (torch.nan if len(calls) == last else 1)

    attack = ATTACKS[name](ThreatModel("linf", 1e-4), stop="never")
    last = -1
    attack.run(fails_at_the_end, x, y)
    last, _ = len(calls), calls.clear()
    assert [w.kind for w in attack.run(fails_at_the_end, x, y).warnings] == ["not a number"]


@takes_gradients
def test_nan_gradients_are_reported(name):
    model, x, y, _ = problem()
    result = ATTACKS[name](threat_of("linf")).run(lambda z: model(z) + 0 * (0 * z).sum((1, 2, 3)).sqrt()[:, None], x, y)
    assert "not a number" in [w.kind for w in result.warnings]
    assert not result.x_adv.isnan().any()


@takes_gradients
@each_norm
def test_a_pixel_whose_slope_is_no_number_does_not_hold_up_the_others(name, norm):
    threat = threat_of(norm)

    def model(z):
        nothing = (z[:, 0] - z[:, 0]).abs().sqrt()  # 0, with NaN for its slope
        score = 0.5 + 0.9 * threat.eps - z[:, 1] + nothing  # hardly any start is that far out
        return torch.cat([torch.stack([score, -score], 1), torch.tensor([-1.0, -2, -3]).expand(len(z), 3)], 1)

    result = ATTACKS[name](threat).run(model, torch.full((4, 3), 0.5), torch.zeros(4, dtype=torch.int64))
    assert result.success.all()


@takes_gradients
@each_norm
def test_gradients_that_share_their_memory_are_fine(name, norm):
    """The gradient of a sum is one number, spread over the image without being copied."""
    x, y = torch.rand(4, 3, 5, 5), torch.tensor([0, 1, 0, 1])
    result = ATTACKS[name](threat_of(norm)).run(
        lambda z: torch.stack([z.sum((1, 2, 3)), *(k * torch.ones(len(z)) for k in (37.5, 1, 0))], 1), x, y)
    assert result.x_adv.shape == x.shape


@each_way_of_asking
@pytest.mark.parametrize("stop", ["success", "never"])
def test_a_model_that_changes_its_input_is_refused_and_leaves_the_callers_alone(name, stop):
    model, x, y, _ = problem()
    before = x.clone()
    with pytest.raises((ValueError, RuntimeError), match=r"in-place|in place"):
        ATTACKS[name](threat_of("linf"), stop=stop).run(lambda z: model(z.sub_(0.1)), x, y)
    assert torch.equal(x, before)


@each_way_of_asking
def test_results_carry_no_graph(name):
    model, x, y, _ = problem()
    result = ATTACKS[name](threat_of("linf")).run(model, x.clone().requires_grad_(), y)
    assert not result.x_adv.requires_grad
    assert not result.distance.requires_grad


@each_way_of_asking
@pytest.mark.parametrize("mode", ["eval", "keep"])
def test_buffers_that_a_model_replaces_are_put_back(name, mode):
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = Net()
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, z):
            self.calls = self.calls + 1
            return self.net(z)

    _, x, y, _ = problem()
    model = Counting()
    ATTACKS[name](threat_of("linf"), mode=mode).run(model, x, y)
    assert model.calls == 0


@each_attack
@each_norm
def test_an_eps_beyond_the_box_is_no_weaker(name, norm):
    """An island of error in the middle of nowhere: found at ε = 1, so it must be found at ε = 100."""
    model, x, y, _ = problem(torch.float64)
    broken = [int(ATTACKS[name](ThreatModel(norm, eps)).run(model, x, y).success.sum())
              for eps in (math.sqrt(x[0].numel()), 1e4, 1e200)]
    assert broken[0] == broken[1] == broken[2]


@each_way_of_asking
def test_float64_images_on_a_float32_model_are_explained(name):
    model, x, y, _ = problem()
    with pytest.raises(TypeError, match=r"x\.float\(\), or model\.double\(\)"):
        ATTACKS[name](threat_of("linf")).run(model, x.double(), y)


def test_parts_that_fit_the_cache_give_what_one_batch_gives():
    model, x, y, _ = problem(torch.float64)
    x, y = x.repeat(150, 1, 1, 1), y.repeat(150)  # 3,600 images of 144 values
    sizes = []
    model.register_forward_hook(lambda module, inputs, output: sizes.append(len(inputs[0])))
    attack = FGSM(threat_of("linf"))
    parts = attack(model, x, y)
    assert 2000 < max(sizes) < 3600
    torch.testing.assert_close(parts, attack(model, x, y, batch_size=len(x)), atol=1e-9, rtol=0)
    sizes.clear()
    attack.run(model, x, y, on_step=lambda step: None)
    assert max(sizes) == 3600


@each_way_of_asking
def test_in_train_mode_all_images_travel_together(name):
    """There the images of a batch depend on each other, so that where it is cut matters."""
    model, x, y, _ = problem()
    sizes = set()
    model.train().register_forward_pre_hook(lambda module, inputs: sizes.add(len(inputs[0])))
    attack = ATTACKS[name](threat_of("linf"), mode="keep", stop="never")
    fewer = {"steps": 1} if name == "pgd" else {"queries": 2} if name == "square" else {}
    dataclasses.replace(attack, **fewer).run(model, x.repeat(150, 1, 1, 1), y.repeat(150))
    assert sizes == {3600}


@each_way_of_asking
def test_labels_of_every_batch_are_checked_before_any_work(name):
    model, x, y, _ = problem()
    y[-1] = 7
    seen = []
    model.register_forward_hook(lambda *_: seen.append(1))
    with pytest.raises(ValueError, match=r"0 \.\.\. 4"):
        ATTACKS[name](threat_of("linf")).run(model, x, y, batch_size=5)
    assert len(seen) <= 1 + 11 * (name == "transfer")


@each_attack
def test_a_model_that_computes_in_another_precision_is_attacked_in_the_images_own(name):
    model, x, y, _ = problem()
    double = problem(torch.float64)[0]
    result = ATTACKS[name](threat_of("linf")).run(lambda z: double(z.double()), x, y)
    assert result.x_adv.dtype == torch.float32
    assert (result.success != ATTACKS[name](threat_of("linf")).run(model, x, y).success).sum() <= 1


@pytest.mark.cuda
@takes_gradients
def test_no_step_waits_for_the_device(name):
    """Where nobody can finish, nothing is asked of the device between the first model call and the last."""
    model, x, y, _ = problem()
    model, calls = model.cuda(), []

    def watch(*_):
        calls.append(1)
        torch.cuda.set_sync_debug_mode("error" if 2 < len(calls) < last else "default")

    attack, last = ATTACKS[name](threat_of("linf"), stop="never"), 0
    model.register_forward_pre_hook(watch)
    try:
        attack.run(model, x.cuda(), y.cuda())
        last, _ = len(calls), calls.clear()
        attack.run(model, x.cuda(), y.cuda())
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.cuda
@each_attack
def test_batches_travel_to_the_models_device(name):
    model, x, y, _ = problem(torch.float64)
    expected = ATTACKS[name](threat_of("linf")).run(model, x, y)
    result = ATTACKS[name](threat_of("linf")).run(model.cuda(), x, y, batch_size=7)
    assert result.x_adv.device == x.device
    torch.testing.assert_close(result.x_adv, expected.x_adv, atol=1e-9, rtol=0)


@each_way_of_asking
def test_images_left_outside_by_rounding_are_clamped_in_a_copy_and_it_is_said_once(name):
    model, x, y, _ = problem()
    x = x.clamp(0.1, 0.9)
    plain = ATTACKS[name](threat_of("linf")).run(model, x, y)
    given = x.clone()
    given[2, 0, 0, 0], given[7, 0, 0, 0], given[7, 1, 1, 1] = -3e-8, 1.0000001, 1.0000005
    before = given.clone()
    for size in (None, 5):
        result = ATTACKS[name](threat_of("linf")).run(model, given, y, batch_size=size)
        (note,) = [warning for warning in result.warnings if warning.kind == "clamped"]
        assert note.rows == (2, 7)
        assert "2 of 24 images" in note.message
        assert ((result.x_adv >= 0) & (result.x_adv <= 1)).all()
        assert threat_of("linf").allows(threat_of("linf").distance(result.x_adv, given.clamp(0, 1))).all()
    assert torch.equal(given, before)
    assert [w for w in plain.warnings if w.kind == "clamped"] == []
