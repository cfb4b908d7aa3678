"""The smallest recipe: an MLP on the moons, trained in a moment."""

from __future__ import annotations

from pathlib import Path

RECIPE = """
[model]
builder = "mlp"
widths = [2, 8, 2]
[data]
name = "moons"
validation = 50
[objective]
kind = "standard"
[fit]
"""


def write_moons_recipe(path: Path, **fit: int) -> None:
    """fit: settings of the training, such as its epochs."""
    path.write_text(RECIPE + "".join(f"{name} = {value}\n" for name, value in fit.items()), encoding="utf-8")
