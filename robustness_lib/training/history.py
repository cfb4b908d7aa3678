"""What a training did, epoch by epoch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from robustness_lib.files import read_text, write_whole
from robustness_lib.statistics import Accuracy

__all__ = ["Epoch", "History"]


@dataclass(frozen=True)
class Epoch:
    """epoch: its number, from 1. loss: mean over its batches. rate: learning rate at its end. seconds: of training,
    without validation. clean, fgsm, robust: accuracy on the validation images, without attack, under one step, and
    under PGD; None where they were not measured."""

    epoch: int
    loss: float
    rate: float
    seconds: float
    clean: Accuracy | None = None
    fgsm: Accuracy | None = None
    robust: Accuracy | None = None

    @property
    def score(self) -> float | None:
        """By which epochs are compared: robust accuracy where there is a threat model, else clean accuracy."""
        accuracy = self.robust or self.clean
        return None if accuracy is None else accuracy.value

    def __str__(self) -> str:
        parts = [f"epoch {self.epoch}: loss {self.loss:.3f}"]
        for name in ("clean", "fgsm", "robust"):
            accuracy = getattr(self, name)
            if accuracy is not None:
                parts.append(f"{name} {accuracy}")
        return ", ".join(parts)


@dataclass
class History:
    """epochs: in order. kept: number of the epoch whose weights the model has at the end. stopped: why training ended
    before its last epoch, in words, or None. collapsed: whether one-step training overfitted catastrophically (see
    `collapse`). noted: what else should be known of it, in words, or None."""

    epochs: list[Epoch] = field(default_factory=list)
    kept: int = 0
    stopped: str | None = None
    collapsed: bool = False
    noted: str | None = None

    def __iter__(self) -> Iterator[Epoch]:
        return iter(self.epochs)

    def __len__(self) -> int:
        return len(self.epochs)

    @property
    def best(self) -> Epoch | None:
        """The epoch with the highest score; among equals that with more clean accuracy, then the first. None where none
        was measured."""
        measured = [epoch for epoch in self.epochs if epoch.score is not None]
        return max(measured, key=lambda epoch: (epoch.score, epoch.clean.value if epoch.clean else 0, -epoch.epoch),
                   default=None)

    @property
    def seconds(self) -> float:
        """Of training, without validation."""
        return sum(epoch.seconds for epoch in self.epochs)

    def save(self, path: Path | str) -> None:
        """As JSON, in one stroke."""
        write_whole(Path(path), (json.dumps(self.to_dict(), indent=1, ensure_ascii=False) + "\n").encode())

    @classmethod
    def load(cls, path: Path | str) -> History:
        """Raises ValueError for a file that is none."""
        try:
            return cls.from_dict(json.loads(read_text(Path(path))))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is not the history of a training ({error})") from error

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> History:
        def measured(epoch: dict[str, Any]) -> dict[str, Any]:
            return {name: value if name not in ("clean", "fgsm", "robust") or value is None else Accuracy(**value)
                    for name, value in epoch.items()}

        epochs = [Epoch(**measured(epoch)) for epoch in content["epochs"]]
        return cls(epochs, content["kept"], content["stopped"], content["collapsed"], content.get("noted"))
