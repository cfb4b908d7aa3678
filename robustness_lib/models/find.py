"""A model by its name, as one says it on a command line: import path, zoo, torchvision or timm; and its weights."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.export import ExportedProgram

from robustness_lib.errors import blame
from robustness_lib.files import read_text
from robustness_lib.inputs import Say
from robustness_lib.model_kinds import check_usable, switch_to_eval
from robustness_lib.models._program_files import read_program
from robustness_lib.models._state_dict_files import load_into, outputs_held, read_state_dict
from robustness_lib.models.adapt import as_classifier
from robustness_lib.models.architectures import build
from robustness_lib.models.zoo import list_pretrained, load_pretrained

__all__ = ["find_model", "published_resizing", "with_published_resizing"]

_PROGRAMS = (".pt", ".pth", ".pt2", ".ts", ".jit", ".torchscript")
_FORMS = ('"my_pkg.models:make" or "my_models.py:make" (a function, a class or a model), "zoo:signs-pgd", '
          '"recipe:FILE.toml" (with weights), "net.pt" or "net.pt2" (a program of torch.jit or torch.export), '
          '"torchvision:resnet18" or "timm:resnet18.a1_in1k"')


class _Built(NamedTuple):
    """A model without the file of weights that may follow, and what its published weights expect of pixels."""

    model: nn.Module
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None


def find_model(name: str, weights: str | Path | None = None, *, classes: int | None = None,
               mean: Sequence[float] | None = None, std: Sequence[float] | None = None,
               output: str | int | Callable[[Any], torch.Tensor] = "auto", device: str | torch.device = "cpu",
               say: Say | None = None, seed: int = 0) -> nn.Module:
    """A model that takes images (N, C, H, W) in [0, 1] and returns logits (N, K), in eval mode, on `device`.

    name: one of
        "my_pkg.models:make", "folder/my_models.py:make"   a function without arguments that returns a model, a class
            of models, or a model. The current folder (and that of a file) can be imported from, then and later on.
        "zoo:signs-pgd"                                     shipped with this package
        "recipe:run/recipe.toml"                            the network that a training's recipe names (see
            `robustness train`); its weights are given by weights=
        "net.pt", "net.pt2"                                 a whole program: a TorchScript archive (torch.jit.save), or
            what torch.export.save wrote. Only from who you trust: it is code.
        "torchvision:resnet18", "timm:resnet18.a1_in1k"     where these are installed. Without weights= their published
            weights are used, and fetched if they are not here. A tag after a dot chooses among several.
    weights: a .safetensors file, or one that `torch.load(weights_only=True)` reads: a state_dict, plain or under
        "state_dict", "model" or the like, as training scripts, Lightning, timm and RobustBench write them. What wrapped
        the network when it was saved ("module." of DataParallel, torch.compile's prefix, "model." and other names
        before all) is taken off, or put on, where that makes everything match. Of weights and their moving average the
        weights are taken, which is said. A pickle that needs more is never opened. "random" leaves the model as it is
        built (with seed 0), which only shows what an evaluation costs. Into `wide_resnet` and `preact_resnet18` weights
        also load in the naming that others gave such nets, RobustBench's files among them; what a name in the file has
        to mean is declared, and one that is unknown or missing is refused.
    classes: outputs of a torchvision or timm model; by default as the weights have it.
    mean, std: the normalization that the model expects, per channel, in pixel units of [0, 1]. For published weights of
        torchvision and timm it is known and filled in.
    output: where the logits are in what the model returns; see `as_classifier`.
    say: is told, in a sentence each, what was decided for you (print, for example). By default nobody is.
    seed: of initial weights that are drawn, for a network without weights.

    Half-precision weights become float32. The global random generator is as it was afterwards.
    Raises ValueError for a name that leads nowhere, code that fails (with its last line and place), and weights that
    do not fit; FileNotFoundError for a file that is not there; TypeError for something that is no model.
    """
    tell: Say = say or (lambda sentence: None)
    if (mean is None) != (std is None):
        raise ValueError("give both mean and std, or neither")
    if str(name).startswith("recipe:"):
        table = _recipe_model(Path(name.removeprefix("recipe:")))
        if weights is None:
            raise ValueError(f"{name} says how the network is built; give its weights too, such as "
                             f"{Path(name.removeprefix('recipe:')).with_name('kept.safetensors')}")
        if "name" in table:
            if classes is not None or mean is not None or output != "auto":
                raise ValueError(f"{name} says classes, mean, std and output itself; leave them out")
            # Built as for its training, with published weights' normalization too; then the weights of all of it.
            model = find_model(**table, device=device, say=say)
            if str(weights) != "random":
                load_into(model, read_state_dict(Path(weights), tell), Path(weights), tell)
            return model
    # Initial weights are drawn from the global generator; a model is not to depend on who drew before.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        built = _build(name, weights, classes, device, tell)
    if mean is None and built.mean is not None:
        mean, std = built.mean, built.std
        tell(f"{name} expects normalized images, as its published weights say: {_figures(mean)} is subtracted and the "
             f"rest divided by {_figures(std or ())}, inside the model.")
    model = _full_precision(built.model, tell)
    check_usable(model)
    if not (name.startswith("zoo:") and mean is None and output == "auto"):  # those return logits, as they are
        model = as_classifier(model, mean=mean, std=std, output=output)
    switch_to_eval(model)
    try:
        return model.to(device)
    except (RuntimeError, AssertionError) as error:  # PyTorch without CUDA asserts
        raise ValueError(f"the model cannot be moved to {device}: {str(error).splitlines()[0]}") from None


def _build(name: str, weights: str | Path | None, classes: int | None, device: str | torch.device,
           say: Say) -> _Built:
    program = isinstance(name, str) and Path(name).suffix.lower() in _PROGRAMS
    if not isinstance(name, str) or (":" not in name and not program):
        raise ValueError(_no_such_form(name))
    where, _, what = ("program", "", name) if program else name.rpartition(":")
    if not where or not what:
        raise ValueError(_no_such_form(name))
    path = None if weights is None or str(weights) == "random" else Path(weights)
    state = None if path is None else read_state_dict(path, say)
    if where in ("torchvision", "timm"):
        library = _torchvision if where == "torchvision" else _timm
        built = library(what, weights, classes, say)
        if state is not None and classes is None and (held := outputs_held(built.model, state)) is not None:
            say(f"{what} is built with {held} outputs, as the weights have.")
            built = library(what, weights, held, say)
    elif classes is not None:
        raise ValueError("classes= is for models of torchvision and timm; your own function decides it itself")
    elif program:
        built = _Built(read_program(Path(name), device))
    elif where == "recipe":
        table = _recipe_model(Path(what))
        builder = table.pop("builder")
        built = _Built(build({"builder": builder, "arguments": table}))
    elif where == "zoo":
        if str(weights) == "random":
            raise ValueError(f"{name} comes with its weights, and weights=\"random\" would change nothing of it: leave "
                             f"weights out, or name the function that builds the network")
        built = _Built(load_pretrained(what))
    else:
        built = _Built(_own(where, what))
    if path is not None and state is not None:
        load_into(built.model, state, path, say)
    return built


def _recipe_model(path: Path) -> dict[str, Any]:
    """The table [model] of a recipe."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        table = tomllib.loads(read_text(path)).get("model")
    except ValueError as error:
        raise ValueError(f"{path} is no recipe: {error}") from error
    if not isinstance(table, dict) or not ("builder" in table or "name" in table):
        raise ValueError(f"{path} is no recipe: it has no table [model] with a builder or a name")
    return table


def _torchvision(what: str, weights: str | Path | None, classes: int | None, say: Say) -> _Built:
    from torchvision import models as library  # a second to import, and only needed here

    plain, _, tag = what.partition(".")
    known = library.list_models(module=library)
    if plain not in known:
        raise ValueError(f"torchvision has no classifier {plain!r}{_nearest(plain, known)}")
    published = library.get_model_weights(plain)
    if tag and tag not in published.__members__:
        raise ValueError(f"torchvision has no weights {tag!r} for {plain}; there are "
                         f"{', '.join(published.__members__)}")
    chosen = _published(plain, tag, weights)
    options = {} if classes is None else {"num_classes": classes}
    if weights is not None:
        model = library.get_model(plain, weights=None, **options)
    else:
        if classes not in (None, len(chosen.meta["categories"])):
            raise ValueError(f"the published weights of {plain} have {len(chosen.meta['categories'])} outputs, and "
                             f"{classes} were asked for: give your own weights")
        say(f"{plain} gets torchvision's published weights {chosen.name}.")
        model = library.get_model(plain, weights=None)
        model.load_state_dict(_fetched(what, lambda: chosen.get_state_dict(
            progress=False, check_hash=True, weights_only=True)))
    if chosen is None or str(weights) == "random":
        return _Built(model)
    transforms = chosen.transforms()
    say(f"{chosen} was made for images of {transforms.crop_size[0]} × {transforms.crop_size[0]} pixels (resize "
        f"{transforms.resize_size[0]}, crop {transforms.crop_size[0]}).")
    return _Built(model, transforms.mean, transforms.std)


def _published(plain: str, tag: str, weights: str | Path | None) -> Any:
    """The published weights of a torchvision model that are meant, or None."""
    from torchvision import models as library

    published = library.get_model_weights(plain)
    if tag or weights is None:
        return published[tag] if tag else published.DEFAULT
    # A file that is called as it was published holds what was published.
    return next((one for one in published if one.url.rpartition("/")[2] == Path(weights).name), None)


def published_resizing(name: str, weights: str | Path | None = None) -> tuple[str, bool] | None:
    """How images were resized for the published weights that a model's name means: the interpolation, and whether it
    was antialiased. None where there are none, or nobody knows them. name, weights: as for `find_model`."""
    where, _, what = str(name).rpartition(":")
    plain, _, tag = what.partition(".")
    if where == "torchvision":
        from torchvision import models as library

        known = library.list_models(module=library)
        if plain not in known or (tag and tag not in library.get_model_weights(plain).__members__):
            return None
        transforms = getattr(_published(plain, tag, weights), "transforms", lambda: None)()
        how = getattr(transforms, "interpolation", None)
        return None if how is None else (how.value, getattr(transforms, "antialias", True) is not False)
    if where == "timm" and importlib.util.find_spec("timm") is not None and (tag or weights is None):
        try:
            published = importlib.import_module("timm").get_pretrained_cfg(what)
        except RuntimeError:  # no such weights, which is said where the model is built
            return None
        how = getattr(published, "interpolation", None)
        return None if how is None else (how, True)  # timm resizes by PIL, which always does
    return None


def with_published_resizing(name: str, weights: str | Path | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of `find_data` that are given (and not None), and how images are resized where they are, nothing
    says how, and the published weights say it. name, weights: as for `find_model`."""
    given = {key: value for key, value in options.items() if value is not None}
    if "resize" not in given or "interpolation" in given:
        return given
    known = published_resizing(name, weights)
    return given if known is None else {"interpolation": known[0], "antialias": known[1], **given}


def _timm(what: str, weights: str | Path | None, classes: int | None, say: Say) -> _Built:
    try:
        timm: Any = importlib.import_module("timm")
    except ModuleNotFoundError:
        raise ValueError(f"timm:{what} needs timm, which is not installed here: pip install timm") from None
    plain, _, tag = what.partition(".")
    if not timm.is_model(plain):
        raise ValueError(f"timm has no model {plain!r}{_nearest(plain, timm.list_models())}")
    if tag and what not in timm.list_pretrained(f"{plain}.*"):
        known = [name.partition(".")[2] for name in timm.list_pretrained(f"{plain}.*")]
        raise ValueError(f"timm has no weights {tag!r} for {plain}; there are {', '.join(known) or 'none'}")
    if weights is None and not timm.is_model_pretrained(plain):
        raise ValueError(f"timm publishes no weights for {plain}: give your own")
    options = {} if classes is None else {"num_classes": classes}
    if weights is None:
        if classes is not None:
            raise ValueError(f"the published weights of {what} decide its outputs; classes= is for weights of your own")
        say(f"{what} gets timm's published weights.")
        model = _fetched(what, lambda: timm.create_model(what, pretrained=True))
    else:
        model = timm.create_model(what, pretrained=False, **options)
    if str(weights) == "random" or (weights is not None and not tag):
        return _Built(model)
    expects = timm.data.resolve_model_data_config(model)
    size = expects["input_size"][-1]
    say(f"timm:{what} was made for images of {size} × {size} pixels (resize {int(size / expects['crop_pct'])}, "
        f"crop {size}).")
    return _Built(model, expects["mean"], expects["std"])


def _fetched(what: str, fetch: Callable[[], Any]) -> Any:
    try:
        return fetch()
    except Exception as error:  # each library and each kind of broken connection has its own
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"the published weights of {what} are not here, and fetching them failed ({reason}). Where "
                         f"there is a network, fetch them once; or name a file of weights; or weights \"random\", to "
                         f"see what an evaluation costs") from None


def _own(where: str, what: str) -> nn.Module:
    """The model that `what` of the module or file `where` is, or makes."""
    seed = torch.initial_seed()
    module = _module(where)
    thing: Any = module
    for part in what.split("."):
        if not hasattr(thing, part):
            public = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")
                      and getattr(value, "__module__", None) == module.__name__]
            there = f"; it defines {', '.join(public[:12])}" if public else ""
            raise ValueError(f"{where} has no {what!r}{there}")
        thing = getattr(thing, part)
    if isinstance(thing, (nn.Module, ExportedProgram)):
        return _module_of(thing)
    if not callable(thing):
        raise TypeError(f"{where}:{what} is a {type(thing).__name__}; a function, a class or a model is needed")
    needed = _needed(thing)
    if needed:
        raise ValueError(f"{where}:{what} needs {', '.join(needed)}; name a function that needs nothing (write one "
                         f"that calls it)")
    torch.manual_seed(seed)  # again: importing it may have drawn, and that happens once only
    with blame(f"{where}:{what} failed"):
        model = thing()
    if isinstance(model, type) or not (callable(model) or isinstance(model, ExportedProgram)):
        raise TypeError(f"{where}:{what} returned a {type(model).__name__}; a torch.nn.Module is needed")
    return _module_of(model)


def _module_of(model: Any) -> nn.Module:
    """Of a module, an exported program, or a function of images."""
    if isinstance(model, ExportedProgram):
        return model.module()
    return model if isinstance(model, nn.Module) else as_classifier(model)


def _module(where: str) -> ModuleType:
    if where.endswith(".py") or "/" in where or "\\" in where:
        return _file(Path(where))
    folder = str(Path.cwd())
    if folder not in sys.path:  # as `python -m` does; it stays, since code often imports late
        sys.path.insert(0, folder)
    importlib.invalidate_caches()
    try:
        with blame(f"importing {where} failed"):
            return importlib.import_module(where)
    except ValueError as error:
        cause = error.__cause__
        if isinstance(cause, ModuleNotFoundError) and cause.name and f"{where}.".startswith(f"{cause.name}."):
            raise ValueError(f"there is no module {cause.name!r} to import, neither installed nor in {folder}. A model "
                             f"is named as {_FORMS}") from None
        raise


def _file(path: Path) -> ModuleType:
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path} to take a model from")
    folder = str(path.resolve().parent)
    if folder not in sys.path:  # so that it finds its neighbours, as when it is run
        sys.path.insert(0, folder)
    name = f"_model_file_{path.stem}"  # never the name of a module that is imported already
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path} cannot be imported: a file of Python is needed (.py)")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    with blame(f"importing {path} failed"):
        spec.loader.exec_module(module)
    return module


def _needed(thing: Callable[..., Any]) -> list[str]:
    """Names of the arguments that it cannot be called without."""
    try:
        parameters = inspect.signature(thing).parameters.values()
    except (TypeError, ValueError):
        return []
    return [p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]


def _full_precision(model: nn.Module, say: Say) -> nn.Module:
    if any(p.dtype in (torch.float16, torch.bfloat16) for p in (*model.parameters(), *model.buffers())):
        say("the model holds half precision; it is evaluated in float32.")
        return model.float()
    return model


def _no_such_form(name: object) -> str:
    hint = f' Did you mean "zoo:{name}"?' if name in list_pretrained() else ""
    return f"{name!r} names no model.{hint} A model is named as {_FORMS}"


def _nearest(name: str, known: Sequence[str]) -> str:
    import difflib

    near = difflib.get_close_matches(name, known, n=3)
    return f"; did you mean {', '.join(near)}?" if near else ""


def _figures(numbers: Sequence[float]) -> str:
    return ",".join(f"{number:g}" for number in numbers)
