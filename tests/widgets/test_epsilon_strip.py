"""The printed twin of the slider."""

from __future__ import annotations

import pytest
from torch import Tensor, nn

from robustness_lib.attacks import PGD
from robustness_lib.threat import ThreatModel
from robustness_lib.widgets import epsilon_frames, epsilon_strip

ATTACK = PGD(ThreatModel("linf", 8 / 255), steps=3)


def test_draws_the_four_epsilons_of_the_slider_with_a_caption(model: nn.Sequential, image: Tensor) -> None:
    frames = epsilon_frames(model, image, 2, ATTACK, [k / 255 for k in range(17)])
    figure = epsilon_strip(frames)
    assert figure.get_figwidth() == 4.5
    titles = [axes.get_title().splitlines()[0] for axes in figure.axes if axes.get_title()]
    assert titles == ["ε = 0", "ε = 2/255", "ε = 4/255", "ε = 8/255"]
    pictures = [axes.get_images()[0].get_array() for axes in figure.axes]
    drawn = [frames[k] for k in (0, 2, 4, 8)]
    assert all((picture == frame.adversarial).all() for picture, frame in zip(pictures[::2], drawn, strict=True))
    assert all((picture == frame.perturbation).all() for picture, frame in zip(pictures[1::2], drawn, strict=True))
    caption = " ".join(figure.texts[0].get_text().split())
    assert "under attack" in caption
    assert "magnified 8 times" in caption
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_the_caption_names_the_first_mistake(model: nn.Sequential, image: Tensor) -> None:
    wrong = next(k for k in range(5) if k != int(model(image[None]).argmax()))
    figure = epsilon_strip(model, image, wrong, ATTACK)
    assert "first wrong at ε = 0 " in " ".join(figure.texts[0].get_text().split())


def test_no_frame_to_draw(model: nn.Sequential, image: Tensor) -> None:
    frames = epsilon_frames(model, image, 2, ATTACK, [k / 1000 for k in range(1, 8)])
    with pytest.raises(ValueError, match="no frame to draw"):
        epsilon_strip(frames)
    with pytest.raises(TypeError, match="needs"):
        epsilon_strip(model, image)
