import math
from fractions import Fraction

import pytest
import torch
from planted import FAULTS, Before, Scaled, plant
from shared_problems import Counting
from test_reference_models import load
from torch import nn

from robustness_lib import ThreatModel, data
from robustness_lib.attacks import PGD, SquareAttack
from robustness_lib.diagnosis.masked_gradients import diagnose, judge
from robustness_lib.diagnosis.observations import (
    POINTS,
    QUERIES,
    RESTARTS,
    RESTARTS_AGAIN,
    STEPS,
    join_observations,
    observe,
)
from robustness_lib.models import load_pretrained

LINF, L2 = ThreatModel("linf", 8 / 255), ThreatModel("l2", 1.0)


def kinds(findings):
    return {finding.kind for finding in findings}


def signs(name="signs-tiny-standard", n=48):
    x, y, _ = data.load("signs", n=n)
    return load_pretrained(name), x, y


# What must be named

def check_that_it_is_named(fault, threat):
    model, x, y = signs()
    torch.manual_seed(0)
    findings = diagnose(plant(fault, model), x, y, threat)
    must = FAULTS[fault][1]
    assert must <= kinds(findings)
    if must in ({"no gradient"}, {"outputs vary"}):
        assert kinds(findings) == must  # nothing else is said of what explains it all
    if "noise in the gradient" in fault:
        assert "outputs vary" not in kinds(findings)
    for finding in findings:
        assert finding.p < 0.01
        assert finding.effect >= 0.02
        assert 0 < finding.images <= finding.of == 48
        assert str(finding.images) in finding.message
        assert "{" not in finding.message


@pytest.mark.parametrize("fault", FAULTS)
def test_each_planted_fault_is_named(fault):
    check_that_it_is_named(fault, LINF)


@pytest.mark.parametrize("fault", ["logits × 1e4", "flipped", "gradient for stored images", "shattered"])
def test_in_l2_too(fault):
    check_that_it_is_named(fault, L2)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("threat", [LINF, L2], ids=str)
@pytest.mark.parametrize("fault", FAULTS)
def test_each_planted_fault_is_named_over_five_seeds(fault, threat, seed):
    model, x, y = signs(n=100)
    torch.manual_seed(seed)
    assert FAULTS[fault][1] <= kinds(diagnose(plant(fault, model), x, y, threat, seed=seed))


def test_random_points_find_what_a_blind_attack_does_not():
    model, x, y = signs()
    assert "random search ahead" in kinds(diagnose(Scaled(model, 1e8), x, y, LINF.with_eps(0.15)))


def test_a_surrogate_finds_what_a_blind_attack_does_not():
    model, x, y = signs()
    blind = Scaled(model, 1e8)
    assert "transfer ahead" in kinds(diagnose(blind, x, y, LINF, surrogate=load_pretrained("signs-tiny-standard")))
    assert "transfer" not in observe(blind, x, y, LINF)
    assert diagnose(model, x, y, LINF, surrogate=load_pretrained("signs-tiny-pgd")) == ()


def test_a_detached_model_is_still_tried_without_gradients():
    model, x, y = signs()
    evidence = observe(plant("detached", model), x, y, LINF)
    assert set(evidence) == {"label", "right", "varied", "detached", "square", "random"}
    assert evidence["square"].sum() > 10
    (finding,) = judge(evidence)
    assert f"Square broke {int(evidence['square'].sum())} " in finding.message
    assert (finding.p, finding.effect, finding.images, finding.of) == (0.0, 1.0, 48, 48)


# Where nothing may be said

HONEST = [("signs", "signs-tiny-standard"), ("signs", "signs-tiny-pgd"), ("moons", "moons-standard")]


# Two of the five seeds; the others with `-m slow`.
@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (2, 3, 4))])
@pytest.mark.parametrize(("source", "name"), HONEST)
def test_silent_on_honest_models(source, name, seed):
    x, y, _ = data.load(source, n=48)
    small = 2 if source == "moons" else 3 * 32 * 32
    model = load_pretrained(name)
    for threat in (LINF, ThreatModel("l2", 4 / 255 * math.sqrt(small))):
        assert diagnose(model, x, y, threat, seed=seed) == ()


@pytest.mark.parametrize("name", ["signs-standard", "signs-pgd"])
def test_silent_on_the_larger_nets(name):
    model, x, y = signs(name)
    assert diagnose(model, x, y, LINF, seed=1) == ()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", ["signs-tiny-standard", "signs-tiny-pgd", "signs-standard", "signs-pgd"])
def test_silent_at_every_eps(name, seed):
    model, x, y = signs(name, n=200)
    for threat in (LINF.with_eps(1 / 255), LINF, LINF.with_eps(16 / 255), L2.with_eps(0.25), L2):
        assert diagnose(model, x, y, threat, seed=seed) == ()


def silent_on_mnist(model, threats, seed, n):
    x, y, _ = data.load("mnist", n=n)
    for threat in threats:
        assert diagnose(model, x, y, threat, seed=seed) == ()


def test_silent_on_published_nets(reference_models, real_data):
    silent_on_mnist(load(reference_models, "wk17a")[0], [LINF.with_eps(0.1), L2], 0, 60)
    silent_on_mnist(load(reference_models, "trades")[0], [LINF.with_eps(0.3)], 0, 24)
    silent_on_mnist(load_pretrained("mnist-standard"), [LINF.with_eps(0.1)], 0, 40)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_silent_on_published_nets_over_five_seeds(reference_models, real_data, seed):
    for name, eps in (("wk17a", 0.1), ("trades", 0.3)):
        silent_on_mnist(load(reference_models, name)[0], [LINF.with_eps(eps), L2.with_eps(1.5)], seed, 200)
    silent_on_mnist(load_pretrained("mnist-standard"), [LINF.with_eps(0.1), LINF.with_eps(0.3), L2], seed, 200)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_silent_on_other_precisions(dtype):
    model, x, y = signs("signs-tiny-pgd")
    model.to(dtype)
    honest = model if dtype == torch.float64 else Before(model, lambda z: z.to(dtype))
    assert diagnose(honest, x.double() if dtype == torch.float64 else x, y, LINF) == ()


def test_dropout_that_evaluation_switches_off_is_no_fault():
    model, x, y = signs()
    training = nn.Sequential(nn.Dropout(0.1), model).train()
    assert diagnose(training, x, y, LINF) == ()
    assert training[0].training
    assert "outputs vary" in kinds(diagnose(training, x, y, LINF, mode="keep"))


# The tests behind the findings

def columns(n, **hits):
    """Evidence of n images, all right, classes 0 to 9 in turn; the first `hits` of each column show it. A pair counts
    from there to there."""
    names = ("varied", "detached", "zero", "not_a_number", "flat", "fgsm", "pgd", "again", "square", "random", "grey")
    evidence = {name: torch.zeros(n, dtype=torch.bool) for name in names}
    for name, hit in hits.items():
        first, last = hit if isinstance(hit, tuple) else (0, hit)
        evidence.setdefault(name, torch.zeros(n, dtype=torch.bool))[first:last] = True
    return {"label": torch.arange(n) % 10, "right": torch.ones(n, dtype=torch.bool), **evidence}


def at_least(k, n, share):
    """P(X ≥ k) of a binomial X, in fractions."""
    share = Fraction(share).limit_denominator(1000)
    return float(sum(math.comb(n, i) * share**i * (1 - share) ** (n - i) for i in range(k, n + 1)))


@pytest.mark.parametrize(("name", "kind"), [("fgsm", "one step ahead"), ("square", "black box ahead"),
                                            ("random", "random search ahead"), ("transfer", "transfer ahead")])
def test_ahead_is_a_sign_test_with_a_floor(name, kind):
    control = "pgd" if name == "fgsm" else "again"
    for n, theirs, ours, raised in [(100, 6, 0, False), (100, 7, 0, True), (350, 7, 0, True), (351, 7, 0, False),
                                    (100, 9, 1, False), (100, 10, 1, True), (1000, 40, 22, False),
                                    (1000, 41, 20, True), (100, 0, 30, False)]:
        # Five images that both break decide nothing.
        hits = {name: theirs + 5, control: (theirs, theirs + 5 + ours)}
        findings = judge(columns(n, **hits))
        assert kinds(findings) == ({kind} if raised else set()), (n, theirs, ours)
        for finding in findings:
            assert finding.p == pytest.approx(at_least(theirs, theirs + ours, 0.5))
            assert finding.effect == pytest.approx((theirs - ours) / n)
            assert (finding.images, finding.of) == (theirs, n)
            assert f" {ours} that" in finding.message


@pytest.mark.parametrize(("name", "kind", "share"), [
    ("varied", "outputs vary", 0.01), ("zero", "zero gradients", 0.01), ("flat", "flat along the gradient", 0.05),
    ("not_a_number", "gradients not a number", 0.01)])
def test_shares_are_held_against_what_may_happen_by_accident(name, kind, share):
    for n in (2, 50, 100, 1000):
        raised = [hits for hits in range(n + 1) if judge(columns(n, **{name: hits}))]
        assert raised == list(range(raised[0], n + 1))
        first = raised[0]
        assert at_least(first, n, share) < 0.01
        assert (first - share * n) / n >= 0.02
        assert at_least(first - 1, n, share) >= 0.01 or (first - 1 - share * n) / n < 0.02
        (finding,) = judge(columns(n, **{name: first}))
        assert finding.kind == kind
        assert finding.p == pytest.approx(at_least(first, n, share))
        assert finding.effect == pytest.approx((first - share * n) / n)


def test_flatness_is_not_asked_of_answers_that_vary_nor_gradients_of_images_that_are_wrong():
    assert kinds(judge(columns(100, varied=100, flat=100))) == {"outputs vary"}
    evidence = columns(100, zero=50, not_a_number=50, flat=50)
    evidence["right"][:50] = False
    assert judge(evidence) == ()
    assert kinds(judge(columns(100, zero=50))) == {"zero gradients"}


def test_standing_at_one_half_is_held_against_the_largest_class():
    assert judge(columns(100, grey=10)) == ()
    assert judge(columns(100, grey=18)) == ()
    (finding,) = judge(columns(100, grey=19))
    assert finding.kind == "stands at ε = .5"
    assert finding.p == pytest.approx(at_least(19, 100, 0.1))
    assert finding.effect == pytest.approx(0.09)
    assert "10 of 100 images" in finding.message
    one_class = columns(100, grey=100) | {"label": torch.zeros(100, dtype=torch.int64)}
    assert judge(one_class) == ()
    wrong_ones_count_too = columns(100, grey=19)
    wrong_ones_count_too["label"][60:] = 3
    wrong_ones_count_too["right"][60:] = False
    assert judge(wrong_ones_count_too) == ()


def test_a_model_that_detaches_on_some_images_is_judged_on_the_others():
    kept = ("label", "right", "varied", "detached", "square", "random")
    detached = columns(50, detached=50, square=10)
    whole = join_observations([columns(50, square=10), {name: detached[name] for name in kept}])
    assert set(whole) == set(columns(1))
    found = {finding.kind: finding for finding in judge(whole)}
    assert set(found) == {"no gradient", "black box ahead"}
    assert found["no gradient"].images == 50
    assert found["black box ahead"].images == 10
    assert found["black box ahead"].effect == 0.1


def test_the_grave_comes_first():
    everything = columns(100, varied=100, detached=50, zero=100, fgsm=(50, 100), square=(50, 100), grey=(50, 100))
    assert [finding.kind for finding in judge(everything)] == [
        "no gradient", "outputs vary", "zero gradients", "one step ahead", "black box ahead", "stands at ε = .5"]


# Evidence

def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(("threat", "factor"), [(LINF, 1), (LINF, 300), (L2, 60)], ids=str)
def test_evidence_follows_the_index_and_not_the_cut(threat, factor):
    model, x, y = signs(n=40)
    model, x, index = Scaled(model.double(), factor), x.double(), torch.arange(1000, 1040)
    surrogate = load_pretrained("signs-tiny-pgd").double()
    whole = observe(model, x, y, threat, index=index, seed=3, surrogate=surrogate)
    parts = [observe(model, x[part], y[part], threat, index=index[part], seed=3, batch_size=size, surrogate=surrogate)
             for part, size in ((slice(0, 7), 3), (slice(7, 25), None), (slice(25, 40), 20))]
    assert same(join_observations(parts), whole)
    assert judge(join_observations(parts)) == judge(whole)
    assert bool(judge(whole)) == (factor > 1)
    assert all(column.shape == (40,) for column in whole.values())
    assert all(column.dtype == (torch.int64 if name == "label" else torch.bool) for name, column in whole.items())


def test_other_numbers_other_luck():
    model, x, y = signs(n=40)
    blind, index = Scaled(model, 60), torch.arange(40)
    columns = [observe(blind, x, y, LINF, index=index + first, seed=seed)["square"]
               for first, seed in ((0, 0), (0, 0), (0, 1), (40, 0))]
    assert torch.equal(columns[0], columns[1])
    assert not torch.equal(columns[0], columns[2])
    assert not torch.equal(columns[0], columns[3])


def test_an_answer_that_is_no_number_breaks_nothing():
    model, x, y = signs(n=8)

    def broken(z):
        moved = (z[:, None] - x).flatten(2).abs().amax(2).amin(1) > 0
        return torch.where(moved[:, None], torch.nan, model(z))

    evidence = observe(broken, x, y, LINF)
    assert evidence["right"].any()
    assert not any(evidence[name].any() for name in ("fgsm", "pgd", "again", "square", "random"))


def test_two_seeds_share_no_numbers(monkeypatch):
    model, x, y = signs(n=8)
    used = {0: set(), 1: set()}
    for kind in (PGD, SquareAttack):
        monkeypatch.setattr(kind, "run", lambda self, *args, of=kind.run, **options: (
            used[seed].add((type(self).__name__, self.seed)), of(self, *args, **options))[1])
    for seed in used:
        observe(model, x, y, LINF, seed=seed)
    assert len(used[0]) == len(used[1]) == 4
    assert len({number for _, number in used[0] | used[1]}) == 8


def test_what_is_tried_on_whom():
    model, x, y = signs("signs-tiny-pgd")
    evidence = observe(Scaled(model, 300), x, y, LINF, surrogate=model)
    wrong, broken = ~evidence["right"], evidence["pgd"]
    assert wrong.any()
    assert broken.any()
    for name in evidence.keys() - {"label", "right", "varied"}:
        assert not (evidence[name] & wrong).any(), name
    for name in ("again", "square", "random", "transfer"):
        assert not (evidence[name] & broken).any(), name
    assert torch.equal(evidence["label"], y)


class Flat(nn.Module):
    """Wrong beyond a plane, and without a gradient: PGD stays where it starts, and is right where it starts rightly."""

    def forward(self, z):
        weight = torch.randn(z[0].numel(), generator=torch.Generator().manual_seed(0)) / z[0].numel() ** 0.5
        beyond = (z - 0.5).flatten(1) @ weight > 1.2 * 0.1 / 3**0.5  # of the starts within .1: about one in nine
        return torch.stack([torch.zeros(len(z)), 2.0 * beyond - 1], 1) + 0 * z.flatten(1)[:, :1]


def test_the_control_starts_elsewhere():
    """From the same starts it would find nothing, and whatever else finds a few would look better than it is."""
    x, y = torch.full((60, 3, 8, 8), 0.5), torch.zeros(60, dtype=torch.long)
    evidence = observe(Flat(), x, y, ThreatModel("linf", 0.1))
    assert evidence["again"].sum() >= 5


class Stubborn(nn.Module):
    """Right on class 0 whatever is done, and not without a gradient."""

    def forward(self, z):
        slope = z.flatten(1).sum(1)
        return torch.stack([100 - slope, slope], 1)


def test_what_it_costs():
    x, y = torch.rand((4, 3, 4, 4), generator=torch.Generator().manual_seed(0)) / 10, torch.zeros(4, dtype=torch.int64)
    counting = Counting(Stubborn())
    assert observe(counting, x, y, LINF)["grey"].all()
    gradients = 2 + 1 + STEPS * (RESTARTS + RESTARTS_AGAIN + 1)
    assert counting.backwards == gradients == 183
    # Two looks; two steps; FGSM's clean and last pass; of each PGD a clean pass and each last iterate; Square's too.
    others = 2 + 2 + 2 + (1 + RESTARTS) + (1 + RESTARTS_AGAIN) + 2 + (1 + QUERIES) + 2 * POINTS
    assert counting.forwards == gradients + others == 183 + 267
    assert 3 * gradients + others < 2.7 * (3 * 5 * STEPS + 6)


def test_the_model_the_images_and_the_generator_are_as_they_were():
    (model, x, y), surrogate = signs(n=20), load_pretrained("signs-tiny-pgd")
    before, state = x.clone(), {name: value.clone() for name, value in model.state_dict().items()}
    model.train()
    torch.manual_seed(5)
    generator = torch.get_rng_state()
    diagnose(model, x, y, LINF, surrogate=surrogate)
    assert torch.equal(x, before)
    assert model.training
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), generator)


@pytest.mark.parametrize("mode", ["eval", "keep"])
def test_the_mode_holds_for_every_look(mode):
    model, x, y = signs(n=8)
    model.train()
    seen = set()
    model.register_forward_pre_hook(lambda module, inputs: seen.add(module.training))
    diagnose(model, x, y, LINF.with_eps(1 / 255), mode=mode, surrogate=load_pretrained("signs-tiny-pgd"))
    assert seen == {mode == "keep"}


def test_certainty_is_not_flatness():
    """At 4 times the logits cross-entropy rounds to 0 here and after a step; its slope is still the right one."""
    model, x, y = signs()
    evidence = observe(Scaled(model, 4), x, y, LINF)
    assert not evidence["flat"].any()
    assert evidence["zero"].sum() < 5


def test_it_works_with_autograd_off():
    model, x, y = signs(n=20)
    expected = observe(model, x, y, LINF)
    with torch.no_grad():
        assert same(observe(model, x, y, LINF), expected)
    with torch.inference_mode():
        assert same(observe(model, x.clone(), y.clone(), LINF), expected)


def test_nothing_to_look_at():
    model, x, y = signs(n=4)
    assert diagnose(model, x[:0], y[:0], LINF) == ()
    assert judge({}) == ()
    assert judge(join_observations([])) == ()
    wrong = observe(model, x, (y + 1) % 10, LINF)
    assert not wrong["right"].any()
    assert judge(wrong) == ()
    assert diagnose(model, x, y, LINF.with_eps(0.0)) == ()


@pytest.mark.parametrize(("change", "error", "words"), [
    ({"x": lambda x: 255 * x}, ValueError, "255"),
    ({"x": lambda x: 4 * x - 2}, ValueError, "normalization outside the model"),
    ({"y": lambda x: torch.zeros(4)}, TypeError, "int64"),
    ({"y": lambda x: torch.full((4,), 10)}, ValueError, "0 ... 9"),
    ({"index": lambda x: torch.arange(3)}, ValueError, "index"),
    ({"batch_size": lambda x: 0}, ValueError, "batch_size"), ({"seed": lambda x: 0.5}, TypeError, "seed"),
    ({"threat": lambda x: 0.1}, TypeError, "ThreatModel"), ({"mode": lambda x: "train"}, ValueError, "mode"),
    ({"model": lambda x: lambda z: z}, ValueError, "as_classifier"),
    ({"surrogate": lambda x: 3}, TypeError, "surrogate"),
])
def test_wrong_input_is_refused_in_words(change, error, words):
    model, x, y = signs(n=4)
    arguments = {"model": model, "x": x, "y": y, "threat": LINF}
    arguments |= {name: alter(x) for name, alter in change.items()}
    with pytest.raises(error, match=words):
        diagnose(**arguments)
