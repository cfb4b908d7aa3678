"""Memory: halved batches, and an evaluation that needs no more for many images than for few."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch

from robustness_lib.querying.batch_size import ShrinkingBatchSize

STREAMED = """
import resource, sys
import torch
from robustness_lib import ThreatModel
from robustness_lib.attacks import FGSM, PGD, SquareAttack
from robustness_lib.evaluation import evaluate

torch.set_num_threads(1)
torch.manual_seed(0)
threat = ThreatModel("linf", 4 / 255)
model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 8, stride=8), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(4),
                            torch.nn.Flatten(), torch.nn.Linear(128, 1000)).eval()

def batches(n):
    for number in range(n // 8):
        x = torch.rand(8, 3, 224, 224, generator=torch.Generator().manual_seed(number))
        with torch.no_grad():
            yield x, model(x).argmax(1)

attacks = [FGSM(threat), PGD(threat, steps=2), SquareAttack(threat, queries=4)]
report = evaluate(model, batches(int(sys.argv[1])), threat=threat, suite=attacks, batch_size=8, curve=(0.01,))
print(report.n, len(report.classes), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def most_memory(n: int) -> float:
    """MB that a process needed at most to evaluate n images of 3×224×224 (0.6 MB each), 1000 classes."""
    # Freed images go back to the system at once, not to the C library's heap: else its gaps are counted too.
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "200000"}
    done = subprocess.run([sys.executable, "-c", STREAMED, str(n)], env=environment, capture_output=True, text=True,
                          timeout=300)
    assert done.returncode == 0, done.stderr
    images, classes, kilobytes = map(int, done.stdout.split())
    assert (images, classes) == (n, 1000)
    return kilobytes / 1000


@pytest.mark.skipif(sys.platform != "linux", reason="counts memory as Linux does")
def test_memory_does_not_grow_with_the_number_of_images() -> None:
    few, many = most_memory(48), most_memory(240)
    assert many - few < 20, (few, many)  # 192 images more are 115 MB, and as much again for what is found


def run(size: ShrinkingBatchSize, work: Callable[[int], int]) -> int:
    """As the loop over attacks does it."""
    while True:
        try:
            return work(size.now)
        except Exception as error:
            if not size.can_shrink(error):
                raise
        size.shrink()


def test_batches_are_halved_until_it_works() -> None:
    size, tried = ShrinkingBatchSize(20), []

    def work(now: int) -> int:
        tried.append(now)
        if now > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return now

    assert run(size, work) == 2
    assert tried == [20, 10, 5, 2]
    assert run(size, work) == 2  # what has been learned is kept
    assert [warning.kind for warning in size.warnings] == ["memory"]


@pytest.mark.parametrize("error", [RuntimeError("CUDA error: out of memory"), MemoryError(),
                                   RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")])
def test_memory_runs_out_in_several_words(error: Exception) -> None:
    size = ShrinkingBatchSize(4)
    assert size.can_shrink(error)
    assert not size.warnings
    size.shrink()
    size.shrink()
    assert size.now == 1
    assert not size.can_shrink(error)  # one image alone is too much


def test_other_errors_are_not_tried_again() -> None:
    assert not ShrinkingBatchSize(8).can_shrink(RuntimeError("shape mismatch"))
