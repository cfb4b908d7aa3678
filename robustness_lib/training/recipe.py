"""A training as a file: what `robustness train` runs, and how every shipped network was made.

`example.toml` beside this file is a whole recipe for a network and data of one's own (`robustness train --example`).
Names of files in a recipe are meant from where it is run.
"""

from __future__ import annotations

import tomllib
import typing
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robustness_lib.data import NAMES, find_data, held_out
from robustness_lib.errors import described, in_words, said_to_be_at
from robustness_lib.files import read_text
from robustness_lib.models import build, find_model, with_published_resizing
from robustness_lib.threat import ThreatModel
from robustness_lib.training._checks import check_answer
from robustness_lib.training._toml_tables import check_known, check_type, make, threat
from robustness_lib.training.augment import AUGMENTATIONS, Augmentation, Flip, Shift
from robustness_lib.training.bound_initialization import initialize_for_bounds
from robustness_lib.training.bound_objectives import IBP, CrownIBP
from robustness_lib.training.fit import OnEpoch, fit
from robustness_lib.training.history import History
from robustness_lib.training.lipschitz_objective import LipschitzMargin
from robustness_lib.training.objectives import (
    TRADES,
    FastFGSM,
    GaussianAugmentation,
    Objective,
    PGDTraining,
    SmoothAdversarial,
    Standard,
)
from robustness_lib.training.schedules import OneCycle, Piecewise, Schedule

__all__ = ["EXAMPLE", "Recipe", "find_recipe", "list_recipes", "read_recipe"]

_FOLDER = Path(__file__).parent / "recipes"
EXAMPLE = Path(__file__).with_name("example.toml")  # for the user's own model and data
OBJECTIVES: dict[str, type[Objective]] = {"standard": Standard, "gaussian": GaussianAugmentation, "fgsm-rs": FastFGSM,
                                          "pgd": PGDTraining, "trades": TRADES, "smoothadv": SmoothAdversarial,
                                          "ibp": IBP, "crown-ibp": CrownIBP, "lipschitz": LipschitzMargin}
SCHEDULES: dict[str, type[Schedule]] = {"one-cycle": OneCycle, "piecewise": Piecewise}
INITIALIZATIONS = {"for-bounds": initialize_for_bounds}
CHANGES: dict[str, type[Augmentation]] = {"flip": Flip, "shift": Shift}
# Settings of `fit` that a recipe says elsewhere, or that belong to a run and not to its result.
_NOT_IN_FIT = {"model", "data", "objective", "augment", "schedule", "validation", "threat", "folder", "save_seconds",
               "seed", "workers", "progress", "on_epoch"}
_OF_MODEL = {"name": str, "weights": str, "classes": int, "mean": list[float], "std": list[float], "output": str | int}
_OF_FOLDERS = {"resize": int, "crop": int, "channels": int, "interpolation": str, "antialias": bool}

Split = tuple[Tensor, Tensor]
OnStart = Callable[[nn.Module, Split, Split], None]


@dataclass(frozen=True)
class Recipe:
    """name: the file's. architecture: {"builder", "arguments"} of a net of this package, or None where `model` names
    another (see `models.find_model`). initialization: "for-bounds" draws the weights again by `initialize_for_bounds`.
    data: see `data.find_data`. validation: a file or folder, or how many images at most of the validation split (or of
    the tenth that is held out). augment_given: by the recipe, and not by the set's default in `AUGMENTATIONS`.
    settings: of `fit`. prepare: resize, crop, channels, interpolation and antialias of `find_data`, for folders: how
    images of many sizes become alike."""

    name: str
    data: str
    objective: Objective
    architecture: dict[str, Any] | None = None
    model: dict[str, Any] = field(default_factory=dict)
    validation: str | int = 1000
    threat: ThreatModel | None = None
    augment: tuple[Augmentation, ...] = ()
    schedule: Schedule = field(default_factory=OneCycle)
    settings: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    augment_given: bool = True
    initialization: str | None = None
    prepare: dict[str, Any] = field(default_factory=dict)

    @property
    def named_data(self) -> bool:
        """Whether it is a set that the package knows, with splits of its own."""
        return self.data in NAMES

    @property
    def preparation(self) -> dict[str, Any]:
        """`prepare`, and how images are resized where the published weights of the model say it and the recipe does
        not."""
        return with_published_resizing(self.model.get("name", ""), self.model.get("weights"), self.prepare)

    def build(self) -> nn.Module:
        """The net with its initial weights, which follow from the seed. Raises ValueError."""
        with torch.random.fork_rng(), said_to_be_at("[model]"):
            torch.manual_seed(self.seed)
            try:
                model = build(self.architecture) if self.architecture else find_model(**self.model, seed=self.seed)
                if self.initialization is not None:
                    INITIALIZATIONS[self.initialization](model)
                return model
            except (RuntimeError, ArithmeticError) as error:  # PyTorch, of sizes that cannot be
                raise ValueError(f"it cannot be built: {' '.join(str(error).split())}") from error

    def load(self) -> tuple[Split, Split]:
        """Training and validation images with their labels. Raises ValueError, FileNotFoundError."""
        with said_to_be_at("[data] name"):
            how = self.preparation
            x, y, classes = find_data(self.data, split="train" if self.named_data else "test", **how)
        if isinstance(self.validation, str):
            with said_to_be_at("[data] validation"):
                x_val, y_val, theirs = find_data(self.validation, **how)
                if Path(self.data).is_dir() and any(a != b for a, b in zip(classes, theirs, strict=False)):
                    raise ValueError(f"the folders of {self.validation} are not those of {self.data}, so that labels "
                                     f"would mean other classes: {', '.join(theirs)}")
            return (x, y), (x_val, y_val)
        if self.named_data:
            x_val, y_val, _ = find_data(self.data, split="validation")
        else:
            out = torch.from_numpy(held_out(y.numpy()))
            (x, y), (x_val, y_val) = (x[~out], y[~out]), (x[out], y[out])
        rows = torch.arange(len(x_val))
        if self.validation < len(x_val) and not self.named_data:  # in the order of a file or folder, often by class
            rows = torch.randperm(len(x_val), generator=torch.Generator().manual_seed(self.seed))
        return (x, y), (x_val[rows[:self.validation]], y_val[rows[:self.validation]])

    def run(self, folder: Path | str | None = None, *, progress: bool = True, device: str | torch.device = "cpu",
            on_start: OnStart | None = None, on_epoch: OnEpoch | None = None) -> tuple[nn.Module, History]:
        """Train, or go on with what `folder` has begun. Returns the model in eval mode, and what happened.

        on_start: called with the model, the training and the validation images, before anything is trained.
        Raises what `fit` does; ValueError, which names table and key, for data and models that do not fit together.
        """
        data, validation = self.load()
        model = self.build()
        try:
            model = model.to(device)
        except (RuntimeError, AssertionError) as error:  # PyTorch without CUDA asserts
            raise ValueError(f"the model cannot be moved to {device}: {str(error).splitlines()[0]}") from None
        with torch.random.fork_rng():  # models may draw
            for key, (x, y) in (("name", data), ("validation", validation)):
                with said_to_be_at(f"[data] {key}"):
                    _check_fit(model, x, y)
        if on_start is not None:
            on_start(model, data, validation)
        try:
            history = fit(model, data, self.objective, schedule=self.schedule, augment=self.augment,
                          validation=validation, threat=self.threat, folder=folder, seed=self.seed, progress=progress,
                          on_epoch=on_epoch, **self.settings)
        except (ValueError, TypeError) as error:
            # What `fit` has to say of a setting begins with its name.
            of_setting = any(str(error).startswith(f"{name} ") for name in self.settings)
            raise ValueError(f"[fit] {error}" if of_setting else str(error)) from error
        return model, history


def list_recipes() -> list[str]:
    """Names of the recipes that come with the package, sorted."""
    return sorted(path.stem for path in _FOLDER.glob("*.toml"))


def read_recipe(source: str | Path) -> Recipe:
    """A recipe by the name of one that comes with the package, or from a .toml file.

    Raises FileNotFoundError where neither is there, ValueError, which names the file, the table and the key, for what
    a recipe cannot say.
    """
    path = find_recipe(source)
    with said_to_be_at(str(path)):
        return _parse(path.stem, tomllib.loads(read_text(path)))


def find_recipe(source: str | Path) -> Path:
    """The file of a recipe. Raises FileNotFoundError."""
    path = _FOLDER / f"{source}.toml" if str(source) in list_recipes() else Path(source)
    if not path.is_file():
        raise FileNotFoundError(f"there is no recipe {source}: give a .toml file, or one of "
                                f"{', '.join(list_recipes())}")
    return path


def _parse(name: str, table: dict[str, Any]) -> Recipe:
    check_known("the recipe", table, ("seed", "model", "data", "objective", "fit", "schedule"))
    for needed in ("model", "data", "objective", "fit"):
        if not isinstance(table.get(needed), dict):
            raise ValueError(f"a recipe needs a table [{needed}]")
    check_type("seed", seed := table.get("seed", 0), int)
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed must lie between 0 and 2^32 - 1; found {seed}")
    check_type("[schedule]", schedule := table.get("schedule", {"kind": "one-cycle"}), dict)
    objective = make("[objective]", OBJECTIVES, table["objective"])
    return Recipe(name=name, seed=seed, objective=objective, schedule=make("[schedule]", SCHEDULES, schedule),
                  **_model(table["model"]), **_data(table["data"]), **_fit(table["fit"]))


def _model(table: dict[str, Any]) -> dict[str, Any]:
    table = dict(table)
    initialization = table.pop("initialization", None)
    return _named_model(table) | {"initialization": _initialization(initialization, table)}


def _initialization(name: Any, table: dict[str, Any]) -> str | None:
    if name is None:
        return None
    check_type("[model] initialization", name, str)
    if name not in INITIALIZATIONS:
        raise ValueError(f"[model] initialization must be {', '.join(INITIALIZATIONS)}; found {name!r}")
    if "weights" in table:
        raise ValueError("[model] initialization would draw the weights again that weights = "
                         f"{table['weights']!r} names: give one of the two")
    return str(name)


def _named_model(table: dict[str, Any]) -> dict[str, Any]:
    if "builder" in table:
        check_type("[model] builder", table["builder"], str)
        arguments = {key: value for key, value in table.items() if key != "builder"}
        return {"architecture": {"builder": table["builder"], "arguments": arguments}}
    if "name" not in table:
        raise ValueError('[model] needs a builder of this package ("small_cnn") with its arguments, or a name '
                         '("my_models.py:make", "torchvision:resnet18")')
    check_known("[model]", table, _OF_MODEL)
    for key, value in table.items():
        check_type(f"[model] {key}", value, _OF_MODEL[key])
    return {"model": table}


def _data(table: dict[str, Any]) -> dict[str, Any]:
    check_known("[data]", table, ("name", "validation", "augment", *_OF_FOLDERS))
    if "name" not in table:
        raise ValueError("[data] needs a name: a set that the package knows, an .npz file or a folder")
    validation, changes = table.get("validation", 1000), table.get("augment")
    check_type("[data] name", table["name"], str)
    check_type("[data] validation", validation, str | int)
    if isinstance(validation, int) and validation < 1:
        raise ValueError(f"[data] validation must be at least 1 image, or a file; found {validation}")
    if changes is not None:
        check_type("[data] augment", changes, list)
    for key in _OF_FOLDERS.keys() & table.keys():
        check_type(f"[data] {key}", table[key], _OF_FOLDERS[key])
    return {"data": table["name"], "validation": validation, "augment_given": changes is not None,
            "augment": AUGMENTATIONS.get(table["name"], ()) if changes is None else tuple(map(_change, changes)),
            "prepare": {key: table[key] for key in _OF_FOLDERS if key in table}}


def _change(entry: Any) -> Augmentation:
    check_type("[data] augment, each entry,", entry, str | dict)
    change: Augmentation = make("[data] augment", CHANGES, {"kind": entry} if isinstance(entry, str) else entry)
    return change


def _fit(table: dict[str, Any]) -> dict[str, Any]:
    hints = typing.get_type_hints(fit)
    check_known("[fit]", table, (hints.keys() - _NOT_IN_FIT - {"return"}) | {"threat"})
    if "epochs" not in table:
        raise ValueError("[fit] needs epochs")
    for key, value in table.items():
        if key != "threat":
            check_type(f"[fit] {key}", value, hints[key])
    return {"settings": {key: value for key, value in table.items() if key != "threat"},
            "threat": threat("[fit] threat", table["threat"]) if "threat" in table else None}


def _check_fit(model: nn.Module, x: Tensor, y: Tensor) -> None:
    """Before anything is trained: the model takes such an image, and has an output for each label."""
    device = next((p.device for p in model.parameters()), x.device)
    try:
        outputs = check_answer(model, device, x)
    except Exception as error:  # of the user's model, any
        raise ValueError(f"[model] fails on its first image, of shape {tuple(x.shape[1:])}: "
                         f"{' '.join(str(error).split()) if in_words(error) else described(error)}") from error
    if int(y.max()) >= outputs:
        raise ValueError(f"it has the label {int(y.max())}, and [model] has {outputs} outputs: labels from 0 to "
                         f"{outputs - 1} (image {int((y >= outputs).nonzero()[0])} is the first with a higher one)")
