"""How many images travel to the device together: what fits its caches, and less where memory runs out."""

from __future__ import annotations

import gc

import torch
from torch import Tensor

from robustness_lib.querying.warnings import AttackWarning

__all__ = ["ShrinkingBatchSize", "cut", "default_batch_size", "out_of_memory"]

# Pixel values in a batch on the CPU: activations of much more fall out of the caches. On `signs-pgd`, 400 images of
# 3×32×32 took about a fifth less time in parts of 128 than at once (one machine, one thread).
_CACHE_VALUES = 400_000


def default_batch_size(x: Tensor, device: torch.device) -> int:
    """Images (N, ...) that travel to this device together: on a CPU as many as its caches hold."""
    return max(32, _CACHE_VALUES // max(1, x.shape[1:].numel())) if device.type == "cpu" else 250


def cut(n: int, size: int) -> list[slice]:
    """Where batches of `size` lie in n images. Where one image would be left alone, it and the batch before are
    halved (of batches of two, joined): some models fail on one alone, and whoever asked for more has not tried it."""
    ends = [*range(size, n, size), n] if n else []
    if size > 1 and len(ends) > 1 and ends[-1] - ends[-2] == 1:
        ends[-2:] = [n - (size + 1) // 2, n] if size > 2 else [n]
    return [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]


def out_of_memory(error: Exception) -> bool:
    """Did the device have too little?"""
    words = str(error).lower()
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "out of memory" in words or \
        "can't allocate memory" in words


class ShrinkingBatchSize:
    """The number of images that travel to the device together: `now`, halved each time memory runs out. fixed: never,
    since images would meet other neighbours, on whom the model's answers depend."""

    def __init__(self, asked: int, *, fixed: bool = False) -> None:
        self.now = self.asked = asked
        self.fixed = fixed

    def can_shrink(self, error: Exception) -> bool:
        """Whether half as many may do: the device had too little memory, and there is more than one image."""
        return out_of_memory(error) and self.now > 1 and not self.fixed

    def shrink(self) -> None:
        """To be called outside the handler of the exception, whose frames hold the tensors that have to go."""
        self.now = max(1, self.now // 2)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    @property
    def warnings(self) -> tuple[AttackWarning, ...]:
        """Said once, at the end."""
        if self.now == self.asked:
            return ()
        return (AttackWarning("memory", (
            f"the device had too little for batches of {self.asked} images, so they were halved to {self.now}. This "
            f"library's attacks find the same in batches of any size; next time, batch_size={self.now} saves the "
            f"detour.")),)
