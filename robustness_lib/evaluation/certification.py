"""How many images of a data set randomized smoothing certifies: the figures, the sentence, the file."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robustness_lib.certify import ABSTAINED, Certificates, RandomizedSmoothing
from robustness_lib.evaluation.certification_question import CertificationQuestion
from robustness_lib.evaluation.environment import environment
from robustness_lib.files import read_text
from robustness_lib.inputs import check_images, check_labels
from robustness_lib.querying.batch_size import default_batch_size
from robustness_lib.querying.confirm_predictions import predict_logits
from robustness_lib.querying.queried_model import QueriedModel
from robustness_lib.statistics import Accuracy

__all__ = ["Certification", "Stage", "certify_images", "load_certificates"]

Stage = Callable[[str, int, int], None]  # what is asked now, images that are through with it, draws since the last call

_KEPT = 0.6  # of the bare network's accuracy: with less, it was hardly trained for this noise
_BORNE = 0.6  # of an image's votes: with so many for its label it would be certified, had there been enough of them
_SAYS_NOT = ("A certificate says that the smoothed classifier's answer stays the same, not that it is right; it holds "
             "in L2, and says nothing of the bare network.")
_COLUMNS = ("prediction", "radius", "candidate", "votes", "draws", "unanswered")


@dataclass(frozen=True, eq=False, repr=False)
class Certification:
    """What `certify_images` found. Printed, a sentence.

    certificates: for each radius of the question, or one for its curve. y: (N,) int64 labels. answered: (N,) int64,
    what the smoothed classifier answers, −1 where it abstains. clean: accuracy of the bare network on the same images.
    """

    question: CertificationQuestion
    sigma: float
    certificates: tuple[Certificates, ...]
    y: Tensor
    answered: Tensor
    clean: Accuracy
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def n(self) -> int:
        return len(self.y)

    @property
    def smoothed(self) -> Accuracy:
        """Accuracy of the smoothed classifier: right, without abstaining."""
        return Accuracy.of(self.answered == self.y)

    @property
    def abstained(self) -> int:
        return int((self.answered == ABSTAINED).sum())

    @property
    def radii(self) -> tuple[float, ...]:
        """Those asked about; of a curve without any, every half σ, or its end where that is before."""
        end, step = self.question.end(self.sigma), self.sigma / 2
        halves = tuple(step * k for k in range(1, int(end / step * 1.001) + 1))
        return tuple(sorted(set(self.question.radii))) or halves or (end,)

    def at(self, radius: float) -> Certificates:
        """The certificates that say something about this radius."""
        by_radius = dict(zip(self.question.radii, self.certificates, strict=False))
        return self.certificates[0] if self.question.curve else by_radius[radius]

    def certified(self, radius: float) -> Accuracy:
        """Certified accuracy: images whose answer is certified at this radius (one of `radii`; of a curve, any up to
        its end) and is their label."""
        return self.at(radius).accuracy(self.y, radius)

    @property
    def votes(self) -> float:
        """Noisy copies that an image took on average, for all that was asked."""
        return sum(float(made.samples.double().mean()) for made in self.certificates) + self.question.answer_votes

    @property
    def fixed_votes(self) -> int:
        """What one radius, or the curve, costs by a number of votes that is fixed beforehand."""
        return self.question.n0 + self.question.n

    @property
    def unanswered(self) -> int:
        """Of the votes that bounded radii, those for nobody: the model's answer was no number."""
        return sum(int(made.unanswered.sum()) for made in self.certificates)

    @property
    def doubt(self) -> str | None:
        """Why so few are certified, and what to do: some votes had no number, there were too few of them, or the
        network does not bear this noise. None where nothing of this is seen."""
        if self.unanswered:
            votes = sum(int(made.draws.sum()) for made in self.certificates)
            return (f"on {self.unanswered:,} of {votes:,} votes the model's answer was no number (NaN), and counts for "
                    f"no class. Noise is not clipped: look at how the model handles values outside of [0, 1], such as "
                    f"roots, logarithms and powers of them, or let it clamp its images itself.")
        if self.smoothed.correct >= _KEPT * self.clean.correct:
            return None
        found = f"the bare network is right on {self.clean}, and the smoothed classifier on {self.smoothed}"
        if self._borne >= _KEPT * self.clean.correct:
            return (f"{found}, since it abstains where votes do not tell at alpha = {self.question.alpha:g}. Most "
                    f"votes are right on {self._borne:,} of {self.n:,} images: take more votes (--samples) or a larger "
                    f"--alpha.")
        return (f"{found}: the network hardly bears noise of σ = {self.sigma:g}, and so few images are certified. "
                f'Train it on images under this noise (training.GaussianAugmentation, or objective = "gaussian" in a '
                f"recipe), or take a smaller σ.")

    @property
    def _borne(self) -> int:
        """Images whose label has clearly most of the votes, however few these are."""
        made = self.certificates[0]
        return int(((made.candidate == self.y) & (made.votes >= _BORNE * made.draws)).sum())

    @property
    def sentence(self) -> str:
        first = "; ".join(f"{self.certified(radius)} at L2 radius {radius:g}" for radius in self.radii[:3])
        return (f"Certified with their label by noise of σ = {self.sigma:g}: {first}. The smoothed classifier is right "
                f"on {self.smoothed} and abstains on {self.abstained:,} of {self.n:,}.")

    @property
    def says_not(self) -> str:
        return _SAYS_NOT

    def __str__(self) -> str:
        return self.sentence

    def __repr__(self) -> str:
        return f"<Certification: {self.sentence}>"

    def steps(self) -> tuple[list[float], list[float]]:
        """The curve: radii at which certified accuracy falls, and the share up to and including each."""
        return self.certificates[0].curve(self.y)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values, for JSON: the figures, then each image's certificates."""
        question = self.question
        content: dict[str, Any] = {
            "sentence": self.sentence, "says not": _SAYS_NOT, "doubt": self.doubt, "n": self.n, "sigma": self.sigma,
            "alpha": question.alpha, "n0": question.n0, "samples": question.n, "seed": question.seed,
            "clean": _figures(self.clean), "smoothed": _figures(self.smoothed), "abstained": self.abstained,
            "votes": round(self.votes, 1), "votes if fixed": self.fixed_votes, "unanswered": self.unanswered,
            "radii": [{"radius": radius, "certified": _figures(self.certified(radius)),
                       "votes": round(float(self.at(radius).samples.double().mean()), 1)} for radius in self.radii],
        }
        if question.curve:
            end = question.end(self.sigma)
            radii, shares = self.steps()
            content["curve"] = {"radius": radii, "certified": shares, "end": end, "intervals": [
                {"radius": radius} | _figures(self.certified(radius)) for radius in np.linspace(0, end, 31).tolist()]}
        content["certificates"] = [
            {"up_to": made.up_to, "n": made.n, "model": made.model, "images": made.images}
            | {name: getattr(made, name).tolist() for name in _COLUMNS} for made in self.certificates]
        return content | {"label": self.y.tolist(), "answer": self.answered.tolist(),
                          "environment": dict(self.environment)}


def _figures(accuracy: Accuracy) -> dict[str, Any]:
    return {"value": accuracy.value, "interval": list(accuracy.interval), "correct": accuracy.correct, "n": accuracy.n}


def certify_images(smoothing: RandomizedSmoothing, x: Tensor, y: Tensor, question: CertificationQuestion, *,
                   batch_size: int | None = None, state: str | Path | None = None,
                   progress: Stage = lambda stage, through, draws: None) -> Certification:
    """Certify the images x (N, ...) with labels y (N,) int64, N ≥ 1, and count those that are right.

    batch_size, state: as of `RandomizedSmoothing.certify`. progress: called with what is asked now, the number of
    images that are through with it, and the draws made since the last call. Raises what `RandomizedSmoothing` raises,
    and ValueError where there is no image.
    """
    x = check_images(x).detach()
    check_labels(y, x)
    if len(x) == 0:
        raise ValueError("there is no image to certify")
    question.check(smoothing, x)
    folder = None if state is None else Path(state)

    def told(stage: str) -> dict[str, Any]:
        return {"batch_size": batch_size, "progress": partial(progress, stage),
                "state": None if folder is None else folder / stage}

    size = batch_size or default_batch_size(x, QueriedModel(smoothing.model).device(x))
    clean = predict_logits(smoothing.model, x, size=size, labels=y).argmax(1) == y.cpu()
    answered = None if question.curve else smoothing.predict(x, question.answer_votes, question.alpha,
                                                            seed=question.seed, **told("answers"))
    found = tuple(certify(x, **told(stage)) for stage, certify in question.asked(smoothing))
    return Certification(question, smoothing.sigma, found, y.cpu(),
                         found[0].prediction if answered is None else answered, Accuracy.of(clean),
                         environment(smoothing.model, x.dtype, question.seed))


def load_certificates(path: str | Path, radius: float | None = None) -> Certificates:
    """The certificates of a file that holds what `Certification.to_dict` returns (certify.json), for
    `evaluate(certified=...)`. They are of the model as it was certified, and `evaluate` takes them for no other: for
    those of `robustness certify`, name it as the command line did, by `models.find_model` (or `as_classifier`) with the
    same weights, mean, std and output.

    radius: which, where several were asked about. Raises FileNotFoundError, and ValueError, which names the file, for
    one that holds no such certificates.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no file {path}; name the certify.json that robustness certify wrote")
    try:
        content = json.loads(read_text(Path(path)))
        listed = content["certificates"]
        chosen = [one for one in listed if radius is None or one["up_to"] in (None, radius)]
        if len(chosen) != 1:
            raise ValueError(f"certificates of which radius? There are {[one['up_to'] for one in listed]}")
        one = chosen[0]
        columns = {name: torch.tensor(one[name], dtype=torch.float64 if name == "radius" else torch.int64)
                   for name in _COLUMNS}
        return Certificates(prediction=columns["prediction"], radius=columns["radius"], candidate=columns["candidate"],
                            votes=columns["votes"], draws=columns["draws"], unanswered=columns["unanswered"],
                            n0=content["n0"], n=one["n"], up_to=one["up_to"], sigma=content["sigma"],
                            alpha=content["alpha"], seed=content["seed"], model=one["model"],
                            images=tuple(one["images"]))
    except (ValueError, TypeError, KeyError) as error:
        why = str(error) if isinstance(error, ValueError) else "it does not hold the certificates of an earlier run"
        raise ValueError(f"{path}: {why}") from error
