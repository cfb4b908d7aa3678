"""Faults that mask gradients, planted in an honest model, and the findings that each must raise."""

import torch
import torch.nn.functional as F
from torch import nn


class Scaled(nn.Module):
    """Logits times a factor: in float32 the softmax saturates, and its gradient with it. What defensive distillation
    ends in (Carlini and Wagner 2017)."""

    def __init__(self, model, factor):
        super().__init__()
        self.model, self.factor = model, factor

    def forward(self, z):
        return self.factor * self.model(z)


class Before(nn.Module):
    """Something done to the images before the model sees them."""

    def __init__(self, model, step):
        super().__init__()
        self.model, self.step = model, step

    def forward(self, z):
        return self.model(self.step(z))


class Probabilities(nn.Module):
    """A softmax at the end, sharpened by a temperature."""

    def __init__(self, model, temperature):
        super().__init__()
        self.model, self.temperature = model, temperature

    def forward(self, z):
        return F.softmax(self.model(z) / self.temperature, dim=1)


class Unfaithful(torch.autograd.Function):
    """Changes nothing on the way forward, and the gradient on the way back."""

    @staticmethod
    def forward(ctx, z, lie):
        ctx.lie = lie
        ctx.save_for_backward(z)
        return z.view_as(z)

    @staticmethod
    def backward(ctx, gradient):
        return ctx.lie(gradient, *ctx.saved_tensors), None


def _noise_for(gradient, z):
    """Noise in the gradient's place; the same for the same gradient, so that it cannot be averaged out."""
    generator = torch.Generator().manual_seed(int(1e6 * float(gradient.double().abs().sum())) % 2**31)
    return torch.randn(gradient.shape, generator=generator)


def _only_at_eight_bit_values(gradient, z):
    """The gradient of images as they come from a file, none of what an attack has made of them."""
    as_stored = ((255 * z).round() - 255 * z).abs().flatten(1).amax(1) < 1e-3
    return gradient * as_stored.view(-1, *[1] * (z.ndim - 1))


def _lying(lie):
    return lambda z: Unfaithful.apply(z, lie)


def _to_levels(z, levels=8):
    """Rounding: autograd knows its derivative, and it is 0."""
    return torch.round(z * levels) / levels


def _shattered(z):
    """A fine saw on every pixel: the gradient is that of the saw, and says nothing of where the image leads."""
    return z + 0.03 * torch.sin(3000 * z)


def _root(z):
    """A length that happens to be 0: the derivative of its root is infinite, and infinity times 0 is no number."""
    return z + (z - z.detach()).square().flatten(1).sum(1).sqrt().view(-1, *[1] * (z.ndim - 1))


def _numpy(z):
    return torch.from_numpy(z.numpy().copy()).to(z)


def _no_grad(z):
    with torch.no_grad():
        return z * 1


FAULTS = {
    # name: (how it is planted, what must be found)
    "logits × 1e4": (lambda m: Scaled(m, 1e4), {"zero gradients", "black box ahead", "stands at ε = .5"}),
    "logits × 1e8": (lambda m: Scaled(m, 1e8), {"zero gradients", "black box ahead", "stands at ε = .5"}),
    "distilled": (lambda m: Scaled(m, 60.0), {"zero gradients"}),
    "sharp probabilities": (lambda m: Probabilities(m, 0.02), {"zero gradients", "stands at ε = .5"}),
    "rounding": (lambda m: Before(m, _to_levels), {"zero gradients", "stands at ε = .5"}),
    "threshold": (lambda m: Before(m, lambda z: (z > 0.5).float()), {"no gradient"}),
    "detached": (lambda m: Before(m, torch.detach), {"no gradient"}),
    "numpy": (lambda m: Before(m, _numpy), {"no gradient"}),
    "no_grad": (lambda m: Before(m, _no_grad), {"no gradient"}),
    "noise on the images": (lambda m: Before(m, lambda z: z + 0.05 * torch.randn_like(z)), {"outputs vary"}),
    "faint noise": (lambda m: Before(m, lambda z: z + 0.002 * torch.randn_like(z)), {"outputs vary"}),
    "dropout left on": (lambda m: Before(m, lambda z: F.dropout(z, 0.1, training=True)), {"outputs vary"}),
    "not a number": (lambda m: Before(m, _root), {"gradients not a number", "black box ahead"}),
    "flipped": (lambda m: Before(m, _lying(lambda g, z: -g)), {"flat along the gradient", "black box ahead"}),
    "noise in the gradient": (lambda m: Before(m, _lying(_noise_for)), {"flat along the gradient", "black box ahead"}),
    "gradient for stored images": (lambda m: Before(m, _lying(_only_at_eight_bit_values)),
                                   {"one step ahead", "zero gradients"}),
    "shattered": (lambda m: Before(m, _shattered), {"flat along the gradient"}),
}


def plant(fault, model):
    """The model with the fault in it."""
    return FAULTS[fault][0](model)
