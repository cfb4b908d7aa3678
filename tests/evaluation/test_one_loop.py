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

DEEPEST = 13  # frames from `evaluate` to the model, both counted; 14 are allowed


def frames_from(function: str) -> list[str]:
    """The functions on the stack from the outermost of this name to whoever called this, that included."""
    names, frame = [], inspect.currentframe().f_back
    while frame is not None:  # `inspect.stack` would read the source of each
        names.append(frame.f_code.co_name)
        frame = frame.f_back
    names.reverse()
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


def test_few_frames_lie_between_autoattack_and_the_model() -> None:
    model, x, y = problem()
    seen: set[int] = set()

    def watched(images: torch.Tensor) -> torch.Tensor:
        seen.add(len(frames_from("test_few_frames_lie_between_autoattack_and_the_model")) - 1)
        return model(images)

    Quick(THREAT).run(watched, x[:16], y[:16])
    assert 6 < max(seen) <= 10


def test_the_model_is_looked_at_once_and_clean_labels_are_asked_once() -> None:
    model, x, y = problem()
    asked: list[torch.Tensor] = []

    def watched(images: torch.Tensor) -> torch.Tensor:
        asked.append(images.clone())
        return model(images)

    def back(net: object, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return images

    evaluate(watched, x, y, THREAT, {"one": back, "two": back}, batch_size=60)
    # Two looks at 16 images and as many points near them, and two in other company; the labels; what either attack
    # returned for the right ones; their gradients, since nobody knows whether the attacks follow any.
    assert [len(images) for images in asked[:5]] == [32, 32, 32, 32, 60]
    assert torch.equal(asked[0], asked[1])
    assert [len(images) for images in asked[5:]] == [int((model(x).argmax(1) == y).sum())] * 3
    asked.clear()
    evaluate(watched, x, y, THREAT, [Quick(THREAT), Quick(THREAT, seed=1)], batch_size=60)
    probe = [images for images in asked if len(images) == 32 and torch.equal(images[:16], x[:16])]
    assert len(probe) == 3
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
        2, "random search broke 2 of the 200 that the suite left standing, of 200 images looked at")
    finding, = judge(evidence(3))
    assert (finding.kind, finding.images, finding.of) == ("suite too weak", 3, 200)
    assert finding.message.startswith("random search broke 3 of the 200 that the suite left standing, of 200 images "
                                      "looked at: the suite is too weak here")
    assert judge(evidence(1, n=20)) == ()  # one image alone is no sign of anything
    assert found_beyond_the_suite(evidence(3, varied=3))[0] == 0  # a lucky draw
    without = {name: column for name, column in evidence(3).items() if name != "standing"}
    assert judge(without) == ()  # `diagnose` alone knows of no suite


def test_a_note_tells_of_what_the_diagnostics_found(monkeypatch) -> None:
    """One image of sixty is no finding; but it is said, also where there are too few images for anything else."""
    from robustness_lib.evaluation import _steps

    model, x, y = problem()
    first = int((model(x).argmax(1) == y).nonzero()[0])

    def observed(found: int):
        def observe(net, images, labels, threat, *, index, **more):
            nobody = torch.zeros(len(images), dtype=torch.bool)
            columns = dict.fromkeys(("varied", "detached", "zero", "not_a_number", "flat", "fgsm", "pgd", "again",
                                     "grey", "random"), nobody)
            return columns | {"label": labels, "right": net(images).argmax(1) == labels,
                              "square": (index >= first) & (index < first + found)}
        return observe

    def back(net, images, labels):
        return images

    suite = type(SUITE)("back", (type(SUITE.entries[0])("back", back),), curve=False, diagnostics=True)
    for n, found, noted in ((60, 1, True), (60, 0, False), (15, 1, True)):
        monkeypatch.setattr(_steps, "observe", observed(found))
        report = evaluate(model, x[:n], y[:n], THREAT, suite, batch_size=60)
        notes = [note for note in report.notes if "Square broke 1 of the" in note and "a note only" in note]
        assert bool(notes) == noted
        assert report.robust_accuracy == report.clean_accuracy
        assert not report.findings


def test_an_ensemble_that_averages_says_the_same_alone_and_in_an_evaluation() -> None:
    """An image is right where the mean answer is, in both."""
    model, x, y = problem()

    def noisy(images: torch.Tensor) -> torch.Tensor:
        return model(images) + 2 * torch.randn(len(images), 6)

    torch.manual_seed(0)
    alone = Quick(THREAT, version="rand").run(noisy, x, y)
    torch.manual_seed(0)
    report = evaluate(noisy, x, y, THREAT, Quick(THREAT, version="rand"))
    assert abs(report.clean_accuracy.correct - alone.clean_accuracy.correct) <= 6  # other draws
    once = (noisy(x).argmax(1) == y).sum()
    assert report.clean_accuracy.correct > once + 5


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
