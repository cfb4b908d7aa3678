"""A team: an error in one process is an error in all. (With real processes: evaluation/ and training/.)"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from robustness_lib.distributed import Team


@dataclass(frozen=True)
class Together(Team):
    """A process among others, who say what they say whatever this one does."""

    size: int = 2
    others: tuple[Any, ...] = (None,)
    told: list[Any] = field(default_factory=list)

    def gather(self, mine: Any) -> list[Any]:
        self.told.append(mine)
        return [mine, *self.others]


def test_who_raises_tells_the_others() -> None:
    team = Together()
    with pytest.raises(KeyError, match="lost"), team.together():
        raise KeyError("lost")
    assert team.told == ["KeyError: 'lost'"]


def test_who_is_told_raises_too() -> None:
    team = Together(size=3, others=(None, "KeyError: 'lost'"))
    with pytest.raises(RuntimeError, match="another process stopped: KeyError: 'lost'"), team.together():
        pass
    assert team.told == [None]


def test_where_nobody_raises_all_go_on() -> None:
    team, done = Together(), []
    with team.together():
        done.append(1)
    assert done == [1]
    assert team.told == [None]


def test_each_part_is_one_process_s() -> None:
    owners = [[rank for rank in range(3) if Team(rank, 3).mine(number)] for number in range(7)]
    assert owners == [[0], [1], [2], [0], [1], [2], [0]]
