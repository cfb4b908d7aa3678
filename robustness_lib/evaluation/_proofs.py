"""What is proved of the data, and what becomes of an attack that breaks it all the same."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robustness_lib.attacks.adaptive import EOT
from robustness_lib.attacks.ensemble_run import ImagePart, Verdicts
from robustness_lib.attacks.ensemble_steps import AttackStep
from robustness_lib.certify import Certificates, RandomizedSmoothing, SmoothedClassifier
from robustness_lib.certify.proof_steps import PIECES
from robustness_lib.evaluation._broken_certificates import VOTES, BrokenCertificates, seed_of_its_own, seen_broken
from robustness_lib.evaluation._certified_model import HOW_TO_NAME_IT, certified_of
from robustness_lib.evaluation.contradiction import Contradiction
from robustness_lib.querying.frozen import Classifier, Mode
from robustness_lib.reports.report import Column
from robustness_lib.state import Content, fingerprint, image_digests
from robustness_lib.threat import ThreatModel

__all__ = ["BoundProofs", "Proofs", "find_proofs"]


class Proofs:
    """What is proved of the data, (N,) bool, or None; and the word that nothing may break it. words: how it was proved,
    for the report."""

    words = ""

    def __init__(self, certified: Tensor | None, threat: ThreatModel) -> None:
        self.certified, self.threat = certified, threat

    @property
    def fingerprint(self) -> str:
        return "none" if self.certified is None else fingerprint(self.certified)

    def check(self, pixels: int) -> None:
        """Raises ValueError where nothing is proved of images of so many values in this threat model."""

    def among(self, part: ImagePart, rows: Tensor) -> list[bool]:
        """Which of the images at these places are certified."""
        return [] if self.certified is None else [bool(self.certified[part.first + row]) for row in rows.tolist()]

    def answers(self, part: ImagePart, rows: Tensor, predicted: Tensor) -> Content:
        """Columns that take the place of what the model answered to the images at these places, predicted (m,)."""
        return {}

    def hold(self, step: AttackStep, part: ImagePart, rows: Tensor, x_adv: Tensor, content: Content) -> Content:
        """Columns that take the place of the attack's own, and more to keep. Raises Contradiction where an image at
        these places of the part, broken by x_adv, is certified."""
        broke = content["broke"]
        for k, row in enumerate(self.among(part, rows)):
            if row:
                raise Contradiction(
                    part.first + int(rows[k]), part.x[rows[k]], x_adv[k], int(part.y[rows[k]]),
                    int(content["mistaken_for"][broke][k]), step.label, float(content["distance"][broke][k]),
                    self.threat)
        return {}

    def check_images(self, part: ImagePart) -> None:  # a column names no images
        """Raises ValueError for other images than those of which it is proved."""

    def hold_without_points(self, name: str, part: ImagePart, rows: Tensor) -> None:
        """The same of what was found in passing, whose points were not kept."""
        for row, proved in zip(rows.tolist(), self.among(part, rows), strict=False):
            if proved:
                raise Contradiction(part.first + row, part.x[row], None, int(part.y[row]), -1, name, math.nan,
                                    self.threat)

    def judged(self, found: Sequence[tuple[int, Verdicts]], label: Tensor,
               index: Tensor) -> tuple[Column | None, tuple[str, ...]]:
        """What of it counts in the report, (n,) bool, and notes. label, index: (n,) of the images found."""
        return None if self.certified is None else self.certified.cpu()[index].numpy(), ()


class BoundProofs(Proofs):
    """By bounds, on the way: the evaluation proves each part before it is attacked. proved: (n,) bool, by the number of
    the part's first image."""

    def __init__(self, threat: ThreatModel, methods: Sequence[str]) -> None:
        super().__init__(None, threat)
        self.proved: dict[int, Tensor] = {}
        self.words = f"bounds ({', '.join(methods)}), counted from a tolerance for rounding on"

    def among(self, part: ImagePart, rows: Tensor) -> list[bool]:
        proved = self.proved.get(part.first)
        return [] if proved is None else proved[rows].tolist()

    def judged(self, found: Sequence[tuple[int, Verdicts]], label: Tensor,
               index: Tensor) -> tuple[Column | None, tuple[str, ...]]:
        return torch.cat([verdicts.proved for _, verdicts in found]).numpy(), ()


class SmoothingProofs(Proofs):
    """By votes under noise. The model under attack votes too, with few draws, and errs near the boundary: what it says
    of a certified image counts only where many fresh votes say it too. Each certificate is wrong with probability alpha
    at most, so that it takes more breaks than chance does to contradict them."""

    def __init__(self, certificates: Certificates, model: SmoothedClassifier, threat: ThreatModel) -> None:
        within = certificates.at(threat.eps) if threat.norm == "l2" else certificates.certified
        super().__init__(within, threat)
        self.certificates, self.samples = certificates, model.samples
        self.smoothing = RandomizedSmoothing(model.bare, model.sigma)
        self.words = (f"randomized smoothing at σ = {certificates.sigma:g}: {certificates.n0:,} votes under noise "
                      f"chose the class and up to {certificates.n:,} others bounded its share; each certificate is "
                      f"wrong with probability at most α = {certificates.alpha:g} over its sampling")

    @property
    def fingerprint(self) -> str:
        made = self.certificates
        return fingerprint(made.prediction, made.radius, f"{made.sigma!r} {made.alpha!r} {made.seed} {made.model}")

    def check(self, pixels: int) -> None:
        if self.threat.norm == "l2":
            return
        root, radius = math.sqrt(pixels), float(self.certificates.radius.max()) if len(self.certificates) else 0.0
        raise ValueError(
            f"certificates by smoothing are in L2, and the threat model is {self.threat}. An L2 radius R proves L∞ "
            f"only up to R/√d: here R/{root:.4g}, since an image has {pixels:,} values, so that the largest radius, "
            f"{radius:.3g}, proves no more than {radius / root:.3g} in L∞. Give an L2 threat model; or, for what that "
            f"proves in L∞, a column: certified = certificates.at({root:.4g} * ε) & (certificates.prediction == y)")

    def check_images(self, part: ImagePart) -> None:
        self.certificates.check_images(image_digests(part.x), part.first)

    def among(self, part: ImagePart, rows: Tensor) -> list[bool]:
        """Which of the images at these places are certified with their label."""
        assert self.certified is not None
        at = part.first + rows
        return (self.certified[at] & (self.certificates.prediction[at] == part.y.cpu()[rows])).tolist()

    def answers(self, part: ImagePart, rows: Tensor, predicted: Tensor) -> Content:
        """Where the answer is certified it is the certificate's, whatever a few draws say. outvoted: where they said
        something else."""
        at = part.first + rows
        outvoted = self.certificates.certified[at] & (self.certificates.prediction[at] != predicted)
        return {"predicted": torch.where(outvoted, self.certificates.prediction[at], predicted), "outvoted": outvoted}

    def hold(self, step: AttackStep, part: ImagePart, rows: Tensor, x_adv: Tensor, content: Content) -> Content:
        """What fresh votes do not confirm is taken out of the columns. unconfirmed, contradicted: places in the part;
        contradicted_x, contradicted_x_adv: the images there."""
        held = torch.tensor(self.among(part, rows), dtype=torch.bool)
        if not held.any():
            return {}
        at, points = rows[held], x_adv[held.to(x_adv.device)]
        broken, said = seen_broken(self.smoothing, points, part.y[at.to(part.y.device)], part.index[at],
                                   seed_of_its_own(self.certificates.seed, step.name))
        places = content["broke"].nonzero()[:, 0][held]
        columns = {name: content[name].clone() for name in ("broke", "mistaken_for", "distance")}
        columns["broke"][places[~broken]] = False
        columns["mistaken_for"][places] = torch.where(broken, said, -1)
        columns["distance"][places[~broken]] = torch.nan
        kept: Content = {"unconfirmed": at[~broken].tolist(), "contradicted": at[broken].tolist()}
        if broken.any():
            kept["contradicted_x"] = part.x[at[broken].to(part.x.device)].detach().cpu()
            kept["contradicted_x_adv"] = points[broken.to(points.device)].detach().cpu()
        return columns | kept

    def hold_without_points(self, name: str, part: ImagePart, rows: Tensor) -> None:
        """Nothing: without its point no fresh votes can be asked about it."""

    def judged(self, found: Sequence[tuple[int, Verdicts]], label: Tensor,
               index: Tensor) -> tuple[Column | None, tuple[str, ...]]:
        """Right, proved, and not broken. Raises Contradiction where more are broken than chance does."""
        assert self.certified is not None
        proved = (self.certified[index] & (self.certificates.prediction[index] == label)).numpy()
        attacked = torch.cat([torch.stack([columns.tried for columns in verdicts.attacks.values()]).any(0)
                              for _, verdicts in found]).numpy() if found[0][1].attacks else np.zeros_like(proved)
        broken, unconfirmed = (np.isin(index.numpy(), [*self._rows(found, kind)])
                               for kind in ("contradicted", "unconfirmed"))
        tally = BrokenCertificates(int(broken.sum()), int((proved & attacked).sum()), len(index),
                                   self.certificates.alpha)
        if tally.contradict:
            raise self._contradiction(found, tally)
        outvoted = sum(int(verdicts.clean["outvoted"].sum()) for _, verdicts in found)
        notes = (
            (tally.broken, f"{tally} They count as broken, and not as certified."),
            (lucky := int((unconfirmed & ~broken).sum()),
             f"at {lucky:,} certified images an attack misled the vote of {self.samples:,} draws, but not {VOTES:,} "
             f"fresh votes at the same point: these do not count as broken."),
            (outvoted, f"at {outvoted:,} images the vote of {self.samples:,} draws named another class than the "
                       f"certificate, whose class counts."),
        )
        return proved & ~broken, tuple(f"a note only: {words}" for many, words in notes if many)

    def _rows(self, found: Sequence[tuple[int, Verdicts]], kind: str) -> set[int]:
        return {first + row for first, verdicts in found for columns in verdicts.attacks.values()
                for _, kept in columns.kept for row in kept.get(kind, ())}

    def _contradiction(self, found: Sequence[tuple[int, Verdicts]], tally: BrokenCertificates) -> Contradiction:
        """That carries the first image found."""
        first, verdicts, name, kept = next(
            (first, verdicts, name, kept) for first, verdicts in found for name, columns in verdicts.attacks.items()
            for _, kept in columns.kept if kept.get("contradicted"))
        row, columns = kept["contradicted"][0], verdicts.attacks[name]
        return Contradiction(first + row, kept["contradicted_x"][0], kept["contradicted_x_adv"][0],
                             int(verdicts.clean["label"][row]), int(columns.mistaken_for[row]), name,
                             float(columns.distance[row]), self.threat, f"{tally} One of them: ")


def find_proofs(certified: Tensor | NDArray[Any] | Certificates | None, model: Classifier, threat: ThreatModel,
                mode: Mode, prove: bool) -> Proofs:
    """prove: by bounds, on the way. Raises TypeError and ValueError for what is no proof, or one of another model than
    the one under attack."""
    if prove:
        if certified is not None:
            raise ValueError("either what is certified is given, or it is proved here: leave out certified or prove")
        if mode != "eval":
            raise ValueError(f'bounds are of the model in eval mode; found mode="{mode}". Leave mode out')
        return BoundProofs(threat, [name for names in PIECES for name in names])
    if isinstance(certified, Certificates):
        return SmoothingProofs(certified, _smoothed(certified, model, mode), threat)
    if certified is None:
        return Proofs(None, threat)
    column = torch.as_tensor(certified)
    if column.dtype != torch.bool or column.ndim != 1:
        raise TypeError(f"certified must be a column of booleans (N,), one for each image, or the Certificates of "
                        f"RandomizedSmoothing; found {column.dtype} of shape {tuple(column.shape)}")
    return Proofs(column, threat)


def _smoothed(certificates: Certificates, model: Classifier, mode: Mode) -> SmoothedClassifier:
    """The model, if it is what the certificates are of."""
    sigma = certificates.sigma
    do = f"Evaluate RandomizedSmoothing(model, sigma={sigma:g}).classifier(samples), of the model that was certified"
    if not isinstance(model, SmoothedClassifier):
        what = "another EOT" if isinstance(model, EOT) else \
            "the bare network" if certified_of(certificates, model) else "another model"
        raise ValueError(f"these certificates are of the smoothed classifier and say nothing of {what}. {do}")
    if model.sigma != sigma:
        raise ValueError(f"these certificates are of the smoothed classifier at sigma = {sigma:g} and say nothing of "
                         f"that at sigma = {model.sigma:g}. {do}")
    if not certified_of(certificates, model.bare):
        raise ValueError(f"these certificates are of another smoothed model, with other weights or another structure, "
                         f"and say nothing of this one. {do}. {HOW_TO_NAME_IT}")
    if mode != "eval":
        raise ValueError(f'these certificates are of the model in eval mode; found mode="{mode}". Leave mode out')
    return model
