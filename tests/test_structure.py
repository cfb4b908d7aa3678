"""The house: a room imports only from floors below it, rooms of one floor never in a circle; what is private stays in
its room; everything that is public hands its names on; one thing has one name."""

import ast
import importlib
import json
import subprocess
import sys
from collections import defaultdict
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import robustness_lib

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = Path(robustness_lib.__file__).parent
FLOORS = {
    0: {"counter_random", "claims", "threat", "norm_balls", "losses", "statistics", "shapes", "files", "file_kinds",
        "inputs", "png", "input_advice", "batches", "precision", "model_kinds", "state", "straight_through", "streams",
        "distributed", "errors", "data", "models"},
    1: {"querying", "reports"},
    2: {"attacks", "defenses"},
    3: {"certify"},
    4: {"training", "diagnosis"},
    5: {"evaluation", "doctor"},
    6: {"plotting", "widgets", "notebook", "grading", "cli", "check"},
}
FLOOR = {room: floor for floor, rooms in FLOORS.items() for room in rooms}
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")
PUBLIC = sorted({".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__") for path in FILES
                 if not path.stem.startswith("_") or path.stem == "__init__"})


def room_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def modules_imported(source):
    """Full names of this package's modules and names that some source imports, also inside functions."""
    for node in ast.walk(ast.parse(source)):
        assert not (isinstance(node, ast.ImportFrom) and node.level), "imports are written out, from robustness_lib"
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "robustness_lib":
            for alias in node.names:
                yield f"{node.module}.{alias.name}"
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "robustness_lib":
                    yield alias.name


def rooms_imported(path):
    found = set()
    for name in modules_imported(path.read_text(encoding="utf-8")):
        room = name.split(".")[1] if "." in name else ""
        found.add("threat" if room == "ThreatModel" else room)
    return {room for room in found if room in FLOOR} - {room_of(path)}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(path):
    room = room_of(path)
    assert room in FLOOR, f"{room} has no floor: give it one"
    for other in rooms_imported(path):
        assert FLOOR[other] < FLOOR[room] or FLOOR[other] == FLOOR[room] == 0, f"{room} imports {other}"


def test_no_rooms_import_each_other_in_a_circle():
    graph = {}
    for path in FILES:
        graph.setdefault(room_of(path), set()).update(rooms_imported(path))
    assert len(list(TopologicalSorter(graph).static_order())) == len(graph.keys() | set().union(*graph.values()))


def test_no_files_import_each_other_in_a_circle():
    """Also inside a room, and inside functions. What a room hands on in its __init__ does not count, nor what is
    imported for type checkers alone."""
    names = {".".join(("robustness_lib", *path.relative_to(PACKAGE).with_suffix("").parts)) for path in FILES
             if path.name != "__init__.py"}
    graph = {}
    for path in FILES:
        if path.name == "__init__.py":
            continue
        name = ".".join(("robustness_lib", *path.relative_to(PACKAGE).with_suffix("").parts))
        for found in modules_imported(path.read_text(encoding="utf-8")):
            for module in {found, found.rpartition(".")[0]} & names:
                graph.setdefault(name, set()).add(module)
    assert len(graph) > 60
    assert list(TopologicalSorter(graph).static_order())


# Private modules.


def private_parts(name, room):
    """Where a full name leads through a module that starts with _, outside the package that holds it. room: packages
    inside `robustness_lib` that the importing file lies in; None for a file outside."""
    parts = name.split(".")
    for place, part in enumerate(parts[1:], 1):
        if part.startswith("_") and not part.startswith("__") and (
                room is None or parts[1:place] != room[:place - 1]):
            return ".".join(parts[:place + 1])
    return None


def sources():
    """Everything of the project that uses the library but its tests: the path, its package, its code."""
    for path in FILES:
        yield path, list(path.relative_to(PACKAGE).parent.parts), path.read_text(encoding="utf-8")
    for folder in ("benchmarks", "book"):
        for path in sorted((ROOT / folder).glob("*.py")):
            yield path, None, path.read_text(encoding="utf-8")
    for folder in ("book", "solutions", "exercises"):
        for path in sorted((ROOT / folder).rglob("*.ipynb")):
            cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
            code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
            lines = "\n".join(code).splitlines()
            yield path, None, "\n".join(line for line in lines if not line.lstrip().startswith(("%", "!")))


def test_what_is_private_is_imported_only_inside_its_own_package():
    wrong = [f"{path.relative_to(ROOT)} imports {private}" for path, room, source in sources()
             for name in modules_imported(source) if (private := private_parts(name, room))]
    assert not wrong, "\n".join(wrong)


def test_what_benchmarks_import_is_there():
    """They are run by hand, long after a name was moved."""
    missing = []
    for path in sorted((ROOT / "benchmarks").glob("*.py")):
        for name in modules_imported(path.read_text(encoding="utf-8")):
            module, _, attribute = name.rpartition(".")
            if not module or hasattr(importlib.import_module(module), attribute):
                continue
            try:
                importlib.import_module(name)
            except ImportError:
                missing.append(f"{path.name}: {name}")
    assert not missing


def test_the_rule_sees_what_it_is_to_see():
    assert private_parts("robustness_lib.attacks._search.Run", ["attacks"]) is None
    assert private_parts("robustness_lib.attacks._search.Run", ["evaluation"]) == "robustness_lib.attacks._search"
    assert private_parts("robustness_lib.attacks._search", None) == "robustness_lib.attacks._search"
    assert private_parts("robustness_lib._hidden", None) == "robustness_lib._hidden"
    assert private_parts("robustness_lib._hidden", ["attacks"]) is None
    assert private_parts("robustness_lib.attacks.__init__", None) is None
    assert list(modules_imported("def f():\n    from robustness_lib.attacks import _search")) == [
        "robustness_lib.attacks._search"]


# Public modules and names.


@pytest.mark.parametrize("package", ["", *(f".{name}" for name in PUBLIC)])
def test_what_is_public_exists(package):
    module = importlib.import_module("robustness_lib" + package)
    assert module.__all__ == sorted(module.__all__, key=lambda name: (not name.isupper(), not name[0].isupper(), name))
    for name in module.__all__:
        assert hasattr(module, name)


def test_one_name_for_one_thing():
    """No two classes of the package share a name, nor two aliases of types."""
    homes = defaultdict(set)
    for path in FILES:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes[node.name].add(str(path.relative_to(PACKAGE)))
            elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and (
                    node.targets[0].id[0].isupper() and not node.targets[0].id.isupper()):
                homes[node.targets[0].id].add(str(path.relative_to(PACKAGE)))
    twins = {name: sorted(paths) for name, paths in homes.items() if len(paths) > 1}
    assert not twins


def test_one_spelling():
    """Names and texts of the package are spelled as its room `defenses` is; all but the name of one exercise."""
    other, name = "defen" "ce", "break_the_defen" "ce"
    wrong = [str(path.relative_to(PACKAGE)) for path in FILES
             if other in path.name.replace(name, "") + path.read_text(encoding="utf-8").lower().replace(name, "")]
    assert not wrong


WITHOUT_TORCH = """
import sys

class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "torchvision"):
            raise ImportError("no torch here")

sys.meta_path.insert(0, NoTorch())
from robustness_lib.reports import Report, advice, compare, gate, save_page, track
report = Report.load(sys.argv[1])
assert report.n == 10
assert Report.from_json(report.to_json()).sentence == report.sentence
assert compare(report, report).change == 0
assert gate(report, min_robust=10).outcome in ("pass", "fail", "undecided")
assert gate(report, report, max_drop=1).outcome == "pass"
assert len(advice(report)) > 2
save_page(report, sys.argv[2] + "/report.html")
track(report, sys.argv[2] + "/history.jsonl")

from typer.testing import CliRunner
from robustness_lib.cli import app
for command, codes in ((["gate", sys.argv[1], "--min-robust", "10"], (0, 1, 3)),
                       (["compare", sys.argv[1], sys.argv[1]], (0,)),
                       (["track", sys.argv[1], "--history", sys.argv[2] + "/more.jsonl", "--no-mlflow"], (0,))):
    result = CliRunner().invoke(app, command)
    assert result.exit_code in codes, (command, result.output, result.exception)
listed = CliRunner().invoke(app, ["--help"])
assert listed.exit_code == 0 and "robustness doctor" in listed.output, listed.output
refused = CliRunner().invoke(app, ["evaluate", "--model", "zoo:signs-pgd"])
assert refused.exit_code == 2 and "robustness doctor" in refused.output, refused.output
assert "torch" not in sys.modules
assert not [name for name in sys.modules if name.startswith(("robustness_lib.attacks", "robustness_lib.querying"))]
"""


def test_reports_are_read_compared_and_gated_without_torch(tmp_path):
    from made_reports import make_report

    path = make_report(10, broken={"pgd": [1, 2]}, curve={0.01: range(10)}).save(tmp_path / "report.json")
    done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH, str(path), str(tmp_path)], capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "report.html").is_file()
    assert (tmp_path / "history.html").is_file()
