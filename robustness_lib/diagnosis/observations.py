"""What the diagnosis looks at: a few yes-or-no columns per image, observed part by part and joined."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from robustness_lib.attacks import FGSM, PGD, Attack, SquareAttack, Transfer
from robustness_lib.counter_random import bulk_normal
from robustness_lib.inputs import check_count, check_images, check_index, check_labels
from robustness_lib.losses import cross_entropy
from robustness_lib.precision import full_precision
from robustness_lib.querying.batch_size import cut, default_batch_size
from robustness_lib.querying.frozen import Classifier, Mode, answers_by_batch, frozen
from robustness_lib.querying.queried_model import NoGradient, QueriedModel
from robustness_lib.threat import ThreatModel

__all__ = ["POINTS", "QUERIES", "RESTARTS", "RESTARTS_AGAIN", "STEPS", "grey_eps", "join_observations", "observe"]

STEPS, RESTARTS = 20, 5
RESTARTS_AGAIN = 3  # of the control: 60 gradients take about as long as the 200 answers that Square may ask for
QUERIES = 200
POINTS = 24  # of random search, inside the ball and once more at its corners
# One level of an 8-bit image: small enough for any net to be nearly linear, large enough to see past rounding.
_SMALL = 1 / 255
_ROUNDING = 1e-4  # relative; a GPU that adds in another order changes a logit by about 1e-6


def observe(model: Classifier, x: Tensor, y: Tensor, threat: ThreatModel, *, index: Tensor | None = None,
            seed: int = 0, mode: Mode = "eval", batch_size: int | None = None,
            surrogate: Classifier | None = None) -> dict[str, Tensor]:
    """Columns of length n on the CPU, for `join_observations` and `judge`. They follow from the images, their index and
    the seed (and, of a model that answers at random, its draws), not from how the data are cut into calls or batches.

    label: (n,) int64. All others (n,) bool. Of every image: right, and varied (a second look at the same batch gave
    other logits); detached (autograd sees no way back to the input). Of those that the model has right, the rest is
    False: fgsm and pgd, what these broke; of what PGD left standing, what broke: again (PGD from other starts),
    square, random, transfer (with a surrogate only); grey, what PGD left standing where every image may become the
    same grey; zero, not_a_number: the gradient at the image or at a random point near it; flat: see `_slopes`.
    Where the model is detached, the columns that need a gradient are missing.

    Raises TypeError and ValueError as attacks do.
    """
    x = check_images(x)
    check_labels(y, x)
    check_count("seed", seed, least=None)
    if not isinstance(threat, ThreatModel):
        raise TypeError(f'threat must be a ThreatModel, such as ThreatModel("linf", 8/255); found {threat!r}')
    if batch_size is not None:
        check_count("batch_size", batch_size)
    device = QueriedModel(model).device(x)
    size = batch_size or (default_batch_size(x, device) if len(x) else 1)
    case = _Case(model, x.detach(), y.detach(), check_index(index, x), threat, seed, mode, size, device)
    with frozen(model, mode), full_precision():
        columns = {"label": y.detach().cpu(), **_answers(case)}
        right = columns["right"]
        standing, columns["detached"] = right, torch.zeros_like(right)
        attack = partial(PGD, steps=STEPS, mode=mode)
        try:
            columns |= _slopes(case, right)
            columns["fgsm"] = case.broken(FGSM(threat, mode=mode), right)
            columns["pgd"] = case.broken(attack(threat, restarts=RESTARTS, seed=case.draw(0)), right)
            standing = right & ~columns["pgd"]
            columns["again"] = case.broken(attack(threat, restarts=RESTARTS_AGAIN, seed=case.draw(1)), standing)
            columns["grey"] = right & ~case.broken(attack(_everything(case), seed=case.draw(2)), right)
        except NoGradient:
            standing, columns["detached"] = right, torch.ones_like(right)
        return columns | _without_gradients(case, standing, surrogate)


def join_observations(parts: Iterable[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The columns of several calls, one after the other. A column that some call lacks is False there."""
    parts = list(parts)
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: torch.cat([part.get(name, torch.zeros(len(part["label"]), dtype=torch.bool)) for part in parts])
            for name in names}


@dataclass(frozen=True)
class _Case:
    model: Classifier
    x: Tensor
    y: Tensor
    index: Tensor
    threat: ThreatModel
    seed: int
    mode: Mode
    size: int
    device: torch.device  # where the model is

    def draw(self, number: int) -> int:
        """A seed for the use of this number: no two uses of the caller's seed share their random numbers."""
        return 16 * self.seed + number

    def parts(self, wanted: Tensor) -> Iterable[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Batches of the wanted (n,) bool: their rows and, on the model's device, images, labels; and the index. Of a
        model that answers by its batch, all images while any is wanted."""
        chosen = wanted.nonzero()[:, 0]
        if len(chosen) and answers_by_batch(self.model, self.mode):
            chosen = torch.arange(len(wanted))
        for part in cut(len(chosen), self.size):
            rows = chosen[part]
            x, y = self.x[rows.to(self.x.device)], self.y[rows.to(self.y.device)]
            yield rows, x.to(self.device), y.to(self.device), self.index[rows]

    def broken(self, attack: Attack, wanted: Tensor) -> Tensor:
        """(n,) bool: which of the wanted the attack breaks."""
        found = torch.zeros(len(wanted), dtype=torch.bool)
        for rows, x, y, index in self.parts(wanted):
            found[rows] = attack.run(self.model, x, y, index=index, batch_size=len(x)).success.cpu()
        return found & wanted


def _answers(case: _Case) -> dict[str, Tensor]:
    """Whom the model has right, and who gets another answer when the same batches come again."""
    queried, everybody = QueriedModel(case.model, mode=case.mode), torch.ones(len(case.x), dtype=torch.bool)
    queried.expect((case.y,))
    right, varied = torch.zeros_like(everybody), torch.zeros_like(everybody)
    for rows, x, y, _ in case.parts(everybody):
        first, again = queried.logits(x.clone()), queried.logits(x.clone())
        right[rows] = ((first.argmax(1) == y) & ~first.isnan().any(1)).cpu()
        varied[rows] = ((first - again).abs().amax(1) > _ROUNDING * first.abs().amax(1)).cpu()
    return {"right": right, "varied": varied}


def _everything(case: _Case) -> ThreatModel:
    """The smallest ball that always holds the grey image: no pixel is farther than .5 from .5."""
    return case.threat.with_eps(grey_eps(case.threat.norm, max(1, case.x[:1].numel())))


def grey_eps(norm: str, pixels: int) -> float:
    """The ε at which every image of so many values can become the same grey, so that no model tells them apart."""
    return 0.5 if norm == "linf" else 0.5 * math.sqrt(pixels)


def _slopes(case: _Case, right: Tensor) -> dict[str, Tensor]:
    """Is there a gradient, and does it point uphill? flat: (where there is one) a small step along it raises the loss
    by less than a step of the same length in a random direction, or not at all."""
    queried = QueriedModel(case.model, mode=case.mode)
    columns = {name: torch.zeros_like(right) for name in ("zero", "not_a_number", "flat")}
    size = _SMALL if case.threat.norm == "linf" else _SMALL * math.sqrt(max(1, case.x[:1].numel()))
    for rows, x, y, index in case.parts(right):
        near = case.threat.random_point(x, seed=case.draw(3), index=index)
        loss = partial(cross_entropy, y=y)
        logits, _, gradient = queried.gradient(x, loss)
        elsewhere = queried.gradient(near, loss)[2]
        zero, lost = _all_zero(gradient), _not_finite(gradient)
        columns["zero"][rows] = (zero | _all_zero(elsewhere)).cpu()
        columns["not_a_number"][rows] = (lost | _not_finite(elsewhere)).cpu()
        noise = bulk_normal(x.shape[1:], seed=case.draw(4), index=index, dtype=x.dtype).to(x.device)
        uphill, anywhere = (_odds(queried.logits((x + case.threat.steepest_step(direction, size)).clamp_(0, 1)), y)
                            for direction in (gradient, noise))
        columns["flat"][rows] = (~zero & ~lost & ((uphill <= _odds(logits, y)) | (uphill < anywhere))).cpu()
    return {name: column & right for name, column in columns.items()}


def _all_zero(gradient: Tensor) -> Tensor:
    return (gradient == 0).flatten(1).all(1)


def _not_finite(gradient: Tensor) -> Tensor:
    return ~gradient.isfinite().flatten(1).all(1)


def _odds(logits: Tensor, y: Tensor) -> Tensor:
    """log((1 − p_y) / p_y): it rises exactly where cross-entropy does, and does not round to 0 where the model is
    sure."""
    logits = logits.double()
    own = logits.gather(1, y[:, None])
    return (logits.scatter(1, y[:, None], -torch.inf) - own).logsumexp(1)


def _without_gradients(case: _Case, standing: Tensor, surrogate: Classifier | None) -> dict[str, Tensor]:
    columns = {
        "square": case.broken(SquareAttack(case.threat, queries=QUERIES, seed=case.draw(5), mode=case.mode), standing),
        "random": _random_search(case, standing),
    }
    if surrogate is not None:
        columns["transfer"] = case.broken(Transfer(case.threat, surrogate, mode=case.mode), standing)
    return columns


def _random_search(case: _Case, standing: Tensor) -> Tensor:
    """Points drawn evenly from ball ∩ box, and its corners (of the L2 ball: points of the sphere)."""
    queried, found = QueriedModel(case.model, mode=case.mode), torch.zeros_like(standing)
    for draw in range(2 * POINTS):
        for rows, x, y, index in case.parts(standing & ~found):
            if draw < POINTS:
                point = case.threat.random_point(x, seed=case.draw(6), index=index, step=draw)
            else:
                noise = bulk_normal(x.shape[1:], seed=case.draw(7), index=index, step=draw, dtype=x.dtype).to(x.device)
                point = case.threat.project(x + case.threat.steepest_step(noise, case.threat.reach(x)), x)
            logits = queried.logits(point)
            found[rows] |= ((logits.argmax(1) != y) & ~logits.isnan().any(1)).cpu()
    return found & standing
