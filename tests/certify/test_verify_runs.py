"""A verification as a run: in time, killed and gone on with, watched, and refused where it cannot be right."""

import time
from collections import Counter
from dataclasses import replace

import pytest
import torch
from known_nets import THREAT, linear, problem
from torch import nn

from robustness_lib import ThreatModel
from robustness_lib.attacks.ensemble_steps import AttackStep
from robustness_lib.certify import UnknownOperation, proof_steps, verify
from robustness_lib.certify.enclosure import Enclosure
from robustness_lib.certify.proof_steps import ProofStep


@pytest.fixture(scope="module")
def found():
    return verify(*problem(), THREAT)


@pytest.fixture
def pieces(monkeypatch):
    """What was worked on, step by step: the name, and the images."""
    made = []
    for kind in (ProofStep, AttackStep):
        def spy(self, part, rows, size, work=kind.work):
            made.append((self.name, part.first, tuple(rows.tolist())))
            return work(self, part, rows, size)

        monkeypatch.setattr(kind, "work", spy)
    return made


def check_same(one, other):
    assert (one.verdicts, one.decided_by) == (other.verdicts, other.decided_by)
    assert torch.equal(one.margin, other.margin)
    assert torch.equal(one.x_adv, other.x_adv)


# Time.


def test_hardly_any_time_leaves_no_verdict_wrong(found):
    hurried = verify(*problem(), THREAT, seconds=1e-9)
    for verdict, by, truth in zip(hurried.verdicts, hurried.decided_by, found.verdicts, strict=True):
        assert verdict == truth or verdict == "unknown"
        assert by in ("clean", "PGD", None), "the first attack is made, and takes what time there is"
    assert (hurried.margin[hurried.are("unknown")] == -torch.inf).all()
    assert [stage.attempted for stage in hurried.stages[2:]] == [0] * 5
    assert torch.equal(hurried.out_of_time, hurried.are("unknown"))
    assert not found.out_of_time.any()


def test_much_time_changes_nothing(found):
    check_same(verify(*problem(), THREAT, seconds=1000), found)


@pytest.mark.parametrize("slow", ["α-CROWN", "CROWN"])
def test_bounds_end_in_time_and_leave_some_to_the_attack_behind_them(monkeypatch, slow):
    """Here one method would take many times as long: α-CROWN by its steps, CROWN by many rows, one at a time."""
    if slow == "CROWN":
        single = Enclosure._single
        monkeypatch.setattr(Enclosure, "chunk", lambda self, variants: 1)
        monkeypatch.setattr(Enclosure, "_single", lambda *args: time.sleep(0.01) or single(*args))
    else:
        monkeypatch.setitem(proof_steps.METHODS, slow, replace(proof_steps.METHODS[slow], alpha_steps=8_000))
    model, x, y = problem()
    began = time.perf_counter()
    found = verify(model, x, y, ThreatModel("linf", 0.07), seconds=0.1)
    assert time.perf_counter() - began < 0.1 * len(x) + 8, "and a step of each method"
    stages = {stage.name: stage for stage in found.stages}
    assert stages[slow].attempted > 0, "it was at work when time was over"
    assert torch.equal(found.out_of_time, found.are("unknown")), "though AutoPGD was begun"
    assert stages["AutoPGD"].attempted > 0
    assert sum(stages[name].seconds for name in ("IBP", "CROWN-IBP", "CROWN", "α-CROWN")) < 0.1 * len(x) * 7 / 8 + 3
    assert "unknown" in found.verdicts


def test_an_image_shares_the_time_of_those_it_is_worked_on_with(pieces):
    """All together may take what all have: who is done early leaves time to the others."""
    model, x, y = problem()
    verify(model, x, y, THREAT, seconds=1000)
    assert Counter(name for name, *_ in pieces)["CROWN"] == 1


# What is done, and on which images.


def test_what_is_decided_is_not_worked_on_again(found, pieces):
    check_same(verify(*problem(), THREAT), found)
    wrong = {k for k, verdict in enumerate(found.verdicts) if verdict == "wrong"}
    decided, order = set(wrong), []
    for name, _, rows in pieces:
        assert not decided & set(rows), name
        order.append(name)
        decided |= {k for k in rows if found.decided_by[k] in (name, "α-CROWN" if name == "CROWN" else name)}
    assert order[:4] == ["PGD", "IBP", "CROWN-IBP", "CROWN"], "α-CROWN goes on in the same piece of work"
    assert order[4:] == [f"AutoPGD {number}" for number in range(1, len(order) - 3)]


def test_progress_rises(found):
    told = []
    verify(*problem(), THREAT, batch_size=10, progress=lambda done, step: told.append((done, step)))
    numbers = [done for done, _ in told]
    assert numbers == sorted(numbers)
    assert numbers[-1] == 30
    assert told[0] == (0, "clean")
    assert told[-1] == (30, "done")
    assert {"PGD", "IBP", "CROWN", "AutoPGD 1"} <= {step for _, step in told}


# Killed, and gone on with.


@pytest.mark.parametrize("after", [1, 4, 9])
def test_a_killed_run_goes_on_where_it_was(monkeypatch, tmp_path, found, pieces, after):
    whole = verify(*problem(), THREAT, batch_size=10)
    all_pieces = list(pieces)
    pieces.clear()
    with monkeypatch.context() as patch:
        for kind in (ProofStep, AttackStep):
            def dying(self, part, rows, size, work=kind.work):
                if len(pieces) == after:
                    raise KeyboardInterrupt
                return work(self, part, rows, size)

            patch.setattr(kind, "work", dying)
        with pytest.raises(KeyboardInterrupt):
            verify(*problem(), THREAT, batch_size=10, state=tmp_path / "state")
    assert pieces == all_pieces[:after]
    check_same(verify(*problem(), THREAT, batch_size=10, state=tmp_path / "state"), whole)
    assert pieces == all_pieces, "nothing twice"
    again = verify(*problem(), THREAT, batch_size=10, state=tmp_path / "state")
    check_same(again, whole)
    assert pieces == all_pieces, "nothing to be done"
    assert [stage.name for stage in again.stages] == [stage.name for stage in whole.stages]
    assert again.stages[1].seconds > 0, "of the earlier run"


def another(what):
    model, x, y = problem()
    settings = {"threat": THREAT}
    if what == "model":
        with torch.no_grad():
            model[5].bias[0] += 1e-6
    elif what == "data":
        x = x.flip(0)
    elif what == "labels":
        y = y.flip(0)
    elif what == "index":
        settings["index"] = torch.arange(len(x)).flip(0)
    elif what == "threat":
        settings["threat"] = ThreatModel("l2", 0.04)
    else:
        settings[what] = {"seconds": 5.0, "seed": 3, "batch_size": 9}[what]
    return (model, x, y), settings


@pytest.mark.parametrize("what", ["model", "data", "labels", "index", "threat", "seconds", "seed", "batch_size"])
def test_the_state_of_another_run_is_refused(tmp_path, what):
    verify(*problem(), THREAT, state=tmp_path)
    named = "data" if what in ("labels", "index") else what.replace("_", " ")
    arguments, settings = another(what)
    with pytest.raises(ValueError, match=f"belongs to another run: not the same .*{named}"):
        verify(*arguments, **settings, state=tmp_path)


def test_a_damaged_piece_is_said(tmp_path):
    verify(*problem(), THREAT, state=tmp_path)
    piece = sorted(tmp_path.glob("*.npz"))[2]
    piece.write_bytes(piece.read_bytes()[:50])
    with pytest.raises(ValueError, match=r"is damaged .*; delete it"):
        verify(*problem(), THREAT, state=tmp_path)
    piece.unlink()
    verify(*problem(), THREAT, state=tmp_path)


def test_less_memory_takes_smaller_pieces(monkeypatch, found):
    by_intervals, most = Enclosure.by_intervals.__func__, []

    def short_of_memory(cls, network, region):
        if len(region.x) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        most.append(len(region.x))
        return by_intervals(cls, network, region)

    monkeypatch.setattr(Enclosure, "by_intervals", classmethod(short_of_memory))
    model, x, y = problem()
    assert verify(model, x[:12], y[:12], THREAT).verdicts == found.verdicts[:12]
    assert max(most) > 1


# In full precision.


def test_bounds_are_computed_in_full_precision(monkeypatch):
    by_intervals, flags = Enclosure.by_intervals.__func__, []

    def spy(cls, network, region):
        flags.append((torch.backends.mkldnn.matmul.fp32_precision, torch.backends.cudnn.conv.fp32_precision))
        return by_intervals(cls, network, region)

    monkeypatch.setattr(Enclosure, "by_intervals", classmethod(spy))
    flags_of = (torch.backends.mkldnn.matmul, torch.backends.cudnn.conv)
    before = [operation.fp32_precision for operation in flags_of]
    model, x, y = problem()
    try:
        for operation, precision in zip(flags_of, ("bf16", "tf32"), strict=True):
            operation.fp32_precision = precision
        verify(model, x[:4], y[:4], THREAT)
        assert [operation.fp32_precision for operation in flags_of] == ["bf16", "tf32"]
    finally:
        for operation, precision in zip(flags_of, before, strict=True):
            operation.fp32_precision = precision
    assert set(flags) == {("ieee", "ieee")}


def test_autocast_is_refused():
    with torch.autocast("cpu"), pytest.raises(ValueError, match="autocast is on here: leave its context first"):
        verify(*problem(), THREAT)


# Refused.


class Ends(nn.Module):
    """A linear model whose scores go through a function."""

    def __init__(self, end):
        super().__init__()
        torch.manual_seed(0)
        self.scores, self.end = nn.Linear(4, 3), end
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        return self.end(self, self.scores(x))


def counting(model, z):
    model.calls += 1
    return z + 1e-6 * model.calls


X, Y = torch.rand(5, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 0, 1])


@pytest.mark.parametrize(("end", "error", "words"), [
    (lambda model, z: z.cumsum(1), UnknownOperation, "no rule for cumsum. There are rules for .*relu"),
    (lambda model, z: z + 1e-6 * torch.rand(1, 3), UnknownOperation, "rand draws at random"),
    (lambda model, z: z + 1e-6 * torch.randn_like(z), UnknownOperation, "randn_like"),
    (lambda model, z: nn.functional.dropout(z, 0.01), UnknownOperation, "dropout draws at random"),
    (lambda model, z: z + 1e-6 * z.mean(0), UnknownOperation, "mixes the images of a batch"),
    (lambda model, z: z if z.sum() > 0 else -z, ValueError, "cannot be traced"),
    (counting, ValueError, "keeps 'calls' from call to call"),
], ids=["unknown", "draws", "draws alike", "dropout", "by its batch", "by its values", "remembers"])
def test_models_of_which_nothing_can_be_proved(end, error, words):
    with pytest.raises(error, match=words):
        verify(Ends(end), X, Y, THREAT)


def test_batch_norm_over_the_batch_is_refused():
    model = nn.Sequential(nn.BatchNorm1d(4, track_running_stats=False), nn.Linear(4, 3))
    with pytest.raises(UnknownOperation, match=r"layer '0' \(BatchNorm1d\).* takes them from the images"):
        verify(model, X, Y, THREAT)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_weights_that_are_no_numbers_are_refused(bad):
    model = linear(torch.ones(3, 4), torch.zeros(3))
    with torch.no_grad():
        model.weight[1, 2] = bad
    with pytest.raises(ValueError, match="NaN"):
        verify(model, X, Y, THREAT)


@pytest.mark.parametrize("model", ["double", "half"])
def test_another_type_than_the_images_is_said(model):
    with pytest.raises(TypeError, match=r"images torch\.float32"):
        verify(getattr(nn.Linear(4, 3), model)(), X, Y, THREAT)


@pytest.mark.parametrize(("change", "error", "words"), [
    ({"x": X * 3}, ValueError, r"images must lie in \[0, 1\]"),
    ({"x": X.half()}, TypeError, "must be float32 or float64"),
    ({"y": Y + 1}, ValueError, "labels must lie in 0 ... 2"),
    ({"y": Y - 1}, ValueError, "labels must lie in 0 ... 2"),
    ({"y": Y[:3]}, ValueError, "one label per image"),
    ({"y": Y.float()}, TypeError, "int64"),
    ({"threat": 0.1}, TypeError, "threat must be a ThreatModel, such as .*; found 0.1"),
    ({"threat": "linf"}, TypeError, "threat must be a ThreatModel"),
    ({"seconds": 0}, ValueError, "seconds must be positive and finite; found 0"),
    ({"seconds": -1.0}, ValueError, "seconds must be positive and finite; found -1"),
    ({"seconds": torch.inf}, ValueError, "seconds must be positive and finite; found inf"),
    ({"seconds": torch.nan}, ValueError, "seconds must be positive and finite; found nan"),
    ({"seconds": "1"}, TypeError, "seconds must be a number, that an image may take; found '1'"),
    ({"batch_size": 0}, ValueError, "batch_size must be at least 1"),
    ({"seed": -1}, ValueError, "seed must be at least 0"),
    ({"index": torch.arange(4)}, ValueError, "index must be int64 of shape"),
])
def test_what_cannot_be_used_is_said(change, error, words):
    with pytest.raises(error, match=words):
        verify(**{"model": nn.Linear(4, 3), "x": X, "y": Y, "threat": THREAT} | change)
