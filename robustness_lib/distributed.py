"""Several processes share one evaluation or one training: each does its part, and all end with the same result.

Started by `torchrun`, they find each other through PyTorch's own process group (nccl with CUDA devices, else gloo).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

__all__ = ["Team", "team_from_environment"]


@dataclass(frozen=True)
class Team:
    """rank: this process's number. size: how many there are."""

    rank: int = 0
    size: int = 1

    @classmethod
    def now(cls) -> Team:
        """The default process group, or just this process."""
        return cls(dist.get_rank(), dist.get_world_size()) if dist.is_available() and dist.is_initialized() else cls()

    def mine(self, number: int) -> bool:
        return number % self.size == self.rank

    def gather(self, mine: Any) -> list[Any]:
        """What each process has, in order of rank, for all of them."""
        if self.size == 1:
            return [mine]
        everyone: list[Any] = [None] * self.size
        dist.all_gather_object(everyone, mine)
        return everyone

    @contextmanager
    def together(self) -> Iterator[None]:
        """Work that every process does. Where it raises in one, all raise: none waits for what will not come."""
        error: Exception | None = None
        try:
            yield
        except Exception as raised:
            error = raised
        said = self.gather(None if error is None else f"{type(error).__name__}: {error}")
        if error is not None:
            raise error
        if others := [words for words in said if words]:
            raise RuntimeError(f"another process stopped: {others[0]}")


@contextmanager
def team_from_environment() -> Iterator[Team]:
    """The process group that `torchrun` describes in the environment, joined and left; alone without one."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or dist.is_initialized():
        yield Team.now()
        return
    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
        backend = "cpu:gloo,cuda:nccl"
    dist.init_process_group(backend)
    try:
        yield Team.now()
    finally:
        dist.destroy_process_group()
