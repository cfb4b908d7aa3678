"""From a graph that PyTorch's exporter made to operations with rules, whose constants are computed."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._ops import HigherOrderOperator, OpOverload
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind
from torch.fx import Graph, Node

from robustness_lib.certify import (  # noqa: F401 - rules, which are found by name
    activations,
    affine_operations,
    max_pooling,
    products,
    resampling,
    sorting,
    weighted_operations,
)
from robustness_lib.certify.operation import TRACED_BATCH, Call, Operation, Slot, UnknownOperation, fitting_operation

__all__ = ["NetworkStep", "held_by", "make_functional", "network_steps"]


_FROM_A_TYPE = ("new_zeros", "new_ones", "new_full")  # of their tensor, the type alone counts


class NetworkStep(NamedTuple):
    """An operation, and the numbers of the values that it takes: 0 are the images, k what step k − 1 returns."""

    operation: Operation
    inputs: tuple[int, ...]


def make_functional(graph: Graph) -> bool:
    """Put in place of operations that write into their input those that return a new value, where that is the same: of
    an input that nobody looks at later, under this name or another. Whether none that writes is left, and nothing that
    wraps a part of the graph. (The exporter's own way takes many operations apart, for which there is a rule.)"""
    done, seen = True, set[Node]()
    for node in graph.nodes:
        seen.add(node)
        if isinstance(node.target, HigherOrderOperator):
            done = False
        elif isinstance(node.target, OpOverload) and node.target._schema.is_mutable:
            name, into = _name(node), node.args[0] if node.args else None
            new = getattr(getattr(torch.ops.aten, name.rstrip("_"), None), node.target._overloadname, None)
            if new is not None and name.endswith("_") and isinstance(into, Node) and seen.issuperset(into.users) and \
                    all(map(_makes_its_own, {into, *into.users} - {node})):
                node.target = new
            else:
                done = False
    return done


def _makes_its_own(node: Node) -> bool:
    """Whether its result surely shares no memory with what it was given. Composite operations may return their input,
    as dropout does, but for some."""
    if not isinstance(node.target, OpOverload):
        return False
    full_name = node.target.name()  # type: ignore[no-untyped-call]
    composite = torch._C._dispatch_has_kernel_for_dispatch_key(full_name, "CompositeImplicitAutograd")
    return not any(result.alias_info for result in node.target._schema.returns) and (
        not composite or _name(node) in ("linear", "conv1d", "conv2d", "conv3d", "batch_norm", "matmul"))


def network_steps(program: ExportedProgram, held: dict[str, Any], dtype: torch.dtype) -> list[NetworkStep]:
    """The operations that the logits follow from. What follows from weights alone is computed here. held: `held_by`
    the program."""
    graph, steps = program.graph, list[NetworkStep]()
    allowed = {torch.float64, next(node.meta["val"].dtype for node in graph.nodes if node.name not in held)}
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
                constant[node] = _cast(held[node.name], dtype)
            else:
                place[node] = 0
            continue
        item = node.args[1] if node.target is operator.getitem and node.args[0] in several else None
        call_node = node if item is None else node.args[0]
        used = [other for other in call_node.all_input_nodes if other in place and _name(node) not in _FROM_A_TYPE]
        if not used:
            constant[node] = _cast(_compute(node, constant), dtype)
        elif not isinstance(node.meta.get("val"), Tensor):
            several.add(node)
        else:
            operation = fitting_operation(_call(node, call_node, item, used, constant, allowed))
            steps.append(NetworkStep(operation, tuple(place[other] for other in used)))
            place[node] = len(steps)
    if not any(node.name == logits for node in place):
        raise ValueError("the model's logits do not follow from the images: there is nothing to bound")
    return steps


def held_by(program: ExportedProgram) -> dict[str, Any]:
    """Weights, buffers and constants by the name of their placeholder, as they are now: the model's own may change.
    Raises ValueError for such as are no numbers."""
    found: dict[str, Any] = {}
    for spec in program.graph_signature.input_specs:
        if spec.kind == InputKind.USER_INPUT or not isinstance(spec.target, str):
            continue
        value = program.state_dict.get(spec.target)
        value = program.constants[spec.target] if value is None else value
        if isinstance(value, Tensor) and value.is_floating_point() and not bool(value.isfinite().all()):
            raise ValueError(f"the model's {spec.target} holds NaN or infinity: nothing can be proved of it")
        found[spec.arg.name] = value.detach().clone() if isinstance(value, Tensor) else value
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
        # A comparison of answers does not tell of a little noise.
        raise UnknownOperation(f"no bounds pass {_layer(node)}: {_name(node)} draws at random")
    args, kwargs = torch.fx.map_arg((node.args, node.kwargs), lambda other: constant.get(other, other))
    if _name(node) in _FROM_A_TYPE:
        args = torch.empty(0, dtype=node.meta["val"].dtype, device=node.meta["val"].device), *args[1:]
    return node.target(*args, **kwargs)  # type: ignore[operator]


def _call(node: Node, call_node: Node, item: int | None, used: Sequence[Node], constant: dict[Node, Any],
          allowed: set[torch.dtype]) -> Call:
    """allowed: types of numbers whose rounding is reckoned with."""
    slots = {other: Slot(number) for number, other in enumerate(used)}

    def given(other: Node) -> Any:
        return slots[other] if other in slots else constant[other]

    layer = _layer(call_node)
    shapes = [other.meta["val"].shape for other in (*used, node)]
    call = Call(call_node.target, torch.fx.map_arg(call_node.args, given),  # type: ignore[arg-type]
                dict(torch.fx.map_arg(call_node.kwargs, given)), item,
                tuple(shape[1:] for shape in shapes[:-1]), shapes[-1][1:], layer)
    types = {other.meta["val"].dtype for other in (*used, node)} - allowed
    if torch.bool in types:
        raise call.refuse(f"{call.name} compares, or chooses by a comparison, which no rule follows")
    if types:
        raise call.refuse(f"{call.name} computes in {min(map(str, types))}, whose rounding no bound covers")
    if any(len(shape) == 0 or shape[0] != TRACED_BATCH for shape in shapes):
        raise call.refuse(f"{call.name} mixes the images of a batch, or moves them off the first axis")
    return call


def _name(node: Node) -> str:
    """Of its function, such as conv2d."""
    return str(getattr(node.target, "__name__", node.target)).partition(".")[0]


def _layer(node: Node) -> str:
    """Where in the model, in words."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    path, kind = stack[-1] if stack else ("", "the function")
    kind = str(getattr(kind, "__name__", kind)).rpartition(".")[2]
    return f"layer {path!r} ({kind})" if path else f"the model ({kind})" if kind != "the function" else "the model"
