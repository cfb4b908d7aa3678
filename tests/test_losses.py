import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robustness_lib.losses import (
    LOSSES,
    PAIR_LOSSES,
    cross_entropy,
    dlr_loss,
    margin_loss,
    targeted_dlr_loss,
    targeted_margin_loss,
)

LOGITS = torch.tensor([[2.0, 1.0, -1.0], [0.0, 3.0, 3.5]], dtype=torch.float64)
Y = torch.tensor([0, 1])


def test_cross_entropy_by_hand_and_per_example():
    expected = [math.log(sum(math.exp(z) for z in row)) - row[y]
                for row, y in zip(LOGITS.tolist(), Y.tolist(), strict=True)]
    torch.testing.assert_close(cross_entropy(LOGITS, Y), torch.tensor(expected, dtype=torch.float64))


def test_margin_by_hand_and_per_example():
    torch.testing.assert_close(margin_loss(LOGITS, Y), torch.tensor([-1.0, 0.5], dtype=torch.float64))


def test_ratios_of_logit_differences_by_hand():
    logits = torch.tensor([[5.0, 3.0, 1.0, -1.0], [5.0, 3.0, 1.0, -1.0]], dtype=torch.float64)
    y, target = torch.tensor([0, 2]), torch.tensor([1, 3])
    # Right: −(5 − 3)/(5 − 1). Wrong: −(1 − 5)/(5 − 1), positive.
    torch.testing.assert_close(dlr_loss(logits, y), torch.tensor([-0.5, 1.0], dtype=torch.float64))
    # −(5 − 3)/(5 − ½(1 − 1)), −(1 + 1)/5
    torch.testing.assert_close(targeted_dlr_loss(logits, y, target), torch.tensor([-0.4, -0.4], dtype=torch.float64))
    torch.testing.assert_close(targeted_margin_loss(logits, y, target), torch.tensor([-2.0, -2.0], dtype=torch.float64))


def test_ratios_do_not_change_when_logits_are_scaled_or_shifted_and_keep_their_gradient():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn((20, 7), generator=generator)
    y, target = logits.argmax(1), logits.argsort(1)[:, 2]
    for loss in (dlr_loss, lambda z, y: targeted_dlr_loss(z, y, target)):
        torch.testing.assert_close(loss(100 * logits + 3, y), loss(logits, y), atol=1e-4, rtol=0)
        scaled = (1000 * logits).requires_grad_()
        (gradient,) = torch.autograd.grad(loss(scaled, y).sum(), scaled)
        assert (gradient.abs().amax(1) > 1e-6).all()


def test_equal_leading_logits_divide_by_something():
    tied = torch.zeros(1, 5)
    assert dlr_loss(tied, torch.tensor([0])).isfinite()
    assert targeted_dlr_loss(tied, torch.tensor([0]), torch.tensor([1])).isfinite()


@pytest.mark.parametrize(("name", "least"), [("dlr", 3), ("targeted-dlr", 4)])
def test_too_few_classes_are_named(name, least):
    logits, y = torch.zeros(2, least - 1), torch.tensor([0, 1])
    with pytest.raises(ValueError, match=rf"at least {least} classes; found {least - 1}.*margin"):
        LOSSES[name](logits, y) if name in LOSSES else PAIR_LOSSES[name](logits, y, 1 - y)


@given(st.integers(0, 10_000), st.floats(-100, 100), st.integers(3, 6))
@settings(max_examples=60, deadline=None)
def test_losses_ignore_a_shift_of_all_logits_and_margin_is_positive_exactly_on_errors(seed, shift, classes):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn((5, classes), generator=generator, dtype=torch.float64)
    y = torch.randint(classes, (5,), generator=generator)
    for loss in LOSSES.values():
        torch.testing.assert_close(loss(logits + shift, y), loss(logits, y))
    assert torch.equal(margin_loss(logits, y) > 0, logits.argmax(1) != y)


def test_gradients_of_the_margin_do_not_vanish_where_the_softmax_saturates():
    logits = (1e3 * LOGITS.float()).requires_grad_()
    (of_ce,) = torch.autograd.grad(cross_entropy(logits, torch.tensor([0, 2])).sum(), logits)
    (of_margin,) = torch.autograd.grad(margin_loss(logits, torch.tensor([0, 2])).sum(), logits)
    assert (of_ce == 0).all()
    assert torch.equal(of_margin, torch.tensor([[-1.0, 1, 0], [0, 1, -1]]))
