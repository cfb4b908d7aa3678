"""The one loop over attacks: clean answers first, then attack after attack, each on the images that it is to try.

`AutoAttack.run` and `evaluate` both run it. What is done with the images is a list of steps under one protocol; each
finished piece of a step is kept on disk, so that a killed run goes on where it was.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from robustness_lib.attacks._attack import Attack, AttackResult
from robustness_lib.attacks._bounded import BoundedAttack
from robustness_lib.precision import full_precision
from robustness_lib.querying.batch_size import ShrinkingBatchSize
from robustness_lib.querying.confirm_predictions import confirm_predictions, predict_logits
from robustness_lib.querying.first_look import FirstLook
from robustness_lib.querying.frozen import Classifier, Mode
from robustness_lib.querying.queried_model import NoGradient
from robustness_lib.querying.warnings import AttackWarning, attack_warning
from robustness_lib.state import Chunks, Content
from robustness_lib.threat import ThreatModel

__all__ = [
    "AttackColumns",
    "AttackEnsemble",
    "AttackStep",
    "CleanStep",
    "EnsembleRun",
    "EnsembleStep",
    "ImagePart",
    "NamedAttack",
    "Refused",
    "RunnableAttack",
    "StepFailed",
    "Verdicts",
    "with_all_steps",
]


class Refused(ValueError):
    """What was found cannot be counted, and the run must end: an attack broke the rules, or contradicts a proof."""


class StepFailed(Exception):
    """The model, or an attack, raised. step: where. cause: what was raised."""

    def __init__(self, step: str, cause: Exception) -> None:
        super().__init__(step)
        self.step, self.cause = step, cause


class RunnableAttack(Protocol):
    """What the loop asks of an attack: this library's attacks have it, others are wrapped (`foreign.ForeignAttack`)."""

    @property
    def knows_success(self) -> bool:
        """Whether it looks at the model's answer itself: a success of its own that is not confirmed is then said."""

    def run(self, model: Classifier, x: Tensor, y: Tensor, *, index: Tensor, batch_size: int) -> AttackResult: ...


class AttackEnsemble(ABC):
    """Several attacks under one name, such as `AutoAttack`: each meets only what those before it left standing.

    draws: answers averaged at each point, where they are made for a model that answers at random; else 1.
    least_classes: with fewer, the attacks are not those of the paper.
    """

    threat: ThreatModel

    @property
    @abstractmethod
    def draws(self) -> int: ...

    @property
    @abstractmethod
    def least_classes(self) -> int: ...

    @abstractmethod
    def attacks(self, classes: int) -> dict[str, Attack]:
        """The attacks by name, in their order, for a model of this many classes."""

    def named_attacks(self, look: FirstLook, prefix: str = "") -> list[NamedAttack]:
        """The same as they are run on the model looked at. prefix: stands before their names."""
        attacks = self.attacks(look.classes)
        attacks = with_all_steps(attacks) if look.stochastic else attacks
        return [NamedAttack(prefix + name, attack, draws=self.draws) for name, attack in attacks.items()]

    def warnings(self, look: FirstLook) -> tuple[AttackWarning, ...]:
        """What makes these other attacks than the paper's, on the model looked at."""
        return (attack_warning("few classes", of=look.classes),) if look.classes < self.least_classes else ()


def with_all_steps(attacks: dict[str, Attack]) -> dict[str, Attack]:
    """As they are run on a model that answers at random: none stops at a lucky draw."""
    return {name: replace(attack, stop="keep-success") if isinstance(attack, BoundedAttack) else attack
            for name, attack in attacks.items()}


@dataclass(frozen=True)
class NamedAttack:
    """An attack in the loop. on: "correct", it meets every image that the model has right; "survivors", only those that
    all before it left standing. draws: answers averaged when its successes are confirmed."""

    name: str
    attack: RunnableAttack
    on: str = "survivors"
    draws: int = 1


@dataclass(frozen=True)
class ImagePart:
    """The unit of work: images x (n, ...) with labels y (n,) and their numbers in the data set, index (n,), on the CPU.
    first: place of the first of them in the data given."""

    x: Tensor
    y: Tensor
    index: Tensor
    first: int = 0

    def __len__(self) -> int:
        return len(self.y)

    def at(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x, y and index of the images at these places (m,)."""
        return self.x[rows.to(self.x.device)], self.y[rows.to(self.y.device)], self.index[rows]


@dataclass
class AttackColumns:
    """What an attack did to a part, column by column, (n,) each on the CPU.

    tried, broke: bool. mistaken_for: int64, the class that the adversarial image gets, −1 where there is none.
    distance: float64, NaN where there is none. spent: calls, queries, gradients, seconds. warnings: kind → places of
    the images. kept: what `keep` made of the images found, piece by piece, each with their places.
    """

    tried: Tensor
    broke: Tensor
    mistaken_for: Tensor
    distance: Tensor
    spent: Counter[str] = field(default_factory=Counter)
    warnings: dict[str, list[int]] = field(default_factory=dict)
    kept: list[tuple[Tensor, Content]] = field(default_factory=list)

    @classmethod
    def empty(cls, n: int) -> AttackColumns:
        nobody = torch.zeros(n, dtype=torch.bool)
        return cls(nobody, nobody.clone(), torch.full((n,), -1), torch.full((n,), torch.nan, dtype=torch.float64))


@dataclass
class Verdicts:
    """What is known of a part so far. clean: (n,) what the model answers without an attack, column by column. right,
    standing: (n,) bool, right without an attack, and not broken so far. attacks: by the name of their step. other: what
    other steps found. seconds: of all of them."""

    right: Tensor
    standing: Tensor
    clean: dict[str, Any] = field(default_factory=dict)
    attacks: dict[str, AttackColumns] = field(default_factory=dict)
    other: dict[str, Content] = field(default_factory=dict)
    seconds: float = 0.0


class EnsembleStep(ABC):
    """Something that is done with the images of a part. name: of its own, for what it found."""

    name: str

    @property
    def label(self) -> str:
        """What progress and failures call it."""
        return self.name

    def begin(self, verdicts: Verdicts) -> None:  # noqa: B027 - most steps have nothing to begin
        """Before the first piece, also where there is none."""

    @abstractmethod
    def rows(self, part: ImagePart, verdicts: Verdicts) -> Tensor:
        """Places (m,) of the images that it looks at."""

    @abstractmethod
    def work(self, part: ImagePart, rows: Tensor, size: int) -> Content:
        """What it finds on the images at these places, in batches of `size`. Kept on disk as it is."""

    @abstractmethod
    def merge(self, part: ImagePart, rows: Tensor, content: Content, verdicts: Verdicts) -> None:
        """Put what `work` found, now or in an earlier run, among the verdicts."""


class CleanStep(EnsembleStep):
    """What the model answers without an attack. draws: answers averaged for it."""

    name = "clean"

    def __init__(self, model: Classifier, mode: Mode, draws: int = 1) -> None:
        self.model, self.mode, self.draws = model, mode, draws

    def rows(self, part: ImagePart, verdicts: Verdicts) -> Tensor:
        return torch.arange(len(part))

    def work(self, part: ImagePart, rows: Tensor, size: int) -> Content:
        x, y, _ = part.at(rows)
        return self.columns(predict_logits(self.model, x, size=size, mode=self.mode, draws=self.draws, labels=y), y)

    def columns(self, logits: Tensor, y: Tensor) -> Content:
        """What is kept of the answers (m, K)."""
        return {"predicted": logits.argmax(1)}

    def merge(self, part: ImagePart, rows: Tensor, content: Content, verdicts: Verdicts) -> None:
        for name, column in content.items():
            before = verdicts.clean.get(name)
            joined = column if before is None else torch.cat([before, column]) if isinstance(column, Tensor) else \
                before + column
            verdicts.clean[name] = joined
        verdicts.right[rows] = verdicts.standing[rows] = content["predicted"] == part.y.cpu()[rows]



class AttackStep(EnsembleStep):
    """An attack, and a fresh answer to each point that it calls a success: outside the attack, in full float32. A point
    that is answered rightly then, or lies outside the threat model, does not count.

    counts: whether what it breaks no longer stands (at a larger ε than the run's it still does). keep: what to keep of
    the images found; called with the part, the places of the broken images, their adversarial images and the columns.
    """

    def __init__(self, named: NamedAttack, model: Classifier, threat: ThreatModel, mode: Mode, *, counts: bool = True,
                 keep: Callable[[AttackStep, ImagePart, Tensor, Tensor, Content], Content] | None = None) -> None:
        self.named, self.model, self.threat, self.mode = named, model, threat, mode
        self.name, self.counts, self.keep = named.name, counts, keep

    def begin(self, verdicts: Verdicts) -> None:
        verdicts.attacks[self.name] = AttackColumns.empty(len(verdicts.right))

    def rows(self, part: ImagePart, verdicts: Verdicts) -> Tensor:
        return (verdicts.standing if self.named.on == "survivors" else verdicts.right).nonzero()[:, 0]

    def work(self, part: ImagePart, rows: Tensor, size: int) -> Content:
        x, y, index = part.at(rows)
        m, began = len(rows), time.perf_counter()
        content: Content = {
            "broke": torch.zeros(m, dtype=torch.bool), "mistaken_for": torch.full((m,), -1),
            "distance": torch.full((m,), torch.nan, dtype=torch.float64), "spent": {}, "warnings": {}}
        if self.threat.eps == 0:
            return content
        try:
            with full_precision():
                result = self.named.attack.run(self.model, x, y, index=index, batch_size=size)
        except NoGradient:
            return content | {"warnings": {"no gradient": list(range(m))},
                              "spent": {"seconds": time.perf_counter() - began}}
        content["warnings"] = {warning.kind: list(warning.rows) for warning in result.warnings}
        claimed = (result.success.cpu() & self.threat.allows(result.distance).cpu()).nonzero()[:, 0]
        x_adv, broken = self._confirm(content, result.x_adv, x, y, claimed, size)
        if self.named.attack.knows_success and (lost := sorted(set(claimed.tolist()) - set(broken.tolist()))):
            content["warnings"]["not confirmed"] = lost
        content["spent"] = {"calls": result.calls, "queries": int(result.queries.sum()),
                            "gradients": int(result.gradients.sum()), "seconds": time.perf_counter() - began}
        return content if self.keep is None else content | self.keep(self, part, rows[broken], x_adv, content)

    def _confirm(self, content: Content, x_adv: Tensor, x: Tensor, y: Tensor, claimed: Tensor,
                 size: int) -> tuple[Tensor, Tensor]:
        """Ask again about the points at the places claimed; into the columns goes what is confirmed. Returns those
        points and their places."""
        if len(claimed) == 0:
            return x_adv[:0], claimed
        there = claimed.to(x.device)
        points, logits, wrong = confirm_predictions(self.model, x_adv[there], x[there], y[claimed.to(y.device)],
                                                    self.threat, size=size, mode=self.mode, draws=self.named.draws)
        broken, points = claimed[wrong], points[wrong.to(x.device)]
        content["broke"][broken] = True
        content["mistaken_for"][broken] = logits[wrong].argmax(1)
        content["distance"][broken] = self.threat.distance(points, x[broken.to(x.device)]).cpu()
        return points, broken

    def merge(self, part: ImagePart, rows: Tensor, content: Content, verdicts: Verdicts) -> None:
        columns, broken = verdicts.attacks[self.name], rows[content.pop("broke")]
        columns.tried[rows] = True
        columns.broke[broken] = True
        for name in ("mistaken_for", "distance"):
            getattr(columns, name)[rows] = content.pop(name)
        columns.spent.update(content.pop("spent"))
        for kind, at in content.pop("warnings").items():
            columns.warnings.setdefault(kind, []).extend(rows[at].tolist())
        columns.kept.append((broken, content))
        if self.counts:
            verdicts.standing[broken] = False


class EnsembleRun:
    """The steps, in order, over one part after the other.

    size: images that travel to the device together, halved while its memory runs out. piece: images that a step takes
    at once, and what is kept on disk together. tell: called with each step's label and the share of steps that is done.
    """

    def __init__(self, steps: Sequence[EnsembleStep], chunks: Chunks, size: ShrinkingBatchSize, piece: int) -> None:
        self.steps, self.chunks, self.size, self.piece = steps, chunks, size, piece

    def __call__(self, part: ImagePart, tell: Callable[[str, float], None] = lambda name, share: None) -> Verdicts:
        """Raises StepFailed, and what a step refuses (`Refused`); ValueError where the state holds something else."""
        nobody = torch.zeros(len(part), dtype=torch.bool)
        verdicts = Verdicts(nobody, nobody.clone())
        for number, step in enumerate(self.steps):
            tell(step.label, number / len(self.steps))
            step.begin(verdicts)
            for place, rows in enumerate(torch.split(step.rows(part, verdicts), self.piece)):
                if len(rows) == 0:
                    continue
                key = f"{part.first:07d}+{len(part)}-{number:02d}-{place:05d}"
                content = self.chunks.read(key)
                if content is None:
                    began = time.perf_counter()
                    while content is None:
                        try:
                            content = step.work(part, rows, self.size.now)
                        except Refused:
                            raise
                        except Exception as error:  # whatever a model may raise
                            if not self.size.can_shrink(error):
                                raise StepFailed(step.label, error) from error
                        if content is None:  # outside the handler: its exception holds the tensors that have to go
                            self.size.shrink()
                    content |= {"rows": rows, "took": time.perf_counter() - began}
                    self.chunks.write(key, content)
                if not torch.equal(content.pop("rows"), rows):
                    raise ValueError(f"the state holds {step.name} on other images than stand now; delete it and begin "
                                     f"again")
                verdicts.seconds += content.pop("took")
                step.merge(part, rows, content, verdicts)
        return verdicts
