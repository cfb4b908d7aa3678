"""Adversarial images as they can be saved, kept on disk as they are found, so that memory holds few of them."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from robustness_lib.attacks import quantize
from robustness_lib.attacks.ensemble_steps import AttackStep
from robustness_lib.evaluation._data_parts import DataPart
from robustness_lib.inputs import ROUNDING
from robustness_lib.state import Chunks, fingerprint

__all__ = ["KeptImages"]


class KeptImages:
    """A folder with one file for each piece of work that broke anything; `reports.export` reads them. Like a state it
    belongs to one run: that of the same model, data and attacks may go on with it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._chunks: Chunks

    def open(self, header: dict[str, str], answers: Tensor | None) -> None:
        """Raises ValueError for the folder of another run."""
        self._chunks = Chunks(self.folder, header, answers)

    def keep(self, step: AttackStep, part: DataPart, rows: Tensor, x_adv: Tensor) -> None:
        """Put the adversarial images (m, ...) of the images at these places (m,) on the grid, and keep those that are
        adversarial there."""
        if len(rows) == 0:
            return
        x, y, _ = part.at(rows)
        grid = quantize(step.model, x, y, x_adv, step.threat, mode=step.mode, draws=step.named.draws)
        found = grid.success.cpu()
        pixels = x[grid.success].detach().cpu().double()
        clean = (pixels * 255).round()
        rounded = ((pixels - clean / 255).abs() > ROUNDING).flatten(1).any(1)
        self._chunks.write(
            f"{part.first:07d}+{len(part)}-{int(rows[0]):05d}-{fingerprint(step.name)[:12]}",
            {"attack": step.name, "digest": [part.digests[row] for row in rows[found].tolist()],
             "index": part.first + rows[found], "mistaken_for": grid.predicted.cpu()[found],
             "distance": grid.distance.cpu()[found], "clean": clean.to(torch.uint8).contiguous(),
             "rounded": rounded,
             "adversarial": grid.levels[grid.success].cpu().contiguous()})
