"""Options that several commands share, and what they turn into: a model, its data, a threat model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from typing import Annotated, Any, NamedTuple

import torch
import typer
from torch import Tensor, nn

from robustness_lib.data import find_data
from robustness_lib.errors import blame
from robustness_lib.models import find_model, with_published_resizing
from robustness_lib.models.normalizations import NORMALIZATIONS
from robustness_lib.querying.confirm_predictions import predict_logits

__all__ = ["AntialiasOption", "ChannelsOption", "ClassesOption", "CropOption", "DataOption", "DebugOption",
           "DeviceOption", "InterpolationOption", "JsonOption", "MeanOption", "ModelOption", "OutputOption",
           "ResizeOption", "SeedOption", "SplitOption", "StdOption", "Subject", "ThreatOption",
           "WeightsOption", "as_number", "check_least_percent", "class_names", "find_subject", "number_of",
           "subject_options"]

_MODEL, _DATA = "Model", "Data"

ModelOption = Annotated[str, typer.Option(
    "--model", metavar="NAME", rich_help_panel=_MODEL,
    help="my_pkg.models:make or my_models.py:make (a function, a class or a model), zoo:signs-pgd, "
         "recipe:run/recipe.toml (of robustness train, with its weights), net.pt or net.pt2 (a program of torch.jit or "
         "torch.export), torchvision:resnet18, timm:resnet18.a1_in1k")]
WeightsOption = Annotated[str | None, typer.Option(
    "--weights", metavar="FILE", rich_help_panel=_MODEL,
    help=".safetensors, or a file of tensors written by torch.save; \"random\" for none, to see what a run costs")]
ClassesOption = Annotated[int | None, typer.Option(
    "--classes", metavar="K", rich_help_panel=_MODEL,
    help="outputs of a torchvision or timm model; by default as the weights have it")]
MeanOption = Annotated[str | None, typer.Option(
    "--mean", metavar="M,M,M", rich_help_panel=_MODEL,
    help="normalization that the model expects, per channel, in pixel units of [0, 1]: 0.485,0.456,0.406, or with its "
         f"std by name: {', '.join(NORMALIZATIONS)}")]
StdOption = Annotated[str | None, typer.Option(
    "--std", metavar="S,S,S", rich_help_panel=_MODEL, help="the same, what is divided by: 0.229,0.224,0.225")]
OutputOption = Annotated[str, typer.Option(
    "--output", metavar="WHERE", rich_help_panel=_MODEL,
    help="where the logits are in what the model returns: auto, binary (one number per image), or a name or number "
         "in a mapping or tuple")]
DeviceOption = Annotated[str, typer.Option(
    "--device", metavar="DEVICE", rich_help_panel=_MODEL, help="cpu, cuda, ...; auto is cuda where there is one")]
DataOption = Annotated[str, typer.Option(
    "--data", metavar="NAME", rich_help_panel=_DATA,
    help="signs, cifar10, ... (robustness data list); an .npz file with images (or video, signals, points) and labels; "
         "a folder of images with one subfolder per class")]
SplitOption = Annotated[str, typer.Option(
    "--split", metavar="SPLIT", rich_help_panel=_DATA, help="of a named set: train, validation or test")]
ResizeOption = Annotated[int | None, typer.Option(
    "--resize", metavar="PIXELS", rich_help_panel=_DATA, help="of a folder's images: the shorter side")]
CropOption = Annotated[int | None, typer.Option(
    "--crop", metavar="PIXELS", rich_help_panel=_DATA, help="of a folder's images: the middle square, after --resize")]
InterpolationOption = Annotated[str | None, typer.Option(
    "--interpolation", metavar="NAME", rich_help_panel=_DATA,
    help="how --resize is done: bilinear, bicubic, nearest, ...; by default as the published weights that are named "
         "have it, else bilinear")]
AntialiasOption = Annotated[bool | None, typer.Option(
    "--antialias/--no-antialias", rich_help_panel=_DATA,
    help="whether --resize smooths first; by default as the published weights have it, else it does")]
ChannelsOption = Annotated[int | None, typer.Option(
    "--channels", metavar="1|3", rich_help_panel=_DATA,
    help="of a folder's images; by default 1 where all are grey")]
ThreatOption = Annotated[str, typer.Option(
    "--threat", metavar="NORM:EPS", help="such as linf:8/255 or l2:0.5, in pixel units of [0, 1]")]
SeedOption = Annotated[int, typer.Option("--seed", metavar="SEED", help="of everything that is drawn")]
JsonOption = Annotated[bool, typer.Option("--json", help="print JSON and nothing else to stdout")]


DebugOption = Annotated[bool, typer.Option(
    "--debug", help="of a failure, the traceback too, and not only the line that says what and where")]


class Subject(NamedTuple):
    """What a command is about. notes: what was decided on the way, in words, printed already. drawn: which images these
    are, see `find_data`."""

    model: nn.Module
    x: Tensor
    y: Tensor
    classes: tuple[str, ...]
    notes: tuple[str, ...]
    drawn: tuple[str, ...]


def subject_options(ctx: typer.Context) -> dict[str, Any]:
    """The options of a command line, by name, that say what its model and data are; besides --model, --data, -n, --seed
    and --device, which a report names elsewhere."""
    return {name: ctx.params[name] for name in (
        "weights", "classes", "mean", "std", "output", "split", "resize", "crop", "channels", "interpolation",
        "antialias")}


def find_subject(model: str, data: str, n: int | None, *, weights: str | None = None, classes: int | None = None,
                 mean: str | None = None, std: str | None = None, output: str = "auto", device: str = "auto",
                 split: str = "test", seed: int = 0, resize: int | None = None, crop: int | None = None,
                 channels: int | None = None, interpolation: str | None = None,
                 antialias: bool | None = None) -> Subject:
    """The model and the images that these options name; each decision is printed to stderr. Raises ValueError,
    TypeError and OSError: see `find_model` and `find_data`."""
    notes: list[str] = []
    drawn: list[str] = []

    def say(sentence: str) -> None:
        notes.append(sentence)
        typer.echo(sentence, err=True)

    how = with_published_resizing(model, weights, {"resize": resize, "crop": crop, "channels": channels,
                                                   "interpolation": interpolation, "antialias": antialias})
    if interpolation is None and "interpolation" in how:
        say(f"Images are resized as {model} has it: {how['interpolation']}, "
            f"{'with' if how['antialias'] else 'without'} antialiasing.")
    x, y, names = find_data(data, n, split, seed, **how, say=say, drawn=drawn.extend)
    mean_values, std_values = parse_normalization(mean, std, x.shape[1])
    where = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    found = find_model(model, weights, classes=classes, mean=mean_values, std=std_values,
                       output=int(output) if re.fullmatch(r"-?\d+", output) else output, device=where, say=say)
    return Subject(found, x, y, names, tuple(notes), tuple(drawn))


def class_names(subject: Subject) -> tuple[str, ...] | None:
    """The data's class names, if they are as many as the model's outputs; None where classes have numbers only."""
    with blame("the model fails on the first image"):
        outputs = predict_logits(subject.model, subject.x[:1], size=1).shape[1]
    return subject.classes if len(subject.classes) == outputs else None


def check_least_percent(option: str, minimum: float) -> None:
    """Of a gate, before anything is measured. Raises ValueError."""
    if not 1 <= minimum <= 100:
        raise ValueError(f"{option} is in percent, from 1 to 100; found {minimum:g}"
                         + (f" (write {100 * minimum:g} for {100 * minimum:g} %)" if 0 < minimum < 1 else ""))


def as_number(text: str) -> float:
    """Also of a fraction. Raises ValueError."""
    try:
        return float(Fraction(text.strip()))
    except (ZeroDivisionError, OverflowError) as error:
        raise ValueError(f"{text!r} is no number") from error


def number_of(option: str, text: str) -> float:
    """What an option in pixel units says, in words where it is no number. Raises ValueError."""
    try:
        return as_number(text)
    except ValueError:
        raise ValueError(f"{option} takes a number in pixel units of [0, 1], such as 0.25 or 1/4; found "
                         f"{text!r}") from None


def parse_normalization(mean: str | None, std: str | None,
                        channels: int) -> tuple[Sequence[float] | None, Sequence[float] | None]:
    """--mean and --std as one number per channel; a name for --mean gives both. Raises ValueError."""
    if mean is None and std is None:
        return None, None
    known = ", ".join(NORMALIZATIONS)
    if mean is None or (std is None and mean not in NORMALIZATIONS):
        raise ValueError(f"give both --mean and --std, or one of these names as --mean: {known}")
    if mean in NORMALIZATIONS:
        if std not in (None, mean):
            raise ValueError(f"--mean {mean} has its own --std; leave --std {std} out, or give numbers for both")
        values = NORMALIZATIONS[mean]
    else:
        assert std is not None
        values = _numbers("--mean", mean, known), _numbers("--std", std, known)
    return _per_channel("--mean", values[0], channels), _per_channel("--std", values[1], channels)


def _numbers(option: str, text: str, known: str) -> tuple[float, ...]:
    try:
        return tuple(as_number(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"{option} takes numbers with commas between them, such as 0.485,0.456,0.406 (or --mean with "
                         f"one of {known}); found {text!r}") from None


def _per_channel(option: str, numbers: tuple[float, ...], channels: int) -> tuple[float, ...]:
    if len(numbers) not in (1, channels):
        raise ValueError(f"{option} needs one number per channel; found {len(numbers)} for images with {channels}")
    return numbers * channels if len(numbers) == 1 else numbers
