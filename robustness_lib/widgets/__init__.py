"""Things that move: a slider over ε, and an attack and a certificate that run in the page itself."""

from robustness_lib.widgets.defense_slider import Defended, defense_slider
from robustness_lib.widgets.epsilon_frames import Frame, epsilon_frames
from robustness_lib.widgets.epsilon_slider import epsilon_slider
from robustness_lib.widgets.epsilon_strip import epsilon_strip
from robustness_lib.widgets.intervals_strip import intervals_strip
from robustness_lib.widgets.live_attack import LiveAttack, live_attack
from robustness_lib.widgets.live_intervals import LiveIntervals, live_intervals
from robustness_lib.widgets.picture_slider import picture_slider
from robustness_lib.widgets.smoothing_strip import smoothing_strip
from robustness_lib.widgets.smoothing_votes import SmoothingVotes, smoothing_votes

__all__ = ["Defended", "Frame", "LiveAttack", "LiveIntervals", "SmoothingVotes", "defense_slider", "epsilon_frames",
           "epsilon_slider", "epsilon_strip", "intervals_strip", "live_attack", "live_intervals", "picture_slider",
           "smoothing_strip", "smoothing_votes"]
