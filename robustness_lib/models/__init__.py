"""Models: small nets, adapters, and shipped weights."""

from robustness_lib.models.adapt import Normalize, as_classifier, find_logits
from robustness_lib.models.architectures import architecture, build
from robustness_lib.models.cnn import small_cnn, strided_cnn, tiny_cnn
from robustness_lib.models.find import find_model, published_resizing, with_published_resizing
from robustness_lib.models.knobs import knob_cnn
from robustness_lib.models.mlp import mlp
from robustness_lib.models.zoo import card, list_pretrained, load_pretrained, save_pretrained

__all__ = ["Normalize", "architecture", "as_classifier", "build", "card", "find_logits", "find_model", "knob_cnn",
           "list_pretrained", "load_pretrained", "mlp", "published_resizing", "save_pretrained", "small_cnn",
           "strided_cnn", "tiny_cnn", "with_published_resizing"]
