"""A batch is graded to its end whatever students hand in; what was graded is kept; the tables say what happened."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import course
import grade
import isolation
import pytest
import submitted
import tables
import tiny
from course import Exercise
from execution import Settle
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_output

ISOLATED = isolation.without_network() is not None
NETWORK = [] if ISOLATED else ["--allow-network"]


def arguments(folder: Path, source: Path, *more: str) -> list[str]:
    """Submissions in `folder/in`, in variant 7, results into `folder/out`."""
    places = [str(folder / "in"), "--source", str(source), "--out", str(folder / "out")]
    return [*places, "--variant", "7", *NETWORK, *more]


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


# Which files are graded.


SUMS = {"sums": {"add", "double", "check_add", "check_double"}}


def test_where_submissions_lie(tmp_path: Path) -> None:
    for path in ("ann/sums/sums.ipynb", "bert/sums.ipynb", "ann/sums.ipynb", "carl/other.ipynb", "carl/x/sums.ipynb",
                 "sums.ipynb", "dora/sums/data.csv", "ann/sums/timestamp.txt", "ann/.ipynb_checkpoints/sums.ipynb",
                 "emil/sums/hidden_checks.py", "fred/fred/sums/sums.ipynb"):  # fmt: skip
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    (tmp_path / "gina").mkdir()
    (tmp_path / "gina/sums.ipynb").symlink_to(tmp_path / "bert/sums.ipynb")
    found, skipped = submitted.find_submissions(tmp_path, SUMS)
    assert [(s.student, s.path.relative_to(tmp_path).as_posix()) for s in found] == [
        ("ann", "ann/sums/sums.ipynb"),
        ("bert", "bert/sums.ipynb"),
    ]
    assert skipped == [
        "ann/sums.ipynb is skipped: ann/sums/sums.ipynb is graded",
        "carl/other.ipynb is skipped: it is none of sums, by its name or by its cells",
        "carl/x/sums.ipynb is skipped: it is none of sums, by its name or by its cells",
        "dora/sums/data.csv is skipped: only notebooks are graded",
        "emil/sums/hidden_checks.py is skipped: only notebooks are graded",
        "fred/fred/sums/sums.ipynb is skipped: it is none of sums, by its name or by its cells",
        "gina/sums.ipynb is skipped: it is a link to another file",
        "sums.ipynb is skipped: it is in no student's folder",
    ]


def test_a_notebook_by_another_name_is_known_by_its_cells(tmp_path: Path, solved: NotebookNode) -> None:
    for path in ("ann/sums (1).ipynb", "bert/week 2/homework/sums.ipynb", "carl/sums.ipynb", "carl/sums copy.ipynb"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(tiny.content(solved))
    found, skipped = submitted.find_submissions(tmp_path, {"products": {"multiply"}, **SUMS})
    assert [(s.student, s.exercise, s.path.name) for s in found] == [
        ("ann", "sums", "sums (1).ipynb"),
        ("bert", "sums", "sums.ipynb"),
        ("carl", "sums", "sums.ipynb"),
    ]
    assert skipped == ["carl/sums copy.ipynb is skipped: carl/sums.ipynb is graded"]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["nowhere"], "there is no folder nowhere"),
        (["{empty}"], "holds no STUDENT/NAME/NAME.ipynb"),
        (["{empty}", "--source", "{empty}"], "holds no exercise"),
        (["{empty}", "--workers", "0"], "--workers must be at least 1"),
        (["{empty}", "--minutes", "0"], "--minutes more than 0"),
        (["{empty}", "--minutes", "nan"], "--minutes more than 0"),
    ],
)
def test_bad_arguments(
    given: list[str], says: str, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word.format(empty=tmp_path) for word in given]
    assert grade.main(["--source", str(source), "--out", str(tmp_path / "out"), *NETWORK, *words]) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_without_isolation_nothing_is_graded_unless_asked(
    source: Path,
    tmp_path: Path,
    solved: NotebookNode,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tiny.hand_in(tmp_path / "in", "ann", solved)
    monkeypatch.setattr(isolation, "COMMANDS", (["false"], ["no-such-command"]))
    asked = [word for word in arguments(tmp_path, source) if word != "--allow-network"]
    assert grade.main(asked) == 2
    assert "--allow-network" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert grade.isolation(allow_network=True) == []


# What a check is worth.


@pytest.mark.parametrize(
    ("outputs", "worth", "says"),
    [
        (["✓ fine", 1.5], 1.5, ""),
        ([0.0], 0.0, ""),
        (["stderr", 2.0], 2.0, ""),
        ([], 0.0, "returned no number: it counts 0"),
        (["'full marks'"], 0.0, "returned no number: it counts 0"),
        (["nan"], 0.0, "returned no number: it counts 0"),
        (["text"], 0.0, "returned no number: it counts 0"),
        ([5.0], 2.0, "returned 5 of 2 points; 2 count"),
        ([-1.0], 0.0, "returned -1 of 2 points; 0 count"),
        (["error"], 0.0, ""),
    ],
)
def test_what_a_check_is_worth(outputs: list[Any], worth: float, says: str) -> None:
    """As nbgrader counts it, after it was settled; "full marks" as text would be full marks for nbgrader."""
    cell = tiny.marked(new_code_cell("check()"), "check", 2)
    for output in outputs:
        if output == "stderr":
            cell.outputs.append(new_output("stream", name="stderr", text="UserWarning"))
        elif output == "error":
            cell.outputs.append(new_output("error", ename="NameError", evalue="f", traceback=[]))
        elif isinstance(output, float) or output in ("'full marks'", "nan"):
            cell.outputs.append(new_output("execute_result", data={"text/plain": str(output)}))
        else:
            cell.outputs.append(new_output("stream", name="stdout", text=f"{output}\n"))
    settle = Settle()
    settle.preprocess_cell(cell, {}, 0)
    from nbgrader.utils import determine_grade

    assert determine_grade(cell) == (worth, 2)
    assert says in "; ".join(settle.remarks)
    assert bool(says) == bool(settle.remarks)
    if "error" in outputs:
        assert settle.findings == [("check", "✗ NameError: f")]
    if "✓ fine" in outputs:
        assert settle.findings == [("check", "✓ fine")]


def result(student: str, points: float, *lines: str, unreadable: bool = False) -> dict[str, Any]:
    cells = {"check": {"points": points, "of": 2.0, "open": 0.0}, "why": {"points": 0.0, "of": 1.0, "open": 1.0}}
    return {"student": student, "exercise": "sums", "cells": cells, "checks": ["check"], "remarks": ["a", "b"],
            "findings": [("check", line) for line in lines], "unreadable": unreadable}  # fmt: skip


def test_which_checks_failed_how_often(tmp_path: Path) -> None:
    results = [
        result("ann", 2, "✓ right"),
        result("bert", 0, "✗ wrong by 0.25", "✗ wrong by 1e-05", "✗ step 2 is slow"),
        result("carl", 1.5, "✗ wrong by 0.75", "✓ right"),
        result("dora", 0, unreadable=True),
    ]
    assert tables.failed_checks(results) == [
        ("sums", "check", "", 2, 3),
        ("sums", "check", "✗ wrong by …", 2, 3),
        ("sums", "check", "✗ step 2 is slow", 1, 3),
    ]
    assert tables.printed_checks(results[:1]) == "No check failed."
    tables.write_tables(tmp_path, results)
    assert table(tmp_path / "grades.csv")[2] == {
        "student": "carl", "exercise": "sums", "points": "1.5", "of": "3", "open": "1", "remarks": "a; b",
    }  # fmt: skip
    assert table(tmp_path / "cells.csv")[5]["points"] == "0"
    assert {path.name for path in tmp_path.iterdir()} == {"grades.csv", "cells.csv", "checks.csv"}


# The batch, without a kernel: a job's process is replaced by one that writes what it is told.


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Who is graded, in order; everybody gets all points."""
    ran: list[str] = []

    def run_job(batch: Any, submission: Any, folder: Path, result: Any) -> None:
        assert (folder / "submitted/student/sums/sums.ipynb").is_file()
        assert (folder / "source/sums/hidden_checks.py").is_file()
        assert not list((folder / "source").rglob("*.ipynb"))  # the solution: the student's code could read it
        ran.append(submission.student)
        for cell in result["cells"].values():
            cell["points"], cell["open"] = cell["of"], 0.0
        result["cut_short"] = submission.student == "slow"

    monkeypatch.setattr(grade, "run_job", run_job)
    monkeypatch.setattr("nbgrader.api.get_alembic_version", lambda: "0")  # a process of its own, for a second
    return ran


def test_only_what_has_changed_is_graded_again(
    source: Path, tmp_path: Path, solved: NotebookNode, jobs: list[str], capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    own_source = shutil.copytree(source, tmp_path / "source")
    call = arguments(tmp_path, own_source)
    for student in ("ann", "bert", "slow"):
        tiny.hand_in(tmp_path / "in", student, solved)
    assert grade.main(call) == 0
    assert sorted(jobs) == ["ann", "bert", "slow"]
    assert "3/3 " in capsys.readouterr().out

    jobs.clear()
    assert grade.main(call) == 0
    assert jobs == []
    said = capsys.readouterr().out
    assert "3 of them were graded before" in said
    assert len(table(tmp_path / "out/grades.csv")) == 3

    grade.main([*call, "--minutes", "20"])  # what ran out of time gets more
    assert jobs == ["slow"]

    jobs.clear()
    solved.cells.append(new_code_cell("1 + 1"))
    (tmp_path / "in/bert/sums/sums.ipynb").write_bytes(tiny.content(solved))
    grade.main([*call, "--minutes", "20"])
    assert jobs == ["bert"]

    jobs.clear()
    (tmp_path / "out/state/ann/sums.json").write_text('{"key": "half a fi')
    grade.main([*call, "--minutes", "20"])
    assert jobs == ["ann"]

    jobs.clear()
    (own_source / "sums/hidden_checks.py").write_text(f"{tiny.HIDDEN}\n# stricter\n")
    grade.main([*call, "--minutes", "20"])
    assert sorted(jobs) == ["ann", "bert", "slow"]

    jobs.clear()
    grade.main([*call, "--minutes", "20", "--variant", "8"])
    assert sorted(jobs) == ["ann", "bert", "slow"]

    jobs.clear()
    monkeypatch.setattr(grade, "program_hash", lambda: "another version of the library")
    grade.main([*call, "--minutes", "20", "--variant", "8"])
    assert sorted(jobs) == ["ann", "bert", "slow"]


def test_what_cannot_be_read_gets_nothing_and_stops_nobody(
    source: Path, tmp_path: Path, solved: NotebookNode, jobs: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    tiny.hand_in(tmp_path / "in", "ann", solved)
    tiny.hand_in(tmp_path / "in", "bert", b"")
    tiny.hand_in(tmp_path / "in", "carl", b"{")
    assert grade.main(arguments(tmp_path, source)) == 0
    rows = {row["student"]: row for row in table(tmp_path / "out/grades.csv")}
    points = [(row["points"], row["of"], row["open"]) for row in rows.values()]
    assert points == [("8", "8", "0"), ("0", "8", "0"), ("0", "8", "0")]
    assert rows["bert"]["remarks"] == "it was not graded: the file is empty"
    assert rows["carl"]["remarks"] == "it was not graded: the file is no notebook: it is not JSON"
    assert jobs == ["ann"]
    assert "No check failed." in capsys.readouterr().out


def test_another_call_leaves_earlier_grades_in_the_tables(
    source: Path, tmp_path: Path, solved: NotebookNode, jobs: list[str]
) -> None:
    tiny.hand_in(tmp_path / "in", "ann", solved)
    assert grade.main(arguments(tmp_path, source)) == 0
    (tmp_path / "in").rename(tmp_path / "week 1")
    tiny.hand_in(tmp_path / "in", "bert", solved)
    assert grade.main(arguments(tmp_path, source)) == 0
    assert [row["student"] for row in table(tmp_path / "out/grades.csv")] == ["ann", "bert"]
    assert jobs == ["ann", "bert"]


def test_every_source_has_a_folder_of_its_own(
    source: Path, tmp_path: Path, solved: NotebookNode, jobs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.hand_in(tmp_path / "in", "ann", solved)
    monkeypatch.setattr(grade, "ROOT", tmp_path)
    assert grade.main([str(tmp_path / "in"), "--source", str(source), *NETWORK]) == 0
    assert (tmp_path / f"_grading/graded-{source.name}/grades.csv").is_file()


def test_an_error_of_ours_stops_nobody_and_is_not_kept(
    source: Path, tmp_path: Path, solved: NotebookNode, jobs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for student in ("ann", "bert"):
        tiny.hand_in(tmp_path / "in", student, solved)
    make_job = grade.make_job

    def no_space(batch: Any, submission: Any, *more: Any) -> None:
        if submission.student == "ann":
            raise OSError("no space left on device")
        make_job(batch, submission, *more)

    monkeypatch.setattr(grade, "make_job", no_space)
    assert grade.main(arguments(tmp_path, source)) == 0
    rows = {row["student"]: row for row in table(tmp_path / "out/grades.csv")}
    assert rows["ann"]["remarks"] == "grading broke off: OSError: no space left on device"
    assert rows["bert"]["points"] == "8"
    monkeypatch.setattr(grade, "make_job", make_job)
    grade.main(arguments(tmp_path, source))
    assert jobs == ["bert", "ann"]


@pytest.fixture
def job_runs(tmp_path: Path, solved: NotebookNode, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Lets other code take the place of grade_one.py, for a submission that is there."""
    tiny.hand_in(tmp_path / "in", "ann", solved)
    (tmp_path / "solutions").mkdir()
    monkeypatch.setattr(grade, "ROOT", tmp_path)
    monkeypatch.setattr(grade, "GRACE", 1)
    monkeypatch.setattr("nbgrader.api.get_alembic_version", lambda: "0")

    def replace(code: str) -> None:
        (tmp_path / "solutions/grade_one.py").write_text(code, encoding="utf-8")

    return replace


@pytest.mark.parametrize("network", [NETWORK, ["--allow-network"]])
def test_a_process_that_hangs_is_ended_with_all_that_it_started(
    network: list[str], source: Path, tmp_path: Path, job_runs: Callable[[str], None]
) -> None:
    late = tmp_path / "late"  # what a process that outlives the job would make
    child = f"import time, pathlib; time.sleep(3); pathlib.Path({str(late)!r}).touch()"
    job_runs(f"""import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", {child!r}], start_new_session=True)
time.sleep(60)""")
    start = time.monotonic()
    assert grade.main(arguments(tmp_path, source, "--minutes", "0.01", *network)) == 0
    assert time.monotonic() - start < 30
    (row,) = table(tmp_path / "out/grades.csv")
    assert row["remarks"].endswith("it did not end in 0.01 minutes and could not be stopped in an orderly way")
    assert (row["points"], row["open"]) == ("0", "2")  # the answer can still be read
    time.sleep(3)
    assert not late.exists()


def test_a_process_that_dies_is_named(source: Path, tmp_path: Path, job_runs: Callable[[str], None]) -> None:
    job_runs("import os\nos._exit(5)")
    assert grade.main(arguments(tmp_path, source)) == 0
    (row,) = table(tmp_path / "out/grades.csv")
    assert row["remarks"] == "no check counts: its process ended by itself (code 5)"


RESULT = """import json, pathlib
cells = {name: {"points": 2.0, "of": 2.0, "open": 0.0} for name in ("check_add", "why")}
result = {"cells": cells, "findings": [], "remarks": [], "cut_short": False}
pathlib.Path("result.json").write_text(json.dumps(result))
"""


def test_a_result_counts_only_where_the_process_ended_well(
    source: Path, tmp_path: Path, job_runs: Callable[[str], None]
) -> None:
    job_runs(f"{RESULT}\nimport os\nos._exit(9)")
    assert grade.main(arguments(tmp_path, source)) == 0
    (row,) = table(tmp_path / "out/grades.csv")
    assert row["points"] == "0"


def test_points_for_an_answer_come_from_a_person(
    source: Path, tmp_path: Path, job_runs: Callable[[str], None]
) -> None:
    job_runs(RESULT)
    assert grade.main(arguments(tmp_path, source)) == 0
    (row,) = table(tmp_path / "out/grades.csv")
    assert (row["points"], row["open"]) == ("2", "2")


# With kernels.


def with_cell(solved: NotebookNode, code: str) -> NotebookNode:
    """A good notebook with one more cell between its two steps."""
    notebook = tiny.solved(solved)
    notebook.cells.insert(tiny.place(notebook, "double"), new_code_cell(code))
    return notebook


CONNECT = """
import socket
try:
    socket.create_connection(("127.0.0.1", {port}), timeout=5)
    print("rea" + "ched")
except OSError:
    print("cut " + "off")
"""
NOISE = """
import sys
def add(a, b):
    print("UserWarning", file=sys.stderr)
    print("x" * 3_000_000)
    return a + b
"""


@pytest.fixture(scope="module")
def batch(source: Path, exercise: Exercise, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a batch that has been graded, with the ways in which a notebook ends its process or never ends."""
    folder = tmp_path_factory.mktemp("batch")
    noisy = tiny.solved(exercise.release)
    tiny.cell(noisy, "add").source = NOISE
    with socket.create_server(("127.0.0.1", 0)) as server:
        connect = CONNECT.format(port=server.getsockname()[1])
        handed_in = {  # the endless one first: it takes longest
            "Aaron": with_cell(exercise.release, "while True:\n    pass"),
            "dead": with_cell(exercise.release, "import os\nos._exit(1)"),
            "noisy": noisy,
            "Zoë [2]*": with_cell(exercise.release, connect),
            "untouched": exercise.release,
        }
        for student, notebook in handed_in.items():
            tiny.hand_in(folder / "in", student, notebook)
        assert grade.main(arguments(folder, source, "--minutes", "0.35")) == 0
    return folder


@pytest.fixture
def rows(batch: Path) -> dict[str, dict[str, str]]:
    return {row["student"]: row for row in table(batch / "out/grades.csv")}


def test_everybody_has_grades_and_a_page(batch: Path, rows: dict[str, dict[str, str]]) -> None:
    assert list(rows) == sorted(rows)
    points = {student: (row["points"], row["of"], row["open"]) for student, row in rows.items()}
    assert points == {
        "Aaron": ("3", "8", "2"),
        "dead": ("3", "8", "2"),
        "noisy": ("6", "8", "2"),
        "Zoë [2]*": ("6", "8", "2"),
        "untouched": ("0", "8", "0"),
    }
    for student in rows:
        assert "check_double" in (batch / "out/feedback" / student / "sums.html").read_text(encoding="utf-8")


def test_the_remarks_say_what_happened(rows: dict[str, dict[str, str]]) -> None:
    assert "the kernel ended in or before cell 7; the cells below were not run" in rows["dead"]["remarks"]
    assert "was stopped after" in rows["Aaron"]["remarks"]
    assert "printed too much" in rows["noisy"]["remarks"]
    assert rows["Zoë [2]*"]["remarks"] == rows["untouched"]["remarks"] == ""


@pytest.mark.skipif(not ISOLATED, reason="this system has no unshare, or does not allow it")
def test_nothing_outside_is_reached(batch: Path) -> None:
    page = (batch / "out/feedback/Zoë [2]*/sums.html").read_text(encoding="utf-8")
    assert "cut off" in page
    assert "reached" not in page


def test_the_failed_checks_are_counted(batch: Path) -> None:
    counted = [(row["check"], row["line"], row["failed"], row["of"]) for row in table(batch / "out/checks.csv")]
    assert counted[0] == ("check_double", "", "3", "5")
    assert ("check_add", "✗ add raises NotImplementedError", "1", "5") in counted
    assert ("check_double", "✗ NameError: name 'double' is not defined", "1", "5") in counted


def test_a_second_call_starts_no_kernel(batch: Path, source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (batch / "out/grades.csv").read_bytes()
    assert grade.main(arguments(batch, source, "--minutes", "0.35")) == 0
    assert "5 of them were graded before" in capsys.readouterr().out
    assert (batch / "out/grades.csv").read_bytes() == before


def test_points_by_hand_reach_the_grades_and_the_page(batch: Path, source: Path, tmp_path: Path) -> None:
    shutil.copytree(batch, tmp_path, dirs_exist_ok=True)
    by_hand = tmp_path / "out/by_hand.csv"
    rows = by_hand.read_text(encoding="utf-8")
    answer = "noisy,sums,why,2,There are two terms.,"
    assert f"{answer},\n" in rows
    assert "untouched" not in rows  # nobody wrote anything there
    page = tmp_path / "out/feedback/noisy/sums.html"
    assert "sums (Score: 6 / 8; 2 more are for a person to give)" in page.read_text(encoding="utf-8")

    by_hand.write_text(rows.replace(f"{answer},\n", f"{answer}1.5,which terms?\n"), encoding="utf-8")
    assert grade.main(arguments(tmp_path, source, "--minutes", "0.35")) == 0
    row = next(row for row in table(tmp_path / "out/grades.csv") if row["student"] == "noisy")
    assert (row["points"], row["open"]) == ("7.5", "0")
    assert "sums (Score: 7.5 / 8)" in page.read_text(encoding="utf-8")
    assert "which terms?" in page.read_text(encoding="utf-8")

    by_hand.write_text(rows.replace(f"{answer},\n", f"{answer}three,\n"), encoding="utf-8")
    assert grade.main(arguments(tmp_path, source)) == 2  # and nothing is graded or lost
    assert page.is_file()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "points"),
    [
        ("import sys\nsys.exit()", "6"),
        ("quit()", "6"),
        ("raise KeyboardInterrupt", "6"),
        ("for _ in range(200_000):\n    print('x' * 200)", "6"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)", "3"),
        ("while True:\n    try:\n        while True:\n            pass\n    except BaseException:\n        pass", "3"),
    ],
)
def test_ways_to_end(code: str, points: str, source: Path, exercise: Exercise, tmp_path: Path) -> None:
    tiny.hand_in(tmp_path / "in", "ann", with_cell(exercise.release, code))
    assert grade.main(arguments(tmp_path, source, "--minutes", "0.35")) == 0
    (row,) = table(tmp_path / "out/grades.csv")
    assert (row["points"], row["of"]) == (points, "8")


@pytest.fixture
def killed(source: Path, exercise: Exercise, tmp_path: Path) -> list[str]:
    """The command of a batch that was killed after its first notebook."""
    for student in ("ann", "bert", "carl"):
        tiny.hand_in(tmp_path / "in", student, tiny.solved(exercise.release))
    command = [sys.executable, str(grade.ROOT / "solutions/grade.py"), *arguments(tmp_path, source, "--workers", "1")]
    outside = {**os.environ, "TMPDIR": str(tmp_path)}  # a batch that is killed leaves its temporary folder
    process = subprocess.Popen(command, env=outside, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    for line in process.stdout:
        if line.startswith("1/3 ann"):
            break
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    return command


@pytest.mark.slow
def test_a_killed_batch_goes_on(killed: list[str], tmp_path: Path) -> None:
    assert json.loads((tmp_path / "out/state/ann/sums.json").read_text())["student"] == "ann"
    ran = subprocess.run(killed, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert "1 of them were graded before" in ran.stdout
    assert "1/3" not in ran.stdout
    assert "3/3" in ran.stdout
    assert len(table(tmp_path / "out/grades.csv")) == 3


@pytest.mark.slow
def test_the_nbgrader_command_itself(exercise: Exercise, tmp_path: Path) -> None:
    """With nbgrader_config.py: students get no hidden checks, and submissions are graded with them."""
    shutil.copy(grade.ROOT / "nbgrader_config.py", tmp_path)
    tiny.write_source(tmp_path / "solutions")
    tiny.hand_in(tmp_path / "_grading/submitted", "ann", tiny.solved(exercise.release))
    for step in ("generate_assignment", "autograde", "generate_feedback"):
        command = [sys.executable, "-m", "nbgrader", step, "sums"]
        ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
    assert {path.name for path in (tmp_path / "exercises/sums").iterdir()} == {"sums.ipynb", "checks.py"}
    assert "sums (Score: 6.0 / 8.0)" in (tmp_path / "_grading/feedback/ann/sums/sums.html").read_text(encoding="utf-8")


def test_the_course_is_made_by_this_environments_alembic(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    course.make_course(tmp_path, source, ["sums"], None, gradebook=True)
    assert (tmp_path / "gradebook.db").is_file()
