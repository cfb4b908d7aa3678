"""Reasons to doubt a verdict, as values: what was seen, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy.stats import binomtest
from torch import Tensor, nn

from robustness_lib.attacks._victim import Classifier, Mode

__all__ = ["AttackWarning", "changed_mode", "doubt", "looks_like_probabilities", "square_ahead", "varies"]

_TEXT = {
    "zero gradient":
        "for {images} of {of} images the loss had a gradient of exactly zero at a start, so these were not really "
        'attacked. Logits that saturate the softmax do this (try loss="margin"), and so do steps that autograd '
        "cannot see through (rounding, thresholds). Do not count these images as robust.",
    "not a number":
        "for {images} of {of} images the model's answer or gradient held NaN or infinities on the way, which the "
        "attack cannot follow. Look for a square root, logarithm or division at zero in the model. Do not count "
        "these images as robust.",
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
        'Fix its randomness, or evaluate with version="rand", which averages 20 draws at each step.',
    "probabilities":
        "the model's answers look like probabilities (between 0 and 1, each row summing to 1). The losses expect "
        "logits: on probabilities their gradients fade where the model is certain, which hides errors. Return what "
        "goes into the softmax.",
    "Square ahead":
        "Square, which uses no gradients, broke {images} of {of} images that the gradient attacks had left standing. "
        "That is more than chance, and a sign that the gradients are masked. Do not trust the gradient attacks on "
        "this model; look for saturated, shattered or random gradients, and attack through them.",
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
    """Something that makes a verdict doubtful, and what to do about it. images: how many it concerns (0: the model)."""

    kind: str
    message: str
    images: int = 0

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}"


def doubt(kind: str, images: int = 0, of: int = 0, *, during: str = "") -> AttackWarning:
    """The warning of this kind. during: the attack that saw it."""
    text = _TEXT[kind].format(images=images, of=of)
    return AttackWarning(kind, f"{during}: {text}" if during else text, images)


def changed_mode(model: Classifier, mode: Mode) -> tuple[AttackWarning, ...]:
    """Has a model that is held in eval mode left it?"""
    if mode == "keep" or not isinstance(model, nn.Module) or not any(m.training for m in model.modules()):
        return ()
    return (doubt("changed mode"),)


def looks_like_probabilities(logits: Tensor) -> tuple[AttackWarning, ...]:
    """logits: (N, K). By chance, logits of one image may; of all images, hardly."""
    sums = logits.double().sum(1)
    alike = bool((logits >= 0).all() & (logits <= 1).all() & ((sums - 1).abs() < 1e-3).all())
    return (doubt("probabilities"),) if alike and len(logits) else ()


def varies(first: Tensor, again: Tensor) -> tuple[AttackWarning, ...]:
    """Two answers (N, K) to the same images, in one batch shape: a fixed model repeats itself to rounding."""
    scale = first.double().abs().amax().clamp(min=1e-12) if len(first) else torch.ones(())
    apart = len(first) and bool(((first.double() - again.double()).abs().amax() / scale) > 1e-4)
    return (doubt("random answers"),) if apart else ()


def square_ahead(broken: int, n: int) -> tuple[AttackWarning, ...]:
    """Square broke `broken` of n images after the gradient attacks, which broke none of these.

    Alarming when it is more than chance (exact one-sided sign test on the images that one side alone broke, p < .01)
    and at least two points of the whole.
    """
    if broken == 0:
        return ()
    certain = binomtest(broken, broken, 0.5, alternative="greater").pvalue < 0.01
    return (doubt("Square ahead" if certain and broken >= 0.02 * n else "Square found more", broken, n),)
