"""One call: how robust is this model, and can the number be trusted?"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

import robustness_lib
from robustness_lib.attacks.ensemble import NamedAttack
from robustness_lib.attacks.ensemble_run import EnsembleRun, EnsembleStep, StepFailed, Verdicts
from robustness_lib.attacks.ensemble_steps import AttackStep
from robustness_lib.certify import Certificates, trace
from robustness_lib.certify.proof_steps import PIECES
from robustness_lib.diagnosis.observations import grey_eps
from robustness_lib.distributed import Team
from robustness_lib.errors import place, spoken
from robustness_lib.evaluation._data_parts import DataPart, data_parts
from robustness_lib.evaluation._kept_images import KeptImages
from robustness_lib.evaluation._proofs import BoundProofs, Proofs, find_proofs
from robustness_lib.evaluation._report_from_verdicts import Ran, class_names, report_from_verdicts
from robustness_lib.evaluation._steps import (
    BoundStep,
    CleanAnswers,
    DiagnosisStep,
    GradientProbe,
    SquareProbe,
    curve_steps,
    keep_pictures,
)
from robustness_lib.evaluation.environment import environment
from robustness_lib.evaluation.suites import Suite, SuiteLike, find_suite
from robustness_lib.inputs import check_count, check_label_range
from robustness_lib.querying.batch_size import ShrinkingBatchSize, default_batch_size
from robustness_lib.querying.first_look import FirstLook, first_look
from robustness_lib.querying.frozen import Classifier, Mode, answers_by_batch
from robustness_lib.querying.queried_model import QueriedModel
from robustness_lib.querying.warnings import attack_warning
from robustness_lib.reports.report import Failure, Report
from robustness_lib.state import Chunks, fingerprint, model_fingerprint
from robustness_lib.threat import ThreatModel

__all__ = ["OnPart", "Progress", "evaluate"]

Progress = Callable[[int, str], None]  # images done, counting a part by its steps; the step at hand
OnPart = Callable[[int, int], None]  # images that stand so far, of how many


def evaluate(model: Classifier, x: Any, y: Tensor | None = None, threat: ThreatModel | None = None,
             suite: SuiteLike = "standard", *, classes: Sequence[str] | None = None,
             certified: Tensor | NDArray[Any] | Certificates | None = None, prove: bool = False,
             curve: Sequence[float] | None = None,
             seed: int = 0, mode: Mode = "eval", batch_size: int | None = None, state: str | Path | None = None,
             keep_images: str | Path | None = None, progress: Progress | None = None,
             on_part: OnPart | None = None) -> Report:
    """Attack the model with every attack of a suite and report the worst case per example.

    model: images in [0, 1] to logits (N, K); see `robustness_lib.models.as_classifier`. Attacked in eval mode (mode
    "keep": as it is) and left as it was.
    x, y: images (N, ...) float32 or float64 and labels (N,) int64; or, as x alone, any iterable of batches (x, y),
    such as a DataLoader that does not shuffle. Only one part of it is held in memory at a time. Images that rounding
    has left up to 1e-6 outside of [0, 1] are clamped, in a copy, and a note counts them.
    threat: the norm and ε in pixel units of [0, 1].
    suite: "quick", "standard", "random", "prove" (see `SUITES`); or attacks: one, a list, or a mapping by name. Besides
    this library's, any function (model, x, y) -> x_adv will do; what it returns is verified.
    classes: names. certified: (N,) bool, of torch or numpy, images whose prediction is *proved* constant within the
    threat model: the report then has a lower bound too. Or the `Certificates` of `certify.RandomizedSmoothing`, with
    its `classifier(samples)` as the model and an L2 threat model: what an attack breaks of them counts only where
    10,000 fresh votes confirm it, and contradicts them only where it is more than their alpha allows.
    prove: begin with bounds (see `certify.verify`: IBP, CROWN-IBP, CROWN, α-CROWN), each on what those before it left;
        images that are proved meet no attack within ε. Made for networks that were trained for bounds: of others,
        bounds prove little, and may take long. Raises what `certify.trace` raises, `UnknownOperation` above all.
    curve: the ε of the curve (default: a quarter, half, once and twice ε, and the ε at which every image can become the
    same grey): PGD on every image that is right, whose finds at a smaller ε count; at ε itself the suite's verdicts
    stand. seed: of everything drawn.
    batch_size: images that travel to the device together; halved when its memory runs out. None: 250, or on a CPU as
    many as its caches hold. The work is cut into parts of this size.
    state: a folder. A killed run that is started again with it goes on where it was, and ends with the same report.
    keep_images: a folder, for the adversarial images that the suite finds, put on the grid of 8-bit pixels and asked
    about there (see `attacks.Quantized`); `Report.export` makes files to look at of them.
    progress: called with the number of images done and the step at hand. on_part: called whenever a part is through,
    with the number of images that stand so far and of all that are through in this process.

    Where several processes run this under one process group (see `robustness_lib.distributed`), give each of them all
    the data, in one order: they share the parts, and each returns the whole report.

    The first images are looked at for signs of masked gradients too, in the suites that say so. What is broken there
    is a finding or a note and changes no verdict. Where all attacks average their answers over draws (suite "random"),
    an image is right where the mean answer is.

    A report is not `valid`, and names no robust accuracy, where what was asked cannot bear one: where more than two in
    a hundred of the images stand on which no attack could follow a gradient; where the model answers otherwise the
    second time (unless it averages, as `EOT` does), or otherwise in other company; where its answers look like
    probabilities; and, of suite "quick", where a short Square on the first images breaks many that the gradient attacks
    left. `doubts` says why, and which attack would decide.

    Images on which the model raises are named in `failures`, and so is a part on which an attack does; the rest goes
    on. A model that fails on each of its first images raises. Raises ValueError or TypeError for data, models and
    suites that cannot be evaluated, for an attack that leaves the threat model, for an example both certified and
    broken (`Contradiction`), for certificates of another model, and for a state of another run.
    """
    if not isinstance(threat, ThreatModel):
        raise TypeError(f'threat must be a ThreatModel, such as ThreatModel("linf", 8/255); found {threat!r}')
    if batch_size is not None:
        check_count("batch_size", batch_size)
    check_count("seed", seed, least=0)
    if curve is not None and not (len(curve) and all(math.isfinite(eps) and eps >= 0 for eps in curve)):
        raise ValueError(f"curve needs at least one ε, each finite and at least 0; found {list(curve)}")
    if curve is not None and threat.norm == "linf" and max(curve) > 1:
        raise _off_scale(curve)
    attacks = find_suite(suite, threat, seed=seed, mode=mode)
    proofs = find_proofs(certified, model, threat, mode, prove or attacks.prove)
    evaluation = _Evaluation(
        model, threat, attacks, classes=classes, proofs=proofs,
        curve=curve, seed=seed, mode=mode, state=None if state is None else Path(state),
        images=None if keep_images is None else KeptImages(Path(keep_images)),
        progress=progress or (lambda done, step: None), on_part=on_part or (lambda stand, through: None))
    found = evaluation.run(data_parts(x, y, batch_size, lambda images: default_batch_size(
        images, QueriedModel(model).device(images)), evaluation.clamped))
    report = report_from_verdicts(
        found, evaluation.ran, classes=classes, notes=evaluation.notes, failures=tuple(evaluation.failures),
        environment=environment(model, evaluation.dtype, seed, mode, evaluation.team.size))
    return report if keep_images is None else replace(report, images=str(keep_images))


class _Evaluation:
    """The parts one after the other: those of this process are worked on, then all processes put together what they
    have."""

    def __init__(self, model: Classifier, threat: ThreatModel, suite: Suite, *, classes: Sequence[str] | None,
                 proofs: Proofs, curve: Sequence[float] | None, seed: int, mode: Mode, state: Path | None,
                 images: KeptImages | None, progress: Progress, on_part: OnPart) -> None:
        self.model, self.threat, self.suite, self.classes, self.curve = model, threat, suite, classes, curve
        self.seed, self.mode, self.state, self.progress, self.on_part = seed, mode, state, progress, on_part
        self.images = images
        self.proofs, self.team = proofs, Team.now()
        self.whole = answers_by_batch(model, mode)
        self.failures: list[Failure] = []
        self.place = ""  # in somebody's code, of the first failure
        self.notes: tuple[str, ...] = ()
        self.dtype = torch.float32
        self.ran: Ran
        self.seen = ""  # a fingerprint of all data so far
        self.clamped: list[int] = []  # numbers of the images that rounding had left outside [0, 1]

    def run(self, parts: Iterator[DataPart]) -> list[tuple[int, Verdicts]]:
        """What was found on all parts, of all processes. Raises what `evaluate` says."""
        found: list[tuple[int, Verdicts]] = []
        total = stand = through = 0
        with self.team.together():
            for part in parts:
                if part.number == 0:
                    size = ShrinkingBatchSize(len(part), fixed=self.whole)
                    ensemble = self._begin(part, size)
                total, self.dtype = part.first + len(part), part.x.dtype
                self._check(part, total)
                todo = [part] if self.team.mine(part.number) else []
                while todo:
                    piece = todo.pop(0)
                    try:
                        found.append((piece.first, ensemble(piece, partial(self._tell, piece))))
                        stand, through = stand + int(found[-1][1].standing.sum()), through + len(piece)
                        self.on_part(stand, through)
                    except StepFailed as failed:
                        todo = self._without(piece, failed) + todo
                self.progress(total, "done")
            if self.proofs.certified is not None and total != len(self.proofs.certified):
                raise ValueError(f"certified must have one entry per image; found {len(self.proofs.certified)} for "
                                 f"{total} images")
            if total:
                self.notes += tuple(map(str, size.warnings))
            if self.clamped:
                self.notes += (str(attack_warning("clamped", self.clamped, total)),)
        return self._of_all_processes(found)

    def _tell(self, part: DataPart, step: str, share: float) -> None:
        self.progress(part.first + int(share * len(part)), step)

    def _check(self, part: DataPart, total: int) -> None:
        if self.team.size > 1:
            self.seen = fingerprint(self.seen, *part.digests)
        check_label_range(part.y, self.ran.look.classes, part.first)
        certified = self.proofs.certified
        if certified is not None and total > len(certified):
            raise ValueError(f"certified must have one entry per image; found {len(certified)} for more images")
        self.proofs.check_images(part)

    def _without(self, part: DataPart, failed: StepFailed) -> list[DataPart]:
        """What to try instead. Where the model fails without any attack, the part's halves are, so that only the images
        that the model cannot take are without a verdict. Where an attack fails, all are: to keep only those that
        earlier attacks broke would bend the accuracy; and where the model answers by its batch, since others would be
        asked about."""
        if failed.step == CleanAnswers.name and not self.whole and (halves := part.halves()):
            return halves
        error = failed.cause
        failure = Failure(part.first, part.first + len(part) - 1, failed.step, spoken(error))
        self.place = self.place or place(error)
        before = self.failures[-1] if self.failures else None
        if before and (before.last + 1, before.step, before.error) == (failure.first, failure.step, failure.error):
            self.failures[-1] = replace(before, last=failure.last)
        else:
            self.failures.append(failure)
        return []

    def _begin(self, part: DataPart, size: ShrinkingBatchSize) -> EnsembleRun:
        """The model is looked at, once; then the steps are known, and the state can be opened."""
        # Where all attacks average answers over draws, the clean ones are means too: these say what an image is.
        draws = min(entry.draws for entry in self.suite.entries)
        look = first_look(self.model, part.x, part.y, part.index, self.threat, size=size, mode=self.mode, draws=draws)
        class_names(self.classes, look.classes)  # refused now and not after all the work
        self.proofs.check(part.x[0].numel())
        attacks = [named for entry in self.suite.entries for named in entry.named_attacks(look)]
        names = [named.name for named in attacks]
        if len(set(names)) < len(names):
            raise ValueError(f"two attacks have one name: {', '.join(names)}")
        odd = [warning for warning in look.warnings if not (look.averages and warning.kind == "random answers")]
        odd += [warning for entry in self.suite.entries for warning in entry.warnings(look)]
        self.notes = tuple(dict.fromkeys(map(str, odd)))
        epsilons = self._epsilons(part.x[0].numel())
        self.ran = Ran(self.model, self.threat, self.suite, attacks, epsilons, look, self.proofs, self.seed,
                       self.mode)
        steps = self._steps(attacks, epsilons, draws, part)
        return EnsembleRun(steps, self._open(look, steps, len(part), draws), size, len(part))

    def _epsilons(self, pixels: int) -> tuple[float, ...]:
        """The ε of the curve, ascending, for images of so many values; none where there is no curve."""
        if self.curve is not None:
            if self.threat.norm == "l2" and max(self.curve) >= math.sqrt(pixels):
                raise _off_scale(self.curve, f", and an L2 ε of {math.sqrt(pixels):.4g} covers the whole pixel box of "
                                             f"images of {pixels} values")
            return tuple(sorted(set(map(float, self.curve))))
        if not self.suite.curve:
            return ()
        grey, eps = grey_eps(self.threat.norm, pixels), self.threat.eps
        return tuple(sorted({eps / 4, eps / 2, eps, min(2 * eps, grey), grey}))

    def _steps(self, attacks: list[NamedAttack], epsilons: tuple[float, ...], draws: int, part: DataPart
               ) -> list[EnsembleStep]:
        steps: list[EnsembleStep] = [CleanAnswers(self.model, self.mode, draws, self.proofs)]
        if isinstance(self.proofs, BoundProofs):
            network = trace(self.model, part.x)
            steps += [BoundStep(names, network, self.threat, self.proofs) for names in PIECES]
        steps += [AttackStep(named, self.model, self.threat, self.mode, keep=keep_pictures(self.proofs, self.images))
                  for named in attacks]
        if not any(named.attack.follows_gradients for named in attacks):
            steps.append(GradientProbe(self.model, self.mode))
        if self.suite.name == "quick" and self.threat.eps > 0:
            steps.append(SquareProbe(self.model, self.threat, self.seed, self.mode))
        steps += curve_steps(self.model, self.threat, epsilons, self.seed, self.mode, self.proofs)
        if self.suite.diagnostics:
            steps.append(DiagnosisStep(self.model, self.threat, self.seed, self.mode, self.proofs))
        return steps

    def _open(self, look: FirstLook, steps: list[EnsembleStep], size: int, draws: int) -> Chunks:
        """The state. What the model answers on a few images says whether it is the same."""
        attacks = [entry.fingerprint for entry in self.suite.entries]
        header = {} if self.state is None and self.images is None else {
            "format": "evaluation 3", "attacks": fingerprint(*attacks),
            "versions": f"robustness_lib {robustness_lib.__version__}, torch {torch.__version__}",
            "model": model_fingerprint(self.model), "threat": repr(self.threat), "suite": str(self.suite),
            "seed": str(self.seed), "mode": self.mode, "images in a part": str(size), "curve": str(self.curve),
            "steps": "; ".join(step.name for step in steps),
            "certified": self.proofs.fingerprint,
            **({} if self.images is None else {"images kept": "yes"}),
        }
        answers = None if look.varies or draws > 1 else look.answers
        # The first process makes the folder; opening clears what a kill left behind, so nobody works before all have.
        for turn in (self.team.rank == 0, self.team.rank > 0):
            with self.team.together():
                if turn:
                    chunks = Chunks(self.state, header, answers)
                    if self.images is not None:
                        self.images.open(header, answers)
        return chunks

    def _of_all_processes(self, found: list[tuple[int, Verdicts]]) -> list[tuple[int, Verdicts]]:
        everyone = self.team.gather((found, self.failures, self.notes, self.seen))
        if len({seen for *_, seen in everyone}) > 1:
            raise ValueError("the processes were given different data: each needs all of it, in the same order (no "
                             "DistributedSampler, no shuffling); they share the work by themselves")
        self.failures = sorted((f for _, failures, *_ in everyone for f in failures), key=lambda f: f.first)
        self.notes = tuple(dict.fromkeys(note for _, _, notes, _ in everyone for note in notes))
        together = sorted((pair for theirs, *_ in everyone for pair in theirs), key=lambda pair: pair[0])
        if not together:
            why = [f"; the first failure, in {f.step}: {f.error}"
                   + (f" ({self.place})" if self.place and self.place not in f.error else "")
                   for f in self.failures[:1]]
            raise ValueError("there is no image to report on" + "".join(why))
        return together


def _off_scale(curve: Sequence[float], box: str = "") -> ValueError:
    return ValueError(f"the ε of a curve are in pixel units of [0, 1]: write 8/255, not 8; found {list(curve)}{box}")
