"""Each operation alone: what its bounds say, beside what it does."""

import pytest
import torch
from operation_cases import AFFINE, ALL, IN_PLACE, JUMPS, POINTWISE, POOLING, Together, groups
from tries import drawn

from robustness_lib import ThreatModel
from robustness_lib.certify import trace
from robustness_lib.certify.alpha_crown import optimized_least
from robustness_lib.certify.enclosure import Enclosure
from robustness_lib.certify.input_region import InputRegion
from robustness_lib.certify.operation import Operation, known_operations
from robustness_lib.certify.relaxation import SLOPES

POINTS = 240
EPS = {"linf": 0.1, "l2": 0.3}


class Bounds:
    """Of operations beside each other, around three images: one inside the box, one on its edges, one all black."""

    def __init__(self, cases, norm="linf", eps=None, in_place=False):
        self.generator = torch.Generator().manual_seed(len(cases))
        self.x = torch.rand((3, *cases[0].shape), generator=self.generator, dtype=torch.float64)
        self.x[1] = self.x[1].round()
        self.x[2] = 0
        self.threat = ThreatModel(norm, EPS[norm] if eps is None else eps)
        self.model = Together(cases, in_place=in_place)
        self.network = trace(self.model, self.x)
        region = InputRegion(self.x, self.threat)
        self.intervals = Enclosure.by_intervals(self.network, region)
        with torch.no_grad():
            self.tight = self.intervals.tightened(SLOPES)
        points = drawn(self.x, self.threat, True, POINTS, self.generator)
        with torch.no_grad():
            self.values = self.model(points.flatten(0, 1)).reshape(POINTS, 3, -1)
        self.parts = dict(self.model.parts())
        self.scale = self.values.abs().amax()

    def rows(self, each=4):
        """Linear functions of the entries of each operation, and their images: (operations · images · each, ...). Half
        of them are of a single entry, of which points come near the true range."""
        rows = torch.zeros((len(self.parts), 3, each, self.values.shape[2]), dtype=torch.float64)
        for some, part in zip(rows, self.parts.values(), strict=True):
            drawn_rows = torch.randn(some[..., part].shape, generator=self.generator, dtype=torch.float64)
            single = drawn_rows.abs() >= drawn_rows.abs().amax(-1, keepdim=True)
            single[:, : each // 2] = True
            some[..., part] = drawn_rows * single
        return rows.flatten(0, 2), torch.arange(3).repeat_interleave(each).repeat(len(rows))

    def least(self, enclosure, rows, images, rules=()):
        with torch.no_grad():
            return enclosure.least(len(enclosure.boxes) - 1, rows, images, rules)

    def check(self, found, rows):
        """No bound is above a value that was found, but for rounding."""
        found = found.detach().reshape(len(self.parts), 3, -1)
        rows = rows.reshape(*found.shape, -1)
        for (case, part), bounds, some in zip(self.parts.items(), found, rows, strict=True):
            reached = torch.einsum("ipk,tik->tip", some[..., part], self.values[:, :, part]).amin(0)
            size = some[..., part].abs().sum(2) * self.scale
            assert (bounds <= reached + 1e-11 * size).all(), case


def label(cases):
    return f"{'-'.join(map(str, cases[0].shape))}x{cases[0].spread:g}"


def test_the_registry_is_covered():
    """A new rule needs a case, in operation_cases.py."""
    assert set(Operation._known) == {case.name for case in (*ALL, *IN_PLACE)}
    assert known_operations() == sorted({name.strip("_") for name in Operation._known})


@pytest.mark.parametrize("in_place", [False, True], ids=["", "beside in-place"])
@pytest.mark.parametrize("cases", groups(ALL), ids=label)
def test_no_value_leaves_its_interval_or_its_lines(cases, in_place):
    bounds = Bounds(cases, in_place=in_place)
    used = {step.operation.call.name for step in bounds.network.steps}
    assert in_place or {case.name for case in cases} <= used
    assert torch.allclose(bounds.network(bounds.x), bounds.model(bounds.x), rtol=1e-9)
    lower, upper = bounds.intervals.boxes[-1]
    assert lower.isfinite().all()
    assert upper.isfinite().all()
    slack = 1e-11 * bounds.scale
    for case, part in bounds.parts.items():
        assert (bounds.values[:, :, part] <= upper[:, part] + slack).all(), case
        assert (bounds.values[:, :, part] >= lower[:, part] - slack).all(), case
    rows, images = bounds.rows()
    for enclosure in (bounds.intervals, bounds.tight):
        for rules in ((), ("parallel",), ("adaptive",), SLOPES):
            bounds.check(bounds.least(enclosure, rows, images, rules), rows)
    moved = optimized_least(bounds.tight, len(bounds.tight.boxes) - 1, rows, images, SLOPES, 3)
    bounds.check(moved, rows)


@pytest.mark.parametrize("cases", groups(ALL), ids=label)
def test_nor_around_an_l2_ball(cases):
    bounds = Bounds(cases, norm="l2")
    rows, images = bounds.rows()
    for rules in ((), SLOPES):
        bounds.check(bounds.least(bounds.tight, rows, images, rules), rows)


@pytest.mark.parametrize("cases", groups(ALL), ids=label)
def test_without_room_bounds_are_the_values(cases):
    bounds = Bounds(cases, eps=0.0)
    for bound in bounds.intervals.boxes[-1]:
        for case, part in bounds.parts.items():
            if case.name not in JUMPS:
                assert torch.allclose(bound[:, part], bounds.values[0][:, part], atol=1e-12 * bounds.scale), case


@pytest.mark.parametrize("cases", groups(AFFINE), ids=label)
def test_affine_operations_lose_nothing(cases):
    """Their true range: from what they make of one pixel alone."""
    bounds = Bounds(cases)
    box = InputRegion(bounds.x, bounds.threat).box
    pixels = bounds.x[0].numel()
    with torch.no_grad():
        constant = bounds.model(torch.zeros((1, *cases[0].shape), dtype=torch.float64))
        matrix = bounds.model(torch.eye(pixels, dtype=torch.float64).reshape(pixels, *cases[0].shape)) - constant
    centre = box.centre.flatten(1) @ matrix + constant
    radius = box.radius.flatten(1) @ matrix.abs()
    lower, upper = bounds.intervals.boxes[-1]
    for case, part in bounds.parts.items():
        if case.exact:
            assert torch.allclose(lower[:, part], (centre - radius)[:, part], atol=1e-11 * bounds.scale), case
            assert torch.allclose(upper[:, part], (centre + radius)[:, part], atol=1e-11 * bounds.scale), case
    rows, images = bounds.rows()
    truth = (rows * centre[images]).sum(1) - ((rows @ matrix.t()).abs() * box.radius.flatten(1)[images]).sum(1)
    off = (bounds.least(bounds.intervals, rows, images) - truth).abs() / (rows.abs().sum(1) * bounds.scale)
    for case, worst in zip(bounds.parts, off.reshape(len(bounds.parts), -1).amax(1), strict=True):
        assert worst <= 1e-12, case


@pytest.mark.parametrize("cases", groups(POINTWISE), ids=label)
def test_pointwise_intervals_are_the_range(cases):
    bounds = Bounds(cases)
    way = torch.linspace(0, 1, 501, dtype=torch.float64).reshape(-1, 1, *[1] * (bounds.x.ndim - 1))
    box = InputRegion(bounds.x, bounds.threat).box
    with torch.no_grad():
        values = bounds.model(torch.lerp(box.lower, box.upper, way).flatten(0, 1)).reshape(501, 3, -1)
    lower, upper = bounds.intervals.boxes[-1]
    for case, part in bounds.parts.items():
        if case.name in JUMPS:
            continue
        assert (values[:, :, part].amin(0) - lower[:, part]).amax() <= 2e-3 * bounds.scale, case
        assert (upper[:, part] - values[:, :, part].amax(0)).amax() <= 2e-3 * bounds.scale, case


@pytest.mark.parametrize("cases", groups(POOLING), ids=label)
def test_pooled_intervals_are_reached_in_the_corners(cases):
    bounds = Bounds(cases)
    with torch.no_grad():
        for corner, bound in zip(InputRegion(bounds.x, bounds.threat).box, bounds.intervals.boxes[-1], strict=True):
            assert torch.allclose(bounds.model(corner), bound, atol=1e-12)


@pytest.mark.parametrize("case", IN_PLACE, ids=lambda case: case.name)
def test_operations_that_write_into_their_input(case):
    bounds = Bounds([case])
    rows, images = bounds.rows()
    bounds.check(bounds.least(bounds.tight, rows, images, SLOPES), rows)
