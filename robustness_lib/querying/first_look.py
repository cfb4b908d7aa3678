"""A first look at a model, before an attack or an evaluation: how many classes, and what is odd about its answers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robustness_lib.querying.batch_size import ShrinkingBatchSize
from robustness_lib.querying.confirm_predictions import predict_logits
from robustness_lib.querying.frozen import Classifier, Mode
from robustness_lib.querying.queried_model import QueriedModel
from robustness_lib.querying.refusals import refused_arrangement
from robustness_lib.querying.warnings import (
    AttackWarning,
    attack_warning,
    depends_on_batch,
    looks_like_probabilities,
    modes_seen,
    varies,
)
from robustness_lib.threat import ThreatModel

__all__ = ["FirstLook", "first_look", "works"]

_IMAGES = 16  # that are asked twice, each with a random point near it


@dataclass(frozen=True)
class FirstLook:
    """answers: (m, K) logits of the images and points looked at. stochastic: the model says that it answers at random.
    averages: it says that its answer is a mean over draws (as `EOT`'s is). warnings: what is odd."""

    answers: Tensor
    stochastic: bool
    averages: bool
    warnings: tuple[AttackWarning, ...]

    @property
    def classes(self) -> int:
        return self.answers.shape[1]

    @property
    def varies(self) -> bool:
        """It gave other answers to the same images."""
        return any(warning.kind == "random answers" for warning in self.warnings)


def first_look(model: Classifier, x: Tensor, y: Tensor, index: Tensor, threat: ThreatModel, *,
               size: ShrinkingBatchSize, mode: Mode = "eval", draws: int = 1) -> FirstLook:
    """Ask the model about a few of the images x (N, ...), N ≥ 1, and about points near them, twice (once where its
    answers are means over several draws, which differ); then about half of them in other company. y, index (N,):
    labels, held against the number of classes, and numbers in the data set. size: of the batches, halved where the
    device has too little memory.

    Images that the model cannot take are left out; where it takes none, or answers no logits (N, K), what it or the
    check of its answer raises comes through.
    """
    few = x[:_IMAGES]
    points = torch.cat((few, threat.random_point(few, seed=0, index=index[:_IMAGES])))
    with refused_arrangement(model, x, mode), modes_seen(model) as training:
        try:
            answers, again = _asked(model, points, y, size, mode, draws)
        except Exception:  # on some of these images only?
            points = torch.cat([point for point in torch.split(points, 1) if works(model, point, mode)] or [points])
            answers, again = _asked(model, points, y, size, mode, draws)
    doubt = threat.doubt_about_eps(x[0].numel())
    found = [] if doubt is None else [AttackWarning("large ε", doubt)]
    found += [attack_warning("changed mode")] if training and mode == "eval" else []
    drawn = varies(answers, again)
    found += [*looks_like_probabilities(answers), *drawn]
    found += _in_other_company(model, points, size, mode, None if drawn or draws > 1 else answers)
    return FirstLook(answers, QueriedModel(model).random, getattr(model, "averages", False) is True, tuple(found))


def _asked(model: Classifier, points: Tensor, y: Tensor, size: ShrinkingBatchSize, mode: Mode,
           draws: int) -> tuple[Tensor, Tensor]:
    """The answers, and those to a second asking; of means over draws, the same ones."""
    while True:
        try:
            first = predict_logits(model, points, size=size.now, mode=mode, draws=draws, labels=y)
            return first, predict_logits(model, points, size=size.now, mode=mode) if draws == 1 else first
        except (RuntimeError, MemoryError) as error:
            if not size.can_shrink(error):
                raise
        size.shrink()


def _in_other_company(model: Classifier, points: Tensor, size: ShrinkingBatchSize, mode: Mode,
                      answers: Tensor | None) -> tuple[AttackWarning, ...]:
    """The first batch of the points again, in other company. answers: to the points; None of a model that draws, which
    is asked under the same draws each time, and not at other places, where it would draw others."""
    batch = points[:size.now]

    def ask(images: Tensor) -> Tensor:
        if answers is not None:
            return predict_logits(model, images, size=len(batch), mode=mode)
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(0)
            return predict_logits(model, images, size=len(batch), mode=mode)

    try:
        before = ask(batch) if answers is None else answers[:len(batch)]
        if answers is None and varies(before, ask(batch)):  # its draws are its own: nothing can be told
            return ()
        return depends_on_batch(batch, before, ask, places=answers is not None)
    except Exception:  # not on negatives
        return ()


def works(model: Classifier, image: Tensor, mode: Mode) -> bool:
    """Does it answer this one with numbers?"""
    try:
        predict_logits(model, image, size=1, mode=mode, labels=torch.zeros(1, dtype=torch.int64))
    except Exception:  # whatever a model may raise
        return False
    return True
