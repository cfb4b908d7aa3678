"""Pictures of examples: pixel for pixel, and the change on the scale that the page names."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

from robustness_lib.reports.pictures import picture

EPS = 8 / 255


def pixels(png: str) -> np.ndarray:
    """(H, W, 3) bytes of a PNG file in base64."""
    image = Image.open(io.BytesIO(base64.b64decode(png, validate=True)))
    assert (image.format, image.mode) == ("PNG", "RGB")
    return np.asarray(image)


def show(x, x_adv, norm="linf", eps=EPS):
    return picture(7, 2, 5, "pgd-20", x.numpy(), x_adv.numpy(), eps, norm)


def example(channels=3, height=2, width=4):
    x = torch.arange(channels * height * width).reshape(channels, height, width).float() * 5 + 60
    return x / 255


def test_images_are_shown_pixel_for_pixel():
    x = example()
    x_adv = x + EPS
    shown = show(x, x_adv)
    assert (shown.index, shown.label, shown.mistaken_for, shown.attack) == (7, 2, 5, "pgd-20")
    for png, image in ((shown.clean, x), (shown.adversarial, x_adv)):
        assert np.array_equal(pixels(png), (image * 255).round().byte().permute(1, 2, 0).numpy())


def test_under_linf_plus_and_minus_eps_fill_the_scale():
    x = example()
    change = torch.zeros_like(x)
    change[:, 0, 0], change[:, 0, 1], change[0, 0, 2] = EPS, -EPS, EPS / 2
    seen = pixels(show(x, x + change).change)
    assert seen[0, 0].tolist() == [255, 255, 255]
    assert seen[0, 1].tolist() == [0, 0, 0]
    assert seen[0, 2].tolist() == [191, 128, 128]
    assert set(seen[1].ravel().tolist()) == {128}  # mid-grey where nothing changed
    small = pixels(show(x, x + change / 4).change)
    assert small[0, 0].tolist() == [159, 159, 159]  # the scale is fixed: a smaller change looks smaller


def test_under_l2_the_largest_change_fills_the_scale():
    x = example()
    change = torch.zeros_like(x)
    change[:, 0, 0], change[:, 0, 1] = 0.02, -0.2
    seen = pixels(show(x, x + change, "l2", eps=1.0).change)
    assert seen[0, 1].tolist() == [0, 0, 0]
    assert seen[0, 0].tolist() == [140, 140, 140]
    assert seen[1, 1].tolist() == [128, 128, 128]


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_no_change_is_grey_and_no_division_by_zero(norm):
    assert set(pixels(show(example(), example(), norm, eps=0.0).change).ravel().tolist()) == {128}


def test_one_channel_is_drawn_in_grey():
    x = example(channels=1)
    seen = pixels(show(x, x + EPS).clean)
    assert seen.shape == (2, 4, 3)
    assert np.array_equal(seen[..., 0], (x[0] * 255).round().byte().numpy())
    assert np.array_equal(seen[..., 0], seen[..., 2])


@pytest.mark.parametrize("shape", [(2,), (2, 4, 4), (4, 4, 4), (3, 4), (1, 3, 4, 4), (3, 0, 4)])
def test_what_is_no_image_has_no_picture(shape):
    assert show(torch.zeros(shape), torch.zeros(shape)) is None


def test_two_shapes_are_refused():
    with pytest.raises(ValueError, match=r"\(3, 2, 4\) and the adversarial one \(1, 2, 4\)"):
        show(example(), example(channels=1))
