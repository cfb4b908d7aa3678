"""Several processes: each image's verdict as of one process alone, for all of them.

    torchrun ... test_verify_distributed.py FOLDER     as a script: what each process found, in FOLDER
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from known_nets import THREAT, problem

from robustness_lib.attacks.ensemble_steps import AttackStep
from robustness_lib.certify import verify
from robustness_lib.distributed import team_from_environment

HERE = Path(__file__).parent
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "",
                            "PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])}
BATCH = 8


def shared(team, folder):
    """What one process finds, sees of the progress, and is told where the last one fails."""
    told = []
    found = verify(*problem(), THREAT, batch_size=BATCH, state=folder / "state",
                   progress=lambda done, step: told.append(done))
    columns = {"verdicts": found.verdicts, "decided by": found.decided_by, "margin": found.margin,
               "x_adv": found.x_adv, "told": told,
               "stages": [(stage.name, stage.attempted, stage.decided) for stage in found.stages]}

    def fail(*args):
        raise KeyError("lost")

    if team.rank == team.size - 1:
        AttackStep.work = fail
    with pytest.raises((KeyError, RuntimeError)) as caught:
        verify(*problem(), THREAT, batch_size=BATCH)
    columns["error"] = str(caught.value)
    model, x, y = problem()
    with pytest.raises(ValueError, match=r"the processes were given different things .data.: give"):
        verify(model, x, y.flip(0) if team.rank else y, THREAT)
    if team.rank:
        model[0].weight.data.mul_(2)
    with pytest.raises(ValueError, match=r"the processes were given different things .model.: give"):
        verify(model, x, y, THREAT)
    model[0].weight.data.mul_(torch.nan if team.rank else 1)
    with pytest.raises(Exception, match="NaN"):
        verify(model, x, y, THREAT)
    torch.save(columns, folder / f"found.{team.rank}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    with team_from_environment() as joined:
        shared(joined, Path(sys.argv[1]))


def test_processes_share_the_images_and_all_return_all(tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", __file__]
    done = subprocess.run([*command, str(tmp_path)], env=ENVIRONMENT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    alone = verify(*problem(), THREAT, batch_size=BATCH)
    for rank in range(2):
        theirs = torch.load(tmp_path / f"found.{rank}", weights_only=True)
        assert (theirs["verdicts"], theirs["decided by"]) == (alone.verdicts, alone.decided_by)
        assert torch.equal(theirs["margin"], alone.margin)
        assert torch.equal(theirs["x_adv"], alone.x_adv)
        assert theirs["stages"] == [(stage.name, stage.attempted, stage.decided) for stage in alone.stages]
        assert theirs["told"] == sorted(theirs["told"])
        assert theirs["told"][-1] == alone.n
        assert "lost" in theirs["error"]
    # One process alone finishes from the shared state without work.
    pieces = len(list((tmp_path / "state").glob("*.npz")))
    verify(*problem(), THREAT, batch_size=BATCH, state=tmp_path / "state")
    assert len(list((tmp_path / "state").glob("*.npz"))) == pieces
