"""One call: how robust is this model, and can the number be trusted?"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import robustness_lib
from robustness_lib.attacks import AutoAttack
from robustness_lib.attacks._asking import ask
from robustness_lib.attacks._attack import default_batch
from robustness_lib.attacks._doubts import varies
from robustness_lib.attacks._victim import Classifier, Mode, Victim
from robustness_lib.attacks.adaptive import EOT
from robustness_lib.distributed import Team
from robustness_lib.evaluation._assemble import assemble, class_names
from robustness_lib.evaluation._memory import Batch
from robustness_lib.evaluation._part_run import PartFailed, PartRun
from robustness_lib.evaluation._parts import Part, parts
from robustness_lib.evaluation.report import Failure, Report
from robustness_lib.evaluation.suites import SuiteLike, find_suite
from robustness_lib.inputs import check_count
from robustness_lib.state import Chunks, Content, fingerprint, model_fingerprint
from robustness_lib.threat import ThreatModel

__all__ = ["Progress", "evaluate"]

Progress = Callable[[int, str], None]  # images done, counting a part by its steps; the step at hand
_PROBE = 16  # images that are asked twice


def evaluate(model: Classifier, x: Any, y: Tensor | None = None, threat: ThreatModel | None = None,
             suite: SuiteLike = "standard", *, classes: Sequence[str] | None = None, certified: Tensor | None = None,
             curve: Sequence[float] | None = None, seed: int = 0, mode: Mode = "eval", batch_size: int | None = None,
             state: str | Path | None = None, progress: Progress | None = None) -> Report:
    """Attack the model with every attack of a suite and report the worst case per example.

    model: images in [0, 1] to logits (N, K); see `robustness_lib.models.as_classifier`. Attacked in eval mode (mode
    "keep": as it is) and left as it was.
    x, y: images (N, ...) float32 or float64 and labels (N,) int64; or, as x alone, any iterable of batches (x, y),
    such as a DataLoader that does not shuffle. Only one part of it is held in memory at a time.
    threat: the norm and ε in pixel units of [0, 1].
    suite: "quick", "standard", "random" (see `SUITES`); or attacks: one, a list, or a mapping by name. Besides this
    library's, any function (model, x, y) -> x_adv will do; what it returns is verified.
    classes: names. certified: (N,) bool, images whose prediction is *proved* constant within the threat model: the
    report then has a lower bound too. curve: the ε of the curve (default: a quarter, half, once and twice ε, and the ε
    at which every image can become the same grey). seed: of everything drawn.
    batch_size: images that travel to the device together; halved when its memory runs out. None: 250, or on a CPU as
    many as its caches hold. The work is cut into parts of this size.
    state: a folder. A killed run that is started again with it goes on where it was, and ends with the same report.
    progress: called with the number of images done and the step at hand.

    Where several processes run this under one process group (see `robustness_lib.distributed`), give each of them all
    the data, in one order: they share the parts, and each returns the whole report.

    Images on which the model raises are named in `failures`, and so is a part on which an attack does; the rest goes
    on. A model that fails on each of its first images raises. Raises ValueError or TypeError for data, models and
    suites that cannot be evaluated, for an attack that leaves the threat model, for an example both certified and
    broken (`Contradiction`), and for a state of another run.
    """
    if not isinstance(threat, ThreatModel):
        raise TypeError(f'threat must be a ThreatModel, such as ThreatModel("linf", 8/255); found {threat!r}')
    if batch_size is not None:
        check_count("batch_size", batch_size)
    check_count("seed", seed, least=0)
    team = Team.now()
    run = PartRun(model, threat, find_suite(suite, threat, seed=seed, mode=mode), curve, certified, seed, mode)
    pieces = parts(x, y, batch_size, lambda images: default_batch(images, Victim(model).device(images)))
    loop = _Loop(run, team, None if state is None else Path(state), classes, progress)
    found = loop.go(pieces)
    return assemble(found, run, classes=classes, notes=loop.notes, failures=tuple(loop.failures),
                    model=model_fingerprint(model), environment=_environment(model, loop.dtype, seed, mode, team))


class _Loop:
    """Over the parts: those of this process are worked on, then all processes put together what they have."""

    def __init__(self, run: PartRun, team: Team, state: Path | None, classes: Sequence[str] | None,
                 progress: Progress | None) -> None:
        self.run, self.team, self.state, self.classes = run, team, state, classes
        self.dtype = torch.float32
        self.progress: Progress = progress or (lambda done, step: None)
        self.failures: list[Failure] = []
        self.notes: tuple[str, ...] = ()
        self.seen = ""  # a fingerprint of all data so far

    def go(self, pieces: Iterator[Part]) -> list[tuple[int, Content]]:
        """The columns of all parts that have a verdict, each with the number of its first image."""
        mine = self.team.together(lambda: self._work(pieces))
        everyone = self.team.gather((mine, self.failures, self.notes, self.seen))
        if len({seen for *_, seen in everyone}) > 1:
            raise ValueError("the processes were given different data: each needs all of it, in the same order (no "
                             "DistributedSampler, no shuffling); they share the work by themselves")
        self.failures = sorted((f for _, failures, *_ in everyone for f in failures), key=lambda f: f.first)
        self.notes = tuple(dict.fromkeys(note for _, _, notes, _ in everyone for note in notes))
        found = sorted((pair for theirs, *_ in everyone for pair in theirs), key=lambda pair: pair[0])
        if not found:
            why = [f"; the first failure, in {f.step}: {f.error}" for f in self.failures[:1]]
            raise ValueError("there is no image to report on" + "".join(why))
        return found

    def _work(self, pieces: Iterator[Part]) -> list[tuple[int, Content]]:
        """The parts of this process."""
        certified, total = self.run.certified, 0
        mine: list[tuple[int, Content]] = []
        for part in pieces:
            if part.number == 0:
                batch = Batch(len(part.x))
                chunks = self._open(part, batch)
            total, self.dtype = part.first + len(part.x), part.x.dtype
            if self.team.size > 1:
                self.seen = fingerprint(self.seen, *part.digests)
            if certified is not None and total > len(certified):
                raise ValueError(f"certified must have one entry per image; found {len(certified)} for more images")
            if not self.team.mine(part.number):
                continue
            mine += self._one(part, chunks, batch)
            self.progress(total, "done")
        if certified is not None and total != len(certified):
            raise ValueError(f"certified must have one entry per image; found {len(certified)} for {total} images")
        if total:
            self.notes += batch.note
        return mine

    def _one(self, part: Part, chunks: Chunks, batch: Batch) -> list[tuple[int, Content]]:
        """The columns of a part. Where the model fails on it without any attack, its halves are tried, so that only
        the images that the model cannot take are without a verdict. Where an attack fails, all are: to keep only
        those that earlier attacks broke would bend the accuracy."""
        def tell(step: str, share: float) -> None:
            self.progress(part.first + int(share * len(part.x)), step)

        try:
            return [(part.first, self.run(part, chunks, batch, tell))]
        except PartFailed as failed:
            error, half = failed.__cause__, len(part.x) // 2
            if failed.step == "clean" and half:
                cut = part.first + half
                return [pair for piece in (Part(part.number, part.first, part.x[:half], part.y[:half]),
                                           Part(part.number, cut, part.x[half:], part.y[half:]))
                        for pair in self._one(piece, chunks, batch)]
            failure = Failure(part.first, part.first + len(part.x) - 1, failed.step, f"{type(error).__name__}: {error}")
            before = self.failures[-1] if self.failures else None
            if before and (before.last + 1, before.step, before.error) == (failure.first, failure.step, failure.error):
                self.failures[-1] = replace(before, last=failure.last)
            else:
                self.failures.append(failure)
            return []

    def _open(self, part: Part, batch: Batch) -> Chunks:
        """The state, after a first look at the model: what it answers on a few images says whether it is the same."""
        run = self.run
        near = run.threat.random_point(part.x[:_PROBE], seed=0, index=part.index[:_PROBE])
        few = torch.cat((part.x[:_PROBE], near))

        def look(images: Tensor) -> Tensor:
            return batch.run(lambda size: ask(run.model, images, size=size, mode=run.mode, labels=part.y))

        try:
            answers, again = look(few), look(few)
        except Exception:  # on some of these images only? They will be named; a model that takes none of them ends here
            few = torch.cat([image for image in torch.split(few, 1) if _works(look, image)] or [few])
            answers, again = look(few), look(few)
        class_names(self.classes, answers.shape[1])  # refused now and not after all the work
        odd = varies(answers, again)
        made_for_it = [isinstance(e.attack, AutoAttack) and e.attack.version == "rand" for e in run.suite.entries]
        if not all(made_for_it):
            self.notes = tuple(map(str, odd))
        kept = None if odd else answers
        header = {} if self.state is None else {
            "format": "evaluation 1", "attacks": fingerprint(*(model_fingerprint(e.attack) for e in run.suite.entries)),
            "versions": f"robustness_lib {robustness_lib.__version__}, torch {torch.__version__}",
            "model": model_fingerprint(run.model), "threat": repr(run.threat),
            "suite": str(run.suite), "seed": str(run.seed), "mode": run.mode, "images in a part": str(len(part.x)),
            "curve": str(run.curve), "certified": "none" if run.certified is None else fingerprint(run.certified),
        }
        # The first process makes the folder; opening clears what a kill left behind, so nobody works before all have.
        first, rest = self.team.rank == 0, self.team.rank > 0
        opened = [self.team.together(partial(self._chunks, header, kept, mine)) for mine in (first, rest)]
        return next(chunks for chunks in opened if chunks is not None)

    def _chunks(self, header: dict[str, str], answers: Tensor | None, mine: bool) -> Chunks | None:
        return Chunks(self.state, header, answers) if mine else None


def _works(look: Callable[[Tensor], Tensor], image: Tensor) -> bool:
    try:
        look(image)
    except Exception:
        return False
    return True


def _environment(model: Classifier, dtype: torch.dtype, seed: int, mode: Mode, team: Team) -> dict[str, str]:
    device = Victim(model).device(torch.empty(0))
    drawn = {"answers": f"of {model.samples} draws each, decided by {model.decision}"} if isinstance(model, EOT) else {}
    return drawn | {
        "robustness_lib": robustness_lib.__version__, "torch": torch.__version__, "python": platform.python_version(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "precision": f"{str(dtype).removeprefix('torch.')} images, TF32 and autocast off", "seed": str(seed),
        "mode": mode, "processes": str(team.size),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
