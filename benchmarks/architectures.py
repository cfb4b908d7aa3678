"""What the shape of a net buys: one knob at a time around one small net, trained by PGD, in paired trainings.

    python benchmarks/architectures.py                 all of it, about seventy minutes of one core
    python benchmarks/architectures.py --only knobs    one section
    python benchmarks/architectures.py --quick         small, into _build/

Writes benchmarks/results/architectures.json. A killed run goes on where it was: every training that has ended is kept
in _build/architectures, and is not done again while it is there.

Nets of the same seed begin from the same random stream and see the same images in the same order; all are judged on
the same test images. At equal steps a costlier net takes more time; at equal time it gets fewer epochs, by the ratio
that section `cost` has measured (once: a later run uses what is written there, so that trainings repeat).
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from architecture_claims import CLAIMS, LEADERBOARD, Claim
from measuring import seconds
from numpy.typing import NDArray
from sections import ROOT, Figures, figure, once, run_sections
from torch import Tensor, nn

from robustness_lib import ThreatModel, data, models
from robustness_lib.attacks import AutoPGD
from robustness_lib.querying.confirm_predictions import predict_logits
from robustness_lib.statistics import Accuracy, PairedTrainings
from robustness_lib.training import AUGMENTATIONS, OneCycle, PGDTraining, fit

KEPT = ROOT / "_build/architectures"
THREAT = ThreatModel("linf", 4 / 255)
STEPS, BATCH, PEAK = 3, 64, 1e-2

Knobs = dict[str, Any]  # of `knob_cnn`, and "peak" where the learning rate is another
Split = tuple[Tensor, Tensor]

BASE: Knobs = {"width": 8, "depth": 1, "activation": "relu", "pooling": "stride", "kernel_size": 3, "batch_norm": True,
               "residual": True}
TURNED: dict[str, Knobs] = {
    "width 4": {"width": 4}, "width 16": {"width": 16},
    "depth 0": {"depth": 0}, "depth 2": {"depth": 2},
    "SiLU": {"activation": "silu"}, "softplus": {"activation": "softplus"},
    "max pooling": {"pooling": "max"}, "average pooling": {"pooling": "average"},
    "kernel 5": {"kernel_size": 5}, "kernel 7": {"kernel_size": 7},
    "no batch norm": {"batch_norm": False},
    "no batch norm, a quarter of the rate": {"batch_norm": False, "peak": PEAK / 4},  # PEAK can be too much
    "no residual connection": {"residual": False},
}
WIDTHS = (2, 4, 6, 8, 12, 16, 24)
DEEP: Knobs = {"depth": 3}
FORGOTTEN: dict[str, Knobs] = {
    "with addition": {}, "without addition": {"residual": False},
    "with addition, no batch norm": {"batch_norm": False, "peak": PEAK / 4},
    "without addition, no batch norm": {"batch_norm": False, "peak": PEAK / 4, "residual": False},
}


@dataclass(frozen=True)
class Size:
    train: int = 1280
    epochs: int = 16
    seeds: int = 5
    test: int = 1000
    margin_steps: int = 20
    cross_entropy_steps: int = 10
    rounds: int = 15
    strong: int = 500  # images of the stronger attack


QUICK = Size(train=128, epochs=2, seeds=2, test=40, margin_steps=2, cross_entropy_steps=1, rounds=1, strong=20)


# ---------------------------------------------------------------------------------------- one training

def kept(size: Size) -> Path:
    return KEPT / ("quick" if size == QUICK else "full")


def built(knobs: Knobs, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return models.knob_cnn(**shape(knobs))


def shape(knobs: Knobs) -> Knobs:
    """What of it is about the net."""
    return {name: value for name, value in (BASE | knobs).items() if name != "peak"}


def trained(knobs: Knobs, seed: int, epochs: int, size: Size, threat: ThreatModel = THREAT) -> nn.Module:
    model = built(knobs, seed)
    fit(model, data.load("signs", "train", n=size.train)[:2], PGDTraining(threat, steps=STEPS), epochs=epochs,
        schedule=OneCycle(knobs.get("peak", PEAK)), batch_size=BATCH, ramp=round(epochs / 5), seed=seed,
        augment=AUGMENTATIONS["signs"], keep="last", channels_last=True, progress=False)
    return model


def verdicts(model: nn.Module, images: Split, size: Size, threat: ThreatModel = THREAT) -> dict[str, Tensor]:
    """(n,) bool each: right on clean images; right in the worst case of Auto-PGD on the margin and cross-entropy."""
    x, y = images
    clean = predict_logits(model, x, size=250).argmax(1) == y
    standing = clean.clone()
    for loss, steps in (("margin", size.margin_steps), ("ce", size.cross_entropy_steps)):
        rows = standing.nonzero()[:, 0]
        standing[rows] = ~AutoPGD(threat, steps=steps, loss=loss).run(model, x[rows], y[rows], index=rows).success
    return {"clean": clean, "robust": standing}


def packed(column: Tensor) -> str:
    """Verdicts as hexadecimal digits, four images each."""
    return np.packbits(column.numpy()).tobytes().hex()


def unpacked(digits: str, n: int) -> NDArray[np.bool_]:
    return np.unpackbits(np.frombuffer(bytes.fromhex(digits), np.uint8))[:n].astype(bool)


def one_run(name: str, knobs: Knobs, seed: int, epochs: int, size: Size) -> Figures:
    """The verdicts of a net after its training, which a killed run may have left behind."""
    settings = {"knobs": shape(knobs), "seed": seed, "epochs": epochs, "threat": THREAT.text, "steps": STEPS,
                "batch": BATCH, "peak": knobs.get("peak", PEAK), "train": size.train, "test": size.test,
                "attack": [size.margin_steps, size.cross_entropy_steps]}

    def work() -> Figures:
        model = trained(knobs, seed, epochs, size)
        found = verdicts(model, data.load("signs", "test", n=size.test)[:2], size)
        return {kind: packed(column) for kind, column in found.items()}
    return once(kept(size) / f"{name}, {epochs} epochs, seed {seed}.json",
                settings, work)


def columns(runs: list[Figures], n: int) -> dict[str, NDArray[np.bool_]]:
    """(runs, n) bool each: right on clean images, right under attack, and lost to the attack."""
    clean, robust = (np.stack([unpacked(run[kind], n) for run in runs]) for kind in ("clean", "robust"))
    return {"clean": clean, "robust": robust, "lost to the attack": clean & ~robust}


def summary(found: dict[str, NDArray[np.bool_]]) -> Figures:
    """Right ones of each training, by seed; their mean, with an interval for other trainings on other images."""
    figures: Figures = {}
    for kind in ("clean", "robust"):
        right = found[kind]
        figures[kind] = {"right": right.sum(1).tolist(), "n": right.shape[1], "mean": round(float(right.mean()), 4)}
        if len(right) > 1:
            figures[kind]["interval_95"] = rounded(PairedTrainings.of(np.zeros_like(right), right).interval)
    return figures


def effects(before: dict[str, NDArray[np.bool_]], after: dict[str, NDArray[np.bool_]]) -> Figures:
    """As shares of the images, from the first net to the second."""
    return {kind: effect(PairedTrainings.of(before[kind], after[kind])) for kind in before}


def effect(paired: PairedTrainings) -> Figures:
    return {"effect": round(paired.effect, 4), "interval_95": rounded(paired.interval),
            "interval_95 on these images": rounded(paired.interval_on_these_images),
            "smallest visible": round(paired.smallest_visible(), 4),
            "error of trainings": round(paired.error_of_trainings, 5),
            "error of images": round(paired.error_of_images, 5)}


def rounded(interval: tuple[float, float]) -> list[float]:
    return [round(end, 4) for end in interval]


# ---------------------------------------------------------------------------------------- sections

TRIALS = [(4, PEAK, 1.0, seed) for seed in (100, 101, 102)] + [(4, PEAK, 0.5, seed) for seed in (100, 101, 102)] + [
    (4, PEAK / 2, 1.0, 100), (6, PEAK, 1.0, 100), (8, PEAK, 1.0, 100)]  # ε · 255, peak, share of the epochs, seed


def trying(size: Size, folder: Path) -> Iterator[Figures]:
    """Where the base net is neither at the ceiling nor on the floor, and trainings are alike: ε, learning rate, epochs,
    on validation images and with seeds that no section uses again."""
    found: list[Figures] = []
    images = data.load("signs", "validation", n=size.test)[:2]
    for level, peak, share, seed in TRIALS:
        threat, epochs = ThreatModel("linf", level / 255), round(share * size.epochs)
        settings = {"threat": threat.text, "peak": peak, "epochs": epochs, "seed": seed}

        def work(threat: ThreatModel = threat, peak: float = peak, epochs: int = epochs, seed: int = seed) -> Figures:
            model = trained({"peak": peak}, seed, epochs, size, threat)
            return {kind: figure(Accuracy.of(column)) for kind, column in verdicts(model, images, size, threat).items()}
        file = kept(size) / f"trial {level}, peak {peak:g}, {epochs} epochs, seed {seed}.json"
        found.append(settings | once(file, settings | dataclasses.asdict(size), work))
        yield {"net": BASE, "train": size.train, "measured by": attack_words(size), "tried": found,
               "taken": {"threat": THREAT.text, "peak": PEAK, "epochs": size.epochs}}


def cost(size: Size, folder: Path) -> Iterator[Figures]:
    """Processor time of a training step, the nets in turn, round by round, over that of the base net. Measured once:
    the epochs of section `knobs` follow from it."""
    yield once(kept(size) / "cost.json", {"rounds": size.rounds, "epochs": size.epochs, "batch": BATCH, "steps": STEPS},
               lambda: prices_of({"base": {}} | {n: k for n, k in TURNED.items() if "peak" not in k}, size))


def prices_of(nets: dict[str, Knobs], size: Size) -> Figures:
    x, y = data.load("signs", "train", n=BATCH)[:2]
    objective = PGDTraining(THREAT, steps=STEPS)
    built_nets = {name: built(knobs, 0).to(memory_format=torch.channels_last).train() for name, knobs in nets.items()}
    times: dict[str, list[float]] = {name: [] for name in nets}
    for turn in range(size.rounds + 1):
        for name, model in built_nets.items():
            spent = seconds(lambda model=model: objective(model, x, y).backward())
            if turn > 0:  # the first is slower
                times[name].append(spent)
    found: dict[str, Figures] = {}
    for name, model in built_nets.items():
        ratios = [mine / base for mine, base in zip(times[name], times["base"], strict=True)]
        found[name] = {"parameters": parameters(model), "seconds": round(statistics.median(times[name]), 4),
                       "over base": round(statistics.median(ratios), 2),
                       "quartiles": [round(float(q), 2) for q in np.quantile(ratios, [0.25, 0.75])],
                       "epochs in equal time": max(1, round(size.epochs / statistics.median(ratios)))}
    return {"batch": BATCH, "rounds": size.rounds, "nets": found}


def parameters(model: nn.Module, *without: type[nn.Module]) -> int:
    """without: kinds of layers whose parameters are left out."""
    return sum(p.numel() for layer in model.modules() if not isinstance(layer, without)
               for p in layer.parameters(recurse=False))


def measured(folder: Path, section: str) -> Figures:
    """What a section has written. Raises SystemExit where it has not run."""
    file = folder / "architectures.json"
    results = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    if section not in results:
        sys.exit(f"first run this script with --only {section}: there are no figures of it in {file}")
    return dict(results[section])


def knobs_turned(size: Size, folder: Path) -> Iterator[Figures]:
    """Each knob against the base net: at equal steps, then at equal time where that gives it other epochs."""
    measured_prices = measured(folder, "cost")["nets"]
    prices = {name: measured_prices[priced_as(name)] for name in TURNED}
    budgets = {"equal steps": dict.fromkeys(TURNED, size.epochs),
               "equal time": {name: prices[name]["epochs in equal time"] for name in TURNED}}
    wanted = [("base", size.epochs)] + [(name, epochs[name]) for epochs in budgets.values() for name in TURNED]
    wanted = list(dict.fromkeys(wanted))  # where both budgets are the same, one training
    runs: dict[tuple[str, int], list[Figures]] = {key: [] for key in wanted}
    for equal_steps in (True, False):
        for seed in range(size.seeds):
            for name, epochs in wanted:
                if (epochs == size.epochs) == equal_steps:
                    runs[name, epochs].append(one_run(name, TURNED.get(name, {}), seed, epochs, size))
            yield knob_figures(runs, budgets, size, {name: prices[name]["over base"] for name in TURNED})


def priced_as(name: str) -> str:
    """The name of the net whose steps have been timed for this one: the same net, where only the rate is another."""
    return next(other for other, knobs in TURNED.items() if "peak" not in knobs and shape(knobs) == shape(TURNED[name]))


def knob_figures(runs: dict[tuple[str, int], list[Figures]], budgets: dict[str, dict[str, int]], size: Size,
                 prices: dict[str, float]) -> Figures:
    """Of the seeds that base and turned net both have, if there are two. prices: of a step, over the base net's."""
    base = columns(runs["base", size.epochs], size.test)
    compared: Figures = {}
    for budget, epochs in budgets.items():
        compared[budget] = {}
        for name, count in epochs.items():
            if len(runs[name, count]) < 2:
                continue
            found = columns(runs[name, count], size.test)
            before = {kind: column[:len(found[kind])] for kind, column in base.items()}
            spent = round(count * prices[name] / size.epochs, 2)
            compared[budget][name] = {"epochs": count, "time over base": spent} | summary(found) | {
                "from base": effects(before, found)}
    return {"base": {"knobs": BASE, "epochs": size.epochs} | summary(base), "train": size.train, "batch": BATCH,
            "augmentation": repr(AUGMENTATIONS["signs"]), "peak": PEAK, "training attack": f"PGD-{STEPS}",
            "seeds": len(runs["base", size.epochs]), "measured by": attack_words(size), "budgets": compared,
            "design": design(compared),
            "intervals": "each by itself, for other trainings on other images of the same kind; of 20 knobs that do "
            "nothing, one would look as if it did"}


def attack_words(size: Size) -> str:
    return (f"Auto-PGD on the margin, {size.margin_steps} steps, then on cross-entropy, {size.cross_entropy_steps} "
            "steps; worst case")


def design(compared: Figures) -> Figures:
    """What the design can see, from the errors of all its comparisons together: one alone, of five pairs, guesses."""
    found: Figures = {}
    for kind in ("clean", "robust"):
        every = [row["from base"][kind] for rows in compared.values() for row in rows.values()]
        if not every:
            continue
        of_trainings, of_images = (float(np.sqrt(np.mean([one[error] ** 2 for one in every])))
                                   for error in ("error of trainings", "error of images"))
        pairs = min(len(row[kind]["right"]) for rows in compared.values() for row in rows.values())
        typical = PairedTrainings(0.0, of_trainings, of_images, pairs)
        found[kind] = {"half-width": round(typical.interval[1], 4), "pairs": pairs,
                       "smallest visible at 80 % power": round(typical.smallest_visible(0.8), 4)}
    return found


def widths(size: Size, folder: Path) -> Iterator[Figures]:
    """The width turned further, at equal steps: what was trained for section `knobs` is not trained again."""
    runs: dict[int, list[Figures]] = {width: [] for width in WIDTHS}
    for seed in range(size.seeds):
        for width in WIDTHS:
            name, knobs = ("base", {}) if width == BASE["width"] else (f"width {width}", {"width": width})
            runs[width].append(one_run(name, knobs, seed, size.epochs, size))
        yield {"epochs": size.epochs, "measured by": attack_words(size), "widths": {
            str(width): {"parameters": parameters(built({"width": width}, 0))} | summary(columns(of, size.test))
            for width, of in runs.items()}}


def strong(size: Size, folder: Path) -> Iterator[Figures]:
    """Whether a stronger attack changes the picture: 100 steps toward each class after the attack of all the others."""
    x, y = data.load("signs", "test", n=size.strong)[:2]
    found: dict[str, Figures] = {}
    for name in ("base", "SiLU", "kernel 7", "no batch norm"):
        def work(name: str = name) -> Figures:
            model = trained(TURNED.get(name, {}), 0, size.epochs, size)
            usual = verdicts(model, (x, y), size)["robust"]
            rows, last = usual.nonzero()[:, 0], usual.clone()
            steps = 100 if size != QUICK else 2
            last[rows] = ~AutoPGD(THREAT, steps=steps, loss="targeted-dlr").run(
                model, x[rows], y[rows], index=rows).success
            return {"usual attack": figure(Accuracy.of(usual)), "stronger attack": figure(Accuracy.of(last))}
        found[name] = once(kept(size) / f"strong, {name}.json",
                           dataclasses.asdict(size), work)
        yield {"seed": 0, "usual": attack_words(size), "stronger": "and then Auto-PGD-100 on the targeted DLR loss, "
               "nine classes", "nets": found}


def bugs(size: Size, folder: Path) -> Iterator[Figures]:
    """A "residual block" that forgets to add, in a deeper net; and a count of parameters that forgets batch norm."""
    runs: dict[str, list[Figures]] = {name: [] for name in FORGOTTEN}
    nets = {name: built(DEEP | knobs, 0) for name, knobs in FORGOTTEN.items()}
    counts = {name: {"all": parameters(model), "without batch norm": parameters(model, nn.BatchNorm2d)}
              for name, model in ({"base": built({}, 0)} | nets).items()}
    for seed in range(size.seeds):
        for name, knobs in FORGOTTEN.items():
            runs[name].append(one_run(f"deep, {name}", DEEP | knobs, seed, size.epochs, size))
        found = {name: columns(of, size.test) for name, of in runs.items()}
        figures: Figures = {
            "knobs": BASE | DEEP, "epochs": size.epochs, "convolutions": convolutions(nets["with addition"]),
            "measured by": attack_words(size), "parameters": counts,
            "nets": {name: summary(column) for name, column in found.items()}}
        if seed > 0:
            figures["from with addition"] = effects(found["with addition"], found["without addition"])
            figures["the same, no batch norm"] = effects(found["with addition, no batch norm"],
                                                         found["without addition, no batch norm"])
        yield figures


def convolutions(model: nn.Module) -> int:
    return sum(isinstance(layer, nn.Conv2d) for layer in model.modules())


def claims(size: Size, folder: Path) -> Iterator[Figures]:
    """What print says, beside what was measured here."""
    compared = measured(folder, "knobs")["budgets"]
    rows = [judged(claim, budget, knob, compared[budget][knob]["from base"][claim.measure])
            for claim in CLAIMS for budget in ("equal steps", "equal time") for knob in claim.knobs
            if knob in compared[budget]]
    yield {"rule": Claim.RULE, "rows": rows, "leaderboard": LEADERBOARD}


def judged(claim: Claim, budget: str, knob: str, found: Figures) -> Figures:
    low, high = found["interval_95"]
    verdict, why = claim.verdict((low, high), found["smallest visible"])
    return {"claim": claim.words, "source": claim.source, "claimed": claim.size, "sign": claim.sign, "knob": knob,
            "budget": budget, "measure": claim.measure, "effect": found["effect"], "interval_95": [low, high],
            "smallest visible": found["smallest visible"], "verdict": verdict, "because": why}


if __name__ == "__main__":
    run_sections({"trial": trying, "cost": cost, "knobs": knobs_turned, "claims": claims,
                  "bugs": bugs, "strong": strong, "widths": widths}, Size(), QUICK, THREAT)
