"""How others name the tensors of the residual nets that this package builds too, each as one declared table.

A network's names say which tensor is which, and not all of what is computed with them. Where another repository's code
computes otherwise than a network as it was built, its layout `needs` the argument that makes the two agree; what the
names leave open is `untold`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from torch import nn

from robustness_lib.models.residual import PreActivationResNet

__all__ = ["LAYOUTS", "Layout", "Spelling", "spellings"]

_OF_BLOCK = re.compile(r"groups\.(\d+)\.(\d+)\.(\w+)\.(.+)")


@dataclass(frozen=True)
class Layout:
    """One repository's names. called: in words. block: what stands before the parts of a block; `group` and `block`
    count from 0, `number` is the group's from 1. parts: the name of each part of `PreActivationResNet` and its blocks.
    beside: first parts of names that its files hold and its networks do not use. needs: what its networks compute,
    of `PreActivationResNet.computes`. untold: what a reader of the file has to know from elsewhere, in words."""

    called: str
    block: str
    parts: Mapping[str, str]
    beside: tuple[str, ...] = ()
    needs: Mapping[str, str] = field(default_factory=dict)
    untold: str = ""

    def name(self, ours: str) -> str:
        """What this layout calls the tensor of a `PreActivationResNet` that we call `ours`."""
        if found := _OF_BLOCK.fullmatch(ours):
            group, block, part, rest = int(found[1]), int(found[2]), found[3], found[4]
            return f"{self.block.format(group=group, number=group + 1, block=block)}.{self.parts[part]}.{rest}"
        part, _, rest = ours.partition(".")
        return f"{self.parts[part]}.{rest}"

    def differences(self, network: PreActivationResNet) -> list[str]:
        """In words, where the network computes otherwise than those whose files have these names."""
        return [f"{self.called} has {name}={wanted!r}, not {found!r}: build the network with {name}={wanted!r}"
                for name, wanted in self.needs.items() if (found := network.computes[name]) != wanted]


LAYOUTS = (
    Layout(
        "the WideResNet of the TRADES repository", "block{number}.layer.{block}",
        {"stem": "conv1", "norm1": "bn1", "conv1": "conv1", "norm2": "bn2", "conv2": "conv2",
         "shortcut": "convShortcut", "norm": "bn1", "linear": "fc"},
        beside=("sub_block1", "mu", "sigma"),
        needs={"activation": "relu", "padding": "symmetric", "shortcut_from": "activation"}),
    Layout(
        "DeepMind's WideResNet", "layer.{group}.block.{block}",
        {"stem": "init_conv", "norm1": "batchnorm_0", "conv1": "conv_0", "norm2": "batchnorm_1", "conv2": "conv_1",
         "shortcut": "shortcut", "norm": "batchnorm", "linear": "logits"},
        beside=("mean", "std"), needs={"padding": "same", "shortcut_from": "activation"},
        untold='whether it was trained with ReLU (activation="relu") or Swish ("silu")'),
    Layout(
        "RobustBench's PreActResNet", "layer{number}.{block}",
        {"stem": "conv1", "norm1": "bn1", "conv1": "conv1", "norm2": "bn2", "conv2": "conv2",
         "shortcut": "shortcut.0", "norm": "bn", "linear": "linear"},
        beside=("mu", "sigma"), needs={"activation": "relu", "padding": "symmetric"},
        untold='where its shortcuts start (shortcut_from="activation" or "input")'),
)


@dataclass(frozen=True)
class Spelling:
    """One way to spell the names of a model. names: each tensor's name as it is spelled, with the model's own name.
    layout: whose spelling it is, or None for the model's own. differences: in words, why what is spelled so does not
    fit the model whatever the tensors are."""

    names: Mapping[str, str]
    layout: Layout | None = None
    differences: tuple[str, ...] = ()

    @property
    def spelled(self) -> dict[str, str]:
        """Each of the model's names, as it is spelled."""
        return {mine: name for name, mine in self.names.items()}

    def lies_beside(self, name: str) -> bool:
        """Whether this name, without what stands before all names, is known to be no part of the network."""
        return self.layout is not None and name.split(".")[0] in self.layout.beside


def spellings(model: nn.Module, names: list[str]) -> Iterator[Spelling]:
    """The model's own names first; then, for a model with one residual net of this package in it, those of each
    layout."""
    yield Spelling({name: name for name in names})
    nets = {f"{before}." if before else "": part for before, part in model.named_modules()
            if isinstance(part, PreActivationResNet)}
    if len(nets) != 1:
        return
    (before, network), = nets.items()
    for layout in LAYOUTS:
        translated = {before + layout.name(name.removeprefix(before)) if name.startswith(before) else name: name
                      for name in names}
        yield Spelling(translated, layout, tuple(layout.differences(network)))
