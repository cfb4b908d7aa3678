"""What chapter 6 shows at full size: bugs of adversarial training, trained and measured, and β as a knob.

    python benchmarks/trades.py                 all of it, about forty minutes of one core
    python benchmarks/trades.py --only pareto   one section
    python benchmarks/trades.py --quick         small, into _build/

Writes benchmarks/results/trades.json, and a report for each shipped net beside it. A killed run goes on where it was;
what benchmarks/train.py has measured of a shipped net is not measured again.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from measuring import Counter
from sections import ROOT, Figures, figure, run_sections
from torch import Tensor, nn

from robustness_lib import ThreatModel, counter_random, data, models
from robustness_lib.attacks import PGD, AutoAttack
from robustness_lib.evaluation import Report, compare, evaluate
from robustness_lib.querying import frozen
from robustness_lib.reports.compare import paired_interval
from robustness_lib.statistics import Accuracy
from robustness_lib.training import AUGMENTATIONS, TRADES, FastFGSM, Objective, OneCycle, PGDTraining, Standard, fit
from robustness_lib.training.objectives import kl_divergence

THREAT = ThreatModel("linf", 4 / 255)
STEPS, BETA = 5, 6.0
SHIPPED = ("signs-standard", "signs-fgsm-rs", "signs-pgd", "signs-trades-1", "signs-trades-3", "signs-trades-6")



@dataclass(frozen=True)
class Size:
    train: int = 5000
    epochs: int = 8
    seeds: int = 3
    images: int = 1000
    attack_steps: int = 40
    report: int = 1000


QUICK = Size(train=512, epochs=2, seeds=1, images=100, attack_steps=5, report=20)


# ---------------------------------------------------------------------------------------- objectives with a bug

@dataclass(frozen=True)
class SlipTRADES(TRADES):
    """TRADES with one thing wrong. With none, it is TRADES to the last bit.

    slip: "detached", the clean branch of the KL is a constant; "short", the attack starts anywhere in the ball and
    takes steps of ε/steps; "train mode", the attack's clean logits are computed in train mode; "stops", an image
    leaves the attack at its first error.
    """

    slip: Literal["none", "detached", "short", "train mode", "stops"] = "none"

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, index: Tensor | None = None,
                 seed: int = 0) -> Tensor:
        index = torch.arange(len(x)) if index is None else index
        if self.slip == "train mode":
            with torch.no_grad():
                clean = model(x)
        else:
            with frozen(model), torch.no_grad():
                clean = model(x)
        size, start = None, (x + 0.001 * counter_random.bulk_normal(x.shape[1:], seed=seed, index=index)).clamp(0, 1)
        if self.slip == "short":
            size, start = self.threat.eps / self.steps, self.threat.random_point(x, seed=seed, index=index)
        if self.slip == "stops":
            x_adv = self._until_wrong(model, x, y, clean, start)
        else:
            attack = PGD(self.threat, steps=self.steps, step_size=size, stop="never",
                         loss=lambda logits, _: kl_divergence(clean, logits))
            x_adv = attack(model, x, y, start=start, batch_size=len(x))
        logits = model(x)
        reference = logits.detach() if self.slip == "detached" else logits
        return self._cross_entropy(logits, y) + self.beta * kl_divergence(reference, model(x_adv)).mean()

    def _until_wrong(self, model: nn.Module, x: Tensor, y: Tensor, clean: Tensor, x_adv: Tensor) -> Tensor:
        """The inner attack, each image frozen where the model first errs."""
        project, size = self.threat.projection(x), 2.5 * self.threat.reach(x) / self.steps
        with frozen(model):
            for _ in range(self.steps):
                x_adv = x_adv.detach().requires_grad_()
                logits = model(x_adv)
                gradient, = torch.autograd.grad(kl_divergence(clean, logits).sum(), x_adv)
                right = (logits.argmax(1) == y)[:, None, None, None]
                moved = project(x_adv.detach() + self.threat.steepest_step(gradient, size))
                x_adv = torch.where(right, moved, x_adv.detach())
        return x_adv


@dataclass(frozen=True)
class StoppingPGD(PGDTraining):
    """PGD training whose attack leaves an image at its first error, as an attack for evaluation may."""

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, index: Tensor | None = None,
                 seed: int = 0) -> Tensor:
        attack = PGD(self.threat, steps=self.steps, seed=seed, stop="success")
        return self._cross_entropy(model(attack(model, x, y, index=index)), y)


def tiny() -> nn.Module:
    return models.tiny_cnn()


def with_batch_norm() -> nn.Module:
    return models.small_cnn((8, 16, 24), hidden=64, batch_norm=True)


# By group, the right one first: all of a group start from the same weights and see the same images in the same order.
GROUPS: dict[str, tuple[Callable[[], nn.Module], dict[str, Objective]]] = {
    "TRADES": (tiny, {
        "right": TRADES(THREAT, beta=BETA, steps=STEPS),
        "detached": SlipTRADES(THREAT, beta=BETA, steps=STEPS, slip="detached"),
        "short": SlipTRADES(THREAT, beta=BETA, steps=STEPS, slip="short"),
        "stops": SlipTRADES(THREAT, beta=BETA, steps=STEPS, slip="stops")}),
    "PGD": (tiny, {
        "right": PGDTraining(THREAT, steps=STEPS),
        "short": PGDTraining(THREAT, steps=STEPS, step_size=THREAT.eps / STEPS),
        "stops": StoppingPGD(THREAT, steps=STEPS)}),
    "TRADES, batch norm": (with_batch_norm, {
        "right": TRADES(THREAT, beta=BETA, steps=STEPS),
        "train mode": SlipTRADES(THREAT, beta=BETA, steps=STEPS, slip="train mode")}),
}


# ---------------------------------------------------------------------------------------- measuring

def share(standing: Tensor) -> Figures:
    return figure(Accuracy.of(standing))


def change(before: Tensor, after: Tensor) -> Figures:
    """From one net to the other, on the same images."""
    lost, gained = int((before & ~after).sum()), int((after & ~before).sum())
    return {"lost": lost, "gained": gained, "n": len(before),
            "interval_95": [round(v, 4) for v in paired_interval(lost, gained, len(before))]}


def verdicts(model: nn.Module, x: Tensor, y: Tensor, steps: int) -> dict[str, Tensor]:
    """(n,) bool each: right on clean images; right in the worst case of PGD on cross-entropy and on the margin."""
    with torch.no_grad():
        clean = model(x).argmax(1) == y
    standing = clean.clone()
    for loss in ("ce", "margin"):
        rows = standing.nonzero()[:, 0]
        standing[rows] = ~PGD(THREAT, steps=steps, loss=loss).run(model, x[rows], y[rows], index=rows).success
    return {"clean": clean, "robust": standing}


# ---------------------------------------------------------------------------------------- sections

def calls(size: Size, folder: Path) -> Iterator[Figures]:
    """Images that pass through the net, and back through it, for each image of a training step."""
    x, y, _ = data.load("signs", "train", n=64)
    figures: Figures = {}
    for name, objective in {"standard": Standard(), "fgsm-rs": FastFGSM(THREAT), "pgd": PGDTraining(THREAT, STEPS),
                            "trades": TRADES(THREAT, steps=STEPS)}.items():
        model = tiny().train()
        with Counter(model) as counter:
            objective(model, x, y).backward()
        figures[name] = {"forward": counter.forward / len(x), "gradients": counter.gradients / len(x)}
    yield {"steps": STEPS, "of": figures}


def bugs(size: Size, folder: Path) -> Iterator[Figures]:
    """Each bug beside the right version: same initial weights, same images in the same order, same random numbers."""
    train, test = data.load("signs", "train", n=size.train)[:2], data.load("signs", "test", n=size.images)[:2]
    check_slips(train[0][:32], train[1][:32])
    figures: Figures = {"train": size.train, "epochs": size.epochs, "steps": STEPS, "beta": BETA,
                        "measured by": f"PGD-{size.attack_steps}, worst case of cross-entropy and margin",
                        "groups": {group: {name: [] for name in objectives} for group, (_, objectives)
                                   in GROUPS.items()}}
    for seed, (group, (build, objectives)) in itertools.product(range(size.seeds), GROUPS.items()):
        before: dict[str, Tensor] = {}
        for name, objective in objectives.items():
            model = trained(build, objective, train, size, seed, f"{group}-{name}")
            found = verdicts(model, *test, size.attack_steps)
            record: Figures = {"seed": seed} | {kind: share(standing) for kind, standing in found.items()}
            if name == "right":
                before = found
            else:
                record["from right"] = {kind: change(before[kind], found[kind]) for kind in found}
            passes = {int(m.num_batches_tracked) for m in model.modules() if isinstance(m, nn.BatchNorm2d)}
            if passes:  # how often batch norm moved its statistics, for each step of the training
                record["statistics moved"] = passes.pop() / (size.epochs * (size.train // 128))
            figures["groups"][group][name].append(record)
            print(f"  {group}, {name}, seed {seed}: clean {Accuracy(record['clean']['right'], size.images)}, robust "
                  f"{Accuracy(record['robust']['right'], size.images)}", flush=True)
            yield figures


def trained(build: Callable[[], nn.Module], objective: Objective, train: tuple[Tensor, Tensor], size: Size, seed: int,
            name: str) -> nn.Module:
    """The net after its training, which is kept in _build and gone on with."""
    torch.manual_seed(seed)
    model = build()
    fit(model, train, objective, epochs=size.epochs, schedule=OneCycle(4e-3), ramp=2, seed=seed,
        augment=AUGMENTATIONS["signs"], channels_last=True, progress=False,
        folder=ROOT / f"_build/trades/{name}-{seed}-{size.train}-{size.epochs}".replace(" ", "-"))
    return model


def knob(size: Size, folder: Path) -> Iterator[Figures]:
    """β turned, on the small nets of section `bugs`: several trainings of each, so that their spread can be seen."""
    train, test = data.load("signs", "train", n=size.train)[:2], data.load("signs", "test", n=size.images)[:2]
    trainings: dict[str, tuple[Objective, str]] = {
        "PGD": (PGDTraining(THREAT, steps=STEPS), "PGD-right"),
        "1": (TRADES(THREAT, beta=1.0, steps=STEPS), "TRADES-beta-1"),
        "3": (TRADES(THREAT, beta=3.0, steps=STEPS), "TRADES-beta-3"),
        "6": (TRADES(THREAT, beta=BETA, steps=STEPS), "TRADES-right"),
    }
    figures: Figures = {"train": size.train, "epochs": size.epochs, "steps": STEPS,
                        "measured by": f"PGD-{size.attack_steps}, worst case of cross-entropy and margin",
                        "nets": {name: [] for name in trainings}}
    for seed in range(size.seeds):
        before: dict[str, Tensor] = {}
        for name, (objective, place) in trainings.items():
            found = verdicts(trained(tiny, objective, train, size, seed, place), *test, size.attack_steps)
            before = before or found
            record: Figures = {"seed": seed} | {kind: share(standing) for kind, standing in found.items()}
            if name != "PGD":
                record["from PGD"] = {kind: change(before[kind], found[kind]) for kind in found}
            figures["nets"][name].append(record)
            print(f"  β {name}, seed {seed}: clean {Accuracy(record['clean']['right'], size.images)}, robust "
                  f"{Accuracy(record['robust']['right'], size.images)}", flush=True)
            yield figures


def check_slips(x: Tensor, y: Tensor) -> None:
    """Without a slip, ours is TRADES; with one, it is not."""
    for build in (tiny, with_batch_norm):
        torch.manual_seed(0)
        state = build().state_dict()

        def loss_of(objective: Objective, build: Callable[[], nn.Module] = build,
                    state: dict[str, Tensor] = state) -> Iterator[float]:
            model = build()
            model.load_state_dict(state)
            loss = objective(model.train(), x, y, seed=3)
            loss.backward()
            yield loss.item()
            yield from (float(p.grad.norm()) for p in model.parameters() if p.grad is not None)

        right = list(loss_of(TRADES(THREAT, steps=STEPS)))
        if list(loss_of(SlipTRADES(THREAT, steps=STEPS))) != right:
            raise RuntimeError("SlipTRADES without a slip is not TRADES")
        for slip in ("detached", "short") + (("train mode",) if build is with_batch_norm else ()):
            if list(loss_of(SlipTRADES(THREAT, steps=STEPS, slip=slip))) == right:
                raise RuntimeError(f"the slip {slip!r} changes nothing")


def pareto(size: Size, folder: Path) -> Iterator[Figures]:
    """The shipped nets at ε = 4/255 under Auto-PGD on cross-entropy and on the targeted DLR loss, and each against
    PGD training, image by image."""
    x, y, classes = data.load("signs", "test", n=size.report)
    attacks = dict(list(AutoAttack(THREAT).attacks(len(classes)).items())[:2])
    reports: dict[str, Report] = {}
    figures: Figures = {"nets": {}, "from signs-pgd": {}}
    order = sorted(SHIPPED, key=lambda name: name != "signs-pgd")
    for name in (name for name in order if name in models.list_pretrained()):
        report = evaluate(models.load_pretrained(name), x, y, THREAT, attacks, classes=classes,
                          state=ROOT / f"_build/training/{name}/measure-4-255{'' if size.report == 1000 else '-quick'}")
        reports[name] = replace(report, pictures=())  # most of the file, and not shown
        reports[name].save(folder / f"report-4-{name}.json")
        figures["nets"][name] = {"clean": share(report.clean), "robust": share(report.robust)}
        if name != "signs-pgd":
            figures["from signs-pgd"][name] = against(reports["signs-pgd"], reports[name])
        print(f"  {name}: {report}", flush=True)
        yield figures


def against(a: Report, b: Report) -> Figures:
    clean = change(a.clean, b.clean)
    result = compare(a, b)
    return {"clean": clean, "robust": change(a.robust, b.robust), "p": result.p, "sentence": result.sentence}


SECTIONS: dict[str, Callable[[Size, Path], Iterator[Figures]]] = {
    "calls": calls, "bugs": bugs, "knob": knob, "pareto": pareto,
}


if __name__ == "__main__":
    run_sections(SECTIONS, Size(), QUICK, THREAT)
