"""robustness compare: two reports, image by image."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from robustness_lib.cli._errors import refuse
from robustness_lib.reports.compare import Comparison, points
from robustness_lib.reports.compare import compare as compare_reports
from robustness_lib.reports.report import Report

__all__ = ["compare", "print_comparison", "read_report"]

_SHOWN = 10  # classes, and twice as many lost images, in the tables; --json has all


def compare(
    a: Annotated[Path, typer.Argument(help="report.json of the model before", metavar="A.json")],
    b: Annotated[Path, typer.Argument(help="report.json of the model now", metavar="B.json")],
    force: Annotated[bool, typer.Option("--force", help="compare although the attacks differ")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON and nothing else to stdout")] = False,
) -> None:
    """Compare two reports on the images that both hold.

    Exit codes: 0 compared; 2 a report cannot be read, or the two cannot be compared.
    """
    before, after = read_report(a), read_report(b)
    try:
        comparison = compare_reports(before, after, allow_different_attacks=force)
    except ValueError as error:
        refuse(f"{error} (--force)." if "allow different attacks" in str(error) else str(error))
    if as_json:
        typer.echo(json.dumps(comparison.to_dict(), indent=1))
    else:
        print_comparison(comparison, Console())


def read_report(path: Path) -> Report:
    """The report, or the reason why it cannot be read and exit code 2."""
    try:
        return Report.load(path)
    except ValueError as error:
        refuse(str(error))
    except OSError as error:
        refuse(f"{path}: {error.strerror}. Name the report.json that robustness evaluate wrote.")


def print_comparison(comparison: Comparison, console: Console) -> None:
    """The sentence, a table of accuracies, one of classes, what was lost, and the notes."""
    console.print(escape(comparison.sentence), highlight=False)
    console.print(_accuracies(comparison))
    changed = [one for one in comparison.per_class if one.lost or one.gained]
    if changed:
        console.print(_classes(comparison))
    if len(changed) > _SHOWN:
        console.print(f"{len(changed) - _SHOWN} more classes changed; --json lists them.", highlight=False)
    if comparison.lost:
        listed = ", ".join(str(index) for index in comparison.lost[:2 * _SHOWN])
        more = f" and {len(comparison.lost) - 2 * _SHOWN:,} more" if len(comparison.lost) > 2 * _SHOWN else ""
        console.print(f"Images lost (numbers in the data of B): {listed}{more}", highlight=False)
    for note in comparison.notes:
        console.print(f"Note: {escape(note)}", highlight=False)


def _accuracies(comparison: Comparison) -> Table:
    table = Table("", "A", "B", "change")
    for name, (a, b) in (("clean", comparison.clean), ("robust", comparison.robust)):
        table.add_row(name, *(f"{100 * accuracy.value:.1f} % ({100 * accuracy.interval[0]:.1f}–"
                              f"{100 * accuracy.interval[1]:.1f})" for accuracy in (a, b)),
                      points(100 * (b.correct - a.correct) / comparison.n))
    table.caption = f"95 % intervals; n = {comparison.n:,}; changes in percent points"
    return table


def _classes(comparison: Comparison) -> Table:
    table = Table("class", *(_right(name) for name in ("n", "A", "B", "change", "lost", "gained")))
    for one in comparison.per_class[:_SHOWN]:
        if one.lost or one.gained:
            table.add_row(escape(one.name), f"{one.after.n:,}", f"{100 * one.before.value:.1f} %",
                          f"{100 * one.after.value:.1f} %", points(100 * one.change), f"{one.lost:,}",
                          f"{one.gained:,}")
    table.caption = "robust accuracy per class, largest change first"
    return table


def _right(name: str) -> Column:
    return Column(name, justify="right")
