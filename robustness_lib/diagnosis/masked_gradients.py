"""Is a high robust accuracy the model's doing, or did it only blind the attack?

A model whose gradients lead nowhere stands against every attack that follows them, and falls to the next that does
not: masked gradients (Papernot et al. 2017, arXiv 1602.02697; Athalye, Carlini and Wagner 2018, arXiv 1802.00420,
whose signs of it most of these findings are; Carlini et al. 2019, arXiv 1902.06705).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import torch
from torch import Tensor

from robustness_lib.diagnosis.observations import POINTS, QUERIES, RESTARTS, STEPS, observe
from robustness_lib.querying.frozen import Classifier, Mode
from robustness_lib.reports.findings import EFFECT, P_VALUE, Finding
from robustness_lib.statistics import binomial_test
from robustness_lib.threat import ThreatModel

__all__ = ["diagnose", "found_beyond_the_suite", "judge"]

# Shares of the images that may show a thing by accident. Of the honest models measured none had a zero gradient or
# another answer; where two linear pieces meet, a step may cross over and fall: 1 image of 100 on the moons.
_RARE = 0.01
_KINKS = 0.05

_MASKED = ("Attacks that follow gradients do not see this model's weak points, and a robust accuracy measured with "
           "them is too high.")
_CURE = "Find the step that masks the gradient, and attack through a differentiable stand-in for it."

_AHEAD = {
    "fgsm": ("one step ahead",
             "one step (FGSM) broke {theirs} images that PGD, {steps} steps from {restarts} starts, did not break, and "
             "PGD {ours} that FGSM did not. Many steps do better unless the gradient misleads them. {masked} Look for "
             "gradients that fade or go wild away from the images given."),
    "square": ("black box ahead",
               "of the images that PGD left standing, Square broke {theirs} that more PGD from other starts did not, "
               "in at most {queries} queries and without any gradient, and that PGD broke {ours} that Square did not. "
               "{masked} {cure}"),
    "random": ("random search ahead",
               "of the images that PGD left standing, {points} random points each broke {theirs} that more PGD from "
               "other starts did not, and that PGD broke {ours} that they did not. Chance should not find what an "
               "attack misses. {masked} {cure}"),
    "transfer": ("transfer ahead",
                 "of the images that PGD left standing, adversarial images made on the surrogate broke {theirs} that "
                 "more PGD from other starts did not, and that PGD broke {ours} that they did not. {masked} Count the "
                 "transferred images too. {cure}"),
}

_SHARES = {
    "varied": ("outputs vary", _RARE,
               "{hits} of {tried} images got other logits when they were shown a second time, in the same batch. An "
               "attack on such a model meets another one at each step, and its failures are partly luck. Fix the "
               'randomness (dropout, noise, random resizing), or attack its mean: AutoAttack(..., version="rand").'),
    "zero": ("zero gradients", _RARE,
             "for {hits} of {tried} images the gradient of cross-entropy is exactly zero, at the image or at a random "
             "point near it. {masked} Logits that saturate the softmax do this, the sooner in half precision (attack "
             'the margin instead: loss="margin"), and so do rounding and thresholds (attack through a differentiable '
             "stand-in)."),
    "not_a_number": ("gradients not a number", _RARE,
                     "for {hits} of {tried} images the gradient holds NaN or infinities, at the image or at a random "
                     "point near it, and attacks lose their way there. Look for a square root, a logarithm or a "
                     "division at zero, and keep its argument away from zero."),
    "flat": ("flat along the gradient", _KINKS,
             "for {hits} of {tried} images a step of 1/255 per pixel along the gradient does not raise the loss, or "
             "raises it less than one in a random direction: the gradient is not the slope of the loss. {masked} Look "
             "for a backward pass written by hand, and for fine ripples on the input or the features."),
}


def diagnose(model: Classifier, x: Tensor, y: Tensor, threat: ThreatModel, *, index: Tensor | None = None,
             seed: int = 0, mode: Mode = "eval", batch_size: int | None = None,
             surrogate: Classifier | None = None) -> tuple[Finding, ...]:
    """Signs that attacks on this model see less than there is. None are no proof that it has no such fault.

    x: (n, ...) in [0, 1], y: (n,) int64; a hundred images or more, since fewer than seven that only one side broke are
    never significant. index: (n,) int64, numbers in the data set, which with `seed` fix all random numbers. mode:
    "eval", or "keep" for a model to be judged in the mode that it is in. batch_size: as for attacks. surrogate:
    another model of the same classes, whose adversarial images are tried too. The model is as it was afterwards.

    Each finding has p < .01 in an exact test and an effect of at least two points of the images:

    - one step, Square, random search or transfer ahead of PGD: the sign test on images that only one of the two broke
      (McNemar's, exact). Square, random search and transfer see only what PGD left standing, and are held against the
      same PGD from other starts on the same images: a second try finds a few more on any model;
    - stands at ε = .5 (L2: .5·√d): every image may become the same grey there, which has one answer, so nobody can be
      right more often than the largest class is frequent. The binomial test against that share, above which it is the
      attack that failed;
    - zero gradients, gradients not a number, outputs vary: the binomial test against 1 image in 100;
    - flat along the gradient: the same against 5 in 100;
    - no gradient: the model detaches. No test, a fact (p = 0); the other findings that need a gradient are left out.

    False alarms: ten tests at .01 give an honest model at most one chance in ten by the union bound, if each were at
    the edge of its null hypothesis. None is: on the shipped models and on two published MNIST nets, L∞ and L2, several
    ε and five seeds (175 runs on 100 images each), the smallest p of any test was .87, and no run had a finding.

    Cost for an image that is right and stays so: at most 183 gradients and 267 forward passes more, as much as 2.7
    times PGD with 20 steps and 5 restarts if a gradient costs three forward passes; an image that PGD breaks takes a
    fraction of it. Raises TypeError and ValueError as attacks do.
    """
    return judge(observe(model, x, y, threat, index=index, seed=seed, mode=mode, batch_size=batch_size,
                         surrogate=surrogate))


def judge(evidence: dict[str, Tensor]) -> tuple[Finding, ...]:
    """The findings that the columns of `observe`, or several of them joined, bear out. Gravest first.

    Where there is a column "standing" besides, (n,) bool, what a suite of attacks left standing, then it is a finding
    too where more than one in a hundred of the images looked at broke here and stood there: a fact, and no test.
    """
    if not len(evidence.get("right", ())):
        return ()
    findings = [finding for finding in _candidates(evidence) if finding.p < P_VALUE and finding.effect >= EFFECT]
    return (*findings, *_too_weak(evidence))


def _candidates(evidence: dict[str, Tensor]) -> Iterator[Finding]:
    """Each test's outcome, significant or not. Causes come before what they cause."""
    yield _no_gradient(evidence)
    yield _share("varied", evidence, torch.ones_like(evidence["right"]))
    if "pgd" not in evidence:
        return
    followed = evidence["right"] & ~evidence["detached"]
    yield _share("zero", evidence, followed)
    yield _share("not_a_number", evidence, followed)
    yield _share("flat", evidence, followed & ~evidence["varied"])  # of answers at random, no two can be compared
    yield _ahead("fgsm", "pgd", evidence)
    for name in ("square", "random", "transfer"):
        if name in evidence:
            yield _ahead(name, "again", evidence)
    yield _grey(evidence)


_SEARCHES = {"fgsm": "one step (FGSM)", "pgd": "PGD", "again": "PGD from other starts", "square": "Square",
             "random": "random search"}


def found_beyond_the_suite(evidence: dict[str, Tensor]) -> tuple[int, str]:
    """How many images broke here that a suite of attacks left standing (the column "standing"), and what broke how many
    of them, in words. Of answers at random none counts: a success may be luck."""
    standing = evidence.get("standing")
    if standing is None:
        return 0, ""
    left = standing & ~evidence["varied"]
    broke = {words: evidence[name] & left for name, words in _SEARCHES.items() if name in evidence}
    counts = {words: int(column.sum()) for words, column in broke.items()}
    said = ", ".join(f"{words} broke {count}" for words, count in counts.items() if count)
    return int(torch.stack([*broke.values()]).any(0).sum()), (
        f"{said} of the {int(standing.sum())} that the suite left standing, of {len(standing)} images looked at")


def _too_weak(evidence: dict[str, Tensor]) -> Iterator[Finding]:
    """Other attacks find one image in a hundred on honest models too: of 16 runs of the standard and the random suite
    on 200 images of shipped nets, 12 had none, three had one, and one had two."""
    n = len(evidence["right"])
    total, said = found_beyond_the_suite(evidence)
    if total >= 2 and total > _RARE * n:
        message = (f"{said}: the suite is too weak here, and the robust accuracy too high by {100 * total / n:.1f} "
                   f"points on these images or more. Evaluate with more attacks, more steps or more restarts; where "
                   f"random search or Square was ahead, look for what misleads the gradient.")
        yield Finding("suite too weak", message, 0.0, total / n, total, n)


def _no_gradient(evidence: dict[str, Tensor]) -> Finding:
    detached = evidence["detached"]
    hits, n, right = int(detached.sum()), len(detached), int((evidence["right"] & detached).sum())
    square, random = (int((evidence[name] & detached).sum()) for name in ("square", "random"))
    message = (f"autograd sees no way from the model's answer back to its input (it detaches, leaves PyTorch, or runs "
               f"under no_grad), so attacks that follow gradients cannot run. Of {right} images that the model had "
               f"right, Square broke {square} in at most {QUERIES} queries and {2 * POINTS} random "
               f"points each broke {random}; this is no robust accuracy yet. {_CURE}")
    return Finding("no gradient", message, 0.0 if hits else 1.0, hits / n, hits, n)


def _share(name: str, evidence: dict[str, Tensor], tried: Tensor) -> Finding:
    """How many of those tried show it, against the share that may: the binomial test."""
    kind, nominal, text = _SHARES[name]
    hits, of, n = int((evidence[name] & tried).sum()), int(tried.sum()), len(tried)
    p = binomial_test(hits, of, nominal)
    return Finding(kind, text.format(hits=hits, tried=of, masked=_MASKED), p, (hits - nominal * of) / n, hits, n)


def _ahead(name: str, control: str, evidence: dict[str, Tensor]) -> Finding:
    """The sign test on the images that one broke and the other did not."""
    kind, text = _AHEAD[name]
    compared = ~evidence["detached"]
    theirs = int((compared & evidence[name] & ~evidence[control]).sum())
    ours = int((compared & evidence[control] & ~evidence[name]).sum())
    message = text.format(theirs=theirs, ours=ours, steps=STEPS, restarts=RESTARTS,
                          queries=QUERIES, points=2 * POINTS, masked=_MASKED, cure=_CURE)
    n = len(compared)
    return Finding(kind, message, binomial_test(theirs, theirs + ours, 0.5), (theirs - ours) / n, theirs, n)


def _grey(evidence: dict[str, Tensor]) -> Finding:
    """How many PGD left standing where all may become the same, against the largest class's share."""
    attacked, n = ~evidence["detached"], len(evidence["label"])
    of, stood = int(attacked.sum()), int((evidence["grey"] & attacked).sum())
    largest = max(Counter(evidence["label"][attacked].tolist()).values(), default=0)
    share = largest / max(1, of)
    message = (f"at ε = .5 (in L2 .5·√d) every image may become the same grey, so no model can be right on more than "
               f"the largest class, {largest} of {of} images, and PGD with {STEPS} steps left {stood} "
               f"standing. It is the attack that failed. {_MASKED} {_CURE}")
    return Finding("stands at ε = .5", message, binomial_test(stood, of, share), (stood - largest) / n, stood, n)
