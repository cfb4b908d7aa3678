"""Whether certificates are of a model that somebody gives."""

from __future__ import annotations

from robustness_lib.certify import Certificates
from robustness_lib.models.adapt import as_classifier
from robustness_lib.querying.frozen import Classifier
from robustness_lib.state import model_fingerprint

__all__ = ["HOW_TO_NAME_IT", "certified_of"]

HOW_TO_NAME_IT = ("For the certify.json of robustness certify, the model is find_model(...), or as_classifier(...), "
                  "with the mean, std and output of its command line. A setting of the model that moves with each "
                  "call, such as a counter, makes it another model, too: take it out")


def certified_of(certificates: Certificates, model: Classifier) -> bool:
    """The certificates are of this model, as it is or as `find_model` wraps it: where nothing is said about
    normalization and output, a model that returns logits answers alike in its wrapper."""
    return certificates.model == model_fingerprint(model) or \
        certificates.model == model_fingerprint(as_classifier(model))
