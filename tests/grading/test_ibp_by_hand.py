"""Only for ibp_by_hand: a sound bound that is loose gets part of the marks, and what is given is the library's."""

import pytest
import torch
from answers import marked, solved
from ibp_by_hand_answers import (
    WRONG,
    difference_of_bounds,
    of_the_image_itself,
    pixel_box_ignored,
    the_image_itself,
)

from robustness_lib import ThreatModel, models
from robustness_lib.certify.interval_bounds import interval_bounds
from robustness_lib.grading import ibp_by_hand as checks
from robustness_lib.grading.given import ibp_by_hand as given


@pytest.mark.slow
@pytest.mark.parametrize("wrong", [wrong for wrong in WRONG if not wrong.hidden and wrong.step != "margins"],
                         ids=lambda wrong: wrong.name)
def test_wrong_answers_are_wrong_in_every_variant(wrong):
    for variant in range(50):
        points, of, _ = marked(getattr(checks, wrong.step), wrong.answer, task=checks.IntervalsTask(variant))
        assert points < of


def test_a_sound_bound_that_proves_less_gets_part_of_the_marks():
    for check, answer in ((checks.box, pixel_box_ignored), (checks.margins, difference_of_bounds)):
        points, of, said = marked(check, answer)
        assert 0.3 * of < points < 0.8 * of
        assert "lies outside" not in said


def test_what_is_no_bound_gets_less_than_what_is_loose():
    for check, loose, none in ((checks.box, pixel_box_ignored, the_image_itself),
                               (checks.margins, difference_of_bounds, of_the_image_itself)):
        assert marked(check, none)[0] < marked(check, loose)[0] - 0.5


@pytest.mark.parametrize("name", checks.IntervalsTask.names)
def test_a_network_written_out_gives_the_same_answers_and_the_same_bounds(name):
    task, threat = checks.IntervalsTask(images=20), ThreatModel("linf", 1 / 255)
    (x, _), net, shipped = task.data(), task.net(name), models.load_pretrained(name)
    with torch.no_grad():
        assert torch.allclose(net(x), shipped(x), atol=1e-4)
    for mine, theirs in zip(given.box(net, x, 1 / 255), interval_bounds(shipped, x, threat), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-3)


def test_the_given_box_is_exact_on_a_linear_model():
    """|m| − ε‖w‖₁, where the pixel box does not bind."""
    weight, bias = torch.tensor([[2.0, -1.0]]), torch.tensor([0.1])
    layer = torch.nn.Linear(2, 1)
    layer.weight.data, layer.bias.data = weight, bias
    lower, upper = given.box([layer], torch.tensor([[0.5, 0.4]]), 0.1)
    assert torch.allclose(torch.cat([lower, upper]), torch.tensor([[0.4], [1.0]]))


def test_the_sandwich_holds_on_both_networks():
    """Nothing that is certified is broken, and the network that was trained for bounds has some to show."""
    task, margins = checks.IntervalsTask(), solved("ibp_by_hand")["margins"]
    x, y = task.data()
    for name in task.names:
        certified = margins(task.net(name), x, y, 2 / 255).amin(1) > task.tolerance
        assert not (certified & ~task.not_broken(name, 2 / 255)).any()
        assert certified.double().mean() > 0.5 or name == "signs-tiny-standard"
