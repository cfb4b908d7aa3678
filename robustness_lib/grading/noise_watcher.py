"""A model that remembers what it was shown, and what can be wrong with the noise on it."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

__all__ = ["NoiseWatcher", "alike", "noise_mistake"]


class NoiseWatcher(nn.Module):
    """Answers as another model does, and keeps a copy of all it was shown and answered, in order.

    modes: whether it was in train mode, call by call. gradients: whether a graph was recorded in any call.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.forget()

    def forget(self) -> None:
        """Begin anew."""
        self._shown, self._answers = list[Tensor](), list[Tensor]()
        self.modes, self.gradients = list[bool](), False

    def forward(self, images: Tensor) -> Tensor:
        answers: Tensor = self.model(images.float())
        self._shown.append(images.detach().float().clone())
        self._answers.append(answers.detach().clone())
        self.modes.append(self.training)
        self.gradients |= answers.requires_grad
        return answers

    @property
    def shown(self) -> Tensor:
        """All images so far (M, ...); empty before the first."""
        return torch.cat(self._shown) if self._shown else torch.empty(0)

    @property
    def answers(self) -> Tensor:
        """The answer to each of them (M, K)."""
        return torch.cat(self._answers) if self._answers else torch.empty(0)


def noise_mistake(noise: Tensor, sigma: float) -> str | None:
    """What is wrong with noise that should be σ times a standard normal; None where nothing is.

    noise: (M, ...), ten thousand values or more, so that chance alone is never taken for a mistake.
    """
    spread, middle = noise.std().item(), noise.mean().item()
    if noise.abs().max() < 1e-4:
        return "the model is shown the images without noise"
    if len(set(noise[0].flatten().tolist())) < 0.5 * noise[0].numel():
        return "pixels of an image share their noise: draw a number for each pixel and channel"
    if abs(middle) > 0.1 * sigma:
        return "the noise is not centred at 0: randn draws a standard normal, rand numbers between 0 and 1"
    if abs(spread / sigma - 1) > 0.06:
        return _what_spread(spread, sigma)
    if not 0.03 < (noise.abs() > 2 * sigma).float().mean() < 0.065:
        return "the noise has the right standard deviation and is not normal: use randn"
    return None


def _what_spread(spread: float, sigma: float) -> str:
    found = f"the noise has standard deviation {spread:.3f} where σ = {sigma:g}"
    for units, why in ((sigma**2, "that is σ². σ is the standard deviation and no variance: σ times randn"),
                       (math.sqrt(sigma), "that is √σ. σ is the standard deviation and no variance: σ times randn"),
                       (1.0, "multiply randn by σ")):
        if abs(spread / units - 1) < 0.06:
            return f"{found}: {why}"
    return found


def alike(noise: Tensor) -> Tensor:
    """Which of (M, ...) are the same noise, (M, M) bool, apart from each with itself."""
    flat = noise.flatten(1).double()
    far = torch.cdist(flat, flat, compute_mode="donot_use_mm_for_euclid_dist")
    return (far < 1e-3 * math.sqrt(flat.shape[1]) * noise.std()) & ~torch.eye(len(noise), dtype=torch.bool)
