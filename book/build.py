"""Build the book: `python book/build.py [--strict]`.

Jupyter Book keeps executed notebooks in a cache keyed on their code cells alone, so a change in the library, its
data or its weights would leave old numbers on the page. Here the cache is dropped when the package's hash changes.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def package_hash(package: Path) -> str:
    """SHA-256 over every file of the package, names and contents: code, shipped weights, JavaScript."""
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            content = path.read_bytes()
            digest.update(f"{path.relative_to(package).as_posix()} {len(content)}\n".encode())
            digest.update(content)
    return digest.hexdigest()


def drop_stale_cache(build: Path, current: str) -> bool:
    """Remove what was executed with another version of the package. Returns whether anything was stale.

    The parsed pages go too: Sphinx re-reads (and so re-executes) a page only when its own text has changed.
    """
    stamp = build / "robustness_lib.sha256"
    if stamp.is_file() and stamp.read_text() == current:
        return False
    for folder in (".jupyter_cache", ".doctrees"):
        shutil.rmtree(build / folder, ignore_errors=True)
    build.mkdir(exist_ok=True)
    stamp.write_text(current)
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--strict", action="store_true", help="every warning is an error, every page is read again")
    strict = ["-W", "-n", "--keep-going", "--all"] if parser.parse_args().strict else []

    start = time.monotonic()
    if drop_stale_cache(ROOT / "_build", package_hash(ROOT / "robustness_lib")):
        print("robustness_lib is new or has changed: the notebooks are executed again")
    # One thread: with more, small networks run up to ten times slower when another process holds a core.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    # This interpreter's own jupyter-book, whatever PATH says; the package has no __main__ for -m.
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build", *strict, "."]
    code = subprocess.run(command, cwd=ROOT, env=environment).returncode
    seconds = time.monotonic() - start
    if code:
        print(f"the book was not built (exit code {code}, {seconds:.0f} s); the first error is above", file=sys.stderr)
        return code
    print(f"the book is built in {seconds:.0f} s; open _build/html/index.html")
    return 0


if __name__ == "__main__":
    sys.exit(main())
