"""The certificate against the attack, on a model whose radius is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
import torch
from linear_smoothing import SIGMA, at_distances, certified, problem
from torch import Tensor

from robustness_lib import ThreatModel
from robustness_lib.attacks import FAB, PGD, Attack
from robustness_lib.certify import ABSTAINED, Certificates, RandomizedSmoothing
from robustness_lib.evaluation import Contradiction, attack_certificates
from robustness_lib.evaluation._broken_certificates import BrokenCertificates, seen_broken

FEW = partial(PGD, steps=5, random_start=False)


def planted(certificates: Certificates, x: Tensor, factor: float, rows: slice | list[int] = slice(None),
            alpha: float = 0.001) -> Certificates:
    """The true radii, times a factor at these places."""
    radius = (x.flatten(1) - 0.5).sum(1).abs().double() / 12**0.5
    radius[rows] *= factor
    return replace(certificates, radius=radius, alpha=alpha)


def test_nothing_breaks_inside_the_radius() -> None:
    model, x, _ = problem()
    smoothing, certificates = certified(model, x)
    found = attack_certificates(smoothing, certificates, x, attack=FEW)
    assert (found.attacked, found.broken, found.p) == (40, 0, 1)
    assert "0 of 40 certified images that were attacked are broken" in str(found)
    assert "10,000 fresh votes" in str(found)
    assert "in 8 groups, each at the smallest radius" in str(found)
    assert list(found.radii) == sorted(certificates.radius.tolist())[::5]
    # Nor just inside the true one, where the attack's own draws are often misled.
    assert attack_certificates(smoothing, planted(certificates, x, 0.98), x, attack=FEW, samples=9).broken == 0


def test_everything_breaks_just_outside() -> None:
    model, x, y = problem(12, nearest=0.25)
    smoothing, certificates = certified(model, x)
    with pytest.raises(Contradiction, match="12 of 12 certified images that were attacked are broken") as error:
        attack_certificates(smoothing, planted(certificates, x, 1.1), x, attack=FEW, groups=12)
    found = error.value
    assert model(found.x_adv[None]).argmax(1) == found.mistaken_for != y[found.index] == found.label
    assert found.distance <= 1.1 * 0.61
    assert torch.equal(found.x, x[found.index])


def test_planted_false_certificates_contradict() -> None:
    model, x, _ = problem()
    smoothing, certificates = certified(model, x)
    rows = [3, 11, 19, 27]
    index = torch.arange(100, 140)
    with pytest.raises(Contradiction, match=r"4 of 40 .* were to be expected \(p = ") as error:
        attack_certificates(smoothing, planted(certificates, x, 1.5, rows), x, attack=FEW, groups=40, index=index)
    assert error.value.index - 100 in rows


def test_one_false_certificate_among_many_is_chance_at_a_large_alpha() -> None:
    model, x, _ = problem()
    smoothing, certificates = certified(model, x)
    found = attack_certificates(smoothing, planted(certificates, x, 1.5, [20], alpha=0.05), x, attack=FEW, groups=40)
    assert found.rows.tolist() == [20]
    assert found.mistaken_for.tolist() == [1 - int(certificates.prediction[20])]
    assert found.p == pytest.approx(1 - 0.95**40)
    assert found.distance[0] <= 1.5 * (x[20] - 0.5).sum() / 12**0.5 * (1 + 1e-5)
    assert model(found.x_adv).argmax(1).tolist() == found.mistaken_for.tolist()
    assert "of 40 images asked about up to 2 were to be expected" in str(found)


def test_who_is_attacked() -> None:
    """Only images with a certificate, away from the class that it names, whatever their label."""
    model, x, _ = problem(16)
    x = torch.cat((at_distances(torch.tensor([0.0, 0.001])), x))
    smoothing, certificates = certified(model, x)
    assert certificates.prediction[:2].tolist() == [ABSTAINED] * 2
    assert attack_certificates(smoothing, certificates, x, attack=FEW).attacked == 16
    nobody = attack_certificates(smoothing, smoothing.certify(x[:2], n=100, progress=False), x[:2])
    assert (nobody.attacked, nobody.broken, nobody.radii) == (0, 0, ())
    assert "0 of 0" in str(nobody)


def test_abstaining_is_no_break() -> None:
    """On the plane itself both classes have half of the votes."""
    model, x, _ = problem(8)
    smoothing, certificates = certified(model, x)
    on_it = at_distances(torch.zeros(8))
    broken, said = seen_broken(smoothing, on_it, certificates.prediction, torch.arange(8), seed=1)
    assert said.tolist() == [ABSTAINED] * 8
    assert not broken.any()


def test_others_certificates_are_refused() -> None:
    model, x, _ = problem(8)
    smoothing, certificates = certified(model, x)
    with pytest.raises(ValueError, match="another smoothed classifier"):
        attack_certificates(RandomizedSmoothing(model, 2 * SIGMA), certificates, x)
    with pytest.raises(ValueError, match="8 certificates"):
        attack_certificates(smoothing, certificates, x[:7])
    with torch.no_grad():
        model.normal.mul_(2)
    with pytest.raises(ValueError, match="another smoothed classifier"):
        attack_certificates(smoothing, certificates, x)


@pytest.mark.parametrize(("attack", "words"), [
    (lambda threat: PGD(ThreatModel("linf", 0.5)), "L∞ 0.5"), (lambda threat: PGD(ThreatModel("l2", 0)), "L2 0"),
    (lambda threat: FAB("linf"), "the norm linf")])
def test_an_attack_with_another_threat_model_is_refused(attack: Callable[[ThreatModel], Attack], words: str) -> None:
    model, x, _ = problem(8)
    smoothing, certificates = certified(model, x)
    with pytest.raises(ValueError, match=rf"that it is given, L2 0\.\d+, and has made one with {words}: hand on"):
        attack_certificates(smoothing, certificates, x, attack=attack)


def test_how_many_breaks_are_chance() -> None:
    assert not BrokenCertificates(2, 200, 200, 0.001).contradict
    assert BrokenCertificates(4, 200, 200, 0.001).contradict
    assert not BrokenCertificates(0, 0, 0, 0.001).contradict
    # On the boundary all certificates that are given are wrong: so few of so many that it is chance all the same.
    assert not BrokenCertificates(3, 3, 1000, 0.001).contradict


def test_other_images_than_those_certified_are_refused() -> None:
    model, x, _ = problem(12)
    smoothing, certificates = certified(model, x)
    with pytest.raises(ValueError, match="image 0 is not the one that was certified"):
        attack_certificates(smoothing, certificates, x.flip(0), attack=FEW)
