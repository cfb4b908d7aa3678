"""robustness evaluate: the report of a model, as JSON and as a page."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from robustness_lib.cli._errors import any_errors, failures, prints_to_stderr
from robustness_lib.cli._options import (
    ChannelsOption,
    ClassesOption,
    CropOption,
    DataOption,
    DebugOption,
    DeviceOption,
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
    find_subject,
)
from robustness_lib.distributed import Team, team_from_environment
from robustness_lib.errors import blame
from robustness_lib.evaluation import Report, advice, evaluate
from robustness_lib.evaluation.evaluate import Progress as Tell
from robustness_lib.evaluation.planning import measure, plan
from robustness_lib.evaluation.suites import SUITES, find_suite
from robustness_lib.files import write_whole
from robustness_lib.querying.confirm_predictions import predict_logits
from robustness_lib.reports.page import save_page
from robustness_lib.threat import ThreatModel

__all__ = ["evaluate_command"]

_MOST = 1000  # images, where nobody says how many


def evaluate_command(
    model: ModelOption, data: DataOption,
    threat: Annotated[str, typer.Option("--threat", metavar="NORM:EPS",
                                        help="such as linf:8/255 or l2:0.5, in pixel units of [0, 1]")],
    weights: WeightsOption = None, mean: MeanOption = None, std: StdOption = None, output: OutputOption = "auto",
    classes: ClassesOption = None, device: DeviceOption = "auto",
    suite: Annotated[str | None, typer.Option("--suite", metavar="NAME", help="; ".join(
        f"{name}: {words}" for name, words in SUITES.items()) + " Default: standard")] = None,
    n: Annotated[int | None, typer.Option("-n", metavar="N", min=1,
                                          help=f"images, at most (default {_MOST:,})")] = None,
    minutes: Annotated[float | None, typer.Option("--minutes", metavar="M",
                                                  help="choose suite and n to fit, and say so before starting")] = None,
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="for report.json and report.html")] = Path("run"),
    state: Annotated[Path | None, typer.Option(
        "--state", metavar="FOLDER", help="where work in progress is kept, so that a killed run goes on: call it again "
                                          "in the same way. Default: FOLDER/state, deleted at the end")] = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", metavar="N", min=1,
                                                   help="images that travel to the device together")] = None,
    split: SplitOption = "test", resize: ResizeOption = None, crop: CropOption = None, channels: ChannelsOption = None,
    seed: SeedOption = 0, as_json: JsonOption = False, debug: DebugOption = False,
) -> None:
    """Attack a model and write a report. Several devices or machines: start it with torchrun --no-python.

    Exit codes: 0 done, whatever the verdict (`robustness gate` judges it); 2 wrong usage or input; 3 done, but some
    images have no verdict because the model failed on them; 130 interrupted.
    """
    with any_errors(debug), prints_to_stderr(), team_from_environment() as team:
        against = ThreatModel.parse(threat)
        out.mkdir(parents=True, exist_ok=True)  # an error now costs nothing
        quiet = contextlib.redirect_stderr(None) if team.rank else contextlib.nullcontext()
        with quiet:
            subject = find_subject(model, data, n or _MOST, weights=weights, classes=classes, mean=mean, std=std,
                                   output=output, device=device, split=split, seed=seed, resize=resize, crop=crop,
                                   channels=channels)
            state_folder = state or out / "state"
            names = _names(subject)
            find_suite(suite or "standard", against)  # a wrong name is refused before anything is measured
            asked = {"model": model, "weights": weights, "data": data, "threat": threat, "minutes": minutes,
                     "suite": suite, "images": len(subject.x)}
            suite, n = _planned(subject, against, asked, batch_size, team, state_folder)
            again = f"Interrupted. The same command goes on where this one was; its work is kept in {state_folder}."
            with _bar(n, team) as tell, failures("model", again):
                report = evaluate(subject.model, subject.x[:n], subject.y[:n], against, suite, seed=seed,
                                  classes=names, batch_size=batch_size, state=state_folder,
                                  progress=tell)
        if team.rank == 0:
            report.save(out / "report.json")
            save_page(report, out / "report.html")
            if state is None:
                shutil.rmtree(state_folder, ignore_errors=True)
                _plan_file(state_folder).unlink(missing_ok=True)
    if team.rank == 0:
        _print(report, out, as_json)
    raise typer.Exit(3 if report.failures else 0)


def _names(subject: Subject) -> tuple[str, ...] | None:
    """The data's class names, if they are as many as the model's outputs; else numbers."""
    with blame("the model fails on the first image"):
        outputs = predict_logits(subject.model, subject.x[:1], size=1).shape[1]
    return subject.classes if len(subject.classes) == outputs else None


def _plan_file(state: Path) -> Path:
    return state.with_name(f"{state.name}-plan.json")


def _planned(subject: Subject, threat: ThreatModel, asked: dict[str, Any], batch_size: int | None, team: Team,
             state: Path) -> tuple[str, int]:
    """Suite and number of images. With --minutes the first process measures, and all do as it says; a run that was
    killed keeps its plan, since a second measurement would choose another n. asked: what the plan is for."""
    if asked["minutes"] is None:
        return asked["suite"] or "standard", len(subject.x)

    def chosen() -> tuple[str, int] | None:
        if team.rank:
            return None
        if _plan_file(state).exists():
            kept = json.loads(_plan_file(state).read_text(encoding="utf-8"))
            if kept["asked"] == asked:
                typer.echo(f"Going on as planned: {kept['words']}", err=True)
                return kept["suite"], kept["n"]
        costs = measure(subject.model, subject.x, subject.y, threat, batch_size)
        fits = plan(costs, asked["minutes"], len(subject.x), asked["suite"], team.size)
        typer.echo(str(fits), err=True)
        content = {"asked": asked, "suite": fits.suite, "n": fits.n, "words": str(fits)}
        write_whole(_plan_file(state), json.dumps(content).encode())
        return fits.suite, fits.n

    with team.together():
        mine = chosen()
    first: tuple[str, int] = team.gather(mine)[0]
    return first


@contextlib.contextmanager
def _bar(n: int, team: Team) -> Iterator[Tell]:
    """A progress bar on stderr, from the first process, where somebody can see it move."""
    columns = (TextColumn("{task.description:<12}"), BarColumn(), MofNCompleteColumn(), TextColumn("images"),
               TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True,
                  disable=team.rank > 0 or not sys.stderr.isatty()) as progress:
        task = progress.add_task("clean", total=n)
        yield lambda done, step: progress.update(task, completed=done, description=step)


def _print(report: Report, out: Path, as_json: bool) -> None:
    if as_json:
        low, high = report.robust_accuracy.interval
        typer.echo(json.dumps({
            "sentence": report.sentence, "threat": str(report.threat), "suite": report.suite, "n": report.n,
            "clean": report.clean_accuracy.value, "robust": report.robust_accuracy.value, "interval": [low, high],
            "strongest": report.strongest, "findings": [f.kind for f in report.findings or ()],
            "failures": len(report.failures), "report": str(out / "report.json"), "page": str(out / "report.html"),
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
    console.print(f"\n{escape(str(out / 'report.html'))}, {escape(str(out / 'report.json'))}", soft_wrap=True)
