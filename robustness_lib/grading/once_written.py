"""Cells of an exercise that need what the learner has not written yet."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["once_written"]


@contextmanager
def once_written(what: str) -> Iterator[None]:
    """Run the block; where it cannot run yet, say so and go on.

    Args:
        what: what the block shows, as the sentence "… comes when the steps above are written" begins. "The picture"
    """
    try:
        yield
    except NotImplementedError:
        print(f"{what} comes when the steps above are written.")
    except Exception as error:  # whatever a step of the learner's raises: the notebook goes on
        print(f"{what} cannot be shown: {type(error).__name__}: {error}")
