"""Diagnosis: signs of masked gradients, and what kind of model and input this is."""

from robustness_lib.diagnosis.inspect_model import Inspection, inspect_model
from robustness_lib.diagnosis.masked_gradients import diagnose

__all__ = ["Inspection", "diagnose", "inspect_model"]
