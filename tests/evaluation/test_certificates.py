"""evaluate beside certificates by smoothing: what they prove, of which model, and what becomes of a break."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from linear_smoothing import SIGMA, at_distances, certified, problem
from small_evaluation import verdicts
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from robustness_lib import ThreatModel
from robustness_lib.attacks import FGSM, PGD
from robustness_lib.attacks.adaptive import EOT
from robustness_lib.certify import Certificates, RandomizedSmoothing
from robustness_lib.evaluation import Contradiction, Report, _proofs, evaluate
from robustness_lib.evaluation.suites import Suite, SuiteEntry
from robustness_lib.reports._methods import methods, sources
from robustness_lib.state import image_digests

L2 = ThreatModel("l2", 0.25)
ATTACKS = [FGSM(L2), PGD(L2, steps=4)]


def small(certificates: Any, model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel = L2, *, samples: int = 15,
          **settings: Any) -> Report:
    attacks = [FGSM(threat), PGD(threat, steps=4)]
    with torch.random.fork_rng():
        torch.manual_seed(0)  # the model's own draws
        return evaluate(RandomizedSmoothing(model, SIGMA).classifier(samples), x, y, threat,
                        **({"suite": attacks, "certified": certificates} | settings))


def false_at(certificates: Certificates, rows: list[int], alpha: float = 0.001) -> Certificates:
    """They claim 1 at these places."""
    radius = certificates.radius.clone()
    radius[rows] = 1.0
    return replace(certificates, radius=radius, alpha=alpha)


def test_the_lower_bound_stands_below_the_upper_one() -> None:
    model, x, y = problem()
    y[-1] = 1 - y[-1]  # constant, and wrong
    _, certificates = certified(model, x)
    report = small(certificates, model, x, y)
    proved = (certificates.radius >= L2.eps) & (certificates.prediction == y)
    assert np.array_equal(report.certified, proved.numpy())
    assert report.certified_accuracy.correct == int(proved.sum()) > 20
    assert not report.certified[-1]
    far = (x.flatten(1) - 0.5).sum(1).abs() / 12**0.5 > 1.2 * L2.eps
    assert report.robust[(far & (certificates.prediction == y)).numpy()].all()
    assert report.certified_accuracy.correct <= report.robust_accuracy.correct < report.clean_accuracy.correct
    assert report.valid
    assert not [note for note in report.notes if "random answers" in note]  # a mean over draws is what is asked for
    assert "are proved to" in report.sentence


def test_methods_say_how_it_was_proved() -> None:
    model, x, y = problem(12)
    report = small(certified(model, x)[1], model, x, y)
    again = Report.from_json(report.to_json())
    text = " ".join(methods(again))
    for words in ("σ = 0.25", "α = 0.001", "100 votes under noise", "up to 3,000 others", "15 draws each"):
        assert words in text
    assert any("Cohen" in source for source in sources(again))
    column = small(torch.zeros(12, dtype=torch.bool), model, x, y)
    assert not column.certified_by
    assert not any("Cohen" in source for source in sources(column))


# Of which model, and in which threat model.


def test_others_are_refused() -> None:
    model, x, y = problem(12)
    smoothing, certificates = certified(model, x)
    other = problem()[0]
    with torch.no_grad():
        other.normal.mul_(2)
    ask = partial(evaluate, x=x, y=y, threat=L2, suite=ATTACKS, certified=certificates)
    do = r"RandomizedSmoothing\(model, sigma=0\.25\)\.classifier\(samples\)"
    for wrong, words in ((model, "nothing of the bare network"), (other, "nothing of another model"),
                         (EOT(model, 3), "nothing of another EOT"),
                         (RandomizedSmoothing(model, 0.5).classifier(), r"nothing of that at sigma = 0\.5"),
                         (RandomizedSmoothing(other, SIGMA).classifier(), "another smoothed model")):
        with pytest.raises(ValueError, match=f"{words}.*{do}"):
            ask(wrong)
    with pytest.raises(ValueError, match="eval mode"):
        ask(smoothing.classifier(3), mode="keep")
    with pytest.raises(ValueError, match="one entry per image"):
        ask(smoothing.classifier(3), x=x[:5], y=y[:5])


def test_an_l2_radius_is_not_one_in_linf() -> None:
    model, x, y = problem(12)
    _, certificates = certified(model, x)
    largest = float(certificates.radius.max())
    with pytest.raises(ValueError, match=rf"only up to R/√d: here R/3\.464, .* {largest:.3g}, proves no more than "
                                         rf"{largest / 12**0.5:.3g} in L∞.*a column"):
        small(certificates, model, x, y, ThreatModel("linf", 0.05))


def test_other_images_than_those_certified_are_refused() -> None:
    """Also the same in another order, as a shuffling loader gives them."""
    model, x, y = problem(12)
    _, certificates = certified(model, x)
    order = torch.tensor([0, 1, 3, 2, *range(4, 12)])
    for images, labels in ((x[order], y[order]), ((x + 0.01).clamp(0, 1), y)):
        with pytest.raises(ValueError, match=r"image [02] is not the one that was certified.*do not shuffle them"):
            small(certificates, model, images, labels)


def test_nothing_is_known_beyond_the_radius_asked_about() -> None:
    model, x, y = problem(12)
    certificates = RandomizedSmoothing(model, SIGMA).certified_at(x, 0.2, budget=2000, progress=False)
    with pytest.raises(ValueError, match=r"looked for up to radius 0\.2"):
        small(certificates, model, x, y)
    report = small(certificates, model, x, y, ThreatModel("l2", 0.2))
    assert report.certified_accuracy.correct == int((certificates.prediction == y).sum())


# Breaks of what is certified.


def near(n: int = 40) -> tuple[nn.Module, Tensor, Tensor]:
    """All of them hardly inside: an attack at their radius often misleads a few draws."""
    distances = torch.full((n,), 0.262) * (1 - 2 * (torch.arange(n) % 2))
    return problem()[0], at_distances(distances), (distances > 0).long()


def sure(certificates: Certificates) -> Certificates:
    """As if n had been without end."""
    return replace(certificates, radius=torch.full_like(certificates.radius, 0.26))


def test_breaks_that_fresh_votes_do_not_confirm_do_not_count(tmp_path: Path) -> None:
    model, x, y = near()
    certificates = sure(certified(model, x)[1])
    report = small(certificates, model, x, y, samples=5, keep_images=tmp_path)
    lucky, = [note for note in report.notes if "misled the vote of 5 draws" in note]
    assert 5 < int(lucky.split("at ")[1].split()[0]) <= 40
    assert report.certified_accuracy.correct == report.robust_accuracy.correct == report.clean_accuracy.correct == 40
    assert not report.attack("pgd-4").broke.any()
    assert (report.examples.mistaken_for == -1).all()
    assert np.isnan(report.examples.distance).all()
    assert not report.pictures
    assert not list(tmp_path.glob("0*.npz"))
    # Where nothing is proved the same finds count.
    alone = small(None, model, x, y, samples=5)
    assert alone.attack("pgd-4").broke.sum() > 5


def test_an_answer_that_is_certified_is_not_voted_down_by_a_few_draws() -> None:
    distances = torch.full((40,), 0.08)
    model, x, y = problem()[0], at_distances(distances), torch.ones(40, dtype=torch.int64)
    _, certificates = certified(model, x)
    assert certificates.certified.all()
    report = small(certificates, model, x, y, ThreatModel("l2", 0.01), samples=1)
    assert report.clean_accuracy.correct == 40
    assert report.certified_accuracy.correct == report.robust_accuracy.correct
    assert report.examples.top5.all()
    assert any("the vote of 1 draws named another class than the certificate" in note for note in report.notes)


def test_more_breaks_than_chance_does_contradict() -> None:
    model, x, y = problem()
    _, certificates = certified(model, x)
    wrong = false_at(certificates, [0, 1, 2])  # at distances 0.1 to 0.13
    with pytest.raises(Contradiction, match=r"3 of \d+ certified .* One of them: image 0 is certified under L2 0.25, "
                                            r"and fgsm") as error:
        small(wrong, model, x, y, batch_size=16)
    assert torch.equal(error.value.x, x[0])
    assert model(error.value.x_adv[None]).argmax(1) == error.value.mistaken_for != y[0]
    assert error.value.distance <= L2.eps * (1 + 1e-5)


def test_a_break_that_chance_may_do_is_counted_and_said(tmp_path: Path) -> None:
    model, x, y = problem()
    _, certificates = certified(model, x)
    right = small(certificates, model, x, y)
    found = small(false_at(certificates, [2], alpha=0.05), model, x, y, keep_images=tmp_path)
    assert not found.robust[2]
    assert not found.certified[2]
    assert found.examples.broken_by[2] == "fgsm"
    assert found.examples.mistaken_for[2] == 1 - y[2]
    assert 0.13 < found.examples.distance[2] <= L2.eps * (1 + 1e-5)
    assert found.certified_accuracy.correct == right.certified_accuracy.correct <= found.robust_accuracy.correct
    attacked = right.certified_accuracy.correct + 1
    note, = [note for note in found.notes if "are broken within their certificate" in note]
    assert f"1 of {attacked} certified images" in note
    assert "At alpha = 0.05, of 40 images asked about" in note
    assert "count as broken, and not as certified" in note


def test_a_certificate_of_another_class_is_not_contradicted_by_a_break() -> None:
    """Constant and wrong: whoever finds the class that it names proves nothing against it."""
    model, x, y = problem(12)
    smoothing, certificates = certified(model, x)
    classifier = smoothing.classifier(1)
    wrong = 1 - y
    with torch.random.fork_rng():
        torch.manual_seed(0)
        report = evaluate(classifier, x, wrong, L2, ATTACKS, certified=certificates)
    assert report.certified_accuracy.correct == 0
    assert report.clean_accuracy.correct <= int((~certificates.certified).sum())


def test_smaller_epsilons_of_the_curve_are_held_too() -> None:
    model, x, y = near()
    certificates = sure(certified(model, x)[1])
    lazy = Suite("lazy", (SuiteEntry("never", lambda net, images, labels: images),), curve=False, diagnostics=True)
    report = small(certificates, model, x, y, suite=lazy, samples=5, curve=(0.24, 0.5))
    assert report.robust_accuracy.correct == 40  # the diagnosis raises nothing either
    assert any("misled the vote of 5 draws" in note for note in report.notes)
    assert "outputs vary" not in [finding.kind for finding in report.findings or ()]
    assert report.curve_alone[0].correct == 40 > report.curve_alone[1].correct
    nearer = at_distances(torch.full((40,), 0.1))
    false = replace(false_at(certificates, [*range(5)]), images=tuple(image_digests(nearer)))
    with pytest.raises(Contradiction, match="and curve"):
        small(false, model, nearer, torch.ones(40).long(), suite=lazy, curve=(0.24,))


# Parts, and a state.


def test_parts_and_a_state_end_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x, y = problem()
    _, certificates = certified(model, x)
    wrong = false_at(certificates, [2, 5], alpha=0.05)
    loader = DataLoader(TensorDataset(x, y), batch_size=7)
    report = small(wrong, model, loader, None, samples=49, batch_size=16, state=tmp_path)
    assert not report.certified[[2, 5]].any()
    monkeypatch.setattr(_proofs, "seen_broken", None)  # what was held is on disk
    assert verdicts(small(wrong, model, x, y, samples=49, batch_size=16, state=tmp_path)) == verdicts(report)
    for other in (false_at(certificates, [2, 5], alpha=0.04), certificates):
        with pytest.raises(ValueError, match="not the same certified"):
            small(other, model, x, y, samples=49, batch_size=16, state=tmp_path)
