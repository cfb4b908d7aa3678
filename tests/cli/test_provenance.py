"""A report says what it was made from, tells no folder that nobody named, and is not overwritten by another's."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from robustness_lib import models
from robustness_lib.cli import app
from robustness_lib.evaluation import Report, compare
from robustness_lib.reports.page import page

NET = """
import torch
def make():
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
"""
SHORT = ["--threat", "linf:4/255", "--suite", "quick"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A net in a file, two files of weights, and data as a file and as a folder; it is the current folder."""
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(NET, encoding="utf-8")
    for seed, name in enumerate(("a.pt", "b.pt")):
        torch.manual_seed(seed)
        torch.save(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3)).state_dict(), name)
    draw = np.random.default_rng(0)
    for name in ("val", "other"):
        np.savez(f"{name}.npz", images=draw.integers(0, 256, (30, 2, 2, 3), dtype=np.uint8),
                 labels=np.arange(30) % 3)
    for number in range(6):
        file = Path("pictures") / f"class{number % 3}" / f"{number} ä.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (2, 2, 3), dtype=np.uint8)).save(file)
    return tmp_path


def evaluate(*words: str, code: int = 0, weights: str = "a.pt", data: str = "val.npz", out: str = "run"):
    result = CliRunner().invoke(app, ["evaluate", "--model", "net.py:make", "--weights", weights, "--data", data,
                                      "--out", out, *SHORT, *words])
    assert result.exit_code == code, result.output
    return result


def git(*words: str) -> str:
    return subprocess.run(["git", "-c", "user.name=n", "-c", "user.email=e@e", *words], check=True,
                          capture_output=True, text=True).stdout.strip()


def test_it_names_model_weights_data_and_command(folder: Path) -> None:
    evaluate("-n", "10", "--seed", "3", "--mean", "half")
    report = Report.load("run/report.json")
    sums = {name: hashlib.sha256(Path(name).read_bytes()).hexdigest() for name in ("net.py", "a.pt", "val.npz")}
    assert report.provenance.items() >= {
        "model": "net.py:make", "model file sha256": sums["net.py"], "weights": "a.pt", "weights sha256": sums["a.pt"],
        "mean": "0.5 (half)", "std": "0.5 (half)", "output": "auto", "data": "val.npz",
        "data sha256": sums["val.npz"], "split": "test",
        "command": "robustness evaluate --model net.py:make --weights a.pt --data val.npz --out run --threat "
                   "linf:4/255 --suite quick -n 10 --seed 3 --mean half"}.items()
    assert "a random sample (seed 3)" in report.provenance["decided"]
    assert {"torch", "torchvision", "numpy", "python", "robustness_lib"} <= report.environment.keys()
    assert "/" not in "".join(value for name, value in report.provenance.items() if name != "command")
    assert str(folder) not in Path("run/report.json").read_text(encoding="utf-8")
    html = page(report)
    assert sums["a.pt"] in html
    assert str(folder) not in html


def test_it_names_the_images_drawn(folder: Path) -> None:
    evaluate("-n", "10", "--seed", "3")
    with np.load("val.npz") as file:
        rows = [int(row) for row in Report.load("run/report.json").drawn]
        assert len(set(rows)) == 10
        assert rows != sorted(rows)
        assert file["labels"][rows].tolist() == Report.load("run/report.json").examples.label.tolist()
    evaluate("-n", "4", data="pictures", out="of files")
    report = Report.load("of files/report.json")
    assert len(report.drawn) == 4
    for name, label in zip(report.drawn, report.examples.label, strict=True):
        assert (folder / "pictures" / name).is_file()
        assert name.startswith(f"class{label}/")
    assert report.drawn[0] in page(report)


def test_names_that_are_no_text_can_be_written(folder: Path) -> None:
    odd = os.fsdecode(b"b\xff")
    try:
        (folder / "pictures").rename(folder / odd)
        (folder / odd / "class0" / "0 ä.png").rename(folder / odd / "class0" / f"{odd}.png")
    except OSError:
        pytest.skip("no such names on this file system")
    evaluate(data=odd)
    report = Report.load("run/report.json")
    assert "class0/b?.png" in report.drawn
    assert report.provenance["data"] == "b?"
    assert "--data 'b?'" in report.provenance["command"]


def test_images_without_a_verdict_leave_the_others_their_names(folder: Path) -> None:
    Path("fails.py").write_text("""
import torch
class Fails(torch.nn.Sequential):
    def forward(self, x):
        if bool((x[:, 0, 0, 0] > .98).any()):
            raise RuntimeError("too bright")
        return super().forward(x)
def make():
    return Fails(torch.nn.Flatten(), torch.nn.Linear(12, 3))
""", encoding="utf-8")
    images = np.full((8, 2, 2, 3), 100, dtype=np.uint8)
    images[5, 0, 0, 0] = 255
    np.savez("bright.npz", images=images, labels=np.arange(8) % 3)
    result = CliRunner().invoke(app, ["evaluate", "--model", "fails.py:make", "--data", "bright.npz", "--weights",
                                      "random", *SHORT])
    assert result.exit_code == 3, result.output
    assert Report.load("run/report.json").drawn == tuple("01234 67".replace(" ", ""))


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_it_names_the_commit_where_there_is_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluate("-n", "5")
    assert not [name for name in Report.load("run/report.json").provenance if name.startswith("git")]
    git("init", "-q")
    evaluate("-n", "5")  # a repository without any commit
    assert "git commit" not in Report.load("run/report.json").provenance
    git("add", "net.py", "val.npz")
    git("commit", "-q", "-m", "first")
    evaluate("-n", "5")
    found = Report.load("run/report.json").provenance
    assert (found["git commit"], found["git changes"]) == (git("rev-parse", "HEAD"), "none")
    Path("net.py").write_text(NET + "# changed\n", encoding="utf-8")
    evaluate("-n", "5")
    assert Report.load("run/report.json").provenance["git changes"] == "uncommitted, in 1 file"
    git("rm", "-q", "--cached", "net.py")
    evaluate("-n", "5")
    assert "the model's file is not in the commit" in Report.load("run/report.json").provenance["git changes"]
    elsewhere = folder.parent / f"{folder.name} elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)  # what counts is where the model's file lies
    result = CliRunner().invoke(app, ["evaluate", "--model", f"{folder}/net.py:make", "--data", f"{folder}/val.npz",
                                      "--weights", f"{folder}/a.pt", "-n", "5", *SHORT])
    assert result.exit_code == 0, result.output
    assert Report.load("run/report.json").provenance["git commit"] == found["git commit"]
    monkeypatch.setenv("PATH", os.devnull)  # no git at all
    monkeypatch.chdir(folder)
    evaluate("-n", "5")
    assert "git commit" not in Report.load("run/report.json").provenance


def test_compare_says_what_differs(folder: Path) -> None:
    evaluate("-n", "10", out="one")
    evaluate("-n", "10", weights="b.pt", out="two")
    one, two = (Report.load(f"{name}/report.json") for name in ("one", "two"))
    notes = compare(one, two).notes
    assert "weights differs: a.pt, then b.pt." in notes
    assert not any("sha256" in note for note in notes)  # the names tell them apart
    changed = replace(two, provenance=two.provenance | {"weights": "a.pt"})
    assert any(note.startswith("weights sha256 differs: ") for note in compare(one, changed).notes)
    assert not any("command" in note or "decided" in note for note in notes)
    assert not any("weights" in note for note in compare(one, one).notes)


def test_a_report_from_before_is_read(folder: Path) -> None:
    evaluate("-n", "10")
    content = json.loads(Path("run/report.json").read_text(encoding="utf-8"))
    for name in ("provenance", "drawn"):
        del content[name]
    old = Report.from_json(json.dumps(content))
    assert (old.provenance, old.drawn) == ({}, ())
    assert "provenance" not in page(old)
    assert not any("weights" in note for note in compare(old, Report.load("run/report.json")).notes)
    content["drawn"] = ["0"]
    with pytest.raises(ValueError, match="drawn has 1 entries for 10 examples"):
        Report.from_json(json.dumps(content))


@pytest.mark.parametrize(("change", "words"), [
    ({"weights": "b.pt"}, "the report of another model (net.py:make)"),
    ({"data": "other.npz"}, "the report of other data (net.py:make)"),
    ({"weights": "b.pt", "data": "other.npz"}, "the report of another model and other data"),
])
def test_another_report_is_not_overwritten(folder: Path, change: dict[str, str], words: str) -> None:
    evaluate("-n", "10")
    before = Path("run/report.json").read_bytes()
    refused = evaluate("-n", "10", code=2, **change)
    assert words in refused.stderr
    assert "--force" in refused.stderr
    assert refused.stderr.splitlines()[-1].startswith("run/report.json is ")
    assert Path("run/report.json").read_bytes() == before
    evaluate("-n", "10", "--force", **change)
    assert Report.load("run/report.json").provenance["weights"] == change.get("weights", "a.pt")


def test_the_same_model_and_data_are_evaluated_again(folder: Path) -> None:
    for n in ("10", "30", "5"):
        evaluate("-n", n)
        assert Report.load("run/report.json").n == int(n)
    evaluate("-n", "5", "--seed", "9")  # others of the same file
    shutil.copy("val.npz", "copy.npz")
    evaluate("-n", "30", data="copy.npz")  # the same images under another name


def test_a_model_that_counts_its_calls_is_the_same(folder: Path) -> None:
    Path("net.py").write_text("""
import torch
class Counts(torch.nn.Sequential):
    calls = 0
    def forward(self, x):
        self.calls += 1
        return super().forward(x)
def make():
    return Counts(torch.nn.Flatten(), torch.nn.Linear(12, 3))
""", encoding="utf-8")
    evaluate("-n", "10")
    evaluate("-n", "10")
    evaluate("-n", "10", weights="b.pt", code=2)


def test_a_file_that_is_no_report_is_not_overwritten(folder: Path) -> None:
    Path("run").mkdir()
    Path("run/report.json").write_text('{"mine": 1}', encoding="utf-8")
    assert "It would be overwritten" in evaluate("-n", "5", code=2).stderr
    assert Path("run/report.json").read_text(encoding="utf-8") == '{"mine": 1}'
    evaluate("-n", "5", "--force")


def test_an_interrupted_run_beside_an_old_report_goes_on(folder: Path) -> None:
    """The report of the model, then a second run that ends early: its state stays and is taken up."""
    evaluate("-n", "10", "--batch-size", "5")
    Path("stops.py").write_text("""
import robustness_lib.cli._evaluate as command
from robustness_lib.cli import app
real = command.evaluate
def evaluate(*things, progress, **more):
    def tell(done, step):
        progress(done, step)
        if done >= 20:
            raise KeyboardInterrupt
    return real(*things, progress=tell, **more)
command.evaluate = evaluate
app()
""", encoding="utf-8")
    words = ["evaluate", "--model", "net.py:make", "--weights", "a.pt", "--data", "val.npz", "--batch-size", "5",
             *SHORT, "-n", "30"]
    stopped = subprocess.run([sys.executable, "stops.py", *words], capture_output=True, text=True)
    assert stopped.returncode == 130, stopped.stderr
    kept = sorted(path.name for path in Path("run/state").glob("*.npz"))
    assert kept
    times = {name: (Path("run/state") / name).stat().st_mtime_ns for name in kept}
    evaluate("--batch-size", "5", "-n", "30", "--state", "run/state")
    assert {name: (Path("run/state") / name).stat().st_mtime_ns for name in kept} == times
    assert Report.load("run/report.json").n == 30


def test_a_folder_whose_pictures_were_replaced_is_other_data(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / "val" / name).mkdir(parents=True)
        for k in range(3):
            Image.fromarray(np.full((32, 32, 3), 40 * k, dtype=np.uint8)).save(tmp_path / "val" / name / f"{k}.png")
    arguments = ["evaluate", "--model", "zoo:signs-tiny-pgd", "--data", tmp_path / "val", "--threat", "linf:4/255",
                 "--suite", "quick", "--out", tmp_path / "run"]
    assert CliRunner().invoke(app, [*map(str, arguments)]).exit_code == 0
    assert CliRunner().invoke(app, [*map(str, arguments), "-n", "4"]).exit_code == 0  # others of the same
    for k in range(3):
        Image.fromarray(np.full((32, 32, 3), 255 - 40 * k, dtype=np.uint8)).save(tmp_path / "val" / "b" / f"{k}.png")
    refused = CliRunner().invoke(app, [*map(str, arguments)])
    assert refused.exit_code == 2
    assert "other data" in refused.stderr


def test_the_file_of_a_whole_program_has_a_checksum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(models.load_pretrained("signs-tiny-pgd")).save("net.pt")
    ran = CliRunner().invoke(app, ["evaluate", "--model", "net.pt", "--data", "signs", "-n", "10", "--threat",
                                   "linf:4/255", "--suite", "quick"])
    assert ran.exit_code == 0, ran.output
    made_from = Report.load("run/report.json").provenance
    assert made_from["model file sha256"] == hashlib.sha256(Path("net.pt").read_bytes()).hexdigest()


def test_force_drops_the_state_of_another_run(tmp_path: Path) -> None:
    arguments = ["evaluate", "--data", "signs", "-n", "10", "--threat", "linf:4/255", "--suite", "quick", "--state",
                 str(tmp_path / "state"), "--out", str(tmp_path / "run")]
    assert CliRunner().invoke(app, [*arguments, "--model", "zoo:signs-tiny-pgd"]).exit_code == 0
    other = [*arguments, "--model", "zoo:signs-tiny-standard"]
    assert CliRunner().invoke(app, other).exit_code == 2
    forced = CliRunner().invoke(app, [*other, "--force"])
    assert forced.exit_code == 0, forced.output
    assert "begun anew (--force)" in forced.stderr
