"""What the attacks of an ensemble have warned of, said once for all of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from robustness_lib.attacks.ensemble import NamedAttack
from robustness_lib.attacks.ensemble_run import Verdicts
from robustness_lib.attacks.square import SquareAttack
from robustness_lib.querying.warnings import AttackWarning, attack_warning, square_ahead

__all__ = ["ensemble_warnings"]

_OF_THE_MODEL = {"changed mode", "no gradient"}  # not of one attack, nor of an image


def ensemble_warnings(found: Sequence[tuple[int, Verdicts]], attacks: Sequence[NamedAttack]) -> Iterator[AttackWarning]:
    """found: each part's verdicts, with the number of its first image, which the warnings' rows count on from.

    Only images that still stand count: a success needs no excuse. A gradient of zero is a fault where no attack that
    follows gradients had one; where another had, it is a note.
    """
    n = sum(len(verdicts.right) for _, verdicts in found)
    standing = {first + row for first, verdicts in found for row in verdicts.standing.nonzero()[:, 0].tolist()}
    rows: dict[tuple[str, str], set[int]] = defaultdict(set)
    for first, verdicts in found:
        for named in attacks:
            for kind, at in verdicts.attacks[named.name].warnings.items():
                rows[named.name, kind] |= {first + row for row in at}
    kinds = {kind for _, kind in rows}
    for kind in sorted(kinds & _OF_THE_MODEL):
        yield attack_warning(kind)
    for (name, kind), images in rows.items():
        left = sorted(images & standing)
        if left and kind not in _OF_THE_MODEL | {"zero gradient"}:
            yield attack_warning(kind, left, _tried(found, name), during=name)
    yield from _zero_gradients(found, attacks, rows, standing, n)
    if "no gradient" not in kinds:
        late = [named.name for named in attacks if isinstance(named.attack, SquareAttack) and named.on == "survivors"]
        for name in late:
            broken = [first + row for first, verdicts in found
                      for row in verdicts.attacks[name].broke.nonzero()[:, 0].tolist()]
            yield from square_ahead(broken, n)


def _zero_gradients(found: Sequence[tuple[int, Verdicts]], attacks: Sequence[NamedAttack],
                    rows: dict[tuple[str, str], set[int]], standing: set[int], n: int) -> Iterator[AttackWarning]:
    kind = "zero gradient"
    blind = {named.name: rows.get((named.name, kind), set()) & standing for named in attacks
             if (named.name, kind) in rows
             or any(verdicts.attacks[named.name].spent["gradients"] for _, verdicts in found)}
    everywhere = set.intersection(*blind.values()) if blind else set()
    if everywhere:
        alone = next(iter(blind)) if len(blind) == 1 else ""
        yield attack_warning(kind, sorted(everywhere), _tried(found, alone) if alone else n, during=alone)
    for name, images in blind.items():
        if only_here := sorted(images - everywhere):
            yield attack_warning("one loss blind", only_here, n, during=name)


def _tried(found: Sequence[tuple[int, Verdicts]], name: str) -> int:
    return sum(int(verdicts.attacks[name].tried.sum()) for _, verdicts in found)
