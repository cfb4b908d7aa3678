"""robustness check: is the model what its evaluation will take it for?"""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from robustness_lib.cli._errors import any_errors, prints_to_stderr
from robustness_lib.cli._options import (
    AntialiasOption,
    ChannelsOption,
    ClassesOption,
    CropOption,
    DataOption,
    DebugOption,
    DeviceOption,
    InterpolationOption,
    JsonOption,
    MeanOption,
    ModelOption,
    OutputOption,
    ResizeOption,
    SeedOption,
    SplitOption,
    StdOption,
    WeightsOption,
    find_subject,
)
from robustness_lib.cli._progress import lines_without_terminal
from robustness_lib.diagnosis.inspect_model import Inspection, inspect_model
from robustness_lib.threat import ThreatModel

__all__ = ["check"]


def check(
    model: ModelOption, data: DataOption, weights: WeightsOption = None, mean: MeanOption = None,
    std: StdOption = None, output: OutputOption = "auto", classes: ClassesOption = None, device: DeviceOption = "auto",
    n: Annotated[int, typer.Option("-n", metavar="N", help="images, at most", min=1)] = 500,
    split: SplitOption = "test", resize: ResizeOption = None, crop: CropOption = None, channels: ChannelsOption = None,
    interpolation: InterpolationOption = None, antialias: AntialiasOption = None,
    threat: Annotated[str | None, typer.Option(
        "--threat", metavar="NORM:EPS", help="the threat model to come, such as linf:8/255")] = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", metavar="N", min=1, help="images in a call")] = None,
    seed: SeedOption = 0, as_json: JsonOption = False, debug: DebugOption = False,
) -> None:
    """Look at a model before its evaluation: normalization, output, labels, steadiness, gradient and speed.

    Exit codes: 0 nothing speaks against an evaluation; 1 something does; 2 wrong usage or input.
    """
    with any_errors(debug), prints_to_stderr(), lines_without_terminal("looking at the model and the data") as lines:
        against = None if threat is None else ThreatModel.parse(threat)
        subject = find_subject(model, data, n, weights=weights, classes=classes, mean=mean, std=std, output=output,
                               device=device, split=split, seed=seed, resize=resize, crop=crop, channels=channels,
                               interpolation=interpolation, antialias=antialias)
        lines.words = "asking and attacking the model"
        found = inspect_model(subject.model, subject.x, subject.y, threat=against, classes=subject.classes,
                              batch_size=batch_size)
    if as_json:
        typer.echo(found.to_json(), nl=False)
    else:
        _show(found, Console())
    raise typer.Exit(0 if found.fine else 1)


def _show(found: Inspection, console: Console) -> None:
    table = Table(show_header=False)
    for name, value in _rows(found):
        table.add_row(name, escape(value))
    console.print(table)
    for remark in found.remarks:
        mark = "[red]problem[/]" if remark.serious else "[yellow]note[/]"
        console.print(f"{mark} {escape(str(remark))}", highlight=False, soft_wrap=True)
    console.print("Something speaks against an evaluation: see above." if not found.fine else
                  "Nothing speaks against an evaluation.", highlight=False)


def _rows(found: Inspection) -> list[tuple[str, str]]:
    independent = {True: "no", False: "yes", None: "not known"}[found.independent]
    backward = "none" if found.gradient_ms is None else f"{found.gradient_ms:.1f} ms"
    return [
        ("accuracy as given", str(found.accuracy)),
        *_otherwise(found),
        ("output", f"{found.output}, {found.outputs} numbers; the data have {found.classes} classes"),
        ("same answer twice", "yes" if found.repeats else "no"),
        ("depends on the batch", independent),
        ("in training mode", ", ".join(found.training[:3]) or "nothing"),
        ("images with a gradient", f"{100 * found.gradient:.0f} %"),
        ("parameters", f"{found.parameters:,}, {found.dtype}, on {found.device}"),
        (f"one call, {found.batch} images", f"forward {found.forward_ms:.1f} ms, gradient {backward}"),
    ]


def _otherwise(found: Inspection) -> list[tuple[str, str]]:
    """The other alternatives that are better; else the best of them, to show that they were tried."""
    ranked = sorted(found.alternatives, key=lambda alternative: -alternative.accuracy.value)
    shown = [alternative for alternative in ranked if alternative.better]
    if shown:
        return [(f"  with {alternative.name}", str(alternative.accuracy)) for alternative in shown]
    return [("  read otherwise", f"not clearly better; {ranked[0].words}")] if ranked else []
