"""Settings of torch that a learner's function may leave switched over, so that what comes after it suffers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["default_settings", "switch_back"]


@contextmanager
def default_settings() -> Iterator[None]:
    """Run the block with torch's settings as they are in a new kernel: gradients on, float32, the CPU. Afterwards they
    are what they were before."""
    before = torch.is_grad_enabled(), torch.get_default_dtype(), torch.get_default_device()
    switch_back()
    try:
        yield
    finally:
        switch_back(*before)


_CPU = torch.device("cpu")


def switch_back(gradients: bool = True, dtype: torch.dtype = torch.float32, device: torch.device = _CPU) -> None:
    """Set what is not so already."""
    torch.set_grad_enabled(gradients)
    if torch.get_default_dtype() != dtype:
        torch.set_default_dtype(dtype)
    if torch.get_default_device() != device:
        torch.set_default_device(device)
