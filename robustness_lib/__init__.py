"""Attack, defend, certify: adversarial robustness you can run."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from robustness_lib.threat import ThreatModel

__all__ = ["ThreatModel"]
__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    # Loaded on first use, so that `python -m robustness_lib.doctor` can also run where torch cannot be imported.
    if name == "ThreatModel":
        from robustness_lib.threat import ThreatModel

        return ThreatModel
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
