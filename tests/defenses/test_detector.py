import pytest
import torch
from torch import nn

from robustness_lib.defenses import (
    BitDepth,
    FeatureSqueezing,
    GaussianNoise,
    GaussianSmoothing,
    MedianSmoothing,
)

INNER = nn.Identity()


def images(n=40, seed=0, dtype=torch.float32):
    return torch.rand((n, 3, 8, 8), generator=torch.Generator().manual_seed(seed), dtype=dtype)


def net(scale=1.0, shift=0.0, classes=5):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        linear = nn.Linear(192, classes)
    with torch.no_grad():
        linear.weight.mul_(scale)
        linear.bias.add_(shift)
    return nn.Sequential(nn.Flatten(), linear).eval()


def test_the_score_is_the_largest_l1_distance():
    model, x = net(8.0), images()
    answer = model(x).softmax(1)
    apart = [(answer - model(defense.transform(x)).softmax(1)).abs().sum(1)
             for defense in (BitDepth(model, 4), MedianSmoothing(model, 3))]
    assert (apart[0] > apart[1]).any() or (apart[1] > apart[0]).any()
    torch.testing.assert_close(FeatureSqueezing(model).score(x), torch.maximum(*apart))
    squeezers = [BitDepth(model, 2).transform, GaussianSmoothing(INNER, 1.0), lambda z: 1 - z]
    expected = torch.stack([(answer - model(s(x)).softmax(1)).abs().sum(1) for s in squeezers]).amax(0)
    torch.testing.assert_close(FeatureSqueezing(model, squeezers).score(x), expected)


@pytest.mark.parametrize("shift", [0.0, -100.0, 1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_the_last_class_wins_exactly_where_the_image_is_rejected(shift, dtype):
    model, x = net(8.0, shift).to(dtype), images(dtype=dtype)
    scores = FeatureSqueezing(model).score(x)
    near = [value for score in scores[:5].tolist() for value in (score, score - 1e-7, score + 1e-7)]
    for threshold in (0.0, 0.3, 1.0, 2.0, *near):
        detector = FeatureSqueezing(model, threshold=threshold)
        logits, rejected = detector(x), detector.rejects(x)
        assert logits.shape == (40, 6)
        assert torch.equal(logits[:, :5], model(x))
        assert torch.equal(rejected, scores > threshold)
        assert torch.equal(logits.argmax(1), torch.where(rejected, 5, model(x).argmax(1)))
        top = logits[:, :5].amax(1)
        assert (torch.where(rejected, logits[:, 5] > top, logits[:, 5] < top)).all()  # never a tie


def test_a_score_at_the_threshold_is_not_rejected():
    model, x = net(8.0).double(), images(dtype=torch.float64)
    score = FeatureSqueezing(model).score(x)[7].item()
    detector = FeatureSqueezing(model, threshold=score)
    assert detector.score(x)[7] == detector.threshold
    assert not detector.rejects(x)[7]
    assert detector(x)[7].argmax() < 5
    below = FeatureSqueezing(model, threshold=score - 1e-12)
    assert below.rejects(x)[7]
    assert below(x)[7].argmax() == 5


def test_an_image_that_squeezing_leaves_alone_scores_zero():
    x = torch.full((3, 3, 8, 8), 1.0)
    detector = FeatureSqueezing(net(), threshold=0)
    assert not detector.score(x).any()
    assert not detector.rejects(x).any()


def test_the_reject_logit_carries_the_scores_gradient():
    model, x = net(8.0), images().requires_grad_()
    for threshold in (0.0, 2.0):  # all rejected, none rejected
        detector = FeatureSqueezing(model, threshold=threshold, slope=3.0)
        logits = detector(x)
        gap = logits[:, 5] - logits[:, :5].amax(1)
        gradient, = torch.autograd.grad(gap.sum(), x)
        expected, = torch.autograd.grad(3 * detector.score(x).sum(), x)
        torch.testing.assert_close(gradient, expected)
        assert (gradient.flatten(1).abs().sum(1) > 0).all()


def test_the_reject_logit_by_the_formula():
    model, x = net(8.0), images()
    for slope in (1.0, 10.0):
        detector = FeatureSqueezing(model, threshold=0.4, slope=slope)
        expected = model(x).amax(1) + slope * (detector.score(x) - 0.4)
        torch.testing.assert_close(detector(x)[:, 5], expected)


def test_whoever_knows_the_detector_climbs_down():
    model, x = net(8.0), images()
    detector = FeatureSqueezing(model, threshold=0.05)
    held = detector.rejects(x)
    assert held.double().mean() > 0.5
    z = x.clone()
    for _ in range(40):
        z.requires_grad_()
        logits = detector(z)
        gradient, = torch.autograd.grad((logits[:, 5] - logits[:, :5].amax(1)).sum(), z)
        z = (z - 0.01 * gradient.sign()).clamp(0, 1).detach()
    assert detector.rejects(z).sum() < held.sum()


@pytest.mark.parametrize("share", [0.0, 0.05, 0.1, 0.29, 0.5, 0.99])
@pytest.mark.parametrize("n", [1, 19, 20, 100])
def test_calibration_keeps_the_share_of_false_alarms(share, n):
    x = images(n)
    plain = FeatureSqueezing(net(8.0))
    detector = plain.calibrate(x, share, batch_size=7)
    allowed = int(share * n + 1e-9)
    assert detector.rejects(x).sum() == allowed  # no two scores are equal here
    assert detector.threshold == pytest.approx(plain.score(x).sort().values[n - 1 - allowed].item() + 1e-6, abs=9e-7)
    assert plain.threshold == 1.0


def test_calibration_keeps_it_on_images_that_it_has_not_seen():
    detector = FeatureSqueezing(net(8.0)).calibrate(images(1000), 0.1)
    assert 0.06 < detector.rejects(images(1000, seed=1)).double().mean() < 0.14


def test_equal_scores_are_rejected_together_or_not_at_all():
    x = images(1).expand(20, -1, -1, -1)
    assert not FeatureSqueezing(net(8.0)).calibrate(x, 0.3).rejects(x).any()


def test_calibration_keeps_the_rest_and_the_modes():
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(192), nn.Linear(192, 4)).train()
    model[2].eval()
    detector = FeatureSqueezing(model, [BitDepth(INNER, 2)], slope=4.0)
    assert detector.training
    before = {key: value.clone() for key, value in model.state_dict().items()}
    new = detector.calibrate(images())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert [m.training for m in model] == [True, True, False]
    assert detector.training
    assert new.slope == 4.0
    assert new.squeezers == detector.squeezers
    assert new.model is model
    with pytest.raises(ValueError, match="a squeezer must return images"):
        FeatureSqueezing(model, [lambda z: z[:, :1]]).calibrate(images())
    assert [m.training for m in model] == [True, True, False]


def test_squeezers_that_are_modules_move_with_it():
    detector = FeatureSqueezing(net(), [GaussianSmoothing(INNER, 1.0), BitDepth(INNER, 3)])
    assert all(buffer.device.type == "meta" for buffer in detector.to("meta").buffers())
    assert len(list(detector.buffers())) == 1


def test_says_whether_it_draws():
    model = net()
    for squeezers in ([GaussianNoise(INNER, 0.1)], [GaussianNoise(model, 0.1).transform]):
        assert FeatureSqueezing(model, squeezers).stochastic
    assert not FeatureSqueezing(model).stochastic
    assert not FeatureSqueezing(model, [lambda z: z]).stochastic


def test_its_representation():
    text = repr(FeatureSqueezing(net(), [GaussianNoise(INNER, 0.1), BitDepth(INNER, 3).transform], threshold=0.25))
    assert "squeezers=[GaussianNoise, Defense.transform], threshold=0.25" in text
    assert "stochastic=True" in text
    assert "0x" not in text


def test_none_at_all():
    detector = FeatureSqueezing(net())
    assert detector(images(0)).shape == (0, 6)
    assert detector.rejects(images(0)).shape == (0,)


def test_wrong_use_is_refused():
    model, x = net(), images()
    with pytest.raises(TypeError, match=r"wraps a model, a torch.nn.Module; found function"):
        FeatureSqueezing(lambda z: z)
    for squeezers in ([], [3], BitDepth(INNER, 4)):
        with pytest.raises(TypeError, match="one or more functions of images in a list; found"):
            FeatureSqueezing(model, squeezers)
    for threshold in (-0.1, 2.1, float("nan")):
        with pytest.raises(ValueError, match=rf"threshold must lie in \[0, 2\].*found {threshold}"):
            FeatureSqueezing(model, threshold=threshold)
    for slope in (0, -1, float("inf"), float("nan")):
        with pytest.raises(ValueError, match=f"slope must be positive and finite; found {slope}"):
            FeatureSqueezing(model, slope=slope)
    for share in (-0.1, 1.0, 5, float("nan")):
        with pytest.raises(ValueError, match=rf"false_positives must lie in \[0, 1\).*found {share}"):
            FeatureSqueezing(model).calibrate(x, share)
    with pytest.raises(ValueError, match="needs clean images; found none"):
        FeatureSqueezing(model).calibrate(x[:0])
    with pytest.raises(ValueError, match=r"found \(40, 5\)\. Pass a defense's \.transform, not the defense"):
        FeatureSqueezing(model, [BitDepth(model, 4)])(x)
    with pytest.raises(ValueError, match=r"must have shape \(N, C, H, W\)"):
        FeatureSqueezing(model)(x[0])


def test_a_model_that_works_in_place_reaches_neither_the_callers_images_nor_the_score():
    inner = net(8.0)

    def half(x):
        return inner(x.mul_(0.5))

    class InPlace(nn.Module):
        def forward(self, x):
            return half(x)

    class Copying(nn.Module):
        def forward(self, x):
            return half(x.clone())

    x = images()
    before = x.clone()
    detector = FeatureSqueezing(InPlace())
    asked = [detector(x), detector.score(x), detector.rejects(x), detector.calibrate(x).threshold]
    assert torch.equal(x, before)
    wanted = FeatureSqueezing(Copying())
    assert torch.equal(asked[0], wanted(x))
    assert torch.equal(asked[1], wanted.score(x))
    assert asked[3] == wanted.calibrate(x).threshold
