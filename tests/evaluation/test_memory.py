"""Memory: halved batches, and an evaluation that needs no more for many images than for few."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from robustness_lib.evaluation._memory import Batch

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


def test_batches_are_halved_until_it_works() -> None:
    batch, tried = Batch(20), []

    def work(size: int) -> int:
        tried.append(size)
        if size > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return size

    assert batch.run(work) == 2
    assert tried == [20, 10, 5, 2]
    assert batch.run(work) == 2  # what has been learned is kept
    assert len(batch.note) == 1


@pytest.mark.parametrize("error", [RuntimeError("CUDA error: out of memory"), MemoryError(),
                                   RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")])
def test_memory_runs_out_in_several_words(error: Exception) -> None:
    def work(size: int) -> int:
        if size > 1:
            raise error
        return size

    assert Batch(4).run(work) == 1


def test_other_errors_and_single_images_are_not_tried_again() -> None:
    tried = []

    def fails(size: int) -> int:
        tried.append(size)
        raise RuntimeError("shape mismatch")

    with pytest.raises(RuntimeError, match="shape"):
        Batch(8).run(fails)
    assert tried == [8]

    def never(size: int) -> int:
        raise torch.OutOfMemoryError("no")

    with pytest.raises(torch.OutOfMemoryError):
        Batch(8).run(never)
