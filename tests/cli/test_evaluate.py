"""robustness evaluate, as a user types it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from robustness_lib.cli import app
from robustness_lib.evaluation import Report

ARGUMENTS = ["evaluate", "--model", "zoo:signs-tiny-pgd", "--data", "signs", "--threat", "linf:4/255"]


def call(*arguments: object, code: int = 0):
    result = CliRunner().invoke(app, [*map(str, arguments)])
    assert result.exit_code == code, result.output
    return result


def test_a_report_and_a_page(tmp_path: Path) -> None:
    result = call(*ARGUMENTS, "--suite", "quick", "-n", 50, "--out", tmp_path / "run")
    report = Report.load(tmp_path / "run" / "report.json")
    assert (report.n, report.suite, report.classes[0]) == (50, "quick", "stop")
    assert " ".join(report.sentence.split()) in " ".join(result.stdout.split())
    for words in ("clean", "fgsm", "pgd-20", "upper bound"):
        assert words in result.stdout
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8").replace("\u00a0", " ").replace("&nbsp;", " ")
    assert report.sentence.split(";")[0] in page
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["report.html", "report.json"]


def test_proofs_before_attacks(tmp_path: Path) -> None:
    easy = [*ARGUMENTS[:-1], "linf:0.5/255", "--suite", "prove", "-n", 12]
    result = call(*easy, "--out", tmp_path / "run")
    report = Report.load(tmp_path / "run" / "report.json")
    assert report.suite == "prove"
    assert report.certified_accuracy is not None
    assert report.certified_accuracy.correct >= 6
    words = " ".join(result.stdout.split())
    assert "are proved to" in words
    assert "CROWN-IBP" in words
    content = json.loads(call(*easy, "--out", tmp_path / "again", "--json").stdout)
    assert content["certified"] == report.certified_accuracy.value
    assert "leave out --minutes" in call(*easy, "--out", tmp_path / "planned", "--minutes", 1, code=2).stderr


def test_json_is_all_that_stands_on_stdout(tmp_path: Path) -> None:
    result = call(*ARGUMENTS, "--suite", "quick", "-n", 20, "--out", tmp_path, "--json")
    content = json.loads(result.stdout)
    report = Report.load(content["report"])
    assert content["robust"] == report.robust_accuracy.value
    assert content["sentence"] == report.sentence
    assert Path(content["page"]).is_file()


def test_minutes_say_what_fits_before_it_starts(tmp_path: Path) -> None:
    result = call(*ARGUMENTS, "--minutes", 0.2, "-n", 60, "--out", tmp_path, "--suite", "quick")
    assert "The quick suite on 60 images, about" in result.stderr
    assert "95 % interval" in result.stderr
    assert "A verdict (--suite standard) takes on 60 images about" in result.stderr
    assert "Report this number" not in result.stdout
    assert "--suite standard" in result.stdout.replace("\n", " ")
    assert Report.load(tmp_path / "report.json").n == 60
    assert not (tmp_path / "state-plan.json").exists()
    assert "too few" in call(*ARGUMENTS, "--minutes", 1e-5, "--out", tmp_path, code=2).stderr


@pytest.mark.parametrize(("change", "words"), [
    (["--threat", "linf:8"], "did you mean linf:8/255"),
    (["--threat", "l1:8"], "norm"),
    (["--suite", "hard"], "there is no suite 'hard'; choose quick, standard, prove, random"),
    (["--model", "zoo:nothing"], "nothing"),
    (["--data", "nothing"], "there is no data set, file or folder 'nothing'"),
    (["--minutes", "-1"], "more than 0"),
])
def test_wrong_usage_is_one_line_and_code_2(tmp_path: Path, change: list[str], words: str) -> None:
    result = call(*ARGUMENTS, "-n", 5, "--out", tmp_path, *change, code=2)
    assert words in result.stderr
    assert "Traceback" not in result.output
    assert not (tmp_path / "report.json").exists()


def test_a_model_that_fails_on_some_images_ends_with_code_3(tmp_path: Path) -> None:
    (tmp_path / "fails.py").write_text("""
from robustness_lib import models
class Fails(type(models.load_pretrained("signs-tiny-pgd"))):
    pass
def make():
    net = models.load_pretrained("signs-tiny-pgd")
    calls = []
    def hook(module, inputs):
        calls.append(1)
        if len(calls) == 9:
            raise RuntimeError("the ninth call is too much")
    net.register_forward_pre_hook(hook)
    return net
""")
    arguments = [*ARGUMENTS, "--model", f"{tmp_path / 'fails.py'}:make", "-n", 60, "--batch-size", 20, "--suite",
                 "quick", "--out", tmp_path / "run", "--state", tmp_path / "state"]
    result = call(*arguments, code=3)
    assert "the ninth call is too much" in result.stdout
    assert Report.load(tmp_path / "run" / "report.json").n == 40
    assert list((tmp_path / "state").glob("*.npz"))  # a state that was asked for by name stays


def test_a_model_that_fails_at_once_is_one_line_and_code_2(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("""
import torch
class Bad(torch.nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.kind, self.inner = kind, torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3072, 10))
    def forward(self, x):
        if self.kind == "raise":
            raise RuntimeError("no such layer")
        return self.inner(x.sub_(.5).div_(.25))
def raises(): return Bad("raise")
def in_place(): return Bad("in place")
""")
    for name, words in (("raises", "no such layer"), ("in_place", "changes its input in place")):
        model = f"{tmp_path / 'bad.py'}:{name}"
        result = call(*ARGUMENTS, "--model", model, "-n", 5, "--out", tmp_path / "run", code=2)
        assert words in result.stderr
        assert "Traceback" not in result.output


def test_a_plan_is_kept_only_for_what_it_was_made_for(tmp_path: Path) -> None:
    plan = {"asked": {"minutes": 30.0, "suite": "quick", "images": 30, "model": "another"}, "suite": "quick", "n": 7,
            "words": "as before"}
    (tmp_path / "state-plan.json").write_text(json.dumps(plan))
    result = call(*ARGUMENTS, "--minutes", 30, "-n", 30, "--suite", "quick", "--out", tmp_path)
    assert "as planned" not in result.stderr
    assert Report.load(tmp_path / "report.json").n == 30


def test_a_terminal_without_greek_letters_ends_no_run(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from robustness_lib.cli import app; app()", *ARGUMENTS, "-n", "20", "--suite",
               "quick", "--out", str(tmp_path)]
    done = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "cp1252"},
                          capture_output=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert b"of 20 images resist" in done.stdout


def test_an_output_that_is_a_file_is_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("x")
    result = call(*ARGUMENTS, "-n", 5, "--out", tmp_path / "run", code=2)
    assert "run" in result.stderr


def test_a_killed_command_goes_on_where_it_was(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from robustness_lib.cli import app; app()", *ARGUMENTS, "-n", "60",
               "--batch-size", "15", "--minutes", "30", "--suite", "quick", "--out", "run"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
    chunks = tmp_path / "run" / "state"
    deadline = time.monotonic() + 120
    while len(list(chunks.glob("*.npz"))) < 2:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    if (tmp_path / "run" / "report.json").exists():
        pytest.skip("the machine was so fast that it had finished")
    kept = {path.name for path in chunks.glob("*.npz")}
    again = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240)
    assert again.returncode == 0, again.stderr
    assert "Going on as planned" in again.stderr
    alone = call(*ARGUMENTS, "-n", 60, "--batch-size", 15, "--suite", "quick", "--out", tmp_path / "alone")
    assert alone.exit_code == 0
    ours, theirs = (Report.load(tmp_path / name / "report.json") for name in ("run", "alone"))
    assert np.array_equal(ours.robust, theirs.robust)
    assert ours.examples.digest == theirs.examples.digest
    assert kept


def test_torchrun_shares_the_work(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python",
               sys.executable, "-c", "from robustness_lib.cli import app; app()", *ARGUMENTS, "-n", "40",
               "--batch-size", "10", "--suite", "quick", "--out", str(tmp_path / "two"), "--json"]
    done = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
                          capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["n"] == 40
    assert [done.stderr.count(f"{step}: ") for step in ("clean", "fgsm", "pgd-20", "done")] == [1, 1, 1, 1]
    call(*ARGUMENTS, "-n", 40, "--batch-size", 10, "--suite", "quick", "--out", tmp_path / "one")
    two, one = (Report.load(tmp_path / name / "report.json") for name in ("two", "one"))
    assert two.environment["processes"] == "2"
    assert np.array_equal(two.robust, one.robust)
    assert two.fingerprints == one.fingerprints


def test_adversarial_images_are_exported(tmp_path: Path) -> None:
    arguments = [*ARGUMENTS, "--suite", "quick", "-n", 30, "--out", tmp_path / "run", "--export", tmp_path / "images"]
    content = json.loads(call(*arguments, "--json").stdout)
    report = Report.load(tmp_path / "run" / "report.json")
    assert content["exported"] + content["not_exported"] == int((report.clean & ~report.robust).sum())
    lines = Path(content["images"]).read_text(encoding="utf-8").splitlines()
    assert len(lines) == 1 + content["exported"] > 1
    assert (tmp_path / "images" / lines[1].split(",")[-1]).is_file()
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["report.html", "report.json"]
    assert "adversarial images are in" in " ".join(call(*arguments).stdout.split())
    (tmp_path / "images" / "mine.txt").write_text("mine")
    assert "holds other files (mine.txt)" in call(*arguments, code=2).stderr


@pytest.mark.parametrize("option", ["--out", "--state", "--export"])
def test_a_file_in_the_place_of_a_folder_is_named_before_anything_is_attacked(option, tmp_path):
    (tmp_path / "file").write_text("something", encoding="utf-8")
    for name, words in (("file", "file is a file"), ("file/more", "more cannot be made: ")):
        options = {"--out": tmp_path / "run"} | {option: tmp_path / name}
        result = call(*ARGUMENTS, "-n", 5, "--suite", "quick", *chain(*options.items()), code=2)
        assert words in result.stderr
        assert "Errno" not in result.stderr
        assert not (tmp_path / "run" / "report.json").exists()
