"""What chapter 8 shows at full size: what is certified of the shipped nets, what it costs, and whether it holds.

    python benchmarks/smoothing.py                    all of it, about an hour of one core
    python benchmarks/smoothing.py --only decisions   one section
    python benchmarks/smoothing.py --quick            small, into _build/

Writes benchmarks/results/smoothing.json. A killed run goes on where it was; what benchmarks/train.py has certified of a
shipped net is not certified again. The published log is read where ROBUSTNESS_SMOOTHING_LOGS names its folder.
"""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtri
from sections import ROOT, Figures, figure, run_sections
from torch import Tensor, nn
from train import ALPHA, CERTIFIED, N0, N

from robustness_lib import ThreatModel, data, models
from robustness_lib.attacks import PGD
from robustness_lib.certify import Certificates, RandomizedSmoothing
from robustness_lib.certify.betting import log_wealth_above
from robustness_lib.certify.stopping import (
    Judgment,
    RadiusAtLeast,
    RadiusWithin,
    Simulated,
    StoppingRule,
    certified_radius,
)
from robustness_lib.evaluation import attack_certificates
from robustness_lib.precision import full_precision
from robustness_lib.querying import ChannelsLast, frozen, predict_logits
from robustness_lib.statistics import Accuracy, lower_bounds

BARE = "signs-standard"  # trained without noise, and smoothed all the same
NET = "signs-gaussian-0.25"
RUNS = ROOT / "_build/training"  # where benchmarks/train.py keeps its own
LOG = "cifar10-resnet110-sigma0.25.tsv"


@dataclass(frozen=True)
class Size:
    images: int = CERTIFIED
    n: int = N
    fixed: int = 100_000  # votes of the fixed rule, and the budget of the others
    rounds: int = 15
    runs: int = 20_000
    seeds: int = 20
    steps: int = 20
    verdict: int = 1000  # fresh votes that say what became of an attacked image


QUICK = Size(images=8, n=300, fixed=1000, rounds=2, runs=500, seeds=2, steps=2, verdict=50)
SAMPLES = 64  # noisy copies at each step of an attack


def test_images(name: str, n: int) -> tuple[Tensor, Tensor]:
    return data.load(name.split("-")[0], "test", n=n)[:2]


# --------------------------------------------------------------------------------------------------------- the nets


def of_models(size: Size, folder: Path) -> Iterator[Figures]:
    """Each net that was trained under noise, at its σ; and one that was not."""
    nets: Figures = {}
    noisy = {name: models.card(name)["sigma"] for name in models.list_pretrained() if "sigma" in models.card(name)}
    asked = [(name, name, sigma) for name, sigma in noisy.items()]
    asked += [(f"{BARE} at {sigma:g}", BARE, sigma) for sigma in (0.25, 0.5)]
    for title, name, sigma in asked:
        nets[title] = of_model(title, name, sigma, size, folder)
        print(f"  {title}", flush=True)
        yield {"n0": N0, "n": size.n, "alpha": ALPHA, "images": size.images, "nets": nets}


def of_model(title: str, name: str, sigma: float, size: Size, folder: Path) -> Figures:
    model, (x, y) = models.load_pretrained(name), test_images(name, size.images)
    everything = data.load(name.split("-")[0], "test")[:2]
    bare = Accuracy.of(predict_logits(model, everything[0], size=500).argmax(1) == everything[1])
    found = certificates(title, model, sigma, x, size)
    return {"sigma": sigma, "set": name.split("-")[0], "clean": figure(bare), "smoothed": figure(found.accuracy(y)),
            "abstained": int((~found.certified).sum()),
            "certified": {f"{times * sigma:g}": figure(found.accuracy(y, times * sigma)) for times in range(4)},
            "label": y.tolist(), "prediction": found.prediction.tolist(),
            "radius": [round(radius, 5) for radius in found.radius.tolist()], "votes": found.votes.tolist(),
            "candidate": found.candidate.tolist()}


def certificates(title: str, model: nn.Module, sigma: float, x: Tensor, size: Size) -> Certificates:
    state = RUNS / title / "certify" if size != QUICK else None
    return RandomizedSmoothing(model, sigma).certify(x, n0=N0, n=size.n, alpha=ALPHA, state=state)


# ------------------------------------------------------------------------------------------- what a certificate costs


def log_shares(size: Size) -> NDArray[np.float64]:
    """Each image's share of votes in the published log; where it abstained, the two leading classes may be even."""
    folder = os.environ.get("ROBUSTNESS_SMOOTHING_LOGS")
    if not folder:
        raise SystemExit(f"set ROBUSTNESS_SMOOTHING_LOGS to the folder that holds {LOG}")
    predicted, radii = np.loadtxt(Path(folder) / LOG, skiprows=1, usecols=(2, 3), unpack=True)
    votes = np.arange(1, 100_001)
    table = certified_radius(votes, 100_000, 0.01, 0.25)
    nearest = np.searchsorted(table, radii).clip(1, len(table) - 1)
    nearest -= radii - table[nearest - 1] < table[nearest] - radii
    return np.where(predicted >= 0, votes[nearest] / 100_000, 0.5)


def of_decisions(size: Size, folder: Path) -> Iterator[Figures]:
    """Is it certified at R? By bets, beside the fixed rule on the same draws."""
    figures: Figures = {"log": {}}
    shares = log_shares(size)
    for alpha in (0.001, 0.01):
        figures["log"][f"alpha {alpha:g}"] = {f"{radius:g}": beside_the_fixed_rule(shares, radius, 0.25, alpha, size)
                                              for radius in (0.25, 0.5, 0.75, 0.9)}
    yield figures
    yield figures | {"signs": on_signs(size)}


def beside_the_fixed_rule(shares: NDArray[np.float64], radius: float, sigma: float, alpha: float,
                          size: Size) -> Figures:
    rule = RadiusAtLeast(sigma, radius, max(size.fixed, 100_000), alpha, between=50)
    played = [rule.simulate(shares, seed) for seed in range(size.seeds)]
    mine = [int(one.proved.sum()) for one in played]
    fixed = [int((certified_radius(one.votes, rule.budget, alpha, sigma) >= radius).sum()) for one in played]
    samples = [float(one.draws.mean()) for one in played]
    return {"n": len(shares), "seeds": size.seeds, "samples": round(statistics.mean(samples), 1),
            "samples, least and most": [round(min(samples), 1), round(max(samples), 1)], "fixed samples": rule.budget,
            "certified": statistics.mean(mine), "certified by the fixed rule": statistics.mean(fixed),
            "fewer at most": max(b - a for a, b in zip(mine, fixed, strict=True)),
            "fewer on average": statistics.mean(b - a for a, b in zip(mine, fixed, strict=True))}


def on_signs(size: Size) -> Figures:
    """Really drawn, at R = σ. What the fixed rule would say is simulated from the votes of each image among n draws of
    `of_models`: sampling 200 × 100,000 would take hours."""
    model, sigma = models.load_pretrained(NET), models.card(NET)["sigma"]
    x, y = test_images(NET, size.images)
    many = certificates(NET, model, sigma, x, size)
    found = RandomizedSmoothing(model, sigma).certified_at(x, sigma, ALPHA, max(size.fixed, 1000))
    random = np.random.default_rng(0)
    votes = random.binomial(size.fixed, many.votes.numpy() / size.n)
    fixed = torch.from_numpy(certified_radius(votes, size.fixed, ALPHA, sigma) >= sigma)
    return {"net": NET, "sigma": sigma, "radius": sigma, "alpha": ALPHA, "n": len(x), "budget": found.n,
            "samples": round(float(found.draws.double().mean()), 1), "n0": N0,
            "ratio": round(size.fixed / float(found.draws.double().mean()), 1),
            "certified": int(found.certified.sum()), "certified by the fixed rule": int(fixed.sum()),
            "right and certified": int((found.prediction == y).sum()),
            "the fixed rule": f"simulated from {size.n:,} votes of each image"}


def of_adaptive(size: Size, folder: Path) -> Iterator[Figures]:
    """The radius to within a tolerance, up to the end of the curve, beside the fixed rule on the same draws."""
    shares, sigma, found = log_shares(size), 0.25, {}
    for tolerance in (0.025, 0.05):
        rule = RadiusWithin(sigma, 100_000, ALPHA, tolerance, 0.75, between=50)
        played = [rule.simulate(shares, seed) for seed in range(size.seeds)]
        found[f"tolerance {tolerance:g}"] = {
            "tolerance": tolerance, "up_to": 0.75, "n": len(shares), "looks": len(rule.looks),
            "ratio below up_to": round(statistics.mean(ratio_below(one, sigma) for one in played), 1),
            "ratio": round(statistics.mean(100_000 / one.draws.mean() for one in played), 1),
            "certified": {f"{radius:g}": [
                statistics.mean(int((one.proved & (one.radius >= radius)).sum()) for one in played),
                statistics.mean(int((fixed_radii(one, sigma) >= max(radius, 1e-9)).sum()) for one in played)]
                for radius in (0.0, 0.25, 0.5)}}
    yield {"log": found}


def fixed_radii(one: Simulated, sigma: float) -> NDArray[np.float64]:
    return certified_radius(one.votes, 100_000, ALPHA, sigma)


def ratio_below(one: Simulated, sigma: float) -> float:
    return float(100_000 / one.draws[fixed_radii(one, sigma) < 0.75].mean())


# --------------------------------------------------------------------------------------------------------------- time


def median_seconds(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Of processor time, interleaved: one of each in every round."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            began = time.process_time()
            call()
            taken[name].append(time.process_time() - began)
    return {name: statistics.median(times) for name, times in taken.items()}


def of_costs(size: Size, folder: Path) -> Iterator[Figures]:
    """`certify` beside the forward passes that it needs, in the order of memory in which the library attacks; and a
    smoothed prediction beside a plain one."""
    figures: Figures = {"net": NET, "rounds": size.rounds, "ratios": {}}
    for name in (NET, "signs-pgd", "cifar10-gaussian-0.25"):
        if name in models.list_pretrained():
            figures["ratios"][name] = over_raw_passes(name, size)
    figures["certify over raw forward"] = figures["ratios"][NET]
    yield figures
    yield figures | {"latency": latency(size), "loop over single predictions": loop_ratio(size)}


def over_raw_passes(name: str, size: Size) -> float:
    model, (x, _) = models.load_pretrained(name), test_images(name, 1)
    n, batch = size.n, 100
    noisy = ChannelsLast(model)
    smoothing = RandomizedSmoothing(model, 0.25)

    def raw() -> None:
        with frozen(model), full_precision(), noisy, torch.no_grad():
            images = noisy.arrange(torch.randn(batch, *x.shape[1:]))
            for _ in range((n + N0) // batch):
                model(images)

    times = median_seconds({"certify": lambda: smoothing.certify(x, N0, n, batch_size=batch, progress=False),
                            "raw": raw}, size.rounds)
    return round(times["certify"] / times["raw"], 3)


def latency(size: Size) -> Figures:
    """Milliseconds an image: alone, and in a batch of 50."""
    model, (x, _) = models.load_pretrained(NET), test_images(NET, 50)
    smoothing, votes = RandomizedSmoothing(model, 0.25), 1000
    times = median_seconds({
        "plain one": lambda: predict_logits(model, x[:1], size=1),
        "plain batch": lambda: predict_logits(model, x, size=50),
        "smoothed one": lambda: smoothing.predict(x[:1], votes, progress=False),
        "smoothed batch": lambda: smoothing.predict(x, votes, progress=False)}, max(2, size.rounds // 3))
    return {name: round(1000 * taken / (50 if "batch" in name else 1), 3) for name, taken in times.items()} | {
        "votes": votes}


def loop_ratio(size: Size) -> float:
    """A Python loop over single noisy images, over batches of them."""
    model, (x, _) = models.load_pretrained(NET), test_images(NET, 1)
    votes = 500

    def loop() -> None:
        with torch.no_grad():
            for _ in range(votes):
                model(x + 0.25 * torch.randn_like(x)).argmax(1).item()

    def batches() -> None:
        with torch.no_grad():
            for _ in range(votes // 100):
                model(x + 0.25 * torch.randn(100, *x.shape[1:])).argmax(1).bincount(minlength=10)

    times = median_seconds({"loop": loop, "batches": batches}, size.rounds)
    return round(times["loop"] / times["batches"], 1)


# ------------------------------------------------------------------------------------------------ does it hold?


def of_attack(size: Size, folder: Path) -> Iterator[Figures]:
    """The certificate against the attack: PGD on the smoothed classifier, inside each image's radius and at twice it;
    and at a few ε, for the bar between what is proved and what is broken."""
    model, sigma = models.load_pretrained(NET), models.card(NET)["sigma"]
    x, y = test_images(NET, size.images)
    smoothing, proved = RandomizedSmoothing(model, sigma), certificates(NET, model, sigma, x, size)
    inside = attack_certificates(smoothing, proved, x, samples=SAMPLES)
    figures: Figures = {
        "net": NET, "sigma": sigma, "n": len(x), "alpha": ALPHA, "attacked": inside.attacked, "broken": inside.broken,
        "p": inside.p, "settings": f"PGD, 20 steps, the mean of {SAMPLES} noisy copies at each; 8 groups by radius, "
        f"each at its smallest; a break confirmed by 10,000 fresh votes at level 1e-6"}
    yield figures
    figures["just outside"] = {"radius factor": 2.0} | at_twice_the_radius(smoothing, proved, x, size)
    yield figures
    figures["at"] = {}
    for eps in (sigma, 2 * sigma):
        standing = stands(smoothing, x, y, eps, size)
        figures["at"][f"{eps:g}"] = {"certified": figure(proved.accuracy(y, eps)),
                                     "standing": figure(Accuracy.of(standing))}
        yield figures


def at_twice_the_radius(smoothing: RandomizedSmoothing, proved: Certificates, x: Tensor, size: Size) -> Figures:
    rows = proved.certified.nonzero()[:, 0]
    rows, broken = rows[proved.radius[rows].argsort()], 0
    for group in torch.tensor_split(rows, 8):
        if len(group):
            eps = 2 * float(proved.radius[group].max())
            broken += int((~stands(smoothing, x[group], proved.prediction[group], eps, size)).sum())
    return {"broken": broken, "n": len(rows), "settings": "8 groups by radius, each at twice its largest"}


def stands(smoothing: RandomizedSmoothing, x: Tensor, y: Tensor, eps: float, size: Size) -> Tensor:
    """(n,) bool: answered with this class at the end of PGD too, by most of many fresh votes."""
    attack = PGD(ThreatModel("l2", eps), steps=size.steps)
    _, verdict = smoothing.classifier(SAMPLES).attacked(attack, x, y, draws=size.verdict)
    return ~verdict.success & (smoothing.predict(x, size.verdict, progress=False) == y)


class LooksAtTheFixedBound(StoppingRule):
    """The mistake: the bound for a fixed number of draws, looked at again and again until it likes what it sees."""

    def __init__(self, share: float, n: int, alpha: float, between: int) -> None:
        self.looks, self.share, self.alpha = [*range(between, n, between), n], share, alpha

    def judge(self, hits: NDArray[np.int64], draws: int) -> Judgment:
        proved = lower_bounds(hits, draws, self.alpha) >= self.share
        return Judgment(proved, proved * 1.0, proved)


def of_validity(size: Size, folder: Path) -> Iterator[Figures]:
    """How often something false is certified, where it is false by the least that there is."""
    alpha, shares = 0.05, (0.5, 0.8413, 0.977)
    right: Figures = {}
    mutants: Figures = {}
    for share in shares:
        runs, radius = np.full(size.runs, share), 0.25 * float(ndtri(share))
        at = RadiusAtLeast(0.25, radius, 3000, alpha, between=10)
        fixed = RadiusWithin(0.25, 3000, alpha, None, None)
        right[f"share {share:g}"] = {
            "bet alone": bet_alone(share, alpha, size), "certified_at": rate(at.simulate(runs), radius),
            "certify": rate(fixed.simulate(runs), radius),
            "certify, several looks": rate(RadiusWithin(0.25, 3000, alpha, None, max(radius, 1e-12),
                                                        between=10).simulate(runs), radius)}
        mutants[f"share {share:g}"] = {
            "threshold log(1/2α)": bet_alone(share, 2 * alpha, size),
            "optional stopping on the fixed bound": float(LooksAtTheFixedBound(
                share, 3000, alpha, 10).simulate(runs).proved.mean())}
    right["two classes of ½"], mutants["two classes of ½"] = chosen_by(size, alpha)
    error = math.sqrt(alpha * (1 - alpha) / size.runs)
    yield {"alpha": alpha, "runs": size.runs, "allowed": round(alpha + 3 * error, 4), "right": right,
           "mutants": mutants}


def rate(found: Simulated, radius: float) -> float:
    return round(float((found.proved & (found.radius >= radius - 1e-12)).mean()), 4)


def bet_alone(share: float, alpha: float, size: Size) -> float:
    """Won at any of many looks, with no last stage."""
    random = np.random.default_rng(0)
    hits, draws, won = np.zeros(size.runs, dtype=np.int64), 0, np.zeros(size.runs, dtype=bool)
    while draws < 3000:
        step = max(1, draws // 50)
        hits, draws = hits + random.binomial(step, share, size.runs), draws + step
        won |= log_wealth_above(hits, draws, share) >= math.log(1 / alpha)
    return round(float(won.mean()), 4)


def chosen_by(size: Size, alpha: float) -> tuple[Figures, Figures]:
    """`certify` where two classes are even, so that any certificate is false: the class chosen by votes of its own, and
    by those that bound it."""
    class Coin(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.cat((0.5 - x, x - 0.5), dim=1)

    found = RandomizedSmoothing(Coin(), 0.25).certify(torch.full((size.runs, 1), 0.5), n0=20, n=200, alpha=alpha,
                                                      progress=False)
    both = np.maximum(found.votes.numpy(), 200 - found.votes.numpy())
    return {"certify": round(float(found.certified.double().mean()), 4)}, {
        "class chosen by the same votes": round(float((certified_radius(both, 200, alpha, 0.25) > 0).mean()), 4)}


SECTIONS: dict[str, Callable[[Any, Path], Iterator[Figures]]] = {
    "models": of_models, "decisions": of_decisions, "adaptive": of_adaptive, "costs": of_costs,
    "attack": of_attack, "validity": of_validity}

if __name__ == "__main__":
    run_sections(SECTIONS, Size(), QUICK, ThreatModel("l2", 0.25))
