"""robustness gate: pass, fail or undecided, as an exit code."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from robustness_lib.cli._compare import print_comparison, read_report
from robustness_lib.cli._errors import refuse
from robustness_lib.files import make_folder, write_whole
from robustness_lib.reports.gate import MAX_CLEAN_DROP, GateVerdict
from robustness_lib.reports.gate import gate as judge
from robustness_lib.reports.junit import junit_xml

__all__ = ["gate"]

_COLOUR = {"pass": "green", "fail": "red", "undecided": "yellow"}


def gate(
    report: Annotated[Path, typer.Argument(help="report.json to judge", metavar="REPORT.json")],
    baseline: Annotated[Path | None, typer.Option(help="report.json to compare with", metavar="FILE")] = None,
    max_drop: Annotated[float | None, typer.Option(
        help="percent points by which robust accuracy may be below the baseline's, on the same images")] = None,
    max_clean_drop: Annotated[float | None, typer.Option(
        help=f"the same for clean accuracy; with a baseline it is always judged, by default {MAX_CLEAN_DROP:g}; 100 "
             f"allows anything")] = None,
    min_robust: Annotated[float | None, typer.Option(help="least robust accuracy, in percent")] = None,
    min_class: Annotated[float | None, typer.Option(help="least robust accuracy of each class, in percent")] = None,
    min_clean: Annotated[float | None, typer.Option(help="least clean accuracy, in percent")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="undecided is a fail")] = False,
    allow_findings: Annotated[bool, typer.Option(
        "--allow-findings", help="pass in spite of signs of masked gradients")] = False,
    force: Annotated[bool, typer.Option("--force", help="compare although the attacks differ")] = False,
    markdown: Annotated[Path | None, typer.Option(
        help="append a summary to this file, such as $GITHUB_STEP_SUMMARY", metavar="FILE")] = None,
    junit: Annotated[Path | None, typer.Option(
        help="write the checks to this file as JUnit XML: undecided is skipped, or a failure with --strict",
        metavar="FILE")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON and nothing else to stdout")] = False,
) -> None:
    """Judge a report by limits, in percent points.

    Exit codes: 0 pass; 1 fail; 2 wrong usage, an unreadable report or two that cannot be compared; 3 undecided: below
    a limit, but by no more than chance could do; or a report without a verdict ("not evaluated": it says why, and which
    attack would decide). Exactly at a limit is within it.
    """
    _refuse_overwriting((report, baseline), markdown, junit)
    if junit is not None:
        with _writing(junit, "the JUnit file cannot be written"):
            if junit.is_file():  # where this run has no verdict, an old one must not stand for it
                junit.unlink()
    now, before = read_report(report), None if baseline is None else read_report(baseline)
    try:
        verdict = judge(now, before, max_drop=max_drop, max_clean_drop=max_clean_drop, min_robust=min_robust,
                        min_class=min_class, min_clean=min_clean, strict=strict, allow_findings=allow_findings,
                        allow_different_attacks=force)
    except ValueError as error:
        refuse(_as_options(str(error)))
    if markdown is not None:
        with _writing(markdown, f"the summary is not written; {verdict.sentence}"):
            make_folder(markdown.parent)
            with markdown.open("a", encoding="utf-8") as file:
                file.write(verdict.to_markdown() + "\n")
    if junit is not None:
        with _writing(junit, f"the JUnit file is not written; {verdict.sentence}"):
            write_whole(junit, junit_xml(verdict).encode())
    if as_json:
        typer.echo(json.dumps(verdict.to_dict(), indent=1))
    else:
        _print(verdict)
    raise typer.Exit(verdict.exit_code)


def _refuse_overwriting(reports: tuple[Path | None, ...], markdown: Path | None, junit: Path | None) -> None:
    for path in (markdown, junit):
        if path is not None and path.resolve() in {given.resolve() for given in reports if given is not None}:
            refuse(f"{path} is a report, and would be overwritten: name another file")
    if junit is not None and markdown is not None and junit.resolve() == markdown.resolve():
        refuse(f"{junit} cannot be both the summary and the JUnit file")


def _print(verdict: GateVerdict) -> None:
    console = Console()
    console.print(f"{escape(verdict.sentence)} (exit code {verdict.exit_code})", highlight=False)
    for check in verdict.checks:
        console.print(f"[{_COLOUR[check.outcome]}]{check.outcome}[/] {check.criterion}: {escape(check.words)}",
                      highlight=False)
    if verdict.comparison is not None:
        console.print()
        print_comparison(verdict.comparison, console)


@contextlib.contextmanager
def _writing(path: Path, consequence: str) -> Iterator[None]:
    """A file that cannot be written is one line and exit code 2."""
    try:
        yield
    except OSError as error:
        refuse(f"{path}: {error.strerror or error}, so {consequence}")


def _as_options(words: str) -> str:
    """The library's words with the names that its arguments have here."""
    words = re.sub(r"\b(?:max|min)_\w+", lambda found: "--" + found[0].replace("_", "-"), words)
    return f"{words} (--force)." if "allow different attacks" in words else words
