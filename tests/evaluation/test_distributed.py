"""Several processes: the verdicts of one, and nobody left waiting.

    torchrun ... test_distributed.py FOLDER     as a script: all of TASKS, what each process found in FOLDER
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small_evaluation import THREAT, problem, small, verdicts
from torch import Tensor

from robustness_lib.distributed import Team, team_from_environment
from robustness_lib.evaluation import Report, evaluate

HERE = Path(__file__).parent
PATH = os.pathsep.join([str(HERE), str(HERE.parent / "attacks"), os.environ.get("PYTHONPATH", "")])
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": PATH, "CUDA_VISIBLE_DEVICES": ""}


# What each process does: these return what it was told.


def error_in_the_last(team: Team, folder: Path) -> str:
    def rude(model: torch.nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return x + 1 if team.rank == team.size - 1 else x

    with pytest.raises((RuntimeError, ValueError), match="left the pixel box") as caught:
        evaluate(*problem(), THREAT, rude, batch_size=16)
    return f"{caught.type.__name__}: {caught.value}"


def different_data(team: Team, folder: Path) -> str:
    model, x, y = problem()
    with pytest.raises(ValueError, match="different data") as caught:
        evaluate(model, x[team.rank :: team.size], y[team.rank :: team.size], THREAT, "quick", batch_size=16)
    return str(caught.value)


def whole(team: Team, folder: Path) -> None:
    small(state=folder / "state").save(folder / f"report.{team.rank}")


TASKS = (error_in_the_last, different_data, whole)

if __name__ == "__main__":
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    with team_from_environment() as joined:
        said = {task.__name__: task(joined, folder) for task in TASKS}
        (folder / f"said.{joined.rank}").write_text(json.dumps(said), encoding="utf-8")


@pytest.fixture(scope="module", params=[2, 3])
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[int, Path]:
    """A number of processes, started once for all tasks, and the folder with what they found."""
    processes, folder = request.param, tmp_path_factory.mktemp("shared")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    done = subprocess.run([*command, __file__, str(folder)], env=ENVIRONMENT, capture_output=True, text=True,
                          timeout=240)
    assert done.returncode == 0, done.stderr
    return processes, folder


@pytest.fixture(scope="module")
def alone() -> Report:
    """What one process says."""
    return small()


def told(folder: Path, rank: int) -> dict[str, str]:
    """What a process was told, by task."""
    content: dict[str, str] = json.loads((folder / f"said.{rank}").read_text(encoding="utf-8"))
    return content


def test_torchrun_gives_the_report_of_one_process(shared: tuple[int, Path], alone: Report) -> None:
    processes, folder = shared
    for rank in range(processes):
        theirs = Report.load(folder / f"report.{rank}")
        assert theirs.environment["processes"] == str(processes)
        assert verdicts(theirs) == verdicts(alone)
    # The state is shared: one process alone finishes from it without work.
    model_calls = [record.calls for record in Report.load(folder / "report.0").attacks]
    assert [record.calls for record in small(state=folder / "state").attacks] == model_calls


def test_an_error_in_one_process_stops_all(shared: tuple[int, Path]) -> None:
    processes, folder = shared
    *others, last = (told(folder, rank)["error_in_the_last"] for rank in range(processes))
    assert last.startswith("Refused: attack 'rude' left the pixel box")
    for other in others:
        assert other.startswith("RuntimeError: another process stopped: Refused: attack 'rude' left the pixel box")


def test_processes_with_different_data_are_refused(shared: tuple[int, Path]) -> None:
    processes, folder = shared
    for rank in range(processes):
        assert told(folder, rank)["different_data"].startswith("the processes were given different data")


def test_alone_there_is_no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with team_from_environment() as team:
        assert team == Team.now() == Team(0, 1)
        assert team.gather(3) == [3]
        with team.together():
            pass
