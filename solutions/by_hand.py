"""Points that a person gives: the answers side by side in `by_hand.csv`, read again by the next call of grade.py.

A teacher writes into the columns `points` and `words`. They count, and stand on the student's page, as long as the
answer is the one that was read; where it has changed they are taken out, and the row says so.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from course import Problem
from tables import Result, Row, as_written, short, write_csv

from robustness_lib.files import read_text

COLUMNS = ("student", "exercise", "cell", "of", "answer", "points", "words")
Place = tuple[str, str, str]  # student, exercise, cell


@dataclass(frozen=True)
class Mark:
    """What a person gave for one answer, as it then was."""

    answer: str
    of: str
    points: float
    words: str


def read_marks(path: Path) -> dict[Place, Mark]:
    """The rows of a table that have points. Raises Problem where one cannot be meant."""
    if not path.is_file():
        return {}
    try:
        text = read_text(path)
    except ValueError as error:
        raise Problem(f"{path} is not in UTF-8: save it as CSV in UTF-8") from error
    first = text.partition("\n")[0]
    rows = csv.DictReader(text.splitlines(keepends=True), delimiter=";" if first.count(";") > first.count(",") else ",")
    if missing := [column for column in COLUMNS if column not in (rows.fieldnames or ())]:
        raise Problem(f"{path} has no column {', '.join(missing)}; they are {', '.join(COLUMNS)}")
    marks = {}
    for raw in rows:
        row = {column: as_written(raw[column] or "") for column in COLUMNS}
        place, given = (row["student"], row["exercise"], row["cell"]), row["points"].strip()
        if given:
            points = number(given, row["of"], f"{path}: {' '.join(place)}")
            marks[place] = Mark(row["answer"], row["of"], points, row["words"])
    return marks


def number(given: str, of: str, where: str) -> float:
    """Points as written in a table, with a point or a comma."""
    try:
        points, most = float(given.replace(",", ".")), float(of.replace(",", "."))
    except ValueError:
        raise Problem(f"{where} has {given!r} points: write a number from 0 to {of}") from None
    if not 0 <= points <= most:
        raise Problem(f"{where} has {given} points: it can have 0 to {of}")
    return points


def same_text(one: str, other: str) -> bool:
    """Whether two answers differ in no more than white space, which spreadsheets change."""
    return one.split() == other.split()


def with_marks(result: Result, marks: dict[Place, Mark]) -> Result:
    """The result with the points that a person gave for answers that have not changed since."""
    cells, words = {}, {}
    for name, cell in result["cells"].items():
        mark = marks.get((result["student"], result["exercise"], name))
        if mark and cell["open"] and same_text(mark.answer, result["answers"].get(name, "")):
            cells[name] = {**cell, "points": min(mark.points, cell["of"]), "open": 0.0}
            words[name] = mark.words
        else:
            cells[name] = cell
    return {**result, "cells": cells, "words": words}


def write_marks(path: Path, results: Iterable[Result], marks: dict[Place, Mark]) -> None:
    """Write the table anew: a row for each answer, with what a person gave, exercise by exercise.

    results: without the marks. Rows of students that are not among them stay as they are.
    """
    rows: dict[Place, Row] = {}
    for result in results:
        for name in (name for name in result["answers"] if result["cells"][name]["open"]):
            answer = result["answers"][name]
            place, of = (result["student"], result["exercise"], name), result["cells"][name]["of"]
            rows[place] = (*place, short(of), answer, *_given(marks.get(place), answer))
    for place, mark in marks.items():
        rows.setdefault(place, (*place, mark.of, mark.answer, short(mark.points), mark.words))
    write_csv(path, COLUMNS, sorted(rows.values(), key=lambda row: (row[1], row[2], row[0])))


def _given(mark: Mark | None, answer: str) -> tuple[str, str]:
    if mark is None:
        return "", ""
    if same_text(mark.answer, answer):
        return short(mark.points), mark.words
    return "", f"(the answer has changed; the last one had {short(mark.points)}: {mark.words})"
