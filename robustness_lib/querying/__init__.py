"""The model under attack: held as it is, asked for logits and gradients, counted, confirmed in full precision."""

from robustness_lib.precision import full_precision
from robustness_lib.querying.batch_size import ShrinkingBatchSize, cut, default_batch_size
from robustness_lib.querying.channels_last import ChannelsLast
from robustness_lib.querying.confirm_predictions import confirm_predictions, predict_logits, predict_logits_per_draw
from robustness_lib.querying.first_look import FirstLook, first_look
from robustness_lib.querying.frozen import Classifier, Mode, answers_by_batch, frozen
from robustness_lib.querying.queried_model import NoGradient, QueriedModel, input_gradient
from robustness_lib.querying.warnings import AttackWarning

__all__ = ["AttackWarning", "ChannelsLast", "Classifier", "FirstLook", "Mode", "NoGradient", "QueriedModel",
           "ShrinkingBatchSize", "answers_by_batch", "confirm_predictions", "cut", "default_batch_size", "first_look",
           "frozen", "full_precision", "input_gradient", "predict_logits", "predict_logits_per_draw"]
