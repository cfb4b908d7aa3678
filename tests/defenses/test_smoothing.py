"""Against scipy.ndimage. Its mode "mirror" is torch's "reflect" (the last pixel is not repeated); its own "reflect"
repeats it."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import nn

from robustness_lib.defenses import GaussianSmoothing, MeanSmoothing, MedianSmoothing

SHAPES = [(2, 3, 12, 9), (1, 1, 7, 7), (2, 1, 5, 21)]
ALL = {"mean": lambda size: MeanSmoothing(nn.Identity(), size),
       "median": lambda size: MedianSmoothing(nn.Identity(), size),
       "gaussian": lambda size: GaussianSmoothing(nn.Identity(), 1.0, size)}


def images(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def per_plane(function, x):
    planes = x.numpy().reshape(-1, *x.shape[2:])
    return np.stack([function(plane) for plane in planes]).reshape(x.shape)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("size", [1, 3, 5, 9])
def test_mean(shape, size):
    if min(shape[2:]) <= size // 2:
        pytest.skip("too small to be reflected")
    x = images(*shape)
    expected = per_plane(lambda plane: ndimage.uniform_filter(plane, size, mode="mirror"), x)
    np.testing.assert_allclose(MeanSmoothing(nn.Identity(), size).transform(x), expected, atol=2e-7)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("size", [1, 3, 5, 9])
def test_median(shape, size):
    x = images(*shape)
    expected = per_plane(lambda plane: ndimage.median_filter(plane, size, mode="mirror"), x)
    np.testing.assert_array_equal(MedianSmoothing(nn.Identity(), size).transform(x), expected)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("sigma", "size"), [(0.5, None), (1.0, None), (1.3, None), (0.8, 3), (2.0, 7), (1.0, 1)])
def test_gaussian(shape, sigma, size):
    radius = int(np.ceil(3 * sigma)) if size is None else size // 2
    if min(shape[2:]) <= radius:
        pytest.skip("too small to be reflected")
    x = images(*shape)
    expected = per_plane(lambda plane: ndimage.gaussian_filter(plane, sigma, radius=radius, mode="mirror"), x)
    np.testing.assert_allclose(GaussianSmoothing(nn.Identity(), sigma, size).transform(x), expected, atol=2e-7)


@pytest.mark.parametrize("make", ALL.values(), ids=ALL.keys())
@pytest.mark.parametrize("value", [0.0, 0.1, 0.37, 1.0])
def test_a_constant_image_stays(make, value):
    x = torch.full((2, 3, 9, 8), value)
    for size in (1, 3, 7, 15):
        for images in (x, x.double()):
            z = make(size).transform(images)
            torch.testing.assert_close(z, images, atol=1e-6, rtol=0)
            assert z.max() <= 1  # also where the weights sum to 1.00000003


@pytest.mark.parametrize("make", ALL.values(), ids=ALL.keys())
def test_gradients_are_those_of_the_values(make):
    x = (0.1 + 0.8 * images(2, 2, 5, 6)).requires_grad_()
    assert torch.autograd.gradcheck(make(3).transform, (x,))


@pytest.mark.parametrize("make", ALL.values(), ids=ALL.keys())
def test_white_keeps_its_gradient(make):
    for size in (3, 5, 7):
        x = torch.ones(1, 3, 12, 12).requires_grad_()
        gradient, = torch.autograd.grad(make(size).transform(x).sum(), x)
        assert abs(gradient.sum().item() - x.numel()) < 1e-3


@pytest.mark.parametrize("make", ALL.values(), ids=ALL.keys())
def test_sizes_out_of_range_are_refused(make):
    for size in (2, 4):
        with pytest.raises(ValueError, match=f"size must be odd, so that a window has a middle; found {size}"):
            make(size)
    for size in (0, -3):
        with pytest.raises(ValueError, match=f"size must be at least 1; found {size}"):
            make(size)
    for size in (3.0, "3"):
        with pytest.raises(TypeError, match="size must be a whole number"):
            make(size)


@pytest.mark.parametrize("make", ALL.values(), ids=ALL.keys())
def test_an_image_too_small_to_be_reflected_is_refused(make):
    make(7).transform(images(1, 1, 4, 4))
    with pytest.raises(ValueError, match=r"size 7 reflects 3 pixels at each edge, and needs an image of more.*3 × 9"):
        make(7).transform(images(1, 1, 3, 9))


@pytest.mark.parametrize("sigma", [0, -1, float("nan"), float("inf")])
def test_other_sigma_are_refused(sigma):
    with pytest.raises(ValueError, match=f"sigma must be positive and finite, in pixels' widths; found {sigma}"):
        GaussianSmoothing(nn.Identity(), sigma)
