"""Points that a person gives count for the answer that was read, and for no other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from by_hand import COLUMNS, read_marks, with_marks, write_marks
from course import Problem
from pages import page_for, with_points_by_hand


def result(student: str = "Zoë", answer: str = "Two,\nbecause.", open_points: float = 2.0) -> dict[str, Any]:
    """Of an exercise with a check worth 1, and an answer worth 2."""
    cells = {"check": {"points": 1.0, "of": 1.0, "open": 0.0}, "why": {"points": 0.0, "of": 2.0, "open": open_points}}
    return {"student": student, "exercise": "sums", "cells": cells, "answers": {"why": answer}, "remarks": []}


def fill(path: Path, points: str, words: str = "", newline: str = "\n") -> None:
    """Do what a teacher does in a spreadsheet: give points to every answer, and save."""
    text = path.read_text(encoding="utf-8")
    assert ",,\n" in text
    filled = text.replace(",,\n", f",{points},{words}\n")
    path.write_bytes(b"\xef\xbb\xbf" + filled.replace("\n", newline).encode())


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_points_are_given_and_stay(tmp_path: Path, newline: str) -> None:
    path = tmp_path / "by_hand.csv"
    assert read_marks(path) == {}
    write_marks(path, [result()], {})
    fill(path, "1.5", "clear", newline=newline)
    marks = read_marks(path)
    counted = with_marks(result(), marks)
    assert counted["cells"]["why"] == {"points": 1.5, "of": 2.0, "open": 0.0}
    assert counted["cells"]["check"] == result()["cells"]["check"]
    assert counted["words"] == {"why": "clear"}
    write_marks(path, [result()], marks)
    assert {place: (mark.points, mark.words) for place, mark in read_marks(path).items()} == {
        ("Zoë", "sums", "why"): (1.5, "clear")
    }


def test_half_points_with_a_comma_in_a_table_with_semicolons(tmp_path: Path) -> None:
    path = tmp_path / "by_hand.csv"
    row = ("Zoë", "sums", "why", "2", "Two", "1,5", "clear")
    path.write_text(";".join(COLUMNS) + "\n" + ";".join(row) + "\n", encoding="utf-8")
    assert read_marks(path)["Zoë", "sums", "why"].points == 1.5


def test_points_for_another_answer_do_not_count(tmp_path: Path) -> None:
    path = tmp_path / "by_hand.csv"
    write_marks(path, [result()], {})
    fill(path, "2", "clear")
    changed = result(answer="Three.")
    assert with_marks(changed, read_marks(path))["cells"] == changed["cells"]
    write_marks(path, [changed], read_marks(path))
    assert read_marks(path) == {}
    assert "the answer has changed; the last one had 2: clear" in path.read_text(encoding="utf-8")


def test_where_grading_broke_off_the_points_wait(tmp_path: Path) -> None:
    path = tmp_path / "by_hand.csv"
    write_marks(path, [result()], {})
    fill(path, "2", "clear")
    broken_off = {**result(), "answers": {}}
    assert with_marks(broken_off, read_marks(path))["cells"] == broken_off["cells"]
    write_marks(path, [broken_off], read_marks(path))
    assert with_marks(result(), read_marks(path))["cells"]["why"]["points"] == 2


def test_who_is_not_in_this_batch_keeps_the_points(tmp_path: Path) -> None:
    path = tmp_path / "by_hand.csv"
    write_marks(path, [result("ann"), result("bert")], {})
    fill(path, "1")
    write_marks(path, [result("bert")], read_marks(path))
    assert sorted(place[0] for place in read_marks(path)) == ["ann", "bert"]


def test_no_answer_needs_no_reading(tmp_path: Path) -> None:
    write_marks(tmp_path / "by_hand.csv", [result(open_points=0.0)], {})
    assert "Zoë" not in (tmp_path / "by_hand.csv").read_text(encoding="utf-8")


def test_no_answer_and_no_name_is_a_formula(tmp_path: Path) -> None:
    path = tmp_path / "by_hand.csv"
    write_marks(path, [result("=1+1", "=HYPERLINK(0)")], {})
    text = path.read_text(encoding="utf-8")
    assert ",'=HYPERLINK" in text
    assert "'=1+1" in text
    fill(path, "1")
    assert with_marks(result("=1+1", "=HYPERLINK(0)"), read_marks(path))["cells"]["why"]["points"] == 1


@pytest.mark.parametrize(
    ("points", "says"), [("3", "it can have 0 to 2"), ("-1", "it can have 0 to 2"), ("good", "write a number"),
                         ("nan", "it can have 0 to 2")])  # fmt: skip
def test_points_that_cannot_be_meant(tmp_path: Path, points: str, says: str) -> None:
    path = tmp_path / "by_hand.csv"
    write_marks(path, [result()], {})
    fill(path, points)
    with pytest.raises(Problem, match=f"Zoë sums why has .*{says}"):
        read_marks(path)


def test_a_table_that_is_another_one(tmp_path: Path) -> None:
    path = tmp_path / "by_hand.csv"
    path.write_text("name,points\nann,2\n")
    with pytest.raises(Problem, match="has no column student, exercise, cell, of, answer, words"):
        read_marks(path)
    path.write_bytes("student,points\nZoë,2\n".encode("latin-1"))
    with pytest.raises(Problem, match="is not in UTF-8"):
        read_marks(path)


PAGE = """<h4>sums (Score: 1.0 / 3.0)</h4>
<li><a href="#check">Test cell</a> (Score: 1.0 / 1.0)</li>
<li><a href="#why">Written response</a> (Score: 0.0 / 2.0)</li>
<a name="check"></a> Score: 1.0 / 1.0 <div class="panel-body">✓</div>
<a name="comment-why"></a><a name="why"></a> Score: 0.0 / 2.0 <div class="panel-body">Two.</div>
"""


def test_the_page_says_what_is_open_and_what_was_given() -> None:
    still = with_points_by_hand(PAGE, with_marks(result(), {}))
    assert "sums (Score: 1 / 3; 2 more are for a person to give)" in still
    assert still.count("2 points, for a person to give") == 2
    assert still.count("Score: 1.0 / 1.0") == 2
    given = {**with_marks(result(open_points=0.0), {}), "words": {"why": "clear <and> short"}}
    given["cells"]["why"]["points"] = 1.5
    page = with_points_by_hand(PAGE, given)
    assert "sums (Score: 2.5 / 3)" in page
    assert page.count("Score: 1.5 / 2") == 2
    assert '<div class="panel-body">\n<p><em>clear &lt;and&gt; short</em></p>Two.' in page
    assert '<div class="panel-body">✓' in page


def test_nothing_that_a_student_wrote_runs_in_the_page() -> None:
    made = {**with_marks(result(), {}), "remarks": [r"it was called \1 <b>.ipynb"]}
    page = page_for(made, f"<html><head>\n<title>sums</title></head>{PAGE}</html>")
    assert page.index("script-src 'none'") < page.index("<title>")
    assert r"<li>it was called \1 &lt;b&gt;.ipynb</li>" in page
    assert '<a href="#check">check</a>' in page
    alone = page_for({**made, "words": {}}, None)
    assert r"<li>it was called \1 &lt;b&gt;.ipynb</li>" in alone
