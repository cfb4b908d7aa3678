"""benchmarks/architectures.py: what it keeps of a killed run, and how it judges."""

import importlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from robustness_lib.models import knob_cnn

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(BENCHMARKS)
    module = importlib.import_module("architectures")
    monkeypatch.setattr(module, "KEPT", tmp_path / "kept")
    return module


@pytest.fixture
def sections(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("sections")


class Killed(BaseException):
    """As a signal would."""


def test_what_has_ended_is_not_done_again_and_what_was_killed_is(sections, tmp_path):
    done = []

    def work(result):
        done.append(result)
        if result is None:
            raise Killed
        return {"result": result}

    def once(result, **settings):
        return sections.once(tmp_path / "deep" / "run.json", settings, lambda: work(result))

    with pytest.raises(Killed):
        once(None, epochs=2)
    assert once(1, epochs=2) == once(2, epochs=2) == {"result": 1}
    assert once(3, epochs=(3, 4)) == once(4, epochs=(3, 4)) == {"result": 3}  # other settings; tuples are lists in JSON
    assert done == [None, 1, 3]


def test_a_run_goes_on_after_a_kill_with_the_runs_it_has(benchmark, monkeypatch, tmp_path):
    prices = {name: {"over base": 1.5, "epochs in equal time": 1 if name == "width 16" else 2}
              for name in benchmark.TURNED}
    (tmp_path / "architectures.json").write_text(json.dumps({"cost": {"nets": prices}}))
    trained = []

    def quick_training(knobs, seed, epochs, size, *more):
        trained.append((tuple(knobs.items()), seed, epochs))
        if len(trained) == 5 and killed:
            raise Killed
        return knob_cnn(width=1, depth=0).eval()

    monkeypatch.setattr(benchmark, "trained", quick_training)
    monkeypatch.setattr(benchmark, "verdicts", lambda model, images, size: dict.fromkeys(
        ("clean", "robust"), torch.arange(size.test) % 3 > 0))
    killed = True
    with pytest.raises(Killed):
        list(benchmark.knobs_turned(benchmark.QUICK, tmp_path))
    assert benchmark.priced_as("no batch norm, a quarter of the rate") == "no batch norm"
    killed, before = False, trained[:4]
    figures = list(benchmark.knobs_turned(benchmark.QUICK, tmp_path))[-1]
    assert not set(before) & set(trained[5:])
    assert len(trained) - 1 == len(set(trained)) == 2 * (14 + 1)  # width 16 alone has other epochs in equal time
    assert figures["budgets"]["equal time"]["width 16"]["epochs"] == 1
    assert figures["budgets"]["equal time"]["width 16"]["time over base"] == 0.75  # half the steps, each 1.5 as dear
    assert figures["budgets"]["equal time"]["SiLU"] == figures["budgets"]["equal steps"]["SiLU"]
    assert figures["budgets"]["equal steps"]["SiLU"]["from base"]["robust"]["effect"] == 0


def test_pairs_share_seed_images_and_initial_weights(benchmark):
    base, silu = benchmark.trained({}, 3, 1, benchmark.QUICK), benchmark.built({"activation": "silu"}, 3)
    assert all(torch.equal(p, q) for p, q in zip(benchmark.built({}, 3).parameters(), silu.parameters(), strict=True))
    again = benchmark.trained({}, 3, 1, benchmark.QUICK)
    assert all(torch.equal(p, q) for p, q in zip(base.parameters(), again.parameters(), strict=True))


def test_verdicts_come_back_as_they_were_kept(benchmark):
    column = torch.rand(1001) < 0.4
    assert (benchmark.unpacked(benchmark.packed(column), 1001) == column.numpy()).all()


def test_the_attack_that_measures_only_ever_takes_away(benchmark):
    found = benchmark.verdicts(knob_cnn(width=2).eval(), (torch.rand(30, 3, 32, 32), torch.arange(30) % 10),
                               benchmark.QUICK)
    assert not (found["robust"] & ~found["clean"]).any()


def test_parameters_without_batch_norm_by_hand(benchmark):
    model = knob_cnn()
    channels = 3 * 8 + 3 * 16 + 3 * 32  # three batch norms in each stage, a weight and a shift for each channel
    assert benchmark.parameters(model) == sum(p.numel() for p in model.parameters())
    assert benchmark.parameters(model, torch.nn.BatchNorm2d) == benchmark.parameters(model) - 2 * channels


def test_effects_have_the_sign_of_after_minus_before(benchmark):
    before = {"robust": np.zeros((2, 8), bool)}
    after = {"robust": np.array([[True] * 2 + [False] * 6, [True] * 4 + [False] * 4])}
    found = benchmark.effects(before, after)["robust"]
    assert found["effect"] == 0.375
    assert found["interval_95"][0] < found["interval_95 on these images"][0] < 0.375


@pytest.mark.parametrize(("sign", "size", "interval", "visible", "verdict"), [
    (1, None, (0.01, 0.03), 0.02, "holds"),
    (1, 0.09, (0.01, 0.03), 0.02, "holds"),
    (1, None, (-0.03, -0.01), 0.02, "does not"),
    (-1, None, (-0.03, -0.01), 0.02, "holds"),
    (-1, None, (0.01, 0.03), 0.02, "does not"),
    (1, None, (-0.01, 0.03), 0.02, "cannot tell"),
    (1, 0.09, (-0.01, 0.03), 0.04, "does not"),  # 9 points would have been seen
    (1, 0.09, (-0.01, 0.10), 0.04, "cannot tell"),  # and are inside the interval
    (1, 0.03, (-0.03, 0.02), 0.04, "cannot tell"),  # would not have been seen
    (-1, 0.09, (-0.03, 0.01), 0.04, "does not"),
    (-1, 0.02, (-0.03, 0.01), 0.01, "cannot tell"),
])
def test_verdicts_on_claims(benchmark, sign, size, interval, visible, verdict):
    claim = benchmark.Claim("it helps", "nobody", ("SiLU",), sign=sign, size=size)
    assert claim.verdict(interval, visible)[0] == verdict


def test_claims_name_knobs_that_are_turned_and_sources_that_are_cited(benchmark):
    cited = (BENCHMARKS.parent / "book" / "references.bib").read_text(encoding="utf-8")
    for claim in benchmark.CLAIMS:
        assert set(claim.knobs) <= set(benchmark.TURNED)
        assert f"{{{claim.source}," in cited


def test_a_mean_over_trainings_has_an_interval_where_there_are_two(benchmark):
    right = np.arange(40) < np.array([[20], [30]])
    both = benchmark.summary({"clean": right, "robust": right})["clean"]
    assert both["right"] == [20, 30]
    assert both["mean"] == 0.625
    assert both["interval_95"][0] < 0.625 - 12.7062 * 0.125 < 0.625 < both["interval_95"][1]  # Student's t, of two
    assert "interval_95" not in benchmark.summary({"clean": right[:1], "robust": right[:1]})["clean"]
