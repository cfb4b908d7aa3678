"""Run every test of the project, part by part: `make test`, or `python tests/run_all.py [--only PART]...`.

A part that fails does not stop the next one. At the end come the minutes of each part, the slowest tests, each reason
for which a test was skipped, each failure by name, and one line that sums up: `N passed, N failed, N skipped`. Exit
code 1 if any failed.

What runs side by side is kept, and shown whole when it ends.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

ROOT = Path(__file__).resolve().parent.parent
WORKERS = 2
NOTEBOOK_CELL_SECONDS = 300
EXECUTED = "_build/executed"  # where the chapters' outputs are kept as nbval runs them (book/conftest.py)
SLOWEST = 30
NO_TESTS_COLLECTED = 5  # pytest's exit code


@dataclass
class Outcome:
    """What one part, or all of them together, came to."""

    passed: int = 0
    failures: list[str] = field(default_factory=list)  # what failed, and the first line of why
    skipped: Counter[str] = field(default_factory=Counter)  # reason -> number of tests
    seconds: list[tuple[float, str]] = field(default_factory=list)  # of each test, and its name

    @property
    def failed(self) -> int:
        return len(self.failures)

    def add(self, other: Outcome) -> None:
        self.passed += other.passed
        self.failures += other.failures
        self.skipped += other.skipped
        self.seconds += other.seconds

    def __str__(self) -> str:
        return f"{self.passed} passed, {self.failed} failed, {self.skipped.total()} skipped"


def read_junit(report: Path) -> Outcome:
    """Count the tests of a JUnit XML report; an expected failure counts as skipped, under its reason."""
    outcome = Outcome()
    for case in ElementTree.parse(report).iter("testcase"):
        name = f"{case.get('classname')}::{case.get('name')}"
        outcome.seconds.append((float(case.get("time", 0)), name))
        skipped = case.find("skipped")
        broken = [found for kind in ("failure", "error") if (found := case.find(kind)) is not None]
        if broken:
            why = (broken[0].get("message") or "no message").splitlines()[0]
            outcome.failures.append(f"{name}: {why}")
        elif skipped is not None:
            outcome.skipped[skipped.get("message") or "no reason given"] += 1
        else:
            outcome.passed += 1
    return outcome


def run(out: TextIO, *command: str) -> int:
    """Run a command of this environment's Python from the repository's root, and print to `out`; return its exit
    code."""
    print("$ python " + " ".join(command), file=out, flush=True)
    ran = subprocess.run([sys.executable, *command], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    return ran.returncode


def pytest(out: TextIO, *arguments: str, may_be_empty: bool = False) -> Outcome:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        code = run(out, "-m", "pytest", "-q", f"--junitxml={report}", *arguments)
        outcome = read_junit(report) if report.is_file() else Outcome()
    if code == NO_TESTS_COLLECTED and may_be_empty:
        return outcome
    if code and not outcome.failed:
        # Wrong options, a crash, nothing collected.
        outcome.failures.append(f"pytest {' '.join(arguments)}: pytest itself ended with exit code {code}")
    return outcome


def commands(out: TextIO, *each: tuple[str, ...]) -> Outcome:
    """Commands that pass or fail as a whole, each counted as one test."""
    codes = {command: run(out, *command) for command in each}
    failures = [f"python {' '.join(command)}: exit code {code}" for command, code in codes.items() if code]
    return Outcome(passed=len(codes) - len(failures), failures=failures)


def lint(out: TextIO) -> Outcome:
    return commands(out, ("-m", "ruff", "check", "."), ("-m", "mypy"))


def unit(out: TextIO) -> Outcome:
    # A worker goes through files as a whole, mostly, so that what a file prepares is prepared once; in the end it helps
    # the other.
    return pytest(
        out, "tests", "-n", str(WORKERS), "--dist", "worksteal", "-m", "not slow and not cuda and not browser"
    )


def cuda(out: TextIO) -> Outcome:
    probe = "import sys, torch; sys.exit(not torch.cuda.is_available())"
    if subprocess.run([sys.executable, "-c", probe], stderr=subprocess.DEVNULL).returncode:
        print("no CUDA device on this machine: the tests marked cuda are not run", file=out)
        return Outcome()
    return pytest(out, "tests", "-m", "cuda and not slow", may_be_empty=True)


def notebook_folders() -> list[str]:
    """The folders that hold notebooks to run: exercises as they are handed to the learner, unsolved, and solved."""
    folders = (ROOT / "book", ROOT / "exercises", ROOT / "solutions")
    return [folder.name for folder in folders if any(folder.rglob("*.ipynb"))]


def notebooks(out: TextIO) -> Outcome:
    folders = notebook_folders()
    if not folders:
        print("no notebook found in book/: there is nothing to run, and there should be", file=out)
        return Outcome(failures=["notebooks: none found in book/"])
    (ROOT / EXECUTED).mkdir(parents=True, exist_ok=True)
    # A notebook's cells share one kernel, so a notebook is never split between workers.
    return pytest(
        out, "--nbval-lax", "--nbval-current-env", f"--nbval-cell-timeout={NOTEBOOK_CELL_SECONDS}",
        "-n", str(WORKERS), "--dist", "loadscope", "--ignore-glob=*.ipynb_checkpoints*", *folders,
    )  # fmt: skip


def book(out: TextIO) -> Outcome:
    """From what the notebooks gave under nbval in this same run; executed here only where that part was not run."""
    executed = ("--executed", EXECUTED) if (ROOT / EXECUTED).is_dir() else ()
    return commands(out, ("book/build.py", "--strict", *executed))


def browser(out: TextIO) -> Outcome:
    outcome = Outcome()
    for folder in ("tests/book", "tests/reports"):  # each drives a browser of its own: one process, one Playwright
        outcome.add(pytest(out, folder, "-m", "browser and not slow"))
    return outcome


Part = Callable[[TextIO], Outcome]
PARTS: dict[str, Part] = {
    "lint": lint, "notebooks": notebooks, "book": book, "unit": unit, "browser": browser, "cuda": cuda,
}  # fmt: skip
# One after the other, those in a pair side by side. The book shows what the notebooks gave, the browser looks at it: by
# itself, since beside the unit tests, on two processors, pages took over half a minute to load, and timed out.
STAGES: tuple[tuple[str, ...], ...] = (("lint",), ("notebooks",), ("book",), ("unit",), ("browser",), ("cuda",))


def timed(name: str, out: TextIO) -> tuple[float, Outcome]:
    """Run a part; return its minutes and what it came to."""
    print(f"\n== {name}", file=out, flush=True)
    start = time.monotonic()
    outcome = PARTS[name](out)
    minutes = (time.monotonic() - start) / 60
    print(f"== {name}: {minutes:.1f} min, {outcome}", file=out, flush=True)
    return minutes, outcome


def captured(name: str) -> tuple[str, float, Outcome]:
    """Run a part that is not alone; return also, first, all that it printed."""
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as out:
        minutes, outcome = timed(name, out)
        out.seek(0)
        return out.read(), minutes, outcome


def run_stage(names: list[str]) -> dict[str, tuple[float, Outcome]]:
    """Minutes and outcome of each part of a stage."""
    if len(names) == 1:
        return {names[0]: timed(names[0], sys.stdout)}
    print(f"\n== {', '.join(names)}: side by side; what each prints comes when it has ended", flush=True)
    results = {}
    with ThreadPoolExecutor(len(names)) as pool:
        running = {pool.submit(captured, name): name for name in names}
        for done in as_completed(running):
            said, *results[running[done]] = done.result()
            print(said, end="", flush=True)
    return results


def summarize(results: dict[str, tuple[float, Outcome]], minutes: float) -> Outcome:
    """Print what all parts came to, and return it."""
    total = Outcome()
    print("\npart        minutes  result")
    for name, (part_minutes, outcome) in results.items():
        print(f"{name:<10} {part_minutes:8.1f}  {outcome}")
        total.add(outcome)
    print(f"{'together':<10} {minutes:8.1f}  by the clock")
    slowest = sorted(total.seconds, reverse=True)[:SLOWEST]
    print(f"\nthe {len(slowest)} slowest tests, in seconds" if slowest else "")
    for seconds, name in slowest:
        print(f"{seconds:8.1f}  {name}")
    for reason, count in total.skipped.most_common():
        print(f"skipped {count}: {reason}")
    for failure in total.failures:
        print(f"failed: {failure}")
    print(total)
    return total


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", choices=PARTS, help="run this part; may be repeated")
    chosen = parser.parse_args(arguments).only or list(PARTS)
    os.environ["OMP_NUM_THREADS"] = "1"  # two workers on two cores: more threads would fight over them
    shutil.rmtree(ROOT / EXECUTED, ignore_errors=True)  # the book is not built from an earlier run's

    start = time.monotonic()
    results: dict[str, tuple[float, Outcome]] = {}
    for stage in STAGES:
        if names := [name for name in stage if name in chosen]:
            results |= run_stage(names)
    total = summarize(results, (time.monotonic() - start) / 60)
    return 1 if total.failed else 0


if __name__ == "__main__":
    sys.exit(main())
