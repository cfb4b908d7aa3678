"""Models that only seem to stand, from the command's side: sentences, JSON, pages and exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from robustness_lib.cli import app

MODELS = """
import torch
from torch import nn
from robustness_lib import models

class Spoiled(nn.Module):
    def __init__(self, change):
        super().__init__()
        self.net, self.change = models.load_pretrained("signs-tiny-pgd"), change
    def forward(self, z):
        return self.change(self.net, z)

def honest(): return models.load_pretrained("signs-tiny-pgd")
def rounded(): return Spoiled(lambda net, z: net((8 * z).round() / 8))
def through_numpy(): return Spoiled(lambda net, z: torch.from_numpy(net(z).detach().numpy()))
def quantized(): return torch.ao.quantization.quantize_dynamic(honest(), {nn.Linear}, dtype=torch.qint8)
def loud(): return Spoiled(lambda net, z: 1e6 * net(z))
def softmax(): return Spoiled(lambda net, z: net(z).softmax(1))
def sigmoids(): return Spoiled(lambda net, z: net(z).sigmoid())
def drawn(): return Spoiled(lambda net, z: net(z) + torch.randn(len(z), 10))
def by_batch(): return Spoiled(lambda net, z: net(z - z.mean(0, keepdim=True) + 0.4))
def nowhere(): return Spoiled(lambda net, z: net(z) * torch.nan)
"""

# What `check` and `evaluate --suite quick` end with. Logits times a million: the margin, which the standard suite
# climbs, still has a gradient there, so check lets it pass with a note.
CODES = {"honest": (0, 0), "rounded": (1, 3), "through_numpy": (1, 3), "quantized": (1, 3), "loud": (0, 3),
         "softmax": (1, 3), "sigmoids": (1, 3), "drawn": (1, 3), "by_batch": (1, 3), "nowhere": (1, 2)}


def call(*arguments: object):
    return CliRunner().invoke(app, [*map(str, arguments)], env={"COLUMNS": "200"})


@pytest.mark.filterwarnings("ignore:torch.quant", "ignore:quantized", "ignore::DeprecationWarning")
@pytest.mark.parametrize("name", CODES)
def test_exit_codes_and_sentences(name: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MODELS, encoding="utf-8")
    subject = ["--model", f"{tmp_path / 'mine.py'}:{name}", "--data", "signs", "-n", 40]
    looked = call("check", *subject)
    ran = call("evaluate", *subject, "--threat", "linf:2/255", "--suite", "quick", "--out", tmp_path, "--json")
    assert (looked.exit_code, ran.exit_code) == CODES[name], looked.output + ran.output
    assert "Traceback" not in looked.output + ran.output
    if ran.exit_code == 2:
        assert "NaN" in ran.stderr
        return
    said = json.loads(ran.stdout)
    assert said["valid"] == (ran.exit_code == 0)
    assert (said["robust"] is None) == (said["interval"] is None) == (not said["valid"])
    assert said["sentence"].startswith("Not evaluated under L∞ 2/255: ") == (not said["valid"])
    assert bool(said["doubts"]) == (not said["valid"])
    assert ("Why there is no number" in (tmp_path / "report.html").read_text(encoding="utf-8")) == (not said["valid"])
    report = tmp_path / "report.json"
    assert call("gate", report, "--min-robust", 1).exit_code == ran.exit_code
    assert call("gate", report, "--min-robust", 1, "--strict").exit_code == (0 if said["valid"] else 1)
    assert call("compare", report, report).exit_code == (0 if said["valid"] else 2)
    assert call("track", report, "--history", tmp_path / "h.jsonl").exit_code == (0 if said["valid"] else 2)


def test_the_words_stand_in_the_terminal_too(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MODELS, encoding="utf-8")
    ran = call("evaluate", "--model", f"{tmp_path / 'mine.py'}:rounded", "--data", "signs", "-n", 40, "--threat",
               "linf:2/255", "--suite", "quick", "--out", tmp_path)
    said = " ".join(ran.stdout.split())
    assert said.startswith("Not evaluated under L∞ 2/255: ")
    assert "What would decide: BPDA" in said
    assert "There is no number to report" in said
    judged = " ".join(call("gate", tmp_path / "report.json", "--min-robust", 1).stdout.split())
    assert judged.startswith("The gate is undecided: verdict. (exit code 3) undecided verdict: the report holds no "
                             "verdict, so no limit can be held against it. Not evaluated under L∞ 2/255")


def test_an_eps_on_another_scale_is_said_before_anything_is_attacked(tmp_path: Path) -> None:
    subject = ["--model", "zoo:signs-tiny-pgd", "--data", "signs", "-n", 10]
    ran = call("evaluate", *subject, "--threat", "l2:128", "--suite", "quick", "--out", tmp_path)
    words = "under L2 128 any image at all is allowed: ε covers the whole pixel box. ε is in pixel units of [0, 1]: " \
            "128/255 = 0.502 was probably meant"
    assert f"Note: {words}." in " ".join(ran.stderr.split())
    assert words in " ".join(ran.stdout.split())  # with the report's notes
    assert call("check", *subject, "--threat", "l2:128").exit_code == 1


@pytest.mark.parametrize("command", ["evaluate", "gate"])
def test_help_says_what_not_evaluated_means(command: str) -> None:
    assert "not evaluated" in " ".join(call(command, "--help").stdout.split())
