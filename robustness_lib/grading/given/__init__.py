"""Steps that are done already, on which later steps of an exercise can be built, so that one mistake costs one step."""

from robustness_lib.grading.given import break_the_defense, square_attack

__all__ = ["break_the_defense", "square_attack"]
