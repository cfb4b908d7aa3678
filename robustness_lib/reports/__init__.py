"""Reports: what an evaluation found, as data; read, compared, gated and tracked without an attack and without torch."""

from robustness_lib.reports.advice import Advice, advice
from robustness_lib.reports.compare import Comparison, compare
from robustness_lib.reports.findings import Finding
from robustness_lib.reports.gate import GateVerdict, gate
from robustness_lib.reports.page import save_page
from robustness_lib.reports.report import (
    AttackRecord,
    BoundRecord,
    ClassVerdict,
    Curve,
    Examples,
    Failure,
    Picture,
    Report,
)
from robustness_lib.reports.track import track

__all__ = ["Advice", "AttackRecord", "BoundRecord", "ClassVerdict", "Comparison", "Curve", "Examples", "Failure",
           "Finding", "GateVerdict", "Picture", "Report", "advice", "compare", "gate", "save_page", "track"]
