"""The files around the code: the two lists of dependencies agree, and the README says what is true."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from robustness_lib import doctor
from robustness_lib.cli import app

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def project_files(*suffixes: str) -> list[Path]:
    """Files that are in git or would be, except those of other people."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout, so it is not known which files belong to the project")
    paths = (ROOT / line for line in listed.stdout.splitlines() if "/vendor/" not in line)
    return [path for path in paths if path.is_file() and (not suffixes or path.name.endswith(suffixes))]


# Dependencies.


def conda() -> tuple[list[str], list[str]]:
    """environment.yml: what conda installs, and what pip does."""
    listed = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
    by_pip = [entry["pip"] for entry in listed if isinstance(entry, dict)]
    assert len(by_pip) == 1
    return [entry for entry in listed if isinstance(entry, str)], by_pip[0]


def test_conda_installs_the_same() -> None:
    extras = PROJECT["optional-dependencies"]
    wanted = PROJECT["dependencies"] + extras["book"] + extras["test"]
    found = conda()[1]
    assert found.count("-e .[book,test]") == 1
    assert sorted(entry for entry in found if not entry.startswith("-e")) == sorted(wanted)


def test_conda_python_is_one_that_the_project_takes() -> None:
    python = next(entry for entry in conda()[0] if entry.startswith("python="))
    oldest = PROJECT["requires-python"].removeprefix(">=")
    assert [int(n) for n in python.removeprefix("python=").split(".")] >= [int(n) for n in oldest.split(".")]


def test_every_dependency_has_a_bound_and_its_reason() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    lists = (PROJECT["dependencies"], *PROJECT["optional-dependencies"].values())
    for dependency in (dependency for listed in lists for dependency in listed):
        assert re.search(r"[<>=]\d", dependency), f"{dependency} has no bound"
        found = list(re.finditer(rf'^.*"{re.escape(dependency)}",?(.*)$', text, flags=re.MULTILINE))
        assert found
        for line in found:  # one for each extra that has it
            above = text[: line.start()].rstrip().splitlines()[-1]
            assert "# " in line[1] or above.strip().startswith("#"), f"{dependency} gives no reason"


def imported_packages() -> set[str]:
    """What the library's files import at the top level of a name, wherever in the file."""
    names: set[str] = set()
    for path in (ROOT / "robustness_lib").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.split(".")[0])
    return names - set(sys.stdlib_module_names) - {"robustness_lib"}


def test_what_the_library_imports_is_declared() -> None:
    declared = {re.split(r"[^\w-]", dependency)[0] for dependency in PROJECT["dependencies"]}
    declared = {doctor.MODULES.get(name, name) for name in declared}
    # Parts of ipywidgets, what `check` does without where it is missing, and what is used only where it is installed.
    assert imported_packages() - declared <= {"traitlets", "IPython", "packaging", "mpl_toolkits", "timm", "mlflow"}


def test_one_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    init = (ROOT / "robustness_lib/__init__.py").read_text(encoding="utf-8")
    assert citation["version"] == PROJECT["version"]
    assert f'__version__ = "{PROJECT["version"]}"' in init


# The README and other words.


def test_the_readme_names_targets_that_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", MAKEFILE, flags=re.MULTILINE))
    code = "\n".join(re.findall(r"```sh\n.*?```|`[^`\n]+`", README, flags=re.S))
    named = set(re.findall(r"\bmake ([a-z]+)", code))
    assert {"book", "test", "lab", "serve", "notebooks", "clean", "help"} <= targets
    assert {"book", "test"} <= named
    assert named <= targets


def test_make_help_lists_every_target() -> None:
    said = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    phony = re.search(r"^\.PHONY: (.*)$", MAKEFILE, flags=re.MULTILINE)
    assert phony
    assert set(phony[1].split()) == set(re.findall(r"^  make (\w+)", said, flags=re.MULTILINE))


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A folder in which make finds everything installed, as its stamps say."""
    (tmp_path / "Makefile").write_text(MAKEFILE, encoding="utf-8")
    (tmp_path / ".venv/bin").mkdir(parents=True)
    for number, name in enumerate((".venv/bin/python", "pyproject.toml", ".venv/installed-book")):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (1_000_000 + number, 1_000_000 + number))
    return tmp_path


def plan(folder: Path, *arguments: str) -> str:
    # Not as a child of the make that may run this test: that one would announce the folders.
    outside = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    command = ["make", "-n", *arguments]
    return subprocess.run(command, cwd=folder, env=outside, capture_output=True, text=True, check=True).stdout


def test_a_second_make_installs_nothing(installed: Path) -> None:
    assert plan(installed, "book").strip() == ".venv/bin/python book/build.py"
    assert "pip install" in plan(installed, "test")  # the book's stamp says nothing of the tests' packages
    (installed / "pyproject.toml").touch()
    assert "pip install" in plan(installed, "book")


def test_make_says_which_python_it_needs(tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_text(MAKEFILE, encoding="utf-8")
    old = tmp_path / "python-of-old"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    ran = subprocess.run(["make", "venv", f"PYTHON={old}"], cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode
    assert "Python 3.11 or newer is needed" in ran.stdout
    assert str(old) in ran.stdout


PYTHON_IN_README = re.findall(r"```python\n(.*?)```", README, flags=re.S)


def test_the_example_in_the_readme_runs_in_ten_lines(tmp_path: Path) -> None:
    example = PYTHON_IN_README[0]
    assert len([line for line in example.splitlines() if line.strip()]) <= 10
    ran = subprocess.run([sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    standard, robust = (int(re.findall(r"on (\d+) of 100", line)[0]) for line in ran.stdout.splitlines())
    assert standard < robust, ran.stdout


def test_all_examples_in_the_readme_run_one_after_the_other(tmp_path: Path) -> None:
    """On three images: on a hundred it takes minutes."""
    example = "\n".join(PYTHON_IN_README).replace("n=100", "n=3")
    ran = subprocess.run([sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert re.search(r"% \(95 %: .*n = 3\)", ran.stdout)
    assert re.search(r"^square \d of \d in \d+ s$", ran.stdout, flags=re.M)
    assert (tmp_path / "run" / "header.json").is_file()
    assert re.search(r"^Under L∞ 4/255 at most \d+ % .* of 3 images resist; ", ran.stdout, flags=re.M)
    assert '"suite": "quick"' in (tmp_path / "report.json").read_text(encoding="utf-8")


def test_the_commands_in_the_readme_have_these_options() -> None:
    """Each line of the shell examples is one that the command would take."""
    examples = [block for block in re.findall(r"```sh\n(.*?)```", README, flags=re.S) if "robustness " in block]
    lines = [line.split("#")[0] for block in examples for line in block.replace("\\\n", " ").splitlines()]
    assert {"check", "evaluate", "certify", "verify", "gate", "train"} == {line.split()[1] for line in lines}
    for line in lines:
        _, name, *words = line.split()
        helped = CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "200"}).stdout
        assert {word for word in words if word.startswith("--")} <= set(re.findall(r"--[a-z][a-z-]*", helped)), line


def test_the_map_in_the_readme_names_the_chapters_that_exist() -> None:
    there = {path.name for path in (ROOT / "book").glob("[0-9]*.ipynb")}
    assert set(re.findall(r"\(book/(\d\d_\w+\.ipynb)\)", README)) == there


@pytest.mark.parametrize(
    ("name", "says"),
    [("LICENSE", "MIT License"), ("LICENSE-TEXT", "https://creativecommons.org/licenses/by/4.0/")],
)
def test_the_licences_are_there(name: str, says: str) -> None:
    assert says in (ROOT / name).read_text(encoding="utf-8")
    assert name in PROJECT["license-files"]


def markdown(path: Path) -> str:
    """A page's Markdown: the whole file, or the Markdown cells of a notebook."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        return "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    return text


def local_links(path: Path) -> list[str]:
    """Targets of Markdown links and images that are files here: no web addresses, no labels in the page."""
    text = re.sub(r"```.*?```|`[^`\n]*`|\$[^$\n]*\$", "", markdown(path), flags=re.S)
    targets = re.findall(r"\]\(<?([^)\s>]+)>?[^)]*\)", text)
    return [t.split("#")[0] for t in targets if not re.match(r"[a-z]+:|#", t) and t.split("#")[0]]


def resolves(path: Path, target: str) -> bool:
    # A chapter may link to a page by its name without ".ipynb" or ".md", as Sphinx does.
    return any((path.parent / f"{target}{suffix}").exists() for suffix in ("", ".md", ".ipynb"))


def test_links_to_files_lead_somewhere() -> None:
    broken = [
        f"{path.relative_to(ROOT)}: {target}"
        for path in project_files(".md", ".ipynb")
        for target in local_links(path)
        if not resolves(path, target)
    ]
    assert not broken


def test_the_link_test_sees_a_broken_link(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("[a](gone.md) [b](page.md#x) [c](https://example.org) [d](#e) `[f](g.md)` [h](page)")
    assert [target for target in local_links(page) if not resolves(page, target)] == ["gone.md"]


ABSOLUTE = re.compile(r"(?<![\w.~:/$}<])/(?:home|root|work|Users|tmp|opt|mnt|farm)/[\w.]")


def test_no_path_of_one_machine() -> None:
    text_files = (".py", ".md", ".toml", ".yml", ".js", ".css", ".cff", ".ipynb", ".json", "Makefile", "run")
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}"
        for path in project_files(*text_files)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if ABSOLUTE.search(line)
    ]
    assert not found


def test_the_path_test_sees_a_path() -> None:
    assert ABSOLUTE.search("open('/home" + "/ada/data.npz')")
    assert not ABSOLUTE.search("https://example.org/home/ada and ../opt/x")


def test_scripts_can_be_called() -> None:
    assert (ROOT / ".ci/run").stat().st_mode & 0o111
    subprocess.run(["bash", "-n", ROOT / ".ci/run"], check=True)
