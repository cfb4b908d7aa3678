"""What the exercises' checks are made of, and the checks of each exercise.

    from robustness_lib.grading import square_attack as checks
    checks.accept(mine)                # prints what it found, and returns the points

Each exercise has a folder, which hands on all that a notebook calls. There `variants.py` says what the exercise is
about; the checks stand in files by theme; `picture.py`, where there is one, makes what the last cell draws; what is
left are models and walks that the checks compare with. `given/` has the steps that are done already, for learners. The
files beside the folders are what several exercises use: `steps.py`, a check and its points, is where to begin.
"""

from robustness_lib.grading import (
    break_the_defence,
    certified_accuracy,
    fgsm_first_steps,
    ibp_by_hand,
    pgd_and_restarts,
    square_attack,
    trades_vs_pgd,
)
from robustness_lib.grading.observations import Observation, Points, need, wrong
from robustness_lib.grading.once_written import once_written
from robustness_lib.grading.score_card import ScoreCard, score_card
from robustness_lib.grading.steps import GradedStep, marks_so_far, step

__all__ = ["GradedStep", "Observation", "Points", "ScoreCard", "break_the_defence", "certified_accuracy",
           "fgsm_first_steps", "ibp_by_hand", "marks_so_far", "need", "once_written", "pgd_and_restarts", "score_card",
           "square_attack", "step", "trades_vs_pgd", "wrong"]
