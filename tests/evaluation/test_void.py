"""A number does not survive what voids it: models on which an attack only seems to fail."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from quick_auto_attack import Quick, problem
from torch import Tensor, nn

from robustness_lib import ThreatModel
from robustness_lib.attacks import FGSM, PGD, AutoAttack, Quantized, SquareAttack
from robustness_lib.attacks.adaptive import EOT
from robustness_lib.evaluation import Report, advice, evaluate
from robustness_lib.evaluation.suites import Suite, SuiteEntry
from robustness_lib.reports.gate import gate
from robustness_lib.reports.page import inline, page

THREAT = ThreatModel("linf", 0.05)


class Spoiled(nn.Module):
    """An honest net, and something done to its images or answers."""

    def __init__(self, change: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.net, self.change = problem()[0], change

    def forward(self, z: Tensor) -> Tensor:
        return self.change(self.net, z)


def _numpy(net: nn.Module, z: Tensor) -> Tensor:
    return torch.from_numpy(net(torch.from_numpy(z.detach().numpy().copy())).detach().numpy())


def _no_grad(net: nn.Module, z: Tensor) -> Tensor:
    with torch.no_grad():
        return net(z)


def _nan_off_the_images(net: nn.Module, z: Tensor) -> Tensor:
    """Right on the images given, and NaN wherever they were changed: a division at zero that training never met."""
    given = (z[:, None] == problem()[1][None]).flatten(2).all(2).any(1)
    return torch.where(given[:, None], net(z), net(z) * torch.nan)


def _nan_gradient(net: nn.Module, z: Tensor) -> Tensor:
    return net(z) + 0 * (0 * z).sqrt().flatten(1).sum(1, keepdim=True)


def quantized() -> nn.Module:
    return torch.ao.quantization.quantize_dynamic(problem()[0], {nn.Linear}, dtype=torch.qint8)


UNFOLLOWED: dict[str, Any] = {
    "rounded pixels": lambda: Spoiled(lambda net, z: net((8 * z).round() / 8)),
    "a threshold": lambda: Spoiled(lambda net, z: net((z > 0.5).float())),
    "integer pixels": lambda: Spoiled(lambda net, z: net((255 * z).to(torch.uint8).float() / 255)),
    "numpy inside": lambda: Spoiled(_numpy),
    "detached": lambda: Spoiled(lambda net, z: net(z.detach())),
    "no_grad inside": lambda: Spoiled(_no_grad),
    "logits times a million": lambda: Spoiled(lambda net, z: 1e6 * net(z)),
    "decisions": lambda: Spoiled(lambda net, z: 10 * torch.nn.functional.one_hot(net(z).argmax(1), 6).float() - 5),
    "NaN off the images": lambda: Spoiled(_nan_off_the_images),
    "NaN gradients": lambda: Spoiled(_nan_gradient),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("attacks", [
    FGSM(THREAT), [PGD(THREAT, steps=5), PGD(THREAT, steps=5, restarts=2, seed=3)], SquareAttack(THREAT, queries=3),
    {"borrowed": lambda model, x, y: PGD(THREAT, steps=5)(model, x, y)},
], ids=["fgsm", "a list", "square", "foreign"])
@pytest.mark.parametrize("name", [*UNFOLLOWED, "quantized"])
def test_what_no_attack_could_follow_is_not_evaluated(name: str, attacks: Any) -> None:
    _, x, y = problem()
    model = quantized() if name == "quantized" else UNFOLLOWED[name]()
    report = evaluate(model, x, y, THREAT, attacks)
    assert [doubt.kind for doubt in report.doubts][-1] == "not followed"
    assert not report.valid
    assert report.sentence.startswith("Not evaluated under L∞ 0.05: ")
    assert " % (95 %" not in report.sentence
    assert "What would decide: BPDA" in report.sentence
    assert ("SquareAttack(threat)" in report.sentence) == (not isinstance(attacks, SquareAttack))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", [*UNFOLLOWED, "quantized"])
def test_quick_tries_a_short_square_where_nothing_could_be_followed(name: str) -> None:
    _, x, y = problem()
    report = evaluate(quantized() if name == "quantized" else UNFOLLOWED[name](), x, y, THREAT, "quick")
    square = report.attack("square")
    assert square.on == "not followed"
    assert np.array_equal(square.tried, report.clean & ~report.attack("fgsm").broke & ~report.attack("pgd-20").broke)
    # What it leaves was still not followed: an upper bound where next to nothing is left, and no verdict otherwise.
    assert report.valid == (report.robust.sum() <= 0.02 * report.n)
    if name not in ("a threshold", "NaN off the images"):
        assert square.broke.sum() > 0


def test_an_honest_model_is_evaluated_and_pays_nothing() -> None:
    model, x, y = problem()
    report = evaluate(model, x, y, THREAT, "quick")
    assert report.valid
    assert report.doubts == ()
    assert [record.name for record in report.attacks] == ["fgsm", "pgd-20"]
    assert evaluate(model, x, y, THREAT, SquareAttack(THREAT, queries=5)).valid
    assert evaluate(model, x, y, THREAT, Quantized(SquareAttack(THREAT, queries=5))).valid
    assert evaluate(model, x, y, THREAT, lambda net, images, labels: images).valid
    assert evaluate(model, x, y, ThreatModel("linf", 0), "quick").valid


def test_an_attack_that_can_follow_is_enough() -> None:
    """Of logits so large that cross-entropy is blind, the margin still has a gradient."""
    _, x, y = problem()
    model = UNFOLLOWED["logits times a million"]()
    report = evaluate(model, x, y, THREAT, [FGSM(THREAT), PGD(THREAT, steps=5, loss="margin")])
    assert report.valid
    assert report.robust_accuracy == evaluate(problem()[0], x, y, THREAT, [
        FGSM(THREAT, loss="margin"), PGD(THREAT, steps=5, loss="margin")]).robust_accuracy
    assert Quick(THREAT).run(model, x, y).valid


def test_a_few_such_images_are_a_note() -> None:
    """Up to two in a hundred: their number bounds the error."""
    net, x, y = problem()
    y = net(x).argmax(1)
    dull = x[:1]

    def partly(z: Tensor) -> Tensor:
        near = (z - dull).abs().flatten(1).amax(1) < 0.2
        return torch.where(near[:, None], net(z.detach()), net(z))

    assert evaluate(partly, x[:60], y[:60], THREAT, PGD(THREAT, steps=3)).valid
    few = evaluate(partly, x[:20], y[:20], THREAT, PGD(THREAT, steps=3))
    assert not few.valid
    assert "1 of 20 images" in few.sentence


def test_broken_images_are_a_bound_however_they_were_found() -> None:
    """Where all but a few are broken without a gradient, the few are all that can resist."""
    _, x, y = problem()
    wide = ThreatModel("linf", 0.6)
    report = evaluate(UNFOLLOWED["rounded pixels"](), x, y, wide, "quick")
    assert report.robust.sum() <= 1
    assert report.valid


class Drawn(nn.Module):
    def __init__(self, scale: float = 0.3) -> None:
        super().__init__()
        self.net, self.scale = problem()[0], scale

    def forward(self, z: Tensor) -> Tensor:
        return self.net(z) + self.scale * torch.randn(len(z), 6)


@pytest.mark.parametrize("suite", ["quick", [PGD(THREAT, steps=3)], lambda model, x, y: x], ids=["quick", "pgd", "own"])
def test_answers_at_random_are_not_evaluated(suite: Any) -> None:
    _, x, y = problem()
    report = evaluate(Drawn(), x, y, THREAT, suite)
    assert [doubt.kind for doubt in report.doubts] == ["random answers"]
    assert 'suite="random"' in report.sentence
    assert not Quick(THREAT).run(Drawn(), x, y).valid


def test_a_mean_over_draws_says_so_and_is() -> None:
    _, x, y = problem()
    assert evaluate(EOT(Drawn(), samples=5), x, y, THREAT, [PGD(THREAT, steps=3)]).valid
    assert evaluate(Drawn(), x[:10], y[:10], THREAT, Quick(THREAT, version="rand")).valid


def _batch_statistics(affine: bool = True) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(2)
        return nn.Sequential(nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6, affine=affine, track_running_stats=False), nn.ReLU(),
                             nn.Flatten(), nn.Linear(120, 6)).eval()


HANG_ON_THE_BATCH: dict[str, Callable[[], Any]] = {
    "batch norm without running statistics": _batch_statistics,
    "a mean over the batch taken off": lambda: Spoiled(lambda net, z: net(z - z.mean(0, keepdim=True) + 0.5)),
    "attention over the batch": lambda: Spoiled(lambda net, z: net(z) @ net(z).T.softmax(1)[:6, :6]),
    "scaled by the largest of the batch": lambda: Spoiled(lambda net, z: net(z / z.max())),
    "rows in another order": lambda: lambda z: problem()[0](z).roll(1, 0),
}


@pytest.mark.parametrize("name", HANG_ON_THE_BATCH)
@pytest.mark.parametrize("batch_size", [None, 8])
def test_answers_that_hang_on_the_batch_are_not_evaluated(name: str, batch_size: int | None) -> None:
    _, x, _ = problem()
    if name == "scaled by the largest of the batch":
        x = x * torch.linspace(0.3, 0.9, len(x))[:, None, None, None]
    model = HANG_ON_THE_BATCH[name]()
    with torch.no_grad():
        y = model(x).argmax(1)
    report = evaluate(model, x, y, THREAT, [FGSM(THREAT)], batch_size=batch_size)
    assert "depends on the batch" in [doubt.kind for doubt in report.doubts]
    assert "running statistics" in report.sentence


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_rounding_is_no_company(dtype: torch.dtype) -> None:
    """A model in half precision is looked at in batches of one shape, which round alike."""
    net, x, y = problem()
    net = net.to(dtype)
    report = evaluate(lambda z: net(z.to(dtype)).float(), x, y, THREAT, [FGSM(THREAT)])
    assert report.valid


@pytest.mark.parametrize("answer", [
    lambda z: z.softmax(1), lambda z: z.sigmoid(), lambda z: z[:, :2].sigmoid(), lambda z: z.softmax(1).half().float(),
    lambda z: z.softmax(1).clamp(1e-6, 1 - 1e-6), lambda z: torch.stack((1 - z[:, 0].sigmoid(), z[:, 0].sigmoid()), 1),
], ids=["softmax", "sigmoids", "two sigmoids", "half", "clamped", "one minus"])
@pytest.mark.parametrize("suite", ["quick", [PGD(THREAT, steps=3)]], ids=["quick", "pgd"])
def test_probabilities_are_not_evaluated(answer: Callable[[Tensor], Tensor], suite: Any) -> None:
    net, x, _ = problem()
    model = Spoiled(lambda _, z: answer(net(z)))
    with torch.no_grad():
        y = model(x).argmax(1)
    report = evaluate(model, x, y, THREAT, suite)
    assert "probabilities" in [doubt.kind for doubt in report.doubts]
    assert "Return the logits" in report.sentence


@pytest.mark.parametrize("answer", [lambda z: z, lambda z: z.log_softmax(1), lambda z: z.softmax(1).log(),
                                    lambda z: 0.1 * z])
def test_logits_and_log_probabilities_are(answer: Callable[[Tensor], Tensor]) -> None:
    net, x, y = problem()
    assert evaluate(lambda z: answer(net(z)), x, y, THREAT, "quick").valid


@pytest.fixture(scope="module")
def void() -> Report:
    _, x, y = problem()
    return evaluate(UNFOLLOWED["numpy inside"](), x, y, THREAT, PGD(THREAT, steps=3), classes=list("abcdef"))


def test_json_and_pages_follow(void: Report) -> None:
    content = json.loads(void.to_json())
    assert content["valid"] is False
    assert content["doubts"][0]["kind"] == "not followed"
    again = Report.from_json(void.to_json())
    assert again.sentence == void.sentence
    assert not again.valid
    for html in (page(void), inline(void)):
        assert "Not evaluated under L∞ 0.05" in html
        assert "no verdict" in html
        assert "broken by no attack" not in html
    assert "Why there is no number" in page(void)
    for step in advice(void):
        assert "Report this number" not in step.advice
    assert "no number to report" in " ".join(step.advice for step in advice(void))


def test_reports_of_earlier_versions_are_read(void: Report) -> None:
    content = json.loads(void.to_json())
    del content["doubts"], content["valid"]
    assert Report.from_json(json.dumps(content)).valid


def test_no_limit_is_held_against_it(void: Report) -> None:
    _, x, y = problem()
    sound = evaluate(problem()[0], x, y, THREAT, PGD(THREAT, steps=3), classes=list("abcdef"))
    drop = {"max_drop": 50}
    for report, more in ((void, {"min_robust": 1}), (void, {"min_class": 1}), (void, drop | {"baseline": sound}),
                         (sound, drop | {"baseline": void})):
        verdict = gate(report, **more)
        assert verdict.exit_code == 3
        assert "no attack could follow a gradient" in verdict.checks[0].words
        assert gate(report, **more, strict=True).exit_code == 1
    assert [check.criterion for check in gate(void, min_robust=1).checks] == ["verdict"]
    assert gate(sound, min_robust=1).exit_code == 0


def test_auto_attack_says_it_too() -> None:
    _, x, y = problem()
    result = Quick(THREAT).run(UNFOLLOWED["numpy inside"](), x, y)
    assert not result.valid
    assert [warning.kind for warning in result.warnings if warning.voids] == ["not followed"]
    assert AutoAttack(THREAT).run(problem()[0], x[:0], y[:0]).valid


def test_several_parts_and_a_state_end_alike(tmp_path: Any) -> None:
    _, x, y = problem()
    model = UNFOLLOWED["rounded pixels"]()
    whole = evaluate(model, x, y, THREAT, "quick")
    parts = evaluate(model, x, y, THREAT, "quick", batch_size=7, state=tmp_path)
    again = evaluate(model, x, y, THREAT, "quick", batch_size=7, state=tmp_path)
    for other in (parts, again):
        assert np.array_equal(other.robust, whole.robust)
        assert other.doubts == whole.doubts


# Doubts that are easy to slip past.

def _masked(answer: Callable[[Tensor], Tensor], by: float) -> Callable[[Tensor], Tensor]:
    """With one class more, which no image is: a single huge logit, beside which the others look alike."""
    return lambda z: torch.cat((answer(z), torch.full((len(z), 1), by)), 1)


@pytest.mark.parametrize("by", [-1e4, -1e9, -torch.inf])
def test_a_masked_class_hides_nothing(by: float) -> None:
    net, x, y = problem()
    assert evaluate(_masked(net, by), x, y, THREAT, "quick").valid
    drawn = evaluate(_masked(Drawn(), by), x, y, THREAT, "quick")
    assert [doubt.kind for doubt in drawn.doubts] == ["random answers"]
    of_batch = evaluate(_masked(lambda z: net(z - z.mean(0) + 0.5), by), x, y, THREAT, "quick")
    assert "depends on the batch" in [doubt.kind for doubt in of_batch.doubts]


class OverTheBatch(nn.Module):
    """Without batch_first=True the images of a batch are taken for the steps of a sequence."""

    def __init__(self, batch_first: bool) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.lstm, self.last = nn.LSTM(3, 16, batch_first=batch_first), nn.Linear(16, 4)

    def forward(self, z: Tensor) -> Tensor:
        return 20 * self.last(self.lstm(z)[0][:, -1])


@pytest.mark.parametrize("suite", ["quick", [FGSM(THREAT)]], ids=["quick", "fgsm"])
def test_what_hangs_on_earlier_images_or_on_the_place_is_seen(suite: Any) -> None:
    net, x, y = problem()
    series = torch.rand(60, 5, 3, generator=torch.Generator().manual_seed(3))

    def seeded(z: Tensor) -> Tensor:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return net(z + 0.2 * torch.randn_like(z))

    for model, images, labels in (
            (OverTheBatch(False).eval(), series, None), (seeded, x, y),
            (lambda z: net((z - z[:1] + 0.5).clamp(0, 1)), x, y)):
        labels = model(images).argmax(1) if labels is None else labels
        report = evaluate(model, images, labels, THREAT, suite)
        assert "depends on the batch" in [doubt.kind for doubt in report.doubts]
    fine = OverTheBatch(True).eval()
    assert evaluate(fine, series, fine(series).argmax(1), THREAT, suite).valid


def test_a_model_that_draws_is_held_against_its_own_draws_in_other_company() -> None:
    _, x, y = problem()

    class Both(nn.Module):
        stochastic = True

        def __init__(self, tracked: bool) -> None:
            super().__init__()
            self.net, self.norm = problem()[0], nn.BatchNorm2d(2, track_running_stats=tracked)

        def forward(self, z: Tensor) -> Tensor:
            return self.net(self.norm(z) * 0.3 + 0.5) + 0.01 * torch.randn(len(z), 6)

    for model in (Both(False), EOT(Both(False), samples=3)):
        report = evaluate(model.eval(), x[:20], y[:20], THREAT, Quick(THREAT, version="rand"))
        assert [doubt.kind for doubt in report.doubts] == ["depends on the batch"]
    assert evaluate(Both(True).eval(), x[:20], y[:20], THREAT, Quick(THREAT, version="rand")).valid


def test_a_hair_of_gradient_beside_a_blocked_step_is_seen_by_the_probe() -> None:
    net, x, _ = problem()
    with torch.random.fork_rng():
        torch.manual_seed(1)
        other = nn.Sequential(nn.Flatten(), nn.Linear(84, 6))

    class Lying(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, z: Tensor) -> Tensor:
            return z.clone()

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:
            return -gradient

    models: dict[str, Callable[[Tensor], Tensor]] = {
        "one member of two": lambda z: 0.8 * net(z.detach()) + 0.2 * other(z),
        "brightness beside rounding":
            lambda z: net((8 * z).round() / 8) + 1e-6 * z.mean((1, 2, 3))[:, None] * torch.arange(6),
        "negated": lambda z: net(Lying.apply(z)),
    }
    for name, model in models.items():
        with torch.no_grad():
            y = model(x).argmax(1)
        report = evaluate(model, x, y, THREAT, "quick")
        assert [doubt.kind for doubt in report.doubts] == ["misleading gradients"], name
        assert "standard suite" in report.sentence


def test_the_probe_decides_no_image() -> None:
    net, x, y = problem()
    report = evaluate(net, x, y, THREAT, "quick")
    alone = evaluate(net, x, y, THREAT, [FGSM(THREAT), PGD(THREAT, steps=20, seed=-1)])
    assert np.array_equal(report.robust, alone.robust)


def test_a_model_that_changes_from_call_to_call_is_seen_by_its_attacks() -> None:
    """Two nets in turn: by pairs of calls they repeat themselves."""
    net, x, y = problem()
    calls = []

    def in_turn(z: Tensor) -> Tensor:
        calls.append(1)
        return net(z) if len(calls) % 7 < 4 else net(z).roll(1, 1)

    report = evaluate(in_turn, x, y, THREAT, [PGD(THREAT, steps=2), PGD(THREAT, steps=3), PGD(THREAT, steps=4)])
    assert "random answers" in [doubt.kind for doubt in report.doubts]


def test_what_is_proved_needs_no_attack() -> None:
    def dark_or_light(z: Tensor) -> Tensor:
        light = (z.flatten(1).mean(1) > 0.5).float()
        return torch.stack((10 - 20 * light, 20 * light - 10), 1)

    x = torch.cat((0.3 * torch.rand(30, 2, 7, 6), 0.7 + 0.3 * torch.rand(30, 2, 7, 6)))
    y = (torch.arange(60) >= 30).long()
    assert not evaluate(dark_or_light, x, y, THREAT, "quick").valid
    proved = evaluate(dark_or_light, x, y, THREAT, "quick", certified=torch.ones(60, dtype=torch.bool))
    assert proved.valid
    assert "at least 100 % (95 %: 94–100) are proved to" in proved.sentence


def test_a_way_back_that_fails_is_none_for_a_black_box() -> None:
    net, x, y = problem()

    class NoWayBack(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, z: Tensor) -> Tensor:
            return z.clone()

    report = evaluate(lambda z: net(NoWayBack.apply(z)), x, y, THREAT, SquareAttack(THREAT, queries=3))
    assert (report.n, report.failures) == (60, ())
    assert [doubt.kind for doubt in report.doubts] == ["not followed"]


def test_percentages_are_probabilities_too() -> None:
    net, x, y = problem()
    assert "probabilities" in [doubt.kind for doubt in evaluate(
        lambda z: 100 * net(z).softmax(1), x, y, THREAT, "quick").doubts]

    def scores(z: Tensor) -> Tensor:
        return torch.nn.functional.normalize((0.3 * net(z)).exp(), dim=1)

    assert "20 * scores" in evaluate(scores, x, y, THREAT, "quick").sentence
    assert evaluate(lambda z: 20 * scores(z), x, y, THREAT, "quick").valid


def test_findings_do_not_turn_no_verdict_into_a_fail() -> None:
    _, x, y = problem()
    report = evaluate(UNFOLLOWED["numpy inside"](), x, y, THREAT, Suite(
        "standard", (SuiteEntry("pgd", PGD(THREAT, steps=3)),), curve=False, diagnostics=True))
    assert report.findings
    verdict = gate(report, min_robust=1, min_clean=1)
    assert [(check.criterion, check.outcome) for check in verdict.checks] == [("verdict", "undecided")]
    assert verdict.exit_code == 3
