"""A benchmark that a chapter reads: sections, each measured alone or all in turn, in one file of results."""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from measuring import processor

from robustness_lib import ThreatModel
from robustness_lib.files import write_whole
from robustness_lib.statistics import Accuracy

__all__ = ["ROOT", "Figures", "figure", "once", "run_sections"]

ROOT = Path(__file__).resolve().parents[1]
Figures = dict[str, Any]
Size = TypeVar("Size")


def figure(accuracy: Accuracy) -> Figures:
    """As chapters read it (`notebook.of_file`)."""
    return {"right": accuracy.correct, "n": accuracy.n, "interval_95": [round(v, 4) for v in accuracy.interval]}


def once(file: Path, settings: Figures, work: Callable[[], Figures]) -> Figures:
    """The result of `work`, which is kept in this file: one that was kept under the same settings is not done again."""
    settings = json.loads(json.dumps(settings))
    if file.exists():
        kept: Figures = json.loads(file.read_text(encoding="utf-8"))
        if kept.get("settings") == settings:
            return dict(kept["result"])
    result = work()
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, json.dumps({"settings": settings, "result": result}).encode())
    print(f"  {file.stem}", flush=True)
    return result


def run_sections(sections: Mapping[str, Callable[[Size, Path], Iterator[Figures]]], size: Size, quick: Size,
                 threat: ThreatModel) -> None:
    """The command line of the script that calls. A section yields all that it has so far, each time it has more; that
    is written to benchmarks/results/SCRIPT.json at once. It gets the folder too, for files of its own."""
    script = Path(sys.argv[0]).stem
    small = ROOT / f"_build/{script}-quick"
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=sections, help="these sections alone")
    parser.add_argument("--quick", action="store_true", help=f"small; writes {small.relative_to(ROOT)}")
    arguments = parser.parse_args()
    folder = small if arguments.quick else ROOT / "benchmarks/results"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{script}.json"
    torch.set_num_threads(1)
    for name in arguments.only or sections:
        print(name, flush=True)
        for figures in sections[name](quick if arguments.quick else size, folder):
            results = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
            results[name] = _about(script, name, threat) | figures
            ordered = {section: results[section] for section in sections if section in results}
            write_whole(file, (json.dumps(ordered, indent=1, ensure_ascii=False) + "\n").encode())


def _about(script: str, name: str, threat: ThreatModel) -> Figures:
    return {
        "command": f"python benchmarks/{script}.py --only {name}",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": f"{processor()}, one thread",
        "torch": torch.__version__,
        "threat": {"norm": threat.norm, "eps": threat.eps},
    }
