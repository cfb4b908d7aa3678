"""What students get: no solutions, no hidden checks, the same bytes each time; and a failed run deletes nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import nbformat
import pytest
import release
import tiny


def run(source: Path, to: Path, *more: str) -> int:
    return release.main(["--source", str(source), "--to", str(to), *more])


@pytest.fixture
def own_source(tmp_path: Path) -> Path:
    """A source that a test may change."""
    return tiny.write_source(tmp_path / "source")


def test_what_students_get(source: Path, tmp_path: Path) -> None:
    assert run(source, tmp_path / "to") == 0
    folder = tmp_path / "to" / "sums"
    assert {path.name for path in folder.iterdir()} == {"sums.ipynb", "checks.py"}
    assert [path.name for path in folder.parent.iterdir()] == ["sums"]  # nothing temporary is left
    text = (folder / "sums.ipynb").read_text(encoding="utf-8")
    assert not any(word in text for word in ("hidden_checks", "SOLUTION", "HIDDEN", "return a + b", tiny.WHY))
    released = nbformat.read(folder / "sums.ipynb", as_version=4)
    assert [cell.id for cell in released.cells] == [cell.id for cell in tiny.master().cells]
    assert released.cells[1].source.startswith("VARIANT = 0\n")


def test_the_same_bytes_each_time(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(source, tmp_path / "one")
    run(source, tmp_path / "two")
    assert release.files(tmp_path / "one") == release.files(tmp_path / "two")
    assert run(source, tmp_path / "one") == 0
    assert "(unchanged)" in capsys.readouterr().out


def test_a_variant_is_in_the_notebook(source: Path, tmp_path: Path) -> None:
    run(source, tmp_path / "to", "--variant", "7")
    released = nbformat.read(tmp_path / "to/sums/sums.ipynb", as_version=4)
    assert released.cells[1].source.startswith("VARIANT = 7\nfrom checks")
    assert nbformat.read(source / "sums/sums.ipynb", as_version=4) == tiny.master()  # the source stays as it is


def test_no_variant_without_its_line(own_source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    notebook = tiny.master()
    notebook.cells[1].source = "from checks import check_add, check_double"
    nbformat.write(notebook, own_source / "sums/sums.ipynb")
    tiny.write_source(own_source, "products")
    assert run(own_source, tmp_path / "to", "--variant", "7") == 0
    assert capsys.readouterr().err == "sums has no variants: its first code cell has no line `VARIANT = 0`\n"
    assert "VARIANT" not in (tmp_path / "to/sums/sums.ipynb").read_text()
    assert "VARIANT = 7" in (tmp_path / "to/products/products.ipynb").read_text()


def test_a_folder_whose_notebook_is_called_otherwise_is_named(
    own_source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (own_source / "new").mkdir()
    shutil.copy(own_source / "sums/sums.ipynb", own_source / "new/old.ipynb")
    assert run(own_source, tmp_path / "to") == 0
    assert capsys.readouterr().err == f"{own_source / 'new'} is left out: it has no new.ipynb\n"


def test_check_names_what_differs_and_writes_nothing(
    own_source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    to = tmp_path / "to"
    assert run(own_source, to, "--check") == 1
    assert not to.exists()
    run(own_source, to)
    assert run(own_source, to, "--check") == 0
    (to / "sums/checks.py").write_text("# other\n")
    (to / "sums/left_over.py").write_text("# old\n")
    tiny.write_source(to, "gone")
    capsys.readouterr()
    before = release.files(to)
    assert run(own_source, to, "--check") == 1
    said = capsys.readouterr().out
    assert "sums/checks.py is not what its source gives" in said
    assert "sums/left_over.py is not generated from anything" in said
    assert "gone has no source" in said
    assert "sums.ipynb" not in said
    assert release.files(to) == before


def test_a_failed_run_leaves_the_last_release(
    own_source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    to = tmp_path / "to"
    tiny.write_source(own_source, "another")
    run(own_source, to)
    (to / "README.md").write_text("the teacher's own\n")
    run(own_source, to)
    before = release.files(to)
    assert "README.md" in before
    notebook = tiny.master()
    tiny.cell(notebook, "add").source = "### BEGIN SOLUTION\nreturn 5"  # nbgrader refuses: no end
    nbformat.write(notebook, own_source / "sums/sums.ipynb")
    (own_source / "another/checks.py").write_text("# new\n")
    assert run(own_source, to) == 2
    assert "nbgrader cannot release sums: no end solution statement found" in capsys.readouterr().err
    assert release.files(to) == before


def test_a_hidden_check_outside_of_its_marks_is_not_released(
    own_source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    notebook = tiny.master()
    tiny.cell(notebook, "hidden_add").source = "import hidden_checks\nhidden_checks.check_add(add, 0)"
    nbformat.write(notebook, own_source / "sums/sums.ipynb")
    assert run(own_source, tmp_path / "to") == 2
    assert "sums would show students `hidden_checks`" in capsys.readouterr().err
    assert not (tmp_path / "to").exists()


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (["release"], "release.py"),
        (["release", "VARIANT=7"], 'release.py --variant "7" --to _grading/release'),
        (["release", "SOURCE=my course"], 'release.py --source "my course" --to _grading/release'),
        (["grade", "SUBMISSIONS=my class", "VARIANT=7"], 'grade.py "my class" --variant "7"'),
    ],
)
def test_the_commands_of_make(words: list[str], command: str) -> None:
    outside = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    planned = subprocess.run(["make", "-n", *words], cwd=release.ROOT, env=outside, capture_output=True, text=True)
    assert planned.stdout.splitlines()[-1].strip() == f".venv/bin/python solutions/{command}"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["unknown", "--source", "{source}"], "has no exercise unknown; it has sums"),
        (["--source", "{empty}"], "holds no exercise"),
        (["--source", "nowhere"], "there is no folder nowhere"),
        (["--source", "{source}", "--to", "{source}"], "would overwrite its source"),
    ],
)
def test_bad_arguments(
    arguments: list[str], says: str, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"source": source, "empty": tmp_path}
    given = ["--to", str(tmp_path / "to"), *(argument.format(**places) for argument in arguments)]
    assert release.main(given) == 2
    assert says in capsys.readouterr().err


def test_the_exercises_are_what_the_solutions_give(capsys: pytest.CaptureFixture[str]) -> None:
    """Byte for byte. `make release` makes them anew."""
    assert release.main(["--check"]) == 0, capsys.readouterr().out
