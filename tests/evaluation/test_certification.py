"""Certified accuracy of labelled images, at radii and as a curve."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from linear_smoothing import SIGMA, Plane, at_distances, problem

from robustness_lib.certify import RandomizedSmoothing
from robustness_lib.evaluation import Certification, CertificationQuestion, certify_images, load_certificates

SMOOTHING = RandomizedSmoothing(Plane().eval(), SIGMA)


def mixed(n: int = 30) -> tuple[torch.Tensor, torch.Tensor]:
    """Every third label is wrong, and two images lie on the plane."""
    _, x, y = problem(n, nearest=0.1, farthest=0.7)
    y[::3] = 1 - y[::3]
    x[1:3] = at_distances(torch.zeros(2))
    return x, y


def ask(**settings: object) -> Certification:
    return certify_images(SMOOTHING, *mixed(), CertificationQuestion(**{"n": 2000} | settings))


def test_only_right_answers_count() -> None:
    x, y = mixed()
    found = ask(radii=(0.2, 0.4))
    for radius, made in zip((0.2, 0.4), found.certificates, strict=True):
        ours = SMOOTHING.certified_at(x, radius, budget=2000, progress=False)
        assert torch.equal(made.radius, ours.radius)
        right = (ours.prediction == y) & (ours.radius >= radius)
        assert found.certified(radius).correct == int(right.sum()) < int((ours.radius > 0).sum())
    answers = SMOOTHING.predict(x, 1000, progress=False)
    assert torch.equal(found.answered, answers)
    assert found.smoothed.correct == int((answers == y).sum())
    assert found.abstained == int((answers == -1).sum()) == 2
    assert found.votes == sum(float(made.samples.double().mean()) for made in found.certificates) + 1000
    assert found.fixed_votes == 2100
    assert f"{found.certified(0.2)} at L2 radius 0.2; {found.certified(0.4)} at L2 radius 0.4" in str(found)
    assert "abstains on 2 of 30" in found.sentence
    assert found.sentence in repr(found)


def test_a_curve_has_the_answers_in_it() -> None:
    x, y = mixed()
    found = ask(curve=True)
    ours = SMOOTHING.certify(x, n=2000, tolerance=SIGMA / 10, up_to=3 * SIGMA, progress=False)
    assert torch.equal(found.certificates[0].radius, ours.radius)
    assert torch.equal(found.answered, ours.prediction)
    assert found.votes == float(ours.samples.double().mean())
    assert found.radii == (0.125, 0.25, 0.375, 0.5, 0.625, 0.75)
    assert found.certified(0.3) == ours.accuracy(y, 0.3)
    assert found.steps() == ours.curve(y)
    assert ask(curve=True, radii=(0.5, 0.2)).radii == (0.2, 0.5)
    assert CertificationQuestion(curve=True, radii=(1.0,)).end(SIGMA) == 1.0  # a curve goes as far as is asked
    loose = ask(curve=True, tolerance=0.2, up_to=0.3)
    assert loose.votes < found.votes
    assert loose.question.end(SIGMA) == 0.3
    short = ask(curve=True, up_to=0.1)  # before the first half σ
    assert short.radii == (0.1,)
    assert f"{short.certified(0.1)} at L2 radius 0.1" in short.sentence


def test_a_network_that_does_not_bear_the_noise() -> None:
    x = at_distances(torch.full((20,), 0.01))
    weak = certify_images(SMOOTHING, x, torch.ones(20).long(), CertificationQuestion((0.1,), n=1000))
    assert weak.clean.correct == 20
    assert weak.smoothed.correct < 12
    assert "hardly bears noise" in str(weak.doubt)
    assert ask(radii=(0.2,)).doubt is None


@pytest.mark.parametrize("settings", [{"curve": True, "n": 14}, {"radii": (0.02,), "n": 2000, "alpha": 1e-290}])
def test_too_few_votes_are_not_blamed_on_the_network(settings: dict[str, object]) -> None:
    x = at_distances(torch.full((20,), 0.3))  # a share of Φ(1.2) = 88 %
    found = certify_images(SMOOTHING, x, torch.ones(20).long(), CertificationQuestion(**settings))
    assert found.smoothed.correct < 12
    assert "more votes (--samples) or a larger --alpha" in str(found.doubt)
    assert "Train" not in str(found.doubt)
    assert "Most votes are right on 20 of 20 images" in str(found.doubt)


class Root(Plane):
    """No number where the first value is below 0."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + 0 * x[:, 0, 0, 0].sqrt()[:, None]


def test_votes_without_a_number_are_counted_and_explained() -> None:
    x = at_distances(torch.full((20,), 0.05))
    found = certify_images(RandomizedSmoothing(Root().eval(), SIGMA), x, torch.ones(20).long(),
                           CertificationQuestion((0.1, 0.2), n=1000))
    lost = sum(int(made.unanswered.sum()) for made in found.certificates)
    votes = sum(int(made.draws.sum()) for made in found.certificates)
    assert 0 < lost < votes / 4
    assert f"on {lost:,} of {votes:,} votes the model's answer was no number" in str(found.doubt)
    assert "outside of [0, 1]" in str(found.doubt)
    assert "Train" not in str(found.doubt)
    content = found.to_dict()
    assert (content["unanswered"], content["doubt"]) == (lost, found.doubt)


def test_json_has_every_figure_and_every_certificate(tmp_path: Path) -> None:
    found = ask(radii=(0.2, 0.4), seed=3)
    path = tmp_path / "certify.json"
    path.write_text(json.dumps(found.to_dict()))
    content = json.loads(path.read_text())
    assert content["radii"][1]["certified"] == {
        "value": found.certified(0.4).value, "interval": list(found.certified(0.4).interval),
        "correct": found.certified(0.4).correct, "n": 30}
    assert (content["seed"], content["alpha"], content["samples"]) == (3, 0.001, 2000)
    assert content["environment"]["seed"] == "3"
    again = load_certificates(path, 0.4)
    for name, value in vars(found.certificates[1]).items():
        theirs = getattr(again, name)
        assert torch.equal(theirs, value) if isinstance(value, torch.Tensor) else theirs == value
    with pytest.raises(ValueError, match="of which radius"):
        load_certificates(path, 0.3)


def test_a_state_goes_on_and_progress_is_told(tmp_path: Path) -> None:
    x, y = mixed()
    question, told = CertificationQuestion((0.2, 0.4), n=2000), []
    first = certify_images(SMOOTHING, x, y, question, state=tmp_path, progress=lambda *one: told.append(one))
    assert [*dict.fromkeys(stage for stage, *_ in told)] == ["answers", "radius 0.2", "radius 0.4"]
    assert sum(draws for *_, draws in told) == pytest.approx(first.votes * 30)
    again: list[int] = []
    second = certify_images(SMOOTHING, x, y, question, state=tmp_path, progress=lambda *one: again.append(one[2]))
    assert sum(again) == 0
    assert second.sentence == first.sentence


def test_what_cannot_be_asked_is_refused() -> None:
    for settings, words in (({}, "at least one radius"), ({"radii": (0.0,)}, "must be positive"),
                            ({"radii": (float("inf"),)}, "finite"), ({"radii": (0.1,), "up_to": 1.0}, "for the curve"),
                            ({"radii": (0.5,), "curve": True, "up_to": 0.4}, "ends at 0.4")):
        with pytest.raises(ValueError, match=words):
            CertificationQuestion(**settings)
    x, y = mixed()
    with pytest.raises(ValueError, match="no image"):
        certify_images(SMOOTHING, x[:0], y[:0], CertificationQuestion((0.1,)))
    with pytest.raises(ValueError, match="one label per image"):
        certify_images(SMOOTHING, x, y[:3], CertificationQuestion((0.1,)))


@pytest.mark.parametrize(("settings", "words"), [
    ({"radii": (0.1, 3.0)}, "no number of votes could"),
    ({"radii": (0.9,), "n": 500}, "take a budget of"),
    ({"radii": (0.1,), "alpha": 1.5}, "alpha"),
    ({"curve": True, "n": 5}, "nothing can be certified"),
    ({"curve": True, "tolerance": -1.0}, "tolerance must be positive"),
])
def test_what_no_votes_can_answer_is_refused_before_any_is_asked_for(settings: dict[str, object], words: str) -> None:
    told: list[tuple[str, int, int]] = []
    asked = Counted().eval()
    with pytest.raises(ValueError, match=words):
        certify_images(RandomizedSmoothing(asked, SIGMA), *mixed(), CertificationQuestion(**settings),
                       progress=lambda *one: told.append(one))
    assert (asked.seen, told) == (0, [])


class Counted(Plane):
    """seen: images that it was asked about."""

    seen = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen += len(x)
        return super().forward(x)
