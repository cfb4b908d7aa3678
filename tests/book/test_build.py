"""The execution cache is dropped when, and only when, the package changes; what is given executed is not executed."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import nbformat
import pytest
from from_book import from_book
from jupyter_cache import get_cache
from nbformat.v4 import new_code_cell, new_notebook, new_output


@pytest.fixture(scope="module")
def build() -> Any:
    return from_book("build")


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "package"
    (folder / "models").mkdir(parents=True)
    (folder / "a.py").write_text("x = 1\n")
    (folder / "models" / "net.safetensors").write_bytes(b"\x00\x01")
    return folder


def test_the_hash_sees_code_weights_names_and_new_files(build: Any, package: Path) -> None:
    hashes = [build.package_hash(package)]
    (package / "a.py").write_text("x = 2\n")
    hashes.append(build.package_hash(package))
    (package / "models" / "net.safetensors").write_bytes(b"\x00\x02")
    hashes.append(build.package_hash(package))
    (package / "a.py").rename(package / "b.py")
    hashes.append(build.package_hash(package))
    (package / "c.py").touch()
    hashes.append(build.package_hash(package))
    assert len(set(hashes)) == 5
    (package / "__pycache__").mkdir()
    (package / "__pycache__" / "c.pyc").write_bytes(b"compiled")
    assert build.package_hash(package) == hashes[-1]


def test_what_was_executed_with_another_package_goes(build: Any, tmp_path: Path) -> None:
    folder = tmp_path / "_build"
    assert build.drop_stale_cache(folder, "first")
    cached = [folder / ".jupyter_cache" / "global.db", folder / ".doctrees" / "environment.pickle"]
    for file in cached:
        file.parent.mkdir()
        file.touch()
    assert not build.drop_stale_cache(folder, "first")
    assert all(file.is_file() for file in cached)
    assert build.drop_stale_cache(folder, "second")
    assert not any(file.exists() for file in cached)


def notebook(path: Path, source: str, output: str | None = None) -> Path:
    """A notebook with one cell; with an output, as it stands when executed."""
    shown = [] if output is None else [new_output("stream", name="stdout", text=output)]
    cell = new_code_cell(source, outputs=shown, execution_count=None if output is None else 1)
    path.parent.mkdir(exist_ok=True)
    nbformat.write(new_notebook(cells=[cell]), path)
    return path


def test_the_build_finds_what_was_executed_before_and_no_older_output(build: Any, tmp_path: Path) -> None:
    one, two = (notebook(tmp_path / "book" / f"{name}.ipynb", f"print('{name}')") for name in ("one", "two"))
    for output in ("an older one", "one"):
        notebook(tmp_path / "executed" / "one.ipynb", "print('one')", output)
        notebook(tmp_path / "executed" / "two.ipynb", "print('two')", "two")
        assert build.take_executed(tmp_path / "executed", [one, two], tmp_path) == []
    _, shown = get_cache(tmp_path / ".jupyter_cache").merge_match_into_notebook(nbformat.read(one, as_version=4))
    assert shown.cells[0].outputs[0].text == "one"

    (tmp_path / "executed" / "one.ipynb").unlink()
    assert build.take_executed(tmp_path / "executed", [one, two], tmp_path) == ["one.ipynb"]
    notebook(one, "print('changed since')")
    notebook(tmp_path / "executed" / "one.ipynb", "print('one')", "one")
    assert build.take_executed(tmp_path / "executed", [one, two], tmp_path) == ["one.ipynb"]


def test_a_chapter_that_was_not_executed_stops_the_build(
    build: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    notebook(tmp_path / "book" / "one.ipynb", "1")
    (tmp_path / "robustness_lib").mkdir()
    monkeypatch.setattr(build, "ROOT", tmp_path)
    monkeypatch.setattr("sys.argv", ["build.py", "--executed", str(tmp_path / "none")])
    monkeypatch.setattr(build.subprocess, "run", lambda *_, **__: pytest.fail("it was built all the same"))
    assert build.main() == 1
    assert "one.ipynb" in capsys.readouterr().err


def test_a_book_without_solutions_names_none(build: Any, tmp_path: Path) -> None:
    page = tmp_path / "html" / "solutions" / "square_attack" / "square_attack.html"
    page.parent.mkdir(parents=True)
    page.write_text("solved")
    whole = build.contents(tmp_path, solutions=True).read_text(encoding="utf-8")
    shorter = build.contents(tmp_path, solutions=False)
    assert "solutions/" in whole
    text = shorter.read_text(encoding="utf-8")
    assert "solutions/" not in text
    assert not page.exists()
    exercises = [line.split()[-1] for line in whole.splitlines() if "file: exercises/" in line]
    assert exercises
    assert all(f"file: {exercise}\n" in text for exercise in exercises)
    assert text.count("file:") == whole.count("file:") - whole.count("file: solutions/")
    assert build.contents(tmp_path, solutions=True).name == "_toc.yml"
    assert not shorter.exists()


MINIATURE = """title: A book
only_build_toc_files: true
html: {use_issues_button: false, use_repository_button: false, use_edit_page_button: false}
repository: {url: "%s", branch: main}
"""
LEADS_AWAY = ("colab.research.google.com/github/someone/a-repository/blob/main/one.ipynb", "mybinder.org/v2/gh/someone",
              "github.com/someone/a-repository/issues/new", "github.com/someone/a-repository/edit/main/one.ipynb")


@pytest.mark.parametrize("url", ["", "https://github.com/someone/a-repository"], ids=["none", "one"])
def test_pages_lead_to_the_repository_where_there_is_one(build: Any, tmp_path: Path, url: str) -> None:
    notebook(tmp_path / "one.ipynb", "1", "1")
    (tmp_path / "_toc.yml").write_text("format: jb-book\nroot: one\n")
    (tmp_path / "_config.yml").write_text(MINIATURE % url)
    config = build.configuration(tmp_path / "_config.yml", tmp_path / "made")
    assert (config.name == "_config.yml") == (url == "")
    book = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()"]
    made = subprocess.run([*book, "build", "--config", str(config), "."], cwd=tmp_path, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr[-2000:]
    page = (tmp_path / "_build" / "html" / "one.html").read_text(encoding="utf-8")
    assert [address in page for address in LEADS_AWAY] == [url != ""] * len(LEADS_AWAY)


def test_the_packed_book_holds_every_page_and_is_replaced_whole(build: Any, tmp_path: Path) -> None:
    (tmp_path / "html" / "book").mkdir(parents=True)
    (tmp_path / "html" / "index.html").write_text("here")
    (tmp_path / "html" / "book" / "one.html").write_text("a page")
    into = tmp_path / "a-book.zip"
    into.write_text("an older one")
    assert build.pack(tmp_path / "html", into) == into.stat().st_size
    with zipfile.ZipFile(into) as packed:
        assert packed.namelist() == ["a-book/book/one.html", "a-book/index.html"]
        assert packed.read("a-book/index.html") == b"here"
    assert list(tmp_path.glob("*.part")) == []


@pytest.mark.browser
def test_the_packed_book_is_read_without_a_server(build: Any, visit: Any, tmp_path: Path) -> None:
    html = Path(__file__).resolve().parents[2] / "_build" / "html"
    if not (html / "index.html").is_file():
        pytest.skip("no built book to pack: run `make book`")
    build.pack(html, tmp_path / "the-book.zip")
    with zipfile.ZipFile(tmp_path / "the-book.zip") as packed:
        packed.extractall(tmp_path)
    opened = visit((tmp_path / "the-book" / "index.html").as_uri())
    assert opened.page.locator(".live-attack [role=status]").first.text_content()
    assert opened.problems == []
    assert opened.strangers == []
