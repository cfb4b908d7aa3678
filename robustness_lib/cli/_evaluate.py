"""robustness evaluate: the report of a model, as JSON and as a page."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from robustness_lib.cli._errors import any_errors, failures, prints_to_stderr
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
    ThreatOption,
    WeightsOption,
    class_names,
    find_subject,
    subject_options,
)
from robustness_lib.cli._overwriting import Made, refuse_another, remove, run_or_begin_anew
from robustness_lib.cli._plans import kept_plan, plan_file
from robustness_lib.cli._progress import ImagesDone, images_done, lines_without_terminal
from robustness_lib.cli._provenance import provenance, writable
from robustness_lib.distributed import Team, team_from_environment
from robustness_lib.evaluation import Report, advice, evaluate
from robustness_lib.evaluation.planning import Plan, measure, plan
from robustness_lib.evaluation.suites import SUITES, find_suite
from robustness_lib.files import make_folder
from robustness_lib.reports.compare import AS_BUILT
from robustness_lib.reports.export import Exported, check_folder
from robustness_lib.reports.page import save_page
from robustness_lib.state import model_fingerprint
from robustness_lib.threat import ThreatModel

__all__ = ["evaluate_command"]

_MOST = 1000  # images, where nobody says how many


def evaluate_command(
    ctx: typer.Context, model: ModelOption, data: DataOption, threat: ThreatOption,
    weights: WeightsOption = None, mean: MeanOption = None, std: StdOption = None, output: OutputOption = "auto",
    classes: ClassesOption = None, device: DeviceOption = "auto",
    suite: Annotated[str | None, typer.Option("--suite", metavar="NAME", help="; ".join(
        f"{name}: {words}" for name, words in SUITES.items()) + " Default: standard")] = None,
    n: Annotated[int | None, typer.Option("-n", metavar="N", min=1,
                                          help=f"images, at most (default {_MOST:,})")] = None,
    minutes: Annotated[float | None, typer.Option("--minutes", metavar="M",
                                                  help="choose suite and n to fit, and say so first: standard, if "
                                                       "its interval is then at most ±8 points, else quick")] = None,
    export: Annotated[Path | None, typer.Option(
        "--export", metavar="FOLDER", help="for the adversarial images as 8-bit PNG files and a table of them: those "
                                           "that are still adversarial once they are saved")] = None,
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="for report.json and report.html")] = Path("run"),
    state: Annotated[Path | None, typer.Option(
        "--state", metavar="FOLDER", help="where work in progress is kept, so that a killed run goes on: call it again "
                                          "in the same way. Default: FOLDER/state, deleted at the end")] = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", metavar="N", min=1,
                                                   help="images that travel to the device together")] = None,
    split: SplitOption = "test", resize: ResizeOption = None, crop: CropOption = None, channels: ChannelsOption = None,
    interpolation: InterpolationOption = None, antialias: AntialiasOption = None,
    seed: SeedOption = 0, force: Annotated[bool, typer.Option(
        "--force", help="overwrite a report of another model or of other data in --out, and drop the state of another "
                        "run")] = False,
    as_json: JsonOption = False, debug: DebugOption = False,
) -> None:
    """Attack a model and write a report. Several devices or machines: start it with torchrun --no-python.

    Where what was asked cannot bear a number (no attack could follow a gradient on more than 2 % of the images, the
    answers differ from call to call or with the rest of the batch, or look like probabilities) the report says "not
    evaluated", why, and which attack would decide.

    Exit codes: 0 done, whatever the verdict (`robustness gate` judges it); 2 wrong usage or input; 3 done, but there is
    no verdict, or some images have none because the model failed on them; 130 interrupted.
    """
    with any_errors(debug), prints_to_stderr(), team_from_environment() as team:
        against = ThreatModel.parse(threat)
        make_folder(out)  # an error now costs nothing
        quiet = contextlib.redirect_stderr(None) if team.rank else contextlib.nullcontext()
        options = subject_options(ctx)
        with quiet, lines_without_terminal("looking at the model and the data", team.rank == 0) as lines:
            subject = find_subject(model, data, n or _MOST, device=device, seed=seed, **options)
            if doubt := against.doubt_about_eps(subject.x[0].numel()):
                typer.echo(f"Note: {doubt}.", err=True)
            made_from: dict[str, str] = {}
            with team.together():
                if team.rank == 0:  # now: files, commits and what a model counts may change while it runs
                    made_from = provenance(model, data, options, ctx.obj, subject.notes) | {
                        AS_BUILT: model_fingerprint(subject.model)}
                    if not force:
                        refuse_another(out / "report.json", _read, subject, made_from)
            state_folder = state or out / "state"
            kept = None if export is None else state_folder.with_name(f"{state_folder.name}-images")
            if export is not None:
                check_folder(export)
            names = class_names(subject)
            find_suite(suite or "standard", against)  # a wrong name is refused before anything is measured
            asked = {"model": model, "weights": weights, "data": data, "threat": threat, "minutes": minutes,
                     "suite": suite, "images": len(subject.x)}
            suite, n = _planned(subject, against, asked, batch_size, team, state_folder)
            again = f"Interrupted. The same command goes on where this one was; its work is kept in {state_folder}."
            with images_done(n, lines, team.rank == 0) as tell, failures("model", again):
                run = partial(evaluate, subject.model, subject.x[:n], subject.y[:n], against, suite, seed=seed,
                              classes=names, batch_size=batch_size, state=state_folder, keep_images=kept,
                              progress=tell, on_part=partial(_say_what_stands, tell))
                report = run_or_begin_anew(run, force and team.size == 1, state_folder, kept)
        exported = None
        if team.rank == 0:
            report = _saved(report, out, made_from, subject.drawn)
            exported = None if export is None else report.export(export)
            if state is None:
                remove(state_folder, kept)
                plan_file(state_folder).unlink(missing_ok=True)
    if team.rank == 0:
        _print(report, out, exported, as_json)
    raise typer.Exit(0 if report.valid and not report.failures else 3)


def _say_what_stands(tell: ImagesDone, stand: int, through: int) -> None:
    tell.standing = f", {stand:,} of {through:,} stand so far"


def _saved(report: Report, out: Path, made_from: dict[str, str], drawn: tuple[str, ...]) -> Report:
    """With what it was made from, and where the images that have a verdict came from."""
    names = tuple(writable(drawn[row]) for row in report.examples.index.tolist())
    report = replace(report, provenance=made_from, drawn=names)
    report.save(out / "report.json")
    save_page(report, out / "report.html")
    return report


def _read(path: Path) -> Made:
    there = Report.load(path)
    return Made(there.provenance, there.examples.digest, there.drawn, there.fingerprints.get("model"))


def _planned(subject: Subject, threat: ThreatModel, asked: dict[str, Any], batch_size: int | None, team: Team,
             state: Path) -> tuple[str, int]:
    """Suite and number of images. With --minutes the first process measures, and all do as it says. asked: what the
    plan is for."""
    if asked["minutes"] is None:
        return asked["suite"] or "standard", len(subject.x)

    def chosen() -> Plan:
        costs = measure(subject.model, subject.x, subject.y, threat, batch_size)
        return plan(costs, asked["minutes"], len(subject.x), asked["suite"], team.size)

    with team.together():
        mine = None if team.rank else kept_plan(state, asked, chosen, "suite", "n")
    first: tuple[str, int] = team.gather(mine)[0]
    return first


def _print(report: Report, out: Path, exported: Exported | None, as_json: bool) -> None:
    if as_json:
        robust = report.robust_accuracy if report.valid else None
        typer.echo(json.dumps({
            "sentence": report.sentence, "threat": str(report.threat), "suite": report.suite, "n": report.n,
            "valid": report.valid, "doubts": [{"kind": d.kind, "message": d.message} for d in report.doubts],
            "clean": report.clean_accuracy.value, "robust": None if robust is None else robust.value,
            "interval": None if robust is None else list(robust.interval),
            "certified": None if report.certified_accuracy is None else report.certified_accuracy.value,
            "strongest": report.strongest, "findings": [f.kind for f in report.findings or ()],
            "failures": len(report.failures), "report": str(out / "report.json"), "page": str(out / "report.html"),
            **({} if exported is None else {"exported": exported.written, "not_exported": exported.lost,
                                            "images": str(exported.table)}),
        }, ensure_ascii=False))
        return
    console = Console(highlight=False)
    console.print(f"[bold]{escape(report.sentence)}[/]\n")
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("step", "what it found", "what next"):
        table.add_column(name, overflow="fold")
    for step in advice(report):
        table.add_row(*(escape(words) for words in (step.name, step.figures, step.advice)))
    console.print(table)
    for words in (*map(str, report.findings or ()), *report.notes):
        console.print(f"\n[yellow]{escape(words)}[/]")
    for failure in report.failures:
        console.print(f"\n[red]images {failure.first} to {failure.last} have no verdict: {escape(failure.error)} "
                      f"(in {failure.step})[/]")
    if exported is not None:
        console.print(f"\n{escape(exported.sentence)}", soft_wrap=True)
    console.print(f"\n{escape(str(out / 'report.html'))}, {escape(str(out / 'report.json'))}", soft_wrap=True)
