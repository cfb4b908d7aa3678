"""Images that a threat model allows, to be tried against bounds: drawn, in the corners, and where a gradient leads."""

import torch
from torch import Tensor

from robustness_lib import ThreatModel


def allowed(points: Tensor, x: Tensor, threat: ThreatModel, pixel_box: bool) -> Tensor:
    """The points (T, N, ...) moved to where they are allowed around x (N, ...), to the last bit of float64."""
    points = points.clamp(0, 1) if pixel_box else points
    moves = points - x
    if threat.norm == "linf":
        return x + moves.clamp(-threat.eps, threat.eps)
    length = moves.flatten(2).norm(dim=2).clamp(min=threat.eps).reshape(*moves.shape[:2], *[1] * (x.ndim - 1))
    return x + moves * (threat.eps / length if threat.eps else 0)  # towards x, and so no further out of the box


def drawn(x: Tensor, threat: ThreatModel, pixel_box: bool, tries: int, generator: torch.Generator) -> Tensor:
    """(tries, N, ...): a half inside, a quarter in the corners, a quarter on a few pixels alone."""
    noise = torch.rand((tries, *x.shape), generator=generator, dtype=x.dtype) * 2 - 1
    quarter = tries // 4
    noise[:quarter] = noise[:quarter].sign()
    some = torch.rand(noise[quarter:2 * quarter].shape, generator=generator) < 0.2
    noise[quarter:2 * quarter] = noise[quarter:2 * quarter].sign() * some
    if threat.norm == "l2":
        noise = noise * (3 if pixel_box else 1)  # long enough for the sphere, or for the box before it
    points = allowed(x + noise * threat.eps, x, threat, pixel_box)
    points[0] = x
    return points


def descended(function, x: Tensor, threat: ThreatModel, pixel_box: bool, generator: torch.Generator, steps: int = 6
              ) -> Tensor:
    """For each entry of function(x) (N, K) two images, one that makes it small and one that makes it large: (2K, N,
    ...), by signed gradients that get shorter."""
    with torch.no_grad():
        entries = function(x).shape[1]
    points = drawn(x, threat, pixel_box, 2 * entries, generator)
    signs = torch.cat([torch.eye(entries, dtype=x.dtype), -torch.eye(entries, dtype=x.dtype)])
    for step in range(steps):
        points.requires_grad_()
        values = function(points.flatten(0, 1)).reshape(2 * entries, len(x), entries)
        (gradient,) = torch.autograd.grad((values * signs[:, None]).sum(), points, allow_unused=True)
        if gradient is None:
            return points.detach()
        size = gradient.flatten(2).abs().amax(2).clamp(min=1e-300).reshape(*gradient.shape[:2], *[1] * (x.ndim - 1))
        way = gradient.sign() if threat.norm == "linf" else gradient / size
        points = allowed(points.detach() - way * threat.eps * 2 / (1 + step), x, threat, pixel_box)
    return points.detach()
