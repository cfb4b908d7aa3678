"""Layers that hold their Lipschitz constant at 1: by their matrices, and by pairs of points."""

import pytest
import torch
from torch import nn

from robustness_lib.models import GroupSort, almost_orthogonal, lipschitz_cnn, orthogonal_linear, with_plain_weights


def dense_norm(layer, shape):
    point = torch.zeros(1, *shape, dtype=torch.float64)
    found = torch.autograd.functional.jacobian(lambda v: layer(v).flatten(), point)
    return float(torch.linalg.matrix_norm(found.reshape(len(found), -1), 2))


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def test_pairs_of_channels_are_sorted():
    x = torch.tensor([[1.0, 5.0, 2.0, 3.0]])  # the pairs (1, 2) and (5, 3)
    assert GroupSort()(x).tolist() == [[2.0, 5.0, 1.0, 3.0]]
    assert GroupSort(4)(x).tolist() == [[5.0, 3.0, 2.0, 1.0]]


def test_larger_groups_are_channels_at_equal_distances():
    x = torch.arange(12.0).reshape(1, 6, 2)
    assert GroupSort(3)(x)[0, :, 0].tolist() == [8.0, 10.0, 4.0, 6.0, 0.0, 2.0]


@pytest.mark.parametrize("group", [2, 3, 6])
def test_sorting_has_the_gradient_of_a_permutation(group):
    x = torch.randn(2, 6, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(GroupSort(group), x)
    rows = torch.autograd.functional.jacobian(lambda v: GroupSort(group)(v[None]).flatten(), x[0].detach())
    assert torch.equal(rows.reshape(18, 18) @ rows.reshape(18, 18).T, torch.eye(18, dtype=torch.float64))


def test_equal_values_give_each_gradient_to_one():
    x = torch.ones(1, 2, requires_grad=True)
    (gradient,) = torch.autograd.grad((GroupSort()(x) * torch.tensor([[3.0, 5.0]])).sum(), x)
    assert sorted(gradient[0].tolist()) == [3.0, 5.0]


@pytest.mark.parametrize(("call", "words"), [
    (lambda: GroupSort(1), "2 channels or more; found 1"),
    (lambda: GroupSort()(torch.ones(2, 3, 4)), r"groups of 2; found values of shape \(2, 3, 4\)"),
    (lambda: almost_orthogonal(nn.Conv2d(4, 4, 3, groups=2)), "one group; found 2"),
    (lambda: almost_orthogonal(nn.Conv2d(4, 4, 3, padding_mode="circular")), "padded with zeros.*'circular'"),
    (lambda: lipschitz_cnn((4, 4), in_shape=(3, 30, 32)), "multiples of 4"),
])
def test_what_cannot_be_is_refused_in_words(call, words):
    with pytest.raises(ValueError, match=words):
        call()


@pytest.mark.parametrize(("before", "behind"), [(3, 5), (5, 3), (4, 4)])
@pytest.mark.parametrize("settings", [{"padding": 1}, {}, {"padding": 3}, {"stride": 2}, {"dilation": 2, "padding": 2}],
                         ids=str)
def test_no_kernel_makes_a_rescaled_convolution_longer_than_1(before, behind, settings):
    layer = almost_orthogonal(nn.Conv2d(before, behind, (3, 2), bias=False, **settings)).double()
    assert dense_norm(layer, (before, 7, 6)) == pytest.approx(1)  # orthogonal at first
    for _ in range(5):
        with torch.no_grad():
            layer.parametrizations.weight.original.copy_(torch.randn(behind, before, 3, 2))
        assert 0.2 < dense_norm(layer, (before, 7, 6)) <= 1 + 1e-12


def test_an_orthogonal_layer_has_singular_values_1_whatever_it_learned():
    layer = orthogonal_linear(6, 4)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.5)
    for _ in range(5):
        optimizer.zero_grad()
        layer(torch.randn(8, 6)).square().sum().backward()
        optimizer.step()
    assert torch.allclose(torch.linalg.svdvals(layer.weight), torch.ones(4), atol=1e-5)


def test_the_net_answers_alike_with_plain_weights_and_is_found_by_its_name():
    model = lipschitz_cnn((4, 6), in_shape=(3, 16, 8), classes=3, scale=2.0).eval()
    x = torch.rand(5, 3, 16, 8)
    with torch.no_grad():
        before = model(x)
    plain = lipschitz_cnn((4, 6), in_shape=(3, 16, 8), classes=3, scale=2.0, constrained=False)
    plain.load_state_dict(with_plain_weights(model).state_dict())
    assert torch.allclose(plain(x), before, atol=1e-6)
    assert {type(layer) for layer in plain} <= {nn.Conv2d, nn.Linear, nn.Flatten, nn.PixelUnshuffle, GroupSort,
                                                type(plain[-1])}


def test_no_pair_of_images_is_pulled_apart_faster_than_the_scale():
    model = lipschitz_cnn((8, 8), scale=3.0).double()
    for layer in model.modules():
        if hasattr(layer, "parametrizations"):
            with torch.no_grad():
                layer.parametrizations.weight.original.add_(0.3 * torch.randn_like(layer.weight))
    x = torch.rand(40, 3, 32, 32, dtype=torch.float64)
    near = x + 1e-3 * torch.randn_like(x)
    for other in (near, x.flip(0)):
        moved = (model(other) - model(x)).norm(dim=1)
        assert (moved <= 3 * (other - x).flatten(1).norm(dim=1) + 1e-9).all()
