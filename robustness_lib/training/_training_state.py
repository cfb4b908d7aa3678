"""What moves while a training runs: kept on disk, taken up again, handed over at the end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from robustness_lib.distributed import Team
from robustness_lib.training._folder import Position, TrainingFolder, weights
from robustness_lib.training.history import Epoch, History

__all__ = ["TrainingState"]


@dataclass
class TrainingState:
    """All that moves while a training runs, and its way to the disk and back."""

    model: nn.Module
    optimizer: Optimizer
    scheduler: Any
    average: AveragedModel | None
    position: Position
    folder: TrainingFolder
    team: Team

    def __post_init__(self) -> None:
        self.history = History()

    @property
    def said(self) -> str:
        """What the progress bar says beside its numbers: the accuracies of the last epoch that was measured."""
        measured = [epoch for epoch in self.history if epoch.score is not None]
        if not measured:
            return ""
        pairs = ((name, getattr(measured[-1], name)) for name in ("clean", "robust"))
        return ", ".join(f"{name} {100 * accuracy.value:.1f} %" for name, accuracy in pairs if accuracy is not None)

    def finish_epoch(self, record: Epoch, model: nn.Module, ramp: int) -> None:
        """model: the one whose weights would be kept. An epoch of the ramp uses up no patience: ε still grows."""
        at = self.position
        at.epoch, at.step, at.loss, at.seconds = at.epoch + 1, 0, 0.0, 0.0
        if record.score is not None:
            if self.history.best is record:
                at.best, at.stale = weights(model), 0
            elif at.epoch > ramp:
                at.stale += 1

    def save(self) -> None:
        generators = self.team.gather(_random_states(next(self.model.parameters()).device))
        if self.folder.path is None:
            return
        at = self.position
        state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(),
                 "scheduler": self.scheduler.state_dict(),
                 "average": None if self.average is None else self.average.state_dict(), "random": generators,
                 "position": vars(at), "history": self.history.to_dict()}
        if at.step == 0:  # before the state: a kill in between repeats the epoch, which writes the same again
            if at.best is not None and self.history.best is self.history.epochs[-1]:
                self.folder.write_weights("best", at.best)
            self.folder.write_weights("last", weights(self._keepable))
            self.history.save(self.folder.path / "history.json")
        self.folder.write(state)

    def resume(self) -> None:
        """From the folder, if there is a state in it. Other processes of a team get it from the first."""
        with self.team.together():
            mine = self.folder.read()
        state = self.team.gather(mine)[0]
        if state is None:
            return
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        _set_random_states(state["random"][self.team.rank], next(self.model.parameters()).device)
        self.position = Position(**state["position"])
        self.history = History.from_dict(state["history"])

    def hand_over(self, keep: str) -> None:
        """Give the model the weights to keep."""
        best = self.history.best
        stopped = self.history.collapsed and self.history.stopped is not None  # the last epoch is the collapsed one
        if (keep == "best" or stopped) and best is not None and self.position.best is not None:
            self.model.load_state_dict(self.position.best)
            self.history.kept = best.epoch
        else:
            self.model.load_state_dict(weights(self._keepable))
            self.history.kept = len(self.history)
        if self.folder.path is not None:
            self.folder.write_weights("kept", weights(self.model))
            self.history.save(self.folder.path / "history.json")

    @property
    def _keepable(self) -> nn.Module:
        return self.model if self.average is None else self.average.module


def _random_states(device: torch.device) -> list[Tensor]:
    return [torch.get_rng_state()] + ([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])


def _set_random_states(states: list[Tensor], device: torch.device) -> None:
    torch.set_rng_state(states[0])
    if len(states) > 1 and device.type == "cuda":
        torch.cuda.set_rng_state(states[1], device)
