"""robustness verify: each image proved, broken or undecided, as JSON and as a page."""

from __future__ import annotations

import contextlib
import json
import math
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from robustness_lib.certify import Verification, verify
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
    ThreatOption,
    WeightsOption,
    check_least_percent,
    class_names,
    find_subject,
    subject_options,
)
from robustness_lib.cli._overwriting import Made, refuse_another, remove, run_or_begin_anew
from robustness_lib.cli._progress import images_done, lines_without_terminal
from robustness_lib.cli._provenance import provenance, writable
from robustness_lib.distributed import team_from_environment
from robustness_lib.evaluation.environment import environment
from robustness_lib.files import make_folder, read_text, write_whole
from robustness_lib.querying.batch_size import default_batch_size
from robustness_lib.querying.confirm_predictions import predict_logits
from robustness_lib.reports.compare import AS_BUILT
from robustness_lib.reports.gate import EXIT_CODES, Check, floor_check
from robustness_lib.reports.verification_page import VerifiedImage, rows_to_show, save_verification_page
from robustness_lib.state import model_fingerprint
from robustness_lib.threat import ThreatModel

__all__ = ["verify_command"]

_MOST = 200  # images, where nobody says how many
_SECONDS = 10.0  # that an image may take, where nobody says: most are decided in far less, and the rest must end
_JSON, _PAGE = "verify.json", "verify.html"
_SAYS_NOT = ("“Proved” holds in this threat model alone, and from a tolerance for rounding on; "
             "“undecided” says nothing either way.")


def verify_command(
    ctx: typer.Context, model: ModelOption, data: DataOption, threat: ThreatOption,
    weights: WeightsOption = None, mean: MeanOption = None, std: StdOption = None, output: OutputOption = "auto",
    classes: ClassesOption = None, device: DeviceOption = "auto",
    n: Annotated[int | None, typer.Option("-n", metavar="N", min=1,
                                          help=f"images, at most (default {_MOST:,})")] = None,
    seconds: Annotated[float, typer.Option(
        "--seconds", metavar="S", help="that an image may take, all methods together: after that none is begun, and it "
                                       "stays undecided. inf for no end: then verdicts do not depend on the machine")
                       ] = _SECONDS,
    min_verified: Annotated[float | None, typer.Option(
        "--min-verified", metavar="PERCENT", help="least share of images that are proved to keep their label, in "
                                                  "percent: the exit code says whether it is met")] = None,
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help=f"for {_JSON} and {_PAGE}")] = Path("run"),
    state: Annotated[Path | None, typer.Option(
        "--state", metavar="FOLDER", help="where work in progress is kept, so that a killed run goes on: call it again "
                                          "in the same way. Default: FOLDER/verify-state, deleted at the end")] = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", metavar="N", min=1,
                                                   help="images that are worked on together")] = None,
    split: SplitOption = "test", resize: ResizeOption = None, crop: CropOption = None, channels: ChannelsOption = None,
    interpolation: InterpolationOption = None, antialias: AntialiasOption = None,
    seed: SeedOption = 0, force: Annotated[bool, typer.Option(
        "--force", help="overwrite the results in --out of another model, other data or another threat, and drop the "
                        "state of another run")] = False,
    as_json: JsonOption = False, debug: DebugOption = False,
) -> None:
    """Decide each image: proved to keep its label under every attack, broken, or undecided.

    Attacks and bounds (IBP, CROWN, α-CROWN) take turns, the cheap ones first, each on the images that are not decided.
    The network has to consist of operations that have a rule; of another, the layer is named and the rules are listed.
    Several devices or machines: start it with torchrun --no-python.

    Exit codes: 0 done, and --min-verified met where it is given; 1 it is not; 2 wrong usage or input, an operation
    without a rule too; 3 undecided: below --min-verified, but by no more than the choice of images could do; 130
    interrupted: the same command goes on.
    """
    with any_errors(debug), prints_to_stderr(), team_from_environment() as team:
        against = ThreatModel.parse(threat)
        if not seconds > 0:
            raise ValueError(f"--seconds is the time that an image may take, and more than 0; found {seconds:g}")
        if min_verified is not None:
            check_least_percent("--min-verified", min_verified)
        make_folder(out)  # an error now costs nothing
        quiet = contextlib.redirect_stderr(None) if team.rank else contextlib.nullcontext()
        options = subject_options(ctx)
        with quiet, lines_without_terminal("looking at the model and the data", team.rank == 0) as lines:
            subject = find_subject(model, data, n or _MOST, device=device, seed=seed, **options)
            made_from: dict[str, str] = {}
            with team.together():
                if team.rank == 0:  # now: files, commits and what a model counts may change while it runs
                    made_from = provenance(model, data, options, ctx.obj, subject.notes) | {
                        AS_BUILT: model_fingerprint(subject.model)}
                    if not force:
                        refuse_another(out / _JSON, partial(_read, threat=against.text), subject, made_from)
            folder = state or out / "verify-state"
            names = class_names(subject)
            again = f"Interrupted. The same command goes on where this one was; its work is kept in {folder}."
            with (images_done(len(subject.x), lines, team.rank == 0) as tell, failures("model", again),
                  work_kept(folder)):
                run = partial(verify, subject.model, subject.x, subject.y, against,
                              None if math.isinf(seconds) else seconds, seed=seed, batch_size=batch_size, state=folder,
                              progress=tell)
                found = run_or_begin_anew(run, force and team.size == 1, folder)
        gate = None if min_verified is None else floor_check("verified", found.accuracy, min_verified)
        if team.rank == 0:
            besides = {"says not": _SAYS_NOT, "seed": seed, "classes": names, "provenance": made_from,
                       "drawn": [writable(name) for name in subject.drawn],
                       "environment": environment(subject.model, subject.x.dtype, seed, processes=team.size)}
            with work_kept(folder):
                _save(found, out, subject, besides)
            if state is None:
                remove(folder)
    if team.rank == 0:
        _print(found, out, gate, as_json)
    raise typer.Exit(0 if gate is None else EXIT_CODES[gate.outcome])


def _read(path: Path, threat: str) -> Made:
    """Compared with what is asked now."""
    try:
        there = json.loads(read_text(path))
        besides = [] if there["threat"] == threat else [f"another threat ({there['threat']})"]
        return Made(there["provenance"], there["images"], there["drawn"], there["model"], besides)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: this does not hold the results of robustness verify") from error


def _save(found: Verification, out: Path, subject: Subject, besides: dict[str, Any]) -> None:
    content = found.to_dict(subject.y) | {"answer": _answers(found, subject)} | besides
    rows = rows_to_show(found.verdicts, found.decided_by)
    shown = [VerifiedImage(row, subject.x[row].cpu().numpy(), found.x_adv[row].cpu().numpy()) for row in rows]
    write_whole(out / _JSON, (json.dumps(content, ensure_ascii=False, allow_nan=False) + "\n").encode())
    save_verification_page(content, shown, out / _PAGE)


def _answers(found: Verification, subject: Subject) -> list[int]:
    """What the model answers to each image that shows its verdict: the adversarial one where there is one."""
    answers = subject.y.cpu().clone()
    other = found.are("broken") | found.are("wrong")
    if bool(other.any()):
        x = found.x_adv[other.to(found.x_adv.device)]
        answers[other] = predict_logits(subject.model, x, size=default_batch_size(x, x.device)).argmax(1)
    return list(map(int, answers))


def _print(found: Verification, out: Path, gate: Check | None, as_json: bool) -> None:
    files = [out / _JSON, out / _PAGE]
    if as_json:
        images = ("images", "verdicts", "decided by", "margin")
        figures = {name: value for name, value in found.to_dict().items() if name not in images}
        typer.echo(json.dumps(figures | {"says not": _SAYS_NOT, "files": [str(file) for file in files]}
                              | ({} if gate is None else {"gate": vars(gate)}), ensure_ascii=False))
        return
    console = Console(highlight=False)
    console.print(f"[bold]{escape(found.sentence)}[/]\n")
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("method", "tried on", "decided", "seconds"):
        table.add_column(name, no_wrap=True)
    words = {"clean": "wrong", "PGD": "broken", "AutoPGD": "broken"}
    for stage in found.stages:
        decided = f"{stage.decided:,} {words.get(stage.name, 'proved')}" if stage.decided else "none"
        table.add_row(stage.name, f"{stage.attempted:,}", decided, f"{stage.seconds:,.1f}")
    console.print(table)
    if late := int(found.out_of_time.sum()):
        console.print(f"\n{late:,} of those undecided ran out of time, with methods not begun or cut short: --seconds "
                      f"may give an image more.")
    console.print(f"\n{_SAYS_NOT}")
    for note in found.notes:
        console.print(f"\n[yellow]{escape(note)}[/]")
    if gate is not None:
        console.print(f"\n{gate.outcome}: {escape(gate.words)}")
    console.print(f"\n{escape(', '.join(map(str, files)))}", soft_wrap=True)
