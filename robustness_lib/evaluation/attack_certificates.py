"""The certificate against the attack: each certified image is attacked inside its own radius, and none should break."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from robustness_lib.attacks import PGD, Attack
from robustness_lib.certify import Certificates, RandomizedSmoothing, SmoothedClassifier
from robustness_lib.evaluation._broken_certificates import BrokenCertificates, seed_of_its_own, seen_broken
from robustness_lib.evaluation._certified_model import HOW_TO_NAME_IT, certified_of
from robustness_lib.evaluation.contradiction import Contradiction
from robustness_lib.evaluation.suites import another_threat
from robustness_lib.inputs import check_count, check_images, check_index
from robustness_lib.state import image_digests
from robustness_lib.threat import ThreatModel

__all__ = ["AttackedCertificates", "attack_certificates"]

_DOUBTFUL = 1 / 3  # of 100 draws for other classes: below, more than half of all draws is out of the question
_DRAWS = 100
_PGD = partial(PGD, steps=20)


@dataclass(frozen=True, eq=False)
class AttackedCertificates:
    """What became of certified images that were attacked inside their radii. Printed, a sentence.

    tally: how many were attacked and broken, and the p of that. rows: (k,) int64, places in x of the broken. x_adv: (k,
    ...) the points that broke them. distance: (k,) float64, of those in L2. mistaken_for: (k,) int64, what fresh votes
    say there. radii: the ε of each group of images that was attacked together, the smallest radius of its images.
    """

    tally: BrokenCertificates
    rows: Tensor
    x_adv: Tensor
    distance: Tensor
    mistaken_for: Tensor
    radii: tuple[float, ...]

    @property
    def attacked(self) -> int:
        return self.tally.attacked

    @property
    def broken(self) -> int:
        return self.tally.broken

    @property
    def p(self) -> float:
        """The probability of so many breaks or more by the certificates' own alpha."""
        return self.tally.p

    def __str__(self) -> str:
        return (f"{self.tally} They were attacked in {len(self.radii)} groups, each at the smallest radius of its "
                f"images.")


def attack_certificates(smoothing: RandomizedSmoothing, certificates: Certificates, x: Tensor, *,
                        attack: Callable[[ThreatModel], Attack] = _PGD, samples: int = 64, groups: int = 8,
                        index: Tensor | None = None, seed: int = 0, batch_size: int | None = None,
                        progress: bool = True) -> AttackedCertificates:
    """Attack the smoothed classifier at each image that it certifies, away from the certified class, in L2 and within
    the certified radius: a test of the certificates, and of whoever implements them.

    certificates: of smoothing at the images x (N, ...). attack: from a threat model to the attack (by default PGD of 20
    steps), which follows the mean over `samples` noisy copies, drawn by torch's generator. groups: a threat model has
    one ε, so images are sorted by radius and attacked in so many groups, each at its smallest radius (for all others of
    it less than their own). index: (N,) int64, the images' numbers in their data set. seed: of the fresh votes,
    together with the certificates' own.

    A break counts where 10,000 fresh votes at the point found name another class than the certificate, at level 1e-6.
    Raises Contradiction where more broke than certificates that are wrong with probability alpha each let expect (p <
    .001), and ValueError for certificates of another model, another sigma or other images, and for an attack that has
    another threat model than it was given.
    """
    classifier = _checked(smoothing, certificates, samples)
    check_count("groups", groups)
    x = check_images(x).detach()
    index = check_index(index, x)
    if len(x) != len(certificates):
        raise ValueError(f"give the images that were certified, all of them; found {len(x)} images and "
                         f"{len(certificates)} certificates")
    certificates.check_images(image_digests(x))
    parts = list(_by_radius(certificates, groups))
    found: list[tuple[Tensor, ...]] = []
    for rows, radius in tqdm(parts, unit="group", delay=2, leave=False, disable=not progress):
        found.append(_broken(classifier, smoothing, attack, ThreatModel("l2", radius), x, index, certificates, rows,
                             seed_of_its_own(seed, str(certificates.seed)), batch_size))
    attacked = sum(len(rows) for rows, _ in parts)
    rows, x_adv, said = (torch.cat(columns) for columns in zip(*found, strict=True)) if found else \
        (torch.empty(0, dtype=torch.int64), x[:0], torch.empty(0, dtype=torch.int64))
    distance = ThreatModel("l2", 0).distance(x_adv, x[rows.to(x.device)]).cpu()
    tally = BrokenCertificates(len(rows), attacked, len(x), certificates.alpha)
    result = AttackedCertificates(tally, rows, x_adv, distance, said, tuple(radius for _, radius in parts))
    if tally.contradict:
        first = int(rows[0])
        raise Contradiction(int(index[first]), x[first], x_adv[0], int(certificates.prediction[first]), int(said[0]),
                            "the attack", float(distance[0]), ThreatModel("l2", float(certificates.radius[first])),
                            f"{tally} One of them: ")
    return result


def _checked(smoothing: RandomizedSmoothing, certificates: Certificates, samples: int) -> SmoothedClassifier:
    if smoothing.sigma != certificates.sigma or not certified_of(certificates, smoothing.model):
        raise ValueError(f"these certificates are of another smoothed classifier (sigma = {certificates.sigma:g}) than "
                         f"the one to attack (sigma = {smoothing.sigma:g}): give the RandomizedSmoothing that they "
                         f"were made by, of the model as it was then. {HOW_TO_NAME_IT}")
    return smoothing.classifier(samples)


def _by_radius(certificates: Certificates, groups: int) -> Iterator[tuple[Tensor, float]]:
    """Images with a radius above 0 in groups of about equal size, by radius: their places and the smallest."""
    rows = (certificates.certified & (certificates.radius > 0)).nonzero()[:, 0]
    rows = rows[certificates.radius[rows].argsort(stable=True)]
    for group in np.array_split(rows.numpy(), groups):
        if len(group):
            yield torch.from_numpy(group), float(certificates.radius[group[0]])


def _broken(classifier: SmoothedClassifier, smoothing: RandomizedSmoothing, attack: Callable[[ThreatModel], Attack],
            threat: ThreatModel, x: Tensor, index: Tensor, certificates: Certificates, rows: Tensor, seed: int,
            batch_size: int | None) -> tuple[Tensor, ...]:
    """Of the images at these places: the places of those that it breaks, the points, and what these are taken for."""
    images, labels = x[rows.to(x.device)], certificates.prediction[rows].to(x.device)
    made = attack(threat)
    if theirs := another_threat(made, threat):
        raise ValueError(f"attack= makes an attack from the threat model that it is given, {threat}, and has made one "
                         f"with {theirs}: hand on what is given, as in lambda threat: PGD(threat)")
    result, verdict = classifier.attacked(made, images, labels, draws=_DRAWS, index=index[rows],
                                          batch_size=batch_size)
    within = threat.allows(threat.distance(result.x_adv, images)).cpu()
    at = ((verdict.shares > _DOUBTFUL) & within).nonzero()[:, 0]
    points = result.x_adv[at.to(x.device)]
    broken, said = seen_broken(smoothing, points, certificates.prediction[rows[at]], index[rows[at]], seed, batch_size)
    return rows[at][broken], points[broken.to(x.device)], said[broken]
