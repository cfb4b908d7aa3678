"""What an evaluation does with each part of the data besides attacking it: clean answers, the curve, the diagnosis."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial

import torch
from torch import Tensor

from robustness_lib.attacks import PGD, SquareAttack
from robustness_lib.attacks.ensemble import NamedAttack
from robustness_lib.attacks.ensemble_run import EnsembleStep, ImagePart, Verdicts
from robustness_lib.attacks.ensemble_steps import AttackStep, CleanStep
from robustness_lib.certify.proof_steps import ProofStep
from robustness_lib.certify.traced_network import TracedNetwork
from robustness_lib.diagnosis.observations import observe
from robustness_lib.evaluation._data_parts import DataPart
from robustness_lib.evaluation._kept_images import KeptImages
from robustness_lib.evaluation._proofs import BoundProofs, Proofs
from robustness_lib.inputs import check_logits
from robustness_lib.losses import cross_entropy
from robustness_lib.precision import full_precision
from robustness_lib.querying.batch_size import cut, out_of_memory
from robustness_lib.querying.frozen import Classifier, Mode, frozen
from robustness_lib.querying.queried_model import NoGradient, QueriedModel
from robustness_lib.querying.warnings import AttackWarning, attack_warning
from robustness_lib.reports.pictures import picture
from robustness_lib.state import Content
from robustness_lib.threat import ThreatModel

__all__ = ["DIAGNOSED", "BoundStep", "CleanAnswers", "DiagnosisStep", "GradientProbe", "SquareProbe", "curve_attack",
           "curve_step_name", "curve_steps", "keep_pictures", "misleading_gradients"]

DIAGNOSED = 200  # images on which masked gradients are looked for: effects of 2 points need no more to show
_PROBED, _PROBE_QUERIES = 100, 300  # images of a quick look, and what Square may ask about each
_SHOWN_PARTS, _SHOWN = 4, 2  # pictures are taken from the first parts, so many for each attack

Keep = Callable[[AttackStep, ImagePart, Tensor, Tensor, Content], Content]


class CleanAnswers(CleanStep):
    """The model's own answers, or those that are proved; and the images' digests, by which a state of other data is
    known."""

    def __init__(self, model: Classifier, mode: Mode, draws: int, proofs: Proofs) -> None:
        super().__init__(model, mode, draws)
        self.proofs = proofs

    def work(self, part: ImagePart, rows: Tensor, size: int) -> Content:
        assert isinstance(part, DataPart)
        columns = super().work(part, rows, size)
        columns |= self.proofs.answers(part, rows, columns["predicted"])
        columns["top5"] |= columns["predicted"] == columns["label"]
        return columns | {"digest": [part.digests[row] for row in rows.tolist()]}

    def columns(self, logits: Tensor, y: Tensor) -> Content:
        check_logits(logits, y, (y,))  # all of them: an image that is answered NaN has no verdict
        top = logits.topk(min(5, logits.shape[1]), dim=1).indices
        return super().columns(logits, y) | {"label": y.cpu(), "top5": (top == y.cpu()[:, None]).any(1)}

    def merge(self, part: ImagePart, rows: Tensor, content: Content, verdicts: Verdicts) -> None:
        assert isinstance(part, DataPart)
        if content["digest"] != [part.digests[row] for row in rows.tolist()]:
            raise ValueError(f"the state holds other images at {part.first} to {part.first + len(part) - 1}: the data "
                             f"have changed, or their order. Name another folder to begin again.")
        super().merge(part, rows, content, verdicts)


def keep_pictures(proofs: Proofs, images: KeptImages | None = None) -> Keep:
    """Hold what was broken against the proofs, keep a few examples to look at, and all of them as images to save where
    that is asked for."""
    def keep(step: AttackStep, part: ImagePart, rows: Tensor, x_adv: Tensor, content: Content) -> Content:
        assert isinstance(part, DataPart)
        held = proofs.hold(step, part, rows, x_adv, content)
        columns = content | held
        counts = columns["broke"][content["broke"]]
        rows, x_adv = rows[counts], x_adv[counts.to(x_adv.device)]
        shown = range(min(_SHOWN, len(rows))) if part.number < _SHOWN_PARTS else ()
        mistaken = columns["mistaken_for"][columns["broke"]]
        taken = [picture(part.first + int(rows[k]), int(part.y[rows[k]]), int(mistaken[k]), step.name,
                         part.x[rows[k]].detach().cpu().numpy(), x_adv[k].detach().cpu().numpy(), step.threat.eps,
                         step.threat.norm) for k in shown]
        if images is not None:
            images.keep(step, part, rows, x_adv)
        return held | {"pictures": [asdict(one) for one in taken if one is not None]}

    return keep


def curve_attack(threat: ThreatModel, eps: float, seed: int, mode: Mode) -> PGD:
    """Each ε has its own step size: PGD's follows from ε. One step size for all would crawl at large ε."""
    return PGD(threat.with_eps(eps), steps=20, seed=-1 - seed, mode=mode)


def curve_step_name(eps: float) -> str:
    return f"curve at {eps!r}"


class _CurveStep(AttackStep):
    label = "curve"


def curve_steps(model: Classifier, threat: ThreatModel, epsilons: Sequence[float], seed: int, mode: Mode,
                proofs: Proofs) -> list[EnsembleStep]:
    """An attack on every image that is right, for each ε but the threat model's own, where the suite has spoken. What
    is broken at a smaller ε lies within the threat model: it counts."""
    steps: list[EnsembleStep] = []
    for eps in epsilons:
        if eps != threat.eps:
            named = NamedAttack(curve_step_name(eps), curve_attack(threat, eps, seed, mode), on="correct")
            counts = eps < threat.eps
            step = _CurveStep(named, model, threat.with_eps(eps), mode, counts=counts,
                              keep=proofs.hold if counts else None)
            step.spares_proved = counts
            steps.append(step)
    return steps


class BoundStep(ProofStep):
    """Bounds, before any attack. passes: forward passes over one image that would take as long, by the time of one over
    the images at hand."""

    def __init__(self, names: Sequence[str], network: TracedNetwork, threat: ThreatModel, proofs: BoundProofs) -> None:
        super().__init__(names, network, threat, None)
        self.proofs = proofs

    def work(self, part: ImagePart, rows: Tensor, size: int) -> Content:
        x = self.network.take(part.at(rows)[0])
        with torch.no_grad(), full_precision():
            times = []
            for _ in range(3):
                began = time.perf_counter()
                self.network(x)
                times.append((time.perf_counter() - began) / len(x))
        content = super().work(part, rows, size)
        return content | {"passes": [seconds / min(times) for seconds in content["spent"]]}

    def merge(self, part: ImagePart, rows: Tensor, content: Content, verdicts: Verdicts) -> None:
        super().merge(part, rows, content, verdicts)
        for name, passes in zip(self.names, content["passes"], strict=True):
            columns = verdicts.other[name]
            columns["passes"] = columns.get("passes", 0.0) + passes
        self.proofs.proved[part.first] = verdicts.proved.clone()


class GradientProbe(EnsembleStep):
    """For suites of which no attack is known to follow gradients (black boxes, functions of somebody else's): is there
    any gradient of cross-entropy to follow at the images that stand? Where there is none, what stands was hardly
    attacked, whatever the attacks say."""

    name = "gradients"

    def __init__(self, model: Classifier, mode: Mode) -> None:
        self.model, self.mode = model, mode

    def rows(self, part: ImagePart, verdicts: Verdicts) -> Tensor:
        return (verdicts.open & ~verdicts.followed).nonzero()[:, 0]

    def work(self, part: ImagePart, rows: Tensor, size: int) -> Content:
        queried = QueriedModel(self.model, mode=self.mode)
        asked = torch.arange(len(part)) if queried.whole else rows  # each among its neighbours
        x, y, _ = part.at(asked)
        device, followed = queried.device(x), torch.zeros(len(part), dtype=torch.bool)
        with frozen(self.model, self.mode), full_precision():
            for piece in cut(len(asked), size):
                labels = y[piece].to(device)
                try:
                    gradient = queried.gradient(x[piece].to(device, copy=True), partial(cross_entropy, y=labels))[2]
                except NoGradient:
                    break
                except (RuntimeError, ValueError, NotImplementedError) as error:  # of the way back: there is none
                    if out_of_memory(error):  # but for want of memory
                        raise
                    break
                steepest = gradient.flatten(1).abs().amax(1)
                followed[asked[piece]] = (steepest.isfinite() & (steepest > torch.finfo(steepest.dtype).tiny)).cpu()
        return {"followed": followed[rows]}

    def merge(self, part: ImagePart, rows: Tensor, content: Content, verdicts: Verdicts) -> None:
        verdicts.followed[rows] = content["followed"]


class SquareProbe(AttackStep):
    """For a quick look: do the gradients that attacks follow lead anywhere? A short Square on those of the first images
    that still stand. It decides nothing about an image: what it finds says that the look was too quick."""

    name = "square probe"

    def __init__(self, model: Classifier, threat: ThreatModel, seed: int, mode: Mode) -> None:
        square = SquareAttack(threat, queries=_PROBE_QUERIES, seed=-1 - seed, mode=mode)
        super().__init__(NamedAttack(self.name, square), model, threat, mode, counts=False)

    def rows(self, part: ImagePart, verdicts: Verdicts) -> Tensor:
        standing = super().rows(part, verdicts)  # and not proved
        return standing[verdicts.followed[standing] & (standing < _PROBED - part.first)]


def misleading_gradients(found: Sequence[tuple[int, Verdicts]]) -> tuple[AttackWarning, ...]:
    """Did the probe break more than an honest model loses to it? Seven at least, since fewer may be chance (see
    `square_ahead`), and a tenth of those that it was tried on: in 67 trials on shipped nets, of 100 images each, it
    broke two at most."""
    probes = [(first, verdicts.attacks[SquareProbe.name]) for first, verdicts in found
              if SquareProbe.name in verdicts.attacks]
    rows = [first + row for first, columns in probes for row in columns.broke.nonzero()[:, 0].tolist()]
    tried = sum(int(columns.tried.sum()) for _, columns in probes)
    if 0.5 ** len(rows) >= 0.01 or len(rows) < 0.1 * tried:
        return ()
    return (replace(attack_warning("misleading gradients", rows, tried), voids=True),)


class DiagnosisStep(EnsembleStep):
    """Signs of masked gradients, looked for on the first images of the data. They decide nothing about an image: what
    is broken here and stood in the suite says that the suite is too weak."""

    name = "diagnostics"

    def __init__(self, model: Classifier, threat: ThreatModel, seed: int, mode: Mode, proofs: Proofs) -> None:
        self.model, self.threat, self.seed, self.mode, self.proofs = model, threat, seed, mode, proofs

    def rows(self, part: ImagePart, verdicts: Verdicts) -> Tensor:
        return torch.arange(max(0, min(len(part), DIAGNOSED - part.first)))

    def work(self, part: ImagePart, rows: Tensor, size: int) -> Content:
        x, y, index = part.at(rows)
        return dict(observe(self.model, x, y, self.threat, index=index, seed=self.seed, mode=self.mode,
                            batch_size=size))

    def merge(self, part: ImagePart, rows: Tensor, content: Content, verdicts: Verdicts) -> None:
        standing = verdicts.standing[rows]
        found = [content[name] for name in ("fgsm", "pgd", "again", "square", "random") if name in content]
        broken = torch.stack(found).any(0) & standing & ~content["varied"]
        self.proofs.hold_without_points(self.name, part, rows[broken])
        verdicts.other[self.name] = content | {"standing": standing}
