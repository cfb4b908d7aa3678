"""Against Pillow's codec, and piece by piece against scipy and the definitions."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.fft import dctn
from torch import nn
from torchvision.io import encode_jpeg

from robustness_lib import ThreatModel, data
from robustness_lib.attacks import PGD
from robustness_lib.defenses import JPEG, DifferentiableJPEG, _codec

QUALITIES = [10, 25, 50, 75, 95]
INNER = nn.Identity()


def natural(*shape, seed=0):
    """Slow changes, and a little noise."""
    n, c, h, w = shape
    generator = torch.Generator().manual_seed(seed)
    slow = nn.functional.interpolate(torch.rand((n, c, h // 8 + 2, w // 8 + 2), generator=generator), (h, w),
                                     mode="bicubic")
    return (slow + 0.03 * torch.randn(shape, generator=generator)).clamp(0, 1)


def noise(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def signs():
    return data.load("signs", "test", 20)[0]


KINDS = {
    "signs": signs,
    "gray signs": lambda: signs().mean(1, keepdim=True),
    "natural": lambda: natural(6, 3, 48, 48),
    "natural, odd": lambda: natural(6, 3, 37, 53),
    "noise": lambda: noise(12, 3, 32, 32),
    "noise, odd": lambda: noise(12, 3, 33, 19),
    "noise, even but no whole block": lambda: noise(12, 3, 22, 14),
    "gray noise, odd": lambda: noise(20, 1, 21, 13),
    "few columns": lambda: noise(30, 3, 9, 3),
}


def through_pillow(x, quality):
    results = []
    for image in (x * 255).round().to(torch.uint8):
        file = io.BytesIO()
        array = image.permute(1, 2, 0).numpy()
        Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array).save(file, "JPEG", quality=quality)
        results.append(torch.from_numpy(np.array(Image.open(file))).reshape(array.shape).permute(2, 0, 1))
    return torch.stack(results) / 255


def levels_apart(a, b):
    return 255 * (a - b).abs().mean().item()


@pytest.mark.parametrize("quality", [1, *QUALITIES, 100])
@pytest.mark.parametrize("kind", ["signs", "gray signs", "natural, odd", "few columns"])
def test_the_codec_is_libjpegs(kind, quality):
    x = KINDS[kind]()
    assert torch.equal(JPEG(INNER, quality).transform(x), through_pillow(x, quality))


def test_chroma_is_coded_at_half_the_size():
    """The frame header of torchvision's files: component 1 is sampled 2 × 2, the others 1 × 1."""
    file = encode_jpeg(torch.zeros(3, 20, 20, dtype=torch.uint8), 95).numpy().tobytes()
    at = file.index(b"\xff\xc0")
    assert [file[at + 11 + 3 * k] for k in range(3)] == [0x22, 0x11, 0x11]


@pytest.mark.parametrize("quality", QUALITIES)
@pytest.mark.parametrize("kind", KINDS)
def test_the_differentiable_one_computes_what_the_codec_does(kind, quality):
    x = KINDS[kind]()
    assert levels_apart(DifferentiableJPEG(INNER, quality).transform(x), through_pillow(x, quality)) < 0.5


@pytest.mark.parametrize("height", [1, 2, 3, 8, 15, 16, 17, 18])
@pytest.mark.parametrize("width", [1, 2, 4, 5, 6, 16, 17, 26])
def test_any_size(height, width):
    x = noise(8, 3, height, width)
    assert levels_apart(DifferentiableJPEG(INNER, 90).transform(x), through_pillow(x, 90)) < 1


def test_most_pixels_are_equal():
    for quality, share in ((10, 0.98), (50, 0.93), (95, 0.75)):
        same = DifferentiableJPEG(INNER, quality).transform(signs()) == JPEG(INNER, quality).transform(signs())
        assert same.double().mean() > share


@pytest.mark.parametrize("make", [JPEG, DifferentiableJPEG])
def test_quality_is_what_it_says(make):
    x = natural(3, 3, 40, 40)
    apart = [levels_apart(make(INNER, quality).transform(x), x) for quality in (1, *QUALITIES, 100)]
    assert apart == sorted(apart, reverse=True)
    assert apart[0] > 15
    assert apart[-1] < 8  # chroma's half size remains


@pytest.mark.parametrize("make", [JPEG, DifferentiableJPEG])
@pytest.mark.parametrize("color", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (0.2, 0.5, 0.8)], ids=str)
def test_colors_stay(make, color):
    x = torch.tensor(color, dtype=torch.float64).reshape(1, 3, 1, 1).expand(2, 3, 24, 17)
    assert (make(INNER, 95).transform(x) - x).abs().max() < 3 / 255


@pytest.mark.parametrize("make", [JPEG, DifferentiableJPEG])
def test_results_have_eight_bits(make):
    z = make(INNER, 60).transform(noise(3, 3, 16, 16).double()) * 255
    assert (z - z.round()).abs().max() < 1e-9


def test_single_and_double_agree():
    x = signs()
    apart = DifferentiableJPEG(INNER, 75).transform(x).double() - DifferentiableJPEG(INNER, 75).transform(x.double())
    assert 255 * apart.abs().mean() < 0.02


def test_cosines_are_scipys():
    blocks = noise(5, 8, 8).double()
    matrix = _codec.cosines().double()
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(64, dtype=torch.float64), atol=1e-6, rtol=0)
    expected = np.stack([dctn(block, norm="ortho") for block in blocks.numpy()])
    np.testing.assert_allclose((blocks.reshape(5, 64) @ matrix.T).reshape(5, 8, 8), expected, atol=1e-6)


@pytest.mark.parametrize("quality", [1, 2, 25, 49, 50, 51, 75, 99, 100])
def test_tables_are_those_in_the_file(quality):
    """As Pillow reads them from torchvision's file."""
    coded = encode_jpeg(torch.zeros(3, 8, 8, dtype=torch.uint8), quality).numpy().tobytes()
    with Image.open(io.BytesIO(coded)) as file:
        luma, chroma = file.quantization[0], file.quantization[1]
    assert _codec.quality_table(_codec.LUMA, quality).tolist() == list(luma)
    assert _codec.quality_table(_codec.CHROMA, quality).tolist() == list(chroma)


def test_colors_turn_as_in_pillow():
    rgb = (noise(1, 3, 64, 64) * 255).round()
    array = rgb[0].permute(1, 2, 0).byte().numpy()
    there = torch.from_numpy(np.array(Image.fromarray(array).convert("YCbCr"))).permute(2, 0, 1)[None].float()
    assert (_codec.to_ycc(rgb) - there).abs().max() <= 1  # Pillow's own conversion rounds a little otherwise
    back = torch.from_numpy(np.array(Image.fromarray(there[0].permute(1, 2, 0).byte().numpy(), "YCbCr").convert("RGB")))
    assert (_codec.from_ycc(there[:, :1], there[:, 1:]) - back.permute(2, 0, 1)).abs().max() <= 1
    blue = _codec.to_ycc(torch.tensor([0.0, 0.0, 255.0]).reshape(1, 3, 1, 1)).flatten()
    assert blue.tolist() == [29, 255, 107]  # blueness, then redness


def test_the_real_one_is_cut_off_from_autograd():
    x = signs()[:4].requires_grad_()
    z = JPEG(INNER).transform(x)
    assert not z.requires_grad


def test_backward_is_the_slope_without_rounding(monkeypatch):
    """Rounding taken out, forward is smooth and gradcheck sees it; backward is the same with rounding and without."""
    x = (0.35 + 0.3 * noise(1, 3, 10, 6).double()).requires_grad_()
    gray = (0.35 + 0.3 * noise(1, 1, 9, 5).double()).requires_grad_()
    defense = DifferentiableJPEG(INNER, 90).double()
    weight = noise(1, 3, 10, 6, seed=1).double()
    exact, = torch.autograd.grad((defense.transform(x) * weight).sum(), x)
    assert exact.abs().min() > 0

    def smooth(value, slope):
        return slope

    monkeypatch.setattr("robustness_lib.defenses.jpeg.straight_through", smooth)
    monkeypatch.setattr("robustness_lib.defenses._codec.straight_through", smooth)
    monkeypatch.setattr("robustness_lib.straight_through.straight_through", smooth)
    monkeypatch.setattr("robustness_lib.defenses._codec.rounded", lambda z, half=0.5: z)
    assert torch.autograd.gradcheck(defense.transform, (x,), fast_mode=True)
    assert torch.autograd.gradcheck(defense.transform, (gray,), fast_mode=True)
    without, = torch.autograd.grad((defense.transform(x) * weight).sum(), x)
    torch.testing.assert_close(exact, without)


@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("channels", [1, 3])
def test_white_and_black_keep_their_gradient(value, channels):
    x = torch.full((1, channels, 16, 24), value).requires_grad_()
    gradient, = torch.autograd.grad(DifferentiableJPEG(INNER, 75).transform(x).sum(), x)
    assert abs(gradient.sum().item() - x.numel()) < 0.01


def test_the_gradient_is_of_use():
    """PGD through the differentiable one raises the loss of the model behind the real codec."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(192, 10)).eval()
    x, y = 0.2 + 0.6 * natural(8, 3, 32, 32), torch.zeros(8, dtype=torch.int64)
    attack = PGD(ThreatModel("linf", 8 / 255), steps=5, stop="never", random_start=False)
    x_adv = attack(DifferentiableJPEG(model, 50), x, y)
    loss = nn.CrossEntropyLoss()
    real = JPEG(model, 50)
    plain = attack(model, x, y)
    gained, most = (loss(real(z), y) - loss(real(x), y) for z in (x_adv, plain))
    assert gained > 0.9 * most > 0


@pytest.mark.parametrize("make", [JPEG, DifferentiableJPEG])
def test_wrong_settings_are_refused(make):
    for quality in (0, 101, -5):
        with pytest.raises(ValueError, match=f"quality must lie in 1 ... 100, as libjpeg counts it; found {quality}"):
            make(INNER, quality)
    for quality in (0.75, "75", True):
        with pytest.raises(TypeError, match="quality must be a whole number"):
            make(INNER, quality)
    for channels in (2, 4):
        with pytest.raises(ValueError, match=r"1 channel \(gray\) or 3 .*found shape"):
            make(INNER).transform(torch.rand(2, channels, 8, 8))
