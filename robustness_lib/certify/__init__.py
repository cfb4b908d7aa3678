"""Certificates: what no attack can change, proved."""

from robustness_lib.certify.certificates import ABSTAINED, Certificates
from robustness_lib.certify.crown import crown_bounds, crown_margins
from robustness_lib.certify.interval_bounds import interval_bounds, interval_margins
from robustness_lib.certify.lipschitz import (
    LipschitzBound,
    LipschitzCertificates,
    certify_lipschitz,
    lipschitz_bound,
    lipschitz_radius,
)
from robustness_lib.certify.operation import UnknownOperation
from robustness_lib.certify.smoothed_classifier import SmoothedClassifier
from robustness_lib.certify.smoothing import RandomizedSmoothing
from robustness_lib.certify.traced_network import trace
from robustness_lib.certify.verification import Verification
from robustness_lib.certify.verify import verify

__all__ = ["ABSTAINED", "Certificates", "LipschitzBound", "LipschitzCertificates", "RandomizedSmoothing",
           "SmoothedClassifier", "UnknownOperation", "Verification", "certify_lipschitz", "crown_bounds",
           "crown_margins", "interval_bounds", "interval_margins", "lipschitz_bound", "lipschitz_radius", "trace",
           "verify"]
