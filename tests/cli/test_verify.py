"""robustness verify, as a user types it, on a plane and images at known distances from it."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

from robustness_lib import ThreatModel
from robustness_lib.certify import verify
from robustness_lib.cli import _verify, app
from robustness_lib.models import find_model

NET = """
import time
import torch
class Plane(torch.nn.Module):
    def __init__(self, steep):
        super().__init__()
        self.layer = torch.nn.Linear(12, 2)
        weight = steep / 12 ** .5 * torch.ones(12)
        self.layer.weight.data = torch.stack((-weight, weight))
        self.layer.bias.data = torch.stack((weight.sum() / 2, -weight.sum() / 2))
    def forward(self, x):
        return self.layer(x.flatten(1))
def make(): return Plane(1.)
def steeper(): return Plane(2.)
def fails(): raise RuntimeError("no such layer")
class Sine(Plane):
    def forward(self, x):
        return torch.sin(super().forward(x))
def sine(): return Sine(1.)
class Branching(Plane):
    def forward(self, x):
        return super().forward(x) if x.sum() > 0 else super().forward(-x)
def branching(): return Branching(1.)
def undefined():
    plane = Plane(1.)
    plane.layer.weight.data[0, 0] = float("nan")
    return plane
class Slow(Plane):
    def forward(self, x):
        time.sleep(.02)
        return super().forward(x)
def slow(): return Slow(1.)
"""
N = 40
EPS = 0.1
REACH = EPS * 12**0.5  # how far L∞ 0.1 gets across the plane, in the direction of its normal
PROVED = [k for k in range(N) if 0.02 * (k + 1) > REACH and k % 10]
WRONG = [k for k in range(N) if k % 10 == 0]
COMMAND = ["verify", "--model", "net.py:make", "--data", "val.npz", "--threat", "linf:0.1"]
ALONE = [sys.executable, "-c", "from robustness_lib.cli import app; app()"]
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: nets in a file; images at distances 0.02 to 0.8 from their plane, every tenth with a wrong
    label; and some others."""
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(NET, encoding="utf-8")
    for name, distance in (("val", np.linspace(0.02, 0.8, N)), ("near", np.full(N, 0.01))):
        side = np.where(np.arange(N) % 2, 1, -1)
        images = 0.5 + (side * distance / 12**0.5)[:, None] * np.ones(12)
        labels = (side > 0).astype(int)
        labels[::10] = 1 - labels[::10] if name == "val" else labels[::10]
        np.savez(f"{name}.npz", images=images.reshape(N, 2, 2, 3).astype(np.float32), labels=labels)
    return tmp_path


def call(*words: object, code: int = 0) -> Result:
    result = CliRunner().invoke(app, [*COMMAND, *map(str, words)])
    assert result.exit_code == code, result.output
    return result


def strictly(text: str):
    """What JSON says, without the NaN and Infinity that only Python reads."""
    def refuse(name: str) -> None:
        raise ValueError(name)

    return json.loads(text, parse_constant=refuse)


def written(out: str = "run"):
    return strictly((Path(out) / "verify.json").read_text(encoding="utf-8"))


def places(content, verdict: str) -> list[int]:
    """Rows of the .npz file with this verdict, in their order there."""
    rows = [int(name.rpartition(" ")[2]) for name in content["drawn"]]
    return sorted(row for row, one in zip(rows, content["verdicts"], strict=True) if one == verdict)


def test_each_image_is_proved_or_broken_or_wrong() -> None:
    result = call()
    content = written()
    assert (places(content, "robust"), places(content, "wrong")) == (PROVED, WRONG)
    assert places(content, "broken") == [k for k in range(N) if k not in PROVED + WRONG]
    assert content["robust"] == {"value": len(PROVED) / N, "images": len(PROVED),
                                 "interval": content["robust"]["interval"]}
    assert (content["n"], content["threat"], content["seconds an image"], content["unknown"]["images"]) == (
        N, "linf:0.1", 10, 0)
    for verdict, by, label, answer, margin in zip(*(content[name] for name in (
            "verdicts", "decided by", "label", "answer", "margin")), strict=True):
        assert by in {"robust": ("IBP",), "broken": ("PGD", "AutoPGD"), "wrong": ("clean",)}[verdict]
        assert (answer == label) == (margin > 0) == (verdict == "robust")
    words = " ".join(result.stdout.split())
    for part in (content["sentence"], "method tried on decided seconds", "“undecided” says nothing either way",
                 f"IBP {len(PROVED)} {len(PROVED)}", "verify.html"):
        assert part in words, part
    assert [line.split(":")[0] for line in result.stderr.splitlines() if ", after " in line] == [
        "clean", "PGD", "IBP", "done"]
    assert sorted(path.name for path in Path("run").iterdir()) == ["verify.html", "verify.json"]


def test_the_page_shows_the_same() -> None:
    call("-n", 20)
    content, page = written(), Path("run/verify.html").read_text(encoding="utf-8").replace("\u00a0", " ")
    assert content["sentence"] in page
    for verdict, words in (("robust", "Proved"), ("broken", "Broken"), ("wrong", "Wrong")):
        assert content["verdicts"].count(verdict)
        assert f"<h3>{words}</h3>" in page
    first = content["verdicts"].index("broken")
    label, answer = (content["classes"][content[name][first]] for name in ("label", "answer"))
    assert label != answer
    assert f"Image {first}: <b>{label}</b>, read as <b>{answer}</b> after PGD" in page
    assert page.count("data:image/png;base64,") >= 3
    assert "robustness verify --model net.py:make" in page
    assert str(Path.cwd()) not in page


def test_the_library_says_the_same() -> None:
    call("--threat", "l2:1/4", "--seed", 5, "-n", 30, "--seconds", "inf")
    content = written()
    with np.load("val.npz") as file:
        rows = [int(name.rpartition(" ")[2]) for name in content["drawn"]]
        x = torch.from_numpy(file["images"]).permute(0, 3, 1, 2)[rows].contiguous()
        y = torch.from_numpy(file["labels"])[rows]
    ours = verify(find_model("net.py:make"), x, y, ThreatModel("l2", 0.25), seed=5)
    assert content["seconds an image"] is None
    assert content["verdicts"] == list(ours.verdicts)
    assert content["margin"] == pytest.approx(ours.margin.tolist())
    assert content["images"] == list(ours.images)
    assert content["model"] == ours.model
    assert content["provenance"]["model fingerprint as built"] == ours.model


def test_json_is_all_that_stands_on_stdout() -> None:
    content = strictly(call("-n", 10, "--json").stdout)
    there = written()
    for name in ("sentence", "robust", "unknown", "broken", "wrong", "methods", "says not", "notes", "n", "threat"):
        assert content[name] == there[name]
    assert [method["name"] for method in there["methods"]] == ["clean", "PGD", "IBP", "CROWN-IBP", "CROWN", "α-CROWN",
                                                               "AutoPGD"]
    assert content["files"] == [str(Path("run/verify.json")), str(Path("run/verify.html"))]
    assert not {"verdicts", "images", "margin", "label"} & content.keys()


def test_without_time_nothing_is_proved_and_no_margin_is_told() -> None:
    result = call("--seconds", "1e-9")
    content = written()
    assert content["robust"]["images"] == 0
    undecided = places(content, "unknown")
    assert undecided == PROVED
    assert [margin is None for margin in content["margin"]] == [verdict == "unknown" for verdict in content["verdicts"]]
    assert f"{len(undecided)} undecided" in " ".join(result.stdout.split())
    assert "Time ran out before any bound" in Path("run/verify.html").read_text(encoding="utf-8")


def test_what_it_was_made_from() -> None:
    call("-n", 10, "--seed", 3)
    content = written()
    assert content["provenance"]["model"] == "net.py:make"
    assert content["provenance"]["command"].startswith("robustness verify --model net.py:make")
    assert len(content["provenance"]["data sha256"]) == 64
    assert (content["environment"]["seed"], content["environment"]["processes"], content["seed"]) == ("3", "1", 3)
    assert len(content["images"]) == len(content["drawn"]) == len(content["label"]) == 10
    assert str(Path.cwd()) not in json.dumps(content)


@pytest.mark.parametrize(("words", "said"), [
    (["--threat", "linf:8"], "did you mean linf:8/255"),
    (["--threat", "l1:8"], "norm"),
    (["--threat", "much"], "such as linf:8/255 or l2:0.5; found 'much'"),
    (["--seconds", "0"], "--seconds is the time that an image may take, and more than 0; found 0"),
    (["--seconds", "nan"], "more than 0; found nan"),
    (["--min-verified", "0.5"], "--min-verified is in percent, from 1 to 100; found 0.5 (write 50 for 50 %)"),
    (["--min-verified", "101"], "from 1 to 100; found 101"),
    (["--data", "nothing"], "there is no data set, file or folder 'nothing'"),
    (["--model", "net.py:nothing"], "nothing"),
    (["--model", "net.py:fails"], "no such layer"),
    (["--model", "net.py:branching"], "the model cannot be traced, and so no bounds can be computed"),
    (["--model", "net.py:undefined"], "the model returns NaN on images"),
    (["--mean", "0.5"], "give both --mean and --std"),
])
def test_wrong_usage_is_one_line_and_code_2(words: list[str], said: str) -> None:
    result = call(*words, code=2)
    assert said in result.stderr
    assert "Traceback" not in result.output
    assert not Path("run/verify.json").exists()


def test_an_operation_without_a_rule_is_named_with_those_that_have_one() -> None:
    result = call("--model", "net.py:sine", code=2)
    said = result.stderr.strip().splitlines()[-1]
    assert "there is no rule for sin. There are rules for " in said
    for known in ("conv2d", "linear", "relu", "CONTRIBUTING.md"):
        assert known in said
    assert "the model fails" not in said
    assert not Path("run/verify.json").exists()


def test_others_results_are_not_overwritten() -> None:
    call("-n", 10)
    call("-n", 10, "--seconds", 5)  # the same model, data and threat may be asked again
    assert written()["seconds an image"] == 5
    result = call("-n", 10, "--model", "net.py:steeper", code=2)
    assert "is the report of another model (net.py:make). Name another folder" in result.stderr
    assert "other data" in call("-n", 10, "--data", "near.npz", code=2).stderr
    assert "another threat (linf:0.1)" in call("-n", 10, "--threat", "linf:0.2", code=2).stderr
    assert "another threat (linf:0.1)" in call("-n", 10, "--threat", "l2:0.1", code=2).stderr
    assert written()["seconds an image"] == 5
    call("-n", 10, "--force", "--model", "net.py:steeper")
    assert written()["provenance"]["model"] == "net.py:steeper"
    Path("run/verify.json").write_text("{}")
    assert "does not hold the results of robustness verify" in call("-n", 10, code=2).stderr


@pytest.mark.parametrize(("minimum", "code", "outcome"), [(50, 0, "pass"), (75, 1, "fail"), (55, 3, "undecided")])
def test_a_gate(minimum: int, code: int, outcome: str) -> None:
    result = call("--min-verified", minimum, "--json", code=code)
    gate = json.loads(result.stdout)["gate"]
    assert (gate["criterion"], gate["outcome"]) == ("min_verified", outcome)
    assert f"verified accuracy {len(PROVED) / N:.1%}".replace("%", " %") in gate["words"]
    assert f"{outcome}: verified accuracy" in " ".join(call("--min-verified", minimum, code=code).stdout.split())


def test_what_is_undecided_is_not_verified() -> None:
    assert "fail: verified accuracy 0.0 %" in call("--seconds", "1e-9", "--min-verified", 40, code=1).stdout


# What is left of a run that was stopped.


def test_a_stopped_run_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = _verify.verify

    def stopped(*given, progress, **settings):
        def tell(done, step):
            progress(done, step)
            if done > 20 and step == "PGD":
                raise KeyboardInterrupt
        return whole(*given, progress=tell, **settings)

    monkeypatch.setattr(_verify, "verify", stopped)
    words = ("--batch-size", 10, "--seconds", "inf")
    result = call(*words, code=130)
    assert "The same command goes on where this one was; its work is kept in run/verify-state" in \
        result.stderr.replace("\\", "/")
    kept = {path: path.stat().st_mtime_ns for path in Path("run/verify-state").rglob("*.npz")}
    assert kept
    assert not Path("run/verify.json").exists()
    monkeypatch.setattr(_verify, "verify", whole)
    monkeypatch.setattr(_verify, "remove", lambda *folders: None)
    call(*words)
    assert kept == {path: path.stat().st_mtime_ns for path in kept}  # it was read, and not made again
    call(*words, "--out", "alone")
    assert written("alone")["verdicts"] == written()["verdicts"]
    assert written("alone")["margin"] == written()["margin"]


def test_a_killed_command_goes_on_where_it_was() -> None:
    command = [*ALONE, *COMMAND, "--model", "net.py:slow", "--batch-size", "4", "--seconds", "inf"]
    process = subprocess.Popen(command, env=os.environ | ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    chunks = Path("run/verify-state")
    deadline = time.monotonic() + 120
    while len(list(chunks.glob("*.npz"))) < 5:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not Path("run/verify.json").exists()
    call("--model", "net.py:slow", "--batch-size", 4, "--seconds", "inf")
    assert places(written(), "robust") == PROVED
    assert not chunks.exists()


def test_a_state_of_another_run_is_refused_and_dropped_by_force() -> None:
    call("-n", 10, "--state", "kept")
    assert list(Path("kept").rglob("*.npz"))
    result = call("-n", 10, "--state", "kept", "--seed", 1, "--out", "other", code=2)
    assert "belongs to another run" in result.stderr
    result = call("-n", 10, "--state", "kept", "--seed", 1, "--out", "other", "--force")
    assert "begun anew" in result.stderr


@pytest.mark.parametrize("full", [".npz", "verify.json", "verify.html"])
def test_a_full_disk_is_one_line_that_says_where_the_work_is(full: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write_bytes = Path.write_bytes

    def no_space(path: Path, content: bytes) -> int:
        if full in path.name:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write_bytes(path, content)

    monkeypatch.setattr(Path, "write_bytes", no_space)
    said = call("-n", 10, code=2).stderr.strip().splitlines()[-1].replace("\\", "/")
    assert "No space left on device: 'run/" in said
    assert "The work so far is kept in run/verify-state: the same command goes on" in said
    assert Path("run/verify-state").is_dir()


def test_torchrun_shares_the_work() -> None:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python"]
    words = ["--batch-size", "10", "--seconds", "inf"]
    done = subprocess.run([*launch, *ALONE, *COMMAND, *words, "--out", "two", "--json"],
                          env=os.environ | ENVIRONMENT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert strictly(done.stdout)["n"] == N  # the first speaks alone
    assert [done.stderr.count(f"{step}: ") for step in ("clean", "PGD", "IBP", "done")] == [1, 1, 1, 1]
    call(*words)
    two, one = written("two"), written()
    assert two["environment"]["processes"] == "2"
    for name in ("verdicts", "margin", "images", "model"):
        assert two[name] == one[name]
    assert sorted(path.name for path in Path("two").iterdir()) == ["verify.html", "verify.json"]
