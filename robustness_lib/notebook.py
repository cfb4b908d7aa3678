"""What chapters and exercises share: checks that the reader sees, accuracies in short form, values glued into the
text and read from another page, a progress bar, and the threat model and the linear classifier that many of them begin
with."""

from __future__ import annotations

import ast
import html
import importlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from robustness_lib.attacks import AttackResult
from robustness_lib.statistics import Accuracy
from robustness_lib.threat import ThreatModel

__all__ = ["check", "glue_values", "glued", "linear_model", "linf", "not_broken", "of_file", "results_folder",
           "share", "short", "watched"]

Item = TypeVar("Item")

# The theme of the built book brings one green for light and one for dark, and so does JupyterLab. The last one is for
# places with neither: it is as readable on white as on black.
_GREEN = "var(--pst-color-success, var(--jp-success-color0, #24863c))"


def check(sentence: str, *conditions: object) -> None:
    """Stop the notebook unless every condition is true; where all are, show the sentence in one green line.

    `check("PGD gets across, FGSM does not", pgd.success.all(), ~fgsm.success.any())`

    Args:
        sentence: what was checked, in words for the reader. It stands on the page as "checked: …".
        conditions: one or more truth values: bools, or arrays and tensors of one boolean element.

    Raises:
        AssertionError: if a condition is false. It names the sentence and which condition it was.
        TypeError: if there is no condition, if one has several elements or is no truth value at all (a number, a
            string, None, a method that was not called), or if the sentence is no string.
    """
    if not isinstance(sentence, str):
        raise TypeError(f"check begins with a sentence that says what is checked; found {type(sentence).__name__}")
    if not conditions:
        raise TypeError(f"check needs a condition after the sentence; without one it cannot fail: {sentence!r}")
    # All are looked at before any may fail, so that a later one without a truth value is never overlooked.
    truths = [_truth(condition, place) for place, condition in enumerate(conditions, 1)]
    for place, true in enumerate(truths, 1):
        if not true:
            which = "" if len(truths) == 1 else f" (condition {place} of {len(truths)} is false)"
            raise AssertionError(f"it does not hold that: {sentence}{which}")
    _from_book_extra("IPython.display").display(_Checked(sentence))


def _truth(condition: object, place: int) -> bool:
    """The truth value of check's condition number `place`; a TypeError where it has none."""
    if isinstance(condition, bool):
        return condition
    if isinstance(condition, (Tensor, np.ndarray, np.generic)):
        if condition.dtype not in (torch.bool, np.bool_):
            raise TypeError(f"condition {place} of check holds {condition.dtype}, no truth value: compare it with "
                            "something")
        elements = condition.numel() if isinstance(condition, Tensor) else condition.size
        if elements != 1:
            raise TypeError(f"condition {place} of check has {elements} elements: use .all() or .any()")
        return bool(condition.item())
    raise TypeError(f"condition {place} of check is no truth value but {type(condition).__name__}: {condition!r}")


class _Checked:
    """A sentence that held: a green line on a page, plain text elsewhere."""

    def __init__(self, sentence: str) -> None:
        self.sentence = sentence

    def __repr__(self) -> str:
        return f"checked: {self.sentence}"

    def _repr_html_(self) -> str:
        style = f"color: {_GREEN}; font-size: 0.875em"
        return f'<div class="robustness-checked" style="{style}">{html.escape(repr(self), quote=False)}</div>'


def glue_values(**values: object) -> None:
    """Hand computed values to the page's text, where its role `glue:text` shows them by name.

    Args:
        values: by name; in the text each underscore of a name is a hyphen. An Accuracy is glued in short form, and
            anything else as `str` gives it.

    Raises:
        ImportError: if myst-nb is missing.
    """
    glue = _from_book_extra("myst_nb").glue
    for name, value in values.items():
        text = short(value) if isinstance(value, Accuracy) else str(value)
        glue(name.replace("_", "-"), text, display=False)


def _from_book_extra(module: str) -> ModuleType:
    """A module that only notebooks need; an ImportError that says how to get it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f"{module} is missing. It comes with what the book needs: pip install -e '.[book]' in the "
                          f"repository's folder") from error


def short(accuracy: Accuracy) -> str:
    """12.3 % (9–17): the accuracy and its 95 % interval, with no line break before the % sign or at the dash.

    Where whole percent would make both ends alike or leave the accuracy outside, they have a decimal, as in
    98.8 % (98.6–99.0).
    """
    value = 100 * accuracy.value
    low, high = (100 * end for end in accuracy.interval)
    digits = 0 if round(low) <= value <= round(high) and round(low) < round(high) else 1
    return f"{value:.1f}\u00a0% ({low:.{digits}f}\u2060–\u2060{high:.{digits}f})"


def share(mask: Tensor | NDArray[Any]) -> Accuracy:
    """The share of examples for which a mask (N,) of booleans is true, as an Accuracy. A tensor, or a report's column.

    Raises:
        TypeError: if the mask holds anything but booleans: a sum of labels or logits is no count.
        ValueError: if it has another shape than (N,), or N is 0.
    """
    if not (isinstance(mask, (Tensor, np.ndarray)) and mask.dtype in (torch.bool, np.bool_)):
        found = getattr(mask, "dtype", type(mask).__name__)
        raise TypeError(f"share needs a tensor of booleans, one for each example; found {found}")
    if mask.ndim != 1 or not len(mask):
        raise ValueError(f"share needs one boolean for each example, (N,) with N ≥ 1; found {tuple(mask.shape)}")
    return Accuracy.of(mask)


def not_broken(result: AttackResult) -> Accuracy:
    """The share of examples that an attack left standing: right before it, and right after it."""
    return share(~result.success)


def of_file(entry: Mapping[str, int]) -> Accuracy:
    """An accuracy as the results of the benchmarks and the models' cards keep it.

    Args:
        entry: "n", and how many of them were right as "right" or "correct". Other keys do not matter.

    Raises:
        KeyError: if one of the two is missing.
    """
    return Accuracy(entry["right" if "right" in entry else "correct"], entry["n"])


def results_folder() -> Path:
    """The folder benchmarks/results of the repository in which the notebook lies.

    Raises:
        FileNotFoundError: if neither the current folder nor any folder above it holds one.
    """
    return _above("benchmarks/results")


def glued(page: str) -> dict[str, str]:
    """The values that another page of the book hands to its text, as they are saved in it: nothing is run.

    Args:
        page: the notebook's path in the repository without its ending: "book/02_pgd".

    Returns:
        The texts by the names that the page's role `glue:text` has, with hyphens.

    Raises:
        FileNotFoundError: if there is no such notebook in the repository.
    """
    notebook = json.loads(_above(f"{page}.ipynb").read_text(encoding="utf-8"))
    return {output["metadata"]["scrapbook"]["name"]:
            ast.literal_eval("".join(output["data"][output["metadata"]["scrapbook"]["mime_prefix"] + "text/plain"]))
            for cell in notebook["cells"] for output in cell.get("outputs", ())
            if "scrapbook" in output.get("metadata", {})}


def _above(path: str) -> Path:
    """That path in the current folder or in the nearest one above it."""
    here = Path.cwd()
    for place in (here, *here.parents):
        if (place / path).exists():
            return place / path
    raise FileNotFoundError(f"{path} lies in no folder above this one: run the notebook inside the repository")


def watched(items: Iterable[Item]) -> Iterator[Item]:
    """The items, under a progress bar if they take over two seconds. It goes away at the end."""
    yield from tqdm(items, delay=2, leave=False)


def linf(levels: float) -> ThreatModel:
    """The L∞ threat model with ε = levels / 255: every value of a pixel may move by that many grey levels of 255."""
    return ThreatModel("linf", levels / 255)


def linear_model(w: Tensor, b: float | Tensor) -> Callable[[Tensor], Tensor]:
    """A linear classifier of two classes, whose attacks have a closed form.

    Args:
        w: the weights (D,), in the dtype of the images.
        b: the bias, one number.

    Returns:
        A function from images (N, …) with D values each to logits (N, 2): 0 and the margin w·x + b.
    """
    def logits(x: Tensor) -> Tensor:
        margin = x.flatten(1) @ w + b
        return torch.stack([torch.zeros_like(margin), margin], 1)

    return logits
