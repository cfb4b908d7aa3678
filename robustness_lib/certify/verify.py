"""Verification: attacks and bounds in turn, the cheap ones first, until each image is proved, broken or out of time."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

import robustness_lib
from robustness_lib.attacks.auto_pgd import AutoPGD
from robustness_lib.attacks.ensemble import NamedAttack
from robustness_lib.attacks.ensemble_run import EnsembleRun, EnsembleStep, ImagePart, StepFailed, Verdicts
from robustness_lib.attacks.ensemble_steps import AttackStep, CleanStep
from robustness_lib.attacks.pgd import PGD
from robustness_lib.certify._rounding import ROUNDING
from robustness_lib.certify.proof_steps import METHODS, PIECES, LimitedAttackStep, ProofStep
from robustness_lib.certify.traced_network import TracedNetwork, trace
from robustness_lib.certify.verification import ProofStage, Verdict, Verification
from robustness_lib.distributed import Team
from robustness_lib.inputs import check_count, check_images, check_index, check_labels, check_real
from robustness_lib.querying.batch_size import ShrinkingBatchSize, cut, default_batch_size
from robustness_lib.querying.confirm_predictions import predict_logits
from robustness_lib.querying.frozen import Classifier
from robustness_lib.querying.warnings import clamped
from robustness_lib.state import Chunks, Content, fingerprint, image_digests, model_fingerprint
from robustness_lib.threat import ThreatModel

__all__ = ["verify"]

_RESTARTS = 5  # of AutoPGD, each on what those before it left
_LOOKED_AT = 8  # images whose logits tell a state's model from others

_Progress = Callable[[int, str], None]  # images done, and the step at hand


def verify(model: Classifier, x: Tensor, y: Tensor, threat: ThreatModel, seconds: float | None = None, *,
           index: Tensor | None = None, seed: int = 0, batch_size: int | None = None, state: str | Path | None = None,
           progress: _Progress | None = None) -> Verification:
    """Decide each image: is there one that the threat model allows, and that gets another answer than the label?

    After the model's own answers come PGD with 20 steps, interval bounds, CROWN-IBP, CROWN, α-CROWN, and AutoPGD with
    restarts, each on the images that are not decided. An example that an attack finds counts once it is confirmed
    outside the attack. A bound counts from a tolerance for rounding on, the bound's own and that of the model's
    answers: 10⁻⁶ in float32, and 10⁻¹² in float64, of the sum of the absolute values of all that the logits are added
    up from. Closer ones of a float32 model are computed again in float64, and count from half of that on: the model's
    answers are rounded as before.

    model: images (N, ...) in [0, 1] to logits (N, K), of operations that have a rule (see `interval_bounds`); held in
    eval mode, and left as it was. x: (N, ...) float32 or float64 in [0, 1]; y: (N,) int64 labels. seconds: that an
    image may take, all methods together, each sharing its time among the images at hand and taking at most half of what
    is left for bounds; what is undecided then is "unknown". Work at hand is finished, so that it may take a little
    longer, and with it verdicts depend on the machine. index: (N,) int64, each image's number in its data set (default
    0 ... N − 1), and seed: the attacks' starts follow from these. batch_size: images that are worked on together.
    state: a folder; a killed run that is called again with it goes on where it was. progress: called with the number
    of images done and the step at hand. Processes of one process group share the work, and each returns all of it
    (give each all images).

    Raises what `trace` raises: `UnknownOperation` above all; TypeError and ValueError for images, labels and settings
    that cannot be used, and ValueError for a state of another run.
    """
    if not isinstance(threat, ThreatModel):
        raise TypeError(f'threat must be a ThreatModel, such as ThreatModel("linf", 8/255); found {threat!r}')
    if seconds is not None and not 0 < check_real("seconds", seconds, "that an image may take") < math.inf:
        raise ValueError(f"seconds must be positive and finite; found {seconds}")
    if batch_size is not None:
        check_count("batch_size", batch_size)
    check_count("seed", seed, least=0)
    given, x = x, check_images(x).detach()
    check_labels(y, x)
    part = ImagePart(x, y.detach(), check_index(index, x))
    if len(x) == 0:
        return Verification((), (), torch.zeros(0, dtype=torch.float64), x.clone(), threat, (), seconds,
                            torch.zeros(0, dtype=torch.bool), model_fingerprint(model), ())
    with Team.now().together():
        predict_logits(model, x[:2], size=2, labels=y)  # what the model cannot take, and labels out of range
        network = trace(model, x)
    size = batch_size or default_batch_size(x, network.device)
    chunks = _open(model, part, threat, seconds, seed, size, state)
    run = EnsembleRun(_steps(model, network, threat, seconds, seed), chunks, ShrinkingBatchSize(size), size)
    found = _over_parts(run, part, size, progress or (lambda done, step: None))
    doubt = threat.doubt_about_eps(x[0].numel())
    notes = tuple(map(str, clamped(given, x))) + (() if doubt is None else (doubt,))
    return _verification(model, part, threat, found, seconds, notes)


def _steps(model: Classifier, network: TracedNetwork, threat: ThreatModel, seconds: float | None, seed: int
           ) -> list[EnsembleStep]:
    def attacked(name: str, attack: PGD | AutoPGD) -> EnsembleStep:
        step = LimitedAttackStep(NamedAttack(name, attack), model, threat, "eval", keep=_keep_images)
        step.seconds = seconds
        return step

    steps: list[EnsembleStep] = [CleanStep(model, "eval")]
    steps += [attacked("PGD", PGD(threat, steps=20, seed=seed))] if threat.eps > 0 else []
    steps += [ProofStep(names, network, threat, seconds) for names in PIECES]
    if threat.eps > 0:
        steps += [attacked(f"AutoPGD {number}", AutoPGD(threat, loss="targeted-margin", seed=seed + number))
                  for number in range(1, _RESTARTS + 1)]
    return steps


def _keep_images(step: AttackStep, part: ImagePart, rows: Tensor, x_adv: Tensor, content: Content) -> Content:
    return {"x_adv": x_adv.cpu()}


def _open(model: Classifier, part: ImagePart, threat: ThreatModel, seconds: float | None, seed: int, size: int,
          state: str | Path | None) -> Chunks:
    """The first process makes the folder; nobody works before all have it."""
    team, answers, header = Team.now(), None, dict[str, str]()
    if state is not None or team.size > 1:
        header = {"format": "verification 2", "version": f"{robustness_lib.__version__}, torch {torch.__version__}",
                  "model": model_fingerprint(model), "data": fingerprint(part.x, part.y, part.index),
                  "threat": repr(threat), "seconds": str(seconds), "seed": str(seed), "batch size": str(size),
                  "methods": f"{METHODS!r} {ROUNDING!r} {_RESTARTS}"}
        answers = predict_logits(model, part.x[:_LOOKED_AT], size=_LOOKED_AT)
    others = team.gather(header)
    if differing := sorted({key for theirs in others for key in theirs if theirs[key] != others[0][key]}):
        raise ValueError(f"the processes were given different things ({', '.join(differing)}): give each of them the "
                         f"same, with all images; they share the work")
    for turn in (team.rank == 0, team.rank > 0):
        with team.together():
            if turn:
                chunks = Chunks(None if state is None else Path(state), header, answers)
    return chunks


def _over_parts(run: EnsembleRun, whole: ImagePart, size: int, progress: _Progress) -> list[tuple[int, Verdicts]]:
    """What was found, part by part, by all processes: the place of the first image, and the verdicts."""
    team = Team.now()
    found: list[tuple[int, Verdicts]] = []
    with team.together():
        for number, place in enumerate(cut(len(whole), size)):
            rows = torch.arange(place.start, min(place.stop, len(whole)))
            part = ImagePart(*whole.at(rows), first=place.start)
            if team.mine(number):
                try:
                    found.append((place.start, run(part, partial(_tell, progress, part))))
                except StepFailed as failed:  # here nobody goes on without the images at hand
                    raise failed.cause from None
            progress(place.start + len(part), "done")
    return sorted((pair for theirs in team.gather(found) for pair in theirs), key=lambda pair: pair[0])


def _tell(progress: _Progress, part: ImagePart, step: str, share: float) -> None:
    progress(part.first + int(share * len(part)), step)


def _verification(model: Classifier, whole: ImagePart, threat: ThreatModel, found: list[tuple[int, Verdicts]],
                  seconds: float | None, notes: tuple[str, ...]) -> Verification:
    n, x_adv = len(whole), whole.x.clone()
    verdicts: list[Verdict] = ["unknown"] * n
    decided_by: list[str | None] = [None] * n
    margin, late = torch.full((n,), -torch.inf, dtype=torch.float64), torch.zeros(n, dtype=torch.bool)
    for first, part in found:
        for row in (~part.right).nonzero()[:, 0].tolist():
            verdicts[first + row], decided_by[first + row] = "wrong", "clean"
        for name, columns in part.other.items():
            here = margin[first:first + len(part.right)]
            here.copy_(torch.maximum(here, columns["margin"]))
            late[first:first + len(part.right)] |= columns["late"] | ~columns["tried"]
            for row in columns["proved"].nonzero()[:, 0].tolist():
                verdicts[first + row], decided_by[first + row] = "robust", name
        for name, attack in part.attacks.items():
            late[first:first + len(part.right)] |= ~attack.tried
            for rows, kept in attack.kept:
                if len(rows) == 0:  # an attack that could not begin keeps nothing
                    continue
                x_adv[(first + rows).to(x_adv.device)] = kept["x_adv"].to(x_adv)
                for row in rows.tolist():
                    verdicts[first + row], decided_by[first + row] = "broken", name.partition(" ")[0]
    late &= torch.tensor([verdict == "unknown" for verdict in verdicts], dtype=torch.bool)
    shown = torch.tensor([verdict in ("broken", "wrong") for verdict in verdicts]).nonzero()[:, 0]
    if len(shown):
        margin[shown] = _margins_at(model, x_adv[shown.to(x_adv.device)], whole.y[shown.to(whole.y.device)])
    return Verification(tuple(verdicts), tuple(decided_by), margin, x_adv, threat, _stages(found), seconds,
                        late, model_fingerprint(model), tuple(image_digests(whole.x, whole.y)), notes)


def _margins_at(model: Classifier, x: Tensor, y: Tensor) -> Tensor:
    logits = predict_logits(model, x, size=default_batch_size(x, x.device)).double()
    label = y.cpu()[:, None]
    others = logits.scatter(1, label, -torch.inf).amax(1)
    return logits.gather(1, label)[:, 0] - others


def _stages(found: list[tuple[int, Verdicts]]) -> tuple[ProofStage, ...]:
    """In their order, AutoPGD's restarts as one."""
    made: dict[str, list[float]] = {}

    def add(name: str, attempted: int, decided: int, seconds: float) -> None:
        total = made.setdefault(name, [0, 0, 0.0])
        total[0], total[1], total[2] = max(total[0], attempted), total[1] + decided, total[2] + seconds

    wrong = sum(int((~part.right).sum()) for _, part in found)
    add("clean", sum(len(part.right) for _, part in found), wrong, 0.0)
    names = [*dict.fromkeys(name for _, part in found for name in (*part.attacks, *part.other))]
    for name in sorted(names, key=lambda name: (name.startswith("AutoPGD"), name != "PGD")):
        attacks = [part.attacks[name] for _, part in found if name in part.attacks]
        proofs = [part.other[name] for _, part in found if name in part.other]
        attempted = sum(int(a.tried.sum()) for a in attacks) + sum(int(p["tried"].sum()) for p in proofs)
        decided = sum(int(a.broke.sum()) for a in attacks) + sum(int(p["proved"].sum()) for p in proofs)
        seconds = sum(float(a.spent["seconds"]) for a in attacks) + sum(float(p["seconds"].sum()) for p in proofs)
        add(name.partition(" ")[0], attempted, decided, seconds)
    return tuple(ProofStage(name, int(attempted), int(decided), seconds)
                 for name, (attempted, decided, seconds) in made.items())
