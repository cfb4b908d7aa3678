"""One loop over attacks serves `AutoAttack.run` and `evaluate`: how deep it is, what it asks, what it keeps."""

from __future__ import annotations

import inspect

import numpy as np
import torch
from quick_auto_attack import Quick, problem
from small_evaluation import SUITE, THREAT, small

from robustness_lib.attacks import FGSM
from robustness_lib.evaluation import evaluate
from robustness_lib.querying import QueriedModel

DEEPEST = 14  # frames from `evaluate` to the model, both counted


def frames_from(function: str) -> list[str]:
    """The functions on the stack from the outermost of this name to whoever called this, that included."""
    names = [frame.function for frame in inspect.stack()[1:]][::-1]
    return names[names.index(function):]


def test_few_frames_lie_between_evaluate_and_the_model() -> None:
    model, x, y = problem()
    seen: dict[int, list[str]] = {}

    def watched(images: torch.Tensor) -> torch.Tensor:
        frames = frames_from("evaluate")
        seen.setdefault(len(frames), frames)
        return model(images)

    report = evaluate(watched, x[:16], y[:16], THREAT, SUITE)  # with curve and diagnostics
    assert {"fgsm", "apgd-ce", "square", "curve"} <= {record.name for record in report.attacks}
    deepest = max(seen)
    assert deepest <= DEEPEST, " > ".join(seen[deepest])
    assert seen[deepest][-1] == "watched"
    assert deepest > 8  # of something else than what it is about


def test_the_model_is_looked_at_once_and_clean_labels_are_asked_once() -> None:
    model, x, y = problem()
    asked: list[torch.Tensor] = []

    def watched(images: torch.Tensor) -> torch.Tensor:
        asked.append(images.clone())
        return model(images)

    def back(net: object, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return images

    evaluate(watched, x, y, THREAT, {"one": back, "two": back}, batch_size=60)
    # Two looks at 16 images and as many points near them; the labels; what either attack returned for the right ones.
    assert [len(images) for images in asked[:3]] == [32, 32, 60]
    assert torch.equal(asked[0], asked[1])
    assert [len(images) for images in asked[3:]] == [int((model(x).argmax(1) == y).sum())] * 2
    asked.clear()
    evaluate(watched, x, y, THREAT, [Quick(THREAT), Quick(THREAT, seed=1)], batch_size=60)
    probe = [images for images in asked if len(images) == 32 and torch.equal(images[:16], x[:16])]
    assert len(probe) == 2
    assert sum(images.shape == x.shape and torch.equal(images, x) for images in asked) == 1


def test_an_ensemble_says_the_same_alone_and_in_an_evaluation() -> None:
    model, x, y = problem()
    alone = Quick(THREAT).run(model, x, y)
    report = evaluate(model, x, y, THREAT, Quick(THREAT))
    assert np.array_equal(report.clean, alone.clean)
    assert np.array_equal(report.robust, alone.robust)
    assert [None if by is None else f"quick/{by}" for by in alone.broken_by] == list(report.examples.broken_by)
    for stage, record in zip(alone.stages, report.attacks, strict=True):
        assert (f"quick/{stage.name}", stage.attempted, stage.broken, stage.queries, stage.gradients) == (
            record.name, record.tried.sum(), record.broke.sum(), record.queries, record.gradients)
    broken = np.array([by is not None for by in alone.broken_by])
    assert np.allclose(report.examples.distance[broken], alone.distance[torch.from_numpy(broken)])


def test_what_an_image_is_worth_does_not_hang_on_being_among_those_diagnosed(monkeypatch) -> None:
    """The diagnosis looks at the first images only; whichever they are, the verdicts are the same."""
    from robustness_lib.evaluation import _steps

    reports = []
    for first in (10, 60):
        monkeypatch.setattr(_steps, "DIAGNOSED", first)
        reports.append(small())
    few, all_ = reports
    assert np.array_equal(few.robust, all_.robust)
    assert few.examples.broken_by == all_.examples.broken_by
    assert [a.name for a in few.attacks] == [a.name for a in all_.attacks]


def test_a_few_images_more_than_the_suite_found_are_a_note_and_more_a_finding() -> None:
    from robustness_lib.diagnosis.masked_gradients import found_beyond_the_suite, judge

    def evidence(beyond: int, n: int = 200, varied: int = 0) -> dict[str, torch.Tensor]:
        nobody = torch.zeros(n, dtype=torch.bool)
        everybody, found = ~nobody, torch.arange(n) < beyond
        return {"label": torch.arange(n) % 10, "right": everybody, "varied": torch.arange(n) < varied,
                "detached": nobody, "zero": nobody, "not_a_number": nobody, "flat": nobody, "fgsm": nobody,
                "pgd": nobody, "again": nobody, "grey": nobody, "square": nobody, "random": found,
                "standing": everybody}

    for beyond in (0, 1, 2):
        assert judge(evidence(beyond)) == ()
    assert found_beyond_the_suite(evidence(2)) == (
        2, "random search broke 2 of 200 images that the suite left standing")
    finding, = judge(evidence(3))
    assert (finding.kind, finding.images, finding.of) == ("suite too weak", 3, 200)
    assert finding.message.startswith("random search broke 3 of 200 images that the suite left standing: the suite is "
                                      "too weak here")
    assert judge(evidence(1, n=20)) == ()  # one image alone is no sign of anything
    assert found_beyond_the_suite(evidence(3, varied=3))[0] == 0  # a lucky draw
    without = {name: column for name, column in evidence(3).items() if name != "standing"}
    assert judge(without) == ()  # `diagnose` alone knows of no suite


def test_a_note_tells_of_what_the_diagnostics_found() -> None:
    model, x, y = problem()

    def almost(net: object, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """PGD, but for the first image that it would break."""
        found = FGSM(THREAT)(model, images, labels)
        found[0] = images[0]
        return found

    suite = type(SUITE)("almost", (type(SUITE.entries[0])("almost", almost),), curve=False, diagnostics=True)
    report = evaluate(model, x, y, THREAT, suite, batch_size=60)
    kinds = [finding.kind for finding in report.findings or ()]
    noted = [note for note in report.notes if "left standing" in note]
    assert ("suite too weak" in kinds) != bool(noted)


def test_nothing_of_a_call_is_counted_twice() -> None:
    """Calls are counted where they are made, in the loop as by hand."""
    model, x, y = problem()
    report = evaluate(model, x, y, THREAT, FGSM(THREAT), batch_size=60)
    right = model(x).argmax(1) == y
    by_hand = FGSM(THREAT).run(model, x[right], y[right], index=torch.arange(60)[right])
    record = report.attack("fgsm")
    assert (record.calls, record.queries, record.gradients) == (
        by_hand.calls, by_hand.queries.sum(), by_hand.gradients.sum())
    assert QueriedModel(model).calls == 0
