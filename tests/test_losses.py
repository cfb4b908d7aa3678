import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robustness_lib.losses import LOSSES, cross_entropy, margin_loss

LOGITS = torch.tensor([[2.0, 1.0, -1.0], [0.0, 3.0, 3.5]], dtype=torch.float64)
Y = torch.tensor([0, 1])


def test_cross_entropy_by_hand_and_per_example():
    expected = [math.log(sum(math.exp(z) for z in row)) - row[y]
                for row, y in zip(LOGITS.tolist(), Y.tolist(), strict=True)]
    torch.testing.assert_close(cross_entropy(LOGITS, Y), torch.tensor(expected, dtype=torch.float64))


def test_margin_by_hand_and_per_example():
    torch.testing.assert_close(margin_loss(LOGITS, Y), torch.tensor([-1.0, 0.5], dtype=torch.float64))


@given(st.integers(0, 10_000), st.floats(-100, 100), st.integers(2, 6))
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
