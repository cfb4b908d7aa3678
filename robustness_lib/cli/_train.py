"""robustness train: a recipe, run or gone on with."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Annotated

import torch
import typer

from robustness_lib.cli._compare import refuse
from robustness_lib.cli._options import DeviceOption, JsonOption, input_errors, prints_to_stderr
from robustness_lib.distributed import team_from_environment
from robustness_lib.models._blame import one_line, place
from robustness_lib.training import Diverged, History, Recipe, list_recipes, read_recipe
from robustness_lib.training.recipe import EXAMPLE, find_recipe

__all__ = ["train_command"]


def train_command(
    recipe: Annotated[str | None, typer.Argument(
        help=f"a .toml file, or one that a shipped network was made by: {', '.join(list_recipes())}",
        metavar="RECIPE")] = None,
    out: Annotated[Path | None, typer.Option(
        "--out", metavar="FOLDER", help="for weights, history and state; a killed run goes on when it is called again "
                                        "in the same way. Default: training/NAME")] = None,
    example: Annotated[bool, typer.Option("--example", help="print a recipe to begin from, and nothing else")] = False,
    device: DeviceOption = "auto", as_json: JsonOption = False,
) -> None:
    """Train a network as a recipe says. Several devices or machines: start it with torchrun --no-python.

    A recipe for a network and data of your own: robustness train --example > mine.toml

    FOLDER then holds kept.safetensors (the weights to use), best.safetensors and last.safetensors, history.json and
    recipe.toml.

    Exit codes: 0 trained to its end, or early by patience; 2 wrong usage or input; 3 the training came apart: the loss
    was no number any more, or accuracy under PGD collapsed; 130 interrupted.
    """
    if example:
        typer.echo(EXAMPLE.read_text(encoding="utf-8"), nl=False)
        raise typer.Exit(0)
    if recipe is None:
        refuse(f"name a recipe: a .toml file (--example prints one), or one of {', '.join(list_recipes())}")
    with input_errors(), prints_to_stderr(), team_from_environment() as team:
        found = read_recipe(recipe)
        folder = out or Path("training") / found.name
        if team.rank == 0:
            folder.mkdir(parents=True, exist_ok=True)
            typer.echo(describe(found, folder), err=True)
        where = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        try:
            _, history = found.run(folder, device=where, progress=team.rank == 0)
        except KeyboardInterrupt:
            typer.echo(f"Interrupted. The same command goes on where this one was; its work is kept in {folder}.",
                       err=True)
            raise typer.Exit(130) from None
        except Diverged as error:
            typer.echo(f"Stopped: {error}", err=True)
            raise typer.Exit(3) from None
        except (ValueError, TypeError, OSError):  # ours, in words already
            raise
        except Exception as error:
            at = place(error)
            raise ValueError(f"the model fails: {one_line(error)}{f' ({at})' if at else ''}") from error
        if team.rank == 0:
            shutil.copyfile(find_recipe(recipe), folder / "recipe.toml")
    if team.rank == 0:
        report(found, history, folder, as_json)
    raise typer.Exit(3 if history.collapsed else 0)


def describe(recipe: Recipe, folder: Path) -> str:
    """What will be done, and what was decided for the user, before it begins."""
    model = recipe.architecture["builder"] if recipe.architecture else recipe.model["name"]
    changes = ", ".join(map(str, recipe.augment)) or "none"
    default = "" if recipe.augment_given else (" (those that keep the label of this set)" if recipe.augment
                                               else " (none is safe for every set: [data] augment adds some)")
    lines = [f"{recipe.name}: {model} on {recipe.data}, {recipe.settings['epochs']} epochs",
             f"objective: {recipe.objective}", f"augmentation: {changes}{default}"]
    if not recipe.named_data and not isinstance(recipe.validation, str):
        lines.append("validation: a tenth of every class, held out ([data] validation names a file instead)")
    if (folder / "state.pt").exists():
        lines.append(f"going on with what is in {folder}")
    return "\n".join(lines)


def report(recipe: Recipe, history: History, folder: Path, as_json: bool) -> None:
    kept = history.epochs[history.kept - 1]
    threat = recipe.threat or getattr(recipe.objective, "threat", None)
    within = threat.text if threat else "linf:8/255"
    if as_json:
        typer.echo(json.dumps({"recipe": recipe.name, "epochs": len(history), "kept": history.kept,
                               "stopped": history.stopped, "weights": str(folder / "kept.safetensors"),
                               **{name: accuracy.value for name in ("clean", "fgsm", "robust")
                                  if (accuracy := getattr(kept, name)) is not None}}, ensure_ascii=False))
        return
    if history.stopped:
        typer.echo(f"Stopped early: {history.stopped}.")
    typer.echo(f"Kept: {kept} (on validation images, under an attack that is quick: not a verdict)")
    data = recipe.data if recipe.named_data else "TEST.npz"
    typer.echo(f"Next: robustness evaluate --model recipe:{folder / 'recipe.toml'} "
               f"--weights {folder / 'kept.safetensors'} --data {data} --threat {within}")
