"""Only for fgsm_first_steps: what its checks compare with."""

import pytest
import torch
import torch.nn.functional as F
from answers import solved

from robustness_lib import ThreatModel
from robustness_lib.attacks import FGSM
from robustness_lib.grading import fgsm_first_steps as checks
from robustness_lib.grading.fgsm_first_steps.accuracy import before_and_after, on_waves
from robustness_lib.grading.fgsm_first_steps.gradient import half_misread
from robustness_lib.grading.given import fgsm_first_steps as given
from robustness_lib.grading.linear_models import linear_gradient
from robustness_lib.models import load_pretrained
from robustness_lib.notebook import linear_model


def test_the_formula_of_the_gradient_is_autograds():
    model, x, y = half_misread(checks.FgsmFirstStepsTask(3), (9, 2, 4, 5))
    pixels = x.double().requires_grad_()
    loss = F.cross_entropy(model.double().eval()(pixels), y, reduction="sum")
    assert torch.allclose(linear_gradient(model, x, y), torch.autograd.grad(loss, pixels)[0], atol=1e-12)


def test_the_given_step_is_the_librarys():
    x, y = checks.FgsmFirstStepsTask().data()
    model = load_pretrained("signs-tiny-pgd")
    theirs = FGSM(ThreatModel("linf", 0.02), stop="never")(model, x, y)
    right = model(x).argmax(1) == y  # the library leaves images that are misread as they are
    assert torch.allclose(given.fgsm(model, x, y, 0.02)[right], theirs[right], atol=1e-6)


def test_the_smallest_eps_is_where_the_librarys_step_begins_to_break():
    w, b = torch.tensor([2.0, -1.0], dtype=torch.float64), torch.tensor(0.0, dtype=torch.float64)
    x, y = torch.tensor([[0.5, 0.4]], dtype=torch.float64), torch.tensor([1])
    eps = solved("fgsm_first_steps")["smallest_eps"](x, y, w, b).item()
    assert eps == pytest.approx(0.2)
    for share, breaks in ((0.99, False), (1.01, True)):
        assert FGSM(ThreatModel("linf", share * eps)).run(linear_model(w, b), x, y).success.item() == breaks


@pytest.mark.parametrize("variant", range(50))
def test_on_waves_every_kind_of_image_comes(variant):
    """Right twice, broken, wrong twice, and wrong before and right after by accident."""
    task = checks.FgsmFirstStepsTask(variant)
    model, x, y = on_waves(task, 60)
    before, after = (answer == y for answer in before_and_after(model, x, y, task.eps))
    assert all((a & b).any() for a in (before, ~before) for b in (after, ~after))
