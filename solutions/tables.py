"""What a batch comes to: tables of grades for the teacher's files, and which checks failed how often."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from robustness_lib.files import write_whole

Result = dict[str, Any]  # what grade.py keeps of one submission
Row = tuple[str | int | float, ...]
MEASURED = re.compile(r"-?\d+\.\d+(?:e[+-]?\d+)?|-?\d+e[+-]?\d+|\bnan\b|\binf\b")

FORMULAS = ("=", "+", "-", "@", "\t", "\r")


def total(result: Result, column: str) -> float:
    return float(sum(cell[column] for cell in result["cells"].values()))


def short(points: float) -> str:
    """Points in few digits: 17.5, 25, 0.333."""
    return f"{round(points, 3):g}"


def write_csv(path: Path, header: Row, rows: Iterable[Row]) -> None:
    """Write a table; whoever reads it meanwhile sees the old one or the new one."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *(map(no_formula, row) for row in rows)])
    write_whole(path, text.getvalue().encode())


def no_formula(entry: str | int | float) -> str | int | float:
    """An entry that no spreadsheet takes for a formula, whatever a student wrote: such a text gets a ' in front."""
    return f"'{entry}" if isinstance(entry, str) and entry.startswith(FORMULAS) else entry


def as_written(entry: str) -> str:
    """The inverse of `no_formula`."""
    return entry[1:] if entry.startswith("'") and entry[1:].startswith(FORMULAS) else entry


def grade_rows(results: list[Result]) -> list[Row]:
    return [
        (r["student"], r["exercise"], *(short(total(r, column)) for column in ("points", "of", "open")),
         "; ".join(r["remarks"]))
        for r in results
    ]  # fmt: skip


def cell_rows(results: list[Result]) -> list[Row]:
    return [
        (r["student"], r["exercise"], name, *(short(cell[column]) for column in ("points", "of", "open")))
        for r in results
        for name, cell in r["cells"].items()
    ]


def failed_checks(results: list[Result]) -> list[Row]:
    """(exercise, check, line, failed, of): how many notebooks lost points in a check, and how many got each ✗ line.

    The most frequent come first, each check before its lines. Measured numbers in a line are left out, so that a
    line counts as one whatever was measured. Notebooks that could not be read do not count.
    """
    graded = Counter(r["exercise"] for r in results if not r["unreadable"])
    checks: Counter[tuple[str, str]] = Counter()
    lines: Counter[tuple[str, str, str]] = Counter()
    for r in results:
        if r["unreadable"]:
            continue
        checks.update((r["exercise"], name) for name, cell in r["cells"].items() if lost(name, cell, r))
        said = {(name, MEASURED.sub("…", line)) for name, line in r["findings"] if line.startswith("✗")}
        lines.update((r["exercise"], name, line) for name, line in said)
    rows: list[Row] = []
    for (exercise, name), failed in sorted(checks.items(), key=lambda item: (-item[1], item[0])):
        rows.append((exercise, name, "", failed, graded[exercise]))
        mine = [(line, count) for (e, n, line), count in lines.items() if (e, n) == (exercise, name)]
        rows += [(exercise, name, line, n, graded[exercise]) for line, n in sorted(mine, key=lambda m: (-m[1], m[0]))]
    return rows


def lost(name: str, cell: dict[str, float], result: Result) -> bool:
    return name in result["checks"] and cell["points"] < cell["of"]


def write_tables(out: Path, results: list[Result]) -> None:
    columns = ("points", "of", "open")
    write_csv(out / "grades.csv", ("student", "exercise", *columns, "remarks"), grade_rows(results))
    write_csv(out / "cells.csv", ("student", "exercise", "cell", *columns), cell_rows(results))
    write_csv(out / "checks.csv", ("exercise", "check", "line", "failed", "of"), failed_checks(results))


def printed_checks(results: list[Result]) -> str:
    rows = failed_checks(results)
    if not rows:
        return "No check failed."
    text = ["Which checks failed, and how often:"]
    for exercise, name, line, failed, of in rows:
        text.append(f"      {failed:>3} × {line}" if line else f"  {failed:>3} of {of}  {exercise}: {name}")
    return "\n".join(text)
