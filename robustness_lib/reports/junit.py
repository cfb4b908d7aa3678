"""The gate's verdict as JUnit XML, which pipelines show as a list of tests."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from robustness_lib.reports.gate import GateVerdict

__all__ = ["junit_xml"]

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # names of classes may hold anything


def junit_xml(verdict: GateVerdict) -> str:
    """One test case for each check. A check that failed is a failure; one that is undecided is skipped, or a failure
    where the gate is strict, so that a pipeline that reads the file ends as one that reads the exit code does."""
    states = [_state(verdict, check.outcome) for check in verdict.checks]
    counts = {"tests": str(len(states)), "failures": str(states.count("failure")), "errors": "0",
              "skipped": str(states.count("skipped")), "time": "0"}
    root = ElementTree.Element("testsuites", {"name": "robustness gate", **counts})
    suite = ElementTree.SubElement(root, "testsuite", {"name": "robustness gate", **counts})
    for check, state in zip(verdict.checks, states, strict=True):
        case = ElementTree.SubElement(suite, "testcase", {"classname": "robustness.gate", "name": check.criterion,
                                                          "time": "0"})
        words = _NOT_XML.sub("\ufffd", check.words)
        if state is None:
            ElementTree.SubElement(case, "system-out").text = words
        else:
            found = ElementTree.SubElement(case, state, {"message": words})
            if state == "failure":
                found.set("type", check.outcome)
                found.text = words
    ElementTree.SubElement(suite, "system-out").text = _NOT_XML.sub("\ufffd", verdict.sentence)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _state(verdict: GateVerdict, outcome: str) -> str | None:
    """The element that says it; None for a check that is met."""
    if outcome == "pass":
        return None
    return "failure" if outcome == "fail" or verdict.strict else "skipped"
