"""Several processes: the verdicts of one, and nobody left waiting."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from small_evaluation import small, verdicts

from robustness_lib.distributed import Team, team_from_environment
from robustness_lib.evaluation import Report

HERE = Path(__file__).parent
PATH = os.pathsep.join([str(HERE), str(HERE.parent / "attacks"), os.environ.get("PYTHONPATH", "")])
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": PATH, "CUDA_VISIBLE_DEVICES": ""}


def torchrun(processes: int, *script: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return subprocess.run([*command, *map(str, script)], env=ENVIRONMENT, capture_output=True, text=True, timeout=240)


@pytest.mark.parametrize("processes", [2, 3])
def test_torchrun_gives_the_report_of_one_process(tmp_path: Path, processes: int) -> None:
    done = torchrun(processes, HERE / "small_evaluation.py", tmp_path / "report", tmp_path / "state")
    assert done.returncode == 0, done.stderr
    alone = small()
    for rank in range(processes):
        theirs = Report.load(tmp_path / f"report.{rank}")
        assert theirs.environment["processes"] == str(processes)
        assert verdicts(theirs) == verdicts(alone)
    # The state is shared: one process alone finishes from it without work.
    model_calls = [record.calls for record in Report.load(tmp_path / "report.0").attacks]
    assert [record.calls for record in small(state=tmp_path / "state").attacks] == model_calls


def test_an_error_in_one_process_stops_all(tmp_path: Path) -> None:
    script = tmp_path / "fails.py"
    script.write_text("""
import sys
from small_evaluation import THREAT, problem, evaluate
from robustness_lib.distributed import team_from_environment

def rude(model, x, y):
    return x + 1 if team.rank == 1 else x

with team_from_environment() as team:
    try:
        evaluate(*problem(), THREAT, rude, batch_size=16)
    except Exception as error:
        print(f"rank {team.rank}: {type(error).__name__}: {error}", file=sys.stderr)
""")
    done = torchrun(2, script)
    assert "rank 0: RuntimeError: another process stopped: Refused: attack 'rude' left the pixel box" in done.stderr
    assert "rank 1: Refused: attack 'rude' left the pixel box" in done.stderr


def test_processes_with_different_data_are_refused(tmp_path: Path) -> None:
    script = tmp_path / "sampled.py"
    script.write_text("""
import sys
from small_evaluation import THREAT, problem, evaluate
from robustness_lib.distributed import team_from_environment

with team_from_environment() as team:
    model, x, y = problem()
    try:
        evaluate(model, x[team.rank::2], y[team.rank::2], THREAT, "quick", batch_size=16)
    except ValueError as error:
        print(f"rank {team.rank}: {error}", file=sys.stderr)
""")
    done = torchrun(2, script)
    for rank in range(2):
        assert f"rank {rank}: the processes were given different data" in done.stderr


def test_alone_there_is_no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with team_from_environment() as team:
        assert team == Team.now() == Team(0, 1)
        assert team.gather(3) == [3]
        with team.together():
            pass
