"""Text in the encodings that Windows' editors and shells write, and every file of ours that is read as text."""

from __future__ import annotations

import codecs
import errno
import json
from pathlib import Path

import pytest
import torch
from made_reports import make_report

from robustness_lib.files import make_folder, read_text, write_whole
from robustness_lib.models import find_model
from robustness_lib.reports import Report, track
from robustness_lib.reports.track import read_history
from robustness_lib.state import Chunks
from robustness_lib.training import read_recipe
from robustness_lib.training.history import History
from robustness_lib.training.recipe import EXAMPLE

ENCODINGS = {"bom": lambda text: codecs.BOM_UTF8 + text.encode(), "utf-16": lambda text: text.encode("utf-16"),
             "utf-16, big": lambda text: codecs.BOM_UTF16_BE + text.encode("utf-16-be"),
             "utf-16 without a mark": lambda text: text.encode("utf-16-le"),
             "big without a mark": lambda text: text.encode("utf-16-be"), "utf-32": lambda text: text.encode("utf-32"),
             "powershell": lambda text: text.replace("\n", "\r\n").encode("utf-16"), "utf-8": str.encode}
encodings = pytest.mark.parametrize("encode", ENCODINGS.values(), ids=ENCODINGS)


def rewrite(path: Path, encode) -> Path:
    path.write_bytes(encode(path.read_text(encoding="utf-8")))
    return path


@encodings
def test_text_comes_back(encode, tmp_path: Path) -> None:
    text = '{"ε": "8/255, größer"}\nzwei\n'
    (tmp_path / "a").write_bytes(encode(text))
    assert read_text(tmp_path / "a") == text


def test_what_is_no_text_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes("größer".encode("latin-1"))
    for content in ("größer".encode("latin-1"), b"\xff\xfea"):
        (tmp_path / "a.json").write_bytes(content)
        with pytest.raises(ValueError, match=r"a\.json: it is no text in .*save it as UTF-8"):
            Report.load(tmp_path / "a.json")
    (tmp_path / "empty").write_bytes(b"")
    assert read_text(tmp_path / "empty") == ""


@encodings
def test_reports_and_their_history(encode, tmp_path: Path) -> None:
    report = make_report(20, wrong=[1], broken={"pgd": [2, 3]})
    assert Report.load(rewrite(report.save(tmp_path / "r.json"), encode)).to_json() == report.to_json()
    assert Report.from_json("\ufeff" + report.to_json()).n == 20
    history = tmp_path / "history.jsonl"
    track(report, history)
    rewrite(history, encode)
    assert len(read_history(history)) == 1
    track(make_report(20, broken={"pgd": [2]}), history)
    assert len(read_history(history)) == 2


@encodings
def test_recipes_and_trainings(encode, tmp_path: Path) -> None:
    text = EXAMPLE.read_text(encoding="utf-8")
    (tmp_path / "mine.toml").write_bytes(encode(text))
    (tmp_path / "plain.toml").write_text(text, encoding="utf-8")
    mine, plain = read_recipe(tmp_path / "mine.toml"), read_recipe(tmp_path / "plain.toml")
    assert (mine.data, mine.objective, mine.settings) == (plain.data, plain.objective, plain.settings)
    (tmp_path / "net.toml").write_bytes(encode('[model]\nbuilder = "mlp"\nwidths = [2, 3, 2]\n'))
    assert find_model(f"recipe:{tmp_path / 'net.toml'}", "random")(torch.zeros(1, 2)).shape == (1, 2)
    History([], 0).save(tmp_path / "history.json")
    assert len(History.load(rewrite(tmp_path / "history.json", encode))) == 0


@encodings
def test_the_state_of_a_run(encode, tmp_path: Path) -> None:
    Chunks(tmp_path / "state", {"model": "m"}, torch.ones(2, 2))
    rewrite(tmp_path / "state" / "header.json", encode)
    assert json.loads(read_text(tmp_path / "state" / "header.json"))["model"] == "m"
    Chunks(tmp_path / "state", {"model": "m"}, torch.ones(2, 2))


def test_a_full_disk_names_the_file(tmp_path, monkeypatch):
    def no_space(path, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", no_space)
    with pytest.raises(OSError, match=r"No space left on device: .*report\.json'$"):
        write_whole(tmp_path / "report.json", b"{}")


@pytest.mark.parametrize(("folder", "words"), [
    ("file", "file is a file, and a folder is needed; name another"),
    ("file/more", "more cannot be made: .*file is a file; name another"),
    ("file/more/of/it", "it cannot be made: .*file is a file; name another"),
])
def test_a_file_in_the_way_is_named(folder, words, tmp_path):
    (tmp_path / "file").write_text("something", encoding="utf-8")
    for make in (make_folder, lambda path: write_whole(path / "new.json", b"")):
        with pytest.raises(NotADirectoryError, match=words) as caught:
            make(tmp_path / folder)
        assert "Errno" not in str(caught.value)
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
