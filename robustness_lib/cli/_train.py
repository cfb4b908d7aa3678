"""robustness train: a recipe, run or gone on with."""

from __future__ import annotations

import dataclasses
import json
import shlex
import tomllib
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import nn

from robustness_lib.cli._errors import any_errors, failures, prints_to_stderr, refuse
from robustness_lib.cli._options import DebugOption, DeviceOption, JsonOption
from robustness_lib.cli._progress import lines_without_terminal, on_terminal
from robustness_lib.distributed import Team, team_from_environment
from robustness_lib.errors import said_to_be_at
from robustness_lib.files import as_text, read_text, write_whole
from robustness_lib.threat import ThreatModel
from robustness_lib.training import Diverged, Epoch, History, Recipe, list_recipes, read_recipe
from robustness_lib.training.recipe import EXAMPLE, Split, find_recipe

__all__ = ["train_command"]


def train_command(
    recipe: Annotated[str | None, typer.Argument(
        help="a .toml file (--example prints one), or the name of one that comes with the package (--list)",
        metavar="RECIPE")] = None,
    out: Annotated[Path | None, typer.Option(
        "--out", metavar="FOLDER", help="for weights, history and state; a killed run goes on when it is called again "
                                        "in the same way. Default: training/NAME")] = None,
    listed: Annotated[bool, typer.Option("--list", help="print the recipes that come with the package")] = False,
    example: Annotated[bool, typer.Option("--example", help="print a recipe to begin from, for a network and data of "
                                                            "your own")] = False,
    device: DeviceOption = "auto", as_json: JsonOption = False, debug: DebugOption = False,
) -> None:
    """Train a network as a recipe says. Several devices or machines: start it with torchrun --no-python.

    A recipe for a network and data of your own: robustness train --example > mine.toml. Files that it names are
    looked for in the folder where you are.

    FOLDER then holds kept.safetensors (the weights to use), best.safetensors and last.safetensors, history.json, the
    recipe, and the state (which may be deleted).

    Exit codes: 0 trained to its end, now or before, or early by patience; 2 wrong usage or input; 3 the training came
    apart: the loss was no number any more, or accuracy under PGD collapsed (with on_collapse = "stop"); 130
    interrupted.
    """
    if example:
        typer.echo(EXAMPLE.read_text(encoding="utf-8"), nl=False)
        return
    if listed:
        typer.echo("\n".join(_listing()))
        return
    if recipe is None:
        refuse(f"name a recipe: a .toml file (--example prints one), or one of {', '.join(list_recipes())}")
    with any_errors(debug), prints_to_stderr():
        found, path = read_recipe(recipe), find_recipe(recipe)
        content, folder = path.read_bytes(), out or Path("training") / found.name
        _check_same(folder / "recipe.toml", content)
        with team_from_environment() as team, said_to_be_at(str(path)):
            history = _train(found, folder, _device(device), team)
        if team.rank == 0:
            write_whole(folder / "recipe.toml", content)
    if team.rank == 0:
        _report(found, history, folder, as_json)
    raise typer.Exit(3 if history.collapsed and history.stopped is not None else 0)


def _train(recipe: Recipe, folder: Path, device: str, team: Team) -> History:
    def say(words: str) -> None:
        if team.rank == 0:
            typer.echo(words, err=True)

    def started(model: nn.Module, data: Split, validation: Split) -> None:
        say("\n".join(_description(recipe, model, data, validation, device)))
        if (words := _so_far(folder)) is not None:
            say(words)

    def done(model: nn.Module, epoch: Epoch) -> None:
        if epoch.score is not None:
            say(str(epoch))
        lines.words = f"training: {epoch.epoch} of {recipe.settings['epochs']} epochs done"

    again = f"Interrupted. The same command goes on from the last state in {folder}."
    first = team.rank == 0
    with lines_without_terminal("training: no epoch done in this run", first) as lines, failures("training", again):
        try:
            return recipe.run(folder, device=device, progress=first and on_terminal(), on_start=started,
                              on_epoch=done)[1]
        except Diverged as error:
            say(f"Stopped: {error}")
            raise typer.Exit(3) from None


def _check_same(kept: Path, content: bytes) -> None:
    """A folder's own recipe says what its weights were made by."""
    if not kept.exists():
        return
    theirs, mine = (_lines(tomllib.loads(text)) for text in (read_text(kept), as_text(content)))
    different = [f"{key} (was {theirs.get(key, 'not said')}, is {mine.get(key, 'not said')})"
                 for key in sorted(theirs.keys() | mine.keys()) if theirs.get(key) != mine.get(key)]
    if different:
        raise ValueError(f"the training in {kept.parent} is another one: not the same {'; '.join(different)}. Name "
                         f"another folder by --out, or delete this one to begin again.")


def _lines(table: dict[str, Any], before: str = "") -> dict[str, Any]:
    """A recipe's settings by name, "[fit] epochs"."""
    lines: dict[str, Any] = {}
    for key, entry in table.items():
        lines |= _lines(entry, f"[{key}] ") if isinstance(entry, dict) else {before + key: entry}
    return lines


def _device(name: str) -> str:
    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name


def _listing() -> list[str]:
    """Each recipe's name and first line."""
    width = max(map(len, list_recipes()))
    return [f"{name:<{width}}  {read_text(find_recipe(name)).partition(chr(10))[0].lstrip('# ')}"
            for name in list_recipes()]


def _description(recipe: Recipe, model: nn.Module, data: Split, validation: Split, device: str) -> list[str]:
    """What will be done, and what was decided for the user, before it begins."""
    called = recipe.architecture["builder"] if recipe.architecture else recipe.model["name"]
    parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    source = ("a file or folder of its own" if isinstance(recipe.validation, str) else
              "its validation split" if recipe.named_data else
              "held out, a tenth of every class; [data] validation names a file instead")
    threat = _threat(recipe)
    judged = "clean accuracy" if threat is None else f"accuracy within {threat} under PGD"
    best = recipe.settings.get("keep", "best") == "best"
    return [f"{recipe.name}: {called}, {parameters:,} parameters to train, on {device}",
            f"data: {recipe.data}, {len(data[0]):,} images for training, {len(validation[0]):,} for validation "
            f"({source})",
            *_resizing(recipe), f"augmentation: {_augmentation(recipe)}", f"objective: {_words(recipe.objective)}",
            f"epochs: {recipe.settings['epochs']}; kept are the weights of the "
            + (f"best by {judged}" if best else f"last; {judged} is watched") + " on the validation images"]


def _resizing(recipe: Recipe) -> list[str]:
    how = recipe.preparation
    if "resize" not in how:
        return []
    source = ("as the recipe says" if "interpolation" in recipe.prepare else
              f"as {recipe.model['name']} has it" if "interpolation" in how else
              "torchvision's default; [data] interpolation and antialias name another way")
    antialias = "with" if how.get("antialias", True) else "without"
    return [f"resizing: {how.get('interpolation', 'bilinear')}, {antialias} antialiasing, {source}"]


def _augmentation(recipe: Recipe) -> str:
    changes = ", ".join(map(str, recipe.augment)) or "none"
    if recipe.augment_given:
        return f"{changes}, as the recipe says"
    if recipe.named_data:
        return f"{changes}, what keeps the label in {recipe.data}"
    return "none, since what keeps a label depends on the data: [data] augment = [\"flip\", \"shift\"] adds some"


def _words(objective: object) -> str:
    """Its name and settings, ε as people write it."""
    assert dataclasses.is_dataclass(objective)
    pairs = [(field.name, getattr(objective, field.name)) for field in dataclasses.fields(objective)]
    return ", ".join([type(objective).__name__, *(f"{name} {value}" for name, value in pairs
                                                  if value is not None and (name, value) != ("label_smoothing", 0))])


def _so_far(folder: Path) -> str | None:
    """What the folder has, or None for nothing."""
    if not (folder / "state.pt").exists():
        return None
    if (folder / "kept.safetensors").exists():
        return f"{folder} holds a finished training: nothing is left to do"
    return f"going on with what is in {folder}"


def _threat(recipe: Recipe) -> ThreatModel | None:
    return recipe.threat or getattr(recipe.objective, "threat", None)


def _next_command(recipe: Recipe, folder: Path) -> tuple[str, str]:
    """How robustness is measured, and what to think of first."""
    threat, data, advice = _threat(recipe), recipe.data, ""
    if not recipe.named_data:
        data = recipe.validation if isinstance(recipe.validation, str) else recipe.data
        seen = "" if isinstance(recipe.validation, str) else " It has been trained on most of these."
        advice = (f"For a figure to quote, name in place of {data} images that training and the choice of an epoch "
                  f"have not seen.{seen}")
    words = ["robustness", "evaluate", "--model", f"recipe:{folder / 'recipe.toml'}", "--weights",
             str(folder / "kept.safetensors"), "--data", data, "--threat", threat.text if threat else "linf:8/255"]
    return shlex.join(words), advice


def _report(recipe: Recipe, history: History, folder: Path, as_json: bool) -> None:
    kept, (command, advice) = history.epochs[history.kept - 1], _next_command(recipe, folder)
    accuracies = {name: accuracy for name in ("clean", "fgsm", "robust")
                  if (accuracy := getattr(kept, name)) is not None}
    if as_json:
        typer.echo(json.dumps({
            "recipe": recipe.name, "folder": str(folder), "weights": str(folder / "kept.safetensors"),
            "epochs": len(history), "kept": history.kept, "stopped": history.stopped, "collapsed": history.collapsed,
            "noted": history.noted, "seconds": history.seconds,
            **{name: accuracy.value for name, accuracy in accuracies.items()},
            "validation": None if not accuracies else accuracies["clean"].n, "next": command}, ensure_ascii=False))
        return
    if history.stopped:
        typer.echo(f"Stopped early: {history.stopped}.")
    if history.noted:
        typer.echo(f"Noted: {history.noted}.")
    typer.echo(f"Kept: {kept} (on validation images, under an attack that is quick: no verdict)")
    held = {"kept": f"the weights of epoch {history.kept}, to be used",
            "best": "those of the best epoch on validation images", "last": "those of the last epoch"}
    for name, words in held.items():
        if (file := folder / f"{name}.safetensors").exists():
            typer.echo(f"{file}: {words}")
    typer.echo(f"Next: {command}")
    if advice:
        typer.echo(advice)
