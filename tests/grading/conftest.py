"""The tiny exercise of tiny.py, as its teacher and as its students have it."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
from course import Exercise, make_course, read_exercise
from nbformat import NotebookNode


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_source(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="session")
def exercise(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Exercise:
    """As it is for grading, in variant 7."""
    root = tmp_path_factory.mktemp("course")
    make_course(root, source, ["sums"], 7, gradebook=True)
    return read_exercise(root, "sums")


@pytest.fixture
def solved(exercise: Exercise) -> NotebookNode:
    return tiny.solved(exercise.release)
