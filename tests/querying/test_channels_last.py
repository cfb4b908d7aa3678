"""The memory order that convolutions are attacked in: faster, and nobody can tell afterwards."""

import copy

import pytest
import torch
from torch import nn

from robustness_lib import ThreatModel
from robustness_lib.attacks import PGD, AutoPGD, SquareAttack
from robustness_lib.querying.channels_last import ChannelsLast
from robustness_lib.shapes import per_example, rows

THREAT = ThreatModel("linf", 0.03)


class Viewing(nn.Module):
    """Asks for a view of its activations, which channels-last tensors refuse."""

    def __init__(self, body):
        super().__init__()
        self.conv, self.head = body[0], body[3]

    def forward(self, z):
        h = self.conv(z).relu()
        return self.head(h.view(len(h), -1))


class ViewingBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, h):
        return h * 1

    @staticmethod
    def backward(ctx, gradient):
        return gradient.view(len(gradient), -1).view(gradient.shape)


class ViewingOnlyBackward(nn.Module):
    def __init__(self, body):
        super().__init__()
        self.conv, self.act, self.head = body[0], nn.Conv2d(4, 4, 1), body[3]

    def forward(self, z):
        h = ViewingBackward.apply(self.conv(z))
        return self.head(self.conv_of(h).flatten(1))

    def conv_of(self, h):
        return nn.functional.conv2d(h, torch.eye(4, device=h.device, dtype=h.dtype)[:, :, None, None]).relu()


def body(dtype=torch.float32):
    with torch.random.fork_rng():
        torch.manual_seed(2)
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 6 * 5, 5)).to(dtype).eval()


def images(n=20, dtype=torch.float32):
    x = torch.rand(n, 3, 8, 7, generator=torch.Generator().manual_seed(0), dtype=dtype)
    with torch.no_grad():
        return x, body(dtype)(x).argmax(1)


def order(model):
    return model[0].weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("fails", [False, True])
def test_weights_are_channels_last_inside_and_the_very_same_tensor_afterwards(fails):
    model, (x, y) = body(), images()
    storage, values = model[0].weight.data_ptr(), model[0].weight.clone()
    seen = []

    def watch(module, inputs):
        seen.append((order(model), inputs[0].is_contiguous(memory_format=torch.channels_last)))
        if fails and len(seen) == 5:
            raise RuntimeError("out of luck")

    model.register_forward_pre_hook(watch)
    if fails:
        with pytest.raises(RuntimeError, match="out of luck"):
            PGD(THREAT, steps=10)(model, x, y)
    else:
        assert PGD(THREAT, steps=10)(model, x, y).is_contiguous()
    assert seen
    assert all(weights and inputs for weights, inputs in seen)
    assert model[0].weight.data_ptr() == storage
    assert not order(model)
    assert torch.equal(model[0].weight, values)


@pytest.mark.parametrize("wrap", [Viewing, ViewingOnlyBackward])
@pytest.mark.parametrize("attack", [PGD(THREAT, steps=8), AutoPGD(ThreatModel("l2", 0.4), steps=8),
                                    SquareAttack(THREAT, queries=30)])
def test_a_model_that_views_its_activations_is_attacked_as_it_is(wrap, attack):
    x, y = images()
    model = wrap(body())
    answers = []
    model.register_forward_hook(lambda *_: answers.append(1))
    result = attack.run(model, x, y)
    gradients = int(result.gradients.amax()) > 0
    # One answer at most is lost to finding out: that of a backward pass that was refused.
    assert result.calls == len(answers)
    flat = attack.run(nn.Sequential(nn.Flatten(1), nn.Unflatten(1, (3, 8, 7)), *body()), x, y)
    assert torch.equal(result.success, flat.success)
    torch.testing.assert_close(result.x_adv, flat.x_adv, atol=1e-5, rtol=0)
    assert model.conv.weight.is_contiguous()
    assert gradients or isinstance(attack, SquareAttack)


@pytest.mark.parametrize("words", ["view size is not compatible with input tensor's size and stride",
                                   "Cannot view a tensor with shape torch.Size([2, 3]) and strides (3, 1)"])
def test_refusals_in_both_wordings_are_recognized(words):
    with ChannelsLast(body()) as layout:
        assert layout.blames(RuntimeError(words))
        assert not layout.blames(RuntimeError("out of luck"))
        layout.undo()
        assert not layout.blames(RuntimeError(words))  # there is nothing left to undo


def test_the_numbers_are_those_of_the_plain_order_up_to_rounding():
    x, y = images()
    model = body()
    assert_same = torch.testing.assert_close
    expected = PGD(THREAT, steps=10, stop="never")(lambda z: model(z), x, y)  # a function is left as it is
    assert_same(PGD(THREAT, steps=10, stop="never")(model, x, y), expected, atol=1e-5, rtol=0)


def test_only_float32_convolutions_are_moved():
    assert not ChannelsLast(body(torch.float64))._weights
    assert not ChannelsLast(lambda z: z)._weights
    assert not ChannelsLast(nn.Linear(2, 2))._weights
    shared = nn.Conv2d(3, 3, 3)
    assert len(ChannelsLast(nn.Sequential(shared, shared, copy.deepcopy(shared)))._weights) == 2


def test_rows_pair_the_same_entries_in_both_orders():
    x = torch.rand(4, 3, 5, 6)
    last = x.contiguous(memory_format=torch.channels_last)
    assert torch.equal(rows(x, last), rows(last, last))
    assert torch.equal(rows(x, x), rows(last, x))
    assert rows(last, last).data_ptr() == last.data_ptr()
    assert torch.equal(rows(x[:, 0], x[:, 0]), x[:, 0].flatten(1))
    assert torch.equal(per_example(torch.arange(4.0), x) * torch.ones_like(x), torch.ones_like(x) * torch.arange(4.0)[
        :, None, None, None])


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_projections_and_steps_do_not_depend_on_the_order(norm):
    threat = ThreatModel(norm, 0.3)
    x, noise = torch.rand(4, 3, 5, 6), torch.randn(4, 3, 5, 6)
    last, noise_last = (t.contiguous(memory_format=torch.channels_last) for t in (x, noise))
    for a in (x, last):
        for b in (noise, noise_last):
            torch.testing.assert_close(threat.project(a + b, a), threat.project(x + noise, x))
            torch.testing.assert_close(threat.project(x + noise, a), threat.project(x + noise, x))
            torch.testing.assert_close(threat.steepest_step(b, torch.arange(4.0)),
                                       threat.steepest_step(noise, torch.arange(4.0)))
