"""From a sign's face to a photograph of it: where it stands, what is behind it, the light, the camera.

`PARAMETERS` lists every number that a picture is made from, with its range. They are drawn by hashing (the
same bits on every machine); the pictures follow from them by ordinary float32 arithmetic.
"""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F

from robustness_lib import counter_random
from robustness_lib.data._sign_faces import COLOURS, Face

SIZE: Final = 32  # pixels a side
_SUB: Final = 2  # distances are taken at 2 x 2 points in every pixel

PARAMETERS: Final[dict[str, tuple[float, float]]] = {
    # Where the sign stands. Lengths are in half images: the frame reaches from -1 to 1.
    "scale": (0.60, 0.95),
    "shift_x": (-1.0, 1.0),  # times the room that the scale leaves
    "shift_y": (-1.0, 1.0),
    "rotation": (-0.24, 0.24),  # radians
    "shear": (-0.20, 0.20),
    "squeeze": (0.85, 1.10),  # width over height
    "perspective_x": (-0.22, 0.22),
    "perspective_y": (-0.22, 0.22),
    # Its paint.
    "fade": (0.0, 0.30),  # 0 fresh, 1 gone to grey
    "tint_red": (-0.06, 0.06),
    "tint_green": (-0.06, 0.06),
    "tint_blue": (-0.06, 0.06),
    # What is behind it: a tone, a second one beyond a straight edge, and noise in four octaves.
    "back_tone": (0.08, 0.85),
    "back_warmth": (-0.35, 0.30),  # sky to brick
    "back_green": (-0.05, 0.25),  # leaves
    "edge_angle": (-math.pi, math.pi),
    "edge_offset": (-1.2, 1.2),
    "edge_step": (-0.50, 0.50),
    "rough": (0.03, 0.25),
    "octave_decay": (0.5, 1.0),
    "post": (-0.15, 0.12),  # half width of the post; none where negative
    "post_tone": (0.2, 0.75),
    # The light.
    "gain": (0.35, 1.15),
    "gradient_angle": (-math.pi, math.pi),
    "gradient": (0.0, 0.45),
    "warmth": (-0.10, 0.10),
    "contrast": (0.45, 1.05),
    "haze": (0.15, 0.75),  # the grey that lost contrast turns into
    # The camera.
    "blur": (0.35, 1.15),  # standard deviation, pixels
    "noise": (0.005, 0.04),  # standard deviation, in [0, 1]
}

_GRIDS: Final = (3, 6, 12, 24)  # cells a side in each octave of the background's noise
_PARAMETER_STEP, _NOISE_STEP = 0, 1  # the counter's steps; the labels take 2

Parameters = dict[str, Tensor]


def parameters(index: Tensor, seed: int) -> Parameters:
    """Every number behind the images `index`: name -> float64 of shape (N,)."""
    u = counter_random.uniform((len(PARAMETERS),), seed=seed, index=index, step=_PARAMETER_STEP)
    return {name: low + (high - low) * u[:, k] for k, (name, (low, high)) in enumerate(PARAMETERS.items())}


def render(face: Face, index: Tensor, seed: int) -> Tensor:
    """Photographs of one face, a different one for every index: uint8 of shape (N, 3, 32, 32)."""
    p = {name: value.float()[:, None, None, None] for name, value in parameters(index, seed).items()}
    background, grain = _noise(p, index, seed)
    scene = _light(p, _paint(p, face, _background(p, background)))
    photograph = _blur(p, scene) + p["noise"] * grain
    return (photograph.clamp_(0, 1) * 255).round_().to(torch.uint8)


def _axis(points: int) -> Tensor:
    """Cell centres from -1 to 1."""
    return (torch.arange(points, dtype=torch.float32) + 0.5) * (2 / points) - 1


def _rgb(red: Tensor, green: Tensor, blue: Tensor) -> Tensor:
    return torch.cat([red, green, blue], dim=1)


def _noise(p: Parameters, index: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Smooth noise for the background and white noise for the camera, both (N, 3, 32, 32), of unit size."""
    sizes = [3 * cells * cells for cells in _GRIDS] + [3 * SIZE * SIZE]
    white = counter_random.bulk_normal((sum(sizes),), seed=seed, index=index, step=_NOISE_STEP)
    *octaves, grain = torch.split(white, sizes, dim=1)
    smooth, weight = torch.zeros(len(index), 3, SIZE, SIZE), torch.ones_like(p["rough"])
    for cells, octave in zip(_GRIDS, octaves, strict=True):
        grid = octave.reshape(-1, 3, cells, cells)
        grid = 0.9 * grid[:, :1] + 0.15 * grid  # mostly light and dark, some colour
        smooth += weight * F.interpolate(grid, size=(SIZE, SIZE), mode="bilinear", align_corners=False)
        weight = weight * p["octave_decay"]
    return smooth, grain.reshape(-1, 3, SIZE, SIZE)


def _background(p: Parameters, smooth: Tensor) -> Tensor:
    x, y = _axis(SIZE)[None, :], _axis(SIZE)[:, None]
    tone = p["back_tone"] * _rgb(1 + p["back_warmth"], 1 + p["back_green"], 1 - p["back_warmth"])
    beyond = x * p["edge_angle"].cos() + y * p["edge_angle"].sin() - p["edge_offset"]
    out = tone + p["edge_step"] * (beyond * SIZE / 2 + 0.5).clamp_(0, 1) + p["rough"] * smooth
    inside = ((p["post"] - (x - _centre(p, "shift_x")).abs()) * SIZE / 2 + 0.5).clamp_(0, 1)
    inside = inside * (y > _centre(p, "shift_y"))
    return out + inside * (p["post_tone"] - out)


def _centre(p: Parameters, shift: str) -> Tensor:
    # The sign may leave the frame by a tenth of the half image, as careless crops do.
    return p[shift] * (1.1 - p["scale"]) * 0.65


def _coordinates(p: Parameters) -> tuple[Tensor, Tensor]:
    """Where each sub-pixel looks on the sign's plane: two tensors (N, 4, 32, 32), one slice per sub-pixel."""
    fine = _axis(SIZE * _SUB).reshape(SIZE, _SUB).T  # [which sub-pixel, which pixel]
    grid, flat = (_SUB, _SUB, SIZE, SIZE), (1, _SUB * _SUB, SIZE, SIZE)
    x = fine[None, :, None, :].expand(grid).reshape(flat) - _centre(p, "shift_x")
    y = fine[:, None, :, None].expand(grid).reshape(flat) - _centre(p, "shift_y")
    cos, sin = p["rotation"].cos(), p["rotation"].sin()
    u = (x * cos + y * sin) / (p["scale"] * p["squeeze"])
    v = (y * cos - x * sin) / p["scale"]
    u = u + p["shear"] * v
    depth = 1 + p["perspective_x"] * u + p["perspective_y"] * v
    return u / depth, v / depth


def _paint(p: Parameters, face: Face, background: Tensor) -> Tensor:
    """The sign over its background. At an edge, a layer covers a sub-pixel as far as it reaches into it."""
    pixels_per_unit = p["scale"] * (SIZE * _SUB / 2)
    layers = face(*_coordinates(p))
    grey = 0.45 * torch.ones_like(p["fade"])
    tint = _rgb(p["tint_red"], p["tint_green"], p["tint_blue"])
    scene, uncovered = torch.zeros_like(background), torch.ones(())
    for distance, name in reversed(layers):
        opacity = (0.5 - distance * pixels_per_unit).clamp_(0, 1)
        colour = torch.tensor(COLOURS[name])[None, :, None, None]
        colour = colour + p["fade"] * (grey - colour) * 0.6 + tint
        scene += (opacity * uncovered).mean(dim=1, keepdim=True) * colour
        uncovered = uncovered * (1 - opacity)
    return scene + uncovered.mean(dim=1, keepdim=True) * background


def _light(p: Parameters, scene: Tensor) -> Tensor:
    x, y = _axis(SIZE)[None, :], _axis(SIZE)[:, None]
    slope = 1 + p["gradient"] * (x * p["gradient_angle"].cos() + y * p["gradient_angle"].sin())
    white_point = _rgb(1 + p["warmth"], torch.ones_like(p["warmth"]), 1 - p["warmth"])
    hazy = p["haze"] + p["contrast"] * (scene - p["haze"])
    return hazy * (p["gain"] * slope) * white_point


def _blur(p: Parameters, image: Tensor) -> Tensor:
    """A Gaussian of five taps, down the rows and then along them; the border repeats its last pixel."""
    near, far = torch.exp(-0.5 / p["blur"] ** 2), torch.exp(-2 / p["blur"] ** 2)
    total = 1 + 2 * near + 2 * far
    for axis in (2, 3):
        padded = F.pad(image, (0, 0, 2, 2) if axis == 2 else (2, 2, 0, 0), mode="replicate")
        tap = [padded.narrow(axis, k, SIZE) for k in range(5)]
        image = (tap[2] + near * (tap[1] + tap[3]) + far * (tap[0] + tap[4])) / total
    return image
