"""Reasons to doubt a verdict, as values: what was seen, and what to do about it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from robustness_lib.inputs import clamped_rows
from robustness_lib.querying.frozen import Classifier, Mode

__all__ = [
    "AttackWarning",
    "attack_warning",
    "changed_mode",
    "clamped",
    "depends_on_batch",
    "joined_warnings",
    "looks_like_probabilities",
    "modes_seen",
    "square_ahead",
    "sum_to_one",
    "varies",
]

_ROUNDING = 1e-4  # relative, of the same images at the same places of batches of one shape
_AT_ANOTHER_PLACE = 0.02  # rows are rounded in other groups there, which shows in half precision
_TEXT = {
    "zero gradient":
        "for {images} of {of} images the loss had a gradient of exactly zero at a start, so these were not really "
        'attacked. Logits that saturate the softmax do this (try loss="margin"), and so do steps that autograd '
        "cannot see through (rounding, thresholds). Do not count these images as robust.",
    "not a number":
        "for {images} of {of} images the model's answer or gradient held NaN or infinities on the way, which the "
        "attack cannot follow. Look for a square root, logarithm or division at zero in the model. Do not count "
        "these images as robust.",
    "one loss blind":
        "a note only: for {images} of {of} images this loss had a gradient of exactly zero at a start (logits that "
        "saturate the softmax do this). Another attack of the ensemble had a gradient there.",
    "changed mode":
        "the model switched parts of itself to training mode while it was attacked (it calls .train() in its forward "
        "pass?), so the attack met another model than evaluation does: dropout, or batch statistics that mix the "
        'examples. Take the call out, or attack with mode="keep" if it is meant.',
    "no gradient":
        "autograd sees no way from the model's answer back to its input (the model detaches, converts to numpy, or "
        "runs under no_grad), so the attacks that need a gradient could not run; only Square tried. Its verdict is "
        "weak. Attack through a differentiable stand-in for the step that detaches.",
    "random answers":
        "the model gave different answers to the same images, so a success may be luck and so may a failure. "
        'Fix its randomness, or evaluate with suite="random" (AutoAttack with version="rand"), which averages 20 draws '
        "at each step.",
    "probabilities":
        "the model's answers look like probabilities (each of them between 0 and 1). The losses expect logits: on "
        "probabilities their gradients fade where the model is certain, which hides errors. Return the logits, what "
        "goes into the softmax or the sigmoid. If they are scores such as cosines, with nothing behind them, return "
        "them times a temperature (20 * scores).",
    "depends on the batch":
        "the model's answer to an image changes with the other images of its batch, so every verdict depends on the "
        "batch size and the order of the data, and attacked images help or hurt their neighbors. Let batch norm use "
        "running statistics (track_running_stats=True, eval mode), quantize with fixed scales, give recurrent layers "
        "batch_first=True, and fix no seed in the forward pass.",
    "misleading gradients":
        "of {of} images looked at that the gradient attacks had left standing, a short Square, which uses no gradient, "
        "broke {images}. On honest models it breaks hardly any: the gradients lead elsewhere. Look for a step that "
        "blocks or bends them (rounding, NumPy, a backward pass of its own) beside one that lets a little through, and "
        "evaluate with the standard suite.",
    "step size":
        "a step wider than the whole ball (2ε) jumps from one side to the other and finds less than small ones. The "
        "step size is in pixel units of [0, 1], as ε is: 2/255 and not 2.",
    "moved nothing":
        "it handed back {images} of {of} images exactly as they were, every one of a batch. An attack that keeps only "
        "what succeeds may do so; else it did nothing (an ε of 0 or on another scale, no step taken, a copy returned?) "
        "and what stands has not been attacked by it.",
    "not followed":
        "{images} of {of} images still stand on which no attack could follow a gradient, so they were hardly attacked.",
    "Square ahead":
        "Square, which uses no gradients, broke {images} of {of} images that the gradient attacks had left standing. "
        "Gradient attacks should not leave that many, which is a sign that the gradients are masked. Do not trust them "
        "on this model; look for saturated, shattered or random gradients, and attack through them.",
    "Square found more":
        "a note only: Square broke {images} of {of} images that the gradient attacks had left standing. A few are "
        "usual on honest models.",
    "few classes":
        "a note only: the model has {of} classes, too few for the difference of logits ratio; the margin z_t − z_y "
        "was climbed in its place.",
    "clamped":
        "a note only: {images} of {of} images lay outside [0, 1] by rounding, at most 1e-6, as a normalization that "
        "was undone leaves them; they were clamped to it, in a copy.",
    "not confirmed":
        "for {images} of {of} images an adversarial point did not fool the model again in a fresh pass in full "
        "float32, so it was not counted. A few are close calls; many mean that the answer depends on chance, on "
        "precision, or on the rest of the batch.",
}


@dataclass(frozen=True)
class AttackWarning:
    """Something that makes a verdict doubtful, and what to do about it.

    rows: positions of the images that it concerns; none where it concerns the model. during: the attack of an
    ensemble that saw it. about: the model that it is about, where that is another than the one attacked. voids: a
    verdict that rests on these answers is none, and no accuracy may be told of it.
    """

    kind: str
    message: str
    rows: tuple[int, ...] = field(default=(), repr=False)
    during: str = ""
    about: str = ""
    voids: bool = False

    @property
    def images(self) -> int:
        """How many images it concerns."""
        return len(self.rows)

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}"


    @property
    def counts_images(self) -> bool:
        """Its sentence is one of this library's and counts images, so that it can be said anew of more of them."""
        return bool(self.rows) and self.kind in _TEXT


def attack_warning(kind: str, rows: Sequence[int] = (), of: int = 0, *, during: str = "",
                   about: str = "") -> AttackWarning:
    """The warning of this kind. of: how many the sentence counts from, images or classes. during: the attack that saw
    it. about: see `AttackWarning`."""
    text = _TEXT[kind].format(images=len(rows), of=of)
    where = f"{during}: " if during else ""
    return AttackWarning(kind, f"{where}on {about}: {text}" if about else where + text, tuple(rows), during, about)


def clamped(given: Tensor, checked: Tensor) -> tuple[AttackWarning, ...]:
    """Have some of the images given been clamped? checked: what `check_images` returned."""
    rows = clamped_rows(given, checked)
    return (attack_warning("clamped", rows, len(given)),) if rows else ()


def joined_warnings(warnings: Iterable[AttackWarning], of: int, *, during: str = "") -> list[AttackWarning]:
    """What several batches or parts have warned of, each thing once: where the sentence counts images, over all of
    them, `of` these; else as it was said. during: the attack that saw it."""
    rows: dict[tuple[str, str, str], set[int]] = {}
    for warning in warnings:
        key = (warning.kind, warning.about, "" if warning.counts_images else warning.message)
        rows.setdefault(key, set()).update(warning.rows)
    return [attack_warning(kind, sorted(at), of, during=during, about=about) if not said else
            AttackWarning(kind, f"{during}: {said}" if during else said, tuple(sorted(at)), during, about)
            for (kind, about, said), at in rows.items()]


def changed_mode(model: Classifier, mode: Mode) -> tuple[AttackWarning, ...]:
    """Has a model that is held in eval mode left it?"""
    if mode == "keep" or not isinstance(model, nn.Module):
        return ()
    switched = any(getattr(module, "training", False) for module in model.modules())
    return (attack_warning("changed mode"),) if switched else ()


@contextmanager
def modes_seen(model: Classifier) -> Iterator[set[str]]:
    """Names of the submodules that run in training mode while this is open, also if they are set back afterwards."""
    training: set[str] = set()
    if not isinstance(model, nn.Module):
        yield training
        return

    def note(name: str, module: nn.Module, inputs: object) -> None:
        if module.training:
            training.add(name)

    hooks = [module.register_forward_pre_hook(partial(note, name)) for name, module in model.named_modules()
             if not isinstance(module, torch.jit.ScriptModule)]  # these refuse hooks
    try:
        yield training
    finally:
        for hook in hooks:
            hook.remove()


def looks_like_probabilities(answers: Tensor) -> tuple[AttackWarning, ...]:
    """answers: (N,) or (N, K): all between 0 and 1, or shares of some other whole, such as 100. By chance, logits of
    one image may lie there; of all images, hardly."""
    if not len(answers) or not bool((answers >= 0).all()) or float(answers.amax()) == 0:
        return ()
    slack = torch.finfo(torch.bfloat16).eps  # answers may come in half precision
    whole = answers.double().sum(1).mean() if answers.ndim == 2 else answers.new_ones(())
    shares = answers.ndim == 2 and answers.shape[1] > 1 and whole > 0 and sum_to_one(answers / whole)
    return (attack_warning("probabilities"),) if shares or bool((answers <= 1 + slack).all()) else ()


def sum_to_one(answers: Tensor) -> bool:
    """Does each row of (N, K) answers in [0, 1] sum to 1, up to the rounding of half precision?"""
    slack = max(1e-3, answers.shape[1] * torch.finfo(torch.bfloat16).eps / 8)
    return bool(((answers.double().sum(1) - 1).abs() < slack).all())


def varies(first: Tensor, again: Tensor) -> tuple[AttackWarning, ...]:
    """Two answers (N, K) to the same images, in one batch shape: a fixed model repeats itself to rounding."""
    return (attack_warning("random answers"),) if _differ(first, again, _ROUNDING) else ()


def depends_on_batch(batch: Tensor, answers: Tensor, ask: Callable[[Tensor], Tensor], *,
                     places: bool = True) -> tuple[AttackWarning, ...]:
    """Half of a batch (N, ...) again, beside other images, and (places) in reverse order at its end. answers: (N, K),
    what `ask` gave to the batch as it stood.

    The others are negatives of the batch, which change its statistics as much as any. The batches are of one shape, so
    that a model that looks at each image by itself rounds alike, whatever its precision (nearly, at another place).
    """
    half = len(batch) // 2
    if half == 0:
        return ()
    mine, others = batch[:half], 1 - batch[:len(batch) - half]
    moved = _differ(answers[:half], ask(torch.cat((mine, others)))[:half], _ROUNDING)
    if places and not moved:
        moved = _differ(answers[:half], ask(torch.cat((others, mine.flip(0))))[-half:].flip(0), _AT_ANOTHER_PLACE)
    return (attack_warning("depends on the batch"),) if moved else ()


def _differ(a: Tensor, b: Tensor, tolerance: float) -> bool:
    """Do two tables of answers (N, K) differ by more than this share of their size? Each class is measured by its own
    logits: one that is masked by -1e9 or -inf must not make the others look alike."""
    a, b = a.double(), b.double()
    apart = torch.where((a == b) | (a.isnan() & b.isnan()), 0.0, (a - b).abs()).nan_to_num(nan=torch.inf)
    size = torch.where(a.isfinite(), a.abs(), 0.0).amax(0)  # (K,)
    least = size[size > 0].amin() if (size > 0).any() else size.new_ones(())
    common = torch.minimum(size.median(), 1e4 * least)  # a class of small logits shares the rounding of the others
    return bool((apart > tolerance * torch.maximum(size, 0.01 * common).clamp(min=1e-12)).any())


def square_ahead(broken: Sequence[int], n: int) -> tuple[AttackWarning, ...]:
    """Square broke these of n images after the gradient attacks, which had broken none of them.

    An alarm when it is more than chance and at least two points of the whole. Chance: were either side as good at
    the images that only one of them breaks, all of them would fall to Square with probability 2^-count (the exact
    one-sided sign test), and that must be below .01. Fewer than seven are therefore never an alarm.
    """
    if not broken:
        return ()
    alarm = 0.5 ** len(broken) < 0.01 and len(broken) >= 0.02 * n
    return (attack_warning("Square ahead" if alarm else "Square found more", broken, n),)
