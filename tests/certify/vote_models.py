"""Classifiers whose votes under noise are known."""

import torch
from torch import nn


class Line(nn.Module):
    """Two classes, apart at w·x = b: the share of class 1 at x is Φ((w·x − b)/(σ‖w‖)), and the radius |w·x − b|/‖w‖ for
    every σ."""

    def __init__(self, w, b):
        super().__init__()
        self.w = nn.Parameter(torch.as_tensor(w, dtype=torch.float32))
        self.b = b

    def forward(self, x):
        margin = x.flatten(1) @ self.w - self.b
        return torch.stack((-margin, margin), dim=1)

    def radius(self, x):
        return ((x.flatten(1).double() @ self.w.detach().double() - self.b) / self.w.detach().double().norm()).abs()


def at_distance(line, distances):
    """Points (N, d) of the pixel box at these distances from the line, on the side of class 1."""
    w = line.w.detach().double()
    foot = torch.full_like(w, line.b / float(w.sum()))
    return (foot + torch.as_tensor(distances, dtype=torch.float64)[:, None] * w / w.norm()).float()
