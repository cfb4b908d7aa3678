"""Batches of images and labels as loaders hand them on, and in words what is wrong with those that are none."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import Tensor

__all__ = ["read_batches"]

# Of a Dataset's items, that PyTorch cannot make a batch of: what it says, and what to do.
_COLLATE = {
    r"stack expects each tensor to be equal size, but got \[(.*)\] at entry 0 and \[(.*)\] at entry":
        "its images have several sizes, ({}) and ({}): bring them to one in the transform (Resize(256), "
        "CenterCrop(224))",
    r"batch must contain tensors.*found <class 'PIL\.(.*)'>":
        "its images are PIL images: make tensors of them in the transform (torchvision.transforms.ToTensor())",
    r"(?:batch must contain tensors.*found|Could not infer dtype of) (?:<class ')?([\w.]+)":
        "it holds {}, which no tensor can be made of: hand on an image (C, H, W) in [0, 1] and a class number",
    r"each element in list of batch should be of equal size":
        "its items hold lists of several lengths: hand on an image (C, H, W) in [0, 1] and a class number",
    r"Trying to resize storage that is not resizable":
        "its images have several sizes: bring them to one in the transform (Resize(256), CenterCrop(224))",
}


def read_batches(batches: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
    """Images and labels of each batch, which are not looked at. Raises TypeError for what is no pair, and for items
    that PyTorch cannot put together, with what to do."""
    source = iter(batches)
    while True:
        try:
            batch = next(source)
        except StopIteration:
            return
        except (TypeError, RuntimeError) as error:
            advice = _collate_advice(str(error))
            if advice is None:
                raise
            raise TypeError(f"the data cannot be put into batches: {advice}") from error
        yield _image_and_label(batch)


def _image_and_label(batch: Any) -> tuple[Any, Any]:
    """The first two of a batch (x, y, ...). Raises TypeError for another thing."""
    if isinstance(batch, Mapping):
        names = [str(name) for name in batch]
        x, y = _names_of(names)
        raise TypeError(f"each batch must be a pair (x, y); found a {type(batch).__name__} with {', '.join(names)}. "
                        f"Hand on pairs, such as (batch[{x!r}], batch[{y!r}])")
    if not isinstance(batch, (tuple, list)) or len(batch) < 2:
        raise TypeError(f"each batch must be a pair (x, y); found {_described(batch)}")
    x, y = batch[0], batch[1]
    single = isinstance(y, int) or (isinstance(y, Tensor) and y.ndim == 0)
    if single and not (isinstance(x, Tensor) and x.ndim > 3):
        raise TypeError("each batch must be a pair (x, y) of images (N, ...) and labels (N,); found one image with its "
                        "label. torch.utils.data.DataLoader(data, batch_size=100) makes batches of a Dataset")
    return x, y


def _names_of(names: list[str]) -> tuple[str, str]:
    """Which of these are probably the images and the labels."""
    x = next((n for n in names if re.search(r"im(age|g)|pixel|input|^x$|data", n, re.I)), (names or ["image"])[0])
    y = next((n for n in names if re.search(r"label|target|class|^y$", n, re.I)), (names[1:] or ["label"])[0])
    return x, y


def _described(batch: Any) -> str:
    return f"a {type(batch).__name__} of {len(batch)}" if isinstance(batch, (tuple, list)) else type(batch).__name__


def _collate_advice(said: str) -> str | None:
    for words, advice in _COLLATE.items():
        if found := re.search(words, said):
            return advice.format(*found.groups())
    return None
