"""Certificates: what no attack can change, proved."""

from robustness_lib.certify.certificates import ABSTAINED, Certificates
from robustness_lib.certify.smoothed_classifier import SmoothedClassifier
from robustness_lib.certify.smoothing import RandomizedSmoothing

__all__ = ["ABSTAINED", "Certificates", "RandomizedSmoothing", "SmoothedClassifier"]
