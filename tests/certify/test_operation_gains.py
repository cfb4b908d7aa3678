"""Lipschitz constants of single operations, beside the truth: the norm of the whole matrix, and slopes on a grid."""

import math

import pytest
import torch
from operation_cases import AFFINE, BENT, JUMPS, Together, groups
from torch import nn

from robustness_lib.certify import UnknownOperation, lipschitz_bound, trace
from robustness_lib.certify.curves import Activation
from robustness_lib.certify.operation import Affine
from robustness_lib.certify.operation_gains import operation_gains
from robustness_lib.certify.operator_norms import SLACK, convolution_norm, matrix_norm


def operations_of(cases):
    network = trace(Together(cases), torch.rand(2, *cases[0].shape, dtype=torch.float64))
    return [step.operation for step in network.steps]


def matrix_of(operation, number):
    """Of a linear operation, what it makes of its input of this number: (entries before, entries behind)."""
    shapes = operation.call.inputs
    unit = torch.eye(shapes[number].numel(), dtype=torch.float64)
    points = [unit.reshape(-1, *shape) if k == number else unit.new_zeros(len(unit), *shape)
              for k, shape in enumerate(shapes)]
    return (operation(*points) - operation(*map(torch.zeros_like, points))).reshape(len(unit), -1)


def norm(matrix):
    small = matrix @ matrix.T if len(matrix) < matrix.shape[1] else matrix.T @ matrix
    return math.sqrt(max(0.0, float(torch.linalg.eigvalsh(small)[-1])))


def label(cases):
    return f"{'-'.join(map(str, cases[0].shape))}x{cases[0].spread:g}"


# Whose Schur bound is their norm, wherever they stand.
EXACT = {"linear", "batch_norm", "view", "reshape", "flatten", "cat", "pixel_unshuffle", "select", "neg", "repeat",
         "permute", "expand", "sum", "slice"}


@pytest.mark.parametrize("cases", groups(AFFINE), ids=label)
def test_no_linear_operation_is_longer_than_its_gain(cases):
    seen = 0
    for operation in operations_of(cases)[:-1]:  # the last joins them all
        for number, gain in enumerate(operation_gains(operation, operation) if isinstance(operation, Affine) else ()):
            matrix = matrix_of(operation, number)
            true = norm(matrix)
            assert true <= gain.most, operation.call.text
            assert norm(matrix.abs()) <= gain.absolute, operation.call.text
            if operation.call.name in EXACT:
                assert gain.most == pytest.approx(true, rel=1e-8), operation.call.text
            seen += true > 0
    assert seen >= len(cases)


ENDLESS = {"square", "pow", "exp"}


@pytest.mark.parametrize("cases", groups(BENT), ids=label)
def test_no_curve_is_steeper_than_its_gain_and_each_is_nearly_as_steep(cases):
    grid, step = torch.linspace(-40, 40, 144 * 300, dtype=torch.float64), 1e-6
    for operation in operations_of(cases):
        name = operation.call.name
        if name in JUMPS | ENDLESS or (name == "mul" and not isinstance(operation, Affine)):
            with pytest.raises(UnknownOperation, match=r"ever steeper|no Lipschitz constant is known"):
                operation_gains(operation, operation)
        elif isinstance(operation, Activation) or name == "relu":
            (gain,) = operation_gains(operation, operation)
            v = grid.reshape(-1, *operation.call.inputs[0])
            steepest = float(((operation(v + step) - operation(v - step)) / (2 * step)).abs().max())
            assert gain.most * (1 - 2e-3) <= steepest <= gain.most * (1 + 1e-7), operation.call.text


@pytest.mark.parametrize("cases", groups(BENT), ids=label)
def test_pooling_and_sorting_stay_within_their_gain_and_reach_it(cases):
    """Where they are differentiable they are matrices of 0 and 1, one for each order of the entries: the matrix is
    longest where one entry is the largest of all windows that it is in."""
    generator = torch.Generator().manual_seed(0)
    for operation in operations_of(cases):
        if not ("max_pool" in operation.call.name or operation.call.name == "sort"):
            continue
        (gain,), longest = operation_gains(operation, operation), 0.0
        for place in range(6):
            point = torch.rand(1, *operation.call.inputs[0], dtype=torch.float64, generator=generator)
            point.flatten()[(place * 37 + 14) % point.numel()] += 2
            found = torch.autograd.functional.jacobian(lambda v, op=operation: op(v).flatten(), point)
            longest = max(longest, norm(found.reshape(len(found), -1)))
        assert 0.7 * gain.most <= longest <= gain.most + 1e-12, operation.call.text


# Convolutions.


def dense_norm(layer, shape):
    point = torch.zeros(1, *shape, dtype=torch.float64)
    found = torch.autograd.functional.jacobian(lambda v: layer(v).flatten(), point)
    return norm(found.reshape(len(found), -1))


def own_grid_norm(kernel, sizes):
    """The mistake: of the circular convolution on the grid of the image itself."""
    axes = tuple(range(2, kernel.ndim))
    spectrum = torch.fft.fftn(kernel.detach(), sizes, axes).flatten(2).movedim(2, 0)
    return float(torch.linalg.matrix_norm(spectrum, 2).max())


def test_the_grid_of_the_image_itself_is_too_short():
    """Kernel (1, −1) on three pixels: √3 by its own grid, 2·cos(π/7) = 1.80 in truth, 2 on the grid of four."""
    layer = nn.Conv1d(1, 1, 2, padding="same", bias=False).double()
    layer.weight.data[:] = torch.tensor([1.0, -1.0])
    true = dense_norm(layer, (1, 3))
    assert true == pytest.approx(2 * math.cos(math.pi / 7))
    assert own_grid_norm(layer.weight, (3,)) == pytest.approx(math.sqrt(3))
    assert own_grid_norm(layer.weight, (3,)) < true < convolution_norm(layer.weight, (3,), stride=[1], dilation=[1])
    assert convolution_norm(layer.weight, (3,), stride=[1], dilation=[1]) == pytest.approx(2)
    assert lipschitz_bound(nn.Sequential(layer, nn.Flatten()), (1, 3)).constant > true


SETTINGS = [{"padding": 1}, {"padding": 0}, {"padding": 4}, {"padding": 1, "stride": 2}, {"padding": 2, "dilation": 2},
            {"stride": 3, "padding": 1, "dilation": 2}, {"groups": 2, "padding": 1},
            {"groups": 2, "stride": 2, "padding": 2}, {"padding": 3, "stride": (1, 2)}, {"stride": 4},
            {"stride": 5, "padding": 2}, {"dilation": (2, 1), "stride": (2, 3), "padding": (3, 1)}]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("kernel_size", [3, (2, 4)], ids=str)
def test_no_convolution_is_longer_than_its_bound(settings, kernel_size):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layer = nn.Conv2d(4, 6, kernel_size, **settings).double()
    stride, dilation = ([given, given] if isinstance(given, int) else list(given)
                        for given in (settings.get("stride", 1), settings.get("dilation", 1)))
    for sizes in ((5, 5), (7, 6), (12, 13)):
        if any(size + 2 * pad < spread * (side - 1) + 1 for size, pad, spread, side in zip(
                sizes, layer.padding, layer.dilation, layer.kernel_size, strict=True)):
            continue
        true = dense_norm(layer, (4, *sizes))
        bound = convolution_norm(layer.weight, sizes, stride=stride, dilation=dilation, groups=layer.groups)
        assert true <= bound <= 2 * true
    assert bound <= 1.3 * true  # of larger images, less is made of their edge


def test_a_stride_of_the_kernels_size_makes_patches_and_is_exact():
    layer = nn.Conv2d(3, 8, 2, stride=2).double()
    bound = convolution_norm(layer.weight, (6, 6), stride=[2, 2], dilation=[1, 1])
    assert bound == pytest.approx(dense_norm(layer, (3, 6, 6)), rel=1e-8)
    assert bound == pytest.approx(matrix_norm(layer.weight.flatten(1)), rel=1e-8)


def test_the_slack_is_far_more_than_rounding():
    matrix = torch.linalg.qr(torch.randn(300, 300, dtype=torch.float64))[0]
    assert 1 < matrix_norm(matrix) / SLACK + 1e-12 < 1 + 1e-11
    assert matrix_norm(matrix) > 1
