"""Training for bounds: what is minimized is the loss at logits that no image of the threat model can surpass."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from robustness_lib.certify.enclosure import Enclosure
from robustness_lib.certify.input_region import InputRegion
from robustness_lib.certify.margins import all_margins, plain_margins
from robustness_lib.certify.traced_network import LiveNetwork
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
        if not 0 <= self.clean_share <= 1:
            raise ValueError(f"clean_share must lie in [0, 1]; found {self.clean_share}")

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, index: Tensor | None = None,
                 seed: int = 0) -> Tensor:
        w = 1 - (1 - self.clean_share) * self._grown
        if w == 1:
            return self._cross_entropy(step_logits(model, x), y)
        live = _live(bare(model), x)  # it gives batch norm's statistics back, which a pass holds for its gradient
        with _batch_statistics(bare(model)) as seen:
            clean = self._cross_entropy(step_logits(model, x), y)
        network = live(bare(model), seen)
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
        if not 0 <= self.crown_share <= 1:
            raise ValueError(f"crown_share must lie in [0, 1]; found {self.crown_share}")

    def _margins(self, enclosure: Enclosure, y: Tensor) -> Tensor:
        share, plain = 1 - (1 - self.crown_share) * self._grown, plain_margins(enclosure, y)
        if share == 0:
            return plain
        return torch.lerp(plain, all_margins(enclosure, y, ("adaptive",)), share)


@contextmanager
def _batch_statistics(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Mean and variance of what each batch norm that learns sees in this context, by the names of its buffers. Of one
    that is called several times there is nothing: its running statistics stand for all of them."""
    seen: dict[str, Tensor] = {}
    calls: Counter[str] = Counter()

    def watch(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def look(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            calls[name] += 1
            var, mean = torch.var_mean(inputs[0], [0, *range(2, inputs[0].ndim)], correction=0)
            seen.update({f"{name}.running_mean": mean, f"{name}.running_var": var} if calls[name] == 1 else {})

        return look

    hooks = [layer.register_forward_pre_hook(watch(name)) for name, layer in model.named_modules()
             if isinstance(layer, _BATCH_NORMS) and layer.training and layer.running_mean is not None]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()
        for name, times in calls.items():
            if times > 1:
                del seen[f"{name}.running_mean"], seen[f"{name}.running_var"]


_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_traced: WeakKeyDictionary[nn.Module, tuple[torch.Size, LiveNetwork]] = WeakKeyDictionary()


def _live(model: nn.Module, x: Tensor) -> LiveNetwork:
    """Traced once for a model and a shape of images."""
    shape, live = _traced.get(model, (None, None))
    if live is None or shape != x.shape[1:]:
        live = LiveNetwork(model, x)
        _traced[model] = x.shape[1:], live
    return live
