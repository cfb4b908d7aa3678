"""What every preprocessing defense promises."""

import pytest
import torch
from torch import nn

from robustness_lib import ThreatModel
from robustness_lib.attacks import FGSM
from robustness_lib.defenses import (
    JPEG,
    BitDepth,
    Defense,
    DifferentiableJPEG,
    FeatureSqueezing,
    GaussianNoise,
    GaussianSmoothing,
    MeanSmoothing,
    MedianSmoothing,
    ResizePad,
)

MAKE = {
    "jpeg": lambda model: JPEG(model, 50),
    "differentiable jpeg": lambda model: DifferentiableJPEG(model, 50),
    "bit depth": lambda model: BitDepth(model, 3),
    "mean": lambda model: MeanSmoothing(model),
    "median": lambda model: MedianSmoothing(model),
    "gaussian smoothing": lambda model: GaussianSmoothing(model, 0.6),
    "resize and pad": lambda model: ResizePad(model),
    "noise": lambda model: GaussianNoise(model, 0.1),
}
EACH = pytest.mark.parametrize("make", MAKE.values(), ids=MAKE.keys())
STOCHASTIC = {"resize and pad", "noise"}
WITHOUT_GRADIENT = {"jpeg", "bit depth"}
EACH_NAMED = pytest.mark.parametrize("name", MAKE)


def images(*shape, dtype=torch.float32, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def net(inputs=3 * 13 * 10, classes=4):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(inputs, classes)).eval()


@EACH
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("shape", [(3, 3, 13, 10), (2, 1, 16, 16), (1, 3, 5, 3), (4, 1, 9, 31), (0, 3, 8, 8),
                                   (0, 1, 5, 5)], ids=str)
def test_images_keep_shape_type_and_box_and_are_not_changed(make, dtype, shape):
    x = images(*shape, dtype=dtype)
    before = x.clone()
    z = make(nn.Identity()).transform(x)
    assert z.shape == x.shape
    assert z.dtype == x.dtype
    assert z.device == x.device
    assert torch.equal(x, before)
    assert z.numel() == 0 or (z.min() >= 0 and z.max() <= 1)
    assert x.shape[2] < 10 or not torch.equal(z, x)


@EACH
def test_the_box_holds_at_its_corners(make):
    x = (images(4, 3, 12, 12) > 0.5).float()
    z = make(nn.Identity()).transform(x)
    assert z.min() >= 0
    assert z.max() <= 1


@EACH
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_white_and_black_stay(make, dtype):
    defense = make(nn.Identity())
    if isinstance(defense, GaussianNoise):
        pytest.skip("noise changes everything")
    for value in (0.0, 1.0):
        x = torch.full((3, 3, 17, 11), value, dtype=dtype)
        torch.testing.assert_close(defense.transform(x), x, atol=1e-6, rtol=0)


@EACH
def test_the_model_sees_the_transform(make):
    defense, x = make(net()), images(5, 3, 13, 10)
    torch.manual_seed(3)
    answer = defense(x)
    torch.manual_seed(3)
    torch.testing.assert_close(answer, defense.model(defense.transform(x)))


@EACH_NAMED
def test_says_what_it_is(name):
    defense = MAKE[name](nn.Identity())
    assert defense.stochastic == (name in STOCHASTIC)
    assert defense.differentiable == (name not in WITHOUT_GRADIENT)
    assert f"differentiable={defense.differentiable}, stochastic={defense.stochastic}" in repr(defense)
    assert repr(defense).startswith(type(defense).__name__)
    assert "0x" not in repr(defense)


def test_representations_hold_the_settings():
    inner = nn.Identity()
    for defense, words in ((JPEG(inner, 42), "quality=42"), (DifferentiableJPEG(inner, 41), "quality=41"),
                           (BitDepth(inner, 5), "bits=5"), (MeanSmoothing(inner, 5), "size=5"),
                           (MedianSmoothing(inner, 7), "size=7"), (GaussianSmoothing(inner, 0.5), "sigma=0.5, size=5"),
                           (ResizePad(inner, 0.7), "smallest=0.7"), (GaussianNoise(inner, 0.25), "sigma=0.25")):
        assert words in repr(defense)


@EACH_NAMED
def test_only_stochastic_ones_draw_and_in_eval_mode_too(name):
    defense, x = MAKE[name](nn.Identity()).eval(), images(4, 3, 16, 16)
    state = torch.get_rng_state()
    first = defense.transform(x)
    assert torch.equal(torch.get_rng_state(), state) == (name not in STOCHASTIC)
    second = defense.transform(x)
    assert torch.equal(first, second) == (name not in STOCHASTIC)
    torch.set_rng_state(state)
    assert torch.equal(defense.transform(x), first)  # the seed repeats it


@EACH_NAMED
def test_a_gradient_where_one_is_promised(name):
    # Every pixel differs from its neighbours and none is at the box's edge, where noise and JPEG clamp.
    defense, x = MAKE[name](net()), (0.3 + 0.4 * images(3, 3, 13, 10)).requires_grad_()
    for parameter in defense.parameters():
        parameter.requires_grad_(False)
    logits = defense(x)
    if name == "jpeg":
        assert not logits.requires_grad
        return
    gradient, = torch.autograd.grad(logits[:, 0].sum(), x)
    plain, = torch.autograd.grad(defense.model(x)[:, 0].sum(), x)
    if name == "bit depth":
        assert not gradient.any()
        return
    cosine = nn.functional.cosine_similarity(gradient.flatten(1), plain.flatten(1))
    assert (cosine > 0.1).all()
    assert gradient.abs().sum(1).gt(0).double().mean() > 0.5


@EACH_NAMED
def test_an_attack_by_gradients_works_or_says_that_there_is_none(name):
    defense, x, y = MAKE[name](net()), 0.3 + 0.4 * images(6, 3, 13, 10), torch.arange(6) % 4
    attack = FGSM(ThreatModel("linf", 0.1))
    if name == "jpeg":
        with pytest.raises(ValueError, match="does not depend on its input as autograd sees it"):
            attack(defense, x, y)
        return
    assert attack(defense, x, y).shape == x.shape


@EACH
def test_models_that_are_none_are_refused(make):
    for thing, found in ((lambda x: x, "function"), (None, "NoneType"), (nn.Identity, "the class Identity")):
        with pytest.raises(TypeError, match=f"wraps a model, a torch.nn.Module; found {found}"):
            make(thing)


@EACH
@pytest.mark.parametrize("method", ["transform", "forward"])
def test_images_that_are_none_are_refused(make, method):
    use = getattr(make(nn.Identity()), method)
    with pytest.raises(ValueError, match=r"\(N, C, H, W\); found \(3, 8, 8\). One image goes in as image"):
        use(torch.rand(3, 8, 8))
    with pytest.raises(ValueError, match=r"\(N, C, H, W\); found \(2, 192\)"):
        use(torch.rand(2, 192))
    with pytest.raises(TypeError, match=r"found torch.uint8. Divide 8-bit images by 255"):
        use(torch.zeros(2, 3, 8, 8, dtype=torch.uint8))
    with pytest.raises(TypeError, match=r"found torch.float16"):
        use(torch.zeros(2, 3, 8, 8).half())
    with pytest.raises(TypeError, match=r"found list"):
        use([[0.0]])


@EACH
def test_the_model_is_left_as_it_was(make):
    model = nn.Sequential(nn.Flatten(), nn.Linear(300, 4), nn.Dropout()).train()
    model[1].eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    defense = make(model)
    assert defense.training
    assert [m.training for m in model] == [True, False, True]
    defense(images(2, 3, 10, 10))
    assert [m.training for m in model] == [True, False, True]
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not make(net()).training


@EACH
def test_the_state_dict_is_the_models(make):
    model = net()
    assert make(model).state_dict().keys() == {f"model.{key}" for key in model.state_dict()}


@EACH
def test_all_it_holds_moves_with_it(make):
    """Whatever a transform computes with is a buffer; what is left on another device would fail or be slow."""
    defense = make(net()).to("meta")
    held = list(defense.buffers())
    loose = [value for module in defense.modules() for value in vars(module).values() if torch.is_tensor(value)]
    assert all(buffer.device.type == "meta" for buffer in held)
    assert not loose
    if isinstance(defense, JPEG | BitDepth):
        return
    x = torch.empty(2, 3, 13, 10, device="meta")
    assert defense.transform(x).device.type == "meta"


@pytest.mark.parametrize(("make", "buffers"), [
    (lambda: MeanSmoothing(nn.Identity()), {"kernel"}),
    (lambda: GaussianSmoothing(nn.Identity(), 1.0), {"kernel"}),
    (lambda: DifferentiableJPEG(nn.Identity()), {"cosines", "luma", "chroma"}),
], ids=["mean", "gaussian", "jpeg"])
def test_kernels_are_buffers(make, buffers):
    defense = make()
    assert dict(defense.named_buffers()).keys() == buffers
    assert all(buffer.dtype == torch.float64 for buffer in defense.double().buffers())
    assert defense.transform(images(1, 3, 8, 8)).dtype == torch.float32


@pytest.mark.parametrize("outer", MAKE)
def test_defenses_stack(outer):
    x = images(3, 3, 13, 10)
    for inner in MAKE.values():
        within = inner(net())
        stack = MAKE[outer](within)
        torch.manual_seed(5)
        answer = stack(x)
        assert answer.shape == (3, 4)
        torch.manual_seed(5)
        torch.testing.assert_close(answer, within.model(within.transform(stack.transform(x))))


@EACH_NAMED
def test_an_image_does_not_depend_on_its_neighbours(name):
    if name in STOCHASTIC:
        pytest.skip("each call draws afresh")
    transform, x = MAKE[name](nn.Identity()).transform, images(5, 3, 13, 10)
    torch.testing.assert_close(torch.cat([transform(image[None]) for image in x]), transform(x), atol=1e-6, rtol=0)


@EACH_NAMED
def test_the_memory_order_of_channels_does_not_matter(name):
    if name in STOCHASTIC:
        pytest.skip("draws go by memory order")
    transform, x = MAKE[name](nn.Identity()).transform, images(5, 3, 16, 16)
    torch.testing.assert_close(transform(x.contiguous(memory_format=torch.channels_last)), transform(x))


def test_a_defense_of_ones_own():
    class Dark(Defense):
        differentiable, stochastic = True, False

        def _transform(self, x):
            return x / 2

    x = images(2, 3, 4, 4)
    assert torch.equal(Dark(nn.Identity())(x), x / 2)
    with pytest.raises(TypeError, match=r"abstract.*_transform"):
        Defense(nn.Identity())


def test_the_detector_says_what_it_is_too():
    detector = FeatureSqueezing(net())
    assert (detector.differentiable, detector.stochastic) == (True, False)


@EACH_NAMED
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_a_model_in_half_precision_does_not_spoil_the_tables(name, dtype):
    defense, x = MAKE[name](nn.Linear(10, 2)), images(3, 3, 13, 10)
    torch.manual_seed(0)
    before = defense.transform(x)
    defense.to(dtype)
    assert defense.model.weight.dtype == dtype
    torch.manual_seed(0)
    assert torch.equal(defense.transform(x), before)
    assert {buffer.dtype for buffer in defense.double()._buffers.values()} <= {torch.float64}


@pytest.mark.parametrize(("make", "found"), [
    (lambda model: GaussianNoise(model, "0.1"), "sigma must be a number, a standard deviation.*found '0.1'"),
    (lambda model: GaussianNoise(model, True), "sigma must be a number.*found True"),
    (lambda model: ResizePad(model, None), "smallest must be a number, a share of the image's size; found None"),
    (lambda model: GaussianSmoothing(model, "1"), "sigma must be a number, a standard deviation.*found '1'"),
    (lambda model: FeatureSqueezing(model, threshold="1"), "threshold must be a number.*found '1'"),
    (lambda model: FeatureSqueezing(model, slope=[1]), r"slope must be a number.*found \[1\]"),
    (lambda model: FeatureSqueezing(model).calibrate(images(2, 3, 8, 8), "0"), "false_positives must be a.*found '0'"),
])
def test_settings_that_are_no_numbers_are_refused(make, found):
    with pytest.raises(TypeError, match=found):
        make(nn.Identity())
