"""Evaluation: one call, one report, one gate."""

from robustness_lib.evaluation._part_run import Contradiction
from robustness_lib.evaluation._trial import Refused
from robustness_lib.evaluation.compare import Comparison, compare
from robustness_lib.evaluation.diagnose import diagnose
from robustness_lib.evaluation.evaluate import evaluate
from robustness_lib.evaluation.findings import Finding
from robustness_lib.evaluation.gate import GateVerdict, gate
from robustness_lib.evaluation.page import save_page
from robustness_lib.evaluation.report import (
    AttackRecord,
    ClassVerdict,
    Curve,
    Examples,
    Failure,
    Picture,
    Report,
)
from robustness_lib.evaluation.steps import Step, steps
from robustness_lib.evaluation.suites import SUITES

__all__ = ["SUITES", "AttackRecord", "ClassVerdict", "Comparison", "Contradiction", "Curve", "Examples", "Failure",
           "Finding", "GateVerdict", "Picture", "Refused", "Report", "Step", "compare", "diagnose", "evaluate", "gate",
           "save_page", "steps"]
