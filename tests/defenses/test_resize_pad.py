import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from robustness_lib.defenses import ResizePad


def ramps(n, height, width):
    """Channel 0 rises to the right and channel 1 downwards, by one pixel's width for each pixel."""
    down, across = (torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width
    both = torch.stack([across.expand(height, width), down[:, None].expand(height, width)])
    return both.double().expand(n, 2, -1, -1)


def drawn(z):
    """Sizes (N, 2) and first pixels (N, 2), down and across, read off transformed ramps."""
    _, _, height, width = z.shape
    found = []
    for line, length in ((z[:, 1, :, width // 2], height), (z[:, 0, height // 2, :], width)):
        steps = line.diff(dim=1)
        slope = steps.amax(1)
        size = (1 / slope).round() if length > 1 else torch.ones(len(z))
        inside = steps >= slope[:, None] * 0.999
        first = inside.int().argmax(1)  # the first full step is from this pixel to the next
        # At this pixel the ramp reads (first − start + 0.5) / size.
        start = first - (line.gather(1, first[:, None])[:, 0] * size - 0.5).round()
        found.append((size.long(), start.long()))
    return torch.stack([found[0][0], found[1][0]], 1), torch.stack([found[0][1], found[1][1]], 1)


def test_sizes_and_places_cover_what_is_allowed():
    torch.manual_seed(0)
    size, start = drawn(ResizePad(nn.Identity(), 0.8).transform(ramps(3000, 20, 30)))
    assert size[:, 0].unique().tolist() == [16, 17, 18, 19, 20]
    assert size[:, 1].unique().tolist() == [24, 25, 26, 27, 28, 29, 30]
    counts = torch.bincount(size[:, 0])[16:].double() / 3000
    assert (counts - 0.2).abs().max() < 0.04
    assert ((size[:, 0] / 20 - size[:, 1] / 30).abs() <= 0.06).all()  # the shape is kept, up to a pixel
    assert (start >= 0).all()
    assert (start + size <= torch.tensor([20, 30])).all()
    smallest = size[:, 0] == 16
    places = torch.bincount(start[smallest, 0], minlength=5).double() / smallest.sum()
    assert len(places) == 5
    assert (places - 0.2).abs().max() < 0.08
    assert np.corrcoef(start[smallest].double().T)[0, 1] < 0.15  # down and across are two draws
    assert len(start[smallest & (size[:, 1] == 24)].unique(dim=0)) == 5 * 7


def test_each_image_of_a_batch_is_drawn_by_itself():
    torch.manual_seed(0)
    image = torch.rand(1, 3, 32, 32)
    z = ResizePad(nn.Identity()).transform(image.expand(8, -1, -1, -1))
    assert len(z.unique(dim=0)) >= 7
    size, start = drawn(ResizePad(nn.Identity()).transform(ramps(16, 32, 32)))
    assert len(size.unique(dim=0)) >= 3
    assert len(start.unique(dim=0)) >= 3


def along(lines, size, start):
    """Lines (..., L) resized and put at their place, by numpy: np.interp repeats the ends."""
    length = lines.shape[-1]
    pixels = (np.arange(length) - start + 0.5) * length / size - 0.5
    return np.apply_along_axis(lambda line: np.interp(pixels, np.arange(length), line), -1, lines)


def test_every_pixel_is_where_interpolation_puts_it():
    torch.manual_seed(0)
    content = torch.rand(30, 3, 14, 11, dtype=torch.float64)
    z = ResizePad(nn.Identity(), 0.7).transform(torch.cat([content, ramps(30, 14, 11)], 1))
    sizes, starts = drawn(z[:, 3:])
    for image, result, (tall, wide), (top, left) in zip(content, z, sizes.tolist(), starts.tolist(), strict=True):
        # Inside its frame it is what torch's own resizing makes, ...
        small = F.interpolate(image[None], size=(tall, wide), mode="bilinear", align_corners=False)[0]
        torch.testing.assert_close(result[:3, top:top + tall, left:left + wide], small, atol=1e-6, rtol=0)
        # ... and the frame repeats the edges.
        expected = along(along(image.numpy(), wide, left).swapaxes(1, 2), tall, top).swapaxes(1, 2)
        np.testing.assert_allclose(result[:3], expected, atol=1e-6)


@pytest.mark.parametrize("shape", [(6, 3, 32, 32), (6, 1, 7, 13)], ids=str)
def test_borders_are_not_darkened(shape):
    torch.manual_seed(0)
    x = torch.ones(shape)
    torch.testing.assert_close(ResizePad(nn.Identity(), 0.5).transform(x), x, atol=1e-6, rtol=0)


def test_white_keeps_its_gradient():
    torch.manual_seed(0)
    x = torch.ones(20, 1, 15, 15).requires_grad_()
    gradient, = torch.autograd.grad(ResizePad(nn.Identity()).transform(x).sum(), x)
    assert abs(gradient.sum().item() - x.numel()) < 1e-2


@pytest.mark.parametrize("shape", [(2, 3, 224, 224), (2, 1, 5, 7), (2, 3, 1, 1), (1, 1, 1, 700)], ids=str)
def test_full_size_changes_nothing(shape):
    x = torch.rand(shape)
    torch.testing.assert_close(ResizePad(nn.Identity(), 1.0).transform(x), x, atol=1e-5, rtol=0)
    torch.manual_seed(0)
    many = ramps(200, 10, 10).float()
    z = ResizePad(nn.Identity(), 0.8).transform(many)
    whole = (drawn(z)[0] == 10).all(1)
    assert whole.any()
    torch.testing.assert_close(z[whole], many[whole], atol=1e-5, rtol=0)


def test_gradient_goes_through():
    defense = ResizePad(nn.Identity(), 0.6)
    x = (0.1 + 0.8 * torch.rand(3, 2, 6, 5, dtype=torch.float64)).requires_grad_()

    def seeded(z):
        torch.manual_seed(1)
        return defense.transform(z)

    assert torch.autograd.gradcheck(seeded, (x,))


def test_float64_draws_as_float32_does():
    x, defense = torch.rand(5, 3, 12, 12), ResizePad(nn.Identity())
    torch.manual_seed(2)
    single = defense.transform(x)
    torch.manual_seed(2)
    torch.testing.assert_close(defense.transform(x.double()).float(), single, atol=1e-5, rtol=0)


@pytest.mark.parametrize("smallest", [0, -0.5, 1.1, float("nan")])
def test_other_shares_are_refused(smallest):
    with pytest.raises(ValueError, match=f"over 0 and at most 1, a share of the image's size; found {smallest}"):
        ResizePad(nn.Identity(), smallest)
