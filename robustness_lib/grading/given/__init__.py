"""Steps that are done already, on which later steps of an exercise can be built, so that one mistake costs one step."""

from robustness_lib.grading.given import (
    break_the_defence,
    certified_accuracy,
    fgsm_first_steps,
    ibp_by_hand,
    intervals_of_a_layer,
    intervals_of_a_net,
    pgd_and_restarts,
    square_attack,
    trades_vs_pgd,
)

__all__ = ["break_the_defence", "certified_accuracy", "fgsm_first_steps", "ibp_by_hand", "intervals_of_a_layer",
           "intervals_of_a_net", "pgd_and_restarts", "square_attack", "trades_vs_pgd"]
