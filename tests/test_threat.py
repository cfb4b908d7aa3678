"""The threat model: projections against an independent solver, starts inside and spread out, steps steepest."""

import math
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.optimize import brentq

from robustness_lib import ThreatModel

NORMS = ("linf", "l2")


def images(n, shape=(3, 5, 4), seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand((n, *shape), generator=generator, dtype=dtype)
    # A third of all values on the box's faces, where real images have them.
    return torch.where(torch.rand(x.shape, generator=generator) < 1 / 3, x.round(), x)


def inside(threat, x_adv, x):
    slack = threat.eps * (1 + 1e-5) + 1e-6
    return bool((threat.distance(x_adv, x) <= slack).all()) and bool(((x_adv >= 0) & (x_adv <= 1)).all())


@given(st.sampled_from(NORMS), st.floats(0, 5), st.integers(0, 10_000), st.floats(0.01, 4),
       st.sampled_from([torch.float32, torch.float64]))
@settings(max_examples=150, deadline=None)
def test_projection_lands_inside_and_leaves_inner_points_alone(norm, eps, seed, spread, dtype):
    threat = ThreatModel(norm, eps)
    x = images(4, seed=seed, dtype=dtype)
    far = x + spread * torch.randn(x.shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    projected = threat.project(far, x)
    assert inside(threat, projected, x)
    assert projected.dtype == dtype
    torch.testing.assert_close(threat.project(projected, x), projected, atol=2e-6, rtol=0)


def exact_l2_projection(z, x, eps):
    """min ‖u − z‖ subject to ‖u − x‖ ≤ ε, 0 ≤ u ≤ 1, by its Lagrange multiplier and a root finder, in float64."""

    def u(multiplier):
        return np.clip((z + multiplier * x) / (1 + multiplier), 0, 1)

    def excess(multiplier):
        return np.linalg.norm(u(multiplier) - x) - eps

    if excess(0) <= 0:
        return u(0)
    return u(brentq(excess, 0, 1e9, xtol=1e-14, rtol=1e-14))


@given(st.integers(0, 10_000), st.floats(0.05, 3), st.floats(0.05, 3))
@settings(max_examples=100, deadline=None)
def test_l2_projection_is_the_nearest_point_of_ball_and_box(seed, eps, spread):
    x = images(3, seed=seed, dtype=torch.float64)
    far = x + spread * torch.randn(x.shape, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64)
    projected = ThreatModel("l2", eps).project(far, x)
    for u, z, centre in zip(projected, far, x, strict=True):
        exact = exact_l2_projection(z.numpy().ravel(), centre.numpy().ravel(), eps)
        np.testing.assert_allclose(u.numpy().ravel(), exact, atol=1e-6)


def test_scaling_then_clipping_is_not_the_nearest_point():
    """The usual shortcut stops short of the sphere: this is why the projection is solved."""
    x = torch.tensor([[1.0, 0.5]], dtype=torch.float64)  # the first pixel cannot go up
    z = torch.tensor([[2.0, 1.0]], dtype=torch.float64)
    nearest = ThreatModel("l2", 0.4).project(z, x)
    torch.testing.assert_close(nearest, torch.tensor([[1.0, 0.9]], dtype=torch.float64))


@pytest.mark.parametrize("norm", NORMS)
def test_zero_and_huge_eps(norm):
    x = images(5)
    far = x + torch.randn_like(x)
    assert torch.equal(ThreatModel(norm, 0).project(far, x), x)
    assert torch.equal(ThreatModel(norm, 0.0).random_point(x, seed=0, index=torch.arange(5)), x)
    assert torch.equal(ThreatModel(norm, 1e6).project(far, x), far.clamp(0, 1))
    assert inside(ThreatModel(norm, 100), ThreatModel(norm, 100).random_point(x, seed=0, index=torch.arange(5)), x)


@given(st.sampled_from(NORMS), st.floats(0, 3), st.integers(-5, 10**12))
@settings(max_examples=60, deadline=None)
def test_starts_are_inside_and_belong_to_the_example(norm, eps, seed):
    threat, x = ThreatModel(norm, eps), images(6, seed=3)
    index = torch.tensor([7, 0, 3, 100, 5, 10**10])
    start = threat.random_point(x, seed=seed, index=index)
    assert inside(threat, start, x)
    order = torch.tensor([4, 2, 0])
    assert torch.equal(threat.random_point(x[order], seed=seed, index=index[order]), start[order])


@pytest.mark.parametrize("norm", NORMS)
def test_starts_differ_by_seed_example_and_step_and_leave_the_global_generator_alone(norm):
    threat, x = ThreatModel(norm, 0.1), torch.full((2, 50), 0.5)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    index = torch.arange(2)
    draws = [threat.random_point(x, seed=0, index=index), threat.random_point(x, seed=1, index=index),
             threat.random_point(x, seed=0, index=index, step=1)]
    assert torch.equal(torch.get_rng_state(), before)
    rows = torch.cat(draws)
    assert len({tuple(row.tolist()) for row in rows}) == 6


def test_linf_starts_are_uniform_in_ball_and_box():
    x = torch.cat([torch.full((4000, 1), 0.5), torch.full((4000, 1), 0.02)])
    start = ThreatModel("linf", 0.1).random_point(x, seed=1, index=torch.arange(8000)).double().numpy()[:, 0]
    assert stats.kstest(start[:4000], "uniform", args=(0.4, 0.2)).pvalue > 1e-3
    assert stats.kstest(start[4000:], "uniform", args=(0, 0.12)).pvalue > 1e-3  # no heap on the face at 0


@pytest.mark.parametrize("d", [1, 2, 30])
def test_l2_starts_are_uniform_in_the_ball(d):
    x = torch.full((4000, d), 0.5)
    threat = ThreatModel("l2", 0.3)
    start = threat.random_point(x, seed=2, index=torch.arange(4000))
    radius = threat.distance(start, x).numpy() / 0.3
    assert stats.kstest(radius**d, "uniform").pvalue > 1e-3
    direction = (start - x) / (start - x).norm(dim=1, keepdim=True)
    assert direction.mean(0).abs().max() < 5 / math.sqrt(4000)


@given(st.sampled_from(NORMS), st.integers(0, 10_000), st.floats(1e-3, 2), st.sampled_from([1.0, 1e-30, 1e30]))
@settings(max_examples=60, deadline=None)
def test_no_other_step_of_that_length_gains_more(norm, seed, size, scale):
    generator = torch.Generator().manual_seed(seed)
    gradient = torch.randn((3, 12), generator=generator)
    threat = ThreatModel(norm, size)
    step = threat.steepest_step(gradient * scale, size)
    dual = gradient.abs().sum(1) if norm == "linf" else gradient.norm(dim=1)  # Hölder's bound, reached
    torch.testing.assert_close((step * gradient).sum(1), size * dual, rtol=1e-4, atol=1e-5)
    length = threat.distance(step, torch.zeros_like(step))
    torch.testing.assert_close(length, torch.full_like(length, size), rtol=1e-5, atol=0)


@pytest.mark.parametrize("norm", NORMS)
def test_each_example_can_have_its_own_step(norm):
    gradient, sizes = torch.randn(3, 2, 4), torch.tensor([0.1, 0.2, 0.3])
    step = ThreatModel(norm, 1).steepest_step(gradient, sizes)
    for i in range(3):
        alone = ThreatModel(norm, 1).steepest_step(gradient[i:i + 1], float(sizes[i]))
        torch.testing.assert_close(step[i:i + 1], alone)


def test_no_step_where_the_gradient_is_zero():
    for norm in NORMS:
        assert torch.equal(ThreatModel(norm, 1).steepest_step(torch.zeros(2, 3), 0.1), torch.zeros(2, 3))


def test_distance_is_computed_in_float64():
    x = torch.zeros(1, 4)
    x_adv = torch.tensor([[0.1, 0.2, 0.0, 0.2]])
    assert ThreatModel("linf", 1).distance(x_adv, x).dtype == torch.float64
    length = ThreatModel("l2", 1).distance(x_adv, x)
    torch.testing.assert_close(length, torch.tensor([0.3], dtype=torch.float64), atol=1e-7, rtol=0)
    x, x_adv = torch.tensor([[1 / 255]]), torch.tensor([[0.9]])
    exact = x_adv.double() - x.double()
    assert (x_adv - x).double() != exact  # the difference, too, is rounded in float32
    for norm in NORMS:
        assert torch.equal(ThreatModel(norm, 1).distance(x_adv, x), exact[:, 0])


@pytest.mark.parametrize(("arguments", "error", "words"), [
    (("l1", 0.1), ValueError, "L1 is left out"),
    (("inf", 0.1), ValueError, "linf"),
    (("linf", -0.1), ValueError, "at least 0"),
    (("linf", float("nan")), ValueError, "finite"),
    (("l2", float("inf")), ValueError, "finite"),
    (("l2", "8/255"), TypeError, "8/255"),
    (("l2", True), TypeError, "number"),
])
def test_bad_threat_models_are_refused_in_words(arguments, error, words):
    with pytest.raises(error, match=words):
        ThreatModel(*arguments)


def test_it_prints_as_people_say_it():
    assert str(ThreatModel("linf", 8 / 255)) == "L∞ 8/255"
    assert str(ThreatModel("linf", 0.3)) == "L∞ 0.3"
    assert str(ThreatModel("l2", 0.5)) == "L2 0.5"


@pytest.mark.parametrize(("text", "norm", "eps"), [
    ("linf:8/255", "linf", 8 / 255), ("L∞: 8/255", "linf", 8 / 255), ("linf:0.03", "linf", 0.03),
    ("LINF:.5", "linf", 0.5), ("l2:0.5", "l2", 0.5), ("L2:3", "l2", 3.0), ("linf:1e-3", "linf", 0.001),
    ("linf:2.5/255", "linf", 2.5 / 255), ("linf:0", "linf", 0.0), ("linf:1", "linf", 1.0),
])
def test_a_threat_is_read_from_text(text, norm, eps):
    threat = ThreatModel.parse(text)
    assert (threat.norm, threat.eps) == (norm, eps)


@pytest.mark.parametrize(("text", "words"), [
    ("linf", "such as linf:8/255"), ("8/255", "such as linf:8/255"), ("linf:", "such as"), ("linf:-1/255", "such as"),
    ("linf:8/", "such as"), ("linf:8 /255", "such as"), ("linf:nan", "such as"), ("linf:inf", "such as"),
    ("linf:8/255/2", "such as"), ("linf:1/0", "divides by zero"), ("linf:1/0.0", "divides by zero"),
    ("linf:8", r"did you mean linf:8/255\?"), ("l1:0.5", "must be \"linf\" or \"l2\""), ("l7:0.5", "found 'l7'"),
])
def test_text_that_is_no_threat_is_refused_with_a_hint(text, words):
    with pytest.raises(ValueError, match=words):
        ThreatModel.parse(text)


@pytest.mark.parametrize(("threat", "text"), [
    (ThreatModel("linf", 8 / 255), "linf:8/255"), (ThreatModel("linf", 0.3), "linf:0.3"),
    (ThreatModel("l2", 0.5), "l2:0.5"), (ThreatModel("l2", 8 / 255), "l2:0.03137254901960784"),
    (ThreatModel("linf", 0), "linf:0/255"), (ThreatModel("linf", 1e-5), "linf:1e-05"),
])
def test_as_text_it_is_what_commands_and_recipes_say(threat, text):
    assert threat.text == text


@given(st.sampled_from(NORMS), st.floats(0, 1))
@settings(max_examples=100, deadline=None)
def test_what_it_says_as_text_is_read_again(norm, eps):
    again = ThreatModel.parse(ThreatModel(norm, eps).text)
    assert again.norm == norm
    # Whole grey levels are written as such, which takes an ε that is one but for rounding for that one.
    assert again.eps == pytest.approx(eps, abs=1e-8)


def test_an_epsilon_in_grey_levels_comes_back_bit_by_bit():
    for levels in range(256):
        threat = ThreatModel("linf", levels / 255)
        assert ThreatModel.parse(threat.text) == threat


@pytest.mark.parametrize(("norm", "eps", "values", "words"), [
    ("linf", 8, 3072, "any image at all is allowed: ε covers the whole pixel box. ε is in pixel units of [0, 1]: "
                      "8/255 = 0.0314 was probably meant"),
    ("linf", 255, 784, "255/255 = 1 was"),
    ("linf", 1, 3072, "any image at all"),
    ("linf", 0.5, 3072, "every image can become the same grey"),
    ("l2", 128, 3072, "any image at all is allowed: ε covers the whole pixel box. ε is in pixel units of [0, 1]: "
                      "128/255 = 0.502 was probably meant"),
    ("l2", 30, 3072, "every image can become the same grey, so no model can resist. ε is in"),
    ("l2", 128, 150528, "more than a quarter of the longest way through the pixel box (388)"),
    ("l2", 1.5, 2, "any image at all"),
])
def test_an_eps_on_another_scale_is_said(norm, eps, values, words):
    with pytest.warns(UserWarning, match="ε covers the whole") if norm == "linf" and eps > 1 else nullcontext():
        threat = ThreatModel(norm, eps)
    assert words in threat.doubt_about_eps(values)
    assert ("probably meant" in threat.doubt_about_eps(values)) == (eps in (8, 255, 128, 30))


@pytest.mark.parametrize(("norm", "eps", "values"), [
    ("linf", 8 / 255, 3072), ("linf", 0.3, 784), ("l2", 0.5, 3072), ("l2", 3, 150528), ("l2", 2, 784), ("l2", 0.2, 2)])
def test_usual_eps_are_not_doubted(norm, eps, values):
    assert ThreatModel(norm, eps).doubt_about_eps(values) is None


def test_a_tiny_eps_does_not_print_as_zero():
    assert str(ThreatModel("linf", 1e-9)) == "L∞ 1e-09"
    assert str(ThreatModel("linf", 0)) == "L∞ 0/255"
    assert ThreatModel.parse(ThreatModel("linf", 1e-9).text).eps == pytest.approx(1e-9)
    with pytest.warns(UserWarning, match="L∞ 8 any image"):
        assert str(ThreatModel("linf", 8)) == "L∞ 8"
