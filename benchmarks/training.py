"""What chapter 5 shows at full size: what adversarial training costs, how it fails, and what helps.

    python benchmarks/training.py                 all of it, about half an hour of one core
    python benchmarks/training.py --only collapse one section
    python benchmarks/training.py --quick         small, into _build/

Writes benchmarks/results/training.json. A killed run goes on where it was: every training that has ended is kept in
_build/training-chapter, and is not done again while it is there.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sections
import torch
from measuring import Counter, seconds
from sections import ROOT, Figures, figure, run_sections
from torch import Tensor, nn

from robustness_lib import ThreatModel, data, models
from robustness_lib.attacks import PGD
from robustness_lib.querying import frozen
from robustness_lib.statistics import Accuracy
from robustness_lib.training import (
    AUGMENTATIONS,
    TRADES,
    Epoch,
    FastFGSM,
    Flip,
    Objective,
    OneCycle,
    PGDTraining,
    Piecewise,
    Standard,
    fit,
    read_recipe,
)

KEPT = ROOT / "_build/training-chapter"

THREAT = ThreatModel("linf", 4 / 255)

Split = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Size:
    """How many images, epochs and seeds each section takes."""

    test: int = 1000
    validation: int = 500
    attack_steps: int = 20
    overfit: tuple[int, int, int] = (500, 200, 1)  # images, epochs, seeds
    collapse: tuple[int, int, int] = (3000, 12, 1)
    rounds: int = 8
    data: tuple[int, ...] = (1000, 10_000)
    steps: int = 400
    tenth: int = 2000
    features: tuple[int, int] = (5000, 15)  # images, epochs
    bugs: tuple[int, int, int] = (2000, 10, 1)


QUICK = Size(test=100, validation=50, attack_steps=3, overfit=(200, 5, 1), collapse=(256, 2, 1),
             rounds=1, data=(128, 256), steps=4, tenth=128, features=(256, 1), bugs=(256, 1, 1))


# ---------------------------------------------------------------------------------------- measuring

def share(standing: Tensor) -> Figures:
    return figure(Accuracy.of(standing))


def clean(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """(n,) bool: right."""
    with torch.no_grad():
        return torch.cat([model(part).argmax(1) for part in torch.split(x, 250)]) == y


def measured(model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, steps: int) -> Figures:
    """Clean accuracy, and that in the worst case of PGD on cross-entropy and on the margin."""
    right = clean(model, x, y)
    standing = right.clone()
    for loss in ("ce", "margin"):
        rows = standing.nonzero()[:, 0]
        standing[rows] = ~PGD(threat, steps=steps, loss=loss).run(model, x[rows], y[rows], index=rows).success
    return {"clean": share(right), "robust": share(standing)}


def split(name: str, part: str, n: int) -> Split:
    return data.load(name, part, n=n)[:2]


def small(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return models.small_cnn()


def once(name: str, size: Size, work: Callable[[], Figures]) -> Figures:
    """The result of `work`, which a killed run may have left behind. name: begins with that of its section."""
    sizes = dataclasses.asdict(size)
    of = {key: sizes[key] for key in ("test", "validation", "attack_steps", name.split()[0]) if key in sizes}
    return sections.once(KEPT / ("quick" if size == QUICK else "full") / f"{name.replace('/', '-')}.json", of, work)


# ---------------------------------------------------------------------------------------- sections

@dataclass(frozen=True)
class PlainFGSM(PGDTraining):
    """One signed step of ε from the image itself, without a random start."""

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, index: Tensor | None = None,
                 seed: int = 0) -> Tensor:
        with frozen(model):
            at = x.detach().requires_grad_()
            slope, = torch.autograd.grad(nn.functional.cross_entropy(model(at), y, reduction="sum"), at)
        x_adv = self.threat.project(x + self.threat.steepest_step(slope, self.threat.reach(x)), x)
        return self._cross_entropy(model(x_adv), y)


def collapsing(size: Size, folder: Path) -> Iterator[Figures]:
    """One-step training on MNIST from the image itself, and what is said to cure it, with and without a ramp of ε; and
    the same on signs, where it goes on from a net that PGD has trained."""
    images, epochs, seeds = size.collapse
    watched = size.validation // 2
    wide, narrow = ThreatModel("linf", 0.3), ThreatModel("linf", 0.1)
    objectives: dict[str, FastFGSM | PGDTraining] = {
        "mnist, ε 0.3, from the image, no ramp": PlainFGSM(wide),
        "mnist, ε 0.3, from the image": PlainFGSM(wide), "mnist, ε 0.1, from the image": PlainFGSM(narrow),
        "mnist, ε 0.3, random start, step 2ε": FastFGSM(wide, step_share=2.0),
        "mnist, ε 0.3, random start, step 1.25ε": FastFGSM(wide), "mnist, ε 0.3, pgd-5": PGDTraining(wide, steps=5),
        "mnist, ε 0.3, random start, step 1.25ε, no ramp": FastFGSM(wide),
        "mnist, ε 0.3, pgd-5, no ramp": PGDTraining(wide, steps=5)}
    objectives |= {f"signs, ε {eps}/255, from the image": PlainFGSM(ThreatModel("linf", eps / 255)) for eps in (8, 16)}
    figures: Figures = {
        "net": "small_cnn", "train": images, "epochs": epochs, "validation": watched, "runs": {},
        "measured by": "FGSM, and PGD-10 on the margin, by epoch on validation images; at the end on the test set "
        f"PGD-{size.attack_steps}, worst case of cross-entropy and margin"}
    for seed in range(seeds):
        for name, objective in objectives.items():
            def work(name: str = name, objective: FastFGSM | PGDTraining = objective, seed: int = seed) -> Figures:
                of = name.split(",")[0]
                torch.manual_seed(seed)
                model = models.load_pretrained("signs-pgd") if of == "signs" else models.small_cnn(in_shape=(1, 28, 28))
                history = fit(model.requires_grad_(), split(of, "train", images), objective, epochs=epochs,
                              schedule=Piecewise(1e-3), validation=split(of, "validation", watched),
                              ramp=0 if of == "signs" or "no ramp" in name else 3, validation_steps=10, seed=seed,
                              threat=objective.threat, on_collapse="warn", keep="last", channels_last=True,
                              progress=False)
                return {"seed": seed, "eps": objective.threat.eps, "epochs": [by_epoch(e) for e in history.epochs],
                        "last": measured(model, *split(of, "test", size.test), objective.threat, size.attack_steps)}
            key = f"{name}, seed {seed}"
            figures["runs"][key] = once(f"collapse {key}", size, work)
            yield figures


def by_epoch(epoch: Epoch) -> Figures:
    assert epoch.clean
    assert epoch.fgsm
    assert epoch.robust
    return {"epoch": epoch.epoch, "loss": round(epoch.loss, 4), "clean": epoch.clean.correct,
            "fgsm": epoch.fgsm.correct, "robust": epoch.robust.correct}


def overfitting(size: Size, folder: Path) -> Iterator[Figures]:
    """PGD-5 on few images and for long, the rate cut at half and at three quarters: by epoch, and on the test set the
    epoch that was best on validation images beside the last."""
    images, epochs, seeds = size.overfit
    train, validation = split("signs", "train", images), split("signs", "validation", size.validation)
    test = split("signs", "test", size.test)
    cuts = (epochs // 2, 3 * epochs // 4)
    figures: Figures = {"net": "small_cnn", "train": images, "epochs": epochs, "rate cut after": cuts,
                        "validation": size.validation, "measured by": "PGD-10 on the margin by epoch; at the end on "
                        f"the test set PGD-{size.attack_steps}, worst case of cross-entropy and margin", "runs": []}
    for seed in range(seeds):
        def work(seed: int = seed) -> Figures:
            rows: list[Figures] = []
            last: dict[str, Tensor] = {}
            n = min(len(train[0]), size.validation)

            def note(model: nn.Module, epoch: Epoch) -> None:
                if epoch.robust is None:
                    return
                x, y = train[0][:n], train[1][:n]
                found = PGD(THREAT, steps=10, loss="margin").run(model, x, y).success
                rows.append(by_epoch(epoch) | {"train robust": int((~found).sum()), "train n": n})
                last.update({key: value.clone() for key, value in model.state_dict().items()})

            model = small(seed)
            history = fit(model, train, PGDTraining(THREAT, steps=5), epochs=epochs, ramp=3, seed=seed,
                          schedule=Piecewise(2e-3, cuts, factor=0.3), validation=validation, validation_steps=10,
                          every=5, keep="best", channels_last=True, progress=False, on_epoch=note)
            best = measured(model, *test, THREAT, size.attack_steps)
            model.load_state_dict(last)
            return {"seed": seed, "epochs": rows, "best epoch": history.kept, "best": best,
                    "last": measured(model, *test, THREAT, size.attack_steps)}
        figures["runs"].append(once(f"overfit seed {seed}", size, work))
        yield figures


def features(size: Size, folder: Path) -> Iterator[Figures]:
    """Ilyas et al. 2019: images changed toward a target class, labelled as that class, are all that a new net sees.
    The targets are drawn without a look at the image, so that what the image shows says nothing about its label."""
    images, epochs = size.features
    train = split("signs", "train", images)
    test = split("signs", "test", 2000 if size != QUICK else size.test)
    teacher = models.load_pretrained("signs-standard")
    figures: Figures = {"net": "small_cnn", "teacher": "signs-standard", "train": images, "epochs": epochs,
                        "attack": "PGD-20 toward the target, stop='never'", "chance": 0.1, "runs": {}}
    cases = {"linf 8/255, random target": (ThreatModel("linf", 8 / 255), "random"),
             "l2 1, random target": (ThreatModel("l2", 1.0), "random"),
             "linf 8/255, next class": (ThreatModel("linf", 8 / 255), "next"),
             "linf 8/255, random noise and label": (ThreatModel("linf", 8 / 255), "noise")}
    for name, (threat, kind) in cases.items():
        def work(threat: ThreatModel = threat, kind: str = kind) -> Figures:
            return transferred(teacher, train, test, threat, kind, epochs, "signs")
        figures["runs"][name] = once(f"features {name}", size, work)
        yield figures


def transferred(teacher: nn.Module, train: Split, test: Split, threat: ThreatModel, kind: str, epochs: int,
                name: str) -> Figures:
    x, y = train
    target = (y + 1) % 10 if kind == "next" else torch.randint(10, y.shape, generator=torch.Generator().manual_seed(1))
    if kind == "noise":
        signs = torch.randint(2, x.shape, generator=torch.Generator().manual_seed(2)) * 2 - 1
        x_adv = threat.project(x + threat.eps * signs, x)
    else:
        x_adv = PGD(threat, steps=20, stop="never")(teacher, x, y, target)
    agrees = clean(teacher, x_adv, target)
    student = small(1)
    fit(student, (x_adv, target), Standard(), epochs=epochs, schedule=OneCycle(2e-3), augment=AUGMENTATIONS[name],
        seed=1, channels_last=True, progress=False)
    right = clean(student, *test)
    with torch.no_grad():
        said = torch.cat([student(part).argmax(1) for part in torch.split(test[0], 250)])
    return {"seen as its target by the teacher": share(agrees), "clean test images, true labels": share(right),
            "clean test images, called the next class": share(said == (test[1] + 1) % 10)}


def more_data(size: Size, folder: Path) -> Iterator[Figures]:
    """The same net, as many steps and batches, on few images and on ten times as many. "short": from scratch. "long":
    by the recipe of signs-tiny-pgd on a tenth of its images, beside signs-tiny-pgd itself."""
    test = split("signs", "test", size.test)
    figures: Figures = {"objective": "PGD-5", "batch": 128, "measured by":
                        f"PGD-{size.attack_steps}, worst case of cross-entropy and margin",
                        "short": {"net": "small_cnn", "runs": {}}, "long": {"net": "signs-tiny-pgd", "runs": {}}}
    x, y = data.draw_signs(size.data[-1])
    for n in size.data:
        def work(n: int = n) -> Figures:
            model, epochs = small(0), max(1, round(size.steps / (n // 128)))
            fit(model, (x[:n], y[:n]), PGDTraining(THREAT, steps=5), epochs=epochs, schedule=OneCycle(2e-3),
                channels_last=True, progress=False)
            return learned(model, (x[:n], y[:n]), test, epochs, size)
        figures["short"]["runs"][str(n)] = once(f"data {n}, {size.steps} steps", size, work)
        yield figures
    figures["long"]["runs"] |= {
        str(size.tenth): once(f"data {size.tenth}, as signs-tiny-pgd", size, lambda: a_tenth(size, test)),
        "20000": once("data 20000, signs-tiny-pgd", size, lambda: learned(
            models.load_pretrained("signs-tiny-pgd"), split("signs", "train", 20_000), test, 20, size))}
    yield figures


def a_tenth(size: Size, test: Split) -> Figures:
    """The recipe of signs-tiny-pgd on its first images, with as many steps."""
    recipe = read_recipe("signs-tiny-pgd")
    train = split("signs", "train", size.tenth)
    epochs = 20 * (20_000 // 128) // (size.tenth // 128) if size != QUICK else 1
    model = recipe.build()
    fit(model, train, recipe.objective, epochs=epochs, schedule=recipe.schedule, ramp=3 * epochs // 20,
        augment=recipe.augment, seed=recipe.seed, channels_last=True, progress=False,
        folder=KEPT / f"a-tenth-{size.tenth}")
    return learned(model, train, test, epochs, size)


def learned(model: nn.Module, train: Split, test: Split, epochs: int, size: Size) -> Figures:
    """The same attack on images that it was trained on says how much was learned by heart."""
    n = len(train[0])
    return measured(model, *test, THREAT, size.attack_steps) | {
        "epochs": epochs, "steps": epochs * (n // 128),
        "on training images": measured(model, *(part[:size.test] for part in train), THREAT, size.attack_steps)}


OBJECTIVES: dict[str, Objective] = {
    "standard": Standard(), "fgsm-rs": FastFGSM(THREAT), "pgd-5": PGDTraining(THREAT, steps=5),
    "pgd-10": PGDTraining(THREAT, steps=10), "trades-5": TRADES(THREAT, steps=5)}


def price(size: Size, folder: Path) -> Iterator[Figures]:
    """Passes and seconds of a training step, the objectives in turn, round by round."""
    x, y = split("signs", "train", 128)
    yield {"net": "small_cnn", "batch": 128, "rounds": size.rounds,
           "step": once(f"price of a step, {size.rounds} rounds", size, lambda: a_step(x, y, size.rounds))}


def a_step(x: Tensor, y: Tensor, rounds: int) -> Figures:
    model = small(0).to(memory_format=torch.channels_last).train()
    result: Figures = {}
    times: dict[str, list[float]] = {name: [] for name in OBJECTIVES}
    for name, objective in OBJECTIVES.items():
        with Counter(model) as counter:
            objective(model, x, y).backward()
        result[name] = {"forward": counter.forward / len(x), "gradients": counter.gradients / len(x)}
    for _ in range(rounds):
        for name, objective in OBJECTIVES.items():
            times[name].append(seconds(lambda objective=objective: objective(model, x, y).backward()))
    for name in OBJECTIVES:
        ratios = [mine / standard for mine, standard in zip(times[name], times["standard"], strict=True)]
        result[name] |= {"seconds": round(statistics.median(times[name]), 4),
                         "over standard": round(statistics.median(ratios), 2),
                         "over standard, lowest and highest": [round(min(ratios), 2), round(max(ratios), 2)]}
    return result


@dataclass(frozen=True)
class AttackOnFunction(PGDTraining):
    """PGD training whose attack is given a function in place of the model. It cannot put that in eval mode: each of its
    passes is one of training, and moves batch norm's statistics."""

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, index: Tensor | None = None,
                 seed: int = 0) -> Tensor:
        attack = PGD(self.threat, steps=self.steps, seed=seed, stop="never")
        return self._cross_entropy(model(attack(model.forward, x, y, index=index)), y)


def bugs(size: Size, folder: Path) -> Iterator[Figures]:
    """Two slips, each beside the right version: same weights to begin with, same images in the same order. Mirrored
    images come to a net that PGD has trained; the net with batch norm is trained from scratch."""
    images, epochs, seeds = size.bugs
    train, test = split("signs", "train", images), split("signs", "test", size.test)
    pgd = PGDTraining(THREAT, steps=5)
    shift = AUGMENTATIONS["signs"]
    nets: dict[str, Callable[[int], nn.Module]] = {"plain": trained, "batch norm": with_batch_norm}
    cases: dict[str, tuple[str, Objective, Any]] = {
        "right": ("plain", pgd, shift), "flipped": ("plain", pgd, (Flip(), *shift)),
        "right, batch norm": ("batch norm", pgd, shift),
        "attack on a function": ("batch norm", AttackOnFunction(THREAT, steps=5), shift)}
    figures: Figures = {"nets": {"plain": "signs-tiny-pgd, trained further",
                                 "batch norm": "small_cnn((8, 16, 24), hidden=64)"},
                        "train": images, "epochs": epochs, "measured by":
                        f"PGD-{size.attack_steps}, worst case of cross-entropy and margin",
                        "runs": {name: [] for name in cases}}
    for seed in range(seeds):
        for name, (net, objective, augment) in cases.items():
            def work(net: str = net, objective: Objective = objective, augment: Any = augment,
                     seed: int = seed) -> Figures:
                model = nets[net](seed)
                fit(model, train, objective, epochs=epochs, schedule=OneCycle(1e-3 if net == "plain" else 4e-3),
                    augment=augment, seed=seed, channels_last=True, progress=False)
                arrows = (test[1] == 6) | (test[1] == 7)
                return {"seed": seed} | measured(model, *test, THREAT, size.attack_steps) | {
                    "keep left and keep right": share(clean(model, *test)[arrows]),
                    "the other eight": share(clean(model, *test)[~arrows])}
            figures["runs"][name].append(once(f"bugs {name} seed {seed}", size, work))
            yield figures


def trained(seed: int) -> nn.Module:
    return models.load_pretrained("signs-tiny-pgd").requires_grad_()


def with_batch_norm(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return models.small_cnn((8, 16, 24), hidden=64, batch_norm=True)


SECTIONS: dict[str, Callable[[Size, Path], Iterator[Figures]]] = {
    "collapse": collapsing, "overfit": overfitting, "features": features, "data": more_data, "price": price,
    "bugs": bugs,
}


if __name__ == "__main__":
    run_sections(SECTIONS, Size(), QUICK, THREAT)
