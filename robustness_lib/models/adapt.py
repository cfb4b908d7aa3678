"""Make any model speak pixels in [0, 1] and logits (N, K), so that ε means what it says."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

from robustness_lib.model_kinds import check_usable

__all__ = ["Normalize", "as_classifier", "find_logits", "with_those_wrapped"]

_LARGE = 10  # a std in pixel units is hardly above 1; in bytes it is hardly below this


class Normalize(nn.Module):
    """(x − mean) / std per channel, as the model's first layer.

    mean, std: one number per channel, in pixel units of [0, 1]. Channels are axis 1, whatever follows: points (N, D),
    signals (N, C, L), images (N, C, H, W), videos (N, C, T, H, W). Kept out of the state dict, so that a wrapped
    model's weights keep their shape. Raises TypeError for anything but such lists; ValueError for lists of different
    length, what is not finite or not in these units, a std that is not positive, and (on use) images with another
    number of channels.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        mean, std = _per_channel("mean", mean), _per_channel("std", std)
        if len(mean) != len(std):
            raise ValueError(f"mean and std need one number per channel each; found {len(mean)} and {len(std)}")
        if any(s <= 0 for s in std):
            raise ValueError(f"std must be positive; found {std}")
        if any(abs(m) > 1 for m in mean):
            raise ValueError(f"mean must be in pixel units of [0, 1] (divide by 255); found {mean}")
        if any(s > _LARGE for s in std):
            raise ValueError(f"std must be in pixel units of [0, 1] (divide by 255); found {std}")
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        mean, std = self.along(x)
        return (x - mean) / std

    def along(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """mean and std, shaped and typed so that they broadcast over x (N, C, ...). Raises ValueError."""
        count = len(self.mean)
        if x.ndim < 2 or x.shape[1] != count:
            raise ValueError(f"Normalize has {count} channels, along axis 1; found images of shape {tuple(x.shape)}"
                             f"{_channel_advice(x, count)}")
        shape = (-1, *[1] * (x.ndim - 2))
        return self.mean.to(x.dtype).view(shape), self.std.to(x.dtype).view(shape)


def _per_channel(name: str, values: object) -> list[float]:
    """One finite number per channel. Raises TypeError or ValueError."""
    wanted = f"{name} must be a list of numbers, one per channel"
    if isinstance(values, Real):
        raise TypeError(f"{wanted}; found {values!r}: for one channel [{values!r}], for three [{values!r}] * 3")
    try:
        listed = [] if isinstance(values, (str, bytes, Mapping)) else list(values)  # type: ignore[call-overload]
        numbers = [float(value) for value in listed]
    except (TypeError, ValueError, RuntimeError):  # the last of a tensor of more than one number
        numbers = []
    if not numbers:
        raise TypeError(f"{wanted}; found {values!r}")
    if not all(map(math.isfinite, numbers)):
        raise ValueError(f"{name} must be finite{' and positive' if name == 'std' else ''}; found {numbers}")
    return numbers


def _channel_advice(x: Tensor, count: int) -> str:
    if x.ndim < 4 and x.ndim and x.shape[0] == count:
        return ". One image goes in as x[None]"
    if x.ndim > 2 and x.shape[-1] == count:
        return ". Channels that come last go to axis 1 by x.movedim(-1, 1)"
    if x.ndim == 5 and x.shape[2] == count:
        return ". Videos (N, T, C, H, W) become (N, C, T, H, W) by x.transpose(1, 2)"
    if x.ndim > 2 and x.shape[1] == 1 and count > 1:
        return f". Grey images get as many channels by x.expand(-1, {count}{', -1' * (x.ndim - 2)})"
    return ""


class _AsClassifier(nn.Module):
    def __init__(self, model: Callable[[Tensor], Any], pick: Callable[[Any], Tensor], normalize: nn.Module) -> None:
        super().__init__()
        self.normalize, self.model, self._pick = normalize, model, pick

    def forward(self, x: Tensor) -> Tensor:
        return self._pick(self.model(self.normalize(x)))


def as_classifier(model: Callable[[Tensor], Any], *, mean: Sequence[float] | None = None,
                  std: Sequence[float] | None = None,
                  output: str | int | Callable[[Any], Tensor] = "auto") -> nn.Module:
    """Wrap `model`, a module or any function of images, into one that takes images (N, C, ...) in [0, 1] and returns
    logits (N, K).

    mean, std: the normalization that the model expects, one number per channel, moved inside (both or neither). See
    `Normalize`: channels are axis 1 for any number of dimensions.
    output: where the logits are in what the model returns.
        "auto"    a tensor as it is; `.logits` of an object or mapping; else the first entry of a tuple or list
        "binary"  one logit per image, (N,) or (N, 1): becomes two, (0, z), so class 1 is predicted where z > 0
        another string, an integer: the attribute or key of that name, the entry of that number
        a function: applied to what the model returns

    In training too, what else the model returns (auxiliary heads) is left out: it gets no loss, and does not change.
    Raises ValueError if only one of mean and std is given, TypeError for what cannot be called and (on use) if no
    logits are found.
    """
    if (mean is None) != (std is None):
        raise ValueError("give both mean and std, or neither")
    normalize = nn.Identity() if mean is None or std is None else Normalize(mean, std)
    if not isinstance(model, nn.Module):  # a module may still get its weights
        check_usable(model)
    wrapper = _AsClassifier(model, _picker(output), normalize)
    # Not .train(), which would also set the submodules of the caller's model. A function has no mode.
    wrapper.training = getattr(model, "training", False)
    return wrapper


def _picker(output: str | int | Callable[[Any], Tensor]) -> Callable[[Any], Tensor]:
    if callable(output):
        return output
    if isinstance(output, bool) or not isinstance(output, (str, int)):
        raise TypeError(f'output must be "auto", "binary", a name, a number or a function; found {output!r}')
    if str(output) != (plain := str(output).strip().lower()) and plain in ("auto", "binary"):
        raise ValueError(f"output={output!r} is written {plain!r}")
    if output == "":
        raise ValueError("output is empty; it names where the logits are in what the model returns")
    if output == "auto":
        return find_logits
    if output == "binary":
        return _two_logits
    return lambda answer: _entry(answer, output)


def _entry(answer: Any, name: str | int) -> Any:
    try:
        return answer[name] if isinstance(name, int) or isinstance(answer, Mapping) else getattr(answer, name)
    except (AttributeError, KeyError, IndexError, TypeError):
        raise TypeError(f"the model returned {type(answer).__name__}, which has no {name!r}") from None


def with_those_wrapped(model: nn.Module) -> list[nn.Module]:
    """The model, and each that is wrapped by `as_classifier` in it."""
    wrapped = (part.model for part in model.modules() if isinstance(part, _AsClassifier))
    return [model, *(one for one in wrapped if isinstance(one, nn.Module))]


def find_logits(answer: Any) -> Tensor:
    """The logits in what a model returned: a tensor as it is; `.logits` of an object or mapping; else the first entry
    of a tuple or list. Raises TypeError where there are none."""
    if isinstance(answer, Tensor):
        return answer
    if isinstance(answer, Mapping) and "logits" in answer:
        answer = answer["logits"]
    elif hasattr(answer, "logits"):
        answer = answer.logits
    elif isinstance(answer, (tuple, list)) and answer:
        answer = answer[0]
    if not isinstance(answer, Tensor):
        names = f" with {', '.join(map(str, answer))}" if isinstance(answer, Mapping) else ""
        raise TypeError(
            f"no logits found in what the model returned ({type(answer).__name__}{names}); say where they are with "
            f"as_classifier(model, output=...): a name, a number, or a function"
        )
    return answer


def _two_logits(answer: Any) -> Tensor:
    z = find_logits(answer)
    if z.ndim == 2 and z.shape[1] == 1:
        z = z[:, 0]
    if z.ndim != 1:
        raise ValueError(f'output="binary" needs one logit per image, (N,) or (N, 1); found {tuple(z.shape)}')
    return torch.stack([torch.zeros_like(z), z], 1)
