import dataclasses
import math
import os
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import quick_auto_attack
import torch
from quick_auto_attack import THREAT, Quick, problem, same
from torch import nn

from robustness_lib import ThreatModel
from robustness_lib.attacks import FAB, AutoAttack, AutoPGD, SquareAttack
from robustness_lib.attacks.adaptive import EOT
from robustness_lib.querying.warnings import attack_warning, square_ahead


def kinds(result):
    return [warning.kind for warning in result.warnings]


def test_the_ensemble_and_its_published_settings():
    attacks = AutoAttack(ThreatModel("l2", 0.5), seed=3).attacks(10)
    assert list(attacks) == ["apgd-ce", "apgd-t", "fab-t", "square"]
    ce, targeted, fab, square = attacks.values()
    assert isinstance(ce, AutoPGD)
    assert (ce.loss, ce.steps, ce.restarts, ce.rho) == ("ce", 100, 1, 0.75)
    assert (targeted.loss, targeted.steps, targeted.restarts, targeted.target_classes) == ("targeted-dlr", 100, 1, 9)
    assert isinstance(fab, FAB)
    assert (fab.norm, fab.steps, fab.restarts, fab.target_classes, fab.stop_within) == ("l2", 100, 1, 9, 0.5)
    assert (fab.alpha_max, fab.eta, fab.beta) == (0.1, 1.05, 0.9)
    assert isinstance(square, SquareAttack)
    assert (square.queries, square.p_init, square.loss) == (5000, 0.8, "margin")
    assert len({attack.seed for attack in attacks.values()}) == 4
    rand = AutoAttack(ThreatModel("linf", 0.1), version="rand").attacks(10)
    assert [(name, attack.loss, attack.eot, attack.stop) for name, attack in rand.items()] == [
        ("apgd-ce", "ce", 20, "keep-success"), ("apgd-dlr", "dlr", 20, "keep-success")]


def test_verdicts_are_those_of_the_attacks_one_after_the_other():
    model, x, y = problem()
    index = torch.arange(100, 160)
    result = Quick(THREAT).run(model, x, y, index=index, batch_size=60)
    with torch.no_grad():
        right = model(x).argmax(1) == y
    assert torch.equal(result.clean, right)
    standing, broken_by = right.clone(), [None] * len(x)
    for stage, (name, attack) in zip(result.stages, Quick(THREAT).attacks(6).items(), strict=True):
        rows = standing.nonzero()[:, 0]
        alone = attack.run(model, x[rows], y[rows], index=index[rows], batch_size=60)
        hit = alone.success & (alone.distance <= THREAT.eps + 1e-6)
        for row in rows[hit].tolist():
            broken_by[row] = name
        assert (stage.name, stage.attempted, stage.broken) == (name, len(rows), int(hit.sum()))
        assert stage.queries == alone.queries.sum()
        assert stage.gradients == alone.gradients.sum()
        assert torch.equal(result.x_adv[rows[hit]], alone.x_adv[hit])
        standing[rows[hit]] = False
    assert torch.equal(result.robust, standing)
    assert result.broken_by == tuple(broken_by)
    assert {"apgd-ce", None} < set(broken_by)  # and so the comparison is about something
    assert 0 < result.robust.sum() < result.clean.sum() < len(x)


def test_each_adversarial_image_is_inside_the_threat_model_and_fools_the_model():
    model, x, y = problem()
    result = Quick(THREAT).run(model, x, y)
    broken = torch.tensor([name is not None for name in result.broken_by])
    assert torch.equal(broken, result.clean & ~result.robust)
    with torch.no_grad():
        assert (model(result.x_adv[broken]).argmax(1) != y[broken]).all()
    assert torch.equal(result.x_adv[~broken], x[~broken])
    assert (result.distance <= THREAT.eps * (1 + 1e-5) + 1e-6).all()
    assert (result.x_adv >= 0).all()
    assert (result.x_adv <= 1).all()
    assert str(result.clean_accuracy).startswith("90.0 %")
    assert result.robust_accuracy.correct == result.robust.sum()
    assert result.warnings == ()


def test_survivors_are_packed_anew_for_each_attack():
    model, x, y = problem()
    result = Quick(THREAT).run(model, x, y, batch_size=8)
    sizes = []
    hook = model.register_forward_hook(lambda module, inputs, output: sizes.append(len(inputs[0])))
    Quick(THREAT).run(model, x, y, batch_size=8)
    hook.remove()
    assert max(sizes) == 8
    for stage in result.stages[1:]:
        assert stage.attempted < 54
    square = result.stages[-1]
    assert square.calls == 61 * math.ceil(square.attempted / 8)  # a clean pass and 60 queries for each full batch
    assert same(result, Quick(THREAT).run(model, x, y, batch_size=8))


def test_verdicts_do_not_depend_on_the_batch_size():
    model, x, y = problem()
    a, b = (Quick(THREAT).run(model.double(), x.double(), y, batch_size=size) for size in (7, 60))
    assert a.broken_by == b.broken_by
    torch.testing.assert_close(a.x_adv, b.x_adv, atol=1e-9, rtol=0)


def test_an_adversarial_point_that_does_not_fool_again_is_not_counted():
    model, x, y = problem()

    class OnlyInTheAttack(nn.Module):
        """Wrong off the clean images while autograd is on; always right in a fresh pass."""

        def __init__(self):
            super().__init__()
            self.net = model

        def forward(self, z):
            logits = self.net(z)
            if torch.is_grad_enabled():
                return logits
            clean = (z[:, None] - x[None]).flatten(2).abs().amax(2).argmin(1)  # whose image is it?
            return logits + 1e3 * torch.nn.functional.one_hot(y[clean], 6)

    result = Quick(THREAT).run(OnlyInTheAttack(), x, y)
    assert result.robust.all()
    assert "not confirmed" in kinds(result)
    assert torch.equal(result.x_adv, x)


def test_verification_runs_in_full_float32_outside_autocast():
    model, x, y = problem()
    seen = []

    def watch(*_):
        seen.append((torch.is_grad_enabled(), torch.is_autocast_enabled("cpu"),
                     torch.backends.cudnn.conv.fp32_precision, torch.backends.cuda.matmul.fp32_precision))

    model.register_forward_pre_hook(watch)
    before = torch.backends.cudnn.conv.fp32_precision
    torch.backends.cudnn.conv.fp32_precision = "tf32"
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            Quick(THREAT).run(model, x, y)
            assert torch.is_autocast_enabled("cpu")
        assert torch.backends.cudnn.conv.fp32_precision == "tf32"
    finally:
        torch.backends.cudnn.conv.fp32_precision = before
    assert seen[0] == (False, False, "ieee", "ieee")  # the first clean pass
    assert (False, False, "ieee", "ieee") in seen[20:]  # the check of what was found
    assert all(look[1:] == (False, "ieee", "ieee") for look in seen)  # and so do the attacks


# A state on disk

def test_a_finished_state_costs_no_attack_and_gives_the_same_result(tmp_path):
    model, x, y = problem()
    first = Quick(THREAT).run(model, x, y, batch_size=8, state=tmp_path / "state")
    calls = []
    model.register_forward_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    again = Quick(THREAT).run(model, x, y, batch_size=8, state=str(tmp_path / "state"))
    assert not any(calls)
    assert same(first, again)
    assert [s.seconds for s in first.stages] == [s.seconds for s in again.stages]
    assert same(first, Quick(THREAT).run(model, x, y, batch_size=8))
    assert first.warnings == again.warnings


def changed(model, x, y):
    other = problem()[0]
    with torch.no_grad():
        other[3].bias[0] += 1e-6
    moved = x.clone()
    moved[0, 0, 0, 0] = 0.5
    return {
        "model": (Quick(THREAT), other, x, y, {}),
        "data": (Quick(THREAT), model, moved, y, {}),
        "threat": (Quick(THREAT.with_eps(0.06)), model, x, y, {}),
        "version": (Quick(THREAT, version="rand"), model, x, y, {}),
        "seed": (Quick(THREAT, seed=1), model, x, y, {}),
        "mode": (Quick(THREAT, mode="keep"), model, x, y, {}),
        "settings of the attacks": (Weak(THREAT), model, x, y, {}),
        "batch size": (Quick(THREAT), model, x, y, {"batch_size": 9}),
    }


class Weak(AutoAttack):
    def attacks(self, classes):
        return {"apgd-ce": AutoPGD(self.threat, steps=1)}


@pytest.mark.parametrize(("what", "says"), [
    ("model", "model"), ("data", "data"), ("threat", "threat"), ("version", "settings"), ("seed", "settings"),
    ("mode", "settings"), ("settings of the attacks", "settings"), ("batch size", "batch size"),
])
def test_a_state_of_something_else_is_refused(tmp_path, what, says):
    model, x, y = problem(n=16)
    Quick(THREAT).run(model, x, y, batch_size=8, state=tmp_path)
    attack, *arguments, options = changed(model, x, y)[what]
    with pytest.raises(ValueError, match=f"not the same .*{says}"):
        attack.run(*arguments, **{"batch_size": 8, **options}, state=tmp_path)


def test_a_plain_function_that_answers_otherwise_is_refused(tmp_path):
    net, x, y = problem(n=16)
    hidden = {"scale": 1.0}

    def model(z):
        return hidden["scale"] * net(z)

    Quick(THREAT).run(model, x, y, state=tmp_path)
    hidden["scale"] = 1.00001
    Quick(THREAT).run(model, x, y, state=tmp_path)  # another machine's rounding is not another model
    hidden["scale"] = 1.1
    with pytest.raises(ValueError, match="answers differently"):
        Quick(THREAT).run(model, x, y, state=tmp_path)


class Quantized(nn.Module):
    """A setting that is no parameter, and that images on the coarser grid do not show."""

    def __init__(self, net, levels):
        super().__init__()
        self.net, self.levels = net, levels

    def forward(self, z):
        return self.net(torch.round(z * self.levels) / self.levels + 0 * z)


def test_settings_that_are_no_parameters_are_seen(tmp_path):
    net, x, y = problem(n=16)
    x = torch.round(x * 5) / 5
    Quick(THREAT).run(Quantized(net, 5), x, y, state=tmp_path / "module")
    with pytest.raises(ValueError, match="not the same model"):
        Quick(THREAT).run(Quantized(net, 10), x, y, state=tmp_path / "module")
    for name, first, second in (
        ("closure", lambda z: Quantized(net, 5)(z), lambda z: Quantized(net, 10)(z)),
        ("partial", partial(torch.nn.Module.__call__, Quantized(net, 5)),
         partial(torch.nn.Module.__call__, Quantized(net, 10))),
        ("method", Quantized(net, 5).forward, Quantized(net, 10).forward),
    ):
        Quick(THREAT).run(first, x, y, state=tmp_path / name)
        with pytest.raises(ValueError, match="belongs to another run"):
            Quick(THREAT).run(second, x, y, state=tmp_path / name)


@pytest.mark.parametrize("version", ["standard", "rand"])
def test_the_state_of_a_model_that_answers_at_random_keeps_images_and_verdicts_together(tmp_path, version):
    model, x, y = problem()

    def noisy(z):
        return model(z) + 0.5 * torch.randn(len(z), 6)

    torch.manual_seed(0)
    attack = Quick(THREAT, version=version)
    first = attack.run(noisy, x, y, batch_size=16, state=tmp_path)
    for chunk in tmp_path.glob("*.npz"):
        if int(chunk.name.split("-")[1]) > 1:
            chunk.unlink()  # as if killed after the first attack
    again = attack.run(noisy, x, y, batch_size=16, state=tmp_path)
    assert torch.equal(first.clean, again.clean)
    assert (again.distance <= THREAT.eps + 1e-6).all()
    kept = [by == "apgd-ce" for by in first.broken_by]
    assert kept == [by == "apgd-ce" for by in again.broken_by]
    assert torch.equal(first.x_adv[kept], again.x_adv[kept])


def test_a_chunk_of_other_images_is_refused(tmp_path):
    model, x, y = problem(n=32)
    Quick(THREAT).run(model, x, y, batch_size=8, state=tmp_path)
    first, second, *_ = sorted(tmp_path.glob("0000000+32-01-*.npz"))  # of the first attack
    second.write_bytes(first.read_bytes())
    with pytest.raises(ValueError, match="on other images than stand now"):
        Quick(THREAT).run(model, x, y, batch_size=8, state=tmp_path)


def test_damaged_and_foreign_folders_are_named(tmp_path):
    model, x, y = problem(n=16)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds other files"):
        Quick(THREAT).run(model, x, y, state=tmp_path)
    with pytest.raises(ValueError, match="is a file"):
        Quick(THREAT).run(model, x, y, state=tmp_path / "notes.txt")
    folder = tmp_path / "state"
    Quick(THREAT).run(model, x, y, state=folder)
    chunk = sorted(folder.glob("*.npz"))[0]
    chunk.write_bytes(chunk.read_bytes()[:-40])
    with pytest.raises(ValueError, match=f"{re.escape(chunk.name)} is damaged.*delete it"):
        Quick(THREAT).run(model, x, y, state=folder)
    (folder / "header.json").write_text("{")
    with pytest.raises(ValueError, match="cannot be read as the state"):
        Quick(THREAT).run(model, x, y, state=folder)


def start(state, result, pause):
    return subprocess.Popen([sys.executable, str(Path(quick_auto_attack.__file__)), str(state), str(result), pause],
                            env={**os.environ, "OMP_NUM_THREADS": "1"})


def killed_when(state, result, chunks, pause="0.004"):
    """Start the process, and kill it as soon as so many chunks are finished. Was it alive?"""
    process = start(state, result, pause)
    while process.poll() is None and len(list(state.glob("*.npz"))) < chunks:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    return process.wait() == -signal.SIGKILL


@pytest.mark.parametrize("moments", [[1, 9], pytest.param(list(range(1, 11)), marks=pytest.mark.slow)],
                         ids=["two moments", "ten moments"])
def test_a_killed_process_goes_on_and_ends_with_the_same_verdicts(tmp_path, moments):
    """Killed again and again, each time a little further, then left to finish."""
    model, x, y = problem()
    expected = Quick(THREAT).run(model, x, y, batch_size=8)
    state, out = tmp_path / "state", tmp_path / "result.pt"
    for chunks in moments:
        assert killed_when(state, out, chunks)
        assert not out.exists()
    kept = {path: path.stat().st_mtime_ns for path in state.glob("*.npz")}
    assert len(kept) >= moments[-1]
    assert start(state, out, "0").wait() == 0
    robust, x_adv = torch.load(out, weights_only=True)
    assert torch.equal(robust, expected.robust)
    assert torch.equal(x_adv, expected.x_adv)
    assert all(path.stat().st_mtime_ns == when for path, when in kept.items())  # nothing was done twice


def test_a_kill_while_a_chunk_is_written_costs_only_that_chunk(tmp_path, monkeypatch):
    model, x, y = problem(n=16)
    expected = Quick(THREAT).run(model, x, y, batch_size=8)
    replace, writes = os.replace, []

    def stop_at_the_third(*names):
        writes.append(names)
        if len(writes) == 3:
            raise KeyboardInterrupt
        replace(*names)

    monkeypatch.setattr(os, "replace", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        Quick(THREAT).run(model, x, y, batch_size=8, state=tmp_path)
    (tmp_path / "apgd-t-00000.npz.0123.part").write_bytes(b"half")  # what a kill would have left
    monkeypatch.undo()
    assert same(expected, Quick(THREAT).run(model, x, y, batch_size=8, state=tmp_path))
    assert not list(tmp_path.glob("*.part"))


class Shaky(nn.Module):
    """z = (0, m + noise), with m the mean of x − ½."""

    stochastic = True

    def forward(self, x):
        z = (x - 0.5).flatten(1).mean(1, keepdim=True) + 0.15 * torch.randn(len(x), 1)
        return torch.cat([0 * z, z], 1)


@pytest.mark.parametrize("version", ["standard", "rand"])
def test_a_break_on_a_model_that_answers_at_random_is_no_lucky_draw(version):
    """Within ε = .1 an image at .55 goes over, to a mean of −.05 under noise of .15; one at .68 never does. An attack
    that stops at its first success stops at a lucky draw, often short of where the draws agree."""
    torch.manual_seed(0)
    x = torch.cat([torch.full((12, 2, 7, 6), 0.55), torch.full((12, 2, 7, 6), 0.68)])
    y = torch.ones(24, dtype=torch.long)
    model = Shaky() if version == "rand" else EOT(Shaky(), samples=20)
    result = Quick(ThreatModel("linf", 0.1), version=version).run(model, x, y)
    broken = ~result.robust & result.clean
    assert broken[:12].sum() >= result.clean[:12].sum() - 1
    assert broken[12:].sum() <= 1
    climbed = [row for row, by in enumerate(result.broken_by[:12]) if by and by.startswith("apgd")]
    assert len(climbed) >= 6
    assert (result.x_adv[climbed].flatten(1).mean(1) < 0.46).all()


# Warnings

def test_random_answers_are_noticed_and_the_random_version_averages():
    model, x, y = problem()

    def noisy(z):
        return model(z) + 0.5 * torch.randn(len(z), 6)

    torch.manual_seed(0)
    result = Quick(THREAT).run(noisy, x, y)
    assert "random answers" in kinds(result)
    assert 'version="rand"' in str(result.warnings[0])
    calls = []

    def counted(z):
        calls.append(len(z))
        return noisy(z)

    result = Quick(THREAT, version="rand").run(counted, x, y)
    assert "random answers" not in kinds(result)
    assert [stage.name for stage in result.stages] == ["apgd-ce", "apgd-dlr"]
    assert result.stages[0].calls == 20 * 6  # each of the six points of five steps costs 20 draws
    assert len(calls) % 20 == 3  # the company of the first look, under the same draws
    assert 0 < result.robust.sum() < result.clean.sum()


def test_probabilities_are_noticed():
    model, x, y = problem()
    result = Quick(THREAT).run(nn.Sequential(model, nn.Softmax(1)), x, y)
    assert kinds(result) == ["probabilities"]


@pytest.mark.parametrize("leave", [lambda z: z.detach(), lambda z: torch.from_numpy(z.numpy())])
def test_a_model_without_gradients_is_still_tried_by_square(leave):
    model, x, y = problem()
    result = AutoAttack(THREAT).run(lambda z: model(leave(z)), x[:20], y[:20])
    assert kinds(result) == ["not followed", "no gradient"]
    assert not result.valid
    assert [stage.broken for stage in result.stages[:3]] == [0, 0, 0]
    assert result.stages[3].broken > 0


def test_one_loss_that_saturates_is_a_note_and_changes_no_verdict():
    model, x, y = problem()
    result = Quick(THREAT).run(lambda z: 1e5 * model(z), x, y)
    assert kinds(result) == ["one loss blind"]
    assert str(result.warnings[0]).startswith("one loss blind: apgd-ce: a note only: for")
    assert result.robust[list(result.warnings[0].rows)].all()  # of those still standing
    assert result.robust.sum() <= Quick(THREAT).run(model, x, y).robust.sum() + 1


def test_images_that_no_attack_has_a_gradient_for_are_an_alarm():
    model, x, y = problem()
    flat = x.mean((1, 2, 3)) > 0.5  # the model steps over a threshold and is flat for these

    def half_flat(z):
        steps = (z.mean((1, 2, 3)) > 0.5)[:, None]
        return torch.where(steps, model(torch.round(4 * z) / 4 + 0 * z), model(z))

    result = Quick(THREAT).run(half_flat, x, y)
    (alarm,) = (w for w in result.warnings if w.kind == "zero gradient")
    assert alarm.images == len(alarm.rows) > 5
    assert flat[list(alarm.rows)].all()
    assert result.robust[list(alarm.rows)].all()


@pytest.mark.parametrize("back", [False, True])
def test_a_change_of_mode_is_reported(back):
    class Training(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = problem()[0]
            self.drop = nn.Dropout(0.1)

        def forward(self, z):
            self.drop.train()
            z = self.net(self.drop(z))
            self.drop.train(not back)
            return z

    _, x, y = problem()
    model = Training().eval()
    result = Quick(THREAT).run(model, x, y)
    assert "changed mode" in kinds(result)
    assert kinds(result).count("changed mode") == 1
    assert not model.drop.training
    assert "changed mode" not in kinds(Quick(THREAT, mode="keep").run(model, x, y))


def test_masked_gradients_make_square_do_better_and_that_is_an_alarm():
    model, x, y = problem()

    def rounded(z):
        return model(torch.round(z * 30) / 30 + 0 * z)

    result = AutoAttack(THREAT).run(rounded, x, y)
    assert "Square ahead" in kinds(result)
    assert result.stages[3].broken > 7


@pytest.mark.parametrize(("broken", "n", "kind"), [
    (0, 100, None), (2, 100, "Square found more"), (6, 100, "Square found more"), (7, 100, "Square ahead"),
    (7, 350, "Square ahead"), (7, 351, "Square found more"), (19, 1000, "Square found more"),
    (20, 1000, "Square ahead"),
])
def test_when_square_ahead_is_an_alarm(broken, n, kind):
    """Seven on one side and none on the other is the first count with p = 2^-7 < .01; two points are the floor."""
    assert [w.kind for w in square_ahead(range(broken), n)] == ([kind] if kind else [])


@pytest.mark.parametrize(("classes", "names"), [
    (2, {"standard": "targeted-margin", "rand": "margin"}),
    (3, {"standard": "targeted-margin", "rand": "dlr"}),
    (4, {"standard": "targeted-dlr", "rand": "dlr"}),
])
def test_few_classes_fall_back_with_a_notice(classes, names):
    model, x, y = problem(classes=classes)
    for version, loss in names.items():
        attack = Quick(THREAT, version=version)
        result = attack.run(model, x, y)
        assert list(attack.attacks(classes).values())[1].loss == loss
        assert ("few classes" in kinds(result)) == ("margin" in loss)
        assert result.stages[0].attempted == 54


# Kinds of models

def test_half_precision_and_double_precision_inside_the_model():
    model, x, y = problem()
    reference = Quick(THREAT).run(model, x, y)
    double = problem()[0].double()
    result = Quick(THREAT).run(lambda z: double(z.double()), x, y)
    assert result.x_adv.dtype == torch.float32
    assert (result.robust != reference.robust).sum() <= 1
    half = problem()[0].bfloat16()

    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = half

        def forward(self, z):
            return self.net(z.bfloat16())

    result = Quick(THREAT).run(Half(), x, y)
    assert (result.robust != reference.robust).sum() <= 6
    probabilities = Quick(THREAT).run(nn.Sequential(Half(), nn.Softmax(1)), x, y)
    assert "probabilities" in kinds(probabilities)


def test_under_deterministic_algorithms():
    model, x, y = problem()
    expected = Quick(THREAT).run(model, x, y)
    torch.use_deterministic_algorithms(True)
    try:
        assert same(Quick(THREAT).run(model, x, y), expected)
    finally:
        torch.use_deterministic_algorithms(False)


def test_nothing_is_tried_where_nothing_is_allowed():
    model, x, y = problem()
    result = AutoAttack(ThreatModel("linf", 0.0)).run(model, x, y)
    assert torch.equal(result.robust, result.clean)
    assert result.stages == ()
    tiny = Quick(ThreatModel("linf", 1e-7)).run(model, x, y)
    assert torch.equal(tiny.robust, tiny.clean)
    assert (tiny.distance <= 1.3e-7).all()


# Input

def test_an_empty_batch_returns_empty():
    model, x, y = problem()
    result = AutoAttack(THREAT).run(model, x[:0], y[:0])
    assert result.x_adv.shape == (0, 2, 7, 6)
    assert len(result.robust) == len(result.clean) == len(result.broken_by) == 0


@pytest.mark.parametrize(("change", "error", "words"), [
    ({"x": lambda x: 255 * x}, ValueError, "from 0 to 255: divide by 255"),
    ({"x": lambda x: 4 * x - 2}, ValueError, "normalization outside the model"),
    ({"y": lambda y: y.float()}, TypeError, "int64"), ({"y": lambda y: y + 6}, ValueError, "0 ... 5"),
    ({"index": lambda y: y[:3]}, ValueError, "index"), ({"batch_size": lambda y: 0}, ValueError, "batch_size"),
    ({"model": lambda y: lambda z: z}, ValueError, "as_classifier"),
])
def test_wrong_input_is_refused_in_words(change, error, words):
    model, x, y = problem()
    arguments = {"model": model, "x": x, "y": y}
    for name, alter in change.items():
        arguments[name] = alter(x if name == "x" else y)
    with pytest.raises(error, match=words):
        Quick(THREAT).run(**arguments)


@pytest.mark.parametrize(("options", "error", "words"), [
    ({"version": "plus"}, ValueError, '"standard" or "rand"'), ({"mode": "train"}, ValueError, "mode"),
    ({"seed": 0.5}, TypeError, "seed"), ({"threat": 0.1}, TypeError, "ThreatModel"),
])
def test_wrong_settings_are_refused_in_words(options, error, words):
    with pytest.raises(error, match=words):
        AutoAttack(**{"threat": THREAT, **options})


def test_the_model_and_the_global_generator_are_as_they_were():
    model, x, y = problem()
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    strides = model[0].weight.stride()
    torch.manual_seed(3)
    generator = torch.get_rng_state()
    assert Quick(THREAT)(model, x, y).shape == x.shape
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model[0].weight.stride() == strides
    assert model.training
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


def test_results_do_not_depend_on_partners_but_on_the_index():
    model, x, y = problem()
    model, x = model.double(), x.double()
    whole = Quick(THREAT).run(model, x, y)
    rows = torch.tensor([41, 7, 23, 8])
    some = Quick(THREAT).run(model, x[rows], y[rows], index=rows)
    torch.testing.assert_close(some.x_adv, whole.x_adv[rows], atol=1e-9, rtol=0)
    assert dataclasses.astuple(THREAT) == ("linf", 0.05)


def test_images_left_outside_by_rounding_are_clamped_and_it_is_said_once():
    model, x, y = problem()
    given = x.clamp(0.01, 0.99)
    given[3, 0, 0, 0] = 1.0000001
    before = given.clone()
    result, plain = Quick(THREAT).run(model, given, y), Quick(THREAT).run(model, given.clamp(0, 1), y)
    assert [(w.rows, w.message) for w in result.warnings if w.kind == "clamped"] == [
        ((3,), attack_warning("clamped", [3], len(x)).message)]
    assert torch.equal(given, before)
    assert torch.equal(result.x_adv, plain.x_adv)
    assert torch.equal(result.robust, plain.robust)
