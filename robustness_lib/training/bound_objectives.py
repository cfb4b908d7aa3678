"""Training for bounds: what is minimized is the loss at logits that no image of the threat model can surpass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from weakref import WeakKeyDictionary

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from robustness_lib.certify.enclosure import Enclosure
from robustness_lib.certify.input_region import InputRegion
from robustness_lib.certify.margins import all_margins, plain_margins
from robustness_lib.certify.traced_network import LiveNetwork
from robustness_lib.inputs import check_real
from robustness_lib.training.objectives import Objective, WithinThreat, bare, step_logits

__all__ = ["IBP", "CrownIBP"]


@dataclass(frozen=True)
class IBP(WithinThreat):
    """w·CE(z(x), y) + (1 − w)·CE(ẑ, y), with ẑ the worst logits that intervals allow: the negated lower bounds of the
    label's margins over the other classes (interval bound propagation; Gowal et al. 2018, arXiv 1810.12715).

    clean_share: w at full ε, in [0, 1]. While `fit` lets ε grow, w falls from 1 to it: a network that begins with all
    of ε and the bound alone rarely learns anything. ε itself is often taken a little above what is to be proved.

    A step costs about as much as four on clean images. Bounds are of the network without dropout. Batch norm, while it
    learns, goes by the batch's own statistics, in the bounds as in the clean pass, and both are differentiated through
    them (Shi et al. 2021, arXiv 2103.17268). Raises what `certify.trace` raises, `UnknownOperation` above all, and
    ValueError under autocast.
    """

    clean_share: float = 0.5
    _grown: float = field(default=1.0, kw_only=True, repr=False)  # share of ε

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_share("clean_share", self.clean_share)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, index: Tensor | None = None,
                 seed: int = 0) -> Tensor:
        w = 1 - (1 - self.clean_share) * self._grown
        if w == 1:
            return self._cross_entropy(step_logits(model, x), y)
        live = _live(bare(model), x)  # it gives batch norm's statistics back, which a pass holds for its gradient
        statistics = _BatchStatistics(bare(model))
        with statistics.watched():
            clean = self._cross_entropy(step_logits(model, x), y)
        network = live(bare(model), statistics.of(live))
        margins = self._margins(Enclosure.by_intervals(network, InputRegion(network.take(x), self.threat)), y)
        worst = (-margins).scatter(1, y[:, None], 0)
        return w * clean + (1 - w) * self._cross_entropy(worst, y)

    def _margins(self, enclosure: Enclosure, y: Tensor) -> Tensor:
        return plain_margins(enclosure, y)

    def with_share(self, share: float) -> Objective:
        return replace(self, threat=self.threat.with_eps(self.threat.eps * share), _grown=self._grown * share)


@dataclass(frozen=True)
class CrownIBP(IBP):
    """IBP with better margins: s·CROWN's + (1 − s)·those of intervals, CROWN's going back from the logits through the
    intervals' boxes (Zhang et al. 2020, arXiv 1906.06316). While ε grows, s falls from 1 to `crown_share`.

    An image costs as many ways back as it has other classes, so that a step takes many times one of IBP.
    """

    crown_share: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_share("crown_share", self.crown_share)

    def _margins(self, enclosure: Enclosure, y: Tensor) -> Tensor:
        share, plain = 1 - (1 - self.crown_share) * self._grown, plain_margins(enclosure, y)
        if share == 0:
            return plain
        return torch.lerp(plain, all_margins(enclosure, y, ("adaptive",)), share)


def _check_share(name: str, value: float) -> None:
    if not 0 <= check_real(name, value, "a share of the loss") <= 1:
        raise ValueError(f"{name} must lie in [0, 1]; found {value}")


class _BatchStatistics:
    """Mean and variance of what each batch norm that learns sees in a clean pass, by the names of its buffers."""

    def __init__(self, model: nn.Module) -> None:
        named = [(name, layer) for name, layer in model.named_modules(remove_duplicate=False)
                 if isinstance(layer, _BatchNorm) and layer.training and layer.running_mean is not None]
        self._names = {layer: [name for name, other in named if other is layer] for _, layer in named}
        self._differentiated = torch.is_grad_enabled()
        self._seen: dict[nn.Module, list[tuple[Tensor, Tensor] | None]] = {layer: [] for layer in self._names}

    @contextmanager
    def watched(self) -> Iterator[None]:
        hooks = [layer.register_forward_hook(self._look, with_kwargs=True) for layer in self._names]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _look(self, layer: nn.Module, inputs: tuple[Tensor, ...], named: dict[str, Tensor], output: Tensor) -> None:
        (x,) = (*inputs, *named.values())
        if torch.is_grad_enabled() != self._differentiated:  # a pass that is done again for its gradient
            self._seen[layer].append(None)
        else:
            var, mean = torch.var_mean(x, [0, *range(2, x.ndim)], correction=0)
            self._seen[layer].append((mean, var))

    def of(self, live: LiveNetwork) -> dict[str, Tensor]:
        """Of a batch norm that is called several times there is nothing: its running statistics stand for all of them.
        Raises ValueError where one that the network uses was not seen."""
        found: dict[str, Tensor] = {}
        for layer, names in self._names.items():
            buffers = {f"{name}.{kind}": k for name in names for k, kind in enumerate(("running_mean", "running_var"))}
            seen = self._seen[layer]
            if buffers.keys() & live.targets and (not seen or seen[0] is None or _is_shared(layer)):
                raise ValueError(
                    f"bounds go by the statistics that batch norm {names[0]!r} takes of the batch, and these cannot be "
                    f"seen: it is compiled, its pass is checkpointed, or it shares them with other processes. Train "
                    f"without, or hold it in eval mode")
            if len(seen) == 1 and seen[0] is not None:
                found |= {buffer: seen[0][k] for buffer, k in buffers.items()}
        return found


def _is_shared(layer: nn.Module) -> bool:
    return isinstance(layer, nn.SyncBatchNorm) and dist.is_initialized() and dist.get_world_size() > 1


_traced: WeakKeyDictionary[nn.Module, tuple[str, LiveNetwork]] = WeakKeyDictionary()


def _live(model: nn.Module, x: Tensor) -> LiveNetwork:
    """Traced once for a model, as long as its layers stay what they are, and a shape of images."""
    held = (*model.named_parameters(), *model.named_buffers())
    made_of = f"{model} {x.shape[1:]} {[(name, value.shape, value.dtype, value.device) for name, value in held]}"
    before, live = _traced.get(model, (None, None))
    if live is None or before != made_of:
        live = LiveNetwork(model, x)
        _traced[model] = made_of, live
    return live
