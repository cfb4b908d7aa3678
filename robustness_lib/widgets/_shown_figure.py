"""A figure that a notebook draws as the value of a cell, whether or not pyplot was imported."""

from __future__ import annotations

import io

from matplotlib.figure import Figure

__all__ = ["ShownFigure"]


class ShownFigure(Figure):
    """Matplotlib's figure, which says of itself what it looks like."""

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        self.savefig(file, format="png")
        return file.getvalue()
