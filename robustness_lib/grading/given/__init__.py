"""Steps that are done already, on which later steps of an exercise can be built, so that one mistake costs one step."""

from robustness_lib.grading.given import (
    break_the_defense,
    ibp_by_hand,
    intervals_of_a_layer,
    intervals_of_a_net,
    square_attack,
)

__all__ = ["break_the_defense", "ibp_by_hand", "intervals_of_a_layer", "intervals_of_a_net", "square_attack"]
