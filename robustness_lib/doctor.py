"""Is everything there that the book needs? `robustness doctor`, or `python -m robustness_lib.doctor`

Prints what is installed, the device that will be used, whether torch and torchvision agree, and whether data
and weights are there. On a fault it says what to do and exits with 1. This must run where others do not:
nothing is imported before its turn, and the file keeps to the syntax of Python 3.8.
"""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

__all__ = ["CheckLine", "main"]

OLDEST_PYTHON = (3, 11)
PROJECT = "robustness-lib"
REINSTALL = "call `make book`, or `python -m pip install -e '.[book]'` in the environment that you use"
TWINS = (
    "install both together, from one place: `python -m pip install --force-reinstall torch torchvision`, "
    "or choose your system on the Get Started page of pytorch.org"
)
MODULES = {"pillow": "PIL"}  # where the module is not called as the package is
NMS = (
    "import torch, torchvision\n"
    "boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0]])\n"
    "assert torchvision.ops.nms(boxes, torch.ones(1), 0.5).tolist() == [0]\n"
)


class CheckLine(NamedTuple):
    """One line of the report. A fault holds in `fix` what to do about it; a note may."""

    level: str  # "ok", "note" or "FAULT"
    name: str
    text: str
    fix: str = ""


def ok(name: str, text: str) -> CheckLine:
    return CheckLine("ok", name, text)


def note(name: str, text: str, fix: str = "") -> CheckLine:
    return CheckLine("note", name, text, fix)


def fault(name: str, text: str, fix: str) -> CheckLine:
    return CheckLine("FAULT", name, text, fix)


def first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


def python() -> Iterator[CheckLine]:
    found = ".".join(str(part) for part in sys.version_info[:3])
    if tuple(sys.version_info[:2]) < OLDEST_PYTHON:
        oldest = ".".join(str(part) for part in OLDEST_PYTHON)
        fix = f"install Python {oldest} or newer, then call `make book`"
        yield fault("python", f"{found} at {sys.executable}", fix)
    else:
        yield ok("python", f"{found} at {sys.executable}")


def packages() -> Iterator[CheckLine]:
    """Each requirement of the project. What the library needs must be there; what an extra needs, maybe."""
    try:
        requirements = metadata.requires(PROJECT) or []
    except metadata.PackageNotFoundError:
        yield fault(PROJECT, "not installed here, so what it needs is not known", REINSTALL)
        requirements = ["torch", "torchvision", "numpy", "safetensors"]
    for requirement in requirements:
        name = re.split(r"[^\w.-]", requirement, maxsplit=1)[0]
        extra = re.search(r"extra == ['\"]([\w-]+)['\"]", requirement)
        yield package(name, requirement.split(";")[0], extra.group(1) if extra else "")


def package(name: str, requirement: str, extra: str) -> CheckLine:
    """`extra` is the extra that asks for it, or "" where the library itself does."""
    report, fix = fault, REINSTALL
    if extra:
        report, fix = note, f"only needed for the extra `{extra}`: `python -m pip install -e '.[{extra}]'`"
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return report(name, "not installed", fix)
    if not allows(requirement, version):
        return report(name, f"{version}, and {requirement.strip()} is needed", fix)
    if not extra and not name.startswith("torch"):  # those two are tried by `twins`
        try:
            importlib.import_module(MODULES.get(name, name.replace("-", "_")))
        except Exception as error:
            return fault(name, f"{version} is installed but does not import ({first_line(error)})", fix)
    return ok(name, version)


def allows(requirement: str, version: str) -> bool:
    """Whether `version` meets a requirement such as "torch>=2.11"; true where `packaging` is missing."""
    try:
        from packaging.requirements import Requirement
    except ImportError:
        return True
    return Requirement(requirement).specifier.contains(version, prereleases=True)


def twins() -> Iterator[CheckLine]:
    """torchvision holds compiled parts that fit one release of torch; with another it fails at import or at
    first use. Both are tried in a process of their own, since a wrong binary can also crash."""
    try:
        torch, torchvision = metadata.version("torch"), metadata.version("torchvision")
    except metadata.PackageNotFoundError:
        return  # already reported, with its fix
    both = f"torch {torch} and torchvision {torchvision}"
    for wanted in metadata.requires("torchvision") or []:
        if re.match(r"torch\b(?!-)", wanted) and not allows(wanted.split(";")[0], torch):
            yield fault("torch pair", f"{both} do not agree: this torchvision asks for {wanted}", TWINS)
            return
    trial = subprocess.run([sys.executable, "-c", NMS], capture_output=True, text=True)
    if trial.returncode:
        last = (trial.stderr.strip().splitlines() or [f"exit code {trial.returncode}"])[-1]
        yield fault("torch pair", f"{both} do not work together ({last})", TWINS)
    else:
        yield ok("torch pair", "torch and torchvision agree, and a compiled operator of torchvision runs")


def device() -> Iterator[CheckLine]:
    import torch

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        cuda = torch.cuda.is_available()
    if cuda:
        yield ok("device", f"cuda: {torch.cuda.get_device_name()}")
    elif torch.backends.mps.is_available():
        yield ok("device", "mps: Apple's graphics processor")
    else:
        yield ok("device", f"cpu, {torch.get_num_threads()} threads: enough for every chapter")
    for warning in said:
        yield note("device", str(warning.message).splitlines()[0])


def data() -> Iterator[CheckLine]:
    """The drawn signs always; of the real sets, those that are here are read, and none is downloaded."""
    named = os.environ.get("ROBUSTNESS_DATA")
    if named and not Path(named).expanduser().is_dir():
        fix = "set it to the folder that holds the real data sets, or unset it"
        yield fault("data", f"ROBUSTNESS_DATA is set to {named}, and there is no such folder", fix)
    from robustness_lib import data
    from robustness_lib.data.real import SOURCES

    x, _, classes = data.load("signs", split="test", n=2)
    yield ok("data: signs", f"drawn here: {len(classes)} classes, images {tuple(x.shape[1:])}")
    yield ok("data: folders", ", then ".join(str(folder) for folder in data.data_folders()))
    for name, source in SOURCES.items():
        places = (f"{name}-test.npz", f"{source.torchvision}/raw")
        if not any((folder / place).exists() for folder in data.data_folders() for place in places):
            fix = f"only if you want it: `robustness data fetch {name}`"
            yield note(f"data: {name}", "not here", fix)
            continue
        try:
            yield ok(f"data: {name}", f"{len(data.load(name, split='test')[1])} test images")
        except Exception as error:
            fix = "bring or fetch that file again"
            yield fault(f"data: {name}", f"does not load ({first_line(error)})", fix)


def weights() -> Iterator[CheckLine]:
    from robustness_lib import models

    names = models.list_pretrained()
    if not names:
        yield fault("weights", "the package holds no trained model", REINSTALL)
    for name in names:
        try:
            models.load_pretrained(name)
        except Exception as error:
            fix = "get the file again: `git checkout -- robustness_lib/models/weights`, or install again"
            yield fault(f"weights: {name}", f"does not load ({first_line(error)})", fix)
        else:
            yield ok(f"weights: {name}", "loads, and its checksum is right")


CHECKS: tuple[Callable[[], Iterator[CheckLine]], ...] = (python, twins, packages, device, data, weights)


def findings() -> Iterator[CheckLine]:
    """Every finding, in order. A check that breaks off is itself a fault, and the next check still runs."""
    faults = 0
    for check in CHECKS:
        try:
            for finding in check():
                faults += finding.level == "FAULT"
                yield finding
        except Exception as error:
            fix = "mend the faults above first, then check again" if faults else REINSTALL
            yield fault(check.__name__, f"cannot be checked ({first_line(error)})", fix)
            faults += 1


def main() -> int:
    """Print the report; return 1 if there is a fault, else 0."""
    faults = 0
    for finding in findings():
        print(f"{finding.level:<6} {finding.name:<24} {finding.text}", flush=True)
        if finding.fix:
            print(f"{'':<6} {'':<24} -> {finding.fix}")
        faults += finding.level == "FAULT"
    print()
    print(f"{faults} fault(s): below each is what to do." if faults else "Everything needed is there.")
    return 1 if faults else 0


if __name__ == "__main__":
    from robustness_lib.streams import lasting_streams

    with lasting_streams():
        sys.exit(main())
