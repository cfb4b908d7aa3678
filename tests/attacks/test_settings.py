"""Settings that are hardly meant: said by what was set, and in the result of whoever goes on."""

import re

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
    for curve in ([0.1, 8.5], [1.5], [2 / 255, 2]):
        with pytest.raises(ValueError, match="write 8/255, not 8"):
            evaluate(model, x, y, THREAT, "quick", curve=curve)
    l2, whole = ThreatModel("l2", 0.5), x[0].numel() ** 0.5
    for curve in ([0.5, whole], [128], [0.5, whole + 0.5]):
        with pytest.raises(ValueError, match=r"write 8/255, not 8; found \[.*an L2 ε of .* covers the whole pixel box"):
            evaluate(model, x, y, l2, "quick", curve=curve)
    evaluate(model, x, y, l2, "quick", curve=[0.5, 1, 2])
    evaluate(model, x, y, THREAT, "quick", curve=[0.02, 1])


def test_a_step_wider_than_the_ball_is_said():
    model, x, y = problem()
    with pytest.warns(UserWarning, match="2/255 and not 2"):
        attack = PGD(THREAT, steps=2, step_size=2)
    assert "step size" in [warning.kind for warning in attack.run(model, x, y).warnings]
    report = evaluate(model, x, y, THREAT, [FGSM(THREAT), attack])
    assert [note for note in report.notes if note.startswith("step size: pgd-2: a step wider than the whole ball")]
    for size in (0.025, 0.05, 0.1):
        assert not PGD(THREAT, steps=2, step_size=size).run(model, x, y).warnings
    assert torch.equal(PGD(ThreatModel("linf", 0), steps=2, step_size=0.1)(model, x, y), x)


@pytest.mark.parametrize(("threat", "steps", "size"), [
    (THREAT, 2, 0.001), (THREAT, 40, 0.001), (ThreatModel("l2", 1), 10, 0.09), (THREAT, 1, 0.0499)])
def test_steps_that_cannot_reach_the_edge_are_said(threat, steps, size):
    model, x, y = problem()
    for restarts in (1, 2):
        (warning,) = PGD(threat, steps=steps, step_size=size, restarts=restarts).run(model, x, y).warnings
        assert warning.kind == "step size"
        assert f"{steps} steps of {size:.3g} come no further than" in warning.message
    report = evaluate(model, x, y, threat, [PGD(threat, steps=steps, step_size=size)])
    assert sum("come no further than" in note for note in report.notes) == 1


def test_steps_that_just_reach_the_edge_are_not():
    model, x, y = problem()
    for steps in (1, 3, 7, 40):
        assert not PGD(THREAT, steps=steps, step_size=THREAT.eps / steps).run(model, x, y).warnings
    assert not PGD(THREAT, steps=3, step_size=1e-3).run(model, x[:0], y[:0]).warnings
    assert not PGD(THREAT.with_eps(0), steps=3, step_size=1e-3).run(model, x, y).warnings


def test_an_attack_from_elsewhere_that_moves_nothing_is_said():
    model, x, y = problem()
    idle = [note for note in evaluate(model, x, y, THREAT, lambda m, images, labels: images, batch_size=16).notes
            if note.startswith("moved nothing")]
    assert len(idle) == 1
    assert re.search(r"handed back (\d+) of \1 images", idle[0])

    def first_only(m, images, labels):
        moved = images.clone()
        moved[0] = (moved[0] + 0.01).clamp(0, 1)
        return moved

    for attack, threat in ((first_only, THREAT), (lambda m, images, labels: images, THREAT.with_eps(0))):
        notes = evaluate(model, x, y, threat, attack, batch_size=16).notes
        assert not [note for note in notes if note.startswith("moved nothing")]
