"""How far apart the nearest two images of different classes lie, in L∞: within 2ε of each other, one of them is lost
to any classifier that is to be robust at ε.

    python benchmarks/separation.py           about half a minute of one core
    python benchmarks/separation.py --quick   small, into _build/

Writes benchmarks/results/separation.json. Needs MNIST and GTSRB (`robustness data fetch mnist gtsrb`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sections import Figures, run_sections
from torch import Tensor

from robustness_lib import ThreatModel, data

DATA = ("signs", "gtsrb", "mnist")


@dataclass(frozen=True)
class Size:
    images: int = 2000


QUICK = Size(images=40)


def nearest_of_another_class(x: Tensor, y: Tensor) -> int:
    """The smallest L∞ distance between two images of different classes, in grey levels of 255.

    Args:
        x: 8-bit images (N, …) as values in [0, 1].
        y: their labels (N,), of two classes at least.

    Raises:
        ValueError: if all labels are the same: then there are no two such images.
    """
    if len(y.unique()) < 2:
        raise ValueError("images of one class alone have no nearest image of another class: give more images")
    levels = (255 * x).round().short().flatten(1)
    return min(int((levels[y != label] - image).abs().amax(1).min())
               for image, label in zip(levels, y, strict=True))


def of_nearest(size: Size, folder: Path) -> Iterator[Figures]:
    """For each data set, the first images of its test part."""
    found: Figures = {}
    for name in DATA:
        x, y, _ = data.load(name, "test", n=size.images)
        found[name] = {"n": len(x), "grey levels": nearest_of_another_class(x, y)}
        yield {"measured by": "all pairs of the first n test images, L∞", "of": found}


if __name__ == "__main__":
    run_sections({"nearest": of_nearest}, Size(), QUICK, ThreatModel("linf", 4 / 255))
