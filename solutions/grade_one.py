"""Grade one repaired submission, in a process of its own: `python solutions/grade_one.py JOB`. grade.py calls this.

JOB is a file of JSON in a copy of the course: the exercise's name, the minutes, and whether the network is cut off.
Beside it `result.json` is written: the points of each cell, the findings of the checks, and remarks.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

from course import course_directory, nbgrader_reports, reason, settings
from execution import Execute, Settle
from isolation import bring_up_loopback
from nbgrader import preprocessors
from nbgrader.api import Gradebook
from nbgrader.converters import Autograde, GenerateFeedback

from robustness_lib.files import write_whole

STUDENT = "student"  # within a job there is only one; real names may hold what nbgrader's patterns do not take


def end_with_the_batch() -> None:
    """End this process when whoever started it is gone, which closes the other end of the standard input."""

    def wait() -> None:
        sys.stdin.buffer.read()
        os._exit(3)

    threading.Thread(target=wait, daemon=True).start()


def run(root: Path, name: str, minutes: float) -> tuple[Execute, Settle]:
    """Let nbgrader run the notebook, count the points and write the page for the student."""
    config = settings(root)
    execute, settle = Execute(60 * minutes, config=config), Settle(config=config)
    directory = course_directory(config, name)
    autograde = Autograde(coursedir=directory, config=config)
    steps = autograde.autograde_preprocessors
    autograde.autograde_preprocessors = [execute, settle, *(s for s in steps if s is not preprocessors.Execute)]
    autograde.start()
    GenerateFeedback(coursedir=directory, config=config).start()
    return execute, settle


def points(root: Path, name: str) -> dict[str, dict[str, float]]:
    """What the gradebook says of each cell that counts: points, of how many, and how many are open, for a person."""
    with Gradebook(f"sqlite:///{root / 'gradebook.db'}") as gradebook:
        grades = gradebook.find_submission_notebook(name, name, STUDENT).grades
        return {
            grade.name: {
                "points": grade.auto_score or 0.0,
                "of": grade.max_score,
                "open": grade.max_score if grade.auto_score is None else 0.0,
            }
            for grade in grades
        }


def main() -> int:
    job_file = Path(sys.argv[1]).resolve()
    job: dict[str, Any] = json.loads(job_file.read_text(encoding="utf-8"))
    root = job_file.parent
    end_with_the_batch()
    if job["isolated"]:
        try:
            bring_up_loopback()
        except (OSError, RuntimeError) as error:
            (root / "failed.txt").write_text(f"its process could not be cut off: {error}", encoding="utf-8")
            return 1
    with nbgrader_reports() as log:
        try:
            execute, settle = run(root, job["exercise"], job["minutes"])
        except Exception as error:
            (root / "failed.txt").write_text(f"nbgrader says: {reason(log.getvalue() or str(error))}", encoding="utf-8")
            return 1
    result = {
        "cells": points(root, job["exercise"]),
        "findings": settle.findings,
        "remarks": execute.remarks + settle.remarks,
        "cut_short": bool(execute.stopped),
    }
    write_whole(root / "result.json", json.dumps(result, ensure_ascii=False).encode())
    return 0


if __name__ == "__main__":
    # Threads that a student's output keeps busy must not hold this process.
    code = main()
    sys.stdout.flush()
    os._exit(code)
