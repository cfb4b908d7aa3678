"""Models as people have them run in every entry point, or one line says what to do."""

import copy
import functools
import io
import warnings

import pytest
import torch
from torch import nn

from robustness_lib import ThreatModel
from robustness_lib.attacks import FAB, PGD, AutoAttack, SquareAttack
from robustness_lib.diagnosis.inspect_model import inspect_model
from robustness_lib.evaluation import evaluate
from robustness_lib.model_kinds import check_usable, modes_kept, switch_to_eval
from robustness_lib.models import as_classifier
from robustness_lib.querying import frozen, predict_logits
from robustness_lib.state import model_fingerprint
from robustness_lib.training import Standard, fit

THREAT = ThreatModel("linf", 0.05)
SUITE = [PGD(THREAT, steps=3), SquareAttack(THREAT, queries=5)]


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))


def images():
    torch.manual_seed(1)
    x = torch.rand(12, 1, 6, 6)
    return x, net().eval()(x).argmax(1)


def loaded_again(program):
    file = io.BytesIO()
    torch.jit.save(program, file)
    file.seek(0)
    return torch.jit.load(file)


def exported(dynamic=True):
    shapes = ({0: torch.export.Dim.DYNAMIC},) if dynamic else None
    return torch.export.export(net().eval(), (images()[0][:4],), dynamic_shapes=shapes)


class Held:
    def __init__(self, model):
        self.model = model

    def predict(self, x):
        return self.model(x)

    def __call__(self, x):
        return self.model(x)


class HasItsOwnTrain(nn.Module):
    """`train` is a loop of its author's, so that eval() fails."""

    def __init__(self):
        super().__init__()
        self.net = net()

    def train(self, loader, epochs=1):
        for batch in loader:
            raise AssertionError(batch)

    def forward(self, x):
        return self.net(x)


KINDS = {
    "script": lambda: torch.jit.script(net()),
    "trace": lambda: torch.jit.trace(net().eval(), images()[0][:2]),
    "frozen": lambda: torch.jit.freeze(torch.jit.script(net().eval())),
    "loaded": lambda: loaded_again(torch.jit.script(net().eval())),
    "a frozen part": lambda: nn.Sequential(nn.Identity(), torch.jit.freeze(torch.jit.script(net().eval()))),
    "exported": lambda: exported().module(),
    "an exported part": lambda: nn.Sequential(nn.Identity(), exported().module()),
    "compiled": lambda: torch.compile(net().eval(), backend="eager"),
    "partial": lambda: functools.partial(lambda model, x: model(x), net().eval()),
    "bound method": lambda: Held(net().eval()).predict,
    "object": lambda: Held(net().eval()),
    "data parallel": lambda: nn.DataParallel(net()),
    "graph": lambda: torch.fx.symbolic_trace(net()),
    "its own train": HasItsOwnTrain,
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_models_of_every_kind_are_evaluated_as_the_plain_one(kind, tmp_path):
    model, plain, (x, y) = KINDS[kind](), net().eval(), images()
    modes = [getattr(m, "training", None) for m in model.modules()] if isinstance(model, nn.Module) else []
    torch.testing.assert_close(predict_logits(model, x, size=5), plain(x).detach(), atol=1e-5, rtol=1e-4)
    for attack in (PGD(THREAT, steps=3), SquareAttack(THREAT, queries=5), FAB("linf", steps=3)):
        assert torch.equal(attack.run(model, x, y).success, attack.run(plain, x, y).success)
    found, expected = (evaluate(m, x, y, THREAT, SUITE, state=s) for m, s in ((model, tmp_path / "s"), (plain, None)))
    assert found.robust_accuracy == expected.robust_accuracy
    assert not found.failures
    assert not [note for note in found.notes if "mode" in note]
    looked = inspect_model(model, x, y)
    assert (looked.output, looked.gradient, looked.switched) == ("logits", 1.0, ())
    assert model_fingerprint(model) == model_fingerprint(KINDS[kind]())
    wrapped = as_classifier(model, mean=[0.5], std=[0.25])
    torch.testing.assert_close(predict_logits(wrapped, x, size=12), plain((x - 0.5) / 0.25).detach(), atol=1e-5,
                               rtol=1e-4)
    if modes:
        assert [getattr(m, "training", None) for m in model.modules()] == modes


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_modes_are_kept_also_where_something_fails(kind):
    model = KINDS[kind]()
    modules = list(model.modules()) if isinstance(model, nn.Module) else []
    if kind == "graph":
        modules[-1].eval()  # each its own
    before = [getattr(module, "training", None) for module in modules]

    def fails():
        if modules:
            switch_to_eval(model)
            assert not any(getattr(module, "training", False) for module in modules)
        raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"), modes_kept(model):
        fails()
    assert [getattr(module, "training", None) for module in modules] == before


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["frozen", "exported"])
def test_a_detector_is_calibrated_on_programs_without_a_mode(kind):
    from robustness_lib.defenses import BitDepth, FeatureSqueezing

    (x, _), squeezers = images(), [BitDepth(nn.Identity(), 2)]
    model = KINDS[kind]()
    before = [getattr(module, "training", None) for module in model.modules()]
    found = FeatureSqueezing(model, squeezers).calibrate(x).threshold
    assert found == pytest.approx(FeatureSqueezing(net().eval(), squeezers).calibrate(x).threshold, abs=1e-5)
    assert [getattr(module, "training", None) for module in model.modules()] == before


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["frozen", "exported"])
def test_the_ensemble_and_defenses_take_programs_without_a_mode(kind):
    from robustness_lib.defenses import BitDepth

    x, y = images()
    assert not AutoAttack(ThreatModel("linf", 0.9)).run(KINDS[kind](), x[:2], y[:2]).robust.any()
    assert predict_logits(BitDepth(KINDS[kind](), 8), x, size=4).shape == (12, 3)


@pytest.mark.filterwarnings("ignore")
def test_a_quantized_model_is_asked_and_its_missing_gradient_named():
    x, y = images()
    model = torch.ao.quantization.quantize_dynamic(net().eval(), {nn.Linear}, dtype=torch.qint8)
    assert SquareAttack(THREAT, queries=5).run(model, x, y).calls
    with pytest.raises(ValueError, match="quantized or optimized for inference"):
        PGD(THREAT, steps=2).run(model, x, y)


class NeedsAMask(nn.Module):
    def forward(self, x, mask):
        return x.flatten(1) * mask


def in_inference_mode():
    with torch.inference_mode():
        return net().eval()


def on_meta():
    with torch.device("meta"):
        return net()


REFUSED = {
    "program": (exported, r"program\.module\(\)"),
    "lazy": (lambda: nn.Sequential(nn.Flatten(), nn.LazyLinear(3)), r"1\.weight has no values yet.* model\(x\[:2\]\)"),
    "meta": (on_meta, "meta device.*assign=True"),
    "inference mode": (in_inference_mode, "copy.deepcopy"),
    "weights": (lambda: net().state_dict(), "weights without a network"),
    "class": (lambda: NeedsAMask, r"not a class of models; give NeedsAMask\("),
    "text": (lambda: "zoo:signs-pgd", "found str"),
    "nothing": (lambda: None, "found NoneType"),
    "two arguments": (NeedsAMask, "'mask'.*function of the images alone"),
    "one shape": (lambda: exported(dynamic=False).module(), r"Guard failed.*dynamic_shapes"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_asked_is_refused_in_one_line_everywhere(kind):
    make, words = REFUSED[kind]
    model, (x, y) = make(), images()
    calls = [lambda: PGD(THREAT, steps=2).run(model, x, y), lambda: AutoAttack(THREAT).run(model, x, y),
             lambda: evaluate(model, x, y, THREAT, "quick"), lambda: inspect_model(model, x, y),
             lambda: predict_logits(model, x, size=5)]
    for call in calls:
        with pytest.raises((TypeError, ValueError), match=words) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_lazy_and_meta_models_are_refused_by_training_and_fingerprint_too():
    for kind in ("lazy", "meta"):
        model, words = REFUSED[kind][0](), REFUSED[kind][1]
        with pytest.raises(ValueError, match=words):
            fit(model, images(), Standard(), epochs=1, batch_size=4, progress=False)
        with pytest.raises(ValueError, match=words):
            model_fingerprint(model)
        with pytest.raises(ValueError, match=words), frozen(model):
            pass


def test_the_advice_is_true():
    x, y = images()
    for model in (exported().module(), copy.deepcopy(in_inference_mode())):
        assert PGD(THREAT, steps=2).run(model, x, y).calls
    model = on_meta()
    model.load_state_dict(net().state_dict(), assign=True)
    assert PGD(THREAT, steps=2).run(model, x, y).calls
    lazy = nn.Sequential(nn.Flatten(), nn.LazyLinear(3))
    lazy(x[:2])
    assert PGD(THREAT, steps=2).run(lazy, x, y).calls


def test_a_class_that_keeps_a_part_in_training_mode_is_respected():
    class KeepsItsDropout(nn.Module):
        def __init__(self):
            super().__init__()
            self.drop = nn.Dropout()

        def train(self, mode=True):
            super().train(mode)
            self.drop.training = True
            return self

    model = KeepsItsDropout()
    switch_to_eval(model)
    assert (model.training, model.drop.training) == (False, True)


def test_programs_are_told_apart_by_what_they_compute():
    class Scaled(nn.Module):
        def __init__(self, scale: float):
            super().__init__()
            self.scale, self.shift = scale, torch.ones(2) * scale
            self.linear = nn.Linear(36, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.linear(x.flatten(1)) * self.scale + self.shift.sum()

    def made(scale, seed=0):
        torch.manual_seed(seed)
        return Scaled(scale).eval()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for way in (torch.jit.script, lambda m: torch.jit.freeze(torch.jit.script(m)),
                    lambda m: torch.jit.trace(m, images()[0]), lambda m: loaded_again(torch.jit.script(m))):
            assert model_fingerprint(way(made(2.0))) == model_fingerprint(way(made(2.0)))
            assert model_fingerprint(way(made(2.0))) != model_fingerprint(way(made(3.0)))
            assert model_fingerprint(way(made(2.0))) != model_fingerprint(way(made(2.0, seed=1)))


def test_a_model_is_no_model_only_when_it_cannot_be_called():
    check_usable(Held(net()))
    check_usable(lambda x: x)
    check_usable(functools.partial(int))
