"""Files of weights that are something else: named as what they are."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from robustness_lib.models._weights_files import read_state_dict

STATE = {"weight": torch.ones(2, 3), "bias": torch.zeros(2)}


def npz() -> bytes:
    file = io.BytesIO()
    np.savez(file, weight=np.ones(3))
    return file.getvalue()


def zipped(*names: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, "something")
    return file.getvalue()


def saved(content: object, **options: object) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, **options)
    return file.getvalue()


def scripted() -> bytes:
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), file)
    return file.getvalue()


def exported() -> bytes:
    file = io.BytesIO()
    torch.export.save(torch.export.export(nn.Linear(2, 2), (torch.zeros(1, 2),)), file)
    return file.getvalue()


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935\nsize 102502400\n"
OTHER_FILES = {
    "lfs": (POINTER, "is a Git LFS pointer.*git lfs pull"),
    "annex": (b"/annex/objects/SHA256E-s123--abc.pt\n", "git-annex pointer"),
    "page": (b"\n<!DOCTYPE html>\n<html><head><title>Sign in</title>", "is a saved web page"),
    "page in capitals": (b"<HTML><BODY>404</BODY></HTML>", "is a saved web page"),
    "page of Windows": ("<!doctype html><html>".encode("utf-16"), "is a saved web page"),
    "page after a comment": (b"<!-- saved from url=(0014) -->\n<!-- again -->\n<html>", "is a saved web page"),
    "page after XML": (b'<?xml version="1.0"?>\n<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0">', "is a saved web page"),
    "page that is all comment": (b"<!-- " + b"x" * 5000, "is a saved web page"),
    "lfs of Windows": (POINTER.decode().encode("utf-16"), "is a Git LFS pointer"),
    "lfs with a mark": (b"\xef\xbb\xbf" + POINTER, "is a Git LFS pointer"),
    "lfs of Windows, no mark": (POINTER.decode().encode("utf-16-le"), "is a Git LFS pointer"),
    "xml": (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "is an XML document"),
    "json": (b'\xef\xbb\xbf{"message": "Not Found"}', "is JSON text"),
    "list": (b'[{"a": 1}]', "is JSON text"),
    "text": (b"404: Not Found", "damaged or is no file of weights: it is text that begins '404: not found'"),
    "empty": (b"", "is damaged: it is empty"),
    "zeros": (bytes(5000), "is damaged: it holds nothing but zeros"),
    "zip": (zipped("photos/1.jpg", "photos/2.jpg"), r"zip archive of something else \(it holds photos/1.jpg"),
    "zip in zip": (zipped("weights.pt"), "zip archive of something else"),
    "nothing zipped": (zipped(), "it is empty"),
    "cut": (saved(STATE)[:-40], "is damaged: it begins as an archive and its end is missing"),
    "cut in two": (saved({"weight": torch.ones(9999)})[:20000], "its end is missing"),
    "cut, old": (saved(STATE, _use_new_zipfile_serialization=False)[:200], "is damaged or is no file of weights"),
    "npz": (npz(), "is an .npz file of NumPy arrays"),
    "npy": (b"\x93NUMPY\x01\0", "is a NumPy array"),
    "keras": (zipped("config.json", "model.weights.h5"), "is a Keras model"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(90), "is an HDF5 file"),
    "onnx": (b"\x08\x08\x12\x07pytorch\x1a\x052.0.1", "is an ONNX model"),
    "tflite": (b"\x1c\0\0\0TFL3", "TensorFlow Lite"),
    "gguf": (b"GGUF\x03\0\0\0", "is a GGUF file"),
    "gzip": (b"\x1f\x8b\x08\0abc", "compressed by gzip"),
    "whole": (saved(nn.Linear(2, 2)), "a whole model was saved"),
    "whole, old": (saved(nn.Linear(2, 2), _use_new_zipfile_serialization=False), "a whole model was saved"),
    "pickle": (pickle.dumps(nn.Linear(2, 2)), "holds more than weights"),
    "image": (b"\x89PNG\r\n\x1a\n" + bytes(20), "is an image"),
    "noise": (bytes(range(200, 256)) * 20, "is damaged or is no file of weights"),
}


@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ".pth.tar", ""])
@pytest.mark.parametrize("kind", OTHER_FILES)
def test_a_file_of_something_else_is_named_as_what_it_is(kind: str, suffix: str, tmp_path: Path) -> None:
    content, words = OTHER_FILES[kind]
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=words) as caught:
        read_state_dict(path, lambda sentence: None)
    said = str(caught.value)
    assert said.startswith(str(path))
    assert "weights_only" not in said
    assert "\n" not in said


@pytest.mark.filterwarnings("ignore")
def test_programs_are_named_as_programs(tmp_path: Path) -> None:
    for content, words in ((scripted(), "TorchScript"), (exported(), "an exported program")):
        for name in ("w.pt", "w.safetensors", "w.pt2"):
            (tmp_path / name).write_bytes(content)
            with pytest.raises(ValueError, match=words):
                read_state_dict(tmp_path / name, lambda sentence: None)


def test_the_name_does_not_decide(tmp_path: Path) -> None:
    said: list[str] = []
    save_file(STATE, tmp_path / "w.pt")
    torch.save(STATE, tmp_path / "w.safetensors")
    torch.save(STATE, tmp_path / "old.safetensors", _use_new_zipfile_serialization=False)
    for name in ("w.pt", "w.safetensors", "old.safetensors"):
        assert torch.equal(read_state_dict(tmp_path / name, said.append)["weight"], STATE["weight"])
    assert "w.pt is a safetensors file" in said[0]
    assert "w.safetensors was written by torch.save" in said[1]


def test_safetensors_cut_short(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "w.safetensors")
    whole = (tmp_path / "w.safetensors").read_bytes()
    for name in ("w.safetensors", "w.pt"):
        for length in (20, len(whole) - 4):
            (tmp_path / name).write_bytes(whole[:length])
            with pytest.raises(ValueError, match="safetensors file that is damaged"):
                read_state_dict(tmp_path / name, lambda sentence: None)


def test_a_folder_and_an_empty_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match=r"is a folder, and a file of weights is needed; in it are model\.safetensors"):
        read_state_dict(tmp_path, lambda sentence: None)
    for content in ({}, {"state_dict": {}}, {"optimizer": {"state": {}}}):
        torch.save(content, tmp_path / "none.pt")
        with pytest.raises(ValueError, match="no weights found"):
            read_state_dict(tmp_path / "none.pt", lambda sentence: None)
