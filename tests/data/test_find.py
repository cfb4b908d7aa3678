from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms
from torchvision.datasets import ImageFolder

from robustness_lib import data
from robustness_lib.data import find_data

RNG = np.random.default_rng(0)
PICTURES = RNG.integers(0, 256, (40, 3, 5, 6), dtype=np.uint8)  # no two alike
LABELS = np.repeat(np.arange(4), 10)  # sorted by class, as files often come


def save(path, images=PICTURES, labels=LABELS, **more):
    np.savez(path, images=images, labels=labels, **more)
    return path


def said():
    sentences: list[str] = []
    return sentences, sentences.append


# Named sets.

def test_a_named_set_is_what_load_gives():
    for name, split in (("signs", "test"), ("moons", "validation")):
        found, loaded = find_data(name, 30, split), data.load(name, split, 30)
        assert torch.equal(found[0], loaded[0])
        assert torch.equal(found[1], loaded[1])
        assert found[2] == loaded[2]


def test_a_named_set_gives_all_it_has_where_more_is_asked():
    sentences, say = said()
    assert len(find_data("moons", 5000, "validation", say=say)[1]) == 100
    assert "100 validation images" in sentences[0]
    with pytest.raises(ValueError, match="no split"):
        find_data("moons", 5000, "tests")


def test_a_folder_does_not_hide_a_named_set(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "moons").mkdir()
    assert find_data("moons", 3)[0].shape == (3, 2)


# Files of arrays.

@pytest.mark.parametrize("kind", ["nchw", "nhwc", "float32", "float64", "half", "x and y", "column", "int32"])
def test_arrays_in_every_common_form(tmp_path, kind):
    images, labels = PICTURES, LABELS
    path = tmp_path / "val.npz"
    if kind == "nhwc":
        images = images.transpose(0, 2, 3, 1)
    elif kind in ("float32", "float64"):
        images = (images / 255).astype(kind)
    elif kind == "half":
        images = (images / 255).astype(np.float16)
    elif kind == "column":
        labels = labels[:, None]
    elif kind == "int32":
        labels = labels.astype(np.int32)
    if kind == "x and y":
        np.savez(path, x=images, y=labels)
    else:
        save(path, images, labels)
    x, y, classes = find_data(path)
    assert (x.dtype, y.dtype) == (torch.float32, torch.int64)
    assert torch.allclose(x, torch.from_numpy(PICTURES) / 255, atol=1e-3 if kind == "half" else 1e-7)
    assert x.is_contiguous()
    assert y.tolist() == LABELS.tolist()
    assert classes == ("class 0", "class 1", "class 2", "class 3")


def test_grey_images_points_and_names(tmp_path):
    x, _, names = find_data(save(tmp_path / "grey.npz", PICTURES[:, 0], classes=np.array(["a", "b", "c", "d", "e"])))
    assert torch.equal(x, torch.from_numpy(PICTURES[:, :1]) / 255)
    assert names == ("a", "b", "c", "d", "e")
    points = RNG.random((40, 2))
    assert torch.equal(find_data(save(tmp_path / "points.npz", points))[0], torch.from_numpy(points).float())


def test_a_sample_is_random_repeatable_and_grows(tmp_path):
    path = save(tmp_path / "val.npz")
    sentences, say = said()
    x, y, _ = find_data(path, 20, say=say)
    assert len(set(y.tolist())) == 4  # the first 20 would be two classes
    again, more, other = find_data(path, 20), find_data(path, 30), find_data(path, 20, seed=1)
    assert torch.equal(x, again[0])
    assert torch.equal(x, more[0][:20])
    assert not torch.equal(x, other[0])
    rows = {image.numpy().tobytes(): i for i, image in enumerate(torch.from_numpy(PICTURES) / 255)}
    drawn = [rows[image.numpy().tobytes()] for image in x]
    assert len(set(drawn)) == 20  # without replacement
    assert y.tolist() == LABELS[drawn].tolist()
    assert "20 of the 40" in sentences[0]
    assert "random sample" in sentences[0]
    sentences.clear()
    assert len(find_data(path, 99, say=say)[0]) == 40
    assert "all of them" in sentences[0]
    assert len(find_data(path, say=say)[0]) == 40
    assert sentences[-1].endswith("val.npz has 40 images; all of them are used.")
    assert len(sentences) == 1
    np.savez(tmp_path / "one.npz", images=FLOATS[:1], labels=LABELS[:1])
    find_data(tmp_path / "one.npz", 2, say=say)
    assert sentences[-1].endswith("one.npz has 1 image, which is used.")


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_a_normalization_undone_is_clamped_and_said(tmp_path: Path, kind: type) -> None:
    pictures = (PICTURES / 255).astype(kind)
    pictures[0, 0, 0, 0], pictures[2, 0, 0, 0], pictures[2, 1, 1, 1] = 1.0000001, -3e-8, 1.0000005
    np.savez(tmp_path / "val.npz", images=pictures, labels=LABELS)
    told: list[str] = []
    x, _, _ = find_data(tmp_path / "val.npz", say=told.append)
    wanted = torch.from_numpy(pictures.astype(np.float32)).clamp(0, 1)
    assert torch.equal(x, wanted if wanted.shape == x.shape else wanted.permute(0, 3, 1, 2))
    assert [words for words in told if f"2 of the {len(LABELS)} images lie outside [0, 1] by rounding" in words]


FLOATS = (PICTURES / 255).astype(np.float32)


@pytest.mark.parametrize(("images", "labels", "words"), [
    (FLOATS * 4 - 2, LABELS, "probably normalized"),
    (FLOATS * 255, LABELS, "scale of 255"),
    (FLOATS * 255 - 1e-3, LABELS, "scale of 255"),
    (FLOATS * 2 - 1, LABELS, r"save \(images \+ 1\) / 2, and say --mean half"),
    (FLOATS * 1.004 - 2e-3, LABELS, r"save numpy.clip\(images, 0, 1\)"),
    (FLOATS * 2, LABELS, "Divide by the end of their scale"),
    (FLOATS * 1000, LABELS, r"found 0 to 1000\. They probably have more than 8 bits"),
    (np.where(FLOATS > 0.99, np.nan, FLOATS), LABELS, "NaN"),
    (PICTURES.astype(np.int64), LABELS, "uint8"),
    (PICTURES // 255, LABELS, "only 0 and 1"),
    (PICTURES[:, :, :, :3], LABELS, "nobody can tell"),
    (PICTURES.transpose(0, 2, 3, 1)[..., [0, 1, 2, 0]], LABELS, "neither first nor last; drop the fourth"),
    (PICTURES[:, None], LABELS, "must be .N, H, W"),
    (PICTURES, LABELS[:9], "40 images and 9 labels"),
    (PICTURES[:0], LABELS[:0], "no images"),
    (PICTURES, LABELS.astype(float), "whole numbers"),
    (PICTURES, LABELS - 1, "negative; found -1"),
    (PICTURES, np.eye(4)[LABELS], "one-hot"),
    (PICTURES, np.array([{}] * 40), "pickle"),
])
def test_arrays_that_cannot_be_meant(tmp_path, images, labels, words):
    with pytest.raises(ValueError, match=words) as caught:
        find_data(save(tmp_path / "val.npz", images, labels))
    assert "val.npz" in str(caught.value)


def test_files_that_are_none(tmp_path):
    (tmp_path / "text.npz").write_text("hello")
    (tmp_path / "empty.npz").write_bytes(b"")
    whole = save(tmp_path / "whole.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[:len(whole) // 2])
    for name in ("text", "empty", "cut"):
        with pytest.raises(ValueError, match=f"{name}.npz cannot be read"):
            find_data(tmp_path / f"{name}.npz")
    np.savez(tmp_path / "keys.npz", pictures=PICTURES, labels=LABELS)
    with pytest.raises(ValueError, match="it holds pictures, labels"):
        find_data(tmp_path / "keys.npz")
    save(tmp_path / "names.npz", classes=np.array(["a", "b"]))
    with pytest.raises(ValueError, match="name for each label"):
        find_data(tmp_path / "names.npz")
    (tmp_path / "a.csv").write_text("1,2")
    with pytest.raises(ValueError, match="neither"):
        find_data(tmp_path / "a.csv")
    with pytest.raises(FileNotFoundError, match="the sets are signs"):
        find_data("sings")
    with pytest.raises(FileNotFoundError, match="no file"):
        find_data(tmp_path / "gone.npz")
    with pytest.raises(ValueError, match="at least 1"):
        find_data("signs", 0)
    with pytest.raises(ValueError, match="named sets"):
        find_data(tmp_path / "whole.npz", split="train")
    with pytest.raises(ValueError, match="for folders"):
        find_data("signs", 3, crop=8)


# Folders.

@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "val"
    for i, label in enumerate(LABELS):
        place = root / f"kind {label}"
        place.mkdir(parents=True, exist_ok=True)
        large = np.kron(PICTURES[i].transpose(1, 2, 0), np.ones((3, 4, 1), np.uint8))  # 15 × 24 pixels
        Image.fromarray(large).save(place / f"{i:02d}.png")
    (root / "kind 0" / "notes.txt").write_text("no image")
    (root / ".hidden").mkdir()
    return root


def test_a_folder_is_read_as_torchvision_reads_it(folder):
    prepare = transforms.Compose([transforms.Resize(12), transforms.CenterCrop(10), transforms.ToTensor()])
    (folder / ".hidden").rmdir()
    theirs = ImageFolder(str(folder), prepare)
    x, y, classes = find_data(folder, resize=12, crop=10)
    assert classes == tuple(theirs.classes)
    assert y.tolist() == theirs.targets
    assert torch.equal(x, torch.stack([image for image, _ in theirs]))
    whole = find_data(folder)[0]
    assert whole.shape == (40, 3, 15, 24)
    assert torch.equal(whole, torch.stack([transforms.ToTensor()(Image.open(path)) for path, _ in theirs.samples]))


def test_only_the_sample_is_opened(folder, monkeypatch):
    opened = []
    original = Image.open
    monkeypatch.setattr(Image, "open", lambda path, *more: opened.append(path) or original(path, *more))
    x, y, _ = find_data(folder, 8, channels=3)
    assert len(opened) == 8
    assert torch.equal(x, find_data(folder, 12)[0][:8])
    assert len(set(y.tolist())) > 1


def test_grey_folders_have_one_channel(tmp_path):
    for label in ("a", "b"):
        (tmp_path / label / "deeper").mkdir(parents=True)
        Image.fromarray(PICTURES[0, 0]).save(tmp_path / label / "deeper" / "0.PNG")
    x, y, _ = find_data(tmp_path)
    assert torch.equal(x[0], torch.from_numpy(PICTURES[0, :1]) / 255)
    assert y.tolist() == [0, 1]
    assert find_data(tmp_path, channels=3)[0].shape == (2, 3, 5, 6)
    Image.fromarray(PICTURES[0].transpose(1, 2, 0)).save(tmp_path / "a" / "1.png")
    assert find_data(tmp_path)[0].shape == (3, 3, 5, 6)
    assert find_data(tmp_path, channels=1)[0].shape == (3, 1, 5, 6)


def test_numbered_folders_are_said_to_be_sorted_by_letters(tmp_path):
    for label in (*range(11),):
        (tmp_path / str(label)).mkdir()
        Image.fromarray(PICTURES[label].transpose(1, 2, 0)).save(tmp_path / str(label) / "0.png")
    sentences, say = said()
    assert find_data(tmp_path, say=say)[2][:3] == ("0", "1", "10")
    assert "leading zeros" in sentences[0]


def test_folders_that_cannot_be_meant(folder, tmp_path):
    picture = Image.fromarray(PICTURES[0].transpose(1, 2, 0))
    (tmp_path / "root" / "val").mkdir(parents=True)
    (tmp_path / "root" / "train").mkdir()
    with pytest.raises(ValueError, match=r"holds .*val: name one of these, such as .*val"):
        find_data(tmp_path / "root")
    (tmp_path / "flat").mkdir()
    picture.save(tmp_path / "flat" / "0.png")
    with pytest.raises(ValueError, match="one subfolder per class"):
        find_data(tmp_path / "flat")
    picture.save(folder / "kind 1" / "small.png")
    with pytest.raises(ValueError, match=r"one size.*24 × 15 .*small\.png 6 × 5.*--resize"):
        find_data(folder)
    (folder / "kind 1" / "small.png").write_bytes(b"\x89PNG nothing")
    with pytest.raises(ValueError, match=r"small\.png cannot be read as an image"):
        find_data(folder)
    Image.fromarray(np.zeros((5, 6), np.uint16)).save(folder / "kind 1" / "small.png")
    with pytest.raises(ValueError, match="more than 8 bits"):
        find_data(folder)
    (folder / "kind 9").mkdir()
    with pytest.raises(ValueError, match="kind 9 holds no images"):
        find_data(folder)
    for options in ({"channels": 2}, {"resize": 0}, {"crop": -1}):
        with pytest.raises(ValueError, match="found"):
            find_data(folder, **options)


# The inventory.

def test_the_inventory_says_what_is_here(cache: Path, monkeypatch) -> None:
    held = {one.name: one for one in data.inventory()}
    assert tuple(held) == data.NAMES
    assert held["signs"].here
    assert held["signs"].sizes["test"] == 2000
    assert not held["cifar10"].here
    assert held["cifar10"].sizes == {}
    cache.mkdir()
    for name in ("cifar10", "gtsrb"):
        for part in ("train", "test"):
            labels = np.sort(np.arange(200) % 10)
            np.savez(cache / f"{name}-{part}.npz", images=np.zeros((200, 3, 32, 32), np.uint8), labels=labels,
                     tracks=np.arange(200) // 5)
    np.savez(cache / "mnist-test.npz", images=np.zeros((7, 1, 28, 28), np.uint8), labels=np.arange(7))
    (cache / "fashion-mnist-test.npz").write_text("damaged")
    held = {one.name: one for one in data.inventory()}
    for name in ("cifar10", "gtsrb"):
        assert held[name].here
        assert held[name].folder == cache
        assert held[name].sizes == {split: len(data.load(name, split)[1]) for split in data.SPLITS}
    assert not held["mnist"].here
    assert held["mnist"].sizes == {"test": 7}
    assert "damaged" in held["fashion-mnist"].problem


# How images are resized.

def test_images_are_resized_as_torchvision_would(folder):
    mode = transforms.InterpolationMode
    paths = [path for path, _ in ImageFolder(str(folder)).samples] if not (folder / ".hidden").rmdir() else []
    for name, antialias in (("nearest", None), ("bicubic", None), ("bicubic", True), ("lanczos", True), ("box", None),
                            ("bilinear", False), ("bicubic", False), ("nearest", False)):
        resize = transforms.Resize(7, mode(name), antialias=antialias is not False)
        if antialias is False:
            theirs = [resize(transforms.functional.pil_to_tensor(Image.open(path))) / 255 for path in paths]
        else:
            theirs = [transforms.functional.to_tensor(resize(Image.open(path))) for path in paths]
        assert torch.equal(find_data(folder, resize=7, interpolation=name, antialias=antialias)[0], torch.stack(theirs))
    results = [find_data(folder, resize=7, interpolation=name, antialias=antialias)[0] for name, antialias in
               (("nearest", None), ("bilinear", None), ("bilinear", False), ("bicubic", None), ("bicubic", False))]
    assert not any(torch.equal(a, b) for k, a in enumerate(results) for b in results[:k])


def test_where_nothing_says_how_it_is_said(folder):
    sentences, say = said()
    find_data(folder, resize=7, say=say)
    assert "bilinear, with antialiasing" in sentences[0]
    sentences.clear()
    find_data(folder, resize=7, antialias=False, say=say)
    assert "bilinear, without antialiasing" in sentences[0]
    sentences.clear()
    find_data(folder, resize=7, interpolation="bicubic", say=say)
    find_data(folder, crop=7, say=say)
    assert sentences == []


@pytest.mark.parametrize(("options", "words"), [
    ({"resize": 7, "interpolation": "cubic"}, "interpolation must be one of nearest.*; found 'cubic'"),
    ({"crop": 7, "interpolation": "bicubic"}, "no resize is given"), ({"antialias": True}, "no resize is given"),
    ({"resize": 7, "interpolation": "lanczos", "antialias": False}, "without antialias, interpolation must be"),
])
def test_resizing_that_cannot_be_meant(folder, options, words):
    with pytest.raises(ValueError, match=words):
        find_data(folder, **options)


# Files that are something else.

def archive(*names):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as held:
        for name in names:
            held.writestr(name, "something")
    return file.getvalue()


def array():
    file = io.BytesIO()
    np.save(file, PICTURES)
    return file.getvalue()


def weights():
    file = io.BytesIO()
    torch.save({"weight": torch.ones(2)}, file)
    return file.getvalue()


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935\nsize 102502400\n"
OTHER_FILES = {
    "lfs": (POINTER, "a Git LFS pointer.*git lfs pull"),
    "lfs with a mark": (b"\xef\xbb\xbf" + POINTER, "Git LFS pointer"),
    "page": (b"<!-- saved --><!DOCTYPE html><html>", "a saved web page"), "empty": (b"", "it is empty"),
    "zeros": (bytes(5000), "nothing but zeros"), "npy": (array(), r"a NumPy array.*np\.savez"),
    "zip": (archive("a/1.png"), r"a zip archive of something else \(it holds a/1\.png\).*name the folder of images"),
    "weights": (weights(), "a file of torch.save"), "cut": (archive("images.npy")[:-30], "its end is missing"),
    "table": (b"label,pixel1,pixel2\n3,0,0\n", "text that begins 'label,pixel1,pixel2'"),
    "image": (b"\x89PNG\r\n\x1a\n" + bytes(20), "an image: put it into a folder"),
    "gzip": (b"\x1f\x8b\x08\0abc", "compressed by gzip"),
    "matlab": (b"MATLAB 5.0 MAT-file, Platform" + bytes(99), "a MATLAB file"),
}


@pytest.mark.parametrize("name", ["val.npz", "val", "val.npy"])
@pytest.mark.parametrize("kind", OTHER_FILES)
def test_data_that_are_something_else_are_named_as_what_they_are(kind, name, tmp_path):
    content, words = OTHER_FILES[kind]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=words) as caught:
        find_data(tmp_path / name)
    assert str(caught.value).startswith(str(tmp_path / name))
    assert "\n" not in str(caught.value)
    assert "pickle" not in str(caught.value)


def test_arrays_under_another_name_are_read(tmp_path):
    save(tmp_path / "val.npz").rename(tmp_path / "val.zip")
    assert torch.equal(find_data(tmp_path / "val.zip")[1], torch.from_numpy(LABELS))
    with zipfile.ZipFile(tmp_path / "val.zip", "a") as held:
        held.writestr("README", "what these are")
    assert torch.equal(find_data(tmp_path / "val.zip")[1], torch.from_numpy(LABELS))


def test_an_image_in_a_folder_that_is_a_pointer(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.png").write_bytes(POINTER)
    with pytest.raises(ValueError, match=r"1\.png cannot be read as an image: it is a Git LFS pointer.*git lfs pull"):
        find_data(tmp_path)


@pytest.mark.parametrize(("options", "words"), [
    ({"interpolation": "bicubic"}, "interpolation is for folders"), ({"antialias": False}, "antialias is for folders"),
    ({"resize": 8}, "resize is for folders"), ({"resize": 8, "channels": 1}, "resize and channels are for folders"),
    ({"resize": 8, "crop": 4, "interpolation": "box"}, "resize, crop and interpolation are for folders"),
])
def test_options_for_folders_are_named_as_given(options, words, tmp_path):
    for name in (save(tmp_path / "val.npz"), "signs"):
        with pytest.raises(ValueError, match=f"^{words} of images; arrays are taken as they are$"):
            find_data(name, **options)
