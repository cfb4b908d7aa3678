"""What a training is given, as people have it: models with auxiliary heads or that work in place, data sets of all
kinds, images and weights of another type."""

from __future__ import annotations

import copy
from collections import namedtuple
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from shared_problems import Net, problem
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from robustness_lib import ThreatModel
from robustness_lib.models import as_classifier
from robustness_lib.training import (
    TRADES,
    FastFGSM,
    Flip,
    GaussianAugmentation,
    PGDTraining,
    Piecewise,
    SmoothAdversarial,
    Standard,
    fit,
)

LINF, L2 = ThreatModel("linf", 0.03), ThreatModel("l2", 0.3)
OBJECTIVES = {"standard": Standard(), "gaussian": GaussianAugmentation(0.1), "fgsm": FastFGSM(LINF),
              "pgd": PGDTraining(LINF, steps=2), "trades": TRADES(LINF, steps=2),
              "smoothadv": SmoothAdversarial(L2, 0.1)}
each_objective = pytest.mark.parametrize("objective", OBJECTIVES)
Outputs = namedtuple("Outputs", "logits aux_logits2 aux_logits1")
Pair = namedtuple("Pair", "main aux")


def train(model, data, objective="standard", **settings):
    usual = {"epochs": 1, "batch_size": 8, "schedule": Piecewise(1e-2), "progress": False}
    return fit(model, data, OBJECTIVES.get(objective, objective), **(usual | settings))


def images(n=16):
    _, x, y, _ = problem(n=n)
    return x.clamp(0.01, 0.99), (y + torch.arange(n)) % 5


class Pairs(Dataset):
    def __init__(self, x, y, item=lambda x, y: (x, y)):
        self.x, self.y, self.item = x, y, item

    def __len__(self):
        return len(self.x)

    def __getitem__(self, row):
        return self.item(self.x[row], self.y[row])


# Auxiliary heads.


class Heads(nn.Module):
    """Answers more in training mode, as GoogLeNet and Inception do."""

    def __init__(self, answer, *, always=False):
        super().__init__()
        self.net, self.head, self.answer, self.always = Net(), nn.Linear(3 * 8 * 6, 5), answer, always

    def forward(self, x):
        logits = self.net(x)
        return self.answer(logits, self.head(x.flatten(1))) if self.training or self.always else logits


ANSWERS = {
    "GoogLeNetOutputs": lambda z, aux: Outputs(z, aux, aux), "InceptionOutputs": lambda z, aux: Outputs(z, aux, None),
    "tuple": lambda z, aux: (z, aux), "list": lambda z, aux: [z, aux], "named by nothing": lambda z, aux: Pair(z, aux),
    "mapping": lambda z, aux: {"aux": aux, "logits": z}, "object": lambda z, aux: SimpleNamespace(loss=None, logits=z),
}


@each_objective
@pytest.mark.parametrize("answer", ANSWERS)
def test_auxiliary_heads_are_left_alone_and_it_is_said(objective, answer):
    """The step is that of the same net without heads; the heads' weights are as they were."""
    model, plain = Heads(ANSWERS[answer]), Heads(lambda z, aux: z)
    plain.load_state_dict(model.state_dict())
    head = copy.deepcopy(model.head.state_dict())
    history, other = (train(net, images(), objective, validation=images()) for net in (model, plain))
    assert "auxiliary heads get no loss" in history.noted
    assert "auxiliary" not in (other.noted or "")
    assert all(torch.equal(value, plain.state_dict()[name]) for name, value in model.state_dict().items()
               if name.startswith("net."))
    assert all(torch.equal(value, head[name]) for name, value in model.head.state_dict().items())
    assert not model._forward_hooks


@each_objective
@pytest.mark.parametrize("data", [lambda: images(), lambda: Pairs(*images())], ids=["tensors", "Dataset"])
@pytest.mark.parametrize("answer", ["tuple", "mapping", "object"])
def test_what_answers_no_logits_in_eval_mode_either_is_told_of_the_wrapper_which_works(objective, data, answer):
    with pytest.raises(TypeError, match=r"must return a tensor of logits \(N, K\); found .*as_classifier"):
        train(Heads(ANSWERS[answer], always=True), data(), objective)
    train(as_classifier(Heads(ANSWERS[answer], always=True)), data(), objective)


def test_a_mapping_without_logits_is_told_its_names():
    with pytest.raises(TypeError, match=r"\(dict with out, aux\).*as_classifier\(model, output=...\)"):
        train(Heads(lambda z, aux: {"out": z, "aux": aux}), images())


def test_a_function_of_ones_own_may_learn_from_the_heads():
    model = Heads(ANSWERS["tuple"])
    head = model.head.weight.clone()

    def both(net, x, y):
        logits, aux = net(x)
        return F.cross_entropy(logits, y) + 0.4 * F.cross_entropy(aux, y)

    assert train(model, images(), both).noted is None
    assert not torch.equal(model.head.weight, head)


# Models that work in place.


class InPlace(Net):
    def __init__(self, change):
        super().__init__()
        self.change = change

    def forward(self, x):
        self.change(x)
        return super().forward(x)


def by_torchvision(x):
    from torchvision.transforms import functional

    functional.normalize(x, [0.5] * 3, [0.25] * 3, inplace=True)


@each_objective
@pytest.mark.parametrize("as_dataset", [False, True])
@pytest.mark.parametrize("change", [lambda x: x.sub_(0.5), lambda x: x.clamp_(0.2, 0.8), by_torchvision,
                                    lambda x: x.data.sub_(0.5)], ids=["sub_", "clamp_", "torchvision", "data"])
def test_a_model_that_works_in_place_is_refused_and_reaches_no_image_of_the_callers(objective, as_dataset, change):
    x, y = images()
    before = x.clone()
    with pytest.raises(ValueError, match="the model changes its input in place"):
        train(InPlace(change), Pairs(x, y) if as_dataset else (x, y), objective)
    assert torch.equal(x, before)
    with pytest.raises(ValueError, match="the model changes its input in place"):
        train(InPlace(change), Pairs(x, y), lambda model, x, y: F.cross_entropy(model(x), y), validation=(x, y))
    assert torch.equal(x, before)


# Data sets as people have them.

PIL = Image.new("RGB", (6, 8))


@pytest.mark.parametrize(("item", "words"), [
    (lambda x, y: {"image": x, "label": y}, r"found a dict with image, label. Hand on pairs.*\['image'\].*\['label'\]"),
    (lambda x, y: {"pixel_values": x, "labels": y}, r"\['pixel_values'\].*\['labels'\]"),
    (lambda x, y: (PIL, y), r"its images are PIL images: .*ToTensor\(\)"),
    (lambda x, y: {"image": PIL, "label": y}, r"its images are PIL images"),
    (lambda x, y: (x[:, :4 + y], y), r"several sizes, \(3, \d, 6\) and \(3, \d, 6\): .*Resize"),
    (lambda x, y: (x.numpy()[:, :4 + y], y), r"several sizes"),
    (lambda x, y: (x, None), "it holds NoneType|it holds .*None"),
    (lambda x, y: (x, SimpleNamespace()), "it holds types.SimpleNamespace"),
    (lambda x, y: (x, [0] * (1 + int(y))), "lists of several lengths"),
    (lambda x, y: x, r"must be a pair \(x, y\); found Tensor"),
    (lambda x, y: (x,), r"must be a pair \(x, y\); found a (list|tuple) of 1"),
    (lambda x, y: (x, str(int(y))), r"a batch of the data \(images .*found (tuple|list). These are texts"),
    (lambda x, y: (x, float(y)), r"found torch.float64 of shape \(8,\). Try y.long\(\)"),
    (lambda x, y: (x, F.one_hot(y, 5)), r"They are one-hot: try y.argmax\(1\)"),
    (lambda x, y: ((255 * x).byte(), y), "Divide 8-bit images by 255"),
    (lambda x, y: (255 * x, y), r"a batch of the data \(images \d+, .*from 0 to 255"),
    (lambda x, y: (x.movedim(0, -1), y), r"It takes images as \(N, C, H, W\): x.permute\(0, 3, 1, 2\)"),
    (lambda x, y: (x.numpy().astype(np.float64), y), r"the images torch.float64. .*x.float\(\), or model.double\(\)"),
])
def test_items_that_make_no_batch_get_a_sentence(item, words):
    with pytest.raises((TypeError, ValueError), match=words):
        train(Net(), Pairs(*images(), item))


def test_a_worker_says_the_same():
    with pytest.raises(TypeError, match="several sizes"):
        train(Net(), Pairs(*images(), lambda x, y: (x[:, :4 + y], y)), workers=1)


@pytest.mark.parametrize("item", [lambda x, y: (x.numpy(), int(y)), lambda x, y: (x, y, "cat.png"), lambda x, y: [x, y],
                                  lambda x, y: (x, np.int64(y))])
def test_items_that_make_one_are_trained_on_like_the_tensors(item):
    model, other = Net(), Net()
    torch.manual_seed(0)
    train(model, images())
    train(other, Pairs(*images(), item))
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in model.state_dict().items())


@each_objective
@pytest.mark.parametrize(("label", "cause"), [(5, "fewer outputs"), (-100, "Negative"), (-1, "Negative")])
def test_a_label_out_of_range_in_a_data_set_is_named_with_its_number(objective, label, cause):
    x, y = images()
    y[11] = label
    for data in (Pairs(x, y), (x, y)):
        with pytest.raises(ValueError, match=rf"{label}, of image 11.*{cause}"):
            train(Net(), data, objective)


def test_a_loader_is_told_to_hand_over_its_data_set():
    with pytest.raises(TypeError, match=r"found DataLoader. Give its .dataset"):
        train(Net(), DataLoader(Pairs(*images())))


def test_signals_in_a_data_set_cannot_be_flipped():
    with pytest.raises(ValueError, match=r"augmentations change images \(N, C, H, W\); found shape \(8, 3, 48\)"):
        train(nn.Sequential(nn.Flatten(), nn.Linear(144, 5)), Pairs(*images(), lambda x, y: (x.flatten(1), y)),
              augment=[Flip()])


# Rounding, types.


@pytest.mark.parametrize("where", ["tensors", "Dataset", "validation"])
def test_images_left_outside_by_rounding_are_clamped_and_it_is_said_once(where):
    x, y = images()
    given = x.clone()
    given[3, 0, 0, 0], given[5, 0, 0, 0] = 1.0000001, -3e-8
    before, model, plain = given.clone(), Net(), Net()
    data = {"tensors": (given, y), "Dataset": Pairs(given, y), "validation": (x, y)}[where]
    validation = (given, y) if where != "Dataset" else (x, y)
    history = train(model, data, "pgd", validation=validation, epochs=2)
    assert history.noted.count("outside [0, 1] by rounding") == 1
    assert torch.equal(given, before)
    clamped = given.clamp(0, 1)
    train(plain, (x if where == "validation" else clamped, y), "pgd", validation=(clamped, y), epochs=2)
    assert all(torch.equal(value, plain.state_dict()[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(("convert", "words"), [
    (lambda m: m.half(), r"parameters are torch.float16 and the images torch.float32. model.float\(\)"),
    (lambda m: m.double(), r"x.double\(\), or model.float\(\)"),
])
def test_weights_of_another_type_are_told(convert, words):
    with pytest.raises(TypeError, match=words):
        train(convert(Net()), images())


# What fails in training mode only.


class InTraining(Net):
    """Answers as usual in eval mode, and in training mode what `answer` makes of the logits and the images."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, x):
        logits = super().forward(x)
        return self.answer(logits, x) if self.training else logits


@each_objective
@pytest.mark.parametrize("data", [lambda: images(), lambda: Pairs(*images())], ids=["tensors", "Dataset"])
@pytest.mark.parametrize(("answer", "words"), {
    "loss first": (lambda z, x: (z.mean(), z), r"\(\) first in its tuple.*output=lambda answer"),
    "features first": (lambda z, x: (x.flatten(1), z), "answers 144 logits, and 5 in eval mode.*output=lambda answer"),
    "more logits": (lambda z, x: torch.cat((z, z), 1), "answers 10 logits, and 5 in eval mode"),
    "fewer logits": (lambda z, x: z[:, :4], "answers 4 logits, and 5 in eval mode"),
    "features that are a map": (lambda z, x: (x, z), r"\(8, 3, 8, 6\) first in its tuple"),
}.values())
def test_other_logits_in_training_mode_are_never_learned_from(objective, data, answer, words):
    model = InTraining(answer)
    before = [p.detach().clone() for p in model.parameters()]
    with pytest.raises(ValueError, match=words):
        train(model, data(), objective)
    assert all(torch.equal(p, was) for p, was in zip(model.parameters(), before, strict=True))
    assert not model._forward_hooks


def test_the_advice_on_what_comes_first_in_training_works():
    model = InTraining(lambda z, x: (z.mean(), z))
    wrapped = as_classifier(model, output=lambda answer: answer if isinstance(answer, torch.Tensor) else answer[1])
    train(wrapped, images())


@each_objective
def test_a_batch_of_one_that_loses_its_axis_is_told_to_be_two(objective):
    model = InTraining(lambda z, x: z.squeeze())
    with pytest.raises(ValueError, match=r"1 image needs logits \(1, K\); the model answers \(5,\).*batch_size of 2"):
        train(model, images(4), objective, batch_size=1)
    train(model, images(4), objective, batch_size=2)


@each_objective
@pytest.mark.parametrize(("n", "size"), [(4, 1), (1, 8)])
def test_batch_norm_is_told_how_many_it_needs(objective, n, size):
    model = nn.Sequential(Net(), nn.BatchNorm1d(5))
    with pytest.raises(ValueError, match=r"\(1, 3, 8, 6\): ValueError: Expected more than 1 value.*batch_size=2"):
        train(model, images(n), objective, batch_size=size)
    train(model, images(4), objective, batch_size=2)


def test_what_cannot_be_trained_is_said():
    exported = torch.export.export(Net().eval(), (images(2)[0],)).module()
    with pytest.raises(TypeError, match=r"training mode \(NotImplementedError.*train the module that it was made from"):
        train(exported, images())
    with pytest.raises(TypeError, match=r"a torch.nn.Module; found function"):
        train(lambda x: x.flatten(1)[:, :5], images())


def test_what_fails_on_the_first_batch_names_it_and_its_place():
    def fails(model, x, y):
        raise KeyError("weights")

    class Asserting(Net):
        def forward(self, x):
            assert not self.training
            return super().forward(x)

    for model, objective, kind in ((Net(), fails, "KeyError: 'weights'"), (Asserting(), "pgd", "AssertionError")):
        with pytest.raises(ValueError, match=rf"\(8, 3, 8, 6\): {kind}.* .*test_checks.py, line \d+\)$") as caught:
            train(model, images(), objective)
        assert type(caught.value.__cause__).__name__ in kind


@pytest.mark.parametrize("squash", ["softmax", "sigmoid"])
def test_probabilities_are_noted(squash):
    model = nn.Sequential(Net(), nn.Softmax(1) if squash == "softmax" else nn.Sigmoid())
    assert "look like probabilities" in train(model, images(32), batch_size=16).noted
    assert train(Net(), images(32), batch_size=16).noted is None


# ε on another scale.


@pytest.mark.parametrize("data", [lambda: images(), lambda: Pairs(*images())], ids=["tensors", "Dataset"])
@pytest.mark.parametrize("settings", [
    {"objective": PGDTraining(ThreatModel("l2", 128), steps=1)}, {"objective": TRADES(ThreatModel("l2", 128), steps=1)},
    {"objective": FastFGSM(ThreatModel("l2", 128))}, {"threat": ThreatModel("l2", 128), "validation": images(8)},
], ids=["pgd", "trades", "fgsm", "validation"])
def test_an_eps_on_another_scale_is_noted(settings, data):
    assert "ε covers the whole pixel box. ε is in pixel units" in train(Net(), data(), **settings).noted


@pytest.mark.parametrize("objective", [GaussianAugmentation(25), SmoothAdversarial(L2, 25)],
                         ids=["gaussian", "smoothadv"])
def test_a_sigma_on_another_scale_is_noted(objective):
    assert "σ is in pixel units" in train(Net(), images(), objective).noted


def test_a_step_wider_than_the_ball_is_said_where_the_objective_is_made():
    for make in (lambda: PGDTraining(LINF, steps=1, step_size=2.0), lambda: TRADES(LINF, steps=1, step_size=2.0)):
        with pytest.warns(UserWarning, match="step size: a step wider than the whole ball") as seen:
            make()
        assert [warning.filename for warning in seen] == [__file__]
