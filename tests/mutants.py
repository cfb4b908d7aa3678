"""Make known mistakes in the library, one after the other, and see that the tests notice each.

    python tests/mutants.py [NAME]...       without a name: all of mutants.toml

A mistake is made in a copy of `robustness_lib` that Python finds before the repository's own, which is never touched.
First the tests named with the mistakes run once on the unchanged copy, since one that fails anyway would seem to notice
everything. Exit code 1 if a mistake went unnoticed. Mistakes in a page's JavaScript are noticed in a browser: without
chromium those tests are skipped, and the mistakes go unnoticed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path

from run_all import Outcome, read_junit

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "robustness_lib"
LIST = Path(__file__).with_suffix(".toml")
SECONDS = 300  # for the tests of one mistake
SEVERAL_TIMES = 4  # as long, for the tests of all of them


@dataclass(frozen=True)
class Mutant:
    """A mistake. file: where, within the package. old, new: the text there, and what takes its place. tests: the files
    or tests that must notice, as pytest is given them."""

    name: str
    file: str
    old: str
    new: str
    tests: list[str]

    def made_in(self, text: str) -> str:
        """The file's text with the mistake. Raises ValueError unless the old text stands there exactly once."""
        if (count := text.count(self.old)) != 1:
            raise ValueError(f"{self.name}: its old text stands {count} times in {self.file}, and not once")
        return text.replace(self.old, self.new)


def read_mutants(path: Path) -> dict[str, Mutant]:
    """Those of a list, by name."""
    with path.open("rb") as file:
        return {name: Mutant(name, **table) for name, table in tomllib.load(file).items()}


@dataclass(frozen=True)
class Copy:
    """The package in a folder of its own, and the tests run on it."""

    folder: Path

    @classmethod
    def of_package(cls, folder: Path) -> Copy:
        shutil.copytree(ROOT / PACKAGE, folder / PACKAGE, ignore=shutil.ignore_patterns("__pycache__"))
        return cls(folder)

    def noticed(self, mutant: Mutant) -> Outcome:
        """Make the mistake, run its tests up to the first that fails, and take the mistake back."""
        path = self.folder / PACKAGE / mutant.file
        right = path.read_text(encoding="utf-8")
        path.write_text(mutant.made_in(right), encoding="utf-8")
        try:
            return self.test(mutant.tests, "-x")
        finally:
            path.write_text(right, encoding="utf-8")

    def test(self, tests: list[str], *options: str, seconds: float = SECONDS) -> Outcome:
        """What the tests come to. Raises RuntimeError where they do not come to an end, or pytest does not get to run
        them: then nothing is known."""
        report = self.folder / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}",
                   "-m", "not slow and not cuda", *options, *tests]
        try:
            done = subprocess.run(command, cwd=ROOT, env=self._environment(), stdin=subprocess.DEVNULL,
                                  capture_output=True, text=True, timeout=seconds)
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"the tests came to no end within {seconds:.0f} s") from None
        if done.returncode not in (0, 1):  # nothing collected, wrong names, a crash
            raise RuntimeError(f"pytest itself ended with exit code {done.returncode}:\n{done.stdout}{done.stderr}")
        return read_junit(report)

    def _environment(self) -> dict[str, str]:
        return os.environ | {
            "PYTHONPATH": os.pathsep.join([str(self.folder), os.environ.get("PYTHONPATH", "")]),
            "PYTHONSAFEPATH": "1",  # else the current folder, the repository, comes before the copy
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # they take as long to load as most of these tests to run
            "HYPOTHESIS_STORAGE_DIRECTORY": str(self.folder / "hypothesis"),  # where it keeps what failed
            "OMP_NUM_THREADS": "1",
        }


def verdict(copy: Copy, mutant: Mutant) -> tuple[bool, str]:
    """Whether the tests noticed the mistake, and what to say of it."""
    began = time.monotonic()
    try:
        failures = copy.noticed(mutant).failures
    except (RuntimeError, ValueError) as error:
        return False, f"ERROR: {error}"
    if not failures:
        return False, "SURVIVED"
    test, _, _ = failures[0].partition(": ")
    return True, f"caught by {test} ({time.monotonic() - began:.0f} s)"


def main(arguments: list[str] | None = None) -> int:
    mutants = read_mutants(LIST)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"a mistake of {LIST.name} (default: all)")
    names = parser.parse_args(arguments).names or list(mutants)
    if unknown := [name for name in names if name not in mutants]:
        parser.error(f"there is no {', '.join(unknown)} in {LIST.name}")
    chosen = [mutants[name] for name in names]

    with tempfile.TemporaryDirectory() as folder:
        copy = Copy.of_package(Path(folder))
        tests = list(dict.fromkeys(test for mutant in chosen for test in mutant.tests))
        unchanged = copy.test(tests, seconds=SEVERAL_TIMES * SECONDS)
        print(f"on the unchanged library: {unchanged}", flush=True)
        if unchanged.failed or not unchanged.passed:
            print(*unchanged.failures, sep="\n")
            return 1
        caught = 0
        for mutant in chosen:
            noticed, words = verdict(copy, mutant)
            print(f"{mutant.name}: {words}", flush=True)
            caught += noticed
    print(f"{caught} of {len(chosen)} caught")
    return 0 if caught == len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
