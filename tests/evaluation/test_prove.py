"""Evaluations that begin with bounds: what is proved meets no attack, and nothing is both proved and broken."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from robustness_lib import ThreatModel
from robustness_lib.attacks import PGD, AutoAttack
from robustness_lib.attacks.ensemble_steps import AttackStep
from robustness_lib.certify import UnknownOperation, verify
from robustness_lib.certify.proof_steps import ProofStep
from robustness_lib.evaluation import advice, evaluate
from robustness_lib.evaluation.contradiction import Contradiction
from robustness_lib.evaluation.planning import Costs, plan
from robustness_lib.reports import Report
from robustness_lib.reports.page import page
from robustness_lib.training import IBP, OneCycle, fit

LINF = ThreatModel("linf", 0.06)
ATTACKS = [PGD(LINF, steps=10)]


def clouds(n, seed=0):
    """Three clouds of points, some of them in each other's way."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % 3
    centre = torch.tensor([[0.2, 0.2], [0.8, 0.3], [0.4, 0.8]])
    return (centre[y] + 0.1 * torch.randn(n, 2, generator=generator)).clamp(0, 1), y


@pytest.fixture(scope="module")
def model():
    """Trained for bounds."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 3))
        fit(net, clouds(600), IBP(LINF), epochs=20, batch_size=50, schedule=OneCycle(1e-2), ramp=8, weight_decay=0.0,
            progress=False)
    return net


@pytest.fixture(scope="module")
def images():
    return clouds(120, seed=1)


@pytest.fixture(scope="module")
def report(model, images):
    return evaluate(model, *images, LINF, ATTACKS, prove=True)


def test_each_image_is_proved_broken_wrong_or_open(report, model, images):
    proved, clean, robust = report.certified, report.clean, report.robust
    assert 0 < proved.sum() < robust.sum() < clean.sum() < report.n
    assert not (proved & ~robust).any()
    found = verify(model, *images, LINF)
    assert proved.tolist() == found.are("robust").tolist(), "the same bounds, whoever asks"
    assert report.certified_accuracy.correct <= report.robust_accuracy.correct
    assert "are proved to" in str(report)
    (said,) = [step for step in advice(report) if step.name == "bounds"]
    assert f"IBP {report.bounds[0].proved.sum()} of {clean.sum()}" in said.figures
    assert f"On {robust.sum() - proved.sum()} image" in said.advice
    assert report.certified_by.startswith("bounds (IBP, CROWN-IBP, CROWN, α-CROWN)")


def test_what_is_proved_meets_no_attack(report):
    (attack,) = report.attacks
    assert np.array_equal(attack.tried, report.clean & ~report.certified)
    tried = [bound.tried for bound in report.bounds]
    assert [bound.name for bound in report.bounds] == ["IBP", "CROWN-IBP", "CROWN", "α-CROWN"]
    assert np.array_equal(tried[0], report.clean)
    standing = report.clean
    for bound in report.bounds:
        assert np.array_equal(bound.tried, standing)
        standing = standing & ~bound.proved
        assert bound.passes > 0
        assert bound.seconds > 0
    assert np.array_equal(np.any([bound.proved for bound in report.bounds], axis=0), report.certified)


def test_the_figures_are_those_of_attacks_alone(report, model, images):
    """But for what they cost."""
    alone = evaluate(model, *images, LINF, ATTACKS)
    assert np.array_equal(alone.robust, report.robust)
    assert alone.examples.broken_by == report.examples.broken_by
    assert report.attacks[0].queries < alone.attacks[0].queries / 2


def test_within_eps_the_curve_takes_the_proof_for_an_answer_and_beyond_it_attacks(model, images):
    found = evaluate(model, *images, LINF, ATTACKS, prove=True, curve=[0.03, 0.06, 0.12])
    alone = evaluate(model, *images, LINF, ATTACKS, curve=[0.03, 0.06, 0.12])
    assert np.array_equal(found.curve.stood, alone.curve.stood)
    assert not (~found.curve.stood[:2] & found.certified).any()
    assert (~found.curve.stood[2] & found.certified).any(), "proved at ε, broken at twice ε"


def test_the_suite_costs_a_tenth_of_autoattack(model, images):
    """Bounds counted in forward passes."""
    found = evaluate(model, *images, LINF, "prove")
    alone = evaluate(model, *images, LINF, AutoAttack(LINF))
    assert np.array_equal(found.robust, alone.robust)

    def passes(report):
        return sum(attack.queries + attack.gradients for attack in report.attacks)

    assert passes(found) < passes(alone) / 10
    assert {attack.on for attack in found.attacks} == {attack.on for attack in alone.attacks}


def test_parts_states_and_files(report, model, images, tmp_path, monkeypatch):
    x, y = images
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=50)
    again = evaluate(model, loader, threat=LINF, suite=ATTACKS, prove=True, batch_size=50)
    assert np.array_equal(again.certified, report.certified)
    worked = []
    for kind in (ProofStep, AttackStep):
        def spy(self, part, rows, size, work=kind.work):
            worked.append(self.name)
            if len(worked) == 7:
                raise KeyboardInterrupt
            return work(self, part, rows, size)

        monkeypatch.setattr(kind, "work", spy)
    with pytest.raises(KeyboardInterrupt):
        evaluate(model, x, y, LINF, ATTACKS, prove=True, batch_size=50, state=tmp_path / "state")
    found = evaluate(model, x, y, LINF, ATTACKS, prove=True, batch_size=50, state=tmp_path / "state")
    assert np.array_equal(found.certified, report.certified)
    assert np.array_equal(found.robust, report.robust)
    assert len(worked) < 2 * 15, "what was done was kept"
    with pytest.raises(ValueError, match="state"):
        evaluate(model, x, y, LINF, ATTACKS, batch_size=50, state=tmp_path / "state")
    report.save(tmp_path / "report.json")
    there = Report.load(tmp_path / "report.json")
    assert np.array_equal(there.bounds[0].proved, report.bounds[0].proved)
    content = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    del content["bounds"]
    (tmp_path / "older.json").write_text(json.dumps(content), encoding="utf-8")
    assert Report.load(tmp_path / "older.json").bounds == ()


def test_its_page_has_the_shares_as_one_bar(report):
    shown = page(report)
    assert "Proved, open, broken" in shown
    for kind in ("robust", "unknown", "broken", "wrong"):
        assert f'<rect class="rb-share-{kind}"' in shown
    assert "CROWN-IBP" in shown
    assert "Gowal" in shown
    assert f"no allowed change alters the answer: {report.certified.sum()} of {report.n}" in shown


def of_rows(model, images, rows, suite=None):
    rows = torch.as_tensor(rows)
    return evaluate(model, images[0][rows], images[1][rows], LINF, suite or ATTACKS, prove=True)


def test_where_every_image_is_decided_the_number_is_no_upper_bound(report, model, images):
    found = of_rows(model, images, report.certified | ~report.robust)
    assert (found.open_images, found.decided, report.decided) == (0, True, False)
    assert report.open_images == int((report.robust & ~report.certified).sum()) > 0
    alone = evaluate(model, *images, LINF, ATTACKS)
    assert (alone.open_images, alone.decided) == (None, False)
    upper, proof, exact = "upper bound", "Not a proof", "each is proved or broken"
    for one, said in ((found, False), (report, True)):
        words = " ".join(item.advice for item in advice(one))
        html = page(one)
        assert ("as an upper bound" in words) is said
        assert (upper in one._repr_html_()) is said
        assert (proof in html) is said
        assert (exact in html) is not said
        assert ("at most" in one.sentence) is said
    assert found.sentence.endswith("images are proved to resist, and each of the others is wrong or broken.")


@pytest.mark.parametrize("which", ["all proved", "none right", "all broken"])
def test_decided_reports_at_the_ends(report, model, images, which):
    rows = {"all proved": report.certified, "none right": ~report.clean, "all broken": report.clean & ~report.robust}
    found = of_rows(model, images, rows[which])
    share = 1.0 if which == "all proved" else 0.0
    assert found.decided
    assert (found.robust_accuracy.value, found.certified_accuracy.value) == (share, share)
    assert f"{100 * share:.0f} %" in found.sentence


def test_a_quick_look_that_proves_all_is_a_verdict(report, model, images):
    found = of_rows(model, images, report.certified | ~report.robust, "quick")
    words = found.sentence + " ".join(item.advice for item in advice(found))
    assert found.decided
    assert "quick look" not in words
    assert "may still do better" not in words


def test_where_images_failed_nothing_is_decided(report, model, images):
    def breaks(model, x, y):
        raise RuntimeError("no memory")

    decided = of_rows(model, images, report.certified | ~report.robust)
    proved, left = np.flatnonzero(report.certified), np.flatnonzero(report.robust & ~report.certified)
    x, y = (column[np.concatenate([proved, left])] for column in images)
    found = evaluate(model, x, y, LINF, {"mine": breaks}, prove=True, batch_size=len(proved))
    assert found.open_images == 0 < len(found.failures)
    assert not found.decided
    assert "have no verdict" in found.sentence
    assert "the robust accuracy itself" not in " ".join(item.advice for item in advice(found))
    assert "the robust accuracy itself" in " ".join(item.advice for item in advice(decided))


def test_a_broken_proof_is_a_contradiction(model, images, monkeypatch):
    """Here every bound proves whatever it is asked about; the diagnosis attacks all the same."""
    def lie(self, region, y, *rest):
        margins = torch.ones(len(y), len(self.names))
        return margins, margins[:, 0] * 0

    monkeypatch.setattr(ProofStep, "_margins", lie)
    with pytest.raises(Contradiction):
        evaluate(model, *images, LINF, "standard", prove=True, curve=[0.03])


@pytest.mark.parametrize(("more", "words"), [
    ({"certified": torch.zeros(120, dtype=torch.bool)}, "leave out certified or prove"),
    ({"mode": "keep"}, "bounds are of the model in eval mode"),
])
def test_what_cannot_be_asked_together(model, images, more, words):
    with pytest.raises(ValueError, match=words):
        evaluate(model, *images, LINF, ATTACKS, prove=True, **more)


def test_a_model_without_bounds_is_refused_with_the_layer(images):
    net = nn.Sequential(nn.Linear(2, 4), nn.LayerNorm(4), nn.Linear(4, 3))
    with pytest.raises(UnknownOperation, match=r"layer '1' \(LayerNorm\)"):
        evaluate(net, *images, LINF, "prove")


def test_no_minutes_are_planned_for_proofs():
    with pytest.raises(ValueError, match="leave out --minutes"):
        plan(Costs(1e-4, 2e-4, 0.9, 0.5, 10), 5, 100, "prove")
