"""Too little memory on the device: smaller batches, and on."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import TypeVar

import torch

__all__ = ["Batch"]

T = TypeVar("T")


class Batch:
    """The number of images that travel to the device together; halved each time memory runs out."""

    def __init__(self, size: int) -> None:
        self.size = self.asked = size

    def run(self, work: Callable[[int], T]) -> T:
        """work(size), again with half the size while the device has too little memory for it."""
        while True:
            try:
                return work(self.size)
            except (RuntimeError, MemoryError) as error:
                if not _out_of_memory(error) or self.size == 1:
                    raise
            # Outside the handler: the exception's frames hold the tensors that have to go.
            self.size = max(1, self.size // 2)
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    @property
    def note(self) -> tuple[str, ...]:
        """Said once, in the report."""
        if self.size == self.asked:
            return ()
        return (f"memory: the device had too little for batches of {self.asked} images, so they were halved to "
                f"{self.size}. This library's attacks find the same in batches of any size; next time, "
                f"batch_size={self.size} saves the detour.",)


def _out_of_memory(error: Exception) -> bool:
    words = str(error).lower()
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "out of memory" in words or \
        "can't allocate memory" in words
