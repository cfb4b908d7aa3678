"""The drawn signs, kept on disk: drawn once, then read."""

from __future__ import annotations

import hashlib
import inspect
import warnings
from functools import cache

import numpy as np
import numpy.typing as npt

from robustness_lib import counter_random
from robustness_lib.data import _shapes, _sign_faces, _sign_scene, signs
from robustness_lib.data._files import cache_folder, read_npz, write_npz

_FEW = 1_000  # up to so many are drawn on demand when nothing is cached: a second's work


def load(split: str, n: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """The first n images of a split, from the cache if they are there. A few are drawn without filling it."""
    path = cache_folder() / f"signs-{split}-{_version()}.npz"
    if path.exists():
        try:
            kept = read_npz(path, ("images", "labels"))
            if len(kept["labels"]) == signs.SIZES[split]:
                return kept["images"][:n], kept["labels"][:n]
        except ValueError:
            pass  # a damaged copy of what can be drawn again
    images, labels = signs.draw_uint8(n if n <= _FEW else signs.SIZES[split], seed=signs.SEEDS[split])
    if n > _FEW:
        try:
            write_npz(path, {"images": images, "labels": labels})
        except OSError as error:
            warnings.warn(f"the drawn signs could not be kept in {path.parent} ({error}): "
                          f"they will be drawn again next time. Set ROBUSTNESS_CACHE to a folder that can be "
                          f"written to.", stacklevel=3)
    return images[:n], labels[:n]


@cache
def _version() -> str:
    """A digest of the code that draws: pictures drawn by other code are never mistaken for these."""
    digest = hashlib.sha256()
    for module in (counter_random, _shapes, _sign_faces, _sign_scene, signs):
        digest.update(inspect.getsource(module).encode())
    return digest.hexdigest()[:12]
