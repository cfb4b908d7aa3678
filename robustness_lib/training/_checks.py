"""What a training is given, checked before its first step; and the loss, at each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from robustness_lib.errors import one_line
from robustness_lib.inputs import check_count, check_images, check_labels
from robustness_lib.model_kinds import check_usable, modes_kept
from robustness_lib.querying.frozen import frozen
from robustness_lib.querying.queried_model import QueriedModel
from robustness_lib.querying.refusals import refused_arrangement
from robustness_lib.threat import ThreatModel
from robustness_lib.training.augment import Augmentation
from robustness_lib.training.objectives import Objective
from robustness_lib.training.schedules import Schedule

__all__ = ["TrainingData", "check_answer", "check_augmentable", "check_loss", "check_model", "check_settings",
           "check_training_labels", "length"]

TrainingData = tuple[Tensor, Tensor] | Dataset[Any]
_COUNTS = {"epochs": 1, "batch_size": 1, "every": 1, "validation_steps": 1, "ramp": 0, "workers": 0, "seed": None}
_CHOICES = {"keep": ("best", "last"), "on_collapse": ("stop", "warn"), "optimizer": ("adamw", "sgd")}


def check_settings(model: nn.Module, data: TrainingData, objective: object, *, validation: object, augment: object,
                   threat: object, schedule: object, patience: int | None, averaging: float | None,
                   clip: float | None, weight_decay: float, save_seconds: float, **others: Any) -> None:
    """All of `fit`'s arguments that can be judged alone. others: whole numbers and choices, by name."""
    for name, least in _COUNTS.items():
        check_count(name, others[name], least)
    if not abs(others["seed"]) < 2**48:  # times a thousand, it seeds PyTorch's generators
        raise ValueError(f"seed must be smaller than 2^48; found {others['seed']}")
    for name, choices in _CHOICES.items():
        if others[name] not in choices:
            raise ValueError(f"{name} must be one of {', '.join(choices)}; found {others[name]!r}")
    for name, value in (("averaging", averaging), ("clip", clip), ("weight_decay", weight_decay),
                        ("save_seconds", save_seconds)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, Real)):
            raise TypeError(f"{name} must be a number; found {value!r}")
    if not 0 <= weight_decay < math.inf:
        raise ValueError(f"weight_decay must be 0 or more; found {weight_decay}")
    if averaging is not None and not 0 < averaging < 1:
        raise ValueError(f"averaging is a decay between 0 and 1, such as .999; found {averaging}")
    if clip is not None and not clip > 0:
        raise ValueError(f"clip must be positive, the longest that a gradient may be; found {clip}")
    _check_parts(objective, threat, schedule, others["ramp"])
    check_usable(model)
    _check_trainable(model)
    if not any(p.requires_grad for p in model.parameters()):
        raise ValueError("the model has no parameters that require a gradient: there is nothing to train")
    if patience is not None:
        check_count("patience", patience)
        if validation is None:
            raise ValueError("patience compares epochs on validation images: give validation=(x, y)")
    _check_augment(augment)
    _check_data(data, augment, validation)


def _check_trainable(model: object) -> None:
    """A module with a training mode, which it is left without."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"fit trains the parameters of a torch.nn.Module; found {type(model).__name__}, in which none "
                        f"can be found: give the module that it calls")
    try:
        with modes_kept(model):
            model.train()
    except Exception as error:  # whatever somebody's train() may raise
        raise TypeError(f"the model cannot be put into training mode ({one_line(error)}). An exported program is fixed "
                        f"as it was exported: train the module that it was made from, and export that again") from error


def _check_parts(objective: object, threat: object, schedule: object, ramp: int) -> None:
    if isinstance(objective, type) or not callable(objective):
        raise TypeError(f"objective must be one of this package's, such as Standard() with its parentheses, or a "
                        f"function (model, x, y) -> loss; found {objective!r}")
    if ramp and not isinstance(objective, Objective):
        raise ValueError(f"ramp lets the ε of this package's objectives grow; a function has its own: leave out ramp = "
                         f"{ramp}")
    if threat is not None and not isinstance(threat, ThreatModel):
        raise TypeError(f'threat must be a ThreatModel, such as ThreatModel("linf", 8/255); found {threat!r}')
    if schedule is not None and not isinstance(schedule, Schedule):
        raise TypeError(f"schedule must be OneCycle(...) or Piecewise(...); found {schedule!r}")


def _check_augment(augment: object) -> None:
    if isinstance(augment, str) or not isinstance(augment, Sequence) or not all(
            isinstance(change, Augmentation) for change in augment):
        raise TypeError(f"augment must be a list of augmentations, such as [Flip(), Shift(2)]; found {augment!r}")


def _check_data(data: TrainingData, augment: object, validation: object) -> None:
    if not isinstance(data, tuple) and not (isinstance(data, Dataset) and hasattr(data, "__len__")):
        loader = ". Give its .dataset: batches are made here" if isinstance(data, DataLoader) else ""
        raise TypeError(f"data must be images and labels, (x, y), or a map-style Dataset; found {type(data).__name__}"
                        f"{loader}")
    for name, pair in (("data", data), ("validation", validation)):
        if pair is None or (name == "data" and isinstance(pair, Dataset)):
            continue
        if not isinstance(pair, tuple) or len(pair) != 2:
            raise TypeError(f"{name} must be images and labels, (x, y); found "
                            + (f"{type(pair).__name__} of {len(pair)}" if isinstance(pair, (tuple, list)) else
                               type(pair).__name__))
        check_images(pair[0])
        check_training_labels(pair[1], pair[0])
        if len(pair[0]) == 0:
            raise ValueError("there are no images to train on, or none to validate with")
    if length(data) == 0:
        raise ValueError("there are no images to train on")
    if augment and isinstance(data, tuple):
        check_augmentable(data[0])


def check_augmentable(x: Tensor) -> None:
    if x.ndim != 4:
        raise ValueError(f"augmentations change images (N, C, H, W); found shape {tuple(x.shape)}")


def check_training_labels(y: Tensor, x: Tensor, numbers: Tensor | None = None) -> None:
    """As for an attack, and none below 0: PyTorch's cross-entropy would pass over −100 without a word. numbers (N,): of
    the images in the data set, 0 to N − 1 by default."""
    check_labels(y, x)
    if len(below := (y < 0).nonzero()[:, 0]):
        row = below[0]
        raise ValueError(f"labels must be 0 or more; found {int(y[row])}, of image "
                         f"{int(row if numbers is None else numbers[row])}. Negative numbers often mark images without "
                         f"a label: leave these out")


def check_model(model: nn.Module, device: torch.device, data: TrainingData,
                validation: tuple[Tensor, Tensor] | None) -> int | None:
    """How many logits the first image is answered with, every label being below; None where all is in a Dataset."""
    pairs = [pair for pair in (data, validation) if isinstance(pair, tuple)]
    return check_answer(model, device, pairs[0][0], tuple(y for _, y in pairs)) if pairs else None


def check_answer(model: nn.Module, device: torch.device, x: Tensor, labels: tuple[Tensor, ...] = ()) -> int:
    """How many logits the first two images are answered with, in eval mode and on a copy; labels: to be below. (One
    alone would be more than a model has to answer: batch norm and .squeeze() fail on it.) Raises what an attack says
    of such a model."""
    queried = QueriedModel(model)
    queried.expect(labels)
    with torch.random.fork_rng([device] if device.type == "cuda" else []), refused_arrangement(model, x), frozen(model):
        return queried.logits(x[:2].to(device, copy=True)).shape[1]


def check_loss(loss: object) -> Tensor:
    """A scalar with a gradient."""
    if not isinstance(loss, Tensor) or loss.ndim != 0 or not loss.requires_grad:
        found = (f"shape {tuple(loss.shape)}, {'with' if loss.requires_grad else 'without'} a gradient"
                 if isinstance(loss, Tensor) else repr(loss))
        raise TypeError(f"the objective must return one number with a gradient, such as "
                        f"F.cross_entropy(model(x), y); found {found}")
    return loss


def length(data: TrainingData) -> int:
    """How many examples there are."""
    return len(data[0]) if isinstance(data, tuple) else len(data)  # type: ignore[arg-type]
