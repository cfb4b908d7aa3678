"""Attack, defend, certify: adversarial robustness you can run."""

from robustness_lib.threat import ThreatModel

__all__ = ["ThreatModel"]
__version__ = "0.1.0"
