"""What a figure claims must be what it draws: scales, regions, labels."""

import matplotlib as mpl
import pytest
import torch

mpl.use("Agg")

from matplotlib import pyplot as plt

from robustness_lib import ThreatModel, plotting
from robustness_lib.statistics import Accuracy


@pytest.fixture
def axes():
    plotting.use_style()
    figure, (axes,) = plotting.columns(1)
    yield axes
    plt.close(figure)


def pixels(axes):
    return torch.as_tensor(axes.images[0].get_array())


def test_images_are_enlarged_without_smoothing(axes):
    plotting.image(axes, torch.rand(3, 4, 4))
    assert axes.images[0].get_interpolation() == "nearest"
    assert axes.images[0].get_clim() == (0, 1)


def test_a_change_is_drawn_on_a_fixed_scale_of_eps(axes):
    eps = 8 / 255
    for share in (1, 0.5):  # a change that fills the scale, and one that fills half of it
        axes.clear()
        plotting.perturbation(axes, share * torch.tensor([-eps, 0.0, eps / 2, eps]).view(1, 2, 2), eps)
        expected = 0.5 + share * torch.tensor([[-0.5, 0.0], [0.25, 0.5]])
        torch.testing.assert_close(pixels(axes).float(), expected)
    assert axes.get_title() == "change, ×16"


def test_no_change_is_mid_grey(axes):
    plotting.perturbation(axes, torch.zeros(3, 2, 2), 0)
    assert (pixels(axes) == 0.5).all()
    assert axes.get_title() == "no change"


def test_regions_of_the_plane_are_the_models(axes):
    plotting.plane(axes, lambda p: torch.stack([p[:, 0], p[:, 1]], 1), torch.rand(4, 2), torch.tensor([0, 1, 0, 1]))
    regions = pixels(axes)  # rows are the second coordinate, from below
    assert regions[180, 20] == 1
    assert regions[20, 180] == 0
    assert len(axes.collections) == 2


def test_balls_have_the_threats_size(axes):
    plotting.ball(axes, ThreatModel("linf", 0.1), torch.tensor([0.5, 0.4]))
    plotting.ball(axes, ThreatModel("l2", 0.2), torch.tensor([0.5, 0.4]))
    square, circle = axes.patches
    assert square.get_bbox().bounds == pytest.approx((0.4, 0.3, 0.2, 0.2))
    assert circle.radius == 0.2


def test_curves_carry_their_intervals(axes):
    plotting.accuracy_curve(axes, [0, 8 / 255], [Accuracy(90, 100), Accuracy(10, 100)], "net")
    (line,) = axes.lines
    assert line.get_xdata() == pytest.approx([0, 8])
    assert line.get_ydata() == pytest.approx([0.9, 0.1])
    band = axes.collections[0].get_paths()[0].vertices[:, 1]
    assert band.min() == pytest.approx(Accuracy(10, 100).interval[0])
    assert band.max() == pytest.approx(Accuracy(90, 100).interval[1])


def test_the_sandwich_fills_from_the_proved_to_the_attacked(axes):
    plotting.sandwich(axes, Accuracy(60, 100), Accuracy(40, 100))
    widths = [(p.get_x(), p.get_width()) for p in axes.patches]
    assert widths == [pytest.approx(pair) for pair in ((0, 0.4), (0.4, 0.2), (0.6, 0.4))]
    assert [t.get_text() for t in axes.texts] == ["not broken\n60.0 %", "proved\n40.0 %"]


@pytest.mark.parametrize("proved", [60, 59, 50, 34, 0])
def test_words_over_the_sandwich_never_meet(axes, proved):
    axes.figure.set_size_inches(4.5, 1.3)
    plotting.sandwich(axes, Accuracy(60, 100), Accuracy(proved, 100))
    axes.figure.canvas.draw()
    words = [text.get_window_extent() for text in axes.texts]
    assert not any(a.overlaps(b) for i, a in enumerate(words) for b in words[:i])
    assert [text.get_text().endswith(f"{proved}.0 %") for text in axes.texts][-1]


def test_a_loss_surface_is_flat_across_and_steep_along(axes):
    x, up = torch.full((1, 2, 2), 0.5), torch.ones(1, 2, 2)
    across = torch.tensor([[[1.0, -1.0], [1.0, -1.0]]])
    plotting.loss_surface(axes, lambda z: z.sum((1, 2, 3)), x, (up, across), 0.1)
    assert axes.get_xlim() == pytest.approx((-25.5, 25.5))
