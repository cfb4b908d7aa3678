"""Only for pgd_and_restarts: what its checks compare with, and walks that stop early."""

import torch
from answers import marked
from pgd_and_restarts_answers import pgd_that_stops

from robustness_lib import ThreatModel
from robustness_lib.attacks import PGD
from robustness_lib.grading import pgd_and_restarts as checks
from robustness_lib.grading.given import pgd_and_restarts as given
from robustness_lib.grading.linear_models import linear_scores
from robustness_lib.grading.pgd_and_restarts.one_walk import bumpy_walk
from robustness_lib.grading.pgd_and_restarts.points_seen import PointsSeen, distinct
from robustness_lib.grading.pgd_and_restarts.slopes import FlatFloor, ForkedSlope
from robustness_lib.grading.pgd_and_restarts.walks import walk
from robustness_lib.grading.returned_values import misread
from robustness_lib.losses import margin_loss


def test_the_given_walk_and_the_one_to_compare_with_are_the_librarys():
    track = bumpy_walk(checks.PgdAndRestartsTask(), 24, 8)
    seen = []
    theirs = PGD(ThreatModel("linf", track.eps), steps=8, stop="never").run(
        track.model, track.x, track.y, start=track.start, on_step=lambda step: seen.append(step.x_adv))
    read = track.answers() == track.y  # the library leaves images that are misread as they are
    for ours, point in zip(walk(track), seen, strict=False):
        if len(point) == len(track.x):
            assert torch.allclose(ours[read], point[read], atol=1e-6)
    mine = given.pgd(track.model, track.x, track.y, track.eps, 8, track.start)
    with torch.no_grad():
        broken = margin_loss(track.model(mine), track.y) > 0
    assert torch.equal(broken[read], theirs.success[read])


def test_the_given_walk_reaches_the_corner_of_a_linear_model():
    model = linear_scores((1, 3, 3), 2, torch.Generator().manual_seed(0)).eval()
    x, y = torch.full((2, 1, 3, 3), 0.5), torch.tensor([0, 1])
    end = given.pgd(model, x, y, 0.1, 6, x)
    weights = (model[-1].weight[1] - model[-1].weight[0]).detach().sign().reshape(1, 3, 3)
    assert torch.allclose(end, x + 0.1 * torch.stack([weights, -weights]), atol=1e-6)


def test_on_a_forked_slope_half_of_all_walks_break_an_image():
    model = ForkedSlope(0.1)
    draw = torch.Generator().manual_seed(0)
    x, y = model.images(400, draw)
    assert not misread(model, x, y).any()
    end = given.pgd(model, x, y, 0.045, 2, given.random_start(x, 0.045, draw))
    assert 0.4 < misread(model, end, y).float().mean() < 0.6


def test_a_flat_floor_shows_no_gradient():
    model = FlatFloor(linear_scores((1, 4, 4), 3, torch.Generator().manual_seed(0)).eval())
    pixels = ((16 * torch.rand(5, 1, 4, 4)).round() / 16).requires_grad_()
    assert torch.equal(torch.autograd.grad(model(pixels)[:, 0].sum(), pixels)[0], torch.zeros_like(pixels))
    assert torch.allclose(model(pixels), model.model(pixels))


def test_points_are_noted_by_image_whatever_the_order():
    x = torch.tensor([0.1, 0.5, 0.9]).reshape(3, 1, 1, 1)
    asked = PointsSeen(linear_scores((1, 1, 1), 2, torch.Generator().manual_seed(0)).eval(), x)
    asked.eval()(x[[2, 0]] + 0.01)
    asked((x[[0]] + 0.01).requires_grad_())
    assert [len(points) for points in asked.seen] == [2, 0, 1]
    assert [len(distinct(points)) for points in asked.seen] == [1, 0, 1]
    assert asked.gradients.tolist() == [1, 0, 0]
    assert not asked.in_train_mode


def test_a_walk_that_stops_where_an_image_is_broken_loses_only_what_it_leaves_out():
    points, of, said = marked(checks.pgd, pgd_that_stops)
    assert 0.6 * of < points <= of, said
