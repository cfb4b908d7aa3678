"""One image under one attack at several ε: the numbers behind the slider and behind its printed strip."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from robustness_lib.attacks import FGSM
from robustness_lib.model_kinds import modes_kept, switch_to_eval

__all__ = ["Frame", "epsilon_frames"]

_NUMBERS = [
    "no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
    "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
]


@dataclass(frozen=True)
class Frame:
    """One image at one ε. Pictures are (H, W, 3) bytes at the image's own size.

    perturbation: mid-grey is no change; brighter and darker are changes up to ±scale, the same for all frames.
    scale: the change that is drawn as white, in pixel units of [0, 1].
    probabilities: (K,) softmax of the model on x_adv.
    """

    norm: str
    eps: float
    clean: NDArray[np.uint8]
    perturbation: NDArray[np.uint8]
    adversarial: NDArray[np.uint8]
    scale: float
    probabilities: NDArray[np.float64]
    label: int
    classes: tuple[str, ...]

    @property
    def predicted(self) -> int:
        return int(self.probabilities.argmax())

    @property
    def magnification(self) -> float:
        """How many times larger than true a change is drawn."""
        return 0.5 / self.scale

    @property
    def eps_text(self) -> str:
        """ε as the book writes it: grey levels of 255 for L∞, a length for L2."""
        if self.norm == "l2":
            return f"{self.eps:.3g}"
        levels = self.eps * 255
        return "0" if levels == 0 else f"{_short(levels)}/255"

    @property
    def budget(self) -> str:
        """ε in words."""
        if self.eps == 0:
            return "ε = 0: no change allowed"
        if self.norm == "l2":
            return f"ε = {self.eps_text}: the whole change has at most this length"
        levels = self.eps * 255
        whole = round(levels)
        if abs(levels - whole) > 1e-6 or whole >= len(_NUMBERS):
            return f"ε = {self.eps_text}: {_short(levels)} grey levels of 255"
        return f"ε = {self.eps_text}: {_NUMBERS[whole]} grey level{'s' if whole > 1 else ''} of 255"

    @property
    def verdict(self) -> str:
        """What the model says, beside what it should say."""
        says, truth = self.classes[self.predicted], self.classes[self.label]
        sure = _percent(self.probabilities[self.predicted])
        if self.predicted == self.label:
            return f"The model says “{says}” ({sure}), which is right."
        return f"The model says “{says}” ({sure}); it is “{truth}” ({_percent(self.probabilities[self.label])})."

    @property
    def caption(self) -> str:
        return f"{self.budget}. {self.verdict}"


def _short(number: float) -> str:
    whole = round(number)
    return str(whole) if abs(number - whole) < 1e-6 else f"{number:.3g}"


def _percent(probability: float) -> str:
    if 0.01 <= probability <= 0.99:
        return f"{100 * probability:.0f} %"
    return "over 99 %" if probability > 0.99 else "under 1 %"


def epsilon_frames(
    model: nn.Module, x: Tensor, y: Tensor | int, attack: Any, epsilons: Sequence[float],
    classes: Sequence[str] | None = None,
) -> list[Frame]:
    """Attack one image at each ε, every ε starting from the result of the one before.

    Without that, two separate searches may find different mistakes, and the picture would seem to recover as ε
    grows. FGSM, and an attack whose `run` takes no `start`, simply runs at each ε. On a model so sure that its
    cross-entropy is 0 in float32, no small change has a higher one, and the image stays as it was until ε is large
    enough; PGD with loss="margin" has a way up from there too.

    x: (C, H, W) or (1, C, H, W) in [0, 1], C = 1 or 3. y: its label. attack: FGSM or PGD; its own ε is replaced.
    epsilons: increasing, in pixel units of [0, 1]. classes: names of the K classes; numbers if not given.
    Raises ValueError if there is more than one image, if epsilons is empty, negative or not increasing, or if the
    number of class names is not the number of logits.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module; found {type(model).__name__}")
    x, y = _one_image(x, y)
    _check_epsilons(epsilons)
    results = _results(model, x, y, attack, epsilons)
    probabilities = [_probabilities(model, x_adv) for x_adv in results]
    names = tuple(classes) if classes is not None else tuple(map(str, range(len(probabilities[0]))))
    if len(names) != len(probabilities[0]):
        raise ValueError(f"classes names {len(names)} classes, but the model returns {len(probabilities[0])} logits")
    if not 0 <= int(y) < len(names):
        raise ValueError(f"the label is {int(y)}, but the model knows the classes 0 to {len(names) - 1}")
    norm = attack.threat.norm
    scale = _scale(norm, epsilons, results, x)
    return [
        Frame(norm, float(eps), _bytes(x), _bytes(0.5 + (x_adv - x) * (0.5 / scale)), _bytes(x_adv), scale, p,
              int(y), names)
        for eps, x_adv, p in zip(epsilons, results, probabilities, strict=True)
    ]


def _one_image(x: Tensor, y: Tensor | int) -> tuple[Tensor, Tensor]:
    x = x if x.ndim == 4 else x[None]
    y = torch.as_tensor(y, device=x.device).reshape(-1)
    if x.ndim != 4 or len(x) != 1 or len(y) != 1:
        raise ValueError(
            f"the slider shows one image: x must be (C, H, W) or (1, C, H, W) with one label; found "
            f"{tuple(x.shape)} with {len(y)}. Pass x[i], y[i]."
        )
    if x.shape[1] not in (1, 3):
        raise ValueError(f"the image must have 1 or 3 channels to be drawn; found {x.shape[1]}")
    return x, y


def _check_epsilons(epsilons: Sequence[float]) -> None:
    if not len(epsilons):
        raise ValueError("epsilons is empty: give at least one ε, such as [0, 4/255, 8/255]")
    if min(epsilons) < 0 or any(b <= a for a, b in itertools.pairwise(epsilons)):
        raise ValueError(
            f"epsilons must increase from 0 or more, for each starts at the last; found {list(epsilons)}"
        )
    if max(epsilons) > 1 and all(float(e).is_integer() for e in epsilons):
        raise ValueError(f"epsilons are in pixel units of [0, 1]: write 8/255, not 8; found {list(epsilons)}")


def _results(model: nn.Module, x: Tensor, y: Tensor, attack: Any, epsilons: Sequence[float]) -> list[Tensor]:
    # One step from anywhere but x is no longer FGSM.
    takes_start = "start" in inspect.signature(attack.run).parameters and not isinstance(attack, FGSM)
    # Every example takes all its steps: with stop="success" the picture would freeze at the first mistake.
    settings = {"stop": "never"} if is_dataclass(attack) and "stop" in {f.name for f in fields(attack)} else {}
    results: list[Tensor] = []
    previous = x
    for eps in epsilons:
        if eps > 0:  # ε = 0 is the clean image, by definition
            step = replace(attack, threat=attack.threat.with_eps(eps), **settings)
            start = {"start": previous} if takes_start and results else {}
            previous = step.run(model, x, y, **start).x_adv
        results.append(previous)
    return results


def _probabilities(model: nn.Module, x: Tensor) -> NDArray[np.float64]:
    with modes_kept(model), torch.no_grad():
        switch_to_eval(model)
        return np.asarray(model(x.clone())[0].double().softmax(0).cpu().numpy(), dtype=np.float64)


def _scale(norm: str, epsilons: Sequence[float], results: list[Tensor], x: Tensor) -> float:
    largest = max(epsilons) if norm == "linf" else max(float((r - x).abs().max()) for r in results)
    return float(largest) or 1.0


def _bytes(x: Tensor) -> NDArray[np.uint8]:
    pixels = (x[0].detach().clamp(0, 1) * 255).round().to(torch.uint8).cpu()
    return np.ascontiguousarray(pixels.expand(3, -1, -1).permute(1, 2, 0).numpy())
