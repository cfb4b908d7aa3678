"""What the Square attack tries: the windows, and what it puts there."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor

from robustness_lib.attacks._search import Run
from robustness_lib.attacks._windows import Windows, as_images, memory, write
from robustness_lib.counter_random import bits
from robustness_lib.shapes import per_example, rows

__all__ = ["L2Squares", "LinfSquares", "Squares", "l2_sides", "linf_sides"]

_TINY = 1e-24  # keeps quotients of squared lengths finite
_BLOCK = 64  # queries for which random numbers are drawn at once: a draw costs many small kernels, however few numbers


class Squares(ABC):
    """What the attack tries next, for the examples of a run. Built anew when examples leave.

    The points tried lie in buffers that are used again: a fresh one for each query costs more than to fill it.
    """

    _numbers: int  # random numbers per query, besides a sign per channel

    def __init__(self, run: Run, seed: int) -> None:
        self.run, self.seed = run, seed
        self.index = run.index.to(run.x.device)  # the hash is exact on every device
        self.x = torch.empty_like(run.best).copy_(run.x)  # places in memory must mean the same in both
        self.pixels, self.windows = memory(run.best), Windows(run.best)
        self.reach = run.search.threat.reach(run.x)
        self._block = -1

    @abstractmethod
    def start(self) -> Tensor:
        """(N, ...), in the order that the model wants."""

    @abstractmethod
    def _change(self, draw: Tensor, coins: Tensor, share: float) -> Tensor:
        """Points to try, the best ones with windows changed that cover `share` of the pixels: (N, ...), in a buffer
        of its own or in `run.best` itself. draw: random bits (numbers + C, N). coins: their signs, fair coins."""

    @abstractmethod
    def _settle(self, better: Tensor) -> None:
        """Make `run.best` what was tried where that is better, (N,) bool, and what it was elsewhere."""

    def ask(self, step: int, share: float) -> None:
        """Spend one query on changes to the best points, and keep those that raise the loss."""
        run = self.run
        block, place = divmod(step, _BLOCK)
        if block != self._block:
            self._begin(block)
        if run.search.queried.random:
            with run.search.queried.draws_again(self.x):  # by the points to try
                run.ask_again()
        x_adv = self._change(self._draws[place], self._coins[place], share)
        logits = run.search.queried.logits(x_adv)
        loss = run.goal.value(logits)
        better, success = run.weigh(x_adv, loss, logits)
        if run.search.observer is not None:
            run.show(step, x_adv.clone(), loss, success)
        self._settle(better)

    def _begin(self, block: int) -> None:
        """Random numbers for the next queries."""
        shape = (_BLOCK, self._numbers + self.windows.channels)
        draws = bits(shape, seed=self.seed, index=self.index, step=1 + block)
        self._block, self._draws = block, draws.permute(1, 2, 0).contiguous()
        self._coins = self._draws < 0

    def _toss(self, shape: tuple[int, ...]) -> Tensor:
        """Fair coins for the start: (N, *shape) bool."""
        return bits(shape, seed=self.seed, index=self.index) < 0

    def _arrange(self, images: Tensor) -> Tensor:
        return self.run.search.queried.layout.arrange(images.reshape(self.x.shape))


class LinfSquares(Squares):
    """A window is tried out on the best points themselves, and taken back where it did no good: most windows are
    small, and whole images are then never copied."""

    _numbers = 1

    def __init__(self, run: Run, seed: int) -> None:
        super().__init__(run, seed)
        self.low, self.high = (self.x - self.reach).clamp_(min=0), (self.x + self.reach).clamp_(max=1)

    def start(self) -> Tensor:
        """Vertical stripes: one sign per channel and column."""
        up = self._toss((self.windows.channels, 1, self.windows.width))
        return self._arrange(torch.where(up, as_images(self.high), as_images(self.low)))

    def _change(self, draw: Tensor, coins: Tensor, share: float) -> Tensor:
        window = self.windows.at(draw[0], *linf_sides(share, self.windows.height, self.windows.width))
        low, high = memory(self.low).take(window), memory(self.high).take(window)
        up, before = coins[1:], self.pixels.take(window)
        # A window that holds these values already would waste the query: it gets the opposite signs.
        unchanged = (torch.where(up, high, low) == before).flatten(0, 1).all(0)
        after = torch.where(up ^ unchanged, high, low)
        write(self.pixels, window, after)
        self._tried = window, before, after
        return self.run.best

    def _settle(self, better: Tensor) -> None:
        window, before, after = self._tried
        write(self.pixels, window, torch.where(better, after, before))


class L2Squares(Squares):
    """The change has length ε at first. Each channel of a new window gets what both windows held in all channels, and
    its share of what the box has cut off; then the whole change shrinks back to length ε. (So it is done in
    AutoAttack. To give each channel only what it held itself takes more queries on three channels.)"""

    _numbers = 3

    def __init__(self, run: Run, seed: int) -> None:
        super().__init__(run, seed)
        self.x_pixels, self._tried = memory(self.x), torch.empty_like(run.best)
        self._noise = (1e-5 * self.reach) ** 2 + _TINY  # what is left of a shorter change has no direction to keep
        self._known: dict[tuple[int, int], Tensor] = {}

    def start(self) -> Tensor:
        """A grid of bumps, five along the shorter side, each with its own signs and orientation."""
        images = as_images(self.x)
        height, width = images.shape[2:]
        side = max(1, min(height, width) // 5)
        down, across = height // side, width // side
        coins = self._toss((self.windows.channels + 1, down, across, 1, 1))
        upright, lying = (bump.reshape(side, side) for bump in _bumps(side, side, images))
        tiles = torch.where(coins[:, -1:], upright, lying)
        tiles = torch.where(coins[:, :-1], tiles, -tiles)  # (N, C, down, across, side, side)
        delta = torch.zeros_like(images)
        top, left = (height - down * side) // 2, (width - across * side) // 2
        delta[:, :, top:top + down * side, left:left + across * side] = tiles.transpose(3, 4).flatten(4).flatten(2, 3)
        scale = self.reach / delta.flatten(1).norm(dim=1)
        return self._arrange((images + delta * per_example(scale, images)).clamp_(0, 1))

    def _begin(self, block: int) -> None:
        super()._begin(block)
        self._used = rows(self.run.best - self.x, self.x).square().sum(1)  # afresh; counted on from query to query

    def _change(self, draw: Tensor, coins: Tensor, share: float) -> Tensor:
        """Move what the change holds in one window into another, along a random bump added to what is there."""
        size = l2_sides(share, self.windows.height, self.windows.width)
        to, source = self.windows.at(draw[0], *size), self.windows.at(draw[1], *size)
        x_to, x_source = self.x_pixels.take(to), self.x_pixels.take(source)
        before = self.pixels.take(to)
        write(self.pixels, to, x_to)
        moved = _squared(self.pixels.take(source) - x_source)  # what both windows share counts once, as `old`
        write(self.pixels, to, before)
        old = before - x_to
        old_squared = _squared(old)
        inside = (old_squared + moved).sum(0)  # (N,)
        outside = (self._used - inside).clamp_(min=0)
        # A millionth less: the root of a rounding error is no rounding error.
        wanted = inside + (self.reach**2 * (1 - 1e-6) - self._used).clamp_(min=0) / self.windows.channels
        shrink = (self.reach / (outside + self.windows.channels * wanted + _TINY).sqrt_()).clamp_(max=1)
        new = torch.addcmul(self._bump(coins, size), old, (old_squared + self._noise).rsqrt_())
        after = torch.addcmul(x_to, new, (wanted / (_squared(new) + _TINY)).sqrt_().mul_(shrink)).clamp_(0, 1)
        torch.lerp(self.x, self.run.best, per_example(shrink, self.x), out=self._tried)
        pixels = memory(self._tried)
        write(pixels, source, x_source)
        write(pixels, to, after)
        self._used_then = outside * shrink.square() + _squared(after - x_to).sum(0)
        return self._tried

    def _bump(self, coins: Tensor, size: tuple[int, int]) -> Tensor:
        """A bump per channel, of random orientation (per image) and sign: (P, C, N)."""
        if size not in self._known:
            self._known[size] = torch.stack(_bumps(*size, self.x))[:, :, None, None]
        upright, lying = self._known[size]
        bump = torch.where(coins[2], upright, lying)
        return torch.where(coins[3:], bump, -bump)

    def _settle(self, better: Tensor) -> None:
        weight = per_example(better.to(self.x.dtype), self.x)  # with weights 0 and 1, exact and faster than `where`
        self.run.best.lerp_(self._tried, weight)
        self._used = torch.where(better, self._used_then, self._used)


def _squared(delta: Tensor) -> Tensor:
    """Squared length of the change in each window and channel: (P, C, N) to (C, N)."""
    return delta.square().sum(0)


def linf_sides(share: float, height: int, width: int) -> tuple[int, int]:
    """A square of this share of the pixels; where the image is too narrow for it, as long as it must be."""
    side = max(1, round(math.sqrt(share * height * width)))
    if side > height:
        return height, max(1, round(share * width))
    if side > width:
        return max(1, round(share * height)), width
    return side, side


def l2_sides(share: float, height: int, width: int) -> tuple[int, int]:
    """The same with odd sides of at least 3, so that the bump has a middle; limited to the image."""
    down, across = (max(3, side + (side % 2 == 0)) for side in linf_sides(share, height, width))
    return min(down, height), min(across, width)


def _bumps(height: int, width: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Two pyramids of opposite sign, one beside the other, in either orientation: (height·width,) each, of length 1."""
    upright = torch.cat([_pyramid(height // 2, width, like), -_pyramid(height - height // 2, width, like)])
    lying = torch.cat([_pyramid(width // 2, height, like), -_pyramid(width - width // 2, height, like)])
    return F.normalize(upright.flatten(), dim=0), F.normalize(lying.T.flatten(), dim=0)


def _pyramid(height: int, width: int, like: Tensor) -> Tensor:
    """(height, width), of length 1: at ring r around the middle, Σ over k > r of 1/k², k up to the outermost ring."""
    down, across = ((torch.arange(count, device=like.device) - count // 2).abs() for count in (height, width))
    rings = torch.arange(1, max(height, width) // 2 + 2, dtype=like.dtype, device=like.device)
    sums = rings.square().reciprocal().flip(0).cumsum(0).flip(0)
    return F.normalize(sums[torch.maximum(down[:, None], across)].flatten(), dim=0).reshape(height, width)
