"""Make any model speak pixels in [0, 1] and logits (N, K), so that ε means what it says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from robustness_lib.model_kinds import check_usable

__all__ = ["Normalize", "as_classifier"]


class Normalize(nn.Module):
    """(x − mean) / std per channel, as the model's first layer.

    mean, std: one number per channel, in pixel units of [0, 1]. Kept out of the state dict, so that a wrapped
    model's weights keep their shape. Raises ValueError for lists of different length, a std that is not positive,
    and (on use) images with another number of channels.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        if len(mean) != len(std):
            raise ValueError(f"mean and std need one number per channel each; found {len(mean)} and {len(std)}")
        if any(not s > 0 for s in std):
            raise ValueError(f"std must be positive; found {list(std)}")
        if any(abs(m) > 1 for m in mean):
            raise ValueError(f"mean must be in pixel units of [0, 1] (divide by 255); found {list(mean)}")
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-3] != len(self.mean):
            raise ValueError(f"Normalize has {len(self.mean)} channels; found images of shape {tuple(x.shape)}")
        return (x - self.mean.to(x.dtype)) / self.std.to(x.dtype)


class _AsClassifier(nn.Module):
    def __init__(self, model: Callable[[Tensor], Any], pick: Callable[[Any], Tensor], normalize: nn.Module) -> None:
        super().__init__()
        self.normalize, self.model, self._pick = normalize, model, pick

    def forward(self, x: Tensor) -> Tensor:
        return self._pick(self.model(self.normalize(x)))


def as_classifier(model: Callable[[Tensor], Any], *, mean: Sequence[float] | None = None,
                  std: Sequence[float] | None = None,
                  output: str | int | Callable[[Any], Tensor] = "auto") -> nn.Module:
    """Wrap `model`, a module or any function of images, into one that takes images (N, C, H, W) in [0, 1] and returns
    logits (N, K).

    mean, std: the normalization that the model expects, moved inside (both or neither).
    output: where the logits are in what the model returns.
        "auto"    a tensor as it is; `.logits` of an object or mapping; else the first entry of a tuple or list
        "binary"  one logit per image, (N,) or (N, 1): becomes two, (0, z), so class 1 is predicted where z > 0
        another string, an integer: the attribute or key of that name, the entry of that number
        a function: applied to what the model returns

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
    if output == "auto":
        return _find_logits
    if output == "binary":
        return _two_logits
    return lambda answer: _entry(answer, output)


def _entry(answer: Any, name: str | int) -> Any:
    try:
        return answer[name] if isinstance(name, int) or isinstance(answer, Mapping) else getattr(answer, name)
    except (AttributeError, KeyError, IndexError, TypeError):
        raise TypeError(f"the model returned {type(answer).__name__}, which has no {name!r}") from None


def _find_logits(answer: Any) -> Tensor:
    if isinstance(answer, Tensor):
        return answer
    if isinstance(answer, Mapping) and "logits" in answer:
        answer = answer["logits"]
    elif hasattr(answer, "logits"):
        answer = answer.logits
    elif isinstance(answer, (tuple, list)) and answer:
        answer = answer[0]
    if not isinstance(answer, Tensor):
        raise TypeError(
            f"no logits found in what the model returned ({type(answer).__name__}); "
            f"say where they are with output= (a name, a number, or a function)"
        )
    return answer


def _two_logits(answer: Any) -> Tensor:
    z = _find_logits(answer)
    if z.ndim == 2 and z.shape[1] == 1:
        z = z[:, 0]
    if z.ndim != 1:
        raise ValueError(f'output="binary" needs one logit per image, (N,) or (N, 1); found {tuple(z.shape)}')
    return torch.stack([torch.zeros_like(z), z], 1)
