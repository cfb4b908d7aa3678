"""Is a share above a given value? Bets that may be looked at after every draw, and stopped whenever they decide.

Whoever bets against "the share is at most p" at fair odds cannot expect to gain if that is true: with probability
1 − α his wealth never reaches 1/α, however long he plays and by whatever rule he stops (Ville 1939). Wealth here is the
likelihood of the draws, averaged over shares above p, divided by their likelihood at p. The average is over Jeffreys'
prior, Beta(½, ½), restricted to (p, 1] and normalized there: what is put on shares below p would be lost money.
(Voráček 2024, arXiv 2406.17830, certifies by betting; Robbins 1970 tests by mixtures of likelihoods.)
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betainc, betaln, xlog1py, xlogy

__all__ = ["log_wealth_above", "log_wealth_below", "shown"]

_HALF = 0.5  # both parameters of Jeffreys' prior


def log_wealth_above(hits: ArrayLike, draws: ArrayLike, share: float) -> NDArray[np.float64]:
    """The logarithm of what one unit has become that was bet against "hits have a probability of at most `share`".

    hits, draws: counts, of one shape. share: in (0, 1). −∞ where the draws lie so far below that nothing is left.
    """
    h = np.asarray(hits, dtype=np.float64)
    misses = np.asarray(draws, dtype=np.float64) - h
    a, b = h + _HALF, misses + _HALF
    with np.errstate(divide="ignore"):  # log 0: nothing left
        mixture = betaln(a, b) + np.log(betainc(b, a, 1 - share))
    prior = betaln(_HALF, _HALF) + math.log(betainc(_HALF, _HALF, 1 - share))
    wealth: NDArray[np.float64] = mixture - prior - xlogy(h, share) - xlog1py(misses, -share)
    return wealth


def log_wealth_below(hits: ArrayLike, draws: ArrayLike, share: float) -> NDArray[np.float64]:
    """The same of a bet against "at least `share`": on the misses."""
    return log_wealth_above(np.asarray(draws) - np.asarray(hits), draws, 1 - share)


def shown(log_wealth: NDArray[np.float64], alpha: float) -> NDArray[np.bool_]:
    """What was bet against is wrong, up to a probability of alpha that this is ever said of something true."""
    return log_wealth >= math.log(1 / alpha)
