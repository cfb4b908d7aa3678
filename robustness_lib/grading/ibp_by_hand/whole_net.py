"""Checks of `ibp_by_hand` on intervals through several layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from robustness_lib.grading.ibp_by_hand.intervals import (
    CLOSE,
    alike,
    first_alike,
    images_within,
    no_box,
    small_net,
    split_bounds,
)
from robustness_lib.grading.ibp_by_hand.variants import FIRST, IntervalsTask
from robustness_lib.grading.observations import Observation, need
from robustness_lib.grading.steps import step

__all__ = ["box"]


@step(points=4, shares=9, forbidden=("grading/given/intervals_of_a_net.py", "certify"))
def box(mine: Callable[..., Any], task: IntervalsTask = FIRST, widths: tuple[int, ...] = (6, 8, 7, 4),
        eps: float = 0.2) -> Iterator[Observation]:
    """A small net, with the pixel box: against sampled images, and against the same bound computed another way."""
    net, x = small_net(widths, task), torch.rand(9, 1, 1, widths[0], generator=task.generator(1))
    x[:3] = x[:3].round()  # black and white pixels, where the pixel box counts
    found = mine(net, x.clone(), eps)
    if (ending := no_box(found, (len(x), widths[-1]))) is not None:
        yield ending
        return
    inside = images_within(x, eps, task)
    answers = torch.stack([net(images) for images in inside]).double()
    expected = split_bounds(net, x, eps)
    outside = float(((answers < found[0].double() - CLOSE) | (answers > found[1].double() + CLOSE)).any(2).any(
        0).double().mean())
    mistake = _what_box(found, net, x, eps)
    yield need(outside == 0, f"holds the answers to {len(inside)} sampled images of each ball",
               mistake or f"no bound: for {100 * outside:.0f} % of the images an answer within ε lies outside",
               share=3)
    yield need(alike(found, expected), "as tight as intervals are", mistake or
               "holds them, but is wider than intervals are" if outside == 0 else mistake or "not the intervals' box",
               share=3)
    point = mine(net, x.clone(), 0.0)
    yield need(alike(point, (net(x), net(x))), "at ε = 0, the network's own answer",
               "at ε = 0 a box is a point, the network's own answer: is a layer or a bias left out?")
    yield _refuses(mine, net, x, eps)


def _refuses(mine: Callable[..., Any], net: nn.Sequential, x: Tensor, eps: float) -> Observation:
    """Whether each layer without a rule is a TypeError: without weights or with, at the end or in the middle."""
    norm = nn.BatchNorm1d(len(net(x)[0])).eval()
    for name, layers in (("Tanh", [*net, nn.Tanh()]), ("Tanh", [*net[:2], nn.Tanh(), *net[3:]]),
                         ("BatchNorm1d", [*net, norm]), ("a layer of its own", [*net, _Turned()])):
        try:
            mine(nn.Sequential(*layers), x.clone(), eps)
        except TypeError:
            continue
        except Exception as error:  # NotImplementedError, too: the function itself is written, as was seen above
            return need(False, "", f"meets {name}, for which it has no rule, and raises {type(error).__name__}: ask "
                        "for the layers that it knows, and at any other raise TypeError", share=2)
        return need(False, "", f"returns a bound for a net with {name}, for which it has no rule: that is a bound of "
                    "another network. Ask for the layers that it knows, and at any other raise TypeError", share=2)
    return need(True, "refuses layers that it has no rule for, by TypeError", "", share=2)


class _Turned(nn.Module):
    """A layer that no rule is known for."""

    def forward(self, x: Tensor) -> Tensor:
        return -3 * x.flip(1)


def _what_box(found: Sequence[Tensor], net: nn.Sequential, x: Tensor, eps: float) -> str | None:
    bent_last = split_bounds([*net, nn.ReLU()], x, eps)
    straight = split_bounds([layer for layer in net if not isinstance(layer, nn.ReLU)], x, eps)
    known = [(split_bounds(net, x, eps, cut=False), "leaves the pixel box aside. That is a bound, and wider than need "
              "be: there are no images below 0 or above 1"),
             (split_bounds(net, x, 2 * eps), "the box is one for 2ε: it reaches from x − ε to x + ε"),
             (split_bounds(net, x, eps / 2), "the box is one for ε/2: it reaches from x − ε to x + ε"),
             (straight, "leaves out the ReLU layers"),
             (bent_last, "puts a ReLU behind the last layer")]
    for place, layer in enumerate(net):
        if isinstance(layer, nn.Linear) and layer.in_features == layer.out_features:
            known.append((split_bounds([*net[:place], *net[place + 1:]], x, eps), "a layer is left out"))
    return first_alike(found, tuple(known))
