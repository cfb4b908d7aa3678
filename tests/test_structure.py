"""The house: a room imports only from floors below it, rooms of one floor never in a circle, and everything that is
public hands its names on."""

import ast
import importlib
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import robustness_lib

PACKAGE = Path(robustness_lib.__file__).parent
FLOORS = {
    0: {"counter_random", "threat", "losses", "intervals", "shapes", "files", "inputs", "png", "precision", "state",
        "exact", "distributed", "data", "models"},
    1: {"attacks", "defenses"},
    2: {"certify"},
    3: {"training", "evaluation"},
    4: {"plotting", "widgets", "notebook", "grading", "cli", "check"},
}
FLOOR = {room: floor for floor, rooms in FLOORS.items() for room in rooms}
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def room_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def rooms_imported(path):
    """Rooms that a file imports from, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("robustness_lib."):
            found.add(node.module.split(".")[1])
        elif isinstance(node, ast.ImportFrom) and node.module == "robustness_lib":
            found |= {alias.name for alias in node.names if alias.name in FLOOR}
            found |= {"threat"} if any(alias.name == "ThreatModel" for alias in node.names) else set()
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("robustness_lib.")}
    return found - {room_of(path)}


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
    """Also inside a room, and inside functions. What a room hands on in its __init__ does not count."""
    names = {".".join(("robustness_lib", *path.relative_to(PACKAGE).with_suffix("").parts)) for path in FILES
             if path.name != "__init__.py"}
    graph = {}
    for path in FILES:
        name = ".".join(("robustness_lib", *path.relative_to(PACKAGE).with_suffix("").parts))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and path.name != "__init__.py":
                for found in (node.module, *(f"{node.module}.{alias.name}" for alias in node.names)):
                    if found in names:
                        graph.setdefault(name, set()).add(found)
    assert len(graph) > 60
    assert list(TopologicalSorter(graph).static_order())


@pytest.mark.parametrize("package", ["", ".attacks", ".data", ".defenses", ".evaluation", ".models", ".widgets",
                                     ".threat", ".losses", ".intervals", ".shapes", ".files", ".counter_random",
                                     ".inputs", ".plotting", ".png", ".precision", ".state", ".exact", ".distributed",
                                     ".notebook", ".training"])
def test_what_is_public_exists(package):
    module = importlib.import_module("robustness_lib" + package)
    assert module.__all__ == sorted(module.__all__, key=lambda name: (not name.isupper(), not name[0].isupper(), name))
    for name in module.__all__:
        assert hasattr(module, name)
