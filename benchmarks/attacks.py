"""Our attacks beside those of torchattacks, foolbox and the Adversarial Robustness Toolbox (ART).

    python benchmarks/attacks.py                     all sections but the last two; writes results/attacks.json
    python benchmarks/attacks.py --only pgd square   these sections; the rest of the file stays
    python benchmarks/attacks.py --reference         these too: other people's nets, about an hour
    python benchmarks/attacks.py --quick             a few images and steps, to see that it runs
    python benchmarks/attacks.py --plot              book/assets/attacks-peers.png, from the results

One process, one thread; seconds are of processor time. Everybody gets the same net, images, steps, step size and ε,
and the peers their images in batches of 128, faster for them than 500 at once. In each round all take their turn; the
first round warms up and counts model calls, and medians of the next five are reported. A library that needs more than
half a minute for a round is timed once. What counts as broken is judged here, by a fresh forward pass.
Each section is written as it ends, so a killed run keeps what it had.

The peers: pip install -e ".[benchmark]", in an environment of its own, since torchattacks asks for a `requests` so old
that jupyterlab refuses it. The sections `overhead`, `wk17a` and `trades`, and the plot, need none of them.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import importlib.util
import json
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import torch
from cases import QUICK, Case, Figures, Size, half_robust, nearly_all_broken, right, unbreakable
from measuring import Counter, compare, processor, same_for_all, seconds
from peers import (
    Attacker,
    apgd_attackers,
    cw_attackers,
    in_batches,
    pgd_attackers,
    square_attackers,
    torchattacks_fab,
)
from peers_plot import plot
from torch import Tensor, nn

from robustness_lib import ThreatModel, attacks, data, models
from robustness_lib.files import write_whole

ROOT = Path(__file__).parent.parent
RESULT, QUICK_RESULT = ROOT / "benchmarks/results/attacks.json", ROOT / "_build/attacks-quick.json"
PLOT = ROOT / "book/assets/attacks-peers.png"
PEERS = {"torchattacks": "torchattacks", "foolbox": "foolbox", "art": "adversarial-robustness-toolbox"}


# ---------------------------------------------------------------------------------------- sections: the peers

def pgd(size: Size) -> Figures:
    cases = [make(size.pgd_images) for make in (unbreakable, half_robust, nearly_all_broken)]
    return {
        "settings": {"norm": "linf", "steps": size.pgd_steps, "step_size": "2.5 ε / steps",
                     "starts": "uniform in the ball"},
        "notes": ["ours: an image that is broken takes no further steps; the others take all steps with every image"],
        "cases": {case.name: compare(case, pgd_attackers(case.eps, size.pgd_steps), size) for case in cases},
        "random_start_share_of_pgd40": random_start_share(size),
    }


def random_start_share(size: Size) -> float:
    """Seconds of one random start as a share of a whole PGD on the same 100 images."""
    case, index = unbreakable(size.pgd_images).first(100), torch.arange(100)
    threat = ThreatModel("linf", case.eps)
    attack = attacks.PGD(threat, steps=40)
    shares = [seconds(lambda r=repeat: threat.random_point(case.x, seed=r, index=index[: len(case.x)]))
              / seconds(lambda: attack(case.model, case.x, case.y)) for repeat in range(size.repeats + 1)]
    return round(statistics.median(shares[1:]), 4)


def apgd(size: Size) -> Figures:
    cases = [make(size.pgd_images).first(size.apgd_images) for make in (unbreakable, half_robust)]
    return {
        "settings": {"norm": "linf", "steps": size.apgd_steps, "loss": "ce", "rho": 0.75, "restarts": 1,
                     "first_step": "2 ε"},
        "notes": ["torchattacks: a gradient at every point, the last one too, though no step follows it",
                  "art: for every step a gradient and a second forward pass for the loss; returns the last iterate, "
                  "not the first or best one that was wrong"],
        "cases": {case.name: compare(case, apgd_attackers(case.eps, size.apgd_steps), size) for case in cases},
    }


def cw(size: Size) -> Figures:
    case = right("signs-pgd", size.cw_images)
    return {
        "settings": {"norm": "l2", "search_steps": size.cw_search_steps, "steps": size.cw_steps, "lr": 0.01,
                     "initial_c": 1.0, "confidence": 0},
        "notes": ["torchattacks: no search over c; instead one run for each of as many constants, evenly spaced in "
                  "their logarithm from .1 to 10, and the nearest kept. It ends a whole batch when the summed loss "
                  "has risen at a tenth of the steps, and compares with 0 where all other logits are negative",
                  "art: plain gradient steps with a line search (up to ten forward passes a step) instead of Adam, "
                  "doubles c instead of multiplying it by ten, one backward pass for each class that occurs",
                  "mean_distance: over the images that all broke; compared with ours: over those that both broke"],
        "cases": {"signs-pgd": compare(case, cw_attackers(size.cw_search_steps, size.cw_steps), size, "l2")},
    }


def fab(size: Size) -> Figures:
    case = right("signs-pgd", size.fab_images)
    settings = {"steps": size.fab_steps, "target_classes": 9, "alpha_max": 0.1, "eta": 1.05, "beta": 0.9, "restarts": 1}
    return {
        "settings": settings,
        "notes": ["torchattacks: its loop over the classes ends at the first one within ε, so each class is run from "
                  "here and the nearest kept",
                  "distances: over the images that both broke"],
        "cases": {norm: compare(case, {
            "ours": attacks.FAB(norm=norm, steps=size.fab_steps),
            "torchattacks": in_batches(torchattacks_fab(norm, size.fab_steps)),
        }, size, norm) for norm in ("linf", "l2")},
    }


def square(size: Size) -> Figures:
    cases = [make(size.pgd_images).first(size.square_images) for make in (unbreakable, nearly_all_broken)]
    return {
        "settings": {"norm": "linf", "queries": size.square_queries, "p_init": 0.8, "loss": "margin", "restarts": 1},
        "notes": ["art: three forward passes for each proposal, so three times the queries for the same search",
                  "torchattacks and art: one window for the whole batch; ours: one for each image"],
        "cases": {case.name: compare(case, square_attackers(case.eps, size.square_queries), size) for case in cases},
    }


# ---------------------------------------------------------------------------------------- section: overhead

def raw_calls(model: nn.Module, x: Tensor, calls: int = 10) -> tuple[float, float]:
    """Seconds of one gradient call (forward and backward, input alone) and of one forward call, on all of x."""
    def gradient() -> None:
        point = x.detach().requires_grad_()
        logits = model(point)
        torch.autograd.grad(logits, point, torch.ones_like(logits))

    def forward() -> None:
        with torch.no_grad():
            model(x)

    return statistics.median(seconds(gradient) for _ in range(calls)), \
        statistics.median(seconds(forward) for _ in range(calls))


def overhead(size: Size) -> Figures:
    """The time of each attack over what its model calls alone cost."""
    case = unbreakable(size.overhead_images)
    threat = ThreatModel("linf", case.eps)
    surrogate = models.load_pretrained("signs-standard")
    suite = {
        "FGSM": attacks.FGSM(threat),
        "PGD linf": attacks.PGD(threat),
        "PGD l2": attacks.PGD(ThreatModel("l2", 0.1)),
        "AutoPGD ce": attacks.AutoPGD(threat),
        "AutoPGD ce l2": attacks.AutoPGD(ThreatModel("l2", 0.1)),
        "AutoPGD dlr": attacks.AutoPGD(threat, loss="dlr"),
        "AutoPGD targeted-dlr": attacks.AutoPGD(threat, steps=20, loss="targeted-dlr"),
        "Square linf": attacks.SquareAttack(threat, queries=500),
        "Square l2": attacks.SquareAttack(ThreatModel("l2", 0.1), queries=500),
        "Transfer": attacks.Transfer(threat, surrogate),
        "CarliniWagnerL2": attacks.CarliniWagnerL2(search_steps=4, steps=50, initial_c=1.0),
        "FAB linf": attacks.FAB(norm="linf", steps=20),
        "FAB l2": attacks.FAB(norm="l2", steps=20),
    }
    plain, last = quiet(case.model), quiet(case.model).to(memory_format=torch.channels_last)
    layouts = {"as_given": (plain, case.x),
               "channels_last": (last, case.x.contiguous(memory_format=torch.channels_last))}
    return {
        "settings": case.figures() | {"repeats": size.repeats},
        "notes": ["ratio: seconds of the attack over gradients × one raw gradient + the other images seen × one raw "
                  "forward pass, both timed before and after each run on the same batch; median of the rounds",
                  "as_given: the raw calls on the model as it is loaded; channels_last: on the model in the memory "
                  "order that its convolutions are fast in, which is the stricter of the two"],
        "attacks": {name: attack_overhead(attack, case, surrogate, layouts, size) for name, attack in suite.items()},
    }


def quiet(model: nn.Module) -> nn.Module:
    """A copy whose parameters ask for no gradient."""
    return copy.deepcopy(model).requires_grad_(False)


def attack_overhead(attack: Attacker, case: Case, surrogate: nn.Module,
                    layouts: dict[str, tuple[nn.Module, Tensor]], size: Size) -> Figures:
    with Counter(case.model, surrogate) as counter:
        attack(case.model, case.x, case.y)
    rounds: dict[str, list[float]] = {name: [] for name in layouts}
    times = []
    for _ in range(size.repeats):
        before = {name: raw_calls(*layout) for name, layout in layouts.items()}
        times.append(seconds(lambda: attack(case.model, case.x, case.y)))
        after = {name: raw_calls(*layout) for name, layout in layouts.items()}
        for name in layouts:
            gradient, forward = ((a + b) / 2 / len(case.x) for a, b in zip(before[name], after[name], strict=True))
            alone = counter.gradients * gradient + (counter.forward - counter.gradients) * forward
            rounds[name].append(times[-1] / alone)
    return {
        "seconds": round(statistics.median(times), 4),
        "gradients": counter.gradients, "forward_alone": counter.forward - counter.gradients,
        "ratio": {name: round(statistics.median(values), 3) for name, values in rounds.items()},
    }


# ---------------------------------------------------------------------------------------- section: AutoAttack

@dataclass(frozen=True)
class Stage:
    name: str
    attempted: int
    broken: int
    seconds: float


def authors_way(model: nn.Module, x: Tensor, y: Tensor, eps: float, size: Size) -> tuple[Tensor, list[Stage]]:
    """torchattacks' ports of the authors' four attacks, with the authors' settings, each on the survivors."""
    import torchattacks

    steps, queries = size.autoattack_steps, size.autoattack_queries
    suite = {
        "apgd-ce": torchattacks.APGD(model, norm="Linf", eps=eps, steps=steps, n_restarts=1, loss="ce"),
        "apgd-t": torchattacks.APGDT(model, norm="Linf", eps=eps, steps=steps, n_restarts=1, n_classes=10),
        "fab-t": torchattacks.FAB(model, norm="Linf", eps=eps, steps=steps, n_restarts=1, multi_targeted=True,
                                  n_classes=10),
        "square": torchattacks.Square(model, norm="Linf", eps=eps, n_queries=queries, n_restarts=1),
    }
    robust, stages = torch.ones(len(x), dtype=torch.bool), []
    for name, attack in suite.items():
        rows = robust.nonzero()[:, 0]
        began = time.perf_counter()
        x_adv = attack(x[rows], y[rows]) if len(rows) else x[rows]
        with torch.no_grad():
            robust[rows] = model(x_adv).argmax(1) == y[rows]
        stages.append(Stage(name, len(rows), len(rows) - int(robust[rows].sum()), time.perf_counter() - began))
    return robust, stages


def ours_whole(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> tuple[Tensor, list[Stage]]:
    result = attacks.AutoAttack(ThreatModel("linf", eps)).run(model, x, y)
    with torch.no_grad():
        robust = model(result.x_adv).argmax(1) == y
    return robust, [Stage(s.name, s.attempted, s.broken, s.seconds) for s in result.stages]


def torchattacks_whole(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> tuple[Tensor, list[Stage]]:
    import torchattacks

    x_adv = torchattacks.AutoAttack(model, norm="Linf", eps=eps, version="standard", n_classes=10, seed=0)(x, y)
    with torch.no_grad():
        return model(x_adv).argmax(1) == y, []


def autoattack(size: Size) -> Figures:
    eps = 4 / 255
    case = right("signs-pgd", size.autoattack_images, eps)
    runs = {
        "ours": ours_whole,
        "authors": lambda *given: authors_way(*given, size),
        "torchattacks_10_steps": torchattacks_whole,
    }
    times: dict[str, list[float]] = {name: [] for name in runs}
    by_the_clock: dict[str, list[float]] = {name: [] for name in runs}
    per_stage: dict[str, list[list[Stage]]] = {name: [] for name in runs}
    robust: dict[str, Tensor] = {}
    for repeat in range(size.autoattack_repeats):
        for name, run in runs.items():
            same_for_all(case.model, repeat)
            began, clock = time.process_time(), time.perf_counter()
            robust[name], stages = run(case.model, case.x, case.y, eps)
            times[name].append(time.process_time() - began)
            by_the_clock[name].append(time.perf_counter() - clock)
            per_stage[name].append(stages)
            print(f"  autoattack {name}: {times[name][-1]:.1f} s, {int(robust[name].sum())} robust", flush=True)
    medians = {name: statistics.median(values) for name, values in times.items()}
    return {
        "settings": case.figures() | {"norm": "linf", "version": "standard", "repeats": size.autoattack_repeats,
                                      "steps": size.autoattack_steps, "queries": size.autoattack_queries},
        "notes": ["authors: torchattacks' ports of the authors' code, run as the authors' own runner does: APGD-CE 100 "
                  "steps, APGD-T 100 steps against 9 classes, FAB-T 100 steps against 9 classes, Square 5000 queries, "
                  "one restart, each on the survivors of the one before",
                  "torchattacks_10_steps: torchattacks.AutoAttack as it comes. It leaves the steps of APGD, APGD-T and "
                  "FAB at their default of 10 instead of 100, so its time is that of a weaker attack",
                  "seconds are of processor time, those of the stages by the clock"],
        "runs": {name: {"robust": int(robust[name].sum()), "seconds": round(medians[name], 2),
                        "all_seconds": [round(value, 2) for value in times[name]],
                        "clock_seconds": round(statistics.median(by_the_clock[name]), 2),
                        "stages": stage_medians(per_stage[name])} for name in runs},
        "times_as_fast": {name: round(medians[name] / medians["ours"], 3) for name in runs if name != "ours"},
        "verdicts": {name: agreement(robust["ours"], robust[name]) for name in runs if name != "ours"},
    }


def stage_medians(rounds: list[list[Stage]]) -> list[Figures]:
    """What was broken is that of the last round; the seconds are medians."""
    return [{"name": turns[-1].name, "attempted": turns[-1].attempted, "broken": turns[-1].broken,
             "seconds": round(statistics.median(turn.seconds for turn in turns), 2)}
            for turns in zip(*rounds, strict=True)]


def agreement(ours: Tensor, theirs: Tensor) -> Figures:
    return {"same": int((ours == theirs).sum()), "only_ours_broke": int((~ours & theirs).sum()),
            "only_theirs_broke": int((ours & ~theirs).sum()), "n": len(ours)}


# ---------------------------------------------------------------------------------------- section: reference models

def reference(name: str, verdicts: str, size: Size) -> Figures:
    """AutoAttack on one of other people's nets, against the verdicts of the authors' implementation."""
    folder = Path(os.environ.get("ROBUSTNESS_REFERENCE_MODELS", ""))
    if not (folder / verdicts).exists():
        raise SystemExit(f"set ROBUSTNESS_REFERENCE_MODELS to the folder that holds {verdicts} and the nets")
    model, eps, _ = nets_of_the_tests().load(folder, name)
    x, y, _ = data.load("mnist", n=size.reference_images)
    # A killed run goes on where it was.
    result = attacks.AutoAttack(ThreatModel("linf", eps)).run(model, x, y, state=ROOT / f"_build/{name}-{len(x)}")
    theirs = torch.tensor(json.loads((folder / verdicts).read_text())["robust"][: len(x)], dtype=torch.bool)
    accuracy = result.robust_accuracy
    print(f"  {name}: {accuracy}", flush=True)
    return {
        "settings": {"norm": "linf", "eps": eps, "version": "standard", "data": "the first test images of MNIST"},
        "notes": ["agreement: with the verdicts of the authors' implementation (seed 0), image by image, where it ran",
                  "seconds are by the clock"],
        "n": len(x), "clean": int(result.clean.sum()), "robust": accuracy.correct,
        "robust_accuracy": accuracy.value, "interval_95": [round(end, 4) for end in accuracy.interval],
        "seconds": round(sum(stage.seconds for stage in result.stages), 1),
        "stages": [{"name": s.name, "attempted": s.attempted, "broken": s.broken, "seconds": round(s.seconds, 1)}
                   for s in result.stages],
        "agreement": agreement(result.robust[: len(theirs)], theirs),
    }


def nets_of_the_tests() -> ModuleType:
    """The nets are built as the tests build them."""
    spec = importlib.util.spec_from_file_location("nets", ROOT / "tests/attacks/test_reference_models.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# ---------------------------------------------------------------------------------------- results

SECTIONS: dict[str, Callable[[Size], Figures]] = {
    "pgd": pgd, "apgd": apgd, "cw": cw, "fab": fab, "square": square, "overhead": overhead, "autoattack": autoattack,
    "wk17a": partial(reference, "wk17a", "ref_aa_wk17a_300.json"),
    "trades": partial(reference, "trades", "ref_aa_trades_150.json"),
}


OTHERS_NETS = ("wk17a", "trades")


def about(name: str) -> Figures:
    alone = name in ("overhead", *OTHERS_NETS)
    peers = {} if alone else {library: version(package) for library, package in PEERS.items()}
    return {
        "command": f"python benchmarks/attacks.py --only {name}",
        "date": datetime.date.today().isoformat(),
        "machine": f"{processor()}, one thread",
        "versions": {"torch": torch.__version__} | peers,
    }


def keep(file: Path, name: str, figures: Figures) -> None:
    """Into the file of results, whole or not at all."""
    results = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    results[name] = figures
    ordered = {section: results[section] for section in SECTIONS if section in results}
    write_whole(file, (json.dumps(ordered, indent=2, ensure_ascii=False) + "\n").encode())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=SECTIONS, help="these sections alone")
    parser.add_argument("--reference", action="store_true", help="the sections on other people's nets too")
    parser.add_argument("--quick", action="store_true", help=f"small and once; writes {QUICK_RESULT.relative_to(ROOT)}")
    parser.add_argument("--plot", action="store_true", help="draw what the file of results holds; measure nothing")
    arguments = parser.parse_args()
    file, size = (QUICK_RESULT, QUICK) if arguments.quick else (RESULT, Size())
    if arguments.plot:
        plot(file, QUICK_RESULT.with_suffix(".png") if arguments.quick else PLOT)
        return
    torch.set_num_threads(1)
    names = arguments.only or [name for name in SECTIONS if name not in OTHERS_NETS or arguments.reference]
    for name in names:
        print(name, flush=True)
        figures = SECTIONS[name](size)
        keep(file, name, about(name) | figures)
        print(json.dumps(figures, indent=1, ensure_ascii=False), flush=True)


if __name__ == "__main__":
    main()
