"""Settings that are hardly meant: said by what was set, and in the result of whoever goes on."""

import pytest
import torch
from quick_auto_attack import Quick, problem

from robustness_lib import ThreatModel
from robustness_lib.attacks import FAB, FGSM, PGD, AutoPGD, CarliniWagnerL2, SquareAttack, Transfer
from robustness_lib.attacks.adaptive import EOT
from robustness_lib.evaluation import evaluate

THREAT = ThreatModel("linf", 0.05)


@pytest.mark.parametrize("attack", [
    FGSM(THREAT), PGD(THREAT, steps=2), AutoPGD(THREAT, steps=2), SquareAttack(THREAT, queries=2),
    Transfer(THREAT, problem()[0]), CarliniWagnerL2(steps=2), FAB("l2", steps=2)],
    ids=lambda attack: type(attack).__name__)
def test_targets_that_are_the_labels_are_refused(attack):
    """Reached without an attack, they would count as successes at distance 0."""
    model, x, y = problem()
    with pytest.raises(ValueError, match="for 60 of 60 images the target is the label"):
        attack.run(model, x, y, target=y)
    some = (y + 1) % 6
    some[[3, 8]] = y[[3, 8]]
    with pytest.raises(ValueError, match="for 2 of 60 images the target is the label"):
        attack(model, x, y, some)
    assert attack.run(model, x, y, (y + 1) % 6).success.shape == (60,)


def test_also_where_fresh_draws_judge():
    model, x, y = problem()
    with pytest.raises(ValueError, match="the target is the label"):
        EOT(model, 2).judge(x, y, y)
    with pytest.raises(ValueError, match="the target is the label"):
        EOT(model, 2).attacked(PGD(THREAT, steps=2), x, y, y)


@pytest.mark.filterwarnings("ignore:under L∞")
@pytest.mark.parametrize(("norm", "eps"), [("linf", 8), ("linf", 1), ("l2", 128)])
def test_an_eps_that_covers_the_box_is_said_in_every_result(norm, eps):
    model, x, y = problem()
    threat = ThreatModel(norm, eps)
    for attack in (FGSM(threat), PGD(threat, steps=2), SquareAttack(threat, queries=2)):
        kinds = {warning.kind: str(warning) for warning in attack.run(model, x, y).warnings}
        assert "any image at all is allowed" in kinds["large ε"]
        assert ("probably meant" in kinds["large ε"]) == (eps > 1)
    assert "large ε" in [warning.kind for warning in Quick(threat).run(model, x, y).warnings]
    report = evaluate(model, x, y, threat, "quick")
    assert sum("any image at all is allowed" in note for note in report.notes) == 1
    assert report.valid  # the number is right, if hardly what was asked for


def test_a_curve_on_another_scale_is_refused():
    model, x, y = problem()
    with pytest.raises(ValueError, match="write 8/255, not 8"):
        evaluate(model, x, y, THREAT, "quick", curve=[2, 4, 8])
    evaluate(model, x, y, ThreatModel("l2", 0.5), "quick", curve=[0.5, 1, 2])


def test_a_step_wider_than_the_ball_is_said():
    model, x, y = problem()
    with pytest.warns(UserWarning, match="2/255 and not 2"):
        attack = PGD(THREAT, steps=2, step_size=2)
    assert "step size" in [warning.kind for warning in attack.run(model, x, y).warnings]
    report = evaluate(model, x, y, THREAT, [FGSM(THREAT), attack])
    assert [note for note in report.notes if note.startswith("step size: pgd-2: a step wider than the whole ball")]
    for size in (0.001, 0.05, 0.1):
        assert not PGD(THREAT, steps=2, step_size=size).run(model, x, y).warnings
    assert torch.equal(PGD(ThreatModel("linf", 0), steps=2, step_size=0.1)(model, x, y), x)
