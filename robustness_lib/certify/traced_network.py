"""A network as bounds see it: a list of operations, traced with torch.fx by PyTorch's own exporter."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind
from torch.fx import Node

from robustness_lib.certify import (  # noqa: F401 - rules, which are found by name
    activations,
    affine_operations,
    max_pooling,
    products,
    resampling,
)
from robustness_lib.certify.operation import (
    TRACED_BATCH,
    Call,
    Operation,
    Slot,
    UnknownOperation,
    fitting_operation,
)
from robustness_lib.errors import one_line
from robustness_lib.inputs import check_images, check_logits
from robustness_lib.model_kinds import check_usable
from robustness_lib.precision import full_precision
from robustness_lib.querying.frozen import Classifier, frozen

__all__ = ["NetworkStep", "TracedNetwork", "trace"]

_CHECKED = 4  # images on which the traced network must answer as the model does


class NetworkStep(NamedTuple):
    """An operation, and the numbers of the values that it takes: 0 are the images, k what step k − 1 returns."""

    operation: Operation
    inputs: tuple[int, ...]


class TracedNetwork:
    """The operations of a model in eval mode, in order, in one floating-point type. Made by `trace`; whatever takes a
    model for bounds takes it too, and need not trace again. It keeps the model's weights as they were."""

    def __init__(self, program: ExportedProgram, dtype: torch.dtype, device: torch.device) -> None:
        self._program, self.dtype, self.device = program, dtype, device
        self.steps = tuple(_steps(program, dtype))
        self.shape: torch.Size = next(
            node.meta["val"].shape[1:] for node in program.graph.nodes if node.op == "placeholder"
            and node.name in program.graph_signature.user_inputs)
        self._others: dict[torch.dtype, TracedNetwork] = {dtype: self}

    def to(self, dtype: torch.dtype) -> TracedNetwork:
        """The same network in another floating-point type."""
        if dtype not in self._others:
            self._others[dtype] = TracedNetwork(self._program, dtype, self.device)
        return self._others[dtype]

    def __call__(self, x: Tensor) -> Tensor:
        """Images (N, ...) to logits (N, K)."""
        values = [x]
        for step in self.steps:
            values.append(step.operation(*(values[k] for k in step.inputs)))
        return values[-1]

    @property
    def classes(self) -> int:
        return self.steps[-1].operation.call.output[0] if self.steps else self.shape[0]

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
    if isinstance(model, TracedNetwork):
        model.take(x)
        return model
    check_usable(model)
    if len(x) == 0:
        raise ValueError("a network is traced with images, and there is none")
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
            network = TracedNetwork(program, dtype, parameter.device)
            _check_same(network(few), answers)
    return network


class _Function(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def _export(model: Classifier, few: Tensor) -> ExportedProgram:
    """In which no operation writes into its input."""
    module = model if isinstance(model, nn.Module) else _Function(model).eval()
    images = few.new_empty((TRACED_BATCH, *few.shape[1:]))  # nobody looks at the values
    try:
        program = torch.export.export(module, (images,), strict=False)
        if any(node.op == "call_function" and getattr(getattr(node.target, "_schema", None), "is_mutable", False)
               for node in program.graph.nodes):
            program = program.run_decompositions({})
    except Exception as error:  # whatever a model and the exporter may raise
        raise ValueError(f"the model cannot be traced, and so no bounds can be computed: {one_line(error)}. Its path "
                         f"must not depend on the values, and all of it must be PyTorch") from error
    return program


def _check_same(traced: Tensor, answers: Tensor) -> None:
    largest = float(answers.abs().max())
    if traced.shape != answers.shape or not torch.allclose(traced, answers, rtol=1e-3, atol=1e-3 * largest):
        raise ValueError("the model answers otherwise than its traced operations do: it draws at random, depends on "
                         "the other images of the batch, or keeps something from call to call. No bounds hold for it")


def _steps(program: ExportedProgram, dtype: torch.dtype) -> list[NetworkStep]:
    """The operations that the logits follow from. What follows from weights alone is computed here."""
    graph, steps = program.graph, list[NetworkStep]()
    held = _held(program, dtype)
    (logits,) = [spec.arg.name for spec in program.graph_signature.output_specs if spec.kind.name == "USER_OUTPUT"]
    needed = _ancestors(next(node for node in graph.nodes if node.name == logits))
    _check_forgetful(program, needed)
    place: dict[Node, int] = {}  # of values that follow from the images
    constant: dict[Node, Any] = {}
    several = set[Node]()  # functions that return more than one value: an operation is made of each item
    for node in graph.nodes:
        if node not in needed:
            continue
        if node.op == "placeholder":
            if node.name in held:
                constant[node] = held[node.name]
            else:
                place[node] = 0
            continue
        item = node.args[1] if node.target is operator.getitem and node.args[0] in several else None
        call_node = node if item is None else node.args[0]
        used = [other for other in call_node.all_input_nodes if other in place]
        if not used:
            constant[node] = _cast(_compute(node, constant), dtype)
        elif not isinstance(node.meta.get("val"), Tensor):
            several.add(node)
        else:
            operation = fitting_operation(_call(node, call_node, item, used, constant))
            steps.append(NetworkStep(operation, tuple(place[other] for other in used)))
            place[node] = len(steps)
    return steps


def _held(program: ExportedProgram, dtype: torch.dtype) -> dict[str, Tensor]:
    """Weights, buffers and constants by the name of their placeholder. Raises ValueError for such as are no numbers."""
    found: dict[str, Tensor] = {}
    for spec in program.graph_signature.input_specs:
        if spec.kind == InputKind.USER_INPUT or not isinstance(spec.target, str):
            continue
        value = program.state_dict.get(spec.target)
        value = program.constants[spec.target] if value is None else value
        if isinstance(value, Tensor) and value.is_floating_point() and not bool(value.isfinite().all()):
            raise ValueError(f"the model's {spec.target} holds NaN or infinity: nothing can be proved of it")
        found[spec.arg.name] = _cast(value.detach() if isinstance(value, Tensor) else value, dtype)
    return found


def _check_forgetful(program: ExportedProgram, needed: set[Node]) -> None:
    """Raises ValueError where the logits follow from what a pass changes."""
    signature = program.graph_signature
    moved = {spec.target for spec in signature.output_specs if spec.kind == OutputKind.BUFFER_MUTATION}
    for spec in signature.input_specs:
        if spec.target in moved and any(node.name == spec.arg.name for node in needed):
            raise ValueError(f"the model keeps {spec.target!r} from call to call, and answers by it: no bounds hold "
                             f"for it")


def _cast(value: Any, dtype: torch.dtype) -> Any:
    if isinstance(value, (list, tuple)):
        return type(value)(_cast(part, dtype) for part in value)
    return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value


def _ancestors(node: Node) -> set[Node]:
    found, todo = set[Node](), [node]
    while todo:
        one = todo.pop()
        if one not in found:
            found.add(one)
            todo += one.all_input_nodes
    return found


def _compute(node: Node, constant: dict[Node, Any]) -> Any:
    if torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()) and node.args[-1:] != (False,):
        name = str(getattr(node.target, "__name__", node.target)).partition(".")[0]
        # A comparison of answers does not tell of a little noise.
        raise UnknownOperation(f"no bounds pass {_layer(node)}: {name} draws at random")
    args = torch.fx.map_arg(node.args, lambda other: constant[other])
    kwargs = torch.fx.map_arg(node.kwargs, lambda other: constant[other])
    return node.target(*args, **kwargs)  # type: ignore[operator]


def _call(node: Node, call_node: Node, item: int | None, used: Sequence[Node], constant: dict[Node, Any]) -> Call:
    slots = {other: Slot(number) for number, other in enumerate(used)}

    def given(other: Node) -> Any:
        return slots[other] if other in slots else constant[other]

    layer = _layer(call_node)
    shapes = [other.meta["val"].shape for other in (*used, node)]
    call = Call(call_node.target, torch.fx.map_arg(call_node.args, given),  # type: ignore[arg-type]
                dict(torch.fx.map_arg(call_node.kwargs, given)), item,
                tuple(shape[1:] for shape in shapes[:-1]), shapes[-1][1:], layer)
    types = {other.meta["val"].dtype for other in (*used, node)} - {torch.float32, torch.float64}
    if types:
        raise call.refuse(f"it computes in {min(map(str, types))}, whose rounding no bound covers")
    if any(len(shape) == 0 or shape[0] != TRACED_BATCH for shape in shapes):
        raise call.refuse(f"{call.name} mixes the images of a batch, or moves them off the first axis")
    return call


def _layer(node: Node) -> str:
    """Where in the model, in words."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    path, kind = stack[-1] if stack else ("", "the function")
    kind = str(getattr(kind, "__name__", kind)).rpartition(".")[2]
    return f"layer {path!r} ({kind})" if path else f"the model ({kind})" if kind != "the function" else "the model"
