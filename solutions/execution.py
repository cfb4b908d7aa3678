"""Run a repaired notebook to its end whatever its cells do, and settle what each check is worth before nbgrader counts.

nbgrader by itself gives up on a whole notebook when its kernel dies or a check returns too much, gives nothing where
a warning was printed, and gives *all* points where a check returns no number.
"""

from __future__ import annotations

import math
import time
from typing import Any

from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbconvert.exporters.exporter import ResourcesDict
from nbformat import NotebookNode
from nbformat.v4 import new_output
from nbgrader import preprocessors, utils

CELL_SECONDS = 180
OUTPUT_CHARACTERS = 1_000_000  # of one cell; the rest of what it prints and shows is dropped
FINDINGS = ("✓", "✗")


def failure(what: str) -> NotebookNode:
    """An output that says why a cell has no result; nbgrader gives such a cell nothing."""
    return new_output("error", ename="NotGraded", evalue=what, traceback=[f"NotGraded: {what}"])


class Execute(preprocessors.Execute):
    """nbgrader's execution, with a time limit for the notebook and for each cell, and one for its outputs.

    When the time is up, or the kernel is gone, the cells below are not run, and those above keep what they earned.
    """

    def __init__(self, seconds: float, **settings: Any) -> None:
        super().__init__(**settings)
        self.seconds = seconds
        self.deadline = math.inf
        self.printed = 0
        self.stopped = ""
        self.remarks: list[str] = []

    def preprocess(self, nb: NotebookNode, resources: ResourcesDict, km: Any = None) -> Any:
        self.deadline = time.monotonic() + self.seconds
        return super().preprocess(nb, resources, km)

    def preprocess_cell(self, cell: NotebookNode, resources: ResourcesDict, index: int) -> Any:
        left = self.deadline - time.monotonic()
        if left <= 0:
            self.stop(f"the notebook ran longer than {self.seconds / 60:g} minutes")
        if self.stopped:
            if cell.cell_type == "code":
                cell.outputs = [failure(f"this cell was not run: {self.stopped}")]
            return cell, resources
        self.printed = 0
        self.timeout = max(1, math.ceil(min(CELL_SECONDS, left)))
        try:
            return super().preprocess_cell(cell, resources, index)
        except DeadKernelError:
            cell.outputs.append(failure("the kernel ended in this cell"))
            self.stop(f"the kernel ended in or before cell {index + 1}{named(cell)}")
        except CellTimeoutError:
            cell.outputs.append(failure("this cell did not come to an end"))
            self.remarks.append(f"cell {index + 1}{named(cell)} did not come to an end")
        return cell, resources

    def stop(self, why: str) -> None:
        if not self.stopped:
            self.stopped = why
            self.remarks.append(f"{why}; the cells below were not run")

    def on_cell_executed(self, **arguments: Any) -> None:
        super().on_cell_executed(**arguments)
        cell, index = arguments["cell"], arguments["cell_index"]
        if arguments["execute_reply"]["content"].get("ename") == "CellTimeoutError":
            self.remarks.append(f"cell {index + 1}{named(cell)} was stopped after {self.timeout} s")

    def process_message(self, msg: dict[str, Any], cell: NotebookNode, cell_index: int) -> NotebookNode | None:
        content, sort = msg["content"], msg["msg_type"]
        if sort in ("stream", "display_data", "update_display_data", "execute_result"):
            size = len(content.get("text", "")) + sum(len(str(value)) for value in content.get("data", {}).values())
            # A check that prints much has its number all the same.
            if self.printed + size > OUTPUT_CHARACTERS and not (sort == "execute_result" and size < 1000):
                if self.printed <= OUTPUT_CHARACTERS:
                    self.printed = OUTPUT_CHARACTERS + 1
                    self.remarks.append(f"cell {cell_index + 1}{named(cell)} printed too much; the rest is left out")
                return None
            self.printed += size
        return super().process_message(msg, cell, cell_index)


def named(cell: NotebookNode) -> str:
    name = cell.metadata.get("nbgrader", {}).get("grade_id")
    return f" (`{name}`)" if name else ""


def number(output: NotebookNode) -> float | None:
    """The finite number that a result is, if it is one."""
    try:
        value = float(output.data["text/plain"])
    except (KeyError, ValueError, TypeError):
        return None
    return value if math.isfinite(value) else None


class Settle(preprocessors.NbGraderPreprocessor):
    """Leave in each check one number between 0 and its points, or an error; collect its lines of findings."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.remarks: list[str] = []
        self.findings: list[tuple[str, str]] = []

    def preprocess_cell(self, cell: NotebookNode, resources: ResourcesDict, cell_index: int) -> Any:
        if utils.is_grade(cell) and not utils.is_solution(cell) and cell.cell_type == "code":
            self.settle(cell)
        return cell, resources

    def settle(self, cell: NotebookNode) -> None:
        name, points = cell.metadata.nbgrader["grade_id"], float(cell.metadata.nbgrader["points"])
        for output in cell.outputs:
            if output.output_type == "stream":
                output.name = "stdout"  # for nbgrader, a warning is a failure
                lines = (line.strip() for line in output.text.splitlines())
                self.findings += [(name, line) for line in lines if line.startswith(FINDINGS)]
        error = next((output for output in cell.outputs if output.output_type == "error"), None)
        if error is not None:  # mostly a name that the solution should have defined
            self.findings.append((name, f"✗ {error.ename}: {error.evalue}".splitlines()[0][:200]))
            return
        results = [output for output in cell.outputs if output.output_type == "execute_result"]
        value = number(results[-1]) if results else None
        if value is None:
            self.remarks.append(f"the check `{name}` returned no number: it counts 0")
            cell.outputs.append(failure("this check returned no number"))
            cell.outputs = [output for output in cell.outputs if output not in results]
        elif not 0 <= value <= points:
            possible = min(max(value, 0.0), points)
            results[-1].data["text/plain"] = str(possible)
            self.remarks.append(f"the check `{name}` returned {value:g} of {points:g} points; {possible:g} count")
