"""Evaluation: one call, one report, one gate."""

from robustness_lib.attacks.ensemble_run import Refused
from robustness_lib.diagnosis.masked_gradients import diagnose
from robustness_lib.evaluation.attack_certificates import AttackedCertificates, attack_certificates
from robustness_lib.evaluation.certification import Certification, certify_images, load_certificates
from robustness_lib.evaluation.certification_question import CertificationQuestion
from robustness_lib.evaluation.contradiction import Contradiction
from robustness_lib.evaluation.evaluate import evaluate
from robustness_lib.evaluation.suites import SUITES
from robustness_lib.reports import (
    Advice,
    AttackRecord,
    BoundRecord,
    ClassVerdict,
    Comparison,
    Curve,
    Examples,
    Failure,
    Finding,
    GateVerdict,
    Picture,
    Report,
    advice,
    compare,
    gate,
    save_page,
)

__all__ = ["SUITES", "Advice", "AttackRecord", "AttackedCertificates", "BoundRecord", "Certification",
           "CertificationQuestion", "ClassVerdict", "Comparison", "Contradiction", "Curve", "Examples", "Failure",
           "Finding", "GateVerdict", "Picture", "Refused", "Report", "advice", "attack_certificates", "certify_images",
           "compare", "diagnose", "evaluate", "gate", "load_certificates", "save_page"]
