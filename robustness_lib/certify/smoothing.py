"""Randomized smoothing: certificates by voting under noise (Cohen, Rosenfeld and Kolter 2019, arXiv 1902.02918).

The smoothed classifier answers what the model answers most often to x + N(0, σ²I), not clipped to the box. Where a
class has a share p > ½ of these answers, the smoothed answer is constant within L2 distance σΦ⁻¹(p). The share is not
known; votes give a lower bound for it, and that gives the certificate. All this is about real numbers: it leaves aside
what rounding does to noise and to images.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from robustness_lib.certify._tally import Tell, bounded, leaders
from robustness_lib.certify.certificates import ABSTAINED, Certificates
from robustness_lib.certify.smoothed_classifier import SmoothedClassifier, check_sigma
from robustness_lib.certify.stopping import RadiusAtLeast, RadiusWithin, StoppingRule, least_draws
from robustness_lib.certify.voting import Voter, chunk_draws
from robustness_lib.inputs import check_count, check_images, check_index, check_real
from robustness_lib.model_kinds import check_usable
from robustness_lib.querying.batch_size import ShrinkingBatchSize
from robustness_lib.querying.first_look import first_look
from robustness_lib.querying.frozen import Classifier
from robustness_lib.state import Chunks, fingerprint, image_digests, model_fingerprint
from robustness_lib.statistics import binomial_test
from robustness_lib.threat import ThreatModel

__all__ = ["RandomizedSmoothing"]

_DEPENDENT = {
    "depends on the batch": "its answer to an image changes with the other images of the batch",
    "random answers": "it draws at random itself, and may draw once for a whole batch",
}


class RandomizedSmoothing:
    """The smoothed classifier of a model: predictions that abstain rather than guess, and certificates.

        prediction, radius = RandomizedSmoothing(model, sigma=0.25).certify(x)

    model: images in [0, 1] to logits (N, K), held in eval mode and left as it was. It has to be good at noisy images,
    x + N(0, σ²) without clipping, or it will abstain: train it on them (`training.GaussianAugmentation`). sigma: σ, in
    pixel units of [0, 1].

    What all methods take: x (N, ...), float32 or float64 in [0, 1]. index: (N,) int64, each image's number in its data
    set (default 0 ... N − 1), and seed: an image's noise follows from these two, so that its answer depends neither on
    its batch nor on its order. batch_size: noisy images that travel to the model's device together, halved where its
    memory runs out. state: a folder; a killed run that is called again with it goes on where it was and ends with the
    same answer. progress: a bar, on what takes over two seconds; or a function, called with the number of images that
    are through and of the draws made since the last call.

    Raises TypeError and ValueError for a model or images that cannot be used (see `Attack.run`), for sigma, alpha and
    numbers of draws that cannot be, and for a model whose votes do not stand each for itself: its answers depend on the
    batch, or are drawn at random. No certificate follows from such votes.
    """

    def __init__(self, model: Classifier, sigma: float) -> None:
        check_usable(model)
        self.model, self.sigma = model, check_sigma(sigma)

    def classifier(self, samples: int = 100) -> SmoothedClassifier:
        """The smoothed classifier as a module that can be attacked: see `SmoothedClassifier`. Raises TypeError where
        the model is no module."""
        return SmoothedClassifier(self.model, self.sigma, samples)  # type: ignore[arg-type]

    def predict(self, x: Tensor, n: int = 1000, alpha: float = 0.001, *, index: Tensor | None = None, seed: int = 0,
                batch_size: int | None = None, state: str | Path | None = None,
                progress: bool | Tell = True) -> Tensor:
        """What the smoothed classifier answers: classes (N,) int64, or −1 where n votes do not tell (it abstains).

        The class with most votes, unless the two-sided binomial test finds that it and the runner-up could be equally
        likely (p > alpha). A class that is returned is not the smoothed classifier's with probability alpha at most
        (Hung and Fithian 2019). That holds for images that were there before the noise: where strangers may choose
        them, give a seed that nobody can know, each time another. Raises also ValueError for an n with which nothing
        could be told.
        """
        alpha = check_alpha(alpha)
        check_count("n", n)
        if 2 * 0.5**n > alpha:
            raise ValueError(f"with n = {n} votes nothing can be told at alpha = {alpha:g}, even if all agree: take "
                             f"n = {math.ceil(math.log2(2 / alpha))} at least")
        x = check_images(x).detach()
        with self._voting(x, index, seed, batch_size, state, progress, {"predict by": n}) as (voter, kept, tell):
            found = leaders(voter, "predict", n, kept, tell)
        told = [min(1.0, 2 * binomial_test(votes, votes + other, 0.5)) <= alpha if votes else False
                for votes, other in zip(found.votes.tolist(), found.runner_up.tolist(), strict=True)]
        return torch.from_numpy(np.where(told, found.first, ABSTAINED))

    def certify(self, x: Tensor, n0: int = 100, n: int = 100_000, alpha: float = 0.001, *,
                tolerance: float | None = None, up_to: float | None = None, index: Tensor | None = None, seed: int = 0,
                batch_size: int | None = None, state: str | Path | None = None,
                progress: bool | Tell = True) -> Certificates:
        """The class that each image is certified to keep, and the L2 radius: (prediction, radius), see `Certificates`.

        n0 votes choose a class, n others give the exact one-sided lower bound (Clopper and Pearson 1934) for its share.
        Where that is not above ½ the prediction is −1 and the radius 0: it abstains. Each certificate that is given is
        wrong with probability alpha at most.

        tolerance, up_to: in pixel units. With either, an image takes fewer votes where n would hardly (in one case of a
        thousand) prove a radius larger by more than tolerance, or once its radius reaches up_to: for a curve of
        certified accuracy that ends at up_to. alpha then pays for the looks on the way (see `RadiusWithin`), and radii
        are smaller by up to the tolerance.

        Raises also ValueError for an n with which nothing could be certified.
        """
        alpha = check_alpha(alpha)
        for name, value in (("tolerance", tolerance), ("up_to", up_to)):
            if value is not None and not 0 < check_real(name, value, "in pixel units of [0, 1]") < math.inf:
                raise ValueError(f"{name} must be positive and finite, in pixel units of [0, 1]; found {value}")
        check_count("n0", n0)
        check_count("n", n)
        x = check_images(x).detach()
        rule = RadiusWithin(self.sigma, n, alpha, tolerance, up_to, between=chunk_draws(x))
        if (least := least_draws(0.5, rule.alpha_last)) > n:
            raise ValueError(f"with n = {n} votes nothing can be certified at alpha = {alpha:g}, even if all agree: "
                             f"take n = {least:.0f} at least")
        asked = {"certify by": n, "n0": n0, "alpha": alpha, "tolerance": tolerance, "up_to": up_to}
        with self._voting(x, index, seed, batch_size, state, progress, asked) as (voter, kept, tell):
            return self._certificates(voter, kept, tell, rule, n0, alpha, up_to)

    def certified_at(self, x: Tensor, radius: float, alpha: float = 0.001, budget: int = 100_000, *, n0: int = 100,
                     index: Tensor | None = None, seed: int = 0, batch_size: int | None = None,
                     state: str | Path | None = None, progress: bool | Tell = True) -> Certificates:
        """Whether each image is certified at this one radius, after as few votes as that takes: `certified` (N,) bool
        of what is returned, whose radius is the one asked about, or 0 for "not shown".

        "Not shown" proves nothing: neither that the answer changes nearby nor that more votes would not show it.
        n0 votes choose a class as in `certify`; then bets are placed against "its share is at most Φ(R/σ)", on votes
        that are drawn until one wins, budget at most (see `RadiusAtLeast`). Each certificate is wrong with probability
        alpha at most. radius: R ≥ 0, in L2, in pixel units.

        Raises also ValueError for a budget with which the radius could not be certified.
        """
        alpha = check_alpha(alpha)
        if not 0 <= (radius := check_real("radius", radius, "in L2, in pixel units of [0, 1]")) < math.inf:
            raise ValueError(f"radius must be finite and at least 0, in L2, in pixel units of [0, 1]; found {radius}")
        check_count("n0", n0)
        check_count("budget", budget)
        x = check_images(x).detach()
        rule = RadiusAtLeast(self.sigma, radius, budget, alpha, between=chunk_draws(x))
        if (least := least_draws(rule.share, rule.alpha_last)) > budget:
            more = f"take a budget of {least:.0f} at least" if math.isfinite(least) else \
                "no number of votes could: take a larger sigma, with a model trained for it"
            raise ValueError(f"with a budget of {budget} votes the radius {radius:g} cannot be certified at sigma = "
                             f"{self.sigma:g} and alpha = {alpha:g}, even if all agree: {more}")
        asked = {"certified at": radius, "budget": budget, "n0": n0, "alpha": alpha}
        with self._voting(x, index, seed, batch_size, state, progress, asked) as (voter, kept, tell):
            return self._certificates(voter, kept, tell, rule, n0, alpha, radius)

    def _certificates(self, voter: Voter, kept: Chunks, tell: Tell, rule: StoppingRule, n0: int, alpha: float,
                      up_to: float | None) -> Certificates:
        model = model_fingerprint(self.model)  # before it is asked: some count how often they were
        chosen = leaders(voter, "select", n0, kept, lambda images, draws: tell(0, draws))
        found = bounded(voter, chosen.first, rule, kept, tell)
        prediction = np.where(found.proved, chosen.first, ABSTAINED)
        return Certificates(
            prediction=torch.from_numpy(prediction), radius=torch.from_numpy(found.radius),
            candidate=torch.from_numpy(chosen.first), votes=torch.from_numpy(found.votes),
            draws=torch.from_numpy(found.draws), unanswered=torch.from_numpy(found.unanswered), n0=n0,
            n=rule.looks[-1], up_to=None if up_to is None else float(up_to), sigma=self.sigma, alpha=alpha,
            seed=voter.seed, model=model, images=tuple(image_digests(voter.x)))

    @contextmanager
    def _voting(self, x: Tensor, index: Tensor | None, seed: int, batch_size: int | None, state: str | Path | None,
                progress: bool | Tell, asked: Mapping[str, object]) -> Iterator[tuple[Voter, Chunks, Tell]]:
        """The model looked at and held, state opened, progress shown. x: checked images. asked: for the state."""
        check_count("seed", seed, least=None)
        if batch_size is not None:
            check_count("batch_size", batch_size)
        voter = Voter(self.model, self.sigma, x, check_index(index, x), seed, batch_size)
        header = {} if state is None else {
            "format": "smoothing 1", **{name: str(value) for name, value in asked.items()}, "sigma": str(self.sigma),
            "seed": str(seed), "model": model_fingerprint(self.model), "data": fingerprint(x, voter.index),
            "torch": f"{torch.__version__} on {voter.device.type}",  # which noise a seed stands for
        }
        answers = self._check_votes(voter) if len(x) else None
        kept = Chunks(None if state is None else Path(state), header, answers)
        with voter.held(), _shown(progress, len(x)) as tell:
            yield voter, kept, tell

    def _check_votes(self, voter: Voter) -> Tensor:
        """Answers to a few images. Raises ValueError where votes would not stand each for itself."""
        pixels = voter.x[0].numel()
        near = ThreatModel("l2", min(self.sigma, 0.5) * math.sqrt(pixels))  # about as far as noise goes
        no_labels = torch.zeros(min(1, len(voter.x)), dtype=torch.int64)
        size = ShrinkingBatchSize(max(2, voter.size.now))  # one image alone has no company that could matter
        look = first_look(self.model, voter.x, no_labels, voter.index, near, size=size)
        kinds = {warning.kind for warning in look.warnings} | ({"random answers"} if look.stochastic else set())
        for kind, words in _DEPENDENT.items():
            if kind in kinds:
                raise ValueError(f"votes of this model do not stand each for itself ({words}), so they prove nothing. "
                                 f"Give the bare network, in which each image is answered alone and always alike")
        return look.answers


def check_alpha(alpha: float) -> float:
    """Raises TypeError and ValueError."""
    if not 0 < (alpha := check_real("alpha", alpha, "the probability of a wrong certificate")) < 1:
        raise ValueError(f"alpha, the probability of a wrong certificate, must lie between 0 and 1 (0.001 is usual); "
                         f"found {alpha}")
    return alpha


@contextmanager
def _shown(progress: bool | Tell, images: int) -> Iterator[Tell]:
    if callable(progress):
        yield progress
        return
    with tqdm(total=images, unit="image", delay=2, leave=False, disable=not progress) as bar:
        drawn = 0

        def tell(through: int, draws: int) -> None:
            nonlocal drawn
            drawn += draws
            bar.set_postfix_str(f"{drawn:,} votes", refresh=False)
            bar.update(through - bar.n)

        yield tell
