"""The sets of others: small stand-ins made here, and (marked reference) the real ones."""

from __future__ import annotations

import gzip
import shutil
import struct
import time
import urllib.error
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets
from typer.testing import CliRunner

from robustness_lib import data
from robustness_lib.cli import app
from robustness_lib.data import _gtsrb_files, real

SIZES = {  # train, validation, test in the folder of real data
    "mnist": ((1, 28, 28), (54_001, 5_999, 10_000)),
    "cifar10": ((3, 32, 32), (35_999, 4_001, 1_000)),
    "gtsrb": ((3, 32, 32), (11_740, 1_330, 6_000)),
}


def _write_npz(folder: Path, name: str, n: int = 100) -> np.ndarray:
    folder.mkdir(parents=True, exist_ok=True)
    images = np.random.default_rng(0).integers(0, 256, (n, 3, 32, 32), dtype=np.uint8)
    for part in ("train", "test"):
        np.savez(folder / f"{name}-{part}.npz", images=images, labels=np.arange(n) % 10, tracks=np.arange(n) // 20)
    return images


def _write_idx(folder: Path, n: int = 40) -> np.ndarray:
    folder.mkdir(parents=True, exist_ok=True)
    images = np.random.default_rng(1).integers(0, 256, (n, 28, 28), dtype=np.uint8)
    for prefix in ("train", "t10k"):
        head = struct.pack(">BBBBIII", 0, 0, 8, 3, n, 28, 28)
        (folder / f"{prefix}-images-idx3-ubyte.gz").write_bytes(gzip.compress(head + images.tobytes()))
        labels = (np.arange(n) % 10).astype(np.uint8)
        head = struct.pack(">BBBBI", 0, 0, 8, 1, n)
        (folder / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(head + labels.tobytes()))
    return images


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*args: object, **options: object) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setattr("urllib.request.urlopen", refused)


def test_a_kept_file_is_read(cache: Path) -> None:
    images = _write_npz(cache, "cifar10")
    x, y, classes = data.load("cifar10", "test", n=12)
    assert (x.shape, x.dtype, y.dtype) == ((12, 3, 32, 32), torch.float32, torch.int64)
    assert torch.equal(x, torch.from_numpy(images[:12]) / 255)
    assert y.tolist() == [k % 10 for k in range(12)]
    assert classes[3] == "cat"


def test_named_data_are_read_before_the_cache(
        cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write_npz(cache, "cifar10", n=50)
    _write_npz(tmp_path / "data", "cifar10", n=70)
    assert len(data.load("cifar10")[0]) == 50
    monkeypatch.setenv("ROBUSTNESS_DATA", str(tmp_path / "data"))
    assert len(data.load("cifar10")[0]) == 70


def test_train_and_validation_share_no_image_and_leave_none_out(cache: Path) -> None:
    images = _write_npz(cache, "cifar10")
    train, y_train, _ = data.load("cifar10", "train")
    validation, y_validation, _ = data.load("cifar10", "validation")
    assert y_validation.bincount().tolist() == [1] * 10
    assert y_train.bincount().tolist() == [9] * 10
    found = {tuple(row.flatten().tolist()) for row in (torch.cat([train, validation]) * 255).round().int()}
    assert found == {tuple(row.flatten().tolist()) for row in images.astype(int)}


@pytest.mark.parametrize(("name", "folder"), [("mnist", "MNIST"), ("fashion-mnist", "FashionMNIST")])
def test_the_original_files_are_read_where_they_lie(
        tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, name: str, folder: str) -> None:
    images = _write_idx(tmp_path / "data" / folder / "raw")
    monkeypatch.setenv("ROBUSTNESS_DATA", str(tmp_path / "data"))
    before = sorted(tmp_path.rglob("*"))
    x, y, _ = data.load(name, "test")
    assert torch.equal(x[:, 0], torch.from_numpy(images) / 255)
    assert y.tolist() == [k % 10 for k in range(40)]
    assert sorted(tmp_path.rglob("*")) == before


def test_a_broken_original_file_is_named(cache: Path) -> None:
    _write_idx(cache / "MNIST" / "raw")
    path = cache / "MNIST" / "raw" / "t10k-images-idx3-ubyte.gz"
    whole = path.read_bytes()
    for wrong in (whole[:500], b"", gzip.compress(b"not idx"), gzip.compress(gzip.decompress(whole)[:-9])):
        path.write_bytes(wrong)
        with pytest.raises(ValueError, match=f"{path} is damaged"):
            data.load("mnist", "test")


def test_a_broken_kept_file_is_named_and_left_alone(cache: Path) -> None:
    _write_npz(cache, "cifar10")
    path = cache / "cifar10-test.npz"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match=f"{path} is damaged.*Delete it"):
        data.load("cifar10")
    assert path.stat().st_size == 1000


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("name", list(real.SOURCES))
def test_without_a_file_and_a_network_the_error_says_what_to_do(cache: Path, name: str) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        data.load(name, "validation")
    message = str(caught.value)
    assert f"{name} is not here" in message
    assert str(cache / f"{name}-train.npz") in message
    assert f"robustness data fetch {name}" in message
    assert "ROBUSTNESS_DATA" in message


@pytest.mark.usefixtures("no_network")
def test_the_command_says_so_too_and_fails(cache: Path) -> None:
    result = CliRunner().invoke(app, ["data", "fetch", "cifar10"])
    assert result.exit_code == 2
    assert "downloading it failed" in result.output


def test_a_download_is_kept_and_not_repeated(
        cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Downloaded:
        def __init__(self, root: Path, train: bool, download: bool) -> None:
            assert download
            self.data = np.full((20, 32, 32, 3), [1, 2, 3], dtype=np.uint8)  # torchvision's order: N, H, W, C
            self.targets = [k % 10 for k in range(20)]

    with monkeypatch.context() as patch:
        patch.setattr(datasets, "CIFAR10", Downloaded)
        result = CliRunner().invoke(app, ["data", "fetch", "cifar10"])
    assert result.exit_code == 0
    assert result.output.split() == [str(cache / f"cifar10-{part}.npz") for part in ("train", "test")]
    monkeypatch.setattr(datasets, "CIFAR10", None)
    assert CliRunner().invoke(app, ["data", "fetch", "cifar10"]).exit_code == 0
    x, y, _ = data.load("cifar10")
    colour = torch.tensor([1, 2, 3], dtype=torch.int32)[:, None, None]
    assert torch.equal((x * 255).round().int(), colour.expand(20, 3, 32, 32))
    assert y.tolist() == [k % 10 for k in range(20)]


@pytest.fixture
def photographs(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """GTSRB as torchvision unpacks it: 3 classes of 4 tracks of 2 frames, and 5 test photographs."""
    folder = cache / "downloads" / "gtsrb"
    train, test = folder / "GTSRB" / "Training", folder / "GTSRB" / "Final_Test" / "Images"
    for label in range(3):
        (train / f"{label:05d}").mkdir(parents=True)
        for track in range(4):
            for frame in range(2):
                image = Image.new("RGB", (20 + 9 * track, 41), (80 * label, 10 * track, frame))
                image.save(train / f"{label:05d}" / f"{track:05d}_{frame:05d}.ppm")
    test.mkdir(parents=True)
    lines = ["Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId"]
    for k in range(5):
        Image.new("RGB", (25, 60), (k, 0, 0)).save(test / f"{k:05d}.ppm")
        lines.append(f"{k:05d}.ppm;25;60;0;0;1;1;{40 + k % 3}")
    (folder / "GT-final_test.csv").write_text("\n".join(lines))
    monkeypatch.setattr(_gtsrb_files, "TRAIN_PHOTOGRAPHS", 24)
    return folder


def test_gtsrb_is_packed_with_its_tracks(photographs: Path, cache: Path) -> None:
    x, y, classes = data.load("gtsrb", "test")
    assert x.shape == (5, 3, 32, 32)
    assert (x[:, 0, 0, 0] * 255).round().tolist() == [0, 1, 2, 3, 4]
    assert [classes[label] for label in y[:2]] == ["roundabout", "end of no overtaking"]
    assert len(classes) == 43
    train, y_train, _ = data.load("gtsrb", "train")
    validation, y_validation, _ = data.load("gtsrb", "validation")
    assert sorted(y_validation.tolist()) == [0, 0, 1, 1, 2, 2]  # one track of four, both frames
    assert len(train) == 18

    def tracks(x: torch.Tensor, y: torch.Tensor) -> set[tuple[int, int]]:
        return set(zip(y.tolist(), (x[:, 1, 0, 0] * 25.5).round().int().tolist(), strict=True))

    assert not tracks(train, y_train) & tracks(validation, y_validation)
    assert y_train.tolist() != sorted(y_train.tolist())
    with np.load(cache / "gtsrb-train.npz", allow_pickle=False) as kept:
        assert kept["tracks"].tolist() == [0, 0, 1, 1, 2, 2, 3, 3] * 3


def test_shrinking_a_photograph_does_not_alias() -> None:
    stripes = np.zeros((128, 128, 3), dtype=np.uint8)
    stripes[:, ::2] = 200
    small = _gtsrb_files._small(Image.fromarray(stripes))
    assert (small.shape, small.dtype) == ((3, 32, 32), np.uint8)
    assert abs(small.astype(int) - 100).max() < 15


def test_an_interrupted_unpacking_is_noticed(photographs: Path) -> None:
    next(photographs.rglob("Training/*/*.ppm")).unlink()
    with pytest.raises(FileNotFoundError, match="23 photographs of 24"):
        data.load("gtsrb", "train")


# The real sets

@pytest.mark.reference
@pytest.mark.parametrize("name", list(SIZES))
def test_real_sets(real_data: Path, name: str) -> None:
    shape, sizes = SIZES[name]
    counts = {}
    for split, size in zip(data.SPLITS, sizes, strict=True):
        x, y, classes = data.load(name, split)
        assert (x.shape, x.dtype, y.shape, y.dtype) == ((size, *shape), torch.float32, (size,), torch.int64)
        assert 0 <= x.min() < 0.1 < 0.9 < x.max() <= 1
        counts[split] = y.bincount(minlength=len(classes)).double()
        assert counts[split].min() > 0
    if name != "gtsrb":  # whose tracks are few: there a class's share is rounded to whole tracks
        tenth = (counts["train"] + counts["validation"]) / 10
        assert (counts["validation"] - tenth).abs().max() <= 0.5


@pytest.mark.reference
def test_real_tracks_are_not_shared(real_data: Path) -> None:
    with np.load(real_data / "gtsrb-train.npz", allow_pickle=False) as file:
        images, labels, tracks = file["images"], file["labels"], file["tracks"]
    track_of = {image.tobytes(): (int(label), int(track))
                for image, label, track in zip(images, labels, tracks, strict=True)}
    sides = [{track_of[(image * 255).round().byte().numpy().tobytes()] for image in data.load("gtsrb", split)[0]}
             for split in ("train", "validation")]
    assert not sides[0] & sides[1]
    assert len(sides[0] | sides[1]) == len(set(track_of.values()))


@pytest.mark.reference
def test_mnist_through_torchvision_is_mnist_read_here(
        real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The way of a user who downloads, on the original files: torchvision checks and unpacks them."""
    here = data.load("mnist", "test")
    raw = tmp_path / "cache" / "downloads" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for path in (real_data / "MNIST" / "raw").glob("*.gz"):
        shutil.copyfile(path, raw / path.name)
    monkeypatch.delenv("ROBUSTNESS_DATA")
    for _ in range(2):  # downloaded, then kept
        x, y, _ = data.load("mnist", "test")
        assert torch.equal(x, here[0])
        assert torch.equal(y, here[1])
        monkeypatch.setattr(datasets, "MNIST", None)
    assert (tmp_path / "cache" / "mnist-test.npz").exists()
    assert y[:5].tolist() == [7, 2, 1, 0, 4]


@pytest.mark.reference
def test_a_few_images_load_at_once(real_data: Path) -> None:
    started = time.process_time()
    x, _, _ = data.load("mnist", "test", n=100)
    assert len(x) == 100
    assert time.process_time() - started < 1


@pytest.mark.usefixtures("no_network")
def test_what_is_here_is_not_fetched_again_and_what_is_damaged_is_named(
        cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _write_npz(cache, "cifar10")
    (elsewhere := tmp_path / "elsewhere").mkdir()
    for part in ("train", "test"):
        (cache / f"cifar10-{part}.npz").rename(elsewhere / f"cifar10-{part}.npz")
    monkeypatch.setenv("ROBUSTNESS_DATA", str(elsewhere))
    assert data.fetch("cifar10") == [elsewhere / f"cifar10-{part}.npz" for part in ("train", "test")]
    path = elsewhere / "cifar10-test.npz"
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(ValueError, match=f"{path} is damaged"):
        data.fetch("cifar10")


def test_a_flipped_byte_in_a_compressed_file_is_named(cache: Path) -> None:
    cache.mkdir(parents=True, exist_ok=True)
    path = cache / "cifar10-test.npz"
    images = np.arange(20 * 3 * 32 * 32).astype(np.uint8).reshape(20, 3, 32, 32)
    np.savez_compressed(path, images=images, labels=np.arange(20))
    content = bytearray(path.read_bytes())
    for at in range(200, 260):
        content[at] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{path} is damaged"):
        data.load("cifar10")
