"""A training as a file: what `robustness train` runs, and how every shipped network was made."""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robustness_lib.data import NAMES, find_data, held_out
from robustness_lib.models import build, find_model
from robustness_lib.threat import ThreatModel
from robustness_lib.training.augment import AUGMENTATIONS, Augmentation, Flip, Shift
from robustness_lib.training.fit import fit
from robustness_lib.training.history import History
from robustness_lib.training.objectives import TRADES, FastFGSM, GaussianNoise, Objective, PGDTraining, Standard
from robustness_lib.training.schedules import OneCycle, Piecewise, Schedule

__all__ = ["EXAMPLE", "Recipe", "find_recipe", "list_recipes", "read_recipe"]

_FOLDER = Path(__file__).parent / "recipes"
EXAMPLE = Path(__file__).with_name("example.toml")  # for the user's own model and data
OBJECTIVES: dict[str, type[Objective]] = {"standard": Standard, "gaussian": GaussianNoise, "fgsm-rs": FastFGSM,
                                          "pgd": PGDTraining, "trades": TRADES}
SCHEDULES: dict[str, type[Schedule]] = {"one-cycle": OneCycle, "piecewise": Piecewise}
CHANGES: dict[str, type[Augmentation]] = {"flip": Flip, "shift": Shift}
# Settings of `fit` that a recipe says elsewhere, or that belong to a run and not to its result.
_NOT_IN_FIT = {"model", "data", "objective", "augment", "schedule", "validation", "threat", "folder", "save_seconds",
               "seed", "workers", "progress", "on_epoch"}

Split = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Recipe:
    """name: the file's. architecture: {"builder", "arguments"} of a net of this package, or None where `model` names
    another (see `models.find_model`). data: see `data.find_data`. validation: a file, or how many images at most
    of the validation split (or of the tenth that is held out). augment_given: by the recipe, and not by the set's
    default in `AUGMENTATIONS`. settings: of `fit`."""

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

    @property
    def named_data(self) -> bool:
        """Whether it is a set that the package knows, with splits of its own."""
        return self.data in NAMES

    def build(self) -> nn.Module:
        """The net with its initial weights, which follow from the seed."""
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            return build(self.architecture) if self.architecture else find_model(**self.model)

    def load(self) -> tuple[Split, Split]:
        """Training and validation images with their labels."""
        if self.named_data:
            x, y, _ = find_data(self.data, split="train")
            x_val, y_val, _ = find_data(self.data, split="validation")
        else:
            x, y, _ = find_data(self.data)
            if isinstance(self.validation, str):
                x_val, y_val, _ = find_data(self.validation)
            else:
                out = torch.from_numpy(held_out(y.numpy()))
                (x, y), (x_val, y_val) = (x[~out], y[~out]), (x[out], y[out])
        most = self.validation if isinstance(self.validation, int) else None
        return (x, y), (x_val[:most], y_val[:most])

    def run(self, folder: Path | str | None = None, *, progress: bool = True,
            device: str | torch.device = "cpu") -> tuple[nn.Module, History]:
        """Train, or go on with what `folder` has begun. Returns the model in eval mode, and what happened."""
        data, validation = self.load()
        model = self.build().to(device)
        history = fit(model, data, self.objective, schedule=self.schedule, augment=self.augment, validation=validation,
                      threat=self.threat, folder=folder, seed=self.seed, progress=progress, **self.settings)
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
    try:
        return _parse(path.stem, tomllib.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from error


def find_recipe(source: str | Path) -> Path:
    """The file of a recipe. Raises FileNotFoundError."""
    path = _FOLDER / f"{source}.toml" if str(source) in list_recipes() else Path(source)
    if not path.is_file():
        raise FileNotFoundError(f"there is no recipe {source}: give a .toml file, or one of "
                                f"{', '.join(list_recipes())}")
    return path


def _parse(name: str, table: dict[str, Any]) -> Recipe:
    _known("the recipe", table, ("seed", "model", "data", "objective", "fit", "schedule"))
    for needed in ("model", "data", "objective", "fit"):
        if not isinstance(table.get(needed), dict):
            raise ValueError(f"a recipe needs a table [{needed}]")
    data, objective, settings = dict(table["data"]), dict(table["objective"]), dict(table["fit"])
    _known("[data]", data, ("name", "validation", "augment"))
    if "name" not in data:
        raise ValueError("[data] needs a name: a set that the package knows, an .npz file or a folder")
    hints = typing.get_type_hints(fit)
    names = hints.keys() - _NOT_IN_FIT - {"return"}
    _known("[fit]", settings, names | {"threat"})
    if "epochs" not in settings:
        raise ValueError("[fit] needs epochs")
    threat = settings.pop("threat", None)
    for key, value in settings.items():
        _check_type(f"[fit] {key}", value, hints[key])
    for where, value, hint in (("seed", table.get("seed", 0), int), ("[data] name", data["name"], str),
                               ("[data] validation", data.get("validation", 1000), str | int),
                               ("[data] augment", data.get("augment", []), list)):
        _check_type(where, value, hint)
    changes = data.get("augment")
    return Recipe(
        name=name,
        data=data["name"],
        objective=_make("[objective]", OBJECTIVES, objective),
        **_model(dict(table["model"])),
        validation=data.get("validation", 1000),
        threat=None if threat is None else _threat("[fit] threat", threat),
        augment=AUGMENTATIONS.get(data["name"], ()) if changes is None else tuple(
            _make("augment", CHANGES, {"kind": change} if isinstance(change, str) else change) for change in changes),
        schedule=_make("[schedule]", SCHEDULES, dict(table.get("schedule", {"kind": "one-cycle"}))),
        settings=settings,
        seed=table.get("seed", 0),
        augment_given=changes is not None,
    )


def _model(table: dict[str, Any]) -> dict[str, Any]:
    if "builder" in table:
        return {"architecture": {"builder": table.pop("builder"), "arguments": table}}
    if "name" not in table:
        raise ValueError('[model] needs a builder of this package ("small_cnn") with its arguments, or a name '
                         '("my_models.py:make", "torchvision:resnet18")')
    _known("[model]", table, ("name", "weights", "classes", "mean", "std", "output"))
    return {"model": table}


def _make(where: str, kinds: Mapping[str, type[Any]], table: dict[str, Any]) -> Any:
    """The dataclass that `kind` names, with the other entries as its fields."""
    kind = table.pop("kind", None)
    if kind not in kinds:
        raise ValueError(f"{where} needs a kind, one of {', '.join(kinds)}; found {kind!r}")
    fields = dataclasses.fields(kinds[kind])
    _known(f"{where} {kind}", table, [f.name for f in fields])
    missing = [f.name for f in fields if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
               and f.name not in table]
    if missing:
        raise ValueError(f"{where} {kind} needs {', '.join(missing)}")
    hints = typing.get_type_hints(kinds[kind])
    for key, value in table.items():
        if key == "threat":
            table[key] = _threat(f"{where} threat", value)
        else:
            _check_type(f"{where} {key}", value, hints[key])
    make: Callable[..., Any] = kinds[kind]
    return make(**table)


def _threat(where: str, value: object) -> ThreatModel:
    _check_type(where, value, str)
    return ThreatModel.parse(str(value))


def _check_type(where: str, value: object, hint: Any) -> None:
    """TOML knows text, whole and other numbers, true and false, and lists; a whole number will do for a number."""
    choices = typing.get_args(hint) if typing.get_origin(hint) in (types.UnionType, typing.Union) else (hint,)
    for choice in choices:
        origin = typing.get_origin(choice) or choice
        if origin is typing.Literal and value in typing.get_args(choice):
            return
        if origin is float and isinstance(value, int | float) and not isinstance(value, bool):
            return
        if origin is int and isinstance(value, int) and not isinstance(value, bool):
            return
        if (origin in (bool, str) and isinstance(value, origin)) or (
                origin in (list, Sequence) and isinstance(value, list)):
            return
    words = " or ".join(_WORDS.get(typing.get_origin(choice) or choice, f"one of {typing.get_args(choice)}")
                        for choice in choices if choice is not type(None))
    raise ValueError(f"{where} must be {words}; found {value!r}")


_WORDS: dict[Any, str] = {int: "a whole number", float: "a number", bool: "true or false", str: "text in quotes",
                          list: "a list", Sequence: "a list"}


def _known(where: str, table: Mapping[str, Any], names: Iterable[str]) -> None:
    names = sorted(names)
    for key in table:
        if key not in names:
            near = difflib.get_close_matches(key, names, 1)
            meant = f"Did you mean {near[0]}? " if near else ""
            raise ValueError(f"{where} has no setting {key!r}. {meant}It takes {', '.join(names)}")
