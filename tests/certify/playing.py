"""A stopping rule, played on simulated votes whose shares are known."""

import numpy as np


def play(rule, shares, seed):
    """The radii proved (−1 for none), draws taken, and the votes among the rule's last number of draws, (N,) each: the
    same draws go on, so that a rule of one look may be held against it."""
    rng = np.random.default_rng(seed)
    votes, radius = np.zeros(len(shares), dtype=np.int64), np.full(len(shares), -1.0)
    draws, playing, before = np.zeros(len(shares), dtype=np.int64), np.arange(len(shares)), 0
    for look in rule.looks:
        votes[playing] += rng.binomial(look - before, shares[playing])
        proved, proven, done = rule.judge(votes[playing], look)
        radius[playing] = np.where(proved, proven, -1)
        draws[playing], before = look, look
        playing = playing[~done]
        if len(playing) == 0:
            break
    return radius, draws, votes + rng.binomial(rule.looks[-1] - draws, shares)
