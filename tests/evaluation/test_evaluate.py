"""evaluate: verdicts, what it accepts and refuses, what it leaves as it was, and what it survives."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from quick_auto_attack import Quick, problem
from small_evaluation import SUITE, THREAT, small, verdicts
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from robustness_lib import ThreatModel, data, models
from robustness_lib.attacks import FAB, FGSM, PGD, AutoAttack, CarliniWagnerL2, Transfer
from robustness_lib.attacks.adaptive import EOT
from robustness_lib.evaluation import Contradiction, Refused, Report, _steps, evaluate
from robustness_lib.evaluation.suites import Suite, SuiteEntry
from robustness_lib.querying.warnings import AttackWarning

HERE = Path(__file__).parent
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1",
                            "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent / "attacks"),
                                                           os.environ.get("PYTHONPATH", "")])}


@pytest.fixture(scope="module")
def report() -> Report:
    return small()


@pytest.fixture(scope="module")
def signs():
    x, y, classes = data.load("signs", "test", n=60)
    return models.load_pretrained("signs-tiny-pgd"), x, y, classes


# Verdicts.


def test_every_verdict_is_that_of_the_attacks_run_by_hand(report: Report) -> None:
    model, x, y = problem()
    right = (model(x).argmax(1) == y).numpy()
    assert np.array_equal(report.clean, right)
    for name, attack in (("fgsm", FGSM(THREAT)), ("pgd-5", PGD(THREAT, steps=5, restarts=2))):
        broken = right & (model(attack(model, x, y)).argmax(1) != y).numpy()
        assert np.array_equal(report.attack(name).broke, broken)
        assert np.array_equal(report.attack(name).tried, right)
    standing = right & ~report.attack("fgsm").broke & ~report.attack("pgd-5").broke
    assert np.array_equal(report.attack("apgd-ce").tried, standing)
    for name in ("apgd-ce", "apgd-t", "fab-t", "square"):
        assert np.array_equal(report.attack(name).tried, standing)
        standing = standing & ~report.attack(name).broke
    assert np.array_equal(report.robust, standing)
    assert 5 < report.robust_accuracy.correct < report.clean_accuracy.correct - 5


def test_the_worst_case_counts_an_image_that_only_the_weaker_attack_broke(report: Report) -> None:
    def never(model, x, y):
        return x

    def first_half(model, x, y):
        return PGD(THREAT, steps=5, restarts=2)(model, x, y)

    model, x, y = problem()
    worst = evaluate(model, x, y, THREAT, [first_half, never], batch_size=16)
    assert worst.own("never").correct == worst.clean_accuracy.correct
    assert worst.robust_accuracy.correct == worst.own("first_half").correct == report.own("pgd-5").correct


def test_mistaken_for_distance_and_broken_by(report: Report) -> None:
    examples, broken = report.examples, report.clean & ~report.robust
    assert [by is not None for by in examples.broken_by] == broken.tolist()
    assert np.array_equal(examples.mistaken_for >= 0, broken)
    assert (examples.mistaken_for != examples.label)[broken].all()
    assert np.array_equal(~np.isnan(examples.distance), broken)
    assert (examples.distance[broken] <= THREAT.eps * (1 + 1e-5)).all()
    assert (examples.distance[broken] > 0).all()
    for row in broken.nonzero()[0].tolist():
        before = [record.name for record in report.attacks]
        by = examples.broken_by[row]
        assert report.attack(by).broke[row]
        assert not any(report.attack(name).broke[row] for name in before[:before.index(by)])


def test_the_curve_is_computed_at_each_eps_with_its_own_step(report: Report) -> None:
    model, x, y = problem()
    right = (model(x).argmax(1) == y).numpy()
    assert report.curve.eps == (THREAT.eps / 4, THREAT.eps / 2, THREAT.eps, 2 * THREAT.eps, 0.5)
    suite = [record for record in report.attacks if record.name != "curve"]
    for eps, stood in zip(report.curve.eps, report.curve.stood, strict=True):
        attack = PGD(ThreatModel("linf", eps), steps=20, seed=-1)
        expected = (model(attack(model, x, y)).argmax(1) == y).numpy() if eps != THREAT.eps else \
            ~np.any([record.broke for record in suite], axis=0)  # there the suite has spoken
        assert np.array_equal(stood, right & expected)
    fixed = PGD(ThreatModel("linf", 0.5), steps=20, step_size=THREAT.eps / 20, seed=-1)  # the classic mistake
    assert (model(fixed(model, x, y)).argmax(1) == y).sum() > report.curve_alone[-1].correct
    alone, carried = report.curve_alone, report.curve_carried
    assert all(c.correct <= a.correct for c, a in zip(carried, alone, strict=True))
    assert carried[2].correct == report.robust_accuracy.correct
    largest = torch.bincount(y).max() / len(y)
    assert alone[-1].value <= largest


def test_top5_counts_the_five_largest() -> None:
    model, x, y = problem()
    top = model(x).topk(5).indices
    expected = (top == y[:, None]).any(1)
    found = evaluate(model, x, y, THREAT, FGSM(THREAT))
    assert np.array_equal(found.examples.top5, expected)
    assert (~expected).any()
    few = nn.Sequential(model, nn.Linear(6, 2))
    assert evaluate(few, x, y % 2, THREAT, FGSM(THREAT)).top5_accuracy.value == 1


def test_l2_has_its_grey_point() -> None:
    model, x, y = problem()
    found = evaluate(model, x, y, ThreatModel("l2", 0.3), "quick", curve=(0.1, 0.2))
    assert found.curve.eps == (0.1, 0.2)
    suite = type(SUITE)("c", SUITE.entries[:1], curve=True, diagnostics=False)
    assert evaluate(model, x, y, THREAT, suite).curve.eps[-1] == 0.5
    l2 = ThreatModel("l2", 0.3)
    assert evaluate(model, x, y, l2, type(SUITE)("c", (type(SUITE.entries[0])("f", FGSM(l2)),), curve=True,
                                                 diagnostics=False)).curve.eps[-1] == pytest.approx(0.5 * 84**0.5)


def test_the_standard_suite_is_what_it_says(signs) -> None:
    model, x, y, classes = signs
    found = evaluate(model, x[:12], y[:12], ThreatModel("linf", 8 / 255), classes=classes)
    assert [record.name for record in found.attacks] == ["fgsm", "pgd-20", "apgd-ce", "apgd-t", "fab-t", "square",
                                                         "curve"]
    assert "restarts=5" in found.attack("pgd-20").settings
    assert "steps=20" in found.attack("pgd-20").settings
    assert [record.on for record in found.attacks] == ["correct"] * 2 + ["survivors"] * 4 + ["correct"]
    assert found.findings is None  # of twelve images nobody can tell
    assert any("too few to look for masked gradients" in note for note in found.notes)
    assert found.suite == "standard"
    verdict = AutoAttack(ThreatModel("linf", 8 / 255)).run(model, x[:12], y[:12])
    assert (found.robust & ~verdict.robust.numpy()).sum() == 0


# What it takes.


def test_loaders_of_any_batch_size_give_the_same_report(report: Report) -> None:
    model, x, y = problem()
    for size in (7, 16, 60):
        loader = DataLoader(TensorDataset(x, y), batch_size=size)
        assert verdicts(evaluate(model, loader, threat=THREAT, suite=SUITE, batch_size=16)) == verdicts(report)
    pairs = ((image[None], label[None]) for image, label in zip(x, y, strict=True))  # a generator, used once
    assert verdicts(evaluate(model, pairs, threat=THREAT, suite=SUITE, batch_size=16)) == verdicts(report)


def test_other_parts_give_the_same_verdicts(report: Report) -> None:
    for size in (10, 60):
        other = small(batch_size=size)
        assert np.array_equal(other.robust, report.robust)
        assert other.examples.digest == report.examples.digest
        assert other.fingerprints == report.fingerprints


class Spy(PGD):
    """Notes which images it is told that it attacks."""

    seen: ClassVar[list[list[int]]] = []

    def run(self, model, x, y, target=None, *, index=None, **more):
        self.seen.append(index.tolist())
        return super().run(model, x, y, target, index=index, **more)


def test_every_random_number_follows_the_image_and_not_its_part(report: Report, monkeypatch) -> None:
    diagnosed = []
    observe = _steps.observe
    monkeypatch.setattr(_steps, "observe",
                        lambda *a, index, **more: diagnosed.append(index.tolist()) or observe(*a, index=index, **more))
    model, x, y = problem()
    suite = type(SUITE)("spied", (type(SUITE.entries[0])("spy", Spy(THREAT, steps=1)),), curve=False, diagnostics=True)
    evaluate(model, x, y, THREAT, suite, batch_size=16)
    assert [row for seen in Spy.seen for row in seen] == report.clean.nonzero()[0].tolist()
    assert diagnosed == [list(range(first, min(first + 16, 60))) for first in (0, 16, 32, 48)]


def test_the_seed_is_used() -> None:
    model, x, y = problem()
    standard = evaluate(model, x[:4], y[:4], ThreatModel("linf", 0.01), "quick", seed=3)
    assert "seed=-4" in standard.attack("pgd-20").settings
    assert standard.environment["seed"] == "3"


def test_foreign_attacks(report: Report) -> None:
    model, x, y = problem()

    def torchattacks_like(net, images, labels):
        images = images.detach().clone().requires_grad_()
        loss = nn.functional.cross_entropy(net(images), labels)
        loss.backward()  # fills .grad of the images; the parameters must stay as they were
        return (images + THREAT.eps * images.grad.sign()).clamp(0, 1).detach()

    found = evaluate(model, x, y, THREAT, torchattacks_like, batch_size=16)
    assert np.array_equal(found.attack("torchattacks_like").broke, report.attack("fgsm").broke)
    assert all(parameter.grad is None for parameter in model.parameters())
    named = evaluate(model, x, y, THREAT, {"theirs": torchattacks_like, "ours": FGSM(THREAT)}, batch_size=16)
    assert [record.name for record in named.attacks] == ["theirs", "ours"]
    assert named.own("theirs").correct == named.own("ours").correct


def test_a_foreign_attack_that_draws_at_random_is_repeated_and_leaves_the_generator_alone() -> None:
    model, x, y = problem()
    made = []

    def noise(net, images, labels):
        made.append((images + THREAT.eps * torch.randn_like(images).sign()).clamp(0, 1))
        return made[-1]

    found = []
    for seed in (0, 0, 1):
        torch.rand(1)  # somebody else draws in between
        before = torch.random.get_rng_state()
        found.append(evaluate(model, x, y, THREAT, noise, batch_size=16, seed=seed))
        assert torch.random.get_rng_state().equal(before)
    first, again, other = torch.cat(made).chunk(3)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert verdicts(found[0]) == verdicts(found[1])


@pytest.mark.parametrize(("attack", "words"), [
    (lambda m, x, y: x + 0.06, "left the (threat model L∞ 0.05: image|pixel box)"),
    (lambda m, x, y: (x - 0.06).clamp(0, 1), r"image \d+ moved by 0.06, and ε is 0.05"),
    (lambda m, x, y: x - 1, "pixel box"),
    (lambda m, x, y: x * torch.nan, "NaN"),
    (lambda m, x, y: x[:, :1], r"shape \(16, 2, 7, 6\)|must return images of shape"),
    (lambda m, x, y: None, "found NoneType"),
])
def test_a_foreign_attack_that_breaks_the_rules_is_refused(attack, words: str) -> None:
    model, x, y = problem()
    with pytest.raises(Refused, match=words):
        evaluate(model, x, y, THREAT, attack, batch_size=16)


@pytest.mark.parametrize("suite", ["quick", "standard", "random", "own"])
def test_every_suite_says_that_answers_are_drawn_at_random(suite: str) -> None:
    """But the one that is made for such models. Once: where the diagnostics find it, they say more."""
    model, x, y = problem()

    class Noise(nn.Module):
        def forward(self, z):
            return model(z) + 0.3 * torch.randn(len(z), 6)

    torch.manual_seed(0)
    attack = FGSM(THREAT)
    suites = {"own": attack, "standard": Suite("standard", (SuiteEntry("fgsm", attack),), False, True)}
    found = evaluate(Noise(), x, y, THREAT, suites.get(suite, suite), batch_size=16)
    assert ["random answers" in doubt.kind for doubt in found.doubts] == [True] * (suite != "random")
    assert not [note for note in found.notes if note.startswith("random answers")]
    assert ("outputs vary" in [finding.kind for finding in found.findings or ()]) == (suite == "standard")
    assert "answers" not in found.environment
    made_for_it = evaluate(Noise(), x[:8], y[:8], THREAT, Quick(THREAT, version="rand"))
    assert not [note for note in made_for_it.notes if note.startswith("random answers")]
    for eot in (EOT(Noise(), 3), EOT(Noise(), 2, decision="majority")):
        asked = evaluate(eot, x[:8], y[:8], THREAT, attack).environment["answers"]
        assert asked == f"of {eot.samples} draws each, decided by {eot.decision}"


def test_a_report_holds_the_settings_that_were_run() -> None:
    """On a model that says it answers at random no part of AutoAttack stops at its first success."""
    model, x, y = problem()
    for asked, stop in ((EOT(model, 1), "keep-success"), (model, "success")):
        found = evaluate(asked, x[:8], y[:8], THREAT, Quick(THREAT))
        settings = [record.settings for record in found.attacks if "stop=" in record.settings]
        assert len(settings) == 3
        assert all(f"stop='{stop}'" in words for words in settings)


def test_minimum_norm_attacks_count_within_eps() -> None:
    model, x, y = problem()
    found = evaluate(model, x, y, THREAT, FAB("linf", steps=5), batch_size=16)
    result = FAB("linf", steps=5).run(model, x, y)
    within = result.success & (result.distance <= THREAT.eps) & (result.distance > 0)
    assert np.array_equal(found.attack("fab").broke, within)
    assert 0 < within.sum() < result.success.sum()
    assert not any(note.startswith("not confirmed") for note in found.notes)  # nobody claims those farther away


@pytest.mark.parametrize(("suite", "error", "words"), [
    ("strong", ValueError, "there is no suite 'strong'; choose quick, standard, prove, random"),
    ([], ValueError, "at least one attack"),
    ([PGD(ThreatModel("linf", 0.04))], ValueError, "has L∞ 0.04, and the evaluation L∞ 0.05"),
    ([AutoAttack(ThreatModel("l2", 0.05))], ValueError, "has L2 0.05"),
    ([CarliniWagnerL2()], ValueError, "has the norm l2"),
    ([3], TypeError, "cannot be called"),
])
def test_suites_that_make_no_sense_are_refused(suite, error, words: str) -> None:
    model, x, y = problem()
    with pytest.raises(error, match=words):
        evaluate(model, x, y, THREAT, suite)


class OfSizes(Dataset):
    """Images that grow."""

    def __init__(self, *, pil: bool = False) -> None:
        self.pil = pil

    def __len__(self) -> int:
        return 8

    def __getitem__(self, row: int):
        image = torch.zeros(3, 4 + row, 4 + row)
        return (Image.fromarray(image.byte().permute(1, 2, 0).numpy()) if self.pil else image), 0


@pytest.mark.parametrize(("arguments", "error", "words"), [
    (lambda m, x, y: (m, x, y), TypeError, "threat must be a ThreatModel"),
    (lambda m, x, y: (m, x, None, THREAT), TypeError, "images need labels"),
    (lambda m, x, y: (m, [(x, y)], y, THREAT), TypeError, "x must be a tensor"),
    (lambda m, x, y: (m, 3, None, THREAT), TypeError, "an iterable of batches"),
    (lambda m, x, y: (m, [x], None, THREAT), TypeError, "must be a pair"),
    (lambda m, x, y: (m, [], None, THREAT), ValueError, "no image"),
    (lambda m, x, y: (m, x[:0], y[:0], THREAT), ValueError, "no image"),
    (lambda m, x, y: (m, x * 255, y, THREAT), ValueError, "from 0 to 255: divide by 255"),
    (lambda m, x, y: (m, x * 4 - 2, y, THREAT), ValueError, "normalization outside the model"),
    (lambda m, x, y: (m, [(x, y), (x * 2, y)], None, THREAT), ValueError, "images 60 to 119: images must lie in"),
    (lambda m, x, y: (m, [{"image": x, "label": y}], None, THREAT), TypeError,
     r"found a dict with image, label. Hand on pairs, such as \(batch\['image'\], batch\['label'\]\)"),
    (lambda m, x, y: (m, [{"labels": y, "pixel_values": x}], None, THREAT), TypeError,
     r"\(batch\['pixel_values'\], batch\['labels'\]\)"),
    (lambda m, x, y: (m, TensorDataset(x, y), None, THREAT), TypeError, "found TensorDataset.*DataLoader"),
    (lambda m, x, y: (m, zip(x, y.tolist(), strict=True), None, THREAT), TypeError, "one image with its label"),
    (lambda m, x, y: (m, x.numpy(), y, THREAT), TypeError, r"found ndarray. Try torch.from_numpy\(x\)"),
    (lambda m, x, y: (m, list(x), y, THREAT), TypeError, r"found list. Try torch.stack\(list\(x\)\)"),
    (lambda m, x, y: (m, [(x.numpy(), y)], None, THREAT), TypeError, r"found ndarray. Try torch.from_numpy\(x\)"),
    (lambda m, x, y: (m, [(x, y.tolist())], None, THREAT), TypeError, r"found list. Try torch.tensor\(y\)"),
    (lambda m, x, y: (m, DataLoader(OfSizes(), batch_size=4), None, THREAT), TypeError,
     r"several sizes, \(3, 4, 4\) and \(3, 5, 5\)"),
    (lambda m, x, y: (m, DataLoader(OfSizes(pil=True), batch_size=4), None, THREAT), TypeError, r"ToTensor\(\)"),
    (lambda m, x, y: (m, [(x, y), (x, y * 0 + 7)], None, THREAT), ValueError,
     r"labels must lie in 0 \.\.\. 5 for 6 logits; found \d to 7; the first such is 7, of image 60\."),
    (lambda m, x, y: (m, [(x, y), (x[:, :, :5], y)], None, THREAT), ValueError, "one shape"),
    (lambda m, x, y: (m, x, y + 9, THREAT), ValueError, "labels must lie in 0 ... 5"),
    (lambda m, x, y: (m, x, y.int(), THREAT), TypeError, "int64"),
    (lambda m, x, y: (lambda z: z, x, y, THREAT), ValueError, r"logits of shape \(32, K\)"),
])
def test_bad_input_gets_a_clear_error(arguments, error, words: str) -> None:
    with pytest.raises(error, match=words):
        evaluate(*arguments(*problem()), suite="quick")


@pytest.mark.parametrize("curve", [(), (-0.1,), (float("nan"),), (float("inf"),)])
def test_a_curve_without_sense_is_refused_before_any_work(curve) -> None:
    _, x, y = problem()
    with pytest.raises(ValueError, match="curve needs at least one ε"):
        evaluate(lambda z: 1 / 0, x, y, THREAT, "quick", curve=curve)


def test_names_of_attacks_are_their_own() -> None:
    model, x, y = problem()
    for suite in ({"curve": FGSM(THREAT)}, {"clean": FGSM(THREAT)}):
        with pytest.raises(ValueError, match="a name of its own"):
            evaluate(model, x, y, THREAT, suite)
    twice = evaluate(model, x, y, THREAT, [Quick(THREAT), Quick(THREAT, seed=1), FGSM(THREAT), FGSM(THREAT)])
    names = [record.name for record in twice.attacks]
    assert len(set(names)) == len(names) == 10
    cumulative = [twice.cumulative(name).correct for name in names]
    assert cumulative == sorted(cumulative, reverse=True)
    odd = {"my attack": FGSM(THREAT), "my-attack": PGD(THREAT, steps=2), "a" * 300: FGSM(THREAT),
           "a/b:c?": FGSM(THREAT)}
    assert [r.name for r in evaluate(model, x, y, THREAT, odd).attacks] == list(odd)


def test_what_the_curve_finds_within_eps_counts() -> None:
    model, x, y = problem()

    def never(net, images, labels):
        return images

    found = evaluate(model, x, y, THREAT, never, curve=(THREAT.eps / 2, THREAT.eps, 2 * THREAT.eps), batch_size=16)
    assert found.own("never").correct == found.clean_accuracy.correct
    assert found.robust_accuracy.correct == found.curve_carried[1].correct < found.clean_accuracy.correct - 5
    broken = found.clean & ~found.robust
    assert {by for by in found.examples.broken_by if by} == {"curve"}
    assert np.array_equal(found.examples.mistaken_for >= 0, broken)
    assert (found.examples.distance[broken] <= THREAT.eps * (1 + 1e-5)).all()
    with pytest.raises(Contradiction, match="and curve found a point"):
        evaluate(model, x, y, THREAT, never, curve=(THREAT.eps / 2,), certified=torch.from_numpy(found.clean))


def test_what_the_diagnostics_find_does_not_count_and_is_a_finding() -> None:
    """An image's verdict must not depend on where it stands: the diagnosis looks at the first images only."""
    model, x, y = problem()

    def never(net, images, labels):
        return images

    suite = type(SUITE)("lazy", (type(SUITE.entries[0])("never", never),), curve=False, diagnostics=True)
    found = evaluate(model, x, y, THREAT, suite, batch_size=16)
    assert found.robust_accuracy.correct == found.clean_accuracy.correct
    assert [record.name for record in found.attacks] == ["never"]
    weak, = [finding for finding in found.findings if finding.kind == "suite too weak"]
    assert weak.images > 5
    assert weak.of == 60
    assert re.search(r"one step \(FGSM\) broke \d+, PGD broke \d+ of the \d+ that the suite left standing, of 60 "
                     r"images looked at: the suite is too weak", weak.message)
    assert "do not trust it" in found.sentence
    least = evaluate(model, x, y, THREAT, "quick").robust_accuracy.correct
    assert found.robust_accuracy.correct - weak.images <= least + 1
    # At a larger ε, the curve breaks these images before the diagnosis looks at them: they stand all the same.
    assert evaluate(model, x, y, THREAT, suite, batch_size=16, curve=(2 * THREAT.eps,)).findings == found.findings
    with pytest.raises(Contradiction, match="diagnostics") as error:
        evaluate(model, x, y, THREAT, suite, batch_size=16, certified=torch.from_numpy(found.clean))
    assert error.value.x_adv is None


def test_class_names() -> None:
    model, x, y = problem()
    assert evaluate(model, x, y, THREAT, "quick").classes == tuple("012345")
    assert evaluate(model, x, y, THREAT, "quick", classes="abcdef").classes == tuple("abcdef")
    calls: list[str] = []
    with pytest.raises(ValueError, match="tells 6 classes apart, and 2 names"):
        evaluate(model, x, y, THREAT, "quick", classes="ab", progress=lambda done, step: calls.append(step))
    assert not calls  # before any work
    odd = evaluate(model, x, y, THREAT, "quick", classes=["\udcff", "ä", *"cdef"])
    assert Report.from_json(odd.to_json()).classes == ("?", "ä", "c", "d", "e", "f")


# Proofs beside attacks.


def test_certified_gives_a_lower_bound(report: Report) -> None:
    model, x, y = problem()
    proved = torch.from_numpy(report.robust.copy())
    proved[report.robust.nonzero()[0][0]] = False
    proved[0] = True  # constant and wrong: image 0 has a false label. It must not count as certified accuracy
    found = evaluate(model, x, y, THREAT, "quick", certified=proved, curve=(THREAT.eps / 2, 2 * THREAT.eps))
    assert found.certified_accuracy.correct == report.robust_accuracy.correct - 1
    assert found.curve_alone[1].correct < found.certified_accuracy.correct  # broken at 2ε, proved at ε
    assert "are proved to" in found.sentence
    assert found.certified_accuracy.correct <= found.robust_accuracy.correct
    for wrong in (proved[:-1], torch.cat((proved, proved))):
        with pytest.raises(ValueError, match="one entry per image"):
            evaluate(model, x, y, THREAT, "quick", certified=wrong)


def test_certified_and_broken_is_an_error_that_carries_the_example(report: Report, tmp_path: Path) -> None:
    model, x, y = problem()
    row = int(report.attack("pgd-5").broke.nonzero()[0][-1])
    proved = torch.zeros(len(x), dtype=torch.bool)
    proved[row] = True
    for _ in range(2):  # also when the run is started again
        with pytest.raises(Contradiction, match=f"image {row} is certified under L∞ 0.05, and") as error:
            evaluate(model, x, y, THREAT, SUITE, certified=proved, batch_size=16, state=tmp_path)
        assert error.value.index == row
        assert error.value.x.equal(x[row])
        assert model(error.value.x_adv[None]).argmax(1) == error.value.mistaken_for != y[row]
        assert error.value.distance <= THREAT.eps * (1 + 1e-5)


# What it leaves as it was.


def test_the_model_is_as_it_was() -> None:
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.5),
                          nn.Linear(80, 6))
    model.train()
    model[4].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    _, x, y = problem()
    images = x.clone()

    def rude(net, images, labels):
        net.train()
        return images

    evaluate(model, x, y, THREAT, [FGSM(THREAT), rude], curve=(0.01,), batch_size=16)
    assert [module.training for module in model.modules()] == modes
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert x.equal(images)


# What it survives.


def run_process(*arguments: object, code: int = 0) -> None:
    done = subprocess.run([sys.executable, HERE / "small_evaluation.py", *map(str, arguments)], env=ENVIRONMENT,
                          capture_output=True, text=True, timeout=300)
    assert done.returncode == code, done.stderr


@pytest.mark.parametrize("moment", [1, 6, 13])
def test_a_killed_process_goes_on_and_ends_with_the_same_report(report: Report, tmp_path: Path, moment: int) -> None:
    out, state = tmp_path / "report", tmp_path / "state"
    run_process(out, state, moment, code=-9)
    assert not Path(f"{out}.0").exists()
    kept = {path.name: path.stat().st_mtime_ns for path in state.glob("*.npz")}
    assert len(kept) == moment - 1  # the header is a file too
    run_process(out, state)
    assert verdicts(Report.load(f"{out}.0")) == verdicts(report)
    assert all((state / name).stat().st_mtime_ns == written for name, written in kept.items())
    assert not list(state.glob("*.part"))


def test_a_finished_state_needs_no_work(report: Report, tmp_path: Path) -> None:
    small(state=tmp_path)
    model, x, y = problem()
    calls = []
    model.register_forward_hook(lambda *_: calls.append(1))
    again = evaluate(model, x, y, THREAT, SUITE, batch_size=16, state=tmp_path)
    assert len(calls) == 6  # the first look: two batches, twice; and half of the first in other company, twice
    assert verdicts(again) == verdicts(report)
    assert again.seconds > 0
    assert [record.calls for record in again.attacks] == [record.calls for record in report.attacks]


def test_a_state_of_another_run_is_refused(tmp_path: Path) -> None:
    model, x, y = problem()
    settings = {"suite": "quick", "batch_size": 16, "state": tmp_path}
    evaluate(model, x, y, THREAT, **settings)
    for change, words in (({"seed": 1}, "suite, seed"), ({"suite": FGSM(THREAT)}, "suite"),
                          ({"curve": (0.1,)}, "curve"), ({"batch_size": 8}, "images in a part")):
        with pytest.raises(ValueError, match=f"not the same .*{words}"):
            evaluate(model, x, y, THREAT, **(settings | change))
    with pytest.raises(ValueError, match="threat"):
        evaluate(model, x, y, ThreatModel("linf", 0.04), **settings)
    other = y.clone()
    other[20] = (other[20] + 1) % 6
    with pytest.raises(ValueError, match="the state holds other images at 16 to 31"):
        evaluate(model, x, other, THREAT, **settings)
    for more in (1e-6, 1):  # so little that no answer shows it, and enough for that
        with torch.no_grad():
            model[3].bias[0] += more
        with pytest.raises(ValueError, match="not the same model"):
            evaluate(model, x, y, THREAT, **settings)


def test_a_state_of_other_code_is_refused(tmp_path: Path) -> None:
    model, x, y = problem()

    def attack(net, images, labels):
        return images

    evaluate(model, x, y, THREAT, [attack], state=tmp_path / "a")

    def attack(net, images, labels):  # mended between two runs
        return PGD(THREAT)(net, images, labels)

    with pytest.raises(ValueError, match="attacks"):
        evaluate(model, x, y, THREAT, [attack], state=tmp_path / "a")

    def build(rounds: bool) -> nn.Module:
        class Net(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.inner = model

            if rounds:
                def forward(self, z):
                    return self.inner((z * 255).round() / 255)
            else:
                def forward(self, z):
                    return self.inner(z)

        return Net()

    levels = (x * 255).round() / 255
    evaluate(build(True), levels, y, THREAT, "quick", state=tmp_path / "b")
    with pytest.raises(ValueError, match="model"):
        evaluate(build(False), levels, y, THREAT, "quick", state=tmp_path / "b")


class Fails(nn.Module):
    """Raises on batches that hold a certain image, or, with memory=, on large ones."""

    def __init__(self, model: nn.Module, image: torch.Tensor | None = None, memory: int | None = None) -> None:
        super().__init__()
        self.model, self.image, self.memory = model, image, memory
        self.error = RuntimeError("no kernel for this image")

    def forward(self, x):
        if self.image is not None and any((one - self.image).abs().amax() < 0.06 for one in x):
            raise self.error
        if self.memory is not None and len(x) > self.memory:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return self.model(x)


def test_a_model_that_throws_on_one_batch_is_named_and_nothing_is_lost(report: Report, tmp_path: Path) -> None:
    model, x, y = problem()
    failing = Fails(model, x[37])
    found = evaluate(failing, x, y, THREAT, SUITE, batch_size=16, state=tmp_path)
    assert [(f.first, f.last, f.step, f.error) for f in found.failures] == [
        (37, 37, "clean", "RuntimeError: no kernel for this image")]
    assert found.n == 59
    assert "1 images have no verdict" in found.sentence
    keep = np.delete(np.arange(60), 37)
    assert np.array_equal(found.examples.index, keep)
    assert np.array_equal(found.robust, report.robust[keep])
    files = {path.name for path in tmp_path.glob("*.npz")}
    failing.image = None  # mended: only the part that failed is done
    assert verdicts(evaluate(failing, x, y, THREAT, SUITE, batch_size=16, state=tmp_path))["examples"] == \
        verdicts(report)["examples"]
    assert files < {path.name for path in tmp_path.glob("*.npz")}
    failing.image = x[37]
    proved = torch.from_numpy(report.robust.copy())
    again = evaluate(failing, x, y, THREAT, SUITE, batch_size=16, certified=proved)
    assert np.array_equal(again.certified, proved[keep])


def test_an_attack_that_throws_leaves_its_whole_part_without_a_verdict() -> None:
    """To keep only the images that an earlier attack broke would bend the accuracy."""
    model, x, y = problem()

    def throws(net, images, labels):
        if (images == x[37]).flatten(1).all(1).any():
            raise RuntimeError("no way")
        return images

    found = evaluate(model, x, y, THREAT, [FGSM(THREAT), throws], batch_size=16)
    assert [(f.first, f.last, f.step, f.error) for f in found.failures] == [(32, 47, "throws", "RuntimeError: no way")]
    assert np.array_equal(found.examples.index, np.delete(np.arange(60), np.arange(32, 48)))


def test_a_model_that_throws_at_once_raises() -> None:
    model, x, y = problem()
    failing = Fails(model, x[3])
    found = evaluate(failing, x, y, THREAT, "quick", batch_size=16)  # one of the first is named like any other
    assert [(failure.first, failure.last) for failure in found.failures] == [(3, 3)]
    assert found.n == 59

    def fails(images):
        raise failing.error

    with pytest.raises(RuntimeError, match="no kernel"):
        evaluate(fails, x, y, THREAT, "quick", batch_size=16)


def test_out_of_memory_halves_the_batch_and_says_so_once(report: Report) -> None:
    model, x, y = problem()
    found = evaluate(Fails(model, memory=5), x, y, THREAT, SUITE, batch_size=16)
    assert np.array_equal(found.robust, report.robust)
    assert np.array_equal(found.examples.mistaken_for, report.examples.mistaken_for)
    notes = [note for note in found.notes if "halved" in note]
    assert len(notes) == 1
    assert "batches of 16 images, so they were halved to 4" in notes[0]
    assert not any("halved" in note for note in report.notes)
    with pytest.raises(RuntimeError, match="out of memory"):
        evaluate(Fails(model, memory=0), x, y, THREAT, "quick", batch_size=4)


def test_progress_counts_images_and_names_steps() -> None:
    model, x, y = problem()
    seen = []
    evaluate(model, x, y, THREAT, "quick", batch_size=25, progress=lambda done, step: seen.append((done, step)))
    assert seen[:4] == [(0, "clean"), (5, "fgsm"), (10, "pgd-20"), (20, "square probe")]
    assert seen[-1] == (60, "done")


def test_memory_is_that_of_a_batch() -> None:
    """Images arrive one part at a time, none is held on to, and what is kept of each is a few numbers."""
    import gc
    import weakref

    alive: list[weakref.ref] = []
    most = [0]

    def batches():
        for number in range(12):
            gc.collect()
            most[0] = max(most[0], sum(ref() is not None for ref in alive))
            x = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(number))
            alive.append(weakref.ref(x))
            yield x, torch.zeros(4, dtype=torch.int64)
            del x

    net = nn.Sequential(nn.AvgPool2d(16), nn.Flatten(), nn.Linear(48, 1000))
    with torch.no_grad():
        net[2].bias[0] += 100  # every image is right and stands
    found = evaluate(net, batches(), threat=ThreatModel("linf", 0.001), suite="quick", batch_size=4)
    assert found.n == found.robust_accuracy.correct == 48
    assert most[0] <= 2


# What a second reading found.


def test_nan_beyond_the_first_batch_is_no_answer() -> None:
    """Also where memory has run short, and the answers come in smaller batches."""
    model, x, y = problem()

    def lost(images: torch.Tensor) -> torch.Tensor:
        if len(images) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        z = model(images).clone()
        z[(images == x[25]).flatten(1).all(1)] = torch.nan
        return z

    found = evaluate(lost, x, y, THREAT, FGSM(THREAT), batch_size=32)
    assert [(f.first, f.last, f.step) for f in found.failures] == [(25, 25, "clean")]
    assert found.n == 59


@pytest.mark.parametrize("place", [0, 20])
def test_an_image_without_an_answer_is_named_wherever_it_stands(place: int) -> None:
    model, x, y = problem()

    def lost(images: torch.Tensor) -> torch.Tensor:
        z = model(images).clone()
        z[(images == x[place]).flatten(1).all(1)] = torch.nan
        return z

    found = evaluate(lost, x, y, THREAT, FGSM(THREAT), batch_size=32)
    assert [(f.first, f.last, f.step) for f in found.failures] == [(place, place, "clean")]


def test_proofs_may_come_as_numpy_and_must_be_yes_or_no(report: Report) -> None:
    model, x, y = problem()
    proved = report.robust & False
    assert evaluate(model, x, y, THREAT, "quick", certified=proved).certified_accuracy.correct == 0
    for wrong in (proved.astype(float), proved[:, None]):
        with pytest.raises(TypeError, match="column of booleans"):
            evaluate(model, x, y, THREAT, "quick", certified=wrong)


def test_a_suite_is_bound_to_the_threat_model_that_it_is_run_under() -> None:
    """Also when `find_suite` had bound its functions to another."""
    from robustness_lib.evaluation.suites import find_suite

    model, x, y = problem()

    def mine(net, images, labels):
        return (images + 0.08).clamp(0, 1)

    bound = find_suite([mine], ThreatModel("linf", 0.08))
    evaluate(model, x, y, ThreatModel("linf", 0.08), bound)
    with pytest.raises(Refused, match=r"left the threat model L∞ 0\.04"):
        evaluate(model, x, y, ThreatModel("linf", 0.04), bound)


def test_names_that_collide_are_refused_before_any_work() -> None:
    model, x, y = problem()
    asked: list[int] = []

    def square(net, images, labels):
        asked.append(len(images))
        return images

    with pytest.raises(ValueError, match="two attacks have one name"):
        evaluate(model, x, y, THREAT, type(SUITE)(
            "twins", (SuiteEntry("autoattack", Quick(THREAT)), SuiteEntry("square", square)), False, False))
    assert not asked


def test_an_ensemble_of_ones_own_is_run() -> None:
    from robustness_lib.attacks.ensemble import AttackEnsemble

    class Two(AttackEnsemble):
        threat, draws, least_classes = THREAT, 1, 2

        def attacks(self, classes):
            return {"one step": FGSM(THREAT), "five": PGD(THREAT, steps=5)}

    model, x, y = problem()
    found = evaluate(model, x, y, THREAT, [Two()])
    assert [(record.name, record.on) for record in found.attacks] == [("two/one step", "survivors"),
                                                                      ("two/five", "survivors")]


def test_a_state_of_other_steps_is_refused(tmp_path: Path) -> None:
    model, x, y = problem()
    with_curve, without = (type(SUITE)("same", SUITE.entries, curve, False) for curve in (True, False))
    evaluate(model, x[:16], y[:16], THREAT, without, state=tmp_path)
    with pytest.raises(ValueError, match="not the same steps"):
        evaluate(model, x[:16], y[:16], THREAT, with_curve, state=tmp_path)


def test_square_ahead_is_said_of_images_that_had_a_gradient_though_others_had_none() -> None:
    """Half of the data meet a detached model; on the other half gradients are masked, and Square is ahead."""
    model, x, y = problem()
    half = len(x) // 2

    def odd(images: torch.Tensor) -> torch.Tensor:
        z = model(torch.round(images * 30) / 30 + 0 * images)
        near = torch.cdist(images.detach().flatten(1), x[:half].flatten(1), p=torch.inf).amin(1) <= 1.1 * THREAT.eps
        return z.detach() if bool(near.all()) else z

    found = evaluate(odd, x, y, THREAT, AutoAttack(THREAT), batch_size=half)
    kinds = [note.partition(":")[0] for note in found.notes]
    assert "no gradient" in kinds
    assert any("apgd-ce" in note for note in found.notes if note.startswith("no gradient"))
    assert found.attack("square").broke[half:].sum() > 7
    alarm, = [note for note in found.notes if note.startswith("Square ahead")]
    assert f"broke {found.attack('square').broke[half:].sum()} of 60 images" in alarm
    assert "Square ahead" in kinds


def test_where_no_step_of_the_curve_ran_there_is_no_record_of_it() -> None:
    model, x, y = problem()
    found = evaluate(model, x, y, THREAT, FGSM(THREAT), curve=(THREAT.eps,))
    assert [record.name for record in found.attacks] == ["fgsm"]
    assert np.array_equal(found.curve.stood[0], found.robust)
    assert "where the suite's attacks decide" in found.curve.settings


@pytest.mark.parametrize("classes", [2, 3])
def test_few_classes_are_counted(classes: int) -> None:
    model, x, y = problem(classes=classes)
    for suite in ([Quick(THREAT)], {"first": Quick(THREAT), "second": Quick(THREAT)}):
        report = evaluate(model, x, y, THREAT, suite, batch_size=16)
        (note,) = [note for note in report.notes if note.startswith("few classes")]
        assert f"the model has {classes} classes" in note


def test_warnings_of_other_kinds_of_attacks_keep_their_words_and_counts() -> None:
    """Of a surrogate; of an attack that was written elsewhere; of several parts."""
    model, x, y = problem()

    class Own(PGD):
        def run(self, *arguments, **options):
            result = super().run(*arguments, **options)
            everywhere = tuple(range(len(result.success)))
            return replace(result, warnings=(AttackWarning("own", "the moon was full"),
                                             AttackWarning("own too", "so it was here", everywhere)))

    saturated = Transfer(THREAT, lambda z: 1e9 * model(z))
    report = evaluate(model, x, y, THREAT, {"own": Own(THREAT, steps=1), "transfer": saturated}, batch_size=16)
    assert "own: own: the moon was full" in report.notes
    assert "own too: own: so it was here" in report.notes
    (said,) = [note for note in report.notes if "surrogate" in note]
    tried = int(report.attacks[1].tried.sum())
    assert re.match(rf"zero gradient: transfer: on the surrogate: for \d+ of {tried} images ", said)
    assert not [note for note in report.notes if " of 0 " in note or " 0 classes" in note]


def test_images_left_outside_by_rounding_are_clamped_and_counted_once() -> None:
    model, x, y = problem()
    given = x.clamp(0.01, 0.99)
    given[[3, 40, 41], 0, 0, 0] = torch.tensor([1.0000001, -3e-8, 1.0000005])
    before = given.clone()
    plain = evaluate(model, given.clamp(0, 1), y, THREAT, SUITE, batch_size=16)
    for images in ((given, y), ([(given[:30], y[:30]), (given[30:], y[30:])], None)):
        report = evaluate(model, *images, THREAT, SUITE, batch_size=16)
        assert [note for note in report.notes if note.startswith("clamped: a note only: 3 of 60 images")]
        assert verdicts(report) | {"notes": plain.notes} == verdicts(plain) | {"notes": plain.notes}
    assert torch.equal(given, before)
