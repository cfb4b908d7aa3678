import pytest
import torch
from torch import nn

from robustness_lib.defenses import GaussianNoise


def test_noise_has_the_standard_deviation_that_it_says():
    torch.manual_seed(0)
    x = torch.full((20, 3, 40, 40), 0.5)
    noise = GaussianNoise(nn.Identity(), 0.1).transform(x) - x
    assert abs(noise.std().item() - 0.1) < 0.001
    assert abs(noise.mean().item()) < 0.001
    assert abs((noise.abs() < 0.1).float().mean().item() - 0.6827) < 0.005  # normal


def test_each_image_and_pixel_has_its_own():
    torch.manual_seed(0)
    z = GaussianNoise(nn.Identity(), 0.1).transform(torch.full((3, 3, 8, 8), 0.5))
    assert len(z.unique()) > 0.99 * z.numel()


def test_what_leaves_the_box_is_clamped():
    torch.manual_seed(0)
    z = GaussianNoise(nn.Identity(), 0.5).transform(torch.ones(4, 1, 30, 30))
    assert 0.45 < (z == 1).float().mean() < 0.55


def test_gradient_goes_through():
    defense = GaussianNoise(nn.Identity(), 0.05)
    x = (0.3 + 0.4 * torch.rand(2, 1, 4, 4, dtype=torch.float64)).requires_grad_()

    def seeded(z):
        torch.manual_seed(1)
        return defense.transform(z)

    assert torch.autograd.gradcheck(seeded, (x,))


@pytest.mark.parametrize("sigma", [0, -0.1, 1.5, 25, float("nan"), float("inf")])
def test_other_sigma_are_refused(sigma):
    with pytest.raises(ValueError, match=f"over 0 and at most 1, in pixel units.*found {sigma}"):
        GaussianNoise(nn.Identity(), sigma)
