"""What chapters and exercises share: above all, a check that cannot pass by mistake."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nbformat
import numpy as np
import pytest
import torch
from IPython.core.formatters import DisplayFormatter
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from robustness_lib import ThreatModel
from robustness_lib.attacks import FGSM, PGD
from robustness_lib.notebook import (
    check,
    glue_values,
    glued,
    linear_model,
    linf,
    not_broken,
    of_file,
    results_folder,
    share,
    short,
    watched,
)
from robustness_lib.statistics import Accuracy

TRUE = (True, np.bool_(True), np.array(True), np.array([True]), torch.tensor(True), torch.tensor([[True]]))


@pytest.mark.parametrize("condition", TRUE, ids=repr)
def test_check_says_what_held(condition: object, capsys: pytest.CaptureFixture[str]) -> None:
    check("PGD gets across, FGSM does not", condition, 1 < 2)
    assert capsys.readouterr().out.strip() == "checked: PGD gets across, FGSM does not"


@pytest.mark.parametrize("condition", [False, np.bool_(False), np.array([False]), torch.tensor(False)], ids=repr)
def test_check_names_the_sentence_and_the_condition(condition: object, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(AssertionError, match=r"PGD gets across.*condition 2 of 3"):
        check("PGD gets across", True, condition, False)
    with pytest.raises(AssertionError, match=r"PGD gets across$"):
        check("PGD gets across", condition)
    assert not capsys.readouterr().out


@pytest.mark.parametrize(
    ("condition", "says"),
    [
        (torch.tensor([True, True]), "use .all"), (np.ones(3, dtype=bool), "use .all"),
        (torch.ones(0).bool(), "use .all"), (None, "NoneType"), ("yes", "str"), (1, "int"), (0.5, "float"),
        ([True], "list"), (torch.tensor([True]).all, "method"), ((c for c in (True, False)), "generator"),
        (torch.tensor(1), "int64"), (torch.tensor(0.3), "compare"), (np.float64(0.3), "compare"),
        (np.array("yes"), "compare"),
    ],
    ids=lambda part: type(part).__name__,
)  # fmt: skip
def test_check_takes_truth_values_and_nothing_else(condition: object, says: str) -> None:
    for conditions in ((condition,), (True, condition), (False, condition)):
        with pytest.raises(TypeError, match=says):
            check("words", *conditions)


def test_a_check_without_a_condition_or_a_sentence_is_none() -> None:
    with pytest.raises(TypeError, match="needs a condition"):
        check("words")
    with pytest.raises(TypeError, match="begins with a sentence"):
        check(True, True)  # type: ignore[arg-type]


def contrast(one: str, other: str) -> float:
    """WCAG 2's contrast of two colours written #rrggbb."""
    def luminance(colour: str) -> float:
        parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_what_a_page_shows_of_a_check(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[object] = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    check("a < b & the rest", True)
    formats, _ = DisplayFormatter().format(shown[0])
    assert formats["text/plain"] == "checked: a < b & the rest"
    page = formats["text/html"]
    assert ">checked: a &lt; b &amp; the rest</div>" in page
    (green,) = re.findall(r"#[0-9a-f]{6}", page)
    assert contrast(green, "#ffffff") >= 4.5
    assert contrast(green, "#000000") >= 4.5


def test_values_are_glued_under_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    glued: dict[str, Any] = {}
    monkeypatch.setattr("myst_nb.glue", lambda name, value, display: glued.update({name: (value, display)}))
    glue_values(left=Accuracy(62, 100), n_images=1000, sure="over 99 %", **{"at_8": torch.tensor(3)})
    assert glued == {
        "left": (short(Accuracy(62, 100)), False), "n-images": ("1000", False), "sure": ("over 99 %", False),
        "at-8": ("tensor(3)", False),
    }  # fmt: skip


def test_a_missing_extra_is_said_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "myst_nb", None)
    with pytest.raises(ImportError, match=r"myst_nb is missing.*\[book\]"):
        glue_values(n=1)


def test_importing_it_needs_no_notebook() -> None:
    code = "import sys, robustness_lib.notebook; sys.exit(bool({'IPython', 'myst_nb'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_short_form_of_an_accuracy_does_not_break() -> None:
    text = short(Accuracy(62, 100))
    assert text.replace("\u2060", "") == "62.0\u00a0% (52–72)"
    assert "\u2060–\u2060" in text


@pytest.mark.parametrize(("correct", "n", "text"), [
    (9880, 10_000, "98.8\u00a0% (98.6–99.0)"),  # whole percent: 99–99, and 98.8 outside
    (0, 1000, "0.0\u00a0% (0.0–0.4)"),
    (1999, 2000, "100.0\u00a0% (99.7–100.0)"),
    (500, 500, "100.0\u00a0% (99–100)"),
])  # fmt: skip
def test_the_short_form_holds_the_accuracy_between_two_ends_that_differ(correct: int, n: int, text: str) -> None:
    assert short(Accuracy(correct, n)).replace("\u2060", "") == text


def test_share_counts_booleans_only() -> None:
    assert share(torch.tensor([True, False, True])) == Accuracy(2, 3)
    assert share(np.array([True, False, True])) == Accuracy(2, 3)  # a column of a report
    for wrong in (np.array([1, 0]), np.array(["a"])):
        with pytest.raises(TypeError, match="booleans"):
            share(wrong)
    for wrong in (torch.tensor([1, 0]), torch.tensor([0.5]), [True], None):
        with pytest.raises(TypeError, match="booleans"):
            share(wrong)  # type: ignore[arg-type]
    for mask in (torch.tensor(True), torch.ones(2, 3).bool(), torch.ones(0).bool()):
        with pytest.raises(ValueError, match=r"\(N,\)"):
            share(mask)


def test_not_broken_is_what_an_attack_left() -> None:
    assert not_broken(SimpleNamespace(success=torch.tensor([True, True, False]))) == Accuracy(1, 3)  # type: ignore[arg-type]


def test_accuracies_of_a_results_file_and_of_a_card() -> None:
    assert of_file({"right": 3, "n": 4, "of": 9}) == of_file({"correct": 3, "n": 4}) == Accuracy(3, 4)
    for entry in ({"n": 4}, {"right": 3}):
        with pytest.raises(KeyError):
            of_file(entry)


def test_the_results_are_found_from_below(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    results, below = tmp_path / "benchmarks" / "results", tmp_path / "book" / "deep"
    results.mkdir(parents=True)
    below.mkdir(parents=True)
    for place in (below, tmp_path):
        monkeypatch.chdir(place)
        assert results_folder() == results
    results.rmdir()
    with pytest.raises(FileNotFoundError, match="benchmarks/results"):
        results_folder()


def test_glued_values_are_read_from_another_page(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    source = ("from robustness_lib.notebook import glue_values\nfrom robustness_lib.statistics import Accuracy\n"
              "glue_values(of_fgsm=Accuracy(1, 4), quoted=\"it's 3 %\")\nglue_values(later=7)\nprint('not glued')")
    page = new_notebook(cells=[new_markdown_cell("# A page"), new_code_cell(source), new_code_cell("1 + 1")])
    NotebookClient(page, kernel_name="python3").execute()
    (tmp_path / "book" / "deep").mkdir(parents=True)
    nbformat.write(page, tmp_path / "book" / "page.ipynb")
    monkeypatch.chdir(tmp_path / "book" / "deep")
    assert glued("book/page") == {"of-fgsm": short(Accuracy(1, 4)), "quoted": "it's 3 %", "later": "7"}
    with pytest.raises(FileNotFoundError, match=r"book/other\.ipynb"):
        glued("book/other")


def test_items_are_watched_in_order_and_without_a_word(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(watched([3, 1, 2])) == [3, 1, 2]
    assert list(watched({"a": 1}.items())) == [("a", 1)]
    assert capsys.readouterr() == ("", "")


def test_a_bar_shows_after_two_seconds_and_goes_away(monkeypatch: pytest.MonkeyPatch,
                                                     capsys: pytest.CaptureFixture[str]) -> None:
    for seconds, shows in ((1.9, False), (2.1, True)):
        now = iter((0.0, *[seconds] * 20))
        monkeypatch.setattr("tqdm.std.time", lambda now=now: next(now))
        assert list(watched(range(3))) == [0, 1, 2]
        said = capsys.readouterr().err
        assert ("/3" in said) == shows
        assert not said.rpartition("\r")[0].rpartition("\r")[2].strip()  # blanks are written over it


def test_linf_counts_in_grey_levels() -> None:
    assert linf(4) == ThreatModel("linf", 4 / 255)
    assert linf(127.5).eps == 0.5


def test_a_linear_model_breaks_where_its_closed_form_says() -> None:
    w = torch.tensor([2.0, -1.0], dtype=torch.float64)
    model = linear_model(w, -0.2)
    x = torch.tensor([[0.5, 0.5]], dtype=torch.float64)  # margin .3, and ‖w‖₁ = 3
    assert torch.allclose(model(x), torch.tensor([[0.0, 0.3]], dtype=torch.float64))
    assert model(x.reshape(1, 1, 1, 2)).shape == (1, 2)
    for eps, broken in ((0.099, False), (0.101, True)):
        for attack in (FGSM(ThreatModel("linf", eps)), PGD(ThreatModel("linf", eps), steps=5)):
            assert attack.run(model, x, torch.tensor([1])).success.item() == broken
