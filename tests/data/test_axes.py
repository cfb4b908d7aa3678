"""Which axis of an array holds the channels: told plainly, or refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from robustness_lib import ThreatModel
from robustness_lib.attacks import PGD
from robustness_lib.data import find_data

RNG = np.random.default_rng(0)


def save(path: Path, shape: tuple[int, ...], dtype: str = "uint8", **more: object) -> tuple[Path, np.ndarray]:
    images = RNG.integers(0, 256, shape, dtype=np.uint8)
    images = images if dtype == "uint8" else (images / 255).astype(dtype)
    np.savez(path / "val.npz", images=images, labels=np.arange(shape[0]) % 2, **more)
    return path / "val.npz", images


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize(("shape", "channels", "gives"), [
    ((4, 13, 16, 16), 1, (13, 16, 16)), ((4, 16, 16, 13), 3, (13, 16, 16)), ((4, 2, 9, 8), 1, (2, 9, 8)),
    ((4, 9, 8, 2), 3, (2, 9, 8)), ((4, 6, 5, 3), 3, (3, 6, 5)), ((4, 1, 2, 2), 1, (1, 2, 2)),
    ((4, 12, 64, 48), 1, (12, 64, 48)), ((4, 5, 8, 8, 3), 4, (3, 5, 8, 8)), ((4, 3, 5, 8, 8), 1, (3, 5, 8, 8)),
    ((4, 5, 3, 8, 8), 2, (3, 5, 8, 8)), ((4, 1, 6, 6, 6), 1, (1, 6, 6, 6)), ((4, 2, 128), 1, (2, 128)),
    ((4, 12, 1000), 1, (12, 1000)), ((4, 1, 784), 1, (1, 784)), ((4, 128, 9), 2, (9, 128)),
])
def test_the_lengths_say_where_the_channels_are(shape: tuple[int, ...], channels: int, gives: tuple[int, ...],
                                                dtype: str, tmp_path: Path) -> None:
    path, images = save(tmp_path, shape, dtype)
    said: list[str] = []
    x, _, _ = find_data(path, say=said.append)
    assert tuple(x.shape[1:]) == gives
    expected = np.moveaxis(images, channels, 1).astype(np.float32) / (255 if dtype == "uint8" else 1)
    assert torch.equal(x, torch.from_numpy(np.ascontiguousarray(expected)))
    assert x.is_contiguous()
    unusual = len(gives) != 3 or gives[0] not in (1, 3)
    channels_said = "1 channel," if gives[0] == 1 else f"{gives[0]} channels,"
    assert [channels_said in sentence for sentence in said] == [True] * unusual


@pytest.mark.parametrize("shape", [(4, 28, 28), (4, 8, 8), (4, 62, 47), (4, 5, 6), (4, 1, 1)])
def test_grey_images_are_no_signals(shape: tuple[int, ...], tmp_path: Path) -> None:
    assert find_data(save(tmp_path, shape, "float32")[0])[0].shape == (4, 1, *shape[1:])


@pytest.mark.parametrize(("shape", "taken", "other"), [
    ((4, 28, 112), "NCL", "NHW"), ((4, 112, 28), "NLC", "NHW"), ((4, 1, 784), "NCL", "NHW"),
    ((4, 62, 47), "NHW", "NCL"),
    ((4, 9, 60), "NCL", "NHW"), ((4, 33, 140), "NHW", "NCL"), ((4, 5, 6), "NHW", "NCL"),
    ((4, 13, 16, 16), "NCHW", "NHWC"), ((4, 16, 16, 13), "NHWC", "NCHW"), ((4, 5, 8, 8, 3), "NTHWC", "NTCHW"),
])
def test_what_may_be_another_thing_is_said_with_what_it_may_be(shape: tuple[int, ...], taken: str, other: str,
                                                               tmp_path: Path) -> None:
    said: list[str] = []
    find_data(save(tmp_path, shape)[0], say=said.append)
    assert len(said) == 1
    assert f"val.npz is taken as {taken} {shape}" in said[0]
    assert f'np.savez(..., axes="{other}")' in said[0]
    path, _ = save(tmp_path, shape, axes=other)  # and so it can be said
    find_data(path, say=said.append)
    assert len(said) == 1


@pytest.mark.parametrize("shape", [(4, 28, 28), (4, 3, 6, 5), (4, 6, 5, 1), (4, 7)])
def test_what_nobody_takes_for_another_thing_needs_no_word(shape: tuple[int, ...], tmp_path: Path) -> None:
    said: list[str] = []
    find_data(save(tmp_path, shape)[0], say=said.append)
    assert said == []


def test_a_wide_grey_image_that_was_taken_for_a_signal_is_said_where_the_model_refuses_it(tmp_path: Path) -> None:
    x, y, _ = find_data(save(tmp_path, (4, 28, 112))[0])
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.Flatten(), torch.nn.LazyLinear(2))
    model(x[:, None])
    with pytest.raises(ValueError, match=r'grey \(1 channel; in a file of data, np\.savez\(.*axes="NHW"\)\): x\['):
        PGD(ThreatModel("linf", 0.1), steps=1)(model, x, y)


@pytest.mark.parametrize("shape", [
    (4, 3, 8, 3), (4, 2, 2, 2), (4, 13, 13, 13), (4, 64, 8, 8), (4, 40, 50, 60), (4, 7, 5, 7), (4, 4, 8, 8),
    (4, 8, 8, 4), (4, 3, 5), (4, 9, 4), (4, 5, 6, 7, 8), (4, 3, 3, 8, 8), (4, 3, 8, 8, 3), (4, 2, 5, 8, 8),
])
def test_what_nobody_can_tell_is_refused_until_the_file_says_it(shape: tuple[int, ...], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"(nobody can tell|drop the fourth).*np\.savez\(\.\.\., axes="):
        find_data(save(tmp_path, shape)[0])
    for axes in {3: ("NCL", "nlc"), 4: ("NCHW", "NHWC"), 5: ("NCTHW", "NTHWC", "NTCHW")}[len(shape)]:
        path, images = save(tmp_path, shape, axes=axes)
        x = find_data(path)[0]
        expected = np.moveaxis(images, axes.upper().index("C"), 1).astype(np.float32) / 255
        assert torch.equal(x, torch.from_numpy(np.ascontiguousarray(expected)))


@pytest.mark.parametrize(("axes", "words"), [("NXYZ", "axes must be one of"), ("NCHW", "axes says NCHW.*3 axes"),
                                             (np.array(["N", "H"]), "axes must be one of"), (3, "axes must be one of")])
def test_axes_that_cannot_be_meant(axes: object, words: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=words):
        find_data(save(tmp_path, (4, 9, 9), axes=axes)[0])
