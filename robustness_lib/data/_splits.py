"""Which training images are held out for validation: that depends on nothing but their places in the set."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from robustness_lib import counter_random

_SEED = 20_262_000
_SHARE = 0.1


def held_out(labels: npt.NDArray[np.int64],
             groups: npt.NDArray[np.int64] | None = None) -> npt.NDArray[np.bool_]:
    """True for a tenth of every class, to the nearest whole number, at least one: (N,).

    With `groups` (one number per image; a group has one class), whole groups are held out: frames of one
    approach to one sign are near copies, and must not lie on both sides.
    """
    units, first, unit_of = np.unique(np.arange(len(labels)) if groups is None else groups,
                                      return_index=True, return_inverse=True)
    order = _hash(units)
    chosen = np.zeros(len(units), dtype=np.bool_)
    for label in np.unique(labels):
        mine = np.flatnonzero(labels[first] == label)
        count = max(1, round(_SHARE * len(mine)))
        chosen[mine[np.argsort(order[mine])[:count]]] = True
    return chosen[unit_of]


def shuffled(index: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The same numbers in a fixed disorder."""
    return index[np.argsort(_hash(index, step=1))]


def _hash(index: npt.NDArray[np.int64], step: int = 0) -> npt.NDArray[np.float64]:
    numbers: npt.NDArray[np.float64] = counter_random.uniform(
        (), seed=_SEED, index=torch.from_numpy(index), step=step).numpy()
    return numbers
