"""robustness track: a history of reports, drawn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from robustness_lib.cli._compare import read_report
from robustness_lib.cli._errors import input_errors
from robustness_lib.reports.mlflow_log import log_to_mlflow, mlflow_wanted
from robustness_lib.reports.track import track

__all__ = ["track_command"]


def track_command(
    report: Annotated[Path, typer.Argument(help="report.json to append", metavar="REPORT.json")],
    history: Annotated[Path, typer.Option("--history", metavar="FILE.jsonl", help="made if it is not there")],
    version: Annotated[str | None, typer.Option(
        "--version", metavar="NAME", help="of the model: a tag, a commit; default: the report's date")] = None,
    alert_drop: Annotated[float, typer.Option(
        "--alert-drop", metavar="POINTS", help="mark a version that lost more robust accuracy than this")] = 2.0,
    mlflow: Annotated[bool | None, typer.Option(
        "--mlflow/--no-mlflow", help="log to MLflow; default: where it is installed and MLFLOW_TRACKING_URI is set"
    )] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON and nothing else to stdout")] = False,
) -> None:
    """Append a report to a history, and draw clean and robust accuracy over the versions as FILE.html.

    Exit codes: 0 done, also with an alert (`robustness gate` is what fails); 2 wrong usage or input.
    """
    with input_errors():
        found = read_report(report)
        wanted = mlflow_wanted(mlflow)
        tracked = track(found, history, version=version, alert_drop=alert_drop)
        trend, at = tracked.trend, tracked.at
        run = log_to_mlflow(found, trend.entries[at].version) if wanted and tracked.new else None
    alert, drop = trend.alerts[at], float(trend.drops[at])
    if as_json:
        typer.echo(json.dumps({"history": str(history), "page": str(tracked.page), "versions": len(trend.entries),
                               "new": tracked.new, "drop": drop, "alert": alert, "mlflow_run": run}))
        return
    console = Console(highlight=False)
    entry = trend.entries[at]
    console.print(f"{escape(entry.version)}: robust {entry.robust_accuracy}, clean {entry.clean_accuracy}"
                  f"{'' if tracked.new else ' (it was there already)'}", soft_wrap=True)
    if at:
        before = trend.entries[at - 1].version
        console.print(f"{'[red]alert:[/] ' if alert else ''}{-drop:+.1f} points against {escape(before)}")
    console.print(f"{len(trend.entries)} version{'s' if len(trend.entries) > 1 else ''} in {escape(str(tracked.page))}"
                  + (f", MLflow run {run}" if run else ""), soft_wrap=True)
