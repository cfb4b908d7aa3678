"""What every activation says of its curve is right: pieces, turning points, slope; and so its intervals and lines are.

An activation that is added is found here by itself. Only one that PyTorch does not call with its input alone needs a
line in SETTINGS.
"""

import itertools
import math
import re
from pathlib import Path

import pytest
import torch

from robustness_lib.certify import UnknownOperation
from robustness_lib.certify.curves import Activation, Piece
from robustness_lib.certify.operation import Box, Call, Slot
from robustness_lib.certify.traced_network import trace  # noqa: F401 - which knows all modules with rules

ROOT = Path(__file__).resolve().parents[2]

# What follows the input in a call: arguments by place, and by name. Several where the curve depends on them.
SETTINGS = {
    "clamp": [((-0.5, 0.7), {}), ((None, 1.0), {}), ((-1.0,), {})],
    "clip": [((None, 0.5), {})],
    "clamp_min": [((-0.3,), {})],
    "clamp_max": [((0.4,), {})],
    "hardtanh": [((), {}), ((-0.2, 3.0), {})],
    "elu": [((), {}), ((0.5,), {}), ((2.5, 1.5, 0.7), {})],
    "celu": [((), {}), ((0.3,), {}), ((4.0,), {})],
    "softplus": [((), {}), ((3.0,), {}), ((0.5, 30.0), {})],
    "gelu": [((), {}), ((), {"approximate": "tanh"})],
    "pow": [((2,), {})],
    "mul": [((Slot(0),), {})],
}


def activations(kind=Activation):
    for sub in kind.__subclasses__():
        if sub.__module__.startswith("robustness_lib."):
            yield from [sub] if sub.names else []
            yield from activations(sub)


def call_of(name, args=(), **kwargs):
    one = torch.Size([1])
    return Call(getattr(torch.ops.aten, name), (Slot(0), *args), kwargs, None, (one,), one, "the layer")


def every_curve():
    """Each activation, as each call that it stands for."""
    for kind in activations():
        calls = [(name, args, kwargs) for name in kind.names for args, kwargs in SETTINGS.get(name, [((), {})])]
        for name, args, kwargs in calls:
            call = call_of(name, args, **kwargs)
            if kind.fits(call):
                yield pytest.param(kind, call, id=f"{kind.__name__}-{name}{[*args, *kwargs.values()] or ''}")


curves = pytest.mark.parametrize(("kind", "call"), list(every_curve()))


def grid(piece):
    """Values on a piece: evenly, and ever closer to its ends (N, 1)."""
    closer = torch.logspace(-12, -3, 37, dtype=torch.float64)
    values = [torch.linspace(-30, 30, 30001, dtype=torch.float64)]
    for end in (piece.start, piece.end):
        if math.isfinite(end):
            values += [torch.tensor([end], dtype=torch.float64), end - closer, end + closer]
    v = torch.cat(values).sort().values
    return v[(v >= piece.start) & (v <= piece.end), None]


def test_every_activation_has_a_curve_here():
    assert {param.values[0] for param in every_curve()} == set(activations()), \
        "a class fits none of its calls: write in SETTINGS what its function is called with"


@curves
def test_pieces_follow_one_another(kind, call):
    pieces, turning = kind(call).shape()
    assert pieces[0].start == -math.inf
    assert pieces[-1].end == math.inf
    assert all(one.end == other.start for one, other in itertools.pairwise(pieces))
    assert list(turning) == sorted(turning)


@curves
def test_slope_is_that_of_the_curve(kind, call):
    """Between two values, the curve rises as fast as its slopes at the two say, or between; it does not jump."""
    activation = kind(call)
    for piece in activation.shape()[0]:
        v = grid(piece)
        f, slope, step = activation(v), activation.slope(v), v.diff(dim=0)
        least, most = (torch.stack([slope[1:], slope[:-1]]).amin(0), torch.stack([slope[1:], slope[:-1]]).amax(0))
        # Softplus steps down by 2e-9 where PyTorch goes on straight.
        slack = 3e-9 + 1e-14 * torch.maximum(f[1:].abs(), f[:-1].abs())
        assert (f.diff(dim=0) >= least * step - slack).all()
        assert (f.diff(dim=0) <= most * step + slack).all()


@curves
def test_each_piece_is_bent_as_it_says(kind, call):
    """The slope rises on a convex piece and falls on a concave one, up to the last digits of where these meet."""
    activation = kind(call)
    for piece in activation.shape()[0]:
        sign, v = 1 if piece.convex else -1, grid(piece)
        v = v[(v > piece.start) & (v < piece.end), None].requires_grad_()  # at a bend, the slope is of either side
        slope = activation.slope(v)
        assert (sign * slope.diff(dim=0) >= -1e-14 * (1 + slope[1:].abs())).all(), f"not so on {piece}"
        if slope.requires_grad:
            (bend,) = torch.autograd.grad(slope.sum(), v)
            assert (sign * bend >= -4e-15 * (1 + slope.abs())).all(), f"not so on {piece}"


@curves
def test_it_turns_where_it_says(kind, call):
    activation = kind(call)
    turning = activation.shape()[1]
    for start, end in itertools.pairwise([-math.inf, *turning, math.inf]):
        slope = activation.slope(grid(Piece(start, end, True))[1:-1])
        assert (slope >= -1e-15).all() or (slope <= 1e-15).all(), f"it turns between {start} and {end}"
    for point in turning:
        beside = activation.slope(torch.tensor([[point - 1e-12], [point + 1e-12]], dtype=torch.float64))
        assert beside.prod() < 0, f"it does not turn at {point}"


def random_boxes(activation):
    """Of all widths, near and far, some with an end where the curve bends or turns (N, 1)."""
    generator = torch.Generator().manual_seed(0)
    centre, size = torch.randn(2, 3000, 1, dtype=torch.float64, generator=generator)
    width = 10 ** (4 * torch.rand(3000, 1, dtype=torch.float64, generator=generator) - 2.5)
    lower = centre * 10 ** size.clamp(-1, 1) - width / 2
    pieces, turning = activation.shape()
    special = [end for end in [*(piece.end for piece in pieces), *turning] if math.isfinite(end)]
    for k, point in enumerate(special):
        lower[k::100] = point
        lower[50 + k::100] = point - width[50 + k::100]
    return Box(lower, lower + width), special


@curves
def test_intervals_and_lines_hold_the_curve(kind, call):
    activation = kind(call)
    box, special = random_boxes(activation)
    inside = torch.lerp(box.lower, box.upper, torch.linspace(0, 1, 201, dtype=torch.float64))
    bends = [torch.full_like(box.lower, point).clamp(*box) for point in special]
    inside = torch.cat([inside, *bends], dim=1)
    f = activation(inside)
    slack = 3e-9 + 1e-12 * f.abs().amax(1, keepdim=True)  # and softplus's step
    found = activation.interval(box)
    assert (f >= found.lower - slack).all()
    assert (f <= found.upper + slack).all()
    assert (f.amin(1, keepdim=True) <= found.lower + slack).all()
    assert (f.amax(1, keepdim=True) >= found.upper - slack).all()
    band = activation.relax([box])
    for below, above in zip(band.lower, band.upper, strict=True):
        assert (below.slope * inside + below.offset <= f + slack).all()
        assert (above.slope * inside + above.offset >= f - slack).all()
        # And they touch it: another offset would be worse.
        gaps = [(f - below.slope * inside - below.offset), (above.slope * inside + above.offset - f)]
        near = 1e-2 * box.width * (1 + below.slope.abs() + above.slope.abs()) + slack
        assert all((gap.amin(1, keepdim=True) <= near).all() for gap in gaps)


@curves
def test_nowhere_in_a_box_is_it_steeper(kind, call):
    activation = kind(call)
    box, special = random_boxes(activation)
    inside = torch.lerp(box.lower, box.upper, torch.linspace(0, 1, 201, dtype=torch.float64))
    beside = [point + side for point in special for side in (-1e-9, 0, 1e-9)]
    inside = torch.cat([inside, *(torch.full_like(box.lower, point).clamp(*box) for point in beside)], dim=1)
    slopes = activation.slope(inside).abs().amax(1, keepdim=True)
    assert (slopes <= activation.steepest(box) * (1 + 1e-6) + 1e-12).all()


def test_a_softplus_that_jumps_is_refused():
    (kind,) = [kind for kind in activations() if "softplus" in kind.names]
    with pytest.raises(UnknownOperation, match="threshold"):
        kind(call_of("softplus", (1.0, 5.0)))


def test_the_recipe_of_contributing_is_what_stands_in_the_library(capsys):
    """What it shows stands in the library, and the numbers there are what its root finder finds."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), flags=re.S)
    finder, shown = blocks
    source = (ROOT / "robustness_lib/certify/activations.py").read_text(encoding="utf-8")
    assert shown in source
    exec(finder, {})
    found = [float(number) for number in capsys.readouterr().out.split()]
    (kind,) = [kind for kind in activations() if "mish" in kind.names]
    assert found == [kind.pieces[0].end, kind.pieces[1].end, *kind.turning]
