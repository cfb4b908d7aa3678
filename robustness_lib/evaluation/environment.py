"""What a reader needs to do it again: versions, device, precision, seed, date."""

from __future__ import annotations

import platform
from datetime import UTC, datetime
from importlib import metadata

import numpy as np
import torch

import robustness_lib
from robustness_lib.attacks.adaptive import EOT
from robustness_lib.querying.frozen import Classifier, Mode
from robustness_lib.querying.queried_model import QueriedModel

__all__ = ["environment"]


def environment(model: Classifier, dtype: torch.dtype, seed: int, mode: Mode = "eval",
                processes: int = 1) -> dict[str, str]:
    """Versions, device, precision of the images, seed, mode, number of processes and the date."""
    device = QueriedModel(model).device(torch.empty(0))
    drawn = {"answers": f"of {model.samples} draws each, decided by {model.decision}"} if isinstance(model, EOT) else {}
    return drawn | {
        "robustness_lib": robustness_lib.__version__, "torch": torch.__version__,
        "torchvision": metadata.version("torchvision"), "numpy": np.__version__, "python": platform.python_version(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "precision": f"{str(dtype).removeprefix('torch.')} images, TF32 and autocast off", "seed": str(seed),
        "mode": mode, "processes": str(processes),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
