"""Models as people have them: scripted, frozen, exported, lazy, on no device. What can be asked, and what to do where
nothing can."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.nn.parameter import is_lazy

__all__ = ["advice_on", "check_usable", "modes_kept", "switch_to_eval"]


def check_usable(model: object) -> None:
    """Raises TypeError for what is no model, and ValueError for a model without weights that can be used; either says
    what to do."""
    if isinstance(model, ExportedProgram):
        raise TypeError("an ExportedProgram cannot be called; give the module in it, program.module()")
    if isinstance(model, type):
        raise TypeError(f"the model must be a model and not a class of models; give {model.__name__}(...), with its "
                        f"weights loaded")
    if not callable(model):
        weights = " (weights without a network: build it, and give them to its load_state_dict)" \
            if isinstance(model, Mapping) else ""
        raise TypeError(f"the model must be a torch.nn.Module or a function, images (N, ...) to logits (N, K); found "
                        f"{type(model).__name__}{weights}")
    for name, tensor in _tensors(model):
        if is_lazy(tensor):
            raise ValueError(f"the model's {name} has no values yet: a lazy layer gets its size from the first batch. "
                             f"Show it one before, model(x[:2]), and train it or load its weights")
        if tensor.is_meta:
            raise ValueError(f"the model's {name} is on the meta device, where tensors have no values. Load its "
                             f"weights by model.load_state_dict(state, assign=True), or build it on a real device")
        if tensor.is_inference():
            raise ValueError(f"the model's {name} was made under torch.inference_mode(), and no gradient can pass such "
                             f"a tensor. Outside of that mode, copy.deepcopy(model) makes an ordinary model")


def _tensors(model: object) -> list[tuple[str, torch.Tensor]]:
    return [*model.named_parameters(), *model.named_buffers()] if isinstance(model, nn.Module) else []


def switch_to_eval(model: nn.Module) -> None:
    """Every submodule in eval mode, also where the model's own eval() fails: an exported graph refuses it (and is as
    it was exported), and some classes call something else `train`. A frozen program has no mode, and gets none."""
    without = [module for module in model.modules() if not hasattr(module, "training")]
    try:
        model.eval()
    except Exception:  # whatever somebody's train() may raise
        for module in model.modules():
            module.training = False
    for module in without:
        vars(module).pop("training", None)


@contextmanager
def modes_kept(model: object) -> Iterator[None]:
    """Each submodule in its own mode again afterwards, also after an exception. A plain function has no mode, nor has
    a frozen program, which is passed over."""
    before = [(module, module.training) for module in (model.modules() if isinstance(model, nn.Module) else ())
              if hasattr(module, "training")]
    try:
        yield
    finally:
        for module, training in before:
            module.training = training  # not module.train(), which would also set its children


def advice_on(error: Exception) -> str:
    """What to do about an error that a model's call ended in, where its words tell it; else ""."""
    if isinstance(error, TypeError) and re.search(r"missing \d+ required", str(error)):
        return "It needs more than the images: give a function of the images alone, such as lambda x: model(x, ...)"
    if "Guard failed" in str(error):
        return ("An exported program takes inputs of the shape that it was made for; for batches of any length, export "
                "it with dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)")
    return ""
