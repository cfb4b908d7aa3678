"""Interval bound propagation through linear layers and ReLU (Gowal et al. 2018, arXiv 1810.12715)."""

from robustness_lib.grading.given.intervals_of_a_layer import through_linear, through_rising
from robustness_lib.grading.given.intervals_of_a_net import box

__all__ = ["box", "through_linear", "through_rising"]
