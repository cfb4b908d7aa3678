"""What the attacks of an ensemble have warned of, said once for all of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from robustness_lib.attacks.ensemble import NamedAttack
from robustness_lib.attacks.ensemble_run import Verdicts
from robustness_lib.attacks.ensemble_steps import CHANGED
from robustness_lib.attacks.square import SquareAttack
from robustness_lib.querying.first_look import FirstLook
from robustness_lib.querying.warnings import AttackWarning, attack_warning, joined_warnings, square_ahead

__all__ = ["ensemble_warnings", "voiding_warnings"]

_VOID_SHARE = 0.02  # of the images: where more of them stand unattacked, no accuracy is told

_ABOUT_THE_MODEL = {"changed mode", CHANGED}  # not about one attack, nor an image
_BLIND, _DETACHED = "zero gradient", "no gradient"
_UNFOLLOWED = {
    _DETACHED: "Autograd sees no way from the answer back to the image (the model detaches, leaves PyTorch, is "
               "quantized, or runs under no_grad).",
    _BLIND: "The gradient is exactly zero (rounding, a threshold, or logits so large that they saturate the softmax: "
            'then loss="margin" sees further).',
    "not a number": "Answers or gradients are NaN or infinite (a square root, a logarithm or a division at zero).",
}


def ensemble_warnings(found: Sequence[tuple[int, Verdicts]], attacks: Sequence[NamedAttack]) -> Iterator[AttackWarning]:
    """found: each part's verdicts, with the number of its first image, which the warnings' rows count on from.

    Only images that still stand count: a success needs no excuse. A gradient of zero is a fault where no attack that
    follows gradients had one; where another had, it is a note. A model without any gradient is said to be one where no
    attack but Square could run; where one attack alone, or some images, had none, these are named.
    """
    n = sum(len(verdicts.right) for _, verdicts in found)
    standing = {first + row for first, verdicts in found for row in verdicts.standing.nonzero()[:, 0].tolist()}
    tried = {named.name: _rows(found, named.name, "tried") for named in attacks}
    seen: dict[tuple[str, str], set[int]] = defaultdict(set)
    for first, verdicts in found:
        for named in attacks:
            for kind, at in verdicts.attacks[named.name].warnings.items():
                seen[named.name, kind] |= {first + row for row in at}
    if any(kind == "changed mode" for _, kind in seen):
        yield attack_warning("changed mode")
    climbing = [named.name for named in attacks if not isinstance(named.attack, SquareAttack) and tried[named.name]
                and ((named.name, _DETACHED) in seen or (named.name, _BLIND) in seen or _gradients(found, named.name))]
    whole = bool(climbing) and all(seen[name, _DETACHED] >= tried[name] for name in climbing)
    if whole:
        yield attack_warning(_DETACHED)
    for (name, kind), images in seen.items():
        left = sorted(images & standing)
        if left and kind not in _ABOUT_THE_MODEL | {_BLIND} and not (whole and kind == _DETACHED):
            yield attack_warning(kind, left, len(tried[name]), during=name)
    yield from _zero_gradients(climbing, seen, tried, standing, n)
    for name in tried:
        yield from joined_warnings(_others(found, name, standing), len(tried[name]), during=name)
    followed = set().union(*(tried[name] - seen[name, _DETACHED] for name in climbing)) if climbing else set()
    for named in attacks:
        if isinstance(named.attack, SquareAttack) and named.on == "survivors":
            # Against attacks that could run it says something; not against those that had no gradient.
            yield from square_ahead(sorted(_rows(found, named.name, "broke") & followed), n)


def voiding_warnings(found: Sequence[tuple[int, Verdicts]], attacks: Sequence[NamedAttack], look: FirstLook,
                     proved: Collection[int] = ()) -> Iterator[AttackWarning]:
    """Why what was found is no verdict, gravest first; none where it is one.

    The model answers otherwise the second time (and says of itself no more than that it answers at random), or in other
    company; or more than _VOID_SHARE of the images stand on which no attack could follow a gradient, or whose answers
    look like probabilities. With no attack at all there is no verdict to void. proved: numbers of images that need no
    attack.
    """
    if not attacks:
        return
    n = sum(len(verdicts.right) for _, verdicts in found)
    standing = sum(int(verdicts.standing.sum()) for _, verdicts in found)
    drawn = look.varies and not look.averages
    for warning in look.warnings:
        if warning.kind == "depends on the batch" or (warning.kind == "random answers" and drawn) or (
                warning.kind == "probabilities" and standing > _VOID_SHARE * n):
            yield replace(warning, voids=True)
    if not look.varies and not look.averages and len(_changed(found)) > _VOID_SHARE * n:
        yield replace(attack_warning("random answers"), voids=True)
    left = [first + row for first, verdicts in found
            for row in (verdicts.standing & ~verdicts.followed).nonzero()[:, 0].tolist() if first + row not in proved]
    if not drawn and len(left) > _VOID_SHARE * n:
        warning = attack_warning("not followed", left, n)
        yield replace(warning, message=f"{warning.message} {_why_and_what(found, attacks, set(left))}", voids=True)


def _changed(found: Sequence[tuple[int, Verdicts]]) -> set[int]:
    """Images that were answered rightly, and otherwise when they were asked again unchanged."""
    return {first + row for first, verdicts in found for columns in verdicts.attacks.values()
            for row in columns.warnings.get(CHANGED, ())}


def _why_and_what(found: Sequence[tuple[int, Verdicts]], attacks: Sequence[NamedAttack], left: set[int]) -> str:
    """Why nothing could be followed, and which attack would decide."""
    seen = {kind for first, verdicts in found for columns in verdicts.attacks.values()
            for kind, at in columns.warnings.items() if left & {first + row for row in at}}
    why = [words for kind, words in _UNFOLLOWED.items() if kind in seen] or [
        "Cross-entropy has no gradient there."]
    square = any(isinstance(named.attack, SquareAttack) and named.on != "not followed" for named in attacks)
    without = "" if square else (" Without gradients SquareAttack(threat), which has a part in the standard suite, may "
                                 "break them; what it leaves, it leaves undecided.")
    return f"{' '.join(why)} What would decide: BPDA, a differentiable stand-in for the step that has none.{without}"


def _zero_gradients(climbing: Sequence[str], seen: dict[tuple[str, str], set[int]], tried: dict[str, set[int]],
                    standing: set[int], n: int) -> Iterator[AttackWarning]:
    blind = {name: seen[name, _BLIND] & standing for name in climbing}
    everywhere = set.intersection(*blind.values()) if blind else set()
    if everywhere:
        alone = climbing[0] if len(climbing) == 1 else ""
        yield attack_warning(_BLIND, sorted(everywhere), len(tried[alone]) if alone else n, during=alone)
    for name, images in blind.items():
        if only_here := sorted(images - everywhere):
            yield attack_warning("one loss blind", only_here, n, during=name)


def _others(found: Sequence[tuple[int, Verdicts]], name: str, standing: set[int]) -> Iterator[AttackWarning]:
    """What an attack has said of another model or in its own words, if of images, then of those that still stand."""
    for first, verdicts in found:
        for warning in verdicts.attacks[name].others:
            left = tuple(first + row for row in warning.rows if first + row in standing)
            if left or not warning.rows:
                yield replace(warning, rows=left)


def _rows(found: Sequence[tuple[int, Verdicts]], name: str, column: str) -> set[int]:
    return {first + row for first, verdicts in found
            for row in getattr(verdicts.attacks[name], column).nonzero()[:, 0].tolist()}


def _gradients(found: Sequence[tuple[int, Verdicts]], name: str) -> int:
    return sum(verdicts.attacks[name].spent["gradients"] for _, verdicts in found)
