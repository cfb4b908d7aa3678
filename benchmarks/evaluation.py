"""What chapter 11 shows at full size: three reports, and how far a number moves with how it is measured.

    python benchmarks/evaluation.py                 all of it, about half an hour of one core
    python benchmarks/evaluation.py --only restarts one section
    python benchmarks/evaluation.py --quick         small, into _build/

Writes benchmarks/results/evaluation.json and a report for each of the three models beside it. A killed run goes on
where it was.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from sections import ROOT, Figures, run_sections
from torch import Tensor, nn

from robustness_lib import ThreatModel, data, models
from robustness_lib.attacks import FGSM, PGD, Attack, AutoAttack
from robustness_lib.data.signs import SEEDS
from robustness_lib.evaluation import evaluate
from robustness_lib.statistics import Accuracy

THREAT = ThreatModel("linf", 8 / 255)
CURVE = tuple(level / 255 for level in (1, 2, 4, 6, 8, 12, 16, 24, 32, 64, 127.5))
FRESH = 20_000  # of the signs' endless series, the first image that no model was trained on
BITS = 4  # of the weights of the candidate in section `paired`



@dataclass(frozen=True)
class Size:
    """How many images each section takes."""

    report: int = 500
    moves: int = 1000
    starts: int = 20
    attacks: int = 200
    images: int = 10_000
    sets: tuple[int, ...] = (50, 100, 200, 500, 1000)


QUICK = Size(report=20, moves=40, starts=3, attacks=10, images=200, sets=(50, 100))


class Loud(nn.Module):
    """The same decisions, logits a thousand times as large: the softmax saturates, and its gradient is zero."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return 1000 * self.model(x)


def three_models() -> dict[str, nn.Module]:
    return {"signs-standard": models.load_pretrained("signs-standard"),
            "signs-pgd": models.load_pretrained("signs-pgd"),
            "signs-loud": Loud(models.load_pretrained("signs-standard"))}


def rounded(model: nn.Module, bits: int) -> nn.Module:
    """A copy whose weights take one of 2**bits − 1 evenly spaced values per tensor, as in a compressed file."""
    smaller = copy.deepcopy(model)
    levels = 2 ** (bits - 1) - 1
    with torch.no_grad():
        for weight in smaller.parameters():
            step = weight.abs().max() / levels
            weight.copy_((weight / step).round() * step)
    return smaller


def stands(attack: Attack, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """(n,) bool: right, and not broken within ε. (FAB returns the nearest error that it found, however far.)"""
    result = attack.run(model, x, y)
    return ~(result.success & (result.distance <= THREAT.eps * (1 + 1e-5) + 1e-6))


def share(standing: Tensor) -> Figures:
    accuracy = Accuracy(int(standing.sum()), len(standing))
    return {"right": accuracy.correct, "n": accuracy.n}


# ---------------------------------------------------------------------------------------- sections

def reports(size: Size, folder: Path) -> Iterator[Figures]:
    """The standard suite on each of the three models."""
    x, y, classes = data.load("signs", "test", n=size.report)
    figures: Figures = {}
    for name, model in three_models().items():
        report = evaluate(model, x, y, THREAT, "standard", classes=classes, curve=CURVE, batch_size=100,
                          state=ROOT / f"_build/evaluation/{name}-{size.report}")
        report = replace(report, pictures=())  # the chapter shows none, and they are most of the file
        report.save(folder / f"report-{name}.json")
        print(f"  {name}: {report} ({report.seconds:.0f} s)", flush=True)
        figures[name] = share(report.robust) | {"seconds": round(report.seconds), "sentence": report.sentence}
    yield figures


def steps(size: Size, folder: Path) -> Iterator[Figures]:
    """PGD with one start and more and more steps."""
    x, y, _ = data.load("signs", "test", n=size.moves)
    model = models.load_pretrained("signs-pgd")
    yield {str(k): share(stands(PGD(THREAT, steps=k), model, x, y)) for k in (1, 2, 5, 10, 20, 50, 100, 200)}


def restarts(size: Size, folder: Path) -> Iterator[Figures]:
    """PGD-20 from start after start: each alone, and the worst case per image so far."""
    x, y, _ = data.load("signs", "test", n=size.moves)
    model, so_far = models.load_pretrained("signs-pgd"), torch.ones(size.moves, dtype=torch.bool)
    alone, together = [], []
    for seed in range(size.starts):
        standing = stands(PGD(THREAT, steps=20, seed=seed), model, x, y)
        so_far &= standing
        alone.append(share(standing))
        together.append(share(so_far))
    yield {"alone": alone, "together": together}


def attacks(size: Size, folder: Path) -> Iterator[Figures]:
    """Each attack alone on all images, and what all of them together leave."""
    x, y, _ = data.load("signs", "test", n=size.attacks)
    model, left = models.load_pretrained("signs-pgd"), torch.ones(size.attacks, dtype=torch.bool)
    suite: dict[str, Attack] = {"fgsm": FGSM(THREAT), "pgd-20": PGD(THREAT, steps=20),
                                "pgd-20, 5 starts": PGD(THREAT, steps=20, restarts=5)}
    figures: Figures = {}
    for name, attack in (suite | AutoAttack(THREAT).attacks(10)).items():
        standing = stands(attack, model, x, y)
        left &= standing
        figures[name] = share(standing)
        print(f"  {name}: {figures[name]}", flush=True)
    yield figures | {"worst case": share(left)}


def many(size: Size) -> tuple[Tensor, Tensor]:
    return data.draw_signs(size.images, start=FRESH)


def images(size: Size, folder: Path) -> Iterator[Figures]:
    """PGD-20 on many fresh images, cut into sets: how far do sets of n images lie apart?"""
    x, y = many(size)
    standing = stands(PGD(THREAT, steps=20), models.load_pretrained("signs-pgd"), x, y)
    sets = {str(n): [int(part.sum()) for part in standing[:len(standing) // n * n].split(n)] for n in size.sets}
    yield {"all": share(standing), "sets": sets}


def split(size: Size, folder: Path) -> Iterator[Figures]:
    """PGD-20 on the first test images, on the whole test split, and on the images that its series would go on with: is
    the split another kind of image, or only another draw?"""
    model, attack = models.load_pretrained("signs-pgd"), PGD(THREAT, steps=20)
    x, y, _ = data.load("signs", "test")
    standing = stands(attack, model, x[:2 * size.moves], y[:2 * size.moves])
    later = stands(attack, model, *data.draw_signs(size.images, start=len(x), seed=SEEDS["test"]))
    yield {"first": share(standing[:size.moves]), "whole": share(standing), "series, further on": share(later)}


def paired(size: Size, folder: Path) -> Iterator[Figures]:
    """The same model with weights of few bits, on the same images: how many verdicts change, and which way?"""
    x, y = many(size)
    model = models.load_pretrained("signs-pgd")
    before, after = (stands(PGD(THREAT, steps=20), net, x, y) for net in (model, rounded(model, BITS)))
    figures: Figures = {"bits": BITS}
    for n in (100, 1000, size.images):
        a, b = before[:n], after[:n]
        figures[str(n)] = {"before": share(a), "after": share(b), "lost": int((a & ~b).sum()),
                           "gained": int((~a & b).sum())}
    yield figures


SECTIONS: dict[str, Callable[[Size, Path], Iterator[Figures]]] = {
    "steps": steps, "restarts": restarts, "images": images, "split": split, "paired": paired,
    "reports": reports, "attacks": attacks,
}


if __name__ == "__main__":
    run_sections(SECTIONS, Size(), QUICK, THREAT)
