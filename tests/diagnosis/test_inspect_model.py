import json
import warnings

import pytest
import torch
from torch import nn

from robustness_lib import ThreatModel, data, models
from robustness_lib.diagnosis import _input_alternatives
from robustness_lib.diagnosis.inspect_model import inspect_model
from robustness_lib.models import Normalize, as_classifier
from robustness_lib.models.normalizations import NORMALIZATIONS

X, Y, CLASSES = data.load("signs", n=200)
TINY = models.load_pretrained("signs-tiny-standard")


class Through(nn.Module):
    """The tiny net, with something done before and after it."""

    def __init__(self, before=lambda x: x, after=lambda z: z):
        super().__init__()
        self.net, self.before, self.after = models.load_pretrained("signs-tiny-standard"), before, after
        self.eval()

    def forward(self, x):
        return self.after(self.net(self.before(x)))


def look(model, x=X, y=Y, **options):
    return inspect_model(model, x, y, **{"classes": CLASSES} | options)


def kinds(found, *, serious=True):
    return [remark.kind for remark in found.remarks if remark.serious == serious]


def message(found, kind):
    return next(remark.message for remark in found.remarks if remark.kind == kind)


def undo(key, x):
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in NORMALIZATIONS[key])
    return x * std + mean


@pytest.mark.parametrize("name", ["signs-tiny-standard", "signs-tiny-pgd", "signs-standard", "signs-pgd",
                                  "moons-standard"])
def test_honest_models_are_fine(name):
    x, y, classes = data.load(name.split("-")[0], n=200)
    model = models.load_pretrained(name)
    found = inspect_model(model, x, y, classes=classes, threat=ThreatModel("linf", 8 / 255))
    assert found.fine, found.remarks
    with torch.no_grad():
        assert found.accuracy.correct == int((model(x).argmax(1) == y).sum())
    assert found.output == "logits"
    assert found.outputs == found.classes == len(classes)
    assert found.repeats
    assert found.independent is True
    assert found.training == found.switched == ()
    assert found.gradient > 0.9
    assert (found.dtype, found.device, found.batch) == ("float32", "cpu", 64)
    assert found.parameters == sum(p.numel() for p in model.parameters())
    assert found.forward_ms > 0
    assert found.gradient_ms > 0


# Pixels.

@pytest.mark.parametrize(("key", "words"), [
    ("imagenet", "--mean 0.485,0.456,0.406 --std 0.229,0.224,0.225 (or --mean imagenet)"),
    ("half", "use --mean half"), ("bytes", "use --mean bytes")])
def test_a_model_that_expects_normalized_pixels(key, words):
    found = look(Through(before=lambda x: undo(key, x)))
    right = look(TINY).accuracy.correct
    assert kinds(found)[0] == "pixels"
    assert words in message(found, "pixels")
    best = max(found.alternatives, key=lambda r: r.accuracy.correct)
    assert best.accuracy.correct == right
    assert f"{100 * found.accuracy.value:.1f} % on raw pixels, {best.words}" in message(found, "pixels")
    mean, std = (values * (3 // len(values)) for values in NORMALIZATIONS[key])
    repaired = look(as_classifier(Through(before=lambda x: undo(key, x)), mean=mean, std=std))
    assert repaired.fine, repaired.remarks
    assert repaired.accuracy.correct == right


def test_a_grey_model_that_expects_normalized_pixels():
    class Grey(nn.Module):
        def forward(self, x):
            return TINY(undo("mnist", x).repeat(1, 3, 1, 1))

    x = X.mean(1, keepdim=True)
    with torch.no_grad():
        y = TINY(x.repeat(1, 3, 1, 1)).argmax(1)
    found = look(Grey(), x, y)
    assert "--mean 0.1307 --std 0.3081 (or --mean mnist)" in message(found, "pixels")
    assert not any("green" in alternative.name for alternative in found.alternatives)


@pytest.mark.parametrize("shape", [(3, 1024), (3, 4, 32, 8)], ids=["signals", "videos"])
def test_channels_are_axis_one_also_of_what_is_no_image(shape):
    """The same net, given its pixels in another shape, with another normalization than its own."""
    mean, std = NORMALIZATIONS["imagenet"]
    inner = Through(before=lambda x: undo("bytes", x.reshape(-1, 3, 32, 32)))
    found = inspect_model(as_classifier(inner, mean=mean, std=std), X.reshape(-1, *shape), Y, classes=CLASSES)
    assert "use --mean bytes" in message(found, "pixels")


def test_a_normalization_too_many():
    mean, std = NORMALIZATIONS["imagenet"]
    found = look(as_classifier(TINY, mean=mean, std=std))
    assert "leave out --mean and --std" in message(found, "pixels")
    assert "as given" in message(found, "pixels")
    inside = look(nn.Sequential(Normalize(mean, std), TINY))  # where it cannot be seen
    assert "take one normalization out" in message(inside, "pixels")
    other = look(as_classifier(Through(before=lambda x: undo("bytes", x)), mean=mean, std=std))
    assert "not the normalization that your model expects; use --mean bytes" in message(other, "pixels")
    bytes_ = next(alternative for alternative in other.alternatives if alternative.name == "pixels from 0 to 255")
    assert bytes_.accuracy.correct == look(TINY).accuracy.correct


def test_channels_in_the_other_order():
    found = look(Through(before=lambda x: x.flip(1)))
    assert "x.flip(1)" in message(found, "pixels")
    assert "--mean" not in message(found, "pixels")
    both = look(Through(before=lambda x: undo("imagenet", x).flip(1)))
    assert "x.flip(1)" in message(both, "pixels")
    assert "(or --mean " in message(both, "pixels")


def test_a_small_difference_is_no_problem():
    class Nearly(nn.Module):  # 4 % more are right on pixels times 255: less than five points
        def forward(self, x):
            z = TINY(torch.where(x.amax((1, 2, 3), keepdim=True) > 2, x / 255, x))
            spoilt = (torch.arange(len(x)) % 25 == 0) & (x.amax((1, 2, 3)) <= 2)
            return torch.where(spoilt[:, None], -z, z)

    assert "pixels" not in kinds(look(Nearly(), batch_size=200))


@pytest.mark.parametrize(("gained", "lost", "n", "better"), [
    (20, 0, 200, True), (9, 0, 200, False), (10, 0, 200, True), (7, 0, 100, True), (6, 0, 100, False),
    (5, 0, 20, False), (40, 25, 200, False), (60, 20, 200, True)])
def test_better_needs_both_an_effect_and_a_test(gained, lost, n, better):
    y = torch.arange(n) % 50  # guessing gets 2 %
    so, as_given = y.clone(), y.clone()
    as_given[:gained] += 1
    so[gained:gained + lost] += 1
    so[-n // 4:] += 1  # wrong either way
    as_given[-n // 4:] += 1
    alternative = _input_alternatives.compared("", "", so, as_given, y, 1)
    assert (alternative.gained, alternative.lost) == (gained, lost)
    assert alternative.better == better
    assert not _input_alternatives.compared("", "", so, as_given, y, 10**15).better


def test_better_than_nothing_but_no_better_than_guessing():
    y = torch.arange(300) % 10
    assert not _input_alternatives.compared("", "", torch.full_like(y, 3), torch.full_like(y, 11), y, 1).better
    assert _input_alternatives.compared("", "", torch.where(y < 2, y, 11), torch.full_like(y, 11), y, 1).better


def test_a_model_that_refuses_other_pixels():
    def strict(x):
        assert x.max() <= 1
        return x

    found = look(Through(before=strict))
    assert found.fine
    assert not any("255" in alternative.name for alternative in found.alternatives)


# Labels.

def test_labels_off_by_one():
    found = look(TINY, y=Y + 1, classes=[f"{k}" for k in range(11)])
    assert kinds(found) == ["classes", "labels", "guessing"]
    assert "take 1 off" in message(found, "labels")
    shifted = look(Through(after=lambda z: torch.cat([z[:, :1] - 99, z], 1)))
    assert "add 1 to the labels" in message(shifted, "labels")
    assert "11 outputs, the data 10 classes" in message(shifted, "classes")


def test_classes_in_another_order():
    order = torch.tensor([0, 3, 2, 1, 4, 9, 6, 7, 8, 5])
    found = look(TINY, y=order[Y])
    assert kinds(found) == ["labels"]
    assert "1 is answered 3, 3 is answered 1, 5 is answered 9, 9 is answered 5" in message(found, "labels")
    assert max(found.alternatives, key=lambda r: r.accuracy.value).accuracy.n == 100  # fitted on the other half


def test_a_bad_model_is_not_taken_for_renumbered():
    confused = look(Through(after=lambda z: z[:, [0, 0, 2, 3, 4, 5, 6, 7, 8, 9]] - torch.eye(10)[1] * 0.1))
    assert "labels" not in kinds(confused)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        untrained = look(models.tiny_cnn())
    assert kinds(untrained) == ["guessing"]
    assert "weights that were not loaded" in message(untrained, "guessing")


def test_few_images_are_a_note():
    found = look(TINY, X[:3], Y[:3])
    assert found.fine
    assert "few images" in kinds(found, serious=False)
    assert look(TINY, X[:1], Y[:1]).independent is None


# Output.

def test_kinds_of_output():
    softmax = look(Through(after=lambda z: z.softmax(1)))
    assert softmax.output == "probabilities"
    assert kinds(softmax) == ["probabilities"]
    log = look(Through(after=lambda z: z.log_softmax(1)))
    assert log.output == "log-probabilities"
    assert log.fine
    for after in (lambda z: {"logits": z}, lambda z: (z, None)):
        packed = look(Through(after=after))
        assert "with logits in it" in packed.output
        assert kinds(packed) == ["output"]
        assert packed.accuracy == look(TINY).accuracy
        assert look(as_classifier(Through(after=after))).fine


@pytest.mark.parametrize("after", [
    lambda z: (z[:, 1] - z[:, 0]).sigmoid(), lambda z: (z[:, 1:2] - z[:, :1]).sigmoid(), lambda z: z.sigmoid(),
    lambda z: {"logits": z.sigmoid()}, lambda z: z.softmax(1)[:, 1], lambda z: z.double().sigmoid().float(),
    lambda z: z.softmax(1).half().float(),
], ids=["(N,)", "(N, 1)", "two", "packed", "one of a softmax", "double", "half"])
def test_what_looks_like_a_probability_is_said_before_anything_else(after):
    """Read as logits, a sigmoid answers class 1 for every image, and other pixels seem to help."""
    x, y, _ = data.load("moons", n=200)
    moons = models.load_pretrained("moons-standard")

    class Squashed(nn.Module):
        def forward(self, z):
            return after(moons(z))

    found = inspect_model(Squashed(), x, y)
    assert found.output == "probabilities"
    serious = [remark for remark in found.remarks if remark.serious and remark.kind != "output"]
    assert serious[0].kind == "probabilities"
    assert "looks like a probability; return the logit" in serious[0].message
    assert found.alternatives == ()
    assert not [remark for remark in found.remarks if "--mean" in remark.message]
    assert not found.fine


@pytest.mark.parametrize(("norm", "eps", "fine"), [("linf", 8, False), ("l2", 128, False), ("linf", 0.5, True),
                                                    ("linf", 8 / 255, True)])
def test_an_eps_on_another_scale_speaks_against_an_evaluation(norm, eps, fine):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        threat = ThreatModel(norm, eps)
    found = look(TINY, threat=threat)
    assert found.fine == fine
    assert ("large ε" in [remark.kind for remark in found.remarks]) == (eps >= 0.5)


def test_answers_that_are_nan_near_the_images():
    """Where no image was changed they are numbers."""
    levels = (255 * X).round() / 255

    def off_the_grid(z):
        return ((255 * z).round() / 255 - z).abs().flatten(1).amax(1, keepdim=True) > 1e-4

    class Fragile(nn.Module):
        def forward(self, z):
            return torch.where(off_the_grid(z), torch.nan, TINY(z))

    found = look(Fragile(), x=levels)
    assert "not a number" in kinds(found)
    assert "64 of 64 images the answer holds NaN or infinities once each pixel moves" in message(found, "not a number")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_rounding_in_half_precision_is_no_dependence_on_the_batch(dtype):
    half = models.load_pretrained("signs-tiny-standard").to(dtype)

    class Half(nn.Module):
        def forward(self, z):
            return half(z.to(dtype)).float()

    assert look(Half()).independent is True


def test_one_number_per_image():
    x, y, _ = data.load("moons", n=200)
    moons = models.load_pretrained("moons-standard")
    for shape in ((-1,), (-1, 1)):
        class One(nn.Module):
            def forward(self, x, shape=shape):
                z = moons(x)
                return (z[:, 1] - z[:, 0]).reshape(shape)

        found = inspect_model(One(), x, y)
        assert found.output == "one number per image"
        assert found.outputs == 2
        assert found.accuracy.value > 0.95
        assert "--output binary" in message(found, "output")


@pytest.mark.parametrize(("after", "words"), [
    (lambda z: z[:, :, None], r"returned \(64, 10, 1\)"), (lambda z: z.argmax(1, keepdim=True).repeat(1, 3), "int64"),
    (lambda z: z[:5], r"\(5, 10\)"), (lambda z: [], "no logits found"), (lambda z: None, "no logits found")])
def test_answers_without_logits(after, words):
    with pytest.raises(ValueError, match=words):
        look(Through(after=after))


def test_not_a_number():
    found = look(Through(after=lambda z: z.masked_fill(z.argmax(1, keepdim=True) == 3, torch.nan)))
    assert "not a number" in kinds(found)
    found = look(Through(after=lambda z: z + 0 * (z - z.detach()).sqrt()))
    assert kinds(found) == ["not a number"]


@pytest.mark.parametrize("lost", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("before", [lambda x: x, lambda x: undo("imagenet", x)], ids=["as given", "normalized outside"])
@pytest.mark.parametrize("shift", [0, 1])
def test_where_answers_are_missing_there_is_no_advice_on_pixels_or_labels(lost, before, shift):
    """Half of the answers come with the preparation alone, so it would look like the cure."""
    def bright(x):
        return (x.flatten(1).amax(1, keepdim=True) > 0.8)

    class Fragile(nn.Module):
        def forward(self, x):
            return TINY(before(x)).masked_fill(bright(x), lost)

    found = look(Fragile(), y=Y + shift, classes=[*CLASSES, "more"])
    assert "not a number" in kinds(found)
    assert found.alternatives == ()
    assert not {"pixels", "labels"} & {remark.kind for remark in found.remarks}


def test_what_has_no_answer_is_counted_as_wrong():
    found = look(Through(after=lambda z: torch.full_like(z, torch.nan)), y=torch.zeros(200).long())
    assert found.accuracy.correct == 0


def test_answers_that_a_preparation_takes_away_are_no_gain():
    """On pixels outside [0, 1] the model answers NaN, whose argmax is class 0."""
    class Narrow(nn.Module):
        def forward(self, x):
            outside = ((x < 0) | (x > 1)).flatten(1).any(1, keepdim=True)
            return torch.where(outside, torch.nan, TINY(1 - x))

    zero = Y == 0
    found = look(Narrow(), x=X[zero].repeat(20, 1, 1, 1), y=Y[zero].repeat(20))
    assert not any("mean/std" in one.name and one.accuracy.correct for one in found.alternatives)


@pytest.mark.parametrize("masked", [[3], [10, 11, 12], [0]])
def test_a_mask_of_minus_infinity_is_no_fault(masked):
    """Classes that the data do not have."""
    class Masked(nn.Module):
        def forward(self, x):
            z = torch.cat([TINY(x), torch.zeros(len(x), 5)], 1)
            return z.index_fill(1, torch.tensor([*masked, 13, 14]), -torch.inf)

    mine = ~torch.isin(Y, torch.tensor(masked))
    found = look(Masked(), x=X[mine], y=Y[mine])
    assert "not a number" not in kinds(found)
    assert kinds(found) == []
    assert found.repeats
    assert found.independent
    assert found.accuracy.value > 0.9


# Holding still.

def test_random_answers():
    class Noisy(nn.Module):
        def forward(self, x):
            return TINY(x + 0.1 * torch.randn_like(x))

    state = torch.random.get_rng_state()
    found = look(Noisy())
    assert torch.equal(torch.random.get_rng_state(), state)
    assert "random answers" in kinds(found)
    assert found.repeats is False
    assert found.independent is None


def test_answers_that_depend_on_the_batch():
    found = look(Through(after=lambda z: z - z.mean(0)))
    assert kinds(found) == ["depends on the batch"]
    assert found.independent is False
    normed = nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False), TINY).eval()
    assert "depends on the batch" in kinds(look(normed))


def test_training_mode_is_a_note_and_switching_to_it_a_problem():
    model = Through()
    model.net.train()
    found = look(model)
    assert found.fine
    assert "net" in found.training
    assert kinds(found, serious=False) == ["training mode"]
    assert model.net.training
    assert not model.training

    class Switches(Through):
        def forward(self, x):
            self.net.train()
            return super().forward(x)

    found = look(Switches())
    assert kinds(found) == ["changed mode"]
    assert "net" in found.switched


def test_the_model_is_as_it_was():
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(), TINY)
    model.train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    look(model)
    assert all(module.training for module in (model, model[0], model[1]))
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    TINY.eval()


# Gradient and speed.

def test_gradients_that_are_missing():
    found = look(Through(before=lambda x: x.detach()))
    assert kinds(found) == ["no gradient"]
    assert found.gradient == 0
    assert found.gradient_ms is None
    assert kinds(look(Through(before=lambda x: (x * 255).round() / 255))) == ["zero gradient"]
    saturated = look(Through(after=lambda z: z * 1000))
    assert saturated.fine
    assert kinds(saturated, serious=False) == ["zero gradient"]
    assert json.loads(found.to_json())["gradient_ms"] is None


def test_seconds_are_those_of_the_call():
    import time

    class Slow(Through):
        def forward(self, x):
            time.sleep(0.02)
            return super().forward(x)

    found = look(Slow(), X[:8], Y[:8])
    assert found.batch == 8
    assert found.forward_ms >= 20
    assert found.gradient_ms >= 20


# Failing.

def test_a_model_that_fails_is_named_with_its_place_and_what_it_takes():
    def never(x):
        raise KeyError("logits")

    words = r"shape \(64, 3, 32, 32\): KeyError: 'logits' \(.*test_inspect_model.py, line \d+\)"
    with pytest.raises(ValueError, match=words):
        look(Through(before=never))
    with pytest.raises(ValueError, match=r"It takes images as \(N, H, W, C\)"):
        look(Through(before=lambda x: x.permute(0, 3, 1, 2)))
    with pytest.raises(ValueError, match="as grey"):
        look(models.small_cnn(in_shape=(1, 32, 32)).eval())
    with pytest.raises(ValueError, match="as colour"):
        look(TINY, X[:, :1])
    with pytest.raises(ValueError, match=r"as points"):
        look(models.mlp([3 * 32 * 32, 10]))
    with pytest.raises(ValueError, match=r"parameters are torch.float64 and .*x.double\(\), or model.float\(\)"):
        look(models.tiny_cnn().double())


def test_a_model_that_fails_later():
    def whole(x):
        if len(x) != 64:
            raise IndexError("batch")
        return x

    with pytest.raises(ValueError, match=r"the model fails: IndexError: batch \(.*test_inspect_model.py"):
        look(Through(before=whole))
    x = X.clone()
    with pytest.raises(ValueError, match="in place"):
        look(Through(before=lambda x: x.sub_(0.1)), x)
    assert torch.equal(x, X)


def test_wrong_input():
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        look(TINY, X * 2 - 1)
    with pytest.raises(TypeError, match="int64"):
        look(TINY, y=Y.float())
    with pytest.raises(ValueError, match="no images"):
        look(TINY, X[:0], Y[:0])
    with pytest.raises(ValueError, match="batch_size"):
        look(TINY, batch_size=0)


def test_a_threat_too_large_is_a_note():
    assert kinds(look(TINY, threat=ThreatModel("linf", 0.5)), serious=False) == ["large ε"]


def test_json_holds_all_of_it():
    found = look(Through(before=lambda x: undo("bytes", x)))
    content = json.loads(found.to_json())
    assert content["fine"] is False
    assert content["accuracy"]["value"] == found.accuracy.value
    assert content["accuracy"]["interval_95"] == list(found.accuracy.interval)
    assert content["remarks"][0] == {"kind": "pixels", "message": found.remarks[0].message, "serious": True}
    assert [entry["better"] for entry in content["alternatives"]] == [other.better for other in found.alternatives]
    assert any(entry["better"] for entry in content["alternatives"])


def test_a_normalization_inside_is_undone_before_another_is_tried():
    inside = Normalize(*NORMALIZATIONS["imagenet"])
    preparations = {way.name: way.transform for way in _input_alternatives.preprocessings(3, inside)}
    assert torch.allclose(inside(preparations["pixels from 0 to 255"](X)), 255 * X, atol=1e-3)
    assert torch.allclose(inside(preparations["raw pixels"](X)), X, atol=1e-5)
    assert "ImageNet mean/std" not in preparations
