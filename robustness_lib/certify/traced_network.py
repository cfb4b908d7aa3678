"""A network as bounds see it: a list of operations, traced with torch.fx by PyTorch's own exporter."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from robustness_lib.certify.exported_graph import held_by, make_functional, network_steps
from robustness_lib.certify.operation import TRACED_BATCH, Affine
from robustness_lib.errors import one_line
from robustness_lib.inputs import check_images, check_logits
from robustness_lib.model_kinds import check_usable
from robustness_lib.precision import full_precision
from robustness_lib.querying.frozen import Classifier, frozen

__all__ = ["LiveNetwork", "TracedNetwork", "trace"]

_CHECKED = 8  # images on which the traced network must answer as the model does
_SAME_CALL, _SAME_NETWORK = 1e-6, 1e-4  # of the largest logit, that rounding may make in the same call, and in another


class TracedNetwork:
    """The operations of a model in eval mode, in order, in one floating-point type. Made by `trace`; whatever takes a
    model for bounds takes it too, and need not trace again. It keeps the model's weights as they were."""

    def __init__(self, program: ExportedProgram, held: dict[str, Any], dtype: torch.dtype, device: torch.device
                 ) -> None:
        self._program, self._held, self.dtype, self.device = program, held, dtype, device
        self.steps = tuple(network_steps(program, held, dtype))
        self.shape: torch.Size = next(
            node.meta["val"].shape[1:] for node in program.graph.nodes if node.op == "placeholder"
            and node.name in program.graph_signature.user_inputs)
        self._others: dict[torch.dtype, TracedNetwork] = {dtype: self}

    def to(self, dtype: torch.dtype) -> TracedNetwork:
        """The same network in another floating-point type."""
        if dtype not in self._others:
            self._others[dtype] = TracedNetwork(self._program, self._held, dtype, self.device)
        return self._others[dtype]

    def __repr__(self) -> str:
        return (f"<TracedNetwork: {len(self.steps)} operations, images {tuple(self.shape)} to {self.classes} logits, "
                f"{self.dtype}>")

    def __call__(self, x: Tensor) -> Tensor:
        """Images (N, ...) to logits (N, K)."""
        values = [x]
        for step in self.steps:
            values.append(step.operation(*(values[k] for k in step.inputs)))
        return values[-1]

    @property
    def classes(self) -> int:
        return self.steps[-1].operation.call.output[0] if self.steps else self.shape[0]

    @cached_property
    def last_uses(self) -> list[int]:
        """Of each value, the last step that takes it; one more than there are for the logits and for what rows from
        these end at: the images, and what the last bends return."""
        uses, rows = [0] * (len(self.steps) + 1), {len(self.steps)}
        for number, step in enumerate(self.steps, 1):
            for k in step.inputs:
                uses[k] = number
        for number in range(len(self.steps), -1, -1):
            if number in rows and number > 0 and isinstance(self.steps[number - 1].operation, Affine):
                rows.update(self.steps[number - 1].inputs)
            elif number in rows:
                uses[number] = len(self.steps) + 1
        uses[-1] = len(self.steps) + 1
        return uses

    @property
    def widest(self) -> int:
        """Entries of the largest value of one image."""
        return max([self.shape.numel(), *(step.operation.call.output.numel() for step in self.steps)])

    def take(self, x: Tensor) -> Tensor:
        """Images (N, ...), on the network's device and in its type. Raises ValueError for another shape."""
        if x.shape[1:] != self.shape:
            raise ValueError(f"the network was traced with images of shape {tuple(self.shape)}; found "
                             f"{tuple(x.shape[1:])}")
        x = x.to(self.device, self.dtype)
        return x.clone() if x.is_inference() else x


def trace(model: Classifier | TracedNetwork, x: Tensor) -> TracedNetwork:
    """The operations of a model, images (N, ...) in [0, 1] to logits (N, K), on images such as x, N ≥ 1.

    The model is held in eval mode meanwhile, and left as it was. Raises `UnknownOperation` for an operation without a
    rule, naming the layer; TypeError and ValueError for a model that cannot be traced (its path depends on the values,
    or it leaves PyTorch), whose traced form answers otherwise than it does, and for weights that are no finite numbers;
    ValueError where autocast is on.
    """
    if torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda"):
        raise ValueError("bounds are computed in full precision, and autocast is on here: leave its context first")
    x = check_images(x).detach()
    if len(x) == 0:
        raise ValueError("a network is traced with images, and bounds are of images; there is none")
    if isinstance(model, TracedNetwork):
        model.take(x)
        return model
    check_usable(model)
    if isinstance(model, nn.Module) and any(isinstance(part, torch.jit.ScriptModule) for part in model.modules()):
        raise ValueError("the model cannot be traced, and so no bounds can be computed: it is scripted. Give the model "
                         "that it was made from")
    with frozen(model), torch.no_grad():
        parameter = next(iter(model.parameters()), x) if isinstance(model, nn.Module) else x
        dtype = parameter.dtype
        if dtype not in (torch.float32, torch.float64):
            raise TypeError(f"bounds need a model in float32 or float64; found {dtype}. Give model.float()")
        few = x[:_CHECKED].to(parameter.device, dtype)
        with full_precision():
            answers = model(few.clone())
        check_logits(answers, few, ())
        program = _export(model, few)  # the exporter wants to read the flags of precision as they usually are
        with full_precision():
            network = TracedNetwork(program, held_by(program), dtype, parameter.device)
            _check_same(network, model, few, answers)
    return network


class LiveNetwork:
    """The operations of a model, in eval mode, of its weights as they are at each call: for training, where bounds are
    differentiated by them. Traced once; model and x as for `trace`, which says what is raised."""

    def __init__(self, model: nn.Module, x: Tensor) -> None:
        network = trace(model, x)
        self._program, self.dtype, self.device = network._program, network.dtype, network.device
        self._fixed = network._held
        # Names of the parameters and buffers that its operations use.
        self.targets = {spec.target for spec in self._program.graph_signature.input_specs if spec.target is not None}

    def __call__(self, model: nn.Module, instead: Mapping[str, Tensor] | None = None) -> TracedNetwork:
        """Of this model, whose parts are called as the traced one's were. instead: what takes the place of some of its
        parameters and buffers, by name."""
        held = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers(remove_duplicate=False))
        held |= instead or {}
        live = {spec.arg.name: held.get(spec.target, self._fixed.get(spec.arg.name))
                for spec in self._program.graph_signature.input_specs if spec.arg.name in self._fixed}
        return TracedNetwork(self._program, live, self.dtype, self.device)


class _Function(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's own log: it says nothing that the error does not."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def _export(model: Classifier, few: Tensor) -> ExportedProgram:
    """In which no operation writes into its input."""
    module = model if isinstance(model, nn.Module) else _Function(model).eval()
    images = few.new_empty((TRACED_BATCH, *few.shape[1:]))  # nobody looks at the values
    try:
        with _quiet(), redirect_stderr(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what is assigned in passing: whether it matters is checked
            program = torch.export.export(module, (images,), strict=False)
            if not make_functional(program.graph):
                program = program.run_decompositions({})
    except Exception as error:  # whatever a model and the exporter may raise
        why = "its path depends on values that it computes (an if, a loop, .item())" \
            if "DataDependent" in type(error).__name__ else one_line(error).rstrip(".")
        raise ValueError(f"the model cannot be traced, and so no bounds can be computed: {why}. All of it must be "
                         f"PyTorch, on one path for all images") from error
    return program


def _check_same(network: TracedNetwork, model: Classifier, few: Tensor, answers: Tensor) -> None:
    """The model answers as the network does: the same images again, and in other company, also of their negatives."""
    def differ(one: Tensor, other: Tensor, share: float) -> bool:
        least = share * float(other.abs().max())
        return one.shape != other.shape or not torch.allclose(one.to(other.dtype), other, rtol=share, atol=least)

    batches = [few, few.flip(0), torch.cat([1 - few, few]), few[:1]]
    if differ(model(few.clone()), answers, _SAME_CALL) or any(
            differ(network(batch), model(batch.clone()), _SAME_NETWORK) for batch in batches):
        raise ValueError("the model answers otherwise than its traced operations do: it draws at random, depends on "
                         "the other images of the batch, or keeps something from call to call. No bounds hold for it")
