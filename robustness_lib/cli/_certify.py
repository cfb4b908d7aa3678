"""robustness certify: what randomized smoothing proves of a model, as figures, JSON and a curve."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from robustness_lib.certify import RandomizedSmoothing
from robustness_lib.cli._certified_curve import curve_png
from robustness_lib.cli._errors import any_errors, failures, prints_to_stderr, work_kept
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
    Subject,
    WeightsOption,
    as_number,
    check_least_percent,
    find_subject,
    number_of,
    subject_options,
)
from robustness_lib.cli._overwriting import Made, refuse_another, remove, run_or_begin_anew
from robustness_lib.cli._plans import kept_plan, plan_file
from robustness_lib.cli._progress import Lines, lines_without_terminal, on_terminal
from robustness_lib.cli._provenance import provenance, writable
from robustness_lib.evaluation import Certification, CertificationQuestion, certify_images
from robustness_lib.evaluation.certification import Stage
from robustness_lib.evaluation.certification_planning import (
    CertificationPlan,
    measure_certification,
    plan_certification,
)
from robustness_lib.files import make_folder, read_text, write_whole
from robustness_lib.reports.compare import AS_BUILT
from robustness_lib.reports.gate import EXIT_CODES, Check, floor_check
from robustness_lib.state import image_digests, model_fingerprint

__all__ = ["certify_command"]

_MOST = 500  # images, where nobody says how many
_JSON, _PNG = "certify.json", "curve.png"


def certify_command(
    ctx: typer.Context, model: ModelOption, data: DataOption,
    sigma: Annotated[str, typer.Option("--sigma", metavar="SIGMA", help="standard deviation of the noise, in pixel "
                                                                        "units of [0, 1], such as 0.25 or 1/4")],
    radius: Annotated[list[str] | None, typer.Option(
        "--radius", metavar="R[,R...]", help="L2 radius to certify at, in pixel units of [0, 1], such as 0.5; several "
                                             "with commas, or the option again. One radius is cheap")] = None,
    curve: Annotated[bool, typer.Option("--curve", help="each image's radius: certified accuracy against radius, as a "
                                                        "picture too")] = False,
    weights: WeightsOption = None, mean: MeanOption = None, std: StdOption = None, output: OutputOption = "auto",
    classes: ClassesOption = None, device: DeviceOption = "auto",
    n: Annotated[int | None, typer.Option("-n", metavar="N", min=1,
                                          help=f"images, at most (default {_MOST:,})")] = None,
    minutes: Annotated[float | None, typer.Option("--minutes", metavar="M", help="choose n, and if need be fewer "
                                                                                 "samples, to fit, and say so first")
                       ] = None,
    samples: Annotated[int, typer.Option("--samples", metavar="N", min=1, help="noisy copies that bound an image's "
                                                                               "radius, at most")] = 100_000,
    n0: Annotated[int, typer.Option("--n0", metavar="N", min=1, help="noisy copies before, that choose its class")
                  ] = 100,
    alpha: Annotated[float, typer.Option("--alpha", help="probability that a certificate which is given is wrong")
                     ] = 0.001,
    tolerance: Annotated[str | None, typer.Option("--tolerance", metavar="R", help="of the curve: a radius may be "
                                                                                     "so much too small. Default: a "
                                                                                     "tenth of sigma")] = None,
    up_to: Annotated[str | None, typer.Option("--up-to", metavar="R", help="where the curve ends. Default: 3 sigma")
                     ] = None,
    min_certified: Annotated[float | None, typer.Option("--min-certified", metavar="PERCENT",
                                                        help="least certified accuracy, in percent, at the one radius "
                                                             "given: the exit code says whether it is met")] = None,
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER",
                                      help=f"for {_JSON}, and {_PNG} of a curve")] = Path("run"),
    state: Annotated[Path | None, typer.Option(
        "--state", metavar="FOLDER", help="where work in progress is kept, so that a killed run goes on: call it again "
                                          "in the same way. Default: FOLDER/certify-state, deleted at the end")] = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", metavar="N", min=1,
                                                   help="noisy images that travel to the device together")] = None,
    split: SplitOption = "test", resize: ResizeOption = None, crop: CropOption = None, channels: ChannelsOption = None,
    interpolation: InterpolationOption = None, antialias: AntialiasOption = None,
    seed: SeedOption = 0, force: Annotated[bool, typer.Option(
        "--force", help="overwrite the results in --out of another model, other data, another sigma or another kind of "
                        "question, and drop the state of another run")] = False,
    as_json: JsonOption = False, debug: DebugOption = False,
) -> None:
    """Certify a smoothed model: on how many images can no change within an L2 radius change its answer?

    The smoothed model answers what the network answers most often to noisy copies of an image; votes prove how far that
    holds (Cohen, Rosenfeld and Kolter 2019). The network has to be trained for the noise. A certificate says that the
    answer stays the same, not that it is right; it holds in L2, and says nothing of the bare network.

    Exit codes: 0 done, and --min-certified met where it is given; 1 it is not; 2 wrong usage or input; 3 undecided:
    below --min-certified, but by no more than the choice of images could do; 130 interrupted.
    """
    with any_errors(debug), prints_to_stderr():
        noise = number_of("--sigma", sigma)
        question = CertificationQuestion(_radii(radius), curve, n0, samples, alpha, _given("--tolerance", tolerance),
                                         _given("--up-to", up_to), seed)
        _check_gate(question, min_certified)
        make_folder(out)  # an error now costs nothing
        options = subject_options(ctx)
        with lines_without_terminal("looking at the model and the data") as lines:
            subject = find_subject(model, data, n or _MOST, device=device, seed=seed, **options)
            smoothing = RandomizedSmoothing(subject.model, noise)
            made_from = provenance(model, data, options, ctx.obj, subject.notes) | {
                AS_BUILT: model_fingerprint(subject.model)}
            if not force:
                refuse_another(out / _JSON, partial(_read, sigma=noise, curve=curve), subject, made_from)
            folder = state or out / "certify-state"
            if minutes is not None:
                lines.words = "measuring what votes cost"
                asked = {"model": model, "weights": weights, "data": data, "minutes": minutes, "sigma": noise,
                         "images": len(subject.x), "question": repr(question)}
                n, votes = kept_plan(folder, asked, partial(_plan, smoothing, subject, question, minutes, batch_size),
                                     "n", "votes")
                question = replace(question, n=votes)
            again = f"Interrupted. The same command goes on where this one was; its work is kept in {folder}."
            with _shown(len(subject.x[:n]), lines) as tell, failures("model", again), work_kept(folder):
                run = partial(certify_images, smoothing, subject.x[:n], subject.y[:n], question,
                              batch_size=batch_size, state=folder, progress=tell)
                found = run_or_begin_anew(run, force, folder)
        with work_kept(folder):
            _save(found, out, subject, made_from)
        if state is None:
            remove(folder)
            plan_file(folder).unlink(missing_ok=True)
        gate = None if min_certified is None else floor_check("certified", found.certified(question.radii[0]),
                                                              min_certified)
    _print(found, out, gate, as_json)
    raise typer.Exit(0 if gate is None else EXIT_CODES[gate.outcome])


def _radii(given: list[str] | None) -> tuple[float, ...]:
    """Raises ValueError."""
    texts = [part.strip() for one in given or () for part in one.split(",")]
    try:
        return tuple(dict.fromkeys(as_number(text) for text in texts))
    except ValueError:
        raise ValueError(f"--radius takes L2 radii in pixel units of [0, 1], such as 0.5, or 0.25,0.5,1; found "
                         f"{','.join(texts)!r}") from None


def _given(option: str, text: str | None) -> float | None:
    return None if text is None else number_of(option, text)


def _check_gate(question: CertificationQuestion, minimum: float | None) -> None:
    """Raises ValueError before anything is measured."""
    if minimum is None:
        return
    if len(question.radii) != 1:
        raise ValueError(f"--min-certified needs the one --radius at which it is meant; found {len(question.radii)}")
    check_least_percent("--min-certified", minimum)


def _plan(smoothing: RandomizedSmoothing, subject: Subject, question: CertificationQuestion, minutes: float,
          batch_size: int | None) -> CertificationPlan:
    costs = measure_certification(smoothing, subject.x, subject.y, question, minutes, batch_size)
    return plan_certification(costs, question, smoothing.sigma, minutes, len(subject.x))


def _read(path: Path, sigma: float, curve: bool) -> Made:
    """Compared with what is asked now."""
    try:
        there = json.loads(read_text(path))
        besides = [words for words, differs in ((f"another sigma ({there['sigma']:g})", there["sigma"] != sigma),
                                                ("a curve", "curve" in there and not curve),
                                                ("single radii and no curve", curve and "curve" not in there))
                   if differs]
        return Made(there["provenance"], there["digest"], there["drawn"], None, besides)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: this does not hold the results of robustness certify") from error


@contextlib.contextmanager
def _shown(n: int, lines: Lines) -> Iterator[Stage]:
    """A progress bar on stderr where somebody can see it move; lines elsewhere, one when each thing is first asked and
    one a minute."""
    columns = (TextColumn("{task.description:<14}"), BarColumn(), MofNCompleteColumn(), TextColumn("images"),
               TextColumn("{task.fields[votes]}"), TimeElapsedColumn())
    drawn: dict[str, int] = {}

    def tell(stage: str, through: int, draws: int) -> None:
        begins = stage not in drawn
        drawn[stage] = drawn.get(stage, 0) + draws
        progress.update(task, description=stage, completed=through, votes=f"{drawn[stage]:,} votes")
        if begins:
            lines.say(stage)
        lines.words = f"{stage}: {through:,} of {n:,} images, {drawn[stage]:,} votes"

    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not on_terminal()) as progress:
        task = progress.add_task("answers", total=n, votes="")
        yield tell


def _save(found: Certification, out: Path, subject: Subject, made_from: dict[str, str]) -> None:
    """With what it was made from, and which images these are."""
    content = found.to_dict() | {
        "digest": image_digests(subject.x[:found.n], subject.y[:found.n]),
        "drawn": [writable(name) for name in subject.drawn[:found.n]], "provenance": made_from}
    replaced = (out / _JSON).exists()
    write_whole(out / _JSON, (json.dumps(content, ensure_ascii=False) + "\n").encode())
    if found.question.curve:
        write_whole(out / _PNG, curve_png(found, made_from["model"], made_from["data"]))
    elif replaced:  # then the picture there is of what was overwritten
        (out / _PNG).unlink(missing_ok=True)


def _print(found: Certification, out: Path, gate: Check | None, as_json: bool) -> None:
    files = [out / _JSON, *([out / _PNG] if found.question.curve else [])]
    if as_json:
        images = ("certificates", "label", "answer", "environment")
        figures = {name: value for name, value in found.to_dict().items() if name not in images}
        typer.echo(json.dumps(figures | {"files": [str(file) for file in files]}
                              | ({} if gate is None else {"gate": vars(gate)}), ensure_ascii=False))
        return
    console = Console(highlight=False)
    console.print(f"[bold]{escape(found.sentence)}[/]\n")
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("L2 radius", "certified with their label", "votes an image", "fixed number"):
        table.add_column(name, no_wrap=True)
    for radius in found.radii:
        votes = float(found.at(radius).samples.double().mean())
        table.add_row(f"{radius:g}", str(found.certified(radius)), f"{votes:,.0f}", f"{found.fixed_votes:,}")
    console.print(table)
    console.print(f"\n{found.says_not} Each certificate is wrong with probability at most {found.question.alpha:g}.")
    if found.doubt is not None:
        console.print(f"\n[yellow]{escape(found.doubt)}[/]")
    if gate is not None:
        console.print(f"\n{gate.outcome}: {escape(gate.words)}")
    console.print(f"\n{escape(', '.join(map(str, files)))}", soft_wrap=True)
