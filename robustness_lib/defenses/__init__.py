"""Preprocessing defenses: each a module that wraps a model, and changes the image before the model sees it."""

from robustness_lib.defenses.bit_depth import BitDepth
from robustness_lib.defenses.defense import Defense
from robustness_lib.defenses.detector import FeatureSqueezing
from robustness_lib.defenses.jpeg import JPEG, DifferentiableJPEG
from robustness_lib.defenses.noise import GaussianNoise
from robustness_lib.defenses.resize_pad import ResizePad
from robustness_lib.defenses.smoothing import GaussianSmoothing, MeanSmoothing, MedianSmoothing

__all__ = ["JPEG", "BitDepth", "Defense", "DifferentiableJPEG", "FeatureSqueezing", "GaussianNoise",
           "GaussianSmoothing", "MeanSmoothing", "MedianSmoothing", "ResizePad"]
