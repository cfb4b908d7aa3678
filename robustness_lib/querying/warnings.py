"""Reasons to doubt a verdict, as values: what was seen, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from robustness_lib.querying.frozen import Classifier, Mode

__all__ = [
    "AttackWarning",
    "attack_warning",
    "changed_mode",
    "looks_like_probabilities",
    "modes_seen",
    "square_ahead",
    "varies",
]

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
        "the model's answers look like probabilities (between 0 and 1, each row summing to 1). The losses expect "
        "logits: on probabilities their gradients fade where the model is certain, which hides errors. Return what "
        "goes into the softmax.",
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
    "not confirmed":
        "for {images} of {of} images an adversarial point did not fool the model again in a fresh pass in full "
        "float32, so it was not counted. A few are close calls; many mean that the answer depends on chance, on "
        "precision, or on the rest of the batch.",
}


@dataclass(frozen=True)
class AttackWarning:
    """Something that makes a verdict doubtful, and what to do about it.

    rows: positions of the images that it concerns; none where it concerns the model. during: the attack of an
    ensemble that saw it.
    """

    kind: str
    message: str
    rows: tuple[int, ...] = field(default=(), repr=False)
    during: str = ""

    @property
    def images(self) -> int:
        """How many images it concerns."""
        return len(self.rows)

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}"


def attack_warning(kind: str, rows: Sequence[int] = (), of: int = 0, *, during: str = "") -> AttackWarning:
    """The warning of this kind. during: the attack that saw it."""
    text = _TEXT[kind].format(images=len(rows), of=of)
    return AttackWarning(kind, f"{during}: {text}" if during else text, tuple(rows), during)


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


def looks_like_probabilities(logits: Tensor) -> tuple[AttackWarning, ...]:
    """logits: (N, K). By chance, logits of one image may; of all images, hardly."""
    off = (logits.double().sum(1) - 1).abs()
    slack = max(1e-3, logits.shape[1] * torch.finfo(torch.bfloat16).eps / 8)  # answers may come in half precision
    alike = bool((logits >= 0).all() & (logits <= 1).all() & (off < slack).all())
    return (attack_warning("probabilities"),) if alike and len(logits) else ()


def varies(first: Tensor, again: Tensor) -> tuple[AttackWarning, ...]:
    """Two answers (N, K) to the same images, in one batch shape: a fixed model repeats itself to rounding."""
    scale = first.double().abs().amax().clamp(min=1e-12)
    apart = (first.double() - again.double()).abs().amax() / scale
    return (attack_warning("random answers"),) if bool(apart > 1e-4) else ()


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
