"""What training minimizes: a number for a batch, whose gradient is the step.

Every objective here keeps to one rule: the attack sees the model in eval mode with its parameters frozen, and the step
sees it as the caller left it, in train mode. Batch-norm statistics move with the passes of the step, not of the attack.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from robustness_lib import counter_random
from robustness_lib.attacks import PGD
from robustness_lib.inputs import check_count, check_index, check_real
from robustness_lib.models import find_logits
from robustness_lib.querying.frozen import frozen
from robustness_lib.querying.queried_model import input_gradient
from robustness_lib.threat import ThreatModel

__all__ = ["NAME_LOGITS", "TRADES", "FastFGSM", "GaussianAugmentation", "Objective", "PGDTraining", "SmoothAdversarial",
           "Standard", "WithinThreat", "bare", "logits_of", "step_logits"]

# What to do where something else in a model's answer is taken for its logits.
NAME_LOGITS = ("Say which are the logits: as_classifier(model, output=lambda answer: answer if isinstance(answer, "
               "torch.Tensor) else answer[1]), for the second")


@dataclass(frozen=True)
class Objective(ABC):
    """loss = objective(model, x, y): a scalar to minimize, the mean over the batch.

    x: (N, ...) in [0, 1]. y: (N,) int64. index: (N,) each image's number in its data set (default 0 ... N − 1), and
    seed: any whole number; an image's random numbers follow from these two. `fit` gives a new seed every epoch.
    label_smoothing: share of the label's probability that is spread evenly over all classes, in [0, 1).
    The model is called in the mode in which it is; it is left in that mode. Of what it answers in training mode,
    the logits are learned from and nothing else: auxiliary heads (GoogLeNet's, Inception's) get no loss of their own.
    """

    label_smoothing: float = field(default=0.0, kw_only=True)

    def __post_init__(self) -> None:
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing must lie in [0, 1); found {self.label_smoothing}")

    @abstractmethod
    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, index: Tensor | None = None,
                 seed: int = 0) -> Tensor:
        """The loss."""

    def with_share(self, share: float) -> Objective:
        """The same objective with `share` of its ε; `fit` lets ε grow with it."""
        return self

    def _cross_entropy(self, logits: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(logits, y, label_smoothing=self.label_smoothing)


@dataclass(frozen=True)
class Standard(Objective):
    """Cross-entropy on the images as they are."""

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, index: Tensor | None = None,
                 seed: int = 0) -> Tensor:
        return self._cross_entropy(step_logits(model, x), y)


@dataclass(frozen=True)
class GaussianAugmentation(Objective):
    """Cross-entropy on x + σ·N(0, 1), not clipped to the box: what randomized smoothing certifies is the model under
    exactly this noise (Cohen, Rosenfeld and Kolter 2019, arXiv 1902.02918). sigma: σ in pixel units of [0, 1]."""

    sigma: float

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_positive("sigma", self.sigma)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, index: Tensor | None = None,
                 seed: int = 0) -> Tensor:
        return self._cross_entropy(step_logits(model, x + self.sigma * _normal(x, index, seed)), y)

    def with_share(self, share: float) -> GaussianAugmentation:
        return replace(self, sigma=self.sigma * share)


@dataclass(frozen=True)
class WithinThreat(Objective):
    """An objective that looks at what a threat model allows."""

    threat: ThreatModel

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.threat, ThreatModel):
            raise TypeError(f'threat must be a ThreatModel, such as ThreatModel("linf", 8/255); found {self.threat!r}')

    def with_share(self, share: float) -> Objective:
        return replace(self, threat=self.threat.with_eps(self.threat.eps * share))


@dataclass(frozen=True)
class FastFGSM(WithinThreat):
    """Cross-entropy on one signed step of `step_share`·ε from a uniform random start in the ball (FGSM-RS; Wong, Rice
    and Kolter 2020, arXiv 2001.03994). Two gradients a batch. Where the step is as long as here or longer, and more so
    for a larger ε, it can collapse: right against one step, wrong against several. `fit` watches for that."""

    step_share: float = 1.25

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_positive("step_share", self.step_share)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, index: Tensor | None = None,
                 seed: int = 0) -> Tensor:
        start = self.threat.random_point(x, seed=seed, index=check_index(index, x))
        gradient = _input_gradient(model, start, lambda logits: F.cross_entropy(logits, y, reduction="sum"))
        step = self.threat.steepest_step(gradient, self.step_share * self.threat.reach(x))
        return self._cross_entropy(step_logits(model, self.threat.project(start + step, x)), y)


@dataclass(frozen=True)
class PGDTraining(WithinThreat):
    """Cross-entropy on the worst image that PGD finds, and on nothing else (Madry et al. 2018, arXiv 1706.06083).

    steps and step_size: see `PGD`. Every image takes all its steps, and the one of highest loss is learned from: an
    attack that stopped at its first success would train against a weaker attacker than the one named.
    """

    steps: int = 10
    step_size: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self._attack(0)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, index: Tensor | None = None,
                 seed: int = 0) -> Tensor:
        x_adv = self._attack(seed)(bare(model), x, y, index=index)
        return self._cross_entropy(step_logits(model, x_adv), y)

    def _attack(self, seed: int) -> PGD:
        return PGD(self.threat, steps=self.steps, step_size=self.step_size, seed=seed, stop="never")

    def with_share(self, share: float) -> Objective:
        return _with_share(self, share)


@dataclass(frozen=True)
class TRADES(WithinThreat):
    """CE(z(x), y) + β·KL(p(x) ‖ p(x′)), where x′ maximizes that KL inside the threat model (Zhang et al. 2019, arXiv
    1901.08573). Labels steer accuracy on clean images; robustness means answering alike nearby.

    beta: β, 0 or more. steps and step_size: of the inner PGD. It starts at x + .001·N(0, 1), since the KL's gradient
    vanishes at x itself. Both terms are differentiated, and through both branches: the clean answer is pulled toward
    the attacked one too. Clean logits inside the attack are constants in eval mode, computed once. Two things differ
    from the authors' code: x′ is the iterate of highest KL and not the last, and the step is 2.5ε / steps unless given.
    """

    beta: float = 6.0
    steps: int = 10
    step_size: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.beta < math.inf:
            raise ValueError(f"beta must be 0 or more; found {self.beta}")
        PGD(self.threat, steps=self.steps, step_size=self.step_size)  # checks them

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, index: Tensor | None = None,
                 seed: int = 0) -> Tensor:
        with frozen(model), torch.no_grad():
            clean = step_logits(bare(model), x)
        attack = PGD(self.threat, steps=self.steps, step_size=self.step_size, stop="never",
                     loss=lambda logits, _: kl_divergence(clean, logits))
        start = (x + 0.001 * _normal(x, index, seed)).clamp(0, 1)
        # One batch: the clean logits are in the order of the whole of it.
        x_adv = attack(bare(model), x, y, start=start, batch_size=len(x))
        logits = step_logits(model, x)
        attacked = step_logits(model, x_adv)
        return self._cross_entropy(logits, y) + self.beta * kl_divergence(logits, attacked).mean()

    def with_share(self, share: float) -> Objective:
        return _with_share(self, share)


@dataclass(frozen=True)
class SmoothAdversarial(WithinThreat):
    """Adversarial training of the smoothed classifier (SmoothAdv with PGD; Salman et al. 2019, arXiv 1906.04584).

    Each image has `samples` draws m of σ·N(0, 1), the same ones in the attack and in the step, and not clipped to the
    box. PGD finds the x′ that maximizes −log of the softmax averaged over these draws of noise around x′, beginning
    at x; the step is on the cross-entropy averaged over x′ under each draw. With ε = 0 and one draw that is
    `GaussianAugmentation`.

    threat: in L2, the norm that Gaussian noise certifies. sigma: σ in pixel units of [0, 1]. steps and step_size: T
    steps of `PGD`. An image costs m·(T + 1) passes forward and backward, and m more forward. A share of the threat
    scales ε and the step size but not σ: the noise belongs to the classifier that is trained, and is no part of what
    an attacker may do.
    """

    sigma: float
    samples: int = 1
    steps: int = 2
    step_size: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.threat.norm != "l2":
            raise ValueError(f"Gaussian noise certifies L2 balls, so the attack must stay in one: write "
                             f'ThreatModel("l2", ε), with ε of about σ; found {self.threat}')
        _check_positive("sigma", self.sigma)
        check_count("samples", self.samples)
        self._attack()

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, index: Tensor | None = None,
                 seed: int = 0) -> Tensor:
        noise = self.sigma * _normals(x, index, seed, self.samples)
        # One batch: the noise is in the order of the whole of it.
        x_adv = self._attack()(_SoftSmoothed(bare(model), noise), x, y, index=index, batch_size=len(x))
        return self._cross_entropy(_noisy_logits(model, x_adv, noise).flatten(0, 1), y.repeat(self.samples))

    def _attack(self) -> PGD:
        return PGD(self.threat, steps=self.steps, step_size=self.step_size, random_start=False, stop="never")

    def with_share(self, share: float) -> Objective:
        return _with_share(self, share)


class _SoftSmoothed(nn.Module):
    """The smoothed classifier, by the same draws of noise (m, N, ...) at every call. Its logits are the log of the mean
    softmax, (N, K), so that cross-entropy on them is −log of the label's mean probability."""

    def __init__(self, model: nn.Module, noise: Tensor) -> None:
        super().__init__()
        self.model, self.noise = model, noise

    def forward(self, x: Tensor) -> Tensor:
        logits = _noisy_logits(self.model, x, self.noise).to(x.dtype)
        return F.log_softmax(logits, dim=2).logsumexp(0) - math.log(len(self.noise))


def _noisy_logits(model: nn.Module, x: Tensor, noise: Tensor) -> Tensor:
    """Logits (m, N, K) of the images x (N, ...) under each draw of noise (m, N, ...)."""
    shown = x + noise
    return step_logits(model, shown.flatten(0, 1)).view(*shown.shape[:2], -1)


def kl_divergence(from_logits: Tensor, to_logits: Tensor) -> Tensor:
    """KL(p ‖ q) per example (N,) of the softmax p of the first (N, K) from the softmax q of the second."""
    log_p, log_q = F.log_softmax(from_logits, dim=1), F.log_softmax(to_logits, dim=1)
    return (log_p.exp() * (log_p - log_q)).sum(1)


def step_logits(model: nn.Module, x: Tensor) -> Tensor:
    """The logits that a step is taken on: what the model answers or, where it answers more in training mode (auxiliary
    heads), the logits that `as_classifier` finds in it. Nothing else in the answer is learned from."""
    return logits_of(model(x), x)


def logits_of(answer: object, x: Tensor) -> Tensor:
    """The logits (N, K) in an answer to the images x (N, ...). Raises ValueError where what is found is not such."""
    logits = find_logits(answer)
    if logits.ndim == 2 and len(logits) == len(x):
        return logits
    found = f"{tuple(logits.shape)}" if isinstance(answer, Tensor) else \
        f"{tuple(logits.shape)} first in its {type(answer).__name__}"
    advice = f". {NAME_LOGITS}" if not isinstance(answer, Tensor) else \
        ". It drops the batch's axis (.squeeze()?): .flatten(1) keeps it, and so does a batch_size of 2 or more" if \
        len(x) == 1 else ""
    raise ValueError(f"in training a batch of {len(x)} image{'' if len(x) == 1 else 's'} needs logits ({len(x)}, K); "
                     f"the model answers {found}{advice}")


def bare(model: nn.Module) -> nn.Module:
    """The model inside PyTorch's DistributedDataParallel: an attack must not set off the exchange of gradients."""
    return model.module if isinstance(model, DistributedDataParallel) else model


def _input_gradient(model: nn.Module, x: Tensor, loss: Callable[[Tensor], Tensor]) -> Tensor:
    with frozen(model):
        x = x.detach().requires_grad_()
        return input_gradient(loss(step_logits(bare(model), x)), x)


def _with_share(objective: PGDTraining | TRADES | SmoothAdversarial, share: float) -> Objective:
    """ε and, where it was given, the step size, which belongs to that ε."""
    size = None if objective.step_size is None else objective.step_size * share
    return replace(objective, threat=objective.threat.with_eps(objective.threat.eps * share), step_size=size)


def _normal(x: Tensor, index: Tensor | None, seed: int) -> Tensor:
    return _normals(x, index, seed, 1)[0]


def _normals(x: Tensor, index: Tensor | None, seed: int, draws: int) -> Tensor:
    """Standard normal numbers of the images x (N, ...): (draws, N, ...)."""
    numbers = counter_random.bulk_normal((draws, *x.shape[1:]), seed=seed, index=check_index(index, x), dtype=x.dtype)
    return numbers.transpose(0, 1).to(x.device)


def _check_positive(name: str, value: float) -> None:
    if not 0 < check_real(name, value, "above 0") < math.inf:
        raise ValueError(f"{name} must be positive; found {value}")
