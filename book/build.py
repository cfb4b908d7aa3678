"""Build the book: `python book/build.py [--strict] [--executed FOLDER] [--no-solutions] [--zip]`.

Jupyter Book keeps executed notebooks in a cache keyed on their code cells alone, so a change in the library, its
data or its weights would leave old numbers on the page. Here the cache is dropped when the package's hash changes.

With `--executed` no notebook is executed: the pages show what is in the folder, where a test run of the chapters
leaves them (conftest.py). With `--no-solutions` the book has no page of a solution, for a class that is to hand in.
With `--zip` it is packed as well, into one file that can be read anywhere without a network.

Where _config.yml names a repository (`repository: url:`), each page has buttons that lead there: its source, a report
of a mistake, and for notebooks Colab and Binder. Without one it has none of them.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import nbformat
import yaml
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn

ROOT = Path(__file__).resolve().parent.parent
PACKED = "attack-defend-certify.zip"


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


def take_executed(folder: Path, chapters: list[Path], build: Path) -> list[str]:
    """Let the cache hold what is in a folder of executed notebooks, and nothing else.

    Returns the names of the chapters that the build would execute all the same: the folder lacks them, or holds them
    with other code.
    """
    shutil.rmtree(build / ".jupyter_cache", ignore_errors=True)
    cache = get_cache(build / ".jupyter_cache")
    missing = []
    for chapter in chapters:
        if (folder / chapter.name).is_file():
            executed = nbformat.read(folder / chapter.name, as_version=4)
            cache.cache_notebook_bundle(CacheBundleIn(executed, str(chapter)), overwrite=True)
        try:
            cache.match_cache_notebook(nbformat.read(chapter, as_version=4))
        except KeyError:
            missing.append(chapter.name)
    return missing


def contents(build: Path, solutions: bool) -> Path:
    """The table of contents to build from, with the pages of solutions or without them."""
    whole, shorter = ROOT / "_toc.yml", build / "toc_without_solutions.yml"
    if solutions:
        shorter.unlink(missing_ok=True)
        return whole
    toc = yaml.safe_load(whole.read_text(encoding="utf-8"))
    for part in toc["parts"]:
        for chapter in part["chapters"]:
            kept = [page for page in chapter.pop("sections", ()) if not page["file"].startswith("solutions/")]
            chapter.update({"sections": kept} if kept else {})
    shutil.rmtree(build / "html" / "solutions", ignore_errors=True)  # of an earlier build, which had them
    shutil.rmtree(build / "html" / "_sources" / "solutions", ignore_errors=True)
    build.mkdir(exist_ok=True)
    shorter.write_text(yaml.safe_dump(toc, sort_keys=False), encoding="utf-8")
    return shorter


def configuration(config: Path, build: Path) -> Path:
    """The configuration to build with: _config.yml, or where it names a repository, a copy with the buttons for it."""
    with_buttons = build / "config_with_repository.yml"
    settings = yaml.safe_load(config.read_text(encoding="utf-8"))
    if not settings["repository"]["url"]:
        with_buttons.unlink(missing_ok=True)
        return config
    settings["html"] |= {f"use_{what}_button": True for what in ("issues", "repository", "edit_page")}
    settings["launch_buttons"] = {"colab_url": "https://colab.research.google.com",
                                  "binderhub_url": "https://mybinder.org"}
    build.mkdir(exist_ok=True)
    with_buttons.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    return with_buttons


def pack(html: Path, into: Path) -> int:
    """The built book as one zip file, which is replaced whole. Returns its bytes."""
    unfinished = into.with_suffix(".part")
    with zipfile.ZipFile(unfinished, "w", zipfile.ZIP_DEFLATED) as packed:
        for path in sorted(path for path in html.rglob("*") if path.is_file() and path.name != ".buildinfo"):
            packed.write(path, Path(into.stem) / path.relative_to(html))
    unfinished.replace(into)
    return into.stat().st_size


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--strict", action="store_true", help="every warning is an error, every page is read again")
    parser.add_argument("--executed", type=Path, metavar="FOLDER", help="execute nothing, show these notebooks")
    parser.add_argument("--no-solutions", action="store_true", help="leave out the pages of the solutions")
    parser.add_argument("--zip", action="store_true", help=f"pack the pages into _build/{PACKED}")
    chosen = parser.parse_args()
    strict = ["-W", "-n", "--keep-going"] if chosen.strict else []
    # Where solutions come or go, every page is read again: each lists them beside its text.
    left_out = (ROOT / "_build" / "toc_without_solutions.yml").is_file()
    strict += ["--all"] if chosen.strict or chosen.no_solutions != left_out else []
    toc = contents(ROOT / "_build", solutions=not chosen.no_solutions)

    start = time.monotonic()
    if drop_stale_cache(ROOT / "_build", package_hash(ROOT / "robustness_lib")):
        print("robustness_lib is new or has changed: nothing executed with another version is kept")
    if chosen.executed:
        missing = take_executed(chosen.executed, sorted((ROOT / "book").glob("*.ipynb")), ROOT / "_build")
        if missing:
            print(f"not in {chosen.executed}, or not as they are now: {', '.join(missing)}", file=sys.stderr)
            return 1
    subprocess.run([sys.executable, str(ROOT / "book" / "api.py")], check=True)  # the pages of the API reference
    # One thread: with more, small networks run up to ten times slower when another process holds a core.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    # This interpreter's own jupyter-book, whatever PATH says; the package has no __main__ for -m.
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build", *strict,
               "--toc", str(toc), "--config", str(configuration(ROOT / "_config.yml", ROOT / "_build")), "."]
    code = subprocess.run(command, cwd=ROOT, env=environment).returncode
    seconds = time.monotonic() - start
    if code:
        print(f"the book was not built (exit code {code}, {seconds:.0f} s); the first error is above", file=sys.stderr)
        return code
    print(f"the book is built in {seconds:.0f} s; open _build/html/index.html")
    if chosen.zip:
        size = pack(ROOT / "_build" / "html", ROOT / "_build" / PACKED)
        print(f"packed: _build/{PACKED} ({size / 1e6:.0f} MB); unpacked, it is read from its index.html")
    return 0


if __name__ == "__main__":
    sys.exit(main())
