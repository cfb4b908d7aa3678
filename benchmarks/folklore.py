"""What is often said and no chapter measures: routers, detectors, separate nets, ensemble adversarial training, what
adversarial training does to smoothed radii, and what of a change is there to be seen.

    python benchmarks/folklore.py                  all of it, about twenty minutes of one core
    python benchmarks/folklore.py --only routing   one section
    python benchmarks/folklore.py --quick          small, into _build/

Writes benchmarks/results/folklore.json. A killed run goes on where it was: every part that has ended is kept in
_build/folklore, and is not done again while it is there. Photographs of signs are found by ROBUSTNESS_DATA.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import sections
import torch
from sections import ROOT, Figures, run_sections
from smoothing import median_seconds
from torch import Tensor, nn
from trades import change, share
from two_stages import Doubt, Excess, Suspicion, TwoStages, adaptive, ask, threshold_at
from visibility import JUST_NOTICEABLE, color_difference, flat, saved, surviving

from robustness_lib import ThreatModel, counter_random, data, models
from robustness_lib.attacks import FGSM, PGD, Attack, AutoPGD, BoundedAttack, Quantized
from robustness_lib.certify import RandomizedSmoothing
from robustness_lib.training import AUGMENTATIONS, FastFGSM, Objective, OneCycle, PGDTraining, Standard, fit
from robustness_lib.training.objectives import WithinThreat, bare, step_logits

KEPT = ROOT / "_build/folklore"
THREAT = ThreatModel("linf", 4 / 255)
ROBUST = "signs-pgd"

Split = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Size:
    """How many images, steps of an attack, images and epochs of a training, seeds, votes, and rounds of timing."""

    images: int = 500
    calibrate: int = 1000  # validation images for a threshold
    steps: int = 50
    detector: tuple[int, int] = (4000, 8)
    train: tuple[int, int] = (4000, 6)
    seeds: int = 3
    smoothed: int = 200
    votes: int = 1000
    noisy: int = 2000
    rounds: int = 15


QUICK = Size(images=40, calibrate=60, steps=4, detector=(128, 1), train=(128, 1), seeds=1, smoothed=8, votes=50,
             noisy=40, rounds=1)


# ---------------------------------------------------------------------------------------- shared

def split(part: str, n: int, name: str = "signs") -> Split:
    return data.load(name, part, n=n)[:2]


@cache
def net(name: str) -> nn.Module:
    return models.load_pretrained(name).to(memory_format=torch.channels_last)


def once(name: str, size: Size, work: Callable[[], Figures]) -> Figures:
    """The result of `work`, which a killed run may have left behind."""
    return sections.once(KEPT / ("quick" if size == QUICK else "full") / f"{name.replace('/', '-')}.json",
                         dataclasses.asdict(size), work)


def standing(model: nn.Module, x: Tensor, y: Tensor, *attacks: Attack) -> Tensor:
    """(N,) bool: read rightly, in the worst case over no attack and these."""
    left = ask(model, x).argmax(1) == y
    for attack in attacks:
        rows = left.nonzero()[:, 0]
        left[rows] = ~attack.run(model, x[rows], y[rows], index=rows).success
    return left


def strong(threat: ThreatModel, steps: int) -> tuple[BoundedAttack, BoundedAttack]:
    return AutoPGD(threat, steps, loss="margin"), AutoPGD(threat, steps)


# ---------------------------------------------------------------------------------------- systems of two stages

def judged(system: TwoStages, size: Size) -> Figures:
    """A system under no attack, under PGD on its first net that knows of nothing else, and under one that knows all;
    beside its nets alone."""
    x, y = split("test", size.images)
    unaware = PGD(THREAT, size.steps, stop="never").run(system.first, x, y).x_adv
    tried = {"PGD on the first net": unaware}
    if system.second is not None:
        tried["PGD on the second net"] = PGD(THREAT, size.steps, stop="never").run(system.second, x, y).x_adv
    known = adaptive(system, x, y, THREAT, size.steps, tried=tried)
    clean = ~system.fooled(x, y)
    images = {"clean": x, "unaware": unaware, "adaptive": known.x_adv}
    figures: Figures = {
        "images": len(x), "clean": share(clean), "unaware": share(clean & ~system.fooled(unaware, y)),
        "adaptive": share(known.standing) | {"left after": known.after},
        "sent on": {kind: share(system.answers(shown)[1]) for kind, shown in images.items()}}
    for name, model in {"first alone": system.first, "second alone": system.second}.items():
        if model is not None:
            figures[name] = {"clean": share(standing(model, x, y)),
                             "attacked": share(standing(model, x, y, *strong(THREAT, size.steps)))}
    return figures


def costs(system: TwoStages, figures: Figures, gate: nn.Module | None, size: Size) -> Figures:
    """Milliseconds of processor time an image, in batches of 100, and what the system takes over its second net alone.
    gate: where it is a net of its own, which sees every image too (features that it shares are counted twice)."""
    assert system.second is not None
    x = split("test", 100)[0].to(memory_format=torch.channels_last)
    nets = {"first": system.first, "second": system.second} | ({} if gate is None else {"gate": gate})
    with torch.no_grad():
        taken = median_seconds({name: lambda model=model: model(x) for name, model in nets.items()}, size.rounds)
    found = {f"{name} ms": round(1000 * seconds / len(x), 4) for name, seconds in taken.items()}
    for kind, sent in figures["sent on"].items():
        on = sent["right"] / sent["n"]
        first = taken["first"] * (1 if gate is None else 1 - on)  # one's own confidence is known after an answer only
        spent = taken.get("gate", 0) + first + on * taken["second"]
        found[f"{kind}, over second alone"] = round(spent / taken["second"], 3)
    return found


def by_confidence(name: str, answered: float, size: Size) -> Excess:
    """A gate that lets through what a net is sure of; of validation images this share."""
    doubt = Doubt(net(name))
    return Excess(doubt, threshold_at(ask(doubt, split("validation", size.calibrate)[0]), 1 - answered))


def confidence(gate: Excess) -> float:
    return round(float(torch.tensor(-gate.threshold).sigmoid()), 6)


def routing(size: Size, folder: Path) -> Iterator[Figures]:
    """A small net answers what it is sure of, and the robust net the rest: "confidence decides, so the cost is saved".
    And a smoothed net that is asked only in doubt: what its certificates are worth then."""
    first, answered = "signs-tiny-standard", 0.9
    gate = by_confidence(first, answered, size)

    def work() -> Figures:
        system = TwoStages(net(first), gate, net(ROBUST))
        figures = judged(system, size)
        return figures | {"cost": costs(system, figures, None, size)}

    figures = {"first": first, "second": ROBUST, "answered of validation images": answered,
               "confidence": confidence(gate)} | once("routing", size, work)
    yield figures
    yield figures | {"certificates": once("routing, certificates", size, lambda: certificates(answered, size))}


def certificates(answered: float, size: Size) -> Figures:
    """Images whose smoothed answer is right and proved not to change within R, attacked within R: the system never
    asks for that answer where the first net is sure of another."""
    first, smoothed, radius = "signs-standard", "signs-gaussian-0.25", 0.5
    table = json.loads((ROOT / "benchmarks/results/smoothing.json").read_text(encoding="utf-8"))["models"]["nets"]
    found = {key: torch.tensor(table[smoothed][key]) for key in ("label", "prediction", "radius")}
    x, y = split("test", len(found["label"]))
    if not torch.equal(y, found["label"]):
        raise RuntimeError("smoothing.json speaks of other images: run benchmarks/smoothing.py --only models again")
    proved = (found["prediction"] == y) & (found["radius"] >= radius)
    gate, threat = by_confidence(first, answered, size), ThreatModel("l2", radius)
    rows = proved.nonzero()[:size.images, 0]
    known = adaptive(TwoStages(net(first), gate), x[rows], y[rows], threat, size.steps)
    return {"net": smoothed, "first": first, "confidence": confidence(gate), "threat": threat.text,
            "certified": share(proved), "answered without the vote": share(ask(gate, x) <= 0),
            "broken": share(~known.standing), "left after": known.after}


class OnFeatures(nn.Module):
    """Two logits, clean and attacked, from what a frozen net has made of the image before its linear layers (Metzen et
    al. 2017, arXiv 1702.04267). The same net on the pixels finds hardly anything: these signs are noisy themselves."""

    def __init__(self, model: nn.Sequential) -> None:
        super().__init__()
        end = next(k for k, layer in enumerate(model) if isinstance(layer, nn.Linear))
        self.features = deepcopy(model[:end]).requires_grad_(False)
        width = model[end].in_features
        self.head = nn.Sequential(nn.BatchNorm1d(width), nn.Linear(width, 64), nn.ReLU(), nn.Linear(64, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


@cache
def detector(seed: int, size: Size) -> nn.Module:
    """Tells clean signs from those that PGD has made on the standard net."""
    n, epochs = size.detector
    x, y = split("train", n)
    x_adv = PGD(THREAT, 20, stop="never", seed=seed).run(net("signs-standard"), x, y).x_adv
    torch.manual_seed(seed)
    model = OnFeatures(net("signs-standard"))
    fit(model, (torch.cat([x, x_adv]), torch.arange(2).repeat_interleave(n)), Standard(), epochs=epochs,
        schedule=OneCycle(2e-3), weight_decay=1e-2, seed=seed, keep="last", channels_last=True, progress=False)
    return model


def by_detector(seed: int, false_positives: float, size: Size) -> Excess:
    suspicion = Suspicion(detector(seed, size))
    return Excess(suspicion, threshold_at(ask(suspicion, split("validation", size.calibrate)[0]), false_positives))


def detectors(size: Size, folder: Path) -> Iterator[Figures]:
    """What is found suspicious is refused. A net trained for it, and the model's own confidence, at the same share of
    clean images refused."""
    allowed = 0.05
    figures: Figures = {"net": "signs-standard", "false positives": allowed, "images": size.images,
                        "trained net": f"a head on the net's features, {size.detector[0]} signs and as many by PGD-20",
                        "detectors": {}}
    gates = {"trained net": lambda: by_detector(0, allowed, size),
             "confidence": lambda: by_confidence("signs-standard", 1 - allowed, size)}
    for name, gate in gates.items():
        figures["detectors"][name] = once(f"detector, {name}", size, lambda gate=gate: detected(gate(), size))
        yield figures


def detected(gate: Excess, size: Size) -> Figures:
    """Who is caught of those that fool the bare net; and who is not fooled (right, or refused) by which attack."""
    x, y = split("test", size.images)
    system = TwoStages(net("signs-standard"), gate)
    clean, scores = ~system.fooled(x, y), ask(gate, x)
    bare_clean = standing(system.first, x, y)
    attacks: dict[str, BoundedAttack] = {
        "PGD, all steps": PGD(THREAT, size.steps, stop="never"), "PGD, stops at success": PGD(THREAT, size.steps),
        "FGSM": FGSM(THREAT, stop="never")}
    images = {name: attack.run(system.first, x, y).x_adv for name, attack in attacks.items()}
    roc, not_fooled = {}, {"bare net": share(standing(system.first, x, y, *strong(THREAT, size.steps)))}
    for name, shown in images.items():
        turned = bare_clean & (ask(system.first, shown).argmax(1) != y)
        roc[name] = curve(scores, ask(gate, shown[turned])) if turned.any() else None
        not_fooled[name] = share(clean & ~system.fooled(shown, y))
    known = adaptive(system, x, y, THREAT, size.steps, tried=images)
    return {"refused": {"clean": share(scores > 0)}, "roc": roc, "not fooled": not_fooled | {
        "adaptive": share(known.standing) | {"left after": known.after}}}


def curve(clean: Tensor, attacked: Tensor) -> Figures:
    """A detector's ROC: the chance that an attacked image looks odder than a clean one (ties half), and the share of
    attacked images caught where this share of the clean ones is."""
    above = torch.searchsorted(clean.sort().values, attacked, right=False)
    upto = torch.searchsorted(clean.sort().values, attacked, right=True)
    return {"auc": round(float((above + upto).double().mean()) / (2 * len(clean)), 4),
            "caught": {f"{rate:g}": share(attacked > threshold_at(clean, rate)) for rate in (0.01, 0.05, 0.1)}}


def two_models(size: Size, folder: Path) -> Iterator[Figures]:
    """ "Separate models for benign and hostile traffic": what the trained detector finds hostile goes to the robust
    net, the rest to the standard one."""
    allowed, first = 0.05, "signs-standard"

    def work() -> Figures:
        gate = by_detector(0, allowed, size)
        system = TwoStages(net(first), gate, net(ROBUST))
        figures = judged(system, size)
        return figures | {"cost": costs(system, figures, gate, size)}

    yield {"first": first, "second": ROBUST, "router": "the trained net of section detector",
           "false positives": allowed} | once("two models", size, work)


# ---------------------------------------------------------------------------------------- ensemble training

@dataclass(frozen=True)
class EnsembleFGSM(WithinThreat):
    """Half the loss on the images, half on FGSM's, made on a net drawn anew for each batch: one of the `static` ones,
    which do not learn, or the one that does (ensemble adversarial training; Tramèr et al. 2018, arXiv 1705.07204).
    Without static nets that is FGSM's adversarial training (Goodfellow et al. 2015)."""

    static: tuple[nn.Module, ...] = ()

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, index: Tensor | None = None,
                 seed: int = 0) -> Tensor:
        x_adv = FGSM(self.threat, stop="never")(self.source(bare(model), x, index, seed), x, y)
        return (self._cross_entropy(step_logits(model, x), y) + self._cross_entropy(step_logits(model, x_adv), y)) / 2

    def source(self, model: nn.Module, x: Tensor, index: Tensor | None, seed: int) -> nn.Module:
        """All are as likely; which, follows from the seed and the first image's number."""
        nets = (model, *self.static)
        first = torch.zeros(1, dtype=torch.int64) if index is None else index[:1].cpu()
        return nets[int(counter_random.integers(0, len(nets), (1,), seed=seed, index=first))]


def student(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return models.small_cnn((8, 16, 24), hidden=64, batch_norm=True)


def taught(model: nn.Module, objective: Objective, seed: int, size: Size) -> nn.Module:
    n, epochs = size.train
    fit(model, split("train", n), objective, epochs=epochs, schedule=OneCycle(4e-3), batch_size=64, ramp=epochs // 4,
        augment=AUGMENTATIONS["signs"], seed=seed, keep="last", channels_last=True, progress=False)
    return model


@cache
def plain_knob(size: Size) -> nn.Module:
    """A net of another architecture, trained plainly, for the ensemble."""
    torch.manual_seed(100)
    return taught(models.knob_cnn(), Standard(), 100, size)


STATIC = ("signs-tiny-standard", "knob_cnn(), trained plainly")
HELD_OUT = "signs-standard"  # of the shipped nets, the one whose attacked images carry over best; no training sees it


@cache
def foreign_images(size: Size) -> dict[str, Tensor]:
    """The test images, attacked on other nets: with the one step of the time, with many, and with many on a robust net;
    also at twice the ε that is trained for, since few of the others turn any net but their own."""
    x, y = split("test", size.images)
    images: dict[str, Tensor] = {}
    for where, threat in {"": THREAT, ", 8/255": ThreatModel("linf", 8 / 255)}.items():
        pgd = PGD(threat, 40, stop="never")
        images[f"FGSM, transferred{where}"] = FGSM(threat, stop="never").run(net(HELD_OUT), x, y).x_adv
        images[f"PGD, transferred{where}"] = pgd.run(net(HELD_OUT), x, y).x_adv
        images[f"PGD, transferred from a robust net{where}"] = pgd.run(net(ROBUST), x, y).x_adv
    return images


def ensemble_training(size: Size, folder: Path) -> Iterator[Figures]:
    """Nets alike in weights at the beginning and in the order of images; what each keeps under attacks that know
    another net, and under one that knows it."""
    methods: dict[str, Callable[[], Objective]] = {
        "standard": Standard, "fgsm": lambda: EnsembleFGSM(THREAT),
        "ensemble": lambda: EnsembleFGSM(THREAT, static=(net(STATIC[0]), plain_knob(size))),
        "fgsm-rs": lambda: FastFGSM(THREAT), "pgd-5": lambda: PGDTraining(THREAT, steps=5)}
    figures: Figures = {
        "train": size.train[0], "epochs": size.train[1], "net": "small_cnn((8, 16, 24), hidden=64, batch_norm=True)",
        "static": STATIC, "held out": HELD_OUT, "robust net": ROBUST, "images": size.images,
        "measured by": f"worst case: Auto-PGD-{size.steps} on the margin and on cross-entropy, and PGD-20",
        "methods": {name: [] for name in methods}, "shipped": {}}
    for name in ("signs-fgsm-rs", ROBUST):
        figures["shipped"][name] = once(f"ensemble training, {name}", size,
                                        lambda name=name: under_attacks(net(name), size))
    for seed in range(size.seeds):
        rows: dict[str, Figures] = {}
        for name, objective in methods.items():
            def work(objective: Callable[[], Objective] = objective, seed: int = seed) -> Figures:
                return {"seed": seed} | under_attacks(taught(student(seed), objective(), seed, size), size)
            rows[name] = once(f"ensemble training, {name}, seed {seed}", size, work)
        for name, row in rows.items():  # a seed that all have, or none
            figures["methods"][name].append(row)
        figures["seeds"] = seed + 1
        yield figures


def under_attacks(model: nn.Module, size: Size) -> Figures:
    """First what knows other nets, then what knows this one."""
    x, y = split("test", size.images)
    clean = standing(model, x, y)
    measured = {"clean": clean}
    for name, shown in foreign_images(size).items():
        measured[name] = clean & standing(model, shown, y)
    measured |= {"FGSM": standing(model, x, y, FGSM(THREAT)), "PGD-20": standing(model, x, y, PGD(THREAT, 20))}
    measured["worst case"] = measured["PGD-20"] & standing(model, x, y, *strong(THREAT, size.steps))
    return {name: share(column) for name, column in measured.items()}


# ---------------------------------------------------------------------------------------- smoothed radii

N0, ALPHA = 100, 0.001
SMOOTHED = [(name, 0.25) for name in ("signs-gaussian-0.25", ROBUST, "signs-standard", "signs-smoothadv-0.25",
                                      "signs-gaussian-0.12", "signs-gaussian-0.5")]
SMOOTHED += [("signs-gaussian-0.12", 0.12), ("signs-gaussian-0.25", 0.12)]


def smoothed_radii(size: Size, folder: Path) -> Iterator[Figures]:
    """Nets smoothed with the σ they were trained for and with others, and adversarially trained ones: accuracy under
    noise, and what is certified. Fewer votes than in chapter 8, the same images; all nets see the same noise."""
    rows: dict[tuple[str, float], Figures] = {}
    for name, sigma in SMOOTHED:
        rows[name, sigma] = once(f"smoothed radii, {name} at {sigma:g}", size,
                                 lambda name=name, sigma=sigma: smoothed(name, sigma, size))
        yield {"images": size.smoothed, "n0": N0, "n": size.votes, "alpha": ALPHA, "nets": by_net(rows),
               "paired": paired(rows)}


def smoothed(name: str, sigma: float, size: Size) -> Figures:
    """The bare net's answers to one noisy copy of each image, and certificates."""
    x, y = split("test", size.noisy)
    noise = counter_random.bulk_normal(x.shape[1:], seed=1, index=torch.arange(len(x)))
    noisy = ask(net(name), x + sigma * noise).argmax(1) == y
    x, y = x[:size.smoothed], y[:size.smoothed]
    found = RandomizedSmoothing(net(name), sigma).certify(x, N0, size.votes, ALPHA, progress=False)
    right = found.prediction == y
    return {"under noise": share(noisy), "abstained": int((~found.certified).sum()),
            "radius": [round(r, 5) if good else -1 for r, good in zip(found.radius.tolist(), right.tolist(),
                                                                      strict=True)]}


def reached(row: Figures, radius: float) -> Tensor:
    """(n,) bool: right, and certified as far as this."""
    return torch.tensor(row["radius"]) >= max(radius, 1e-9)


def by_net(rows: dict[tuple[str, float], Figures]) -> Figures:
    nets: Figures = {}
    for (name, sigma), row in rows.items():
        nets.setdefault(name, {})[f"{sigma:g}"] = {
            "under noise": row["under noise"], "abstained": row["abstained"],
            "certified": {f"{k * sigma:g}": share(reached(row, k * sigma)) for k in (0, 1, 2)}}
    return nets


def paired(rows: dict[tuple[str, float], Figures]) -> Figures:
    """From one net to another, on the same images at the same σ."""
    sigma, noise = 0.25, "signs-gaussian-0.25"
    pairs = [("signs-standard", ROBUST), (noise, ROBUST), (noise, "signs-smoothadv-0.25")]
    return {f"{a} to {b}, σ = {sigma:g}": {f"{k * sigma:g}": change(reached(rows[a, sigma], k * sigma),
                                                                    reached(rows[b, sigma], k * sigma))
                                           for k in (0, 1, 2)}
            for a, b in pairs if {(a, sigma), (b, sigma)} <= rows.keys()}


# ---------------------------------------------------------------------------------------- visible

FLAT = 8  # of 255 levels


def visible(size: Size, folder: Path) -> Iterator[Figures]:
    """What can be measured of "1/255 is invisible": whether a change is still there once the image is saved, and how
    far it moves a color. Neither asks a person."""
    figures: Figures = {"saving": {}}
    for name in ("signs-standard", "gtsrb-standard"):
        rows: Figures = {}
        for levels in (0.3, 0.5, 1, 2):
            rows[f"{levels:g}"] = once(f"visible, {name}, {levels:g}", size,
                                       lambda name=name, levels=levels: after_saving(name, levels, size))
        figures["saving"][name] = rows
        yield figures
    figures["color"] = once("visible, color", size, lambda: colors(size))
    yield figures


def after_saving(name: str, levels: float, size: Size) -> Figures:
    """Read rightly: as attacked, once the images are saved, and where the attack looks for images that can be. Saving
    may carry a value past ε, to the next level; what is made to be saved stays inside."""
    x, y = split("test", size.images, name.split("-")[0])
    model, attack = net(name), AutoPGD(ThreatModel("linf", levels / 255), size.steps, loss="margin",
                                       stop="keep-success")
    x_adv = attack.run(model, x, y).x_adv
    return {"clean": share(standing(model, x, y)), "surviving": round(surviving(x_adv, x), 4),
            "attacked": share(standing(model, x_adv, y)), "saved": share(standing(model, saved(x_adv), y)),
            "made to be saved": share(standing(model, x, y, Quantized(attack)))}


def colors(size: Size) -> Figures:
    """ΔE of a change of so many levels, at the flat pixels of signs: all channels alike (the farther of lighter and
    darker), the sign of each channel that moves the color farthest, signs at random, and those that PGD chose."""
    x, y = split("test", size.images)
    where = flat(x, FLAT)
    signs = [torch.tensor(s, dtype=x.dtype).view(3, 1, 1) for s in itertools.product((-1, 1), repeat=3)]
    coin = counter_random.integers(0, 2, x.shape[1:], seed=0, index=torch.arange(len(x))) * 2.0 - 1
    found: Figures = {"flat": {"levels": FLAT, "pixels": int(where.sum()), "of": where.numel(), "images": len(x)},
                      "just noticeable": JUST_NOTICEABLE, "levels": {}}
    for levels in (1, 4, 8):
        eps = levels / 255
        by_sign = torch.stack([moved(x, eps * sign) for sign in signs])
        attacked = PGD(ThreatModel("linf", eps), 20, stop="never").run(net("signs-standard"), x, y).x_adv
        changes = {"all channels alike": torch.maximum(by_sign[0], by_sign[-1]), "worst signs": by_sign.amax(0),
                   "random signs": moved(x, eps * coin), "PGD": color_difference(attacked, x)}
        found["levels"][str(levels)] = {kind: summary(one[where]) for kind, one in changes.items()}
    return found


def moved(x: Tensor, change_of_pixels: Tensor) -> Tensor:
    return color_difference((x + change_of_pixels).clamp(0, 1), x)


def summary(difference: Tensor) -> Figures:
    values = difference.numpy()
    return {"median": round(float(np.median(values)), 3), "quantile 0.9": round(float(np.quantile(values, 0.9)), 3),
            "just noticeable or more": round(float((difference >= JUST_NOTICEABLE).double().mean()), 4)}


SECTIONS: dict[str, Callable[[Size, Path], Iterator[Figures]]] = {
    "routing": routing, "detector": detectors, "two-models": two_models, "ensemble-training": ensemble_training,
    "smoothed-radii": smoothed_radii, "visible": visible,
}


if __name__ == "__main__":
    run_sections(SECTIONS, Size(), QUICK, THREAT)
