import numpy as np
import pytest
import torch
from torch import nn

from robustness_lib.defenses import BitDepth


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("bits", range(1, 9))
def test_levels_are_counted(bits, dtype):
    x = torch.linspace(0, 1, 30_000, dtype=dtype).reshape(1, 1, 100, 300)
    levels = BitDepth(nn.Identity(), bits).transform(x).unique()
    top = 2**bits - 1
    assert len(levels) == 2**bits  # never 17 for four bits
    assert torch.equal(levels, torch.arange(top + 1, dtype=dtype) / top)
    assert levels[0] == 0
    assert levels[-1] == 1


@pytest.mark.parametrize("bits", [1, 3, 4, 8])
def test_each_goes_to_the_nearest(bits):
    x = torch.rand(2, 3, 17, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    z = BitDepth(nn.Identity(), bits).transform(x)
    levels = np.arange(2**bits) / (2**bits - 1)
    nearest = levels[np.abs(x.numpy()[..., None] - levels).argmin(-1)]
    np.testing.assert_array_equal(z.numpy(), nearest)
    assert torch.equal(BitDepth(nn.Identity(), bits).transform(z), z)


def test_eight_bits_leave_eight_bit_images():
    x = (torch.arange(256) / 255).reshape(1, 1, 16, 16)
    assert torch.equal(BitDepth(nn.Identity(), 8).transform(x), x)


@pytest.mark.parametrize("bits", [0, 9, -1])
def test_other_bits_are_refused(bits):
    with pytest.raises(ValueError, match=f"1 ... 8, per channel; found {bits}"):
        BitDepth(nn.Identity(), bits)


@pytest.mark.parametrize("bits", [4.0, "4", True, None])
def test_bits_are_whole(bits):
    with pytest.raises(TypeError, match="bits must be a whole number"):
        BitDepth(nn.Identity(), bits)
