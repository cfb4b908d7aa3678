"""Models: small nets, residual nets, nets of Lipschitz layers, one for ImageNet, adapters, and shipped weights."""

from robustness_lib.models.adapt import Normalize, as_classifier, find_logits
from robustness_lib.models.architectures import architecture, build
from robustness_lib.models.cnn import small_cnn, strided_cnn, tiny_cnn
from robustness_lib.models.efficientnet_lite import efficientnet_lite0, load_efficientnet_lite0
from robustness_lib.models.find import find_model, published_resizing, with_published_resizing
from robustness_lib.models.knobs import knob_cnn
from robustness_lib.models.lipschitz_layers import (
    GroupSort,
    Scale,
    almost_orthogonal,
    lipschitz_cnn,
    orthogonal_linear,
    with_plain_weights,
)
from robustness_lib.models.mlp import mlp
from robustness_lib.models.residual import preact_resnet18, wide_resnet
from robustness_lib.models.zoo import card, list_pretrained, load_pretrained, save_pretrained

__all__ = ["GroupSort", "Normalize", "Scale", "almost_orthogonal", "architecture", "as_classifier", "build", "card",
           "efficientnet_lite0", "find_logits", "find_model", "knob_cnn", "lipschitz_cnn", "list_pretrained",
           "load_efficientnet_lite0", "load_pretrained", "mlp", "orthogonal_linear", "preact_resnet18",
           "published_resizing", "save_pretrained", "small_cnn", "strided_cnn", "tiny_cnn", "wide_resnet",
           "with_plain_weights", "with_published_resizing"]
