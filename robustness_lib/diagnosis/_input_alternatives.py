"""Is the model read right? Its accuracy where pixels are prepared otherwise, or labels numbered otherwise."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from robustness_lib.models import Normalize
from robustness_lib.models.normalizations import NORMALIZATIONS
from robustness_lib.reports.findings import P_VALUE
from robustness_lib.statistics import Accuracy, binomial_test, mcnemar

__all__ = [
    "Alternative",
    "PixelTransform",
    "Preprocessing",
    "as_good",
    "beats_guessing",
    "best_of",
    "compared",
    "flags",
    "label_alternatives",
    "largest_share",
    "mixtures",
    "preprocessings",
]

PixelTransform = Callable[[Tensor], Tensor]
_LEAST = 0.05  # five points: smaller differences are for whoever trained the model
_LEAST_RENUMBERED = 0.2  # a renumbering is fitted to the data, so more is asked of it
_SWAPPED = "channels as blue, green, red"
_TITLES = {"imagenet": "ImageNet mean/std", "cifar10": "CIFAR-10 mean/std", "mnist": "MNIST mean/std",
           "half": "pixels from −1 to 1", "bytes": "pixels from 0 to 255"}


class Preprocessing(NamedTuple):
    """A way to change pixels before the model gets them, and what to do if that is better."""

    name: str
    advice: str
    transform: PixelTransform


@dataclass(frozen=True)
class Alternative:
    """Another way to read the model, beside the way it was given, on the same images. gained, lost: images right only
    so, and right only as given. p: one-sided exact McNemar test, times the number of alternatives tried (Bonferroni).
    share: of the largest class. better: by five points or more, p < .01, and more than guessing would get."""

    name: str
    advice: str
    accuracy: Accuracy
    gained: int
    lost: int
    p: float
    share: float

    @property
    def better(self) -> bool:
        enough = self.p < P_VALUE and self.gained - self.lost >= _LEAST * self.accuracy.n
        return enough and beats_guessing(self.accuracy, self.share)

    @property
    def words(self) -> str:
        return f"{100 * self.accuracy.value:.1f} % with {self.name}"


def compared(name: str, advice: str, predicted: Tensor, before: Tensor, y: Tensor, tried: int) -> Alternative:
    """predicted, before, y: (n,), the same images read in two preparations, and their labels."""
    right, as_given = predicted == y, before == y
    gained, lost = int((right & ~as_given).sum()), int((as_given & ~right).sum())
    p = min(1.0, tried * mcnemar(gained, lost, "greater"))
    return Alternative(name, advice, Accuracy(int(right.sum()), len(right)), gained, lost, p, largest_share(y))


def largest_share(y: Tensor) -> float:
    """Of the images, those in the largest class: the accuracy of a model that always answers it."""
    return int(y.bincount().max()) / len(y)


def beats_guessing(accuracy: Accuracy, share: float) -> bool:
    """Exact binomial test."""
    return binomial_test(accuracy.correct, accuracy.n, share) < P_VALUE


def best_of(alternatives: Iterable[Alternative]) -> Alternative | None:
    """The best of those that are better than as given."""
    return max((r for r in alternatives if r.better), key=lambda r: r.accuracy.correct, default=None)


def as_good(best: Alternative, found: Iterable[Alternative]) -> str:
    """In words, which others these images cannot tell from the best one."""
    others = [r.words for r in found if r is not best and r.better
              and best.accuracy.correct - r.accuracy.correct < _LEAST * best.accuracy.n]
    return f". About as good: {', '.join(others)}; the training script knows for sure" if others else ""


def preprocessings(channels: int, inside: Normalize | None) -> Iterator[Preprocessing]:
    """What a model with this many channels may expect. inside: the normalization that the wrapped model begins with,
    which is undone first; None where none can be seen."""
    undo = _undo(inside)
    for key, title in _TITLES.items():
        mean, std = NORMALIZATIONS[key]
        if len(mean) not in (1, channels) or (key == "mnist" and channels != 1):
            continue
        normalize = Normalize(mean * (channels // len(mean)), std * (channels // len(std)))
        if inside is not None and _same(inside, normalize):
            continue
        advice = ("your model expects normalized input; use " if inside is None else
                  "that is not the normalization that your model expects; use ") + flags(key)
        yield Preprocessing(title, advice, _chain(normalize, undo))
        if inside is None and key not in ("mnist", "bytes"):
            yield Preprocessing(f"{title} undone", "your model seems to normalize its input although its weights "
                                "expect pixels as they are, or to do it twice; take one normalization out",
                                _undo(normalize))
    if inside is not None:
        yield Preprocessing("raw pixels", "your model normalizes by itself, or expects pixels as they are; leave out "
                            "--mean and --std", undo)
    if channels == 3:
        yield Preprocessing(_SWAPPED, "the model was trained on such images; flip them, x.flip(1), in a function that "
                            "wraps it", lambda x: x.flip(1))


def mixtures(preparations: Sequence[Preprocessing], best: str) -> Iterator[Preprocessing]:
    """The order of the channels together with another change, where the best single one is one of the two."""
    swapped = next(way for way in preparations if way.name == _SWAPPED)
    for way in preparations:
        if way is not swapped and best in (way.name, _SWAPPED):
            yield Preprocessing(f"{way.name}, {_SWAPPED}", f"{way.advice}. And {swapped.advice}",
                                _chain(swapped.transform, way.transform))


def flags(key: str) -> str:
    """The options that put this normalization inside the model."""
    mean, std = NORMALIZATIONS[key]
    if key in ("half", "bytes"):
        return f"--mean {key}"
    return f"--mean {_figures(mean)} --std {_figures(std)} (or --mean {key})"


def label_alternatives(predicted: Tensor, y: Tensor) -> tuple[Alternative, ...]:
    """Are the classes numbered otherwise? predicted, y: (n,). Labels one too high, one too low, or in another order."""
    found = [compared("labels − 1", "your labels begin at 1, or the model leaves out its class 0; take 1 off the "
                      "labels", predicted + 1, predicted, y, 2),
             compared("labels + 1", "the model has one more class before your first (for the background?); add 1 to "
                      "the labels", predicted - 1, predicted, y, 2)]
    renumbered = None if any(r.better for r in found) else _renumbered(predicted, y)
    return (*found, renumbered) if renumbered else tuple(found)


def _renumbered(predicted: Tensor, y: Tensor) -> Alternative | None:
    """The order of the classes that fits one half of the images, tried on the other half. None where there are too few
    images, where several classes would share a number, or where the gain is small."""
    fits: dict[int, int] = {}
    even = torch.arange(len(y)) % 2 == 0
    for label in sorted(set(y.tolist())):
        mine = predicted[even & (y == label)]
        if len(mine) < 2:
            return None
        fits[label] = int(mine.mode().values)
    if len(set(fits.values())) < len(fits):
        return None
    other, of = predicted[~even], y[~even]
    meant = {answer: label for label, answer in fits.items()}
    moved = torch.tensor([meant.get(answer, -1) for answer in other.tolist()])
    names = ", ".join(f"{label} is answered {answer}" for label, answer in fits.items() if label != answer)
    names = names if names.count(",") < 4 else ", ".join(names.split(", ")[:4]) + ", ..."
    alternative = compared("classes in another order", f"the model numbers the classes otherwise than the data: "
                           f"{names}. Sort the data's classes as in training", moved, other, of, 1)
    gain = (alternative.gained - alternative.lost) / max(1, len(of))
    return alternative if gain >= _LEAST_RENUMBERED else None


def _undo(normalize: Normalize | None) -> PixelTransform:
    if normalize is None:
        return lambda x: x

    def undone(x: Tensor) -> Tensor:
        mean, std = normalize.along(x)
        return x * std + mean

    return undone


def _chain(first: PixelTransform, last: PixelTransform) -> PixelTransform:
    return lambda x: last(first(x))


def _same(a: Normalize, b: Normalize) -> bool:
    return a.mean.shape == b.mean.shape and bool(torch.allclose(a.mean.cpu(), b.mean, atol=1e-4)
                                                 and torch.allclose(a.std.cpu(), b.std, atol=1e-4))


def _figures(numbers: tuple[float, ...]) -> str:
    return ",".join(f"{number:g}" for number in numbers)
