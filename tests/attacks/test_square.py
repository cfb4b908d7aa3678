"""The Square attack: the published schedule, windows and counts, and that it finds what gradients cannot show."""

import math

import pytest
import torch
from torch import nn

from robustness_lib import ThreatModel
from robustness_lib.attacks._squares import _bumps, _pyramid, l2_sides, linf_sides
from robustness_lib.attacks._windows import Windows, memory
from robustness_lib.attacks.square import SquareAttack
from robustness_lib.counter_random import bits
from robustness_lib.losses import margin_loss

LINF, L2 = ThreatModel("linf", 0.05), ThreatModel("l2", 0.5)
each_threat = pytest.mark.parametrize("threat", [LINF, L2], ids=["linf", "l2"])


def problem(n=12, shape=(3, 9, 7), spread=0.4, classes=4, dtype=torch.float64):
    """A random net with one hidden layer on any shape. Of its images some break at once, some late, some never."""
    generator = torch.Generator().manual_seed(2)
    d = math.prod(shape)
    first = torch.randn((d, 16), generator=generator, dtype=dtype) * 4 / math.sqrt(d)
    second = torch.randn((16, classes), generator=generator, dtype=dtype)
    x = 0.5 + spread * (torch.rand((n, *shape), generator=generator, dtype=dtype) - 0.5)

    def model(z):
        return torch.tanh((z.flatten(1) - 0.5) @ first) @ second

    return model, x, model(x).argmax(1)


def watched(attack, model, x, y, **options):
    steps = []
    return attack.run(model, x, y, on_step=steps.append, **options), steps


def bests(steps):
    """The best points so far, before each step from the second on."""
    best, loss = steps[0].x_adv.clone(), steps[0].loss.clone()
    for step in steps[1:]:
        yield best.clone(), step
        better = step.loss > loss
        best[better], loss[better] = step.x_adv[better], step.loss[better]


def boxes(changed):
    """Height and width of what is True in each image (N, H, W)."""
    def extent(lines):
        where = [line.nonzero()[:, 0] for line in lines]
        return [int(w.max() - w.min()) + 1 if len(w) else 0 for w in where]

    return extent(changed.any(2)), extent(changed.any(1))


# The schedule


@pytest.mark.parametrize(("queries", "scale"), [(10_000, 1), (5000, 2)])
def test_p_is_halved_past_each_mark(queries, scale):
    attack = SquareAttack(LINF, queries=queries)
    assert attack._share(1) == 0.8
    for halvings, mark in enumerate([10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000]):
        assert attack._share(mark // scale) == 0.8 / 2**halvings
        assert attack._share(mark // scale + 1) == 0.8 / 2 ** (halvings + 1)
    assert attack._share(queries) == 0.8 / 512


@pytest.mark.parametrize(("share", "size", "linf", "l2"), [
    (0.8, (32, 32), (29, 29), (29, 29)),
    (0.4, (32, 32), (20, 20), (21, 21)),
    (0.05, (32, 32), (7, 7), (7, 7)),
    (0.8 / 512, (32, 32), (1, 1), (3, 3)),
    (0.8 / 512, (5, 5), (1, 1), (3, 3)),
    (0.8, (4, 100), (4, 80), (4, 81)),
    (0.8, (100, 4), (80, 4), (81, 4)),
    (0.8, (1, 20), (1, 16), (1, 17)),
    (0.8, (1, 2), (1, 1), (1, 2)),
    (1.0, (6, 6), (6, 6), (6, 6)),
])
def test_sides_of_the_windows(share, size, linf, l2):
    assert linf_sides(share, *size) == linf
    assert l2_sides(share, *size) == l2


@each_threat
def test_windows_shrink_as_the_schedule_says(threat):
    model, x, y = problem(n=30, shape=(1, 20, 20))
    attack = SquareAttack(threat, queries=120, stop="never")
    _, steps = watched(attack, model, x, y)
    sides = linf_sides if threat.norm == "linf" else l2_sides
    seen = 0
    for best, step in bests(steps):
        side = sides(attack._share(step.step), 20, 20)[0]
        changed = ((step.x_adv - best).abs() > 1e-12).any(1)
        if threat.norm == "linf":
            heights, widths = boxes(changed)
            assert max(heights + widths) <= side
            seen += max(heights) == side and max(widths) == side
        else:  # two windows
            assert (changed.sum((1, 2)) <= 2 * side**2).all()
            seen += bool((changed.sum((1, 2)) > 1.5 * side**2).any()) or side > 10
    assert seen > 100  # the bound is used


# The windows


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("height", [1, 2, 3, 5])
@pytest.mark.parametrize("width", [1, 2, 4, 7])
def test_windows_lie_inside_the_image_and_reach_every_place(height, width, layout):
    images = torch.zeros(60, 2, height, width).contiguous(memory_format=layout)
    windows = Windows(images)
    for side_h in range(1, height + 1):
        for side_w in range(1, width + 1):
            corners = set()
            for step in range(5):
                images.zero_()
                draw = bits((), seed=0, index=torch.arange(60), step=step)
                memory(images).put_(windows.at(draw, side_h, side_w), torch.ones(side_h * side_w, 2, 60))
                assert (images.sum((2, 3)) == side_h * side_w).all()  # in each image, in each channel
                heights, widths = boxes(images[:, 0] > 0)
                assert set(heights) == {side_h}
                assert set(widths) == {side_w}
                corners |= {tuple(image.nonzero()[0].tolist()) for image in images[:, 1]}
            assert len(corners) == (height - side_h + 1) * (width - side_w + 1)


def test_pixels_of_a_window_keep_their_place_and_channel_in_any_memory_order():
    images = torch.arange(4 * 3 * 5 * 6.0).reshape(4, 3, 5, 6)
    draw = bits((), seed=1, index=torch.arange(4))
    expected = memory(images).take(Windows(images).at(draw, 2, 3))
    images = images.contiguous(memory_format=torch.channels_last)
    assert torch.equal(memory(images).take(Windows(images).at(draw, 2, 3)), expected)


@each_threat
@pytest.mark.parametrize("shape", [(2,), (20,), (5, 4), (1, 1, 1), (3, 2, 2), (3, 4, 11), (1, 11, 3), (2, 3, 4, 5)])
def test_images_of_any_shape(threat, shape):
    model, x, y = problem(shape=shape)
    result, steps = watched(SquareAttack(threat, queries=60, stop="never"), model, x, y)
    assert (result.distance <= threat.eps * (1 + 1e-9)).all()
    moved = torch.stack([s.x_adv != steps[0].x_adv for s in steps]).flatten(2).any(1).any(0)
    assert moved.any()
    assert moved.all() or math.prod(shape) > 3  # every pixel has its turn, or there were few queries for them


def test_windows_differ_between_the_images_of_a_batch_and_from_query_to_query():
    model, x, y = problem(n=20, shape=(1, 16, 16))
    _, steps = watched(SquareAttack(LINF, queries=40, stop="never"), model, x, y)
    for best, step in list(bests(steps))[10:]:
        changed = (step.x_adv != best).flatten(1)
        assert len(changed.unique(dim=0)) > 10
    first = torch.stack([(step.x_adv != best)[0].flatten() for best, step in list(bests(steps))[10:]])
    assert len(first.unique(dim=0)) > 20


def test_windows_do_not_come_again_when_new_numbers_are_drawn():
    _, x, y = problem(n=1, shape=(1, 30, 30))
    attack = SquareAttack(LINF, queries=150, p_init=1e-3, stop="never")  # always one pixel, and none ever kept
    _, steps = watched(attack, lambda z: torch.zeros(len(z), 2), x, y * 0)
    places = torch.stack([(step.x_adv != steps[0].x_adv).flatten() for step in steps[1:]])
    assert (places.sum(1) == 1).all()
    assert len(places.unique(dim=0)) > 120  # of 149 among 900, some twice by chance


# L∞


def test_the_start_is_vertical_stripes_of_eps_one_sign_per_channel_and_column():
    model, x, y = problem(n=30)
    _, steps = watched(SquareAttack(LINF, queries=1, stop="never"), model, x, y)
    assert len(steps) == 1
    delta = steps[0].x_adv - x
    torch.testing.assert_close(delta.abs(), torch.full_like(x, 0.05))
    assert (delta.sign() == delta.sign()[:, :, :1]).all()  # the same down each column
    signs = delta[:, :, 0].sign().flatten(1)
    assert len(signs.unique(dim=0)) == 30
    assert (signs.mean(0).abs() < 0.75).all()  # of 30 fair coins: 15 ± 11
    assert signs.mean().abs() < 0.2


def test_the_box_cuts_the_stripes_off():
    model, x, y = problem()
    _, steps = watched(SquareAttack(LINF, queries=1, stop="never"), model, x.round(), y)
    values = steps[0].x_adv
    assert ((values == x.round()) | ((values - x.round()).abs() - 0.05).abs().lt(1e-12)).all()
    assert ((values >= 0) & (values <= 1)).all()


def test_candidates_change_one_window_to_plus_or_minus_eps_one_sign_per_channel():
    model, x, y = problem()
    attack = SquareAttack(LINF, queries=80, stop="never")
    _, steps = watched(attack, model, x, y)
    patterns = set()
    for best, step in bests(steps):
        delta, changed = step.x_adv - x, step.x_adv != best
        torch.testing.assert_close(delta.abs(), torch.full_like(x, 0.05))
        assert changed.flatten(1).any(1).all()  # no query is wasted
        assert (changed.sum((1, 2, 3)) <= 3 * math.prod(linf_sides(attack._share(step.step), 9, 7))).all()
        for example in range(len(x)):
            signs = [delta[example, c][changed[example, c]].sign().unique().tolist() for c in range(3)]
            assert all(len(s) <= 1 for s in signs)
            patterns.add(tuple(s[0] if s else 0 for s in signs))
    assert len({p for p in patterns if 0 not in p}) == 8  # the channels' signs are independent


def test_on_a_linear_model_it_comes_close_to_the_optimum():
    """The margin can rise by ε‖w‖₁ and no more. Published numbers are of images; this is the same search on 20."""
    generator = torch.Generator().manual_seed(4)
    w = torch.randn(20, generator=generator, dtype=torch.float64)
    x = 0.5 + 0.1 * torch.rand((40, 20), generator=generator, dtype=torch.float64) - 0.05

    def model(z):
        score = (z.flatten(1) - 0.5) @ w
        return torch.stack([torch.zeros_like(score), score], 1)

    y = model(x).argmax(1)
    for threat, optimum, share in ((ThreatModel("linf", 0.01), 0.01 * w.abs().sum(), 0.95),
                                   (ThreatModel("l2", 0.05), 0.05 * w.norm(), 0.65)):
        for images in (x, x.reshape(40, 1, 4, 5)):
            x_adv = SquareAttack(threat, queries=600, stop="never")(model, images, y)
            gain = (margin_loss(model(x_adv), y) - margin_loss(model(x), y)) / optimum
            assert gain.mean() > share
            assert (gain <= 1 + 1e-9).all()


# L2


def test_the_bumps_are_those_published():
    like = torch.zeros(1, dtype=torch.float64)
    # Rings 0, 1, 2 around the middle of 5×5: 1 + 1/4 + 1/9, 1/4 + 1/9, 1/9.
    heights = _pyramid(5, 5, like)[2] / _pyramid(5, 5, like)[0, 0]
    torch.testing.assert_close(heights, torch.tensor([1, 3.25, 12.25, 3.25, 1], dtype=like.dtype))
    upright, lying = (bump.reshape(7, 7) for bump in _bumps(7, 7, like))
    torch.testing.assert_close(upright, lying.T)
    assert (upright[:3] > 0).all()
    assert (upright[3:] < 0).all()
    torch.testing.assert_close(upright[:3].norm(), upright[3:].norm())
    torch.testing.assert_close(upright[:3] / upright[1, 3], _pyramid(3, 7, like) / _pyramid(3, 7, like)[1, 3])
    for size in ((1, 1), (1, 2), (2, 1), (3, 3), (1, 5), (4, 19)):
        for bump in _bumps(*size, like):
            assert bump.norm() == pytest.approx(1)


def test_the_l2_start_is_a_grid_of_bumps_of_length_eps():
    model, x, y = problem(n=10, shape=(2, 32, 32))
    _, steps = watched(SquareAttack(L2, queries=1, stop="never"), model, x, y)
    delta = steps[0].x_adv - x
    torch.testing.assert_close(delta.flatten(1).norm(dim=1), torch.full((10,), 0.5, dtype=x.dtype))
    tiles = delta[:, :, 1:31, 1:31].unfold(2, 6, 6).unfold(3, 6, 6).flatten(4)  # (N, C, 5, 5, 36)
    frame = delta.clone()
    frame[:, :, 1:31, 1:31] = 0
    assert frame.abs().max() < 1e-12  # 32 = 1 + 5·6 + 1
    torch.testing.assert_close(tiles.norm(dim=-1), torch.full((10, 2, 5, 5), 0.5 / math.sqrt(50), dtype=x.dtype))
    found = (tiles / tiles.norm(dim=-1, keepdim=True)).round(decimals=6).flatten(0, 3).unique(dim=0)
    assert len(found) == 4  # two orientations, two signs


def test_l2_uses_up_its_budget_and_stays_inside():
    model, x, y = problem(n=20, shape=(3, 12, 12), dtype=torch.float32)
    result, steps = watched(SquareAttack(L2, queries=400, stop="never"), model, x, y)
    for step in steps:
        torch.testing.assert_close(L2.distance(step.x_adv, x), torch.full((20,), 0.5).double(), rtol=1e-5, atol=0)
    assert result.distance.max() <= 0.5 * (1 + 1e-6)


def test_l2_at_the_faces_of_the_box():
    model, x, _ = problem(n=20, shape=(3, 12, 12), spread=1.5, dtype=torch.float32)
    x = x.clamp(0, 1)
    threat = ThreatModel("l2", 2.0)
    result, steps = watched(SquareAttack(threat, queries=400, stop="never"), model, x, model(x).argmax(1))
    assert all((threat.distance(s.x_adv, x) <= 2 * (1 + 1e-6)).all() for s in steps)
    assert all(((s.x_adv >= 0) & (s.x_adv <= 1)).all() for s in steps)
    assert (threat.distance(steps[0].x_adv, x) < 1.85).all()  # the box has cut something off ...
    assert (result.distance > 1.9).all()  # ... and what was missing is used elsewhere


def test_l2_candidates_empty_one_window_into_another():
    model, x, y = problem(n=30, shape=(1, 20, 20))
    attack = SquareAttack(L2, queries=100, stop="never")
    _, steps = watched(attack, model, x, y)
    emptied = 0
    for best, step in bests(steps):
        before, after = best - x, step.x_adv - x
        changed = (before - after).abs() > 1e-12
        assert changed.flatten(1).any(1).float().mean() > 0.8  # two windows without any change in them stay so
        emptied += bool(((after.abs() < 1e-15) & (before.abs() > 1e-9)).any())
    assert emptied > 90


# The search


@each_threat
def test_the_highest_loss_is_kept(threat):
    model, x, y = problem(n=30)
    result, steps = watched(SquareAttack(threat, queries=100, stop="never"), model, x, y)
    losses = torch.stack([s.loss for s in steps])
    assert len(losses) == 100
    torch.testing.assert_close(margin_loss(model(result.x_adv), y), losses.amax(0), rtol=0, atol=1e-9)
    assert len(losses.argmax(0).unique()) > 8
    assert (losses.argmax(0) > 30).any()
    for best, step in bests(steps):  # what is shown is what was asked
        torch.testing.assert_close(margin_loss(model(step.x_adv), y), step.loss, rtol=0, atol=1e-9)
        assert best.shape == x.shape
    assert (result.queries == 100).all()
    assert (result.gradients == 0).all()
    assert result.calls == 100


@each_threat
def test_resisting_examples_come_back_at_their_highest_loss_too(threat):
    model, x, y = problem(n=30)
    threat = threat.with_eps(threat.eps / 2)
    result, steps = watched(SquareAttack(threat, queries=60), model, x, y)
    highest = torch.full((30,), -torch.inf, dtype=x.dtype)
    for step in steps:
        highest[step.rows] = torch.maximum(highest[step.rows], step.loss)
    assert 3 < result.success.sum() < 27
    resists = ~result.success
    torch.testing.assert_close(margin_loss(model(result.x_adv), y)[resists], highest[resists], rtol=0, atol=1e-9)


@each_threat
@pytest.mark.parametrize("queries", [1, 2, 50])
def test_queries_are_counted_per_example(threat, queries):
    """One for the image, one for the start, one for each window, until the first success."""
    model, x, y = problem(n=30)
    y[:4] = (y[:4] + 1) % 4  # wrong from the start
    asked = []

    def counting(z):
        asked.append(len(z))
        return model(z)

    result, steps = watched(SquareAttack(threat, queries=queries), counting, x, y)
    first = torch.full((30,), queries)
    for step in reversed(steps):
        first[step.rows[step.success]] = step.step + 1
    expected = torch.where(torch.arange(30) < 4, 1, 1 + first)
    assert torch.equal(result.queries, expected)
    assert result.calls == len(asked) <= 1 + queries
    assert sum(asked) >= result.queries.sum()
    assert torch.equal(result.x_adv[:4], x[:4])
    if queries == 50:
        assert len(result.queries.unique()) > 4
        assert sum(asked) < 0.95 * 30 * 51  # the finished leave


@each_threat
def test_a_batch_wholly_broken_at_the_start_costs_one_query_each(threat):
    model, x, y = problem()
    result = SquareAttack(threat).run(model, x, (y + 1) % 4)
    assert result.success.all()
    assert torch.equal(result.x_adv, x)
    assert (result.queries == 1).all()
    assert result.calls == 1


@each_threat
def test_a_batch_that_breaks_at_the_first_candidate_ends_there(threat):
    _, x, y = problem()

    def brittle(z):
        moved = (z - x).abs().flatten(1).sum(1)
        return torch.stack([moved, torch.full_like(moved, 1e-9)], 1)

    result = SquareAttack(threat).run(brittle, x, y * 0 + 1)
    assert result.success.all()
    assert (result.queries == 2).all()
    assert result.calls == 2


@each_threat
def test_what_an_example_gets_does_not_depend_on_who_is_with_it(threat):
    model, x, y = problem(n=24)
    y[::2] = (y[::2] + 1) % 4  # half are wrong from the start
    for stop in ("success", "never"):
        attack = SquareAttack(threat, queries=90, stop=stop)  # two blocks of random numbers
        whole = attack.run(model, x, y)
        order = torch.randperm(24, generator=torch.Generator().manual_seed(0))
        for rows in (order, torch.arange(1, 24, 2), torch.tensor([5])):
            part = attack.run(model, x[rows], y[rows], index=rows)
            torch.testing.assert_close(part.x_adv, whole.x_adv[rows], rtol=0, atol=1e-9)
            assert torch.equal(part.queries, whole.queries[rows])
            assert torch.equal(part.success, whole.success[rows])


@each_threat
def test_the_memory_order_of_the_images_changes_nothing(threat):
    """A convolutional net in float32 is attacked with channels last, a function around it is not."""
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3)).eval()
    x = torch.rand(6, 3, 9, 7, generator=torch.Generator().manual_seed(0))
    y = net(x).argmax(1)
    strides = []
    net.register_forward_pre_hook(lambda module, inputs: strides.append(inputs[0].stride(1)))
    flat = {}
    for name, model in (("net", net), ("function", lambda z: net(z))):
        strides.clear()
        _, steps = watched(SquareAttack(threat, queries=2, stop="never"), model, x, y)
        assert set(strides) == {1 if name == "net" else 63}
        flat[name] = torch.stack([s.x_adv for s in steps])
    torch.testing.assert_close(flat["net"], flat["function"], rtol=0, atol=1e-6)


@each_threat
def test_it_finds_errors_that_gradients_cannot_see(threat):
    model, x, y = problem(n=30)

    @torch.no_grad()
    def stairs(z):
        return model((z * 50).round() / 50).round(decimals=2)

    y = stairs(x).argmax(1)
    result = SquareAttack(threat, queries=300).run(stairs, x, y)
    assert result.success.sum() > 10
    assert torch.equal(stairs(result.x_adv).argmax(1) != y, result.success)
    assert result.warnings == ()


@each_threat
def test_targets_are_reached_and_approached(threat):
    model, x, y = problem(n=30)
    target = (y + 1) % 4
    result, steps = watched(SquareAttack(threat, queries=200, stop="never"), model, x, y, target=target)
    assert torch.equal(result.success, model(result.x_adv).argmax(1) == target)
    assert result.success.any()
    torch.testing.assert_close(-margin_loss(model(result.x_adv), target), torch.stack([s.loss for s in steps]).amax(0),
                               rtol=0, atol=1e-9)


@each_threat
def test_it_begins_where_it_is_told_to(threat):
    model, x, y = problem()
    start = x + 0.3 * torch.sin(torch.arange(x[0].numel(), dtype=x.dtype)).reshape(x.shape[1:])
    _, steps = watched(SquareAttack(threat, queries=3, stop="never"), model, x, y, start=start)
    torch.testing.assert_close(steps[0].x_adv, threat.project(start, x))


@each_threat
def test_other_seeds_and_examples_get_other_numbers(threat):
    model, x, y = problem(n=2)
    x, y = x[:1].repeat(2, 1, 1, 1), y[:1].repeat(2)
    _, steps = watched(SquareAttack(threat, queries=20, stop="never"), model, x, y)
    assert not torch.equal(steps[0].x_adv[0], steps[0].x_adv[1])
    _, same = watched(SquareAttack(threat, queries=20, stop="never"), model, x, y, index=torch.tensor([1, 1]))
    assert all(torch.equal(s.x_adv[0], s.x_adv[1]) for s in same)
    assert torch.equal(same[0].x_adv[0], steps[0].x_adv[1])
    _, reseeded = watched(SquareAttack(threat, queries=20, seed=1, stop="never"), model, x, y)
    assert not torch.equal(steps[0].x_adv, reseeded[0].x_adv)


@each_threat
def test_an_answer_that_is_no_number_is_never_kept(threat):
    model, x, y = problem()
    asked = []

    def sometimes(z):
        asked.append(1)
        return model(z) * (torch.nan if len(asked) % 3 == 0 else 1)

    result = SquareAttack(threat, queries=40, stop="never").run(sometimes, x, y)
    expected = SquareAttack(threat, queries=40, stop="never").run(model, x, y)
    assert (margin_loss(model(result.x_adv), y) > margin_loss(model(x), y)).all()
    assert (margin_loss(model(result.x_adv), y) - margin_loss(model(expected.x_adv), y)).mean() < 0
    assert (result.distance <= threat.eps * (1 + 1e-9)).all()


def test_a_model_that_changes_its_input_is_refused():
    model, x, y = problem()
    with pytest.raises(ValueError, match="changes its input in place"):
        SquareAttack(LINF, queries=5, stop="never").run(lambda z: model(z.mul_(0.999)), x, y)


@pytest.mark.parametrize(("options", "error", "words"), [
    ({"queries": 0}, ValueError, "queries must be at least 1"),
    ({"queries": 10.0}, TypeError, "queries must be a whole number"),
    ({"p_init": 0}, ValueError, r"p_init must lie in \(0, 1\]"),
    ({"p_init": 1.1}, ValueError, r"p_init must lie in \(0, 1\]"),
    ({"p_init": float("nan")}, ValueError, r"p_init must lie in \(0, 1\]"),
    ({"p_init": "0.8"}, TypeError, "p_init must be a number"),
    ({"seed": 0.5}, TypeError, "seed must be a whole number"),
])
def test_wrong_settings_are_refused_in_words(options, error, words):
    with pytest.raises(error, match=words):
        SquareAttack(LINF, **options)
    assert SquareAttack(LINF, p_init=1).p_init == 1
    assert SquareAttack(LINF).loss == "margin"
