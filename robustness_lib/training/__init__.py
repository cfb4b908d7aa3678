"""Training: objectives, one trainer, recipes."""

from robustness_lib.training.augment import AUGMENTATIONS, Augmentation, Flip, Shift
from robustness_lib.training.bound_initialization import initialize_for_bounds
from robustness_lib.training.bound_objectives import IBP, CrownIBP
from robustness_lib.training.fit import Diverged, fit
from robustness_lib.training.history import Epoch, History
from robustness_lib.training.lipschitz_objective import LipschitzMargin
from robustness_lib.training.objectives import (
    TRADES,
    FastFGSM,
    GaussianAugmentation,
    Objective,
    PGDTraining,
    SmoothAdversarial,
    Standard,
    bare,
)
from robustness_lib.training.recipe import Recipe, list_recipes, read_recipe
from robustness_lib.training.schedules import OneCycle, Piecewise
from robustness_lib.training.validation import collapse

__all__ = ["AUGMENTATIONS", "IBP", "TRADES", "Augmentation", "CrownIBP", "Diverged", "Epoch", "FastFGSM", "Flip",
           "GaussianAugmentation", "History", "LipschitzMargin", "Objective", "OneCycle", "PGDTraining", "Piecewise",
           "Recipe", "Shift", "SmoothAdversarial", "Standard", "bare", "collapse", "fit", "initialize_for_bounds",
           "list_recipes", "read_recipe"]
