"""Models become networks of known operations as they are, or are refused with words; they stay as they were."""

import itertools
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from robustness_lib import ThreatModel
from robustness_lib.certify import (
    UnknownOperation,
    crown_bounds,
    crown_margins,
    enclosure,
    interval_bounds,
    interval_margins,
    trace,
    verify,
)
from robustness_lib.certify.enclosure import Enclosure
from robustness_lib.certify.input_region import InputRegion
from robustness_lib.certify.relaxation import SLOPES
from robustness_lib.models import as_classifier

LINF, L2 = ThreatModel("linf", 0.1), ThreatModel("l2", 0.5)
VECTORS = torch.rand(3, 6, generator=torch.Generator().manual_seed(0))
IMAGES = torch.rand(3, 4, 6, 6, generator=torch.Generator().manual_seed(0))


def net(classes=3, dtype=torch.float32):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 8), nn.ReLU(),
                             nn.Linear(8, classes)).to(dtype)


LINEAR = nn.Linear(6, 6)
CALLS = itertools.count()
MASK = torch.tensor([True, False, True, True, False, True])

# ----------------------------------------------------------------------------------------- refused, and in which words


def index_assigned(x):
    x = x.clone()
    x[:, 0] = 0
    return x


def part_changed(x):
    x = x.clone()
    x[:, :2].mul_(-3)
    return x


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)

    def forward(self, x):
        return self.attention(x[:, None], x[:, None], x[:, None])[0][:, 0]


UNKNOWN = {
    "softmax": (lambda x: x.softmax(1), "there is no rule for softmax"),
    "cumsum": (lambda x: x.cumsum(1), "there is no rule for cumsum"),
    "powers": (lambda x: x ** torch.tensor([1.0, 2, 3, 1, 2, 3]), "there is no rule for pow"),
    "layer norm": (nn.Sequential(nn.Linear(6, 6), nn.LayerNorm(6)), r"layer '1' \(LayerNorm\): there is no rule"),
    "attention": (Attention(), r"layer 'attention' \(MultiheadAttention\)"),
    "index assigned": (index_assigned, "there is no rule for"),
    "part changed": (part_changed, "there is no rule for slice_scatter"),
    "sum over the batch": (lambda x: x - x.sum(0), "mixes the images of a batch"),
    "mean over the batch": (lambda x: x - x.mean(0, keepdim=True), "mixes the images of a batch"),
    "mean over all": (lambda x: x - x.mean(), "mixes the images of a batch"),
    "batch moved": (lambda x: x.permute(1, 0).flip(0).permute(1, 0), "off the first axis"),
    "batch transposed": (lambda x: x.t().relu().t(), "off the first axis"),
    "batch flipped": (lambda x: x.flip(0), "acts along the batch"),
    "batch rolled": (lambda x: x + x.roll(1, 0), "acts along the batch"),
    "all rolled": (lambda x: x.roll(1), "acts along the batch"),
    "first image": (lambda x: x + x[0:1], "mixes the images of a batch"),
    "sorted": (lambda x: x.index_select(0, torch.arange(x.shape[0] - 1, -1, -1)), "acts along the batch"),
    "joined batches": (lambda x: torch.cat([x, x], 0)[: x.shape[0]], "mixes the images of a batch"),
    "each with each": (lambda x: x + (x.sum(1, keepdim=True) + x.sum(1)).sum(1, keepdim=True),
                       "pairs each image of a batch with each"),
    "gram": (lambda x: (x @ x.t()) @ x, "mixes the images of a batch"),
    "one constant per image": (lambda x: x + torch.arange(x.shape[0])[:, None], "differs from image to image"),
    "half": (lambda x: x.half().float(), "float16, whose rounding no bound covers"),
    "half mean": (lambda x: x - x.mean(1, keepdim=True, dtype=torch.float16).float(), "float16, whose rounding"),
    "whole numbers": (lambda x: (9 * x).long().float(), "int64, whose rounding"),
    "dropout": (lambda x: F.dropout(x, training=True), "dropout draws at random"),
    "noise": (lambda x: x + 1e-7 * torch.randn_like(x), "there is no rule for randn_like"),
    "its own weights": (lambda x: (x[:, :, None] @ x[:, None]).flatten(1), "the second to be constant"),
    "bias from the images": (lambda x: F.linear(x, LINEAR.weight, x), "the weights of linear follow from the images"),
    "no statistics": (nn.BatchNorm1d(6, track_running_stats=False), "takes them from the images"),
    "negative leak": (nn.LeakyReLU(-0.5), "must lie between 0 and 1"),
    "steep leak": (lambda x: F.leaky_relu(x, 1.5), "must lie between 0 and 1"),
    "comparison": (lambda x: torch.where(x > 0, x, 0.1 * x), "gt compares, or chooses by a comparison"),
    "cube": (lambda x: x.pow(3), r"no rule for pow\(x, 3\) as it stands here"),
    "ratio": (lambda x: x / (1 + x.exp()), r"no rule for div\(x, x′\) as it stands here"),
}
UNKNOWN_IMAGES = {
    "images as channels": (lambda x: F.max_pool2d(x[:, 0], (1, 2)).flatten(1), "takes the images of a batch for"),
    "rows as channels": (lambda x: F.max_pool1d(x[:, 0, 0], 2), "takes the images of a batch for channels"),
    "negative divisor": (lambda x: F.avg_pool2d(x, 2, divisor_override=-2).flatten(1), "its divisor is negative"),
    "indices": (lambda x: F.max_pool2d(x, 2, return_indices=True)[1].flatten(1).float(), "no bounds pass"),
    "padded batch": (lambda x: F.pad(x, (0,) * 6 + (1, 0))[1:].flatten(1), "mixes|pads the batch"),
    "unpooled": (lambda x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2).flatten(1), "no bounds pass"),
}


@pytest.mark.parametrize(("model", "words"), [
    pytest.param(model, words, id=name) for name, (model, words) in UNKNOWN.items()])
def test_an_operation_without_a_rule_is_refused(model, words):
    with pytest.raises(UnknownOperation, match=words):
        trace(model, VECTORS)


@pytest.mark.parametrize(("model", "words"), [
    pytest.param(model, words, id=name) for name, (model, words) in UNKNOWN_IMAGES.items()])
def test_and_one_of_images(model, words):
    with pytest.raises(UnknownOperation, match=words):
        trace(model, IMAGES)


def test_the_refusal_lists_what_is_known():
    with pytest.raises(UnknownOperation, match=r"There are rules for abs, .*conv2d, .*relu.*CONTRIBUTING.md"):
        trace(UNKNOWN["layer norm"][0], VECTORS)


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x):
        self.calls += 1
        return x * self.calls


class Unnamed(nn.Module):
    def forward(self, x):
        return {"logits": LINEAR(x), "aux": x.sum()}


@pytest.mark.parametrize(("model", "kind", "words"), [
    (lambda x: x if x.sum() > 0 else -x, ValueError, "its path depends on values that it computes"),
    (lambda x: torch.from_numpy(x.detach().numpy()), ValueError, "All of it must be PyTorch"),
    (lambda x: x / x.shape[0], ValueError, "the model answers otherwise than its traced operations do"),
    (torch.jit.script(LINEAR), ValueError, "cannot be traced"),
    (torch.jit.freeze(torch.jit.script(nn.Sequential(LINEAR).eval())), ValueError, "cannot be traced"),
    (net().half(), TypeError, r"float16. Give model.float\(\)"),
    (net().bfloat16(), TypeError, r"bfloat16. Give model.float\(\)"),
    (Unnamed(), TypeError, "as_classifier"),
    (nn.Linear(6, 1), ValueError, ""),
    (nn.Linear(7, 3), Exception, ""),
    (Counting(), ValueError, ""),
    (lambda x: LINEAR.bias.expand(len(x), -1), ValueError, "logits do not follow from the images"),
    (lambda x: LINEAR(x) * (1 + 1e-5 * next(CALLS)), ValueError, "draws at random"),
    (lambda x: LINEAR(x) * (1.0005 if len(x) in (1, 6) else 1), ValueError, "depends on the other images"),
    (lambda x: LINEAR(x) * (1 if torch.compiler.is_exporting() else 1.0005), ValueError, "answers otherwise"),
    (as_classifier(torch.jit.script(LINEAR)), ValueError, "it is scripted. Give the model that it was made from"),
], ids=["path", "numpy", "size of the batch", "scripted", "frozen", "half", "bfloat16", "a dict", "one logit",
        "another shape", "counts its calls", "of nothing", "a little noise", "sizes of batches", "when exported",
        "scripted inside"])
def test_what_cannot_be_traced_says_why(model, kind, words):
    with pytest.raises(kind, match=words):
        trace(model, VECTORS)


def test_a_refusal_prints_nothing_beside_itself(capfd):
    with pytest.raises(ValueError, match="path depends on values"):
        trace(lambda x: x if x.sum() > 0 else -x, VECTORS)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_named(value):
    model = net()
    model[4].weight.data[0, 0] = value
    with pytest.raises(ValueError, match=r"4\.weight holds NaN or infinity|NaN"):
        trace(model, VECTORS)
    model = net()
    model[1].running_mean[0] = value
    with pytest.raises(ValueError, match=r"1\.running_mean|NaN"):
        trace(model, VECTORS)
    model = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3))
    with torch.no_grad():  # of a neuron that is silent in all images
        model[0].bias[0], model[2].weight[1, 0] = -100, value
    with pytest.raises(ValueError, match=r"2\.weight holds NaN or infinity|NaN"):
        trace(model, VECTORS)


def test_autocast_is_refused():
    with torch.autocast("cpu", dtype=torch.bfloat16), pytest.raises(ValueError, match="autocast is on"):
        interval_bounds(net(), VECTORS, LINF)


@pytest.mark.parametrize("call", [interval_bounds, crown_bounds])
def test_what_the_call_is_given_is_checked(call):
    network = trace(net(), VECTORS)
    with pytest.raises(ValueError, match=r"shape \(6,\); found \(7,\)"):
        call(network, torch.rand(2, 7), LINF)
    with pytest.raises(TypeError, match="ThreatModel"):
        call(network, VECTORS, 0.1)
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        call(network, VECTORS * 3, LINF)
    with pytest.raises(ValueError, match="NaN"):
        call(network, VECTORS * torch.nan, LINF)
    for labels in (torch.tensor([0, 1, 3]), torch.tensor([0, 1, -1])):
        with pytest.raises(ValueError, match="label"):
            interval_margins(network, VECTORS, labels, LINF)
    with pytest.raises(ValueError, match="slopes must be"):
        crown_bounds(network, VECTORS, LINF, slopes="steep")
    with pytest.raises(ValueError, match="intermediate must be"):
        crown_bounds(network, VECTORS, LINF, intermediate="ibp")


# -------------------------------------------------------------------------------------------------- taken as they are

def in_context(context):
    def model(x):
        with context():
            z = LINEAR(x)
        return z.relu()

    return model


TAKEN = {
    "a function": lambda x: LINEAR(x).relu(),
    "a normalized net": as_classifier(net(), mean=[0.1] * 6, std=[0.3] * 6),
    "two classes": as_classifier(net(1), output="binary"),
    "a dict": as_classifier(Unnamed()),
    "weight norm": nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(6, 4)), nn.ReLU(), nn.Linear(4, 2)),
    "spectral norm": nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(6, 4)), nn.Tanh(),
                                   nn.Linear(4, 2)),
    "old weight norm": nn.Sequential(nn.utils.weight_norm(nn.Linear(6, 4)), nn.ReLU(), nn.Linear(4, 2)),
    "no operation": nn.Identity(),
    "constant logits": lambda x: torch.zeros_like(x)[:, :3] + 1,
    "constants made on the way": lambda x: torch.cat([LINEAR(x).relu() + x.new_full((6,), 0.5),
                                                      x.new_zeros((len(x), 2)), x.new_ones(x.shape) - x], 1),
    "a mask": lambda x: LINEAR(x).relu() * MASK,
    "weights of each image": lambda x: (x[:, None] @ LINEAR.weight.expand(len(x), -1, -1)).flatten(1).relu(),
    "logits in more digits": lambda x: LINEAR(x).relu().double(),
    "constants in more digits": lambda x: (LINEAR(x) * torch.full((6,), 0.5, dtype=torch.float64)).relu(),
    "gradients on inside": in_context(torch.enable_grad),
    "no autocast inside": in_context(lambda: torch.autocast("cpu", enabled=False)),
    "stepped": lambda x: LINEAR(torch.relu(torch.floor(3 * torch.relu(LINEAR(x))))),
    "stepped at the end": lambda x: torch.floor(3 * torch.relu(LINEAR(x))),
}


@pytest.mark.parametrize("threat", [LINF, L2], ids=str)
@pytest.mark.parametrize("model", TAKEN.values(), ids=TAKEN)
def test_models_as_people_have_them(model, threat):
    found = [interval_bounds(model, VECTORS, threat), crown_bounds(model, VECTORS, threat, alpha_steps=2)]
    answers = model.eval() if isinstance(model, nn.Module) else model
    points = torch.stack([threat.random_point(VECTORS, seed=seed, index=torch.arange(3)) for seed in range(200)])
    with torch.no_grad():
        values = answers(points.flatten(0, 1)).reshape(200, 3, -1)
    for lower, upper in found:
        assert (values >= lower - 1e-5).all()
        assert (values <= upper + 1e-5).all()


def seen_through_a_view(x):
    z = LINEAR(x)
    view = z.view(-1, 6)
    z.mul_(2)
    return view + z


def seen_before(x):
    z = LINEAR(x)
    half = z * 0.5
    z.relu_()
    return half + z


def seen_through_dropout(x):
    z = LINEAR(x)
    same = F.dropout(z, training=False)
    z.mul_(-2)
    return same


def written_twice(x):
    return LINEAR(x).mul_(2).relu_().add_(1)


@pytest.mark.parametrize("model", [seen_through_a_view, seen_before, seen_through_dropout, written_twice])
def test_what_is_written_in_place_is_written_where_others_look(model):
    assert torch.allclose(trace(model, VECTORS)(VECTORS), model(VECTORS), rtol=1e-6)


def test_an_operation_beside_one_that_writes_is_not_taken_apart():
    """The exporter takes log-softmax and the like apart where it has to: none needs that behind nn.ReLU(inplace=True).
    """
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(inplace=True), nn.Softshrink(0.3))
    with pytest.raises(UnknownOperation, match=r"layer '2' \(Softshrink\): there is no rule for softshrink"):
        trace(model, VECTORS)


def everything(model):
    return ([(name, p.detach().clone(), p.requires_grad, None if p.grad is None else p.grad.clone())
             for name, p in model.named_parameters()],
            {name: buffer.clone() for name, buffer in model.named_buffers()},
            [part.training for part in model.modules()])


def same(one, other):
    return (all(a[0] == b[0] and torch.equal(a[1], b[1]) and a[2] == b[2]
                and (a[3] is b[3] is None or torch.equal(a[3], b[3])) for a, b in zip(one[0], other[0], strict=True))
            and all(torch.equal(one[1][name], other[1][name]) for name in one[1]) and one[2] == other[2])


class Narrow(nn.Module):
    def forward(self, x):
        return x.float() * 2


class Failing(nn.Module):
    def forward(self, x):
        return x.softmax(1)


@pytest.mark.parametrize("fails", [False, True])
def test_the_model_stays_as_it_was(fails):
    model = nn.Sequential(*net(), *([Failing()] if fails else [])).train()
    model[4].eval()
    model[0].weight.requires_grad_(False)
    model[6].bias.grad = torch.ones(3)
    x = VECTORS.clone()
    before = everything(model)
    for call in (lambda: interval_bounds(model, x, LINF), lambda: crown_bounds(model, x, LINF, alpha_steps=3),
                 lambda: crown_margins(model, x, torch.tensor([0, 1, 2]), L2, alpha_steps=2)):
        if fails:
            with pytest.raises(UnknownOperation):
                call()
        else:
            for bound in call():
                assert not bound.requires_grad
        assert same(before, everything(model))
        assert torch.equal(x, VECTORS)


def test_no_number_is_drawn_from_the_global_generator():
    state = torch.random.get_rng_state()
    crown_bounds(net(), VECTORS, LINF, alpha_steps=2)
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_whatever_mode_autograd_is_in(mode):
    model, expected = net(), crown_bounds(net(), VECTORS, LINF, alpha_steps=3)
    with mode():
        found = crown_bounds(model, VECTORS.clone(), LINF, alpha_steps=3)
        verdicts = verify(model, VECTORS.clone(), torch.tensor([0, 1, 2]), LINF).verdicts
    assert len(verdicts) == 3
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


def test_a_traced_network_takes_the_models_place():
    model = net()
    network = trace(model, VECTORS[:1])
    assert trace(network, VECTORS) is network
    model.eval()
    assert torch.allclose(network(VECTORS), model(VECTORS))
    for call in (interval_bounds, crown_bounds):
        for one, other in zip(call(network, VECTORS, LINF), call(model, VECTORS, LINF), strict=True):
            assert torch.equal(one, other)
    before = interval_bounds(network, VECTORS, LINF)
    doubled = trace(net(), VECTORS).to(torch.float64)
    for part in model:  # it keeps the weights that it was traced with, whichever of them it has used so far
        if isinstance(part, nn.Linear):
            part.weight.data.mul_(3)
    assert torch.equal(interval_bounds(network, VECTORS, LINF).lower, before.lower)
    assert torch.equal(crown_bounds(network.to(torch.float64), VECTORS, LINF).lower,
                       crown_bounds(doubled, VECTORS, LINF).lower)
    assert "7 operations, images (6,) to 3 logits, torch.float32" in repr(network)


def test_a_model_in_float64_with_float32_inside_is_refused():
    with pytest.raises(UnknownOperation, match=r"computes in torch\.float32, whose rounding no bound covers"):
        trace(nn.Sequential(LINEAR.to(torch.float64), nn.ReLU(), Narrow()), VECTORS.double())
    LINEAR.float()


def test_bounds_are_in_the_type_of_the_model():
    for dtype in (torch.float32, torch.float64):
        found = crown_bounds(net(dtype=dtype), VECTORS, LINF)
        assert found.lower.dtype == dtype
    doubled = trace(net(), VECTORS).to(torch.float64)
    assert torch.allclose(crown_bounds(doubled, VECTORS, LINF).lower,
                          crown_bounds(net(dtype=torch.float64), VECTORS, LINF).lower, rtol=1e-12)


@pytest.mark.parametrize("threat", [LINF, L2], ids=str)
@pytest.mark.parametrize("values", [1, 200, 3000])
def test_an_images_bounds_depend_on_no_other_and_on_no_batch_size(monkeypatch, threat, values):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(4, 4, 3), nn.SiLU(), nn.MaxPool2d(2), nn.Conv2d(4, 3, 2, padding=1), nn.ReLU(),
                          nn.Flatten(), nn.Linear(27, 12), nn.ReLU(), nn.Linear(12, 3)).double()
    x = torch.rand(7, 4, 6, 6, dtype=torch.float64)
    network, order = trace(model, x), torch.tensor([3, 0, 6, 5, 1, 2, 4])
    calls = [lambda x: interval_bounds(network, x, threat), lambda x: crown_bounds(network, x, threat, alpha_steps=2)]
    whole = [call(x) for call in calls]
    monkeypatch.setattr(enclosure, "_CHUNK_VALUES", values)
    monkeypatch.setattr(sys.modules["robustness_lib.certify.interval_bounds"], "_BATCH_VALUES", values)
    for call, expected in zip(calls, whole, strict=True):
        for found, bound in zip(call(x[order]), expected, strict=True):
            assert torch.allclose(found, bound[order], rtol=1e-9, atol=1e-9)
        for found, bound in zip(call(x[2:3]), expected, strict=True):
            assert torch.allclose(found, bound[2:3], rtol=1e-9, atol=1e-9)


def test_bounds_hold_wherever_time_runs_out(monkeypatch):
    """The more pieces of work are done, the better they are, and never too good."""
    monkeypatch.setattr(enclosure, "_CHUNK_VALUES", 40)
    network = trace(net(dtype=torch.float64), VECTORS)
    x, index = VECTORS.double(), torch.arange(3)
    points = torch.stack([LINF.random_point(x, seed=seed, index=index) for seed in range(100)])
    rows, before = torch.eye(3, dtype=torch.float64), torch.full((3,), -torch.inf, dtype=torch.float64)
    with torch.no_grad():
        least = network(points.flatten(0, 1)).reshape(100, 3, 3).amin(0).diagonal()
        for pieces in range(40):
            left = iter([True] * pieces)

            def go_on(left=left):
                return next(left, False)

            tight = Enclosure.by_intervals(network, InputRegion(x, LINF)).tightened(SLOPES, go_on)
            found = tight.least(tight.last, rows, index, SLOPES)
            assert (found <= least + 1e-9).all()
            assert (found >= before - 1e-9).all()
            before = found
        assert next(left, None) is not None, "some were asked for when all was done"
        assert (tight.least(tight.last, rows, index, SLOPES, lambda: False) == -torch.inf).all()
