"""A whole evaluation on a small net, in seconds: for tests, and for the processes that tests start and kill.

    python small_evaluation.py RESULT STATE [DIE_AT]     DIE_AT: be killed while the file of this number is written
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

import torch
from quick_auto_attack import Quick, problem

from robustness_lib import ThreatModel, state
from robustness_lib.attacks import FGSM, PGD
from robustness_lib.distributed import team_from_environment
from robustness_lib.evaluation import Report, evaluate
from robustness_lib.evaluation.suites import Suite, SuiteEntry

THREAT = ThreatModel("linf", 0.05)
SUITE = Suite("small", (SuiteEntry("fgsm", FGSM(THREAT)), SuiteEntry("pgd-5", PGD(THREAT, steps=5, restarts=2)),
                        SuiteEntry("autoattack", Quick(THREAT))), curve=True, diagnostics=True)


def small(**settings: Any) -> Report:
    model, x, y = problem()
    return evaluate(model, x, y, THREAT, **({"suite": SUITE, "batch_size": 16} | settings))


def verdicts(report: Report) -> dict[str, Any]:
    """All of a report but when and how fast it was made."""
    content: dict[str, Any] = json.loads(report.to_json())
    for attack in content["attacks"]:
        del attack["seconds"], attack["calls"]
    del content["seconds"], content["environment"]["date"], content["environment"]["processes"]
    return content


def die_at(number: int) -> None:
    """Kill this process when it has half written its file of this number."""
    written = [0]
    write_whole = state.write_whole

    def write(path: Any, content: bytes) -> None:
        written[0] += 1
        if written[0] > number:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.with_name(f"{path.name}.0123.part").write_bytes(content[:len(content) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        write_whole(path, content)

    state.write_whole = write


if __name__ == "__main__":
    torch.set_num_threads(1)
    if len(sys.argv) > 3:
        die_at(int(sys.argv[3]))
    with team_from_environment() as team:
        report = small(state=sys.argv[2] or None)
        report.save(f"{sys.argv[1]}.{team.rank}")
