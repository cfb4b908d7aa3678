"""What callers give by mistake: each has its own sentence, and the line of code in it mends the mistake."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from robustness_lib import ThreatModel
from robustness_lib.attacks import PGD
from robustness_lib.attacks.ensemble_run import StepFailed
from robustness_lib.evaluation import evaluate
from robustness_lib.inputs import check_images, check_labels, check_logits, clamped_rows

LINF = ThreatModel("linf", 0.01)
GENERATOR = torch.Generator().manual_seed(0)
X = torch.rand((6, 3, 8, 9), generator=GENERATOR)
BYTES = (X * 255).round().to(torch.uint8)
Y = torch.tensor([0, 1, 2, 2, 1, 0])


def said(check, *arguments) -> str:
    with pytest.raises((TypeError, ValueError)) as caught:
        check(*arguments)
    return str(caught.value)


def mended(check, name: str, given, code: str, *others):
    """What the line of code, which the sentence has in it, makes of what was given."""
    assert code in said(check, given, *others)
    return eval(code, {name: given, "torch": torch, "numpy": np, "torchvision": torchvision})


# Images a little outside the box.


@pytest.mark.parametrize(("out", "rows"), [([(1, 1.0000001)], [1]), ([(2, -3e-8)], [2]),
                                           ([(0, 1 + 9e-7), (5, -9e-7)], [0, 5])])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rounding_is_clamped_in_a_copy(out, rows, dtype) -> None:
    x = X.to(dtype, copy=True)
    for row, value in out:
        x[row, 0, 0, 0] = value
    before = x.clone()
    checked = check_images(x)
    assert torch.equal(x, before)
    assert torch.equal(checked, x.clamp(0, 1))
    assert clamped_rows(x, checked) == rows


def test_a_normalization_undone_is_no_error() -> None:
    """As torchvision's users undo it: by another Normalize."""
    mean, std = torch.tensor((0.485, 0.456, 0.406)), torch.tensor((0.229, 0.224, 0.225))
    there, back = (torchvision.transforms.Normalize(*both) for both in ((mean, std), (-mean / std, 1 / std)))
    x = back(there(X.round()))
    assert x.min() < 0 or x.max() > 1
    assert torch.equal(check_images(x), x.clamp(0, 1))


def test_images_in_the_box_are_handed_back_themselves() -> None:
    assert check_images(X) is X
    assert clamped_rows(X, X) == []
    empty = X[:0]
    assert check_images(empty) is empty


@pytest.mark.parametrize(("given", "words", "code"), [
    (X + 2e-3, "right scale", "x.clamp(0, 1)"),
    (X * 1.02 - 0.01, "right scale", "x.clamp(0, 1)"),
    (X * 255, "from 0 to 255", "x / 255"),
    ((X * 255).round(), "from 0 to 255", "x / 255"),
    (X * 262 - 4, "from 0 to 255", "x / 255"),
    (X * 2 - 1, "scale from −1 to 1", "(x + 1) / 2"),
    (X - 0.5, "scale from −0.5 to 0.5", "x + 0.5"),
    ((X * 16).round(), "whole numbers", "x / 16"),
    (X * 4095, "more than 8 bits", "x / 4095"),
    (X * 65535, "more than 8 bits", "x / 65535"),
])
def test_images_on_another_scale_get_the_line_that_brings_them_back(given, words: str, code: str) -> None:
    assert words in said(check_images, given)
    assert (mended(check_images, "x", given, code).clamp(0, 1) - X).abs().max() < 0.04


@pytest.mark.parametrize(("given", "words"), [
    (X * 4.7 - 2.1, "normalization outside the model"),
    (X * 4.3, "normalization outside the model"),
    (X * 255 - 110, "with a mean taken away"),
    (X.log(), "infinities|normalization outside"),
    (X / 0, "infinities|NaN"),
])
def test_images_that_no_line_brings_back_get_the_likely_cause(given, words: str) -> None:
    assert re.search(words, said(check_images, given))


def test_the_values_found_are_shown_to_be_outside() -> None:
    x = X.clone()
    x[0, 0, 0, 0] = 1.000002
    x[0, 0, 0, 1] = -2e-6
    assert re.search(r"from -2e-06 to 1\.0000\d+\. That is the right scale", said(check_images, x))


# Images of another type.


@pytest.mark.parametrize(("given", "code"), [
    (BYTES.numpy(), "torch.from_numpy(x) / 255"),
    (BYTES.movedim(1, -1).numpy(), "torch.from_numpy(x).permute(0, 3, 1, 2) / 255"),
    (X.numpy(), "torch.from_numpy(x)"),
    (X.double().numpy(), "torch.from_numpy(x).float()"),
    (list(X), "torch.stack(list(x))"),
    (list(X.numpy()), "torch.from_numpy(numpy.stack(x))"),
    (list(BYTES.numpy()), "torch.from_numpy(numpy.stack(x)) / 255"),
    (X.tolist(), "torch.tensor(x)"),
    (X.half(), "x.float()"), (X.bfloat16(), "x.float()"),
    ([Image.fromarray(image.movedim(0, -1).numpy()) for image in BYTES],
     "torch.stack([torchvision.transforms.functional.to_tensor(image) for image in x])"),
    (Image.fromarray(BYTES[0].movedim(0, -1).numpy()), "torchvision.transforms.functional.to_tensor(x)[None]"),
], ids=["bytes", "channels last", "array", "float64", "tensors", "arrays", "arrays of bytes", "numbers", "half",
        "bfloat16", "PIL", "one PIL"])
def test_images_of_another_type_get_the_line_that_makes_them_usable(given, code: str) -> None:
    made = mended(check_images, "x", given, code)
    assert made.dtype == torch.float32
    assert (check_images(made) - X[:len(made)]).abs().max() < 0.01


@pytest.mark.parametrize(("given", "words"), [
    (BYTES, "Divide 8-bit images by 255"), (BYTES.long(), "Divide 8-bit images by 255"),
    (BYTES.int() * 16, "x / 4095"), (BYTES.int() * 257, "x / 65535"),
    (X.round().bool(), "x.float() is on the right scale"), (X.round().int(), "x.float() is on the right scale"),
    (X + 0j, "found torch.complex64"),
])
def test_whole_numbers_are_told_their_scale(given, words: str) -> None:
    assert words in said(check_images, given)


def test_lists_of_images_of_several_sizes_are_named() -> None:
    assert r"several shapes, (3, 8, 9) and (3, 8, 8)" in said(check_images, [X[0], X[1, :, :, :8]])


def test_one_point_gets_its_axis() -> None:
    assert mended(check_images, "x", X[0, 0, 0], "x[None]").shape == (1, 9)


# Labels.


ONE_HOT = torch.nn.functional.one_hot(Y)


@pytest.mark.parametrize(("given", "code"), [
    (Y.tolist(), "torch.tensor(y)"), (Y.numpy(), "torch.from_numpy(y)"),
    (Y.int().numpy(), "torch.from_numpy(y).long()"), (Y.float(), "y.long()"),
    (Y.double().numpy(), "torch.from_numpy(y).long()"), (Y.int(), "y.long()"),
    (Y.to(torch.uint8), "y.long()"), (Y[:, None], "y[:, 0]"), (Y.float()[:, None], "y[:, 0].long()"),
    (ONE_HOT, "y.argmax(1)"), (ONE_HOT.float(), "y.argmax(1)"), (ONE_HOT.bool(), "y.int().argmax(1)"),
    (ONE_HOT * 0.9 + 0.1 / 3, "y.argmax(1)"), (list(Y), "torch.tensor(y)"), (tuple(Y.tolist()), "torch.tensor(y)"),
])
def test_labels_get_the_line_that_makes_them_usable(given, code: str) -> None:
    made = mended(check_labels, "y", given, code, X)
    assert torch.equal(made, Y)


@pytest.mark.parametrize(("given", "x", "words"), [
    (torch.tensor([[0, 1, 1]] * 6), X, "several classes for one image"),
    (torch.zeros(6, 4), X, "several classes for one image, or none"),
    (Y + 0.25, X, r"numbers such as 0\.25: those of a regression"),
    (Y.repeat(2), X, "There are 12 labels for 6 images"),
    (Y[:4], X, "There are 4 labels for 6 images"),
    (torch.tensor(2), X[0], r"x\[None\] and y\[None\]"),
    (torch.tensor([2]), X[0], r"batch axis: x\[None\]"),
    (torch.zeros((6, 8, 9), dtype=torch.int64), X, "segmentation"),
    (torch.stack([Y == Y, Y == Y], 1), X, "several classes for one image"),
    (3, X[:1], r"torch.tensor\(\[y\]\)"),
    (["cat", "dog"], X, "labels are class numbers"),
    (None, X, "found NoneType"),
])
def test_labels_that_no_line_mends_are_told_what_they_are(given, x, words: str) -> None:
    assert re.search(words, said(check_labels, given, x))


@pytest.mark.parametrize(("given", "words"), [
    (Y - 1, r"found -1 to 1; the first such is -1, of image 0\. Negative numbers often mark"),
    (torch.where(Y == 1, -100, Y), "the first such is -100, of image 1"),
    (Y + 1, r"found 1 to 3; the first such is 3, of image 2\. Where labels begin at 1, take 1 off: y - 1"),
    (Y * 2, "the first such is 4, of image 2.*fewer outputs"),
])
def test_labels_out_of_range_are_named_with_their_place(given, words: str) -> None:
    assert re.search(words, said(check_logits, torch.zeros(6, 3), X, (given,)))


@pytest.mark.parametrize(("given", "words"), [
    (torch.empty(4, 0), r"no values: their shape is \(4, 0\)"),
    (torch.empty(4, 3, 0, 8), r"no values: their shape is \(4, 3, 0, 8\)"),
    (X.to_sparse(), r"found torch.sparse_coo. x.to_dense\(\) makes one"),
    (X[:, 0, 0].to_sparse_csr(), r"found torch.sparse_csr. x.to_dense\(\)"),
    (X.to_mkldnn(), r"found torch._mkldnn. x.to_dense\(\)"),
    (torch.nested.nested_tensor([X[0], X[1, :, :4]]), "found a nested one"),
    (X.to("meta"), "on the meta device"),
])
def test_images_without_values_side_by_side_are_said(given, words: str) -> None:
    assert re.search(words, said(check_images, given))
    labels = torch.zeros(len(given) if not given.is_nested else 2, dtype=torch.int64)
    for ask in (lambda: PGD(LINF, steps=1).run(lambda x: x.flatten(1)[:, :3], given, labels),
                lambda: evaluate(lambda x: x.flatten(1)[:, :3], given, labels, LINF, "quick")):
        with pytest.raises((TypeError, ValueError), match=words):
            ask()


def test_no_images_at_all_are_no_error() -> None:
    assert len(check_images(torch.empty(0, 0))) == 0
    assert len(check_images(X[:0])) == 0


def test_sparse_labels_and_logits_are_said() -> None:
    assert "y.to_dense()" in said(check_labels, Y.to_sparse(), X)
    assert "logits.to_dense()" in said(check_logits, torch.rand(6, 3).to_sparse(), X, (Y,))


def test_complex_logits_have_their_own_sentence() -> None:
    words = said(check_logits, torch.zeros(6, 3, dtype=torch.complex64), X, (Y,))
    assert "must return real logits" in words
    assert "decisions" not in words


@pytest.mark.parametrize("error", [AssertionError(), RuntimeError(""), ValueError(" ")])
def test_an_error_without_words_is_named_with_its_place(error: Exception) -> None:
    def model(x):
        if (x[:, 0, 0, 0] > 0.9).any():
            raise error
        return x.flatten(1)[:, :3]

    x = X * 0.8
    x[3, 0, 0, 0] = 0.99
    (failure,) = evaluate(model, x, Y, ThreatModel("linf", 1e-4), "quick").failures
    assert (failure.first, failure.last) == (3, 3)
    assert re.fullmatch(rf"{type(error).__name__} \(.*test_inputs.py, line \d+\)", failure.error)
    assert str(StepFailed("clean", error)) == f"clean: {failure.error}"
