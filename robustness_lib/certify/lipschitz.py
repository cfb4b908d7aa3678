"""Lipschitz certificates: how far the logits can move for a change of a given length, and so which cannot turn a class.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from robustness_lib.certify._rounding import OWN_ROUNDING
from robustness_lib.certify.certificates import ABSTAINED, CertifiedRadii
from robustness_lib.certify.operation import Box
from robustness_lib.certify.operation_gains import Gain, joined, operation_gains
from robustness_lib.certify.traced_network import TracedNetwork, trace
from robustness_lib.inputs import check_images
from robustness_lib.precision import full_precision
from robustness_lib.querying.batch_size import cut, default_batch_size
from robustness_lib.querying.confirm_predictions import predict_logits
from robustness_lib.querying.frozen import Classifier
from robustness_lib.state import image_digests, model_fingerprint

__all__ = ["LayerConstant", "LipschitzBound", "LipschitzCertificates", "certify_lipschitz", "lipschitz_bound",
           "lipschitz_radius"]


@dataclass(frozen=True)
class LayerConstant:
    """One operation of a network: the layer that it belongs to, its name, and by how much a change may get longer in it
    (one number for each input that follows from the images)."""

    layer: str
    operation: str
    constants: tuple[float, ...]


@dataclass(frozen=True)
class LipschitzBound:
    """‖z(x′) − z(x)‖₂ ≤ constant · ‖x′ − x‖₂ for all x and x′, also outside [0, 1].

    constant: K, in logits per pixel unit, of the whole network with what it does to pixels first. layers: what it is
    made of, operation by operation. rounding: by how much K grows, in effect, since the model computes in its own
    precision.
    """

    constant: float
    layers: tuple[LayerConstant, ...]
    rounding: float

    def __str__(self) -> str:
        longest = max(self.layers, key=lambda layer: max(layer.constants), default=None)
        steep = "" if longest is None else \
            f"; the most by one operation is {max(longest.constants):.4g}, in {longest.layer}"
        return f"no change gets more than {self.constant:.4g} times as long from pixels to logits in L2{steep}"


@dataclass(frozen=True, eq=False)
class LipschitzCertificates(CertifiedRadii):
    """Of the model itself, without noise and without probability; unpacks as (prediction, radius).

    prediction: (N,) int64, the class that the model gives everywhere within the radius; −1 where nothing is certified:
    the margin is no larger than what rounding may make. radius: (N,) float64, in L2, in pixel units of [0, 1]; 0 where
    nothing is certified. margin: (N,) float64, of the largest logit over the next. bound: the constant, and what it is
    made of. model: a fingerprint. images: one of each image. up_to: None, since every radius was looked at. It says
    that the answer stays the same, not that it is right.
    """

    prediction: Tensor
    radius: Tensor
    margin: Tensor
    bound: LipschitzBound
    model: str
    images: tuple[str, ...] = field(repr=False)
    up_to: float | None = None


def lipschitz_bound(model: Classifier | TracedNetwork, images: Tensor | Sequence[int]) -> LipschitzBound:
    """A bound K of the model's Lipschitz constant in L2, as the product of those of its operations.

    model: images (N, ...) to logits (N, K), of operations that have a rule; held in eval mode, and left as it was.
    images: some of them (N, ...) in [0, 1], or the shape of one, (C, H, W): the norm of a convolution depends on it.

    Linear layers count by their largest singular value, convolutions by that of the operator over the padded image (see
    `convolution_norm`), each computed from the weights as they are, whatever a layer says of itself: of
    torch.nn.utils.parametrizations.spectral_norm, whose power iteration comes from below, too. Other linear operations
    (`Normalize`, batch norm, pooling by means) count by a bound that is exact for them, activations by their steepest
    slope, sorting as 1; max pooling by the root of how many windows meet in a pixel. A sum of branches counts as the
    sum of theirs. The constant holds for real numbers; `certify_lipschitz` reckons with rounding.

    Raises what `trace` raises, and `UnknownOperation`, which names the layer, where no constant is known (softmax,
    products of two values) or none exists (squares).
    """
    if not isinstance(images, Tensor):
        images = torch.rand(2, *images, generator=torch.Generator().manual_seed(0))
    network = trace(model, images)
    with torch.inference_mode(False), full_precision():
        return _bound(network, _gains(network))


def lipschitz_radius(margin: Tensor | float, constant: float) -> Tensor:
    """The L2 radius within which a margin cannot vanish: margin / (√2 · K), 0 where the margin is not positive.

    margin: (N,) of the largest logit over the next. constant: K of the logits. The difference of two logits
    moves up to √2 times as fast as all logits together, when one rises as the other falls (Tsuzuku, Sato and Sugiyama
    2018, arXiv 1802.04034). Rounding is left aside. Raises ValueError for a K below 0 or without end.
    """
    if not 0 <= constant < math.inf:
        raise ValueError(f"a Lipschitz constant is a finite number, 0 or more; found {constant}")
    margin = torch.as_tensor(margin, dtype=torch.float64)
    return torch.where(margin > 0, margin / (math.sqrt(2) * constant), 0.0)


def certify_lipschitz(model: Classifier, x: Tensor, *, batch_size: int | None = None) -> LipschitzCertificates:
    """Certify each image by the model's Lipschitz constant: within the radius the model gives the same class to
    everything, in the pixel box or not.

    x: (N, ...) float32 or float64 in [0, 1]. The radius is (margin / √2 − 2e) / (K + e′), with K of `lipschitz_bound`
    and the margin in the model's own answer. e is what rounding may make of the logits at the image, and e + e′·r at a
    distance r: in each operation a share of 5·10⁻⁷ in float32 (5·10⁻¹³ in float64) of the absolute values that are
    added up to a result, which the rest of the network passes on by its own constants. Raises what `lipschitz_bound`
    raises; TypeError and ValueError for images that cannot be used.
    """
    x = check_images(x).detach()
    network = trace(model, x)
    size = batch_size or default_batch_size(x, network.device)
    top = predict_logits(model, x, size=size).double().topk(2)
    margin, answers = top.values[:, 0] - top.values[:, 1], top.indices[:, 0]
    with torch.inference_mode(False), full_precision():
        gains = _gains(network)
        bound, precise = _bound(network, gains), network.to(torch.float64)
        with torch.no_grad():
            noise = torch.cat([_rounding(precise, gains, x[part], OWN_ROUNDING[network.dtype]).cpu()
                               for part in cut(len(x), size)])
    radius = lipschitz_radius(margin - 2 * math.sqrt(2) * noise, bound.constant + bound.rounding)
    return LipschitzCertificates(torch.where(radius > 0, answers, ABSTAINED), radius, margin, bound,
                                 model_fingerprint(model), tuple(image_digests(x)))


def _gains(network: TracedNetwork) -> list[list[Gain]]:
    """Of each step."""
    precise = network.to(torch.float64)
    return [operation_gains(step.operation, same.operation)
            for step, same in zip(network.steps, precise.steps, strict=True)]


def _bound(network: TracedNetwork, gains: list[list[Gain]]) -> LipschitzBound:
    share = OWN_ROUNDING[network.dtype]
    constants, rounding, layers = [1.0], [0.0], list[LayerConstant]()
    for step, of_inputs in zip(network.steps, gains, strict=True):
        before = [(constants[k], rounding[k], gain) for k, gain in zip(step.inputs, of_inputs, strict=True)]
        constants.append(joined(step.operation, [constant * gain.most for constant, _, gain in before]))
        rounding.append(sum(error * gain.most + share * constant * gain.absolute for constant, error, gain in before))
        call = step.operation.call
        layers.append(LayerConstant(call.layer, call.name, tuple(gain.most for gain in of_inputs)))
    if not math.isfinite(constants[-1] + rounding[-1]):
        raise ValueError(f"the product of the layers' constants is no finite number: {constants[-1]:g}")
    return LipschitzBound(constants[-1], tuple(layers), rounding[-1])


def _rounding(network: TracedNetwork, gains: list[list[Gain]], x: Tensor, share: float) -> Tensor:
    """How long an error rounding may make in the logits of the images x (N,)."""
    values, errors = [network.take(x)], [torch.zeros(len(x), dtype=torch.float64, device=network.device)]
    for step, of_inputs in zip(network.steps, gains, strict=True):
        inputs = [values[k] for k in step.inputs]
        values.append(step.operation(*inputs))
        added_up = step.operation.interval(*(_around(value) for value in inputs)).size
        errors.append(sum((errors[k] * gain.most for k, gain in zip(step.inputs, of_inputs, strict=True)),
                          share * added_up.reshape(len(x), -1).norm(dim=1)))
    return errors[-1]


def _around(value: Tensor) -> Box:
    return Box(-value.abs(), value.abs())
