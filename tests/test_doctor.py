"""`python -m robustness_lib.doctor`, run in environments that are broken for real.

Each is a virtual environment of its own, made in a fraction of a second: its packages are links to those that
are installed here, all but the ones that the test takes away or spoils. Every run imports torch, which costs
seconds: that is why one environment holds several faults.
"""

from __future__ import annotations

import ast
import os
import runpy
import shutil
import subprocess
import sysconfig
import venv
from pathlib import Path

import pytest
from typer.testing import CliRunner

from robustness_lib import doctor
from robustness_lib.cli import app

PACKAGE = Path(doctor.__file__).parent
INSTALLED = Path(sysconfig.get_path("purelib"))


class Environment:
    """A virtual environment with links to all that is installed here, and a copy of the library."""

    def __init__(self, folder: Path) -> None:
        venv.create(folder, with_pip=False, symlinks=True)
        self.folder = folder
        (self.packages,) = folder.glob("lib/python*/site-packages")
        for entry in INSTALLED.iterdir():
            if entry.name.startswith("_robustness_lib") or entry.name in ("robustness_lib", "__pycache__"):
                continue
            (self.packages / entry.name).symlink_to(entry)
        self.library = self.packages / "robustness_lib"
        shutil.copytree(PACKAGE, self.library, ignore=shutil.ignore_patterns("__pycache__"))

    def metadata(self, name: str) -> Path:
        """The folder that says a package is installed, and which version."""
        (found,) = self.packages.glob(f"{name}-*.dist-info")
        return found

    def remove(self, name: str) -> None:
        (self.packages / name).unlink()
        self.metadata(name).unlink()

    def rewrite_metadata(self, name: str, field: str, value: str) -> None:
        """Give one field of a package's metadata another value, in a copy."""
        link = self.metadata(name)
        original = link.resolve()
        link.unlink()
        shutil.copytree(original, link)
        file = link / "METADATA"
        lines = file.read_text(encoding="utf-8").splitlines()
        (number,) = [n for n, line in enumerate(lines) if line.startswith(field)]
        lines[number] = f"{field.split()[0]} {value}"
        file.write_text("\n".join(lines), encoding="utf-8")

    def check(self, **variables: str) -> subprocess.CompletedProcess[str]:
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "ROBUSTNESS_"))}
        return subprocess.run(
            [self.folder / "bin" / "python", "-m", "robustness_lib.doctor"],
            cwd=self.folder, env=clean | {"ROBUSTNESS_CACHE": str(self.folder / "cache")} | variables,
            capture_output=True, text=True, timeout=300,
        )  # fmt: skip


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    return Environment(tmp_path / "environment")


def faults(ran: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """Name of each fault -> its line and the line that says what to do."""
    assert "Traceback" not in ran.stderr, ran.stderr
    lines = ran.stdout.splitlines()
    found = {}
    for number, line in enumerate(lines):
        if line.startswith("FAULT"):
            assert lines[number + 1].strip().startswith("-> "), f"no advice under: {line}"
            found[line[7:31].strip()] = f"{line}\n{lines[number + 1]}"
    assert ran.returncode == (1 if found else 0), ran.stdout
    return found


def test_all_is_well(environment: Environment) -> None:
    environment.remove("nbval")  # only the tests need it: said, and no fault
    ran = environment.check()
    assert faults(ran) == {}, ran.stdout
    assert "Everything needed is there." in ran.stdout
    for name in ("python ", "torch ", "torch pair", "device ", "data: signs", "weights: signs-pgd"):
        assert f"\nok     {name}" in f"\n{ran.stdout}", name
    assert "note   nbval" in ran.stdout


def test_safetensors_is_missing(environment: Environment) -> None:
    environment.remove("safetensors")
    found = faults(environment.check())
    assert "not installed" in found["safetensors"]
    assert "make book" in found["safetensors"]
    assert "mend the faults above first" in found["weights"]


def test_torch_is_missing(environment: Environment) -> None:
    environment.remove("torch")
    found = faults(environment.check())
    assert "not installed" in found["torch"]
    assert "make book" in found["torch"]
    assert {"device", "data", "weights"} <= found.keys()


def test_torchvision_does_not_fit_torch_and_others_are_broken(environment: Environment) -> None:
    for name, code in {
        "torchvision": "raise RuntimeError('operator torchvision::nms does not exist')",
        "anywidget": "import gone_for_good",
    }.items():
        (environment.packages / name).unlink()
        (environment.packages / f"{name}.py").write_text(code)
    environment.rewrite_metadata("scipy", "Version:", "1.0.0")
    found = faults(environment.check())
    assert found.keys() == {"torch pair", "anywidget", "scipy"}
    assert "operator torchvision::nms does not exist" in found["torch pair"]
    assert "install both together" in found["torch pair"]
    assert "does not import" in found["anywidget"]
    assert "gone_for_good" in found["anywidget"]
    assert "1.0.0, and scipy>=" in found["scipy"]


def test_torchvision_asks_for_another_torch_and_files_are_damaged(
    environment: Environment, tmp_path: Path
) -> None:
    environment.rewrite_metadata("torchvision", "Requires-Dist: torch ", "torch (==1.13.0)")
    weights = environment.library / "models" / "weights" / "signs-pgd.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    (tmp_path / "cifar10-test.npz").write_bytes(b"PK\x03\x04 and no more")
    found = faults(environment.check(ROBUSTNESS_DATA=str(tmp_path)))
    assert found.keys() == {"torch pair", "weights: signs-pgd", "data: cifar10"}
    assert "torch (==1.13.0)" in found["torch pair"]
    assert "get the file again" in found["weights: signs-pgd"]
    assert "cifar10-test.npz" in found["data: cifar10"]


def test_the_project_is_not_installed_and_the_data_folder_is_not_there(
    environment: Environment, tmp_path: Path
) -> None:
    environment.metadata("robustness_lib").unlink()
    found = faults(environment.check(ROBUSTNESS_DATA=str(tmp_path / "nowhere")))
    assert found.keys() == {"robustness-lib", "data"}
    assert "pip install -e" in found["robustness-lib"]
    assert "nowhere" in found["data"]


def test_an_old_python_is_told_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor.sys, "version_info", (3, 10, 4, "final", 0))
    monkeypatch.setattr(doctor, "CHECKS", (doctor.python,))
    assert doctor.main() == 1
    said = capsys.readouterr().out
    assert "FAULT  python                   3.10.4" in said
    assert "install Python 3.11 or newer" in said


@pytest.mark.parametrize("name", ["doctor.py", "__init__.py", "streams.py"])
def test_an_old_python_can_read_it(name: str) -> None:
    ast.parse((PACKAGE / name).read_text(encoding="utf-8"), feature_version=(3, 8))


def test_the_old_name_still_works_and_says_the_new_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "CHECKS", (doctor.python,))
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("robustness_lib.check", run_name="__main__")
    assert ended.value.code == 0
    said = capsys.readouterr()
    assert "Everything needed is there" in said.out
    assert "robustness doctor" in said.err


def test_the_command_says_the_same_and_ends_with_its_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "CHECKS", (doctor.python,))
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 0, result.output
    assert "Everything needed is there" in result.output
    monkeypatch.setattr(doctor.sys, "version_info", (3, 10, 4, "final", 0))
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 1
    assert "FAULT" in result.output
