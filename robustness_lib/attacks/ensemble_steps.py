"""The steps of every run over attacks: the model's clean answers, and an attack whose finds are confirmed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict

import torch
from torch import Tensor

from robustness_lib.attacks.ensemble import NamedAttack
from robustness_lib.attacks.ensemble_run import AttackColumns, EnsembleStep, ImagePart, Verdicts
from robustness_lib.precision import full_precision
from robustness_lib.querying.confirm_predictions import confirm_predictions, predict_logits
from robustness_lib.querying.frozen import Classifier, Mode, answers_by_batch
from robustness_lib.querying.queried_model import NoGradient
from robustness_lib.querying.warnings import AttackWarning
from robustness_lib.state import Content
from robustness_lib.threat import ThreatModel

__all__ = ["CHANGED", "AttackStep", "CleanStep"]

CHANGED = "changed answer"  # right when it was asked first, and wrong, unchanged, when the attack began


class CleanStep(EnsembleStep):
    """What the model answers without an attack. draws: answers averaged for it."""

    name = "clean"

    def __init__(self, model: Classifier, mode: Mode, draws: int = 1) -> None:
        self.model, self.mode, self.draws = model, mode, draws

    def rows(self, part: ImagePart, verdicts: Verdicts) -> Tensor:
        return torch.arange(len(part))

    def work(self, part: ImagePart, rows: Tensor, size: int) -> Content:
        x, y, _ = part.at(rows)
        return self.columns(predict_logits(self.model, x, size=size, mode=self.mode, draws=self.draws), y)

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

    Of a model that answers by its batch (see `answers_by_batch`) all images of the part are attacked and asked about,
    so that each stays among its neighbours; what is found on those not to be tried is dropped. Images that are proved
    are not tried, unless the attack has more room than that of which they are (spares_proved).
    """

    spares_proved = True

    def __init__(self, named: NamedAttack, model: Classifier, threat: ThreatModel, mode: Mode, *, counts: bool = True,
                 keep: Callable[[AttackStep, ImagePart, Tensor, Tensor, Content], Content] | None = None) -> None:
        self.named, self.model, self.threat, self.mode = named, model, threat, mode
        self.name, self.counts, self.keep = named.name, counts, keep
        self.whole = answers_by_batch(model, mode)

    def begin(self, verdicts: Verdicts) -> None:
        verdicts.attacks[self.name] = AttackColumns.empty(len(verdicts.right))

    def rows(self, part: ImagePart, verdicts: Verdicts) -> Tensor:
        met = {"correct": verdicts.right, "survivors": verdicts.standing,
               "not followed": verdicts.standing & ~verdicts.followed}[self.named.on]
        return (met & ~verdicts.proved if self.spares_proved else met).nonzero()[:, 0]

    def work(self, part: ImagePart, rows: Tensor, size: int) -> Content:
        batch = torch.arange(len(part)) if self.whole else rows
        x, y, index = part.at(batch)
        m, began = len(rows), time.perf_counter()
        content: Content = {
            "broke": torch.zeros(m, dtype=torch.bool), "followed": torch.full((m,), self.threat.eps == 0),
            "mistaken_for": torch.full((m,), -1),
            "distance": torch.full((m,), torch.nan, dtype=torch.float64), "spent": {}, "warnings": {}}
        if self.threat.eps == 0:
            return content
        try:
            with full_precision():
                result = self.named.attack.run(self.model, x, y, index=index, batch_size=size)
        except NoGradient:
            return content | {"warnings": {"no gradient": list(range(m))},
                              "spent": {"seconds": time.perf_counter() - began}}
        tried = torch.isin(batch, rows)
        place = (tried.cumsum(0) - 1).tolist()  # among those tried

        def at(warning: AttackWarning) -> list[int]:
            return [place[row] for row in warning.rows if tried[row]]

        told = [warning for warning in result.warnings if not warning.rows or at(warning)]
        ordinary = [w for w in told if not w.about and (w.counts_images or w.kind == "changed mode")]
        content["warnings"] = {warning.kind: at(warning) for warning in ordinary}
        content["others"] = [asdict(warning) | {"rows": at(warning)} for warning in told if warning not in ordinary]
        content["followed"] = result.followed.cpu()[tried]
        claimed = (result.success.cpu() & self.threat.allows(result.distance).cpu() & tried).nonzero()[:, 0]
        broken, x_adv, columns = self._confirmed(result.x_adv, x, y, claimed, size)
        found = [place[row] for row in broken.tolist()]
        for name, column in columns.items():
            content[name][found] = column
        if self.named.attack.knows_success and (lost := sorted(set(claimed.tolist()) - set(broken.tolist()))):
            content["warnings"]["not confirmed"] = [place[row] for row in lost]
        if self.named.attack.knows_success and self.named.draws == 1:  # the clean answer was right
            unmoved = (result.distance.cpu() == 0)[claimed]
            content["warnings"] |= {CHANGED: [place[row] for row in claimed[unmoved].tolist()]} if unmoved.any() else {}
        content["spent"] = {"calls": result.calls, "queries": int(result.queries.sum()),
                            "gradients": int(result.gradients.sum()), "seconds": time.perf_counter() - began}
        return content if self.keep is None else content | self.keep(self, part, batch[broken], x_adv, content)

    def _confirmed(self, x_adv: Tensor, x: Tensor, y: Tensor, claimed: Tensor,
                   size: int) -> tuple[Tensor, Tensor, Content]:
        """Ask again about the points at the places claimed. Returns the places of those that are confirmed, their
        points, and what goes into the columns."""
        if len(claimed) == 0:
            return claimed, x_adv[:0], {}
        asked = torch.arange(len(x)) if self.whole else claimed
        there = asked.to(x.device)
        points, logits, wrong = confirm_predictions(self.model, x_adv[there], x[there], y[asked.to(y.device)],
                                                    self.threat, size=size, mode=self.mode, draws=self.named.draws)
        wrong &= torch.isin(asked, claimed)
        broken, points = asked[wrong], points[wrong.to(x.device)]
        distance = self.threat.distance(points, x[broken.to(x.device)]).cpu()
        return broken, points, {"broke": True, "mistaken_for": logits[wrong].argmax(1), "distance": distance}

    def merge(self, part: ImagePart, rows: Tensor, content: Content, verdicts: Verdicts) -> None:
        columns, broken = verdicts.attacks[self.name], rows[content.pop("broke")]
        columns.tried[rows] = True
        columns.broke[broken] = True
        verdicts.followed[rows] |= content.pop("followed")
        for name in ("mistaken_for", "distance"):
            getattr(columns, name)[rows] = content.pop(name)
        columns.spent.update(content.pop("spent"))
        for kind, at in content.pop("warnings").items():
            columns.warnings.setdefault(kind, []).extend(rows[at].tolist())
        columns.others += [AttackWarning(**other | {"rows": tuple(rows[list(other["rows"])].tolist())})
                           for other in content.pop("others", ())]
        columns.kept.append((broken, content))
        if self.counts:
            verdicts.standing[broken] = False
