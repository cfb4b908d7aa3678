"""Boxes around everything that a network computes near some images, and least values of linear functions there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from robustness_lib.certify._ball_radii import BallRadii
from robustness_lib.certify.input_region import InputRegion, least_in_box
from robustness_lib.certify.linear_rows import Rows
from robustness_lib.certify.operation import Affine, Box
from robustness_lib.certify.relaxation import Bent, Groups, Relaxation, Slopes, alone
from robustness_lib.certify.traced_network import TracedNetwork
from robustness_lib.querying.batch_size import cut
from robustness_lib.shapes import entries, per_example

__all__ = ["Enclosure", "GoOn", "endlessly"]

GoOn = Callable[[], bool]  # asked before each piece of work; after a False, what is there already has to do

# With fewer rows an image, rows of several images are worked on together.
_TOGETHER = 16

# Values in a chunk of rows at the widest value of the network: more fall out of the caches of a CPU.
_CHUNK_VALUES = 2_000_000


_GONE = Box(torch.empty(0), torch.empty(0))


def endlessly() -> bool:
    return True


@dataclass(frozen=True)
class Enclosure:
    """boxes: of value k (N, ...) for each image of the region, all of them true; value 0 is the images."""

    network: TracedNetwork
    region: InputRegion
    boxes: tuple[Box, ...]
    _made: dict[int, Relaxation | None] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def by_intervals(cls, network: TracedNetwork, region: InputRegion, *, for_ends: bool = False) -> Enclosure:
        """By interval arithmetic (Gowal et al. 2018, arXiv 1810.12715). The first layer with weights meets the L2 ball
        itself, and not the box around it. for_ends: only for the logits, and rows that end behind the last bend; other
        boxes go as soon as nothing needs them, and their memory serves the next."""
        boxes = [region.box]
        ball, needed = BallRadii(region), network.last_uses
        for number, step in enumerate(network.steps, 1):
            box = step.operation.interval(*(boxes[k] for k in step.inputs))
            boxes.append(box if region.threat.norm == "linf" else ball.passed(number, step.operation, step.inputs, box))
            for k in step.inputs if for_ends else ():
                boxes[k] = _GONE if needed[k] == number else boxes[k]
        return cls(network, region, tuple(boxes))

    @property
    def last(self) -> int:
        """Number of the value that the logits are."""
        return len(self.boxes) - 1

    @property
    def logits(self) -> Box:
        """Their box. Where numbers are too large for their type, nothing is known."""
        lower, upper = self.boxes[-1]
        return Box(lower.nan_to_num(-torch.inf, torch.inf, -torch.inf),
                   upper.nan_to_num(torch.inf, torch.inf, -torch.inf))

    def __len__(self) -> int:
        return len(self.region.x)

    def at(self, images: Tensor) -> Enclosure:
        """Around some of the images (m,)."""
        return Enclosure(self.network, self.region.at(images),
                         tuple(Box(box.lower[images], box.upper[images]) for box in self.boxes))

    def tightened(self, rules: Sequence[Slopes], go_on: GoOn = endlessly) -> Enclosure:
        """With better boxes where bounds of a bent operation depend on them: of the entries that are undecided there,
        by going back to the images, after each other from the first bend to the last. Entries that time runs out for
        stay as intervals have them."""
        boxes = [self.boxes[0]]
        wanted, exact, made = self._inputs_of_bends(), self._exact(), dict[int, Relaxation | None]()
        for number, step in enumerate(self.network.steps, 1):
            box = step.operation.interval(*(boxes[k] for k in step.inputs)).within(self.boxes[number])
            if number in wanted and not exact[number]:
                so_far = Enclosure(self.network, self.region, (*boxes, box), made)
                box = so_far._tightened_at(number, wanted[number], tuple(rules), go_on)
            boxes.append(box)
        return Enclosure(self.network, self.region, tuple(boxes), made)

    def least(self, value: int, rows: Tensor, images: Tensor, rules: Sequence[Slopes] = (), go_on: GoOn = endlessly,
              *, each: int = 1) -> Tensor:
        """The least that each linear function rows (P, ...) of a value can be near its image: a lower bound (P,), the
        best of the rules, −∞ where time ran out. Without a rule, rows end in the intervals behind the last bend.
        images: (P / each,), of so many rows after each other."""
        found = rows.new_full((len(rows),), -torch.inf)
        for some in cut(len(images), max(1, self.chunk(len(rules)) // each)):
            if not go_on():
                break
            there = slice(some.start * each, some.stop * each)
            found[there] = self.least_by(tuple(rules), value, rows[there], Groups(images[some], each)).amax(0)[0]
        return found

    def _exact(self) -> list[bool]:
        """Whether interval arithmetic already gives the true range of each entry of a value: of the first layer that
        mixes pixels, under L∞."""
        apart, exact = [True], [True]
        for step in self.network.steps:
            affine = isinstance(step.operation, Affine) and len(step.inputs) == 1
            separate = isinstance(step.operation, Affine) and step.operation.separate
            apart.append(separate and apart[step.inputs[0]])
            exact.append(affine and (apart[step.inputs[0]] or (separate and exact[step.inputs[0]]))
                         and self.region.threat.norm == "linf")
        return exact

    def _inputs_of_bends(self) -> dict[int, list[int]]:
        """By number of a value, the steps that bend it. Not of what has just been bent entry by entry: its box is as
        good as the one before."""
        found: dict[int, list[int]] = {}
        steps = self.network.steps
        for number, step in enumerate(steps, 1):
            for k in step.inputs if isinstance(step.operation, Bent) else ():
                before = steps[k - 1].operation if k > 0 else None
                if before is not None and not (isinstance(before, Bent) and before.pointwise):
                    found.setdefault(k, []).append(number)
        return found

    def _tightened_at(self, number: int, bends: list[int], rules: tuple[Slopes, ...], go_on: GoOn) -> Box:
        box = self.boxes[number]
        if all(self.network.steps[bend - 1].operation.by_sign for bend in bends):  # type: ignore[attr-defined]
            # Where one bound tells the sign, the other is not needed: try the likelier one first, by one rule.
            undecided = self._undecided(number, box, bends)
            likelier = torch.where(box.centre > 0, 1, -1)
            box = self._with_rows(number, box, undecided, rules[-1:], go_on, likelier)
        return self._with_rows(number, box, self._undecided(number, box, bends), rules, go_on)

    def _undecided(self, number: int, box: Box, bends: list[int]) -> Tensor:
        """Entries of a value with this box (N, ...) bool on whose bounds lines at the bends depend."""
        undecided = torch.zeros_like(box.lower, dtype=torch.bool)
        for bend in bends:
            step = self.network.steps[bend - 1]
            if max(step.inputs) >= len(self.boxes):  # another input comes later
                return box.upper > box.lower
            boxes = [box if k == number else self.boxes[k] for k in step.inputs]
            masks = step.operation.undecided(boxes)  # type: ignore[attr-defined]
            undecided |= torch.stack([mask for k, mask in zip(step.inputs, masks, strict=True) if k == number]).any(0)
        return undecided

    def _with_rows(self, number: int, box: Box, wanted: Tensor, rules: tuple[Slopes, ...], go_on: GoOn,
                   sign: Tensor | None = None) -> Box:
        """The box of a value with better bounds of the wanted entries: of both ends, or of the lower end of each entry
        times its sign alone."""
        lower, upper = (entries(end).clone() for end in box)
        images, places = entries(wanted).nonzero(as_tuple=True)
        signs = None if sign is None else entries(sign)[images, places].to(lower.dtype)
        for some, groups in self._groups(images, self.chunk(len(rules) * (2 if sign is None else 1))):
            if not go_on():
                break
            image, entry = images[some], places[some]
            value, rows, added = self._single(number, entry, None if signs is None else signs[some])
            found = self.least_by(rules, value, rows, groups, both=sign is None, added=added).amax(0)
            if signs is None:
                below, above = found[0], -found[1]
            else:
                below = torch.where(signs[some] > 0, found[0], -torch.inf)
                above = torch.where(signs[some] > 0, torch.inf, -found[0])
            lower[image, entry], upper[image, entry] = Box(lower[image, entry], upper[image, entry]).within(
                Box(below, above))
        return Box(lower.reshape_as(box.lower), upper.reshape_as(box.upper))

    def _groups(self, images: Tensor, size: int) -> Iterator[tuple[slice, Groups]]:
        """Rows of these images, ascending (P,), in parts of about `size`: those of one image together where they are
        many, which saves to look up its lines for each row."""
        counts = torch.bincount(images, minlength=len(self)).tolist()
        if len(images) < _TOGETHER * len(self):
            for some in cut(len(images), size):
                yield some, alone(images[some])
            return
        start = 0
        for count in counts:
            for begin in range(start, start + count, size):
                end = min(begin + size, start + count)
                one = images[begin:begin + 1]
                yield slice(begin, end), Groups(one, end - begin)
            start += count

    def _single(self, number: int, places: Tensor, signs: Tensor | None) -> tuple[int, Tensor, Tensor]:
        """Rows that are one entry of a value each, times its sign: as rows (P, ...) of that value or, where this is
        known at once, of the one before it: its number, the rows and their constants (P,)."""
        shape, dtype, device = self.boxes[number].lower.shape[1:], self.network.dtype, self.region.x.device
        one = torch.ones(len(places), dtype=dtype, device=device) if signs is None else signs
        step = self.network.steps[number - 1]
        back = step.operation.backward_single(places) if isinstance(step.operation, Affine) else None
        if back is not None:
            constant = step.operation.constant  # type: ignore[attr-defined]
            added = one * (0 if constant is None else constant.to(one).expand(1, *shape).flatten()[places])
            return step.inputs[0], back * per_example(one, back), added
        rows = torch.zeros(len(places), shape.numel(), dtype=dtype, device=device)
        rows.scatter_(1, places[:, None], one[:, None])
        return number, rows.reshape(-1, *shape), torch.zeros_like(one)

    def chunk(self, variants: int) -> int:
        """Rows that are worth working on at once, each of them in so many variants."""
        return max(1, _CHUNK_VALUES // (self.network.widest * max(1, variants)))

    def relaxation(self, number: int) -> Relaxation | None:
        """The lines of the step of this number, made when they are first asked for. None where it has none."""
        if number not in self._made:
            step = self.network.steps[number - 1]
            bend = step.operation
            self._made[number] = bend.relax([self.boxes[k] for k in step.inputs]) if isinstance(bend, Bent) else None
        return self._made[number]

    def least_by(self, rules: tuple[Slopes, ...], value: int, rows: Tensor, groups: Groups, *, both: bool = False,
                 added: Tensor | None = None, shares: Mapping[int, Tensor] | None = None) -> Tensor:
        """Least values by each rule, of the rows (P, ...) plus added (P,) and, for both, of their negatives: (rules,
        signs, P). shares: as of `Relaxation.backward`, by number of a step, in place of the one rule."""
        going = Rows({value: rows}, rows.new_zeros(len(rows)) if added is None else added, groups)
        signs, spread = (1, -1) if both else (1,), False
        for number in range(value, 0, -1):
            if number not in going.pending:
                continue
            step = self.network.steps[number - 1]
            if isinstance(step.operation, Affine):
                part = going.pending.pop(number)
                going.add(None if step.operation.constant is None else
                          entries(part * step.operation.constant.to(part)).sum(1))
                going.send(step.inputs, step.operation.backward(part))
                continue
            if not spread:  # up to the first bend, all variants go the same way
                going, spread = going.spread_out(rules, signs), True
            part, relaxation = going.pending.pop(number), self.relaxation(number) if rules else None
            if relaxation is None:
                going.add(least_in_box(self.boxes[number], part, going.groups))
            else:
                backs, more = relaxation.backward(part, going.groups, None if shares is None else shares.get(number))
                going.add(more)
                going.send(step.inputs, backs)
        going = going if spread else going.spread_out(rules, signs)
        if 0 in going.pending:
            going.add(self.region.least(going.pending[0], going.groups))
        found = going.added.nan_to_num(-torch.inf, torch.inf, -torch.inf)  # too large for the type: nothing is known
        return found.reshape(max(1, len(rules)), len(signs), -1)
