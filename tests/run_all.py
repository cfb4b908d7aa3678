"""Run every test of the project, part by part: `make test`, or `python tests/run_all.py [--only PART]...`.

A part that fails does not stop the next one. At the end come the minutes of each part, each reason for which
a test was skipped, each failure by name, and one line that sums up: `N passed, N failed, N skipped`. Exit code 1
if any failed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORKERS = 2
NOTEBOOK_CELL_SECONDS = 300
NO_TESTS_COLLECTED = 5  # pytest's exit code


@dataclass
class Outcome:
    """What one part, or all of them together, came to."""

    passed: int = 0
    failures: list[str] = field(default_factory=list)  # what failed, and the first line of why
    skipped: Counter[str] = field(default_factory=Counter)  # reason -> number of tests

    @property
    def failed(self) -> int:
        return len(self.failures)

    def add(self, other: Outcome) -> None:
        self.passed += other.passed
        self.failures += other.failures
        self.skipped += other.skipped

    def __str__(self) -> str:
        return f"{self.passed} passed, {self.failed} failed, {self.skipped.total()} skipped"


def read_junit(report: Path) -> Outcome:
    """Count the tests of a JUnit XML report; an expected failure counts as skipped, under its reason."""
    outcome = Outcome()
    for case in ElementTree.parse(report).iter("testcase"):
        skipped = case.find("skipped")
        broken = [found for kind in ("failure", "error") if (found := case.find(kind)) is not None]
        if broken:
            why = (broken[0].get("message") or "no message").splitlines()[0]
            outcome.failures.append(f"{case.get('classname')}::{case.get('name')}: {why}")
        elif skipped is not None:
            outcome.skipped[skipped.get("message") or "no reason given"] += 1
        else:
            outcome.passed += 1
    return outcome


def run(*command: str) -> int:
    """Run a command of this environment's Python from the repository's root; return its exit code."""
    print("$ python " + " ".join(command), flush=True)
    return subprocess.run([sys.executable, *command], cwd=ROOT, stdin=subprocess.DEVNULL).returncode


def pytest(*arguments: str, may_be_empty: bool = False) -> Outcome:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        code = run("-m", "pytest", "-q", f"--junitxml={report}", *arguments)
        outcome = read_junit(report) if report.is_file() else Outcome()
    if code == NO_TESTS_COLLECTED and may_be_empty:
        return outcome
    if code and not outcome.failed:
        # Wrong options, a crash, nothing collected.
        outcome.failures.append(f"pytest {' '.join(arguments)}: pytest itself ended with exit code {code}")
    return outcome


def commands(*each: tuple[str, ...]) -> Outcome:
    """Commands that pass or fail as a whole, each counted as one test."""
    codes = {command: run(*command) for command in each}
    failures = [f"python {' '.join(command)}: exit code {code}" for command, code in codes.items() if code]
    return Outcome(passed=len(codes) - len(failures), failures=failures)


def lint() -> Outcome:
    return commands(("-m", "ruff", "check", "."), ("-m", "mypy"))


def unit() -> Outcome:
    return pytest("tests", "-n", str(WORKERS), "-m", "not slow and not cuda and not browser")


def cuda() -> Outcome:
    probe = "import sys, torch; sys.exit(not torch.cuda.is_available())"
    if subprocess.run([sys.executable, "-c", probe], stderr=subprocess.DEVNULL).returncode:
        print("no CUDA device on this machine: the tests marked cuda are not run")
        return Outcome()
    return pytest("tests", "-m", "cuda and not slow", may_be_empty=True)


def notebook_folders() -> list[str]:
    """The folders that hold notebooks to run: exercises come as they are handed to the learner, unsolved."""
    folders = (ROOT / "book", ROOT / "exercises")
    return [folder.name for folder in folders if any(folder.rglob("*.ipynb"))]


def notebooks() -> Outcome:
    folders = notebook_folders()
    if not folders:
        print("no notebook found in book/: there is nothing to run, and there should be")
        return Outcome(failures=["notebooks: none found in book/"])
    # A notebook's cells share one kernel, so a notebook is never split between workers.
    return pytest(
        "--nbval-lax", "--nbval-current-env", f"--nbval-cell-timeout={NOTEBOOK_CELL_SECONDS}",
        "-n", str(WORKERS), "--dist", "loadscope", "--ignore-glob=*.ipynb_checkpoints*", *folders,
    )  # fmt: skip


def book() -> Outcome:
    return commands(("book/build.py", "--strict"))


def browser() -> Outcome:
    outcome = Outcome()
    for folder in ("tests/book", "tests/evaluation"):  # each drives a browser of its own: one process, one Playwright
        outcome.add(pytest(folder, "-m", "browser and not slow"))
    return outcome


# In this order: quick answers first; the browser looks at the book that the part before it built.
PARTS: dict[str, Callable[[], Outcome]] = {
    "lint": lint, "unit": unit, "cuda": cuda, "notebooks": notebooks, "book": book, "browser": browser,
}  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", choices=PARTS, help="run this part; may be repeated")
    chosen = parser.parse_args(arguments).only or list(PARTS)
    os.environ["OMP_NUM_THREADS"] = "1"  # two workers on two cores: more threads would fight over them

    table: list[tuple[str, float, Outcome]] = []
    for name in (name for name in PARTS if name in chosen):
        print(f"\n== {name}", flush=True)
        start = time.monotonic()
        outcome = PARTS[name]()
        table.append((name, (time.monotonic() - start) / 60, outcome))
        print(f"== {name}: {table[-1][1]:.1f} min, {outcome}", flush=True)

    total = Outcome()
    print("\npart        minutes  result")
    for name, minutes, outcome in table:
        print(f"{name:<10} {minutes:8.1f}  {outcome}")
        total.add(outcome)
    print(f"{'together':<10} {sum(minutes for _, minutes, _ in table):8.1f}")
    for reason, count in total.skipped.most_common():
        print(f"skipped {count}: {reason}")
    for failure in total.failures:
        print(f"failed: {failure}")
    print(total)
    return 1 if total.failed else 0


if __name__ == "__main__":
    sys.exit(main())
