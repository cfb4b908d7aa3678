"""What chapter 7 shows at full size: preprocessing defenses, under an attack that ignores them and one that does not.

    python benchmarks/pitfalls.py                  all of it, about half an hour of one core
    python benchmarks/pitfalls.py --only gtsrb     one section
    python benchmarks/pitfalls.py --quick          small, into _build/

Writes benchmarks/results/pitfalls.json. GTSRB's images are found by ROBUSTNESS_DATA.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from measuring import seconds
from PIL import Image, ImageFilter
from sections import Figures, figure, run_sections
from torch import Tensor, nn

from robustness_lib import ThreatModel, data, models
from robustness_lib.attacks import PGD, AutoPGD, BoundedAttack, SquareAttack
from robustness_lib.attacks.adaptive import BPDA, EOT
from robustness_lib.defenses import (
    JPEG,
    BitDepth,
    Defense,
    DifferentiableJPEG,
    MeanSmoothing,
    MedianSmoothing,
    ResizePad,
)
from robustness_lib.statistics import Accuracy

THREAT = ThreatModel("linf", 4 / 255)


@dataclass(frozen=True)
class Size:
    """How many images, steps, draws for a step and for a verdict, queries, and rounds of timing."""

    images: int = 300
    steps: int = 40
    climb: int = 100
    samples: int = 8
    draws: int = 20
    queries: int = 1000
    rounds: int = 5


class Nothing(Defense):
    """Images as they are."""

    differentiable, stochastic = True, False

    def _transform(self, x: Tensor) -> Tensor:
        return x.clone()


def defenses(model: nn.Module) -> dict[str, Defense]:
    return {"JPEG": JPEG(model, 75), "bit depth": BitDepth(model, 3), "median": MedianSmoothing(model, 3),
            "resize-pad": ResizePad(model, 0.8)}


def known(defense: Defense, samples: int) -> nn.Module:
    """What an attacker who knows the defense climbs on. samples: of a defense that draws, for each step."""
    if defense.stochastic:
        return EOT(defense, samples, decision="majority")
    if isinstance(defense, JPEG):
        return BPDA(defense, DifferentiableJPEG(defense.model, defense.quality).transform)
    return defense if defense.differentiable else BPDA(defense)


def standing(defense: nn.Module, x: Tensor, y: Tensor, size: Size) -> Tensor:
    """(N,) bool: read rightly; of a defense that draws, by most of `draws` fresh answers."""
    if getattr(defense, "stochastic", False):
        return ~EOT(defense, size.samples, decision="majority").judge(x, y, draws=size.draws).success
    with torch.no_grad():
        return torch.cat([defense(part).argmax(1) for part in torch.split(x, 100)]) == y


def attacks(defense: Defense, threat: ThreatModel, size: Size) -> dict[str, tuple[BoundedAttack, int]]:
    """Those of the attacker who knows, in order, each with the samples that it takes of a defense that draws. Each sees
    what is left, the first from where the unaware one ended."""
    pgd = PGD(threat, steps=size.steps, loss="margin")
    if defense.stochastic:
        return {"PGD": (pgd, size.samples), "PGD, another start": (replace(pgd, seed=1), size.samples),
                "APGD": (AutoPGD(threat, steps=size.climb, loss="margin"), size.samples),
                "PGD, more draws": (replace(pgd, seed=2), 4 * size.samples)}
    return {"PGD": (pgd, 1), "APGD-CE": (AutoPGD(threat, steps=size.climb), 1),
            "APGD-DLR": (AutoPGD(threat, steps=size.climb, loss="dlr"), 1),
            "Square": (SquareAttack(threat, queries=size.queries), 1)}


def share(right: Tensor) -> Figures:
    return figure(Accuracy.of(right))


def adaptive(defense: Defense, x: Tensor, y: Tensor, start: Tensor, threat: ThreatModel, size: Size
             ) -> tuple[Tensor, Figures]:
    """(N,) bool: read rightly in the worst case over no attack, the unaware attack's images, `start`, and the attacks
    that know; and how many are left after each of these."""
    left = standing(defense, x, y, size) & standing(defense, start, y, size)
    steps = {"no attack of its own": int(left.sum())}
    for name, (attack, samples) in attacks(defense, threat, size).items():
        rows, view = left.nonzero()[:, 0], known(defense, samples)
        begin = start[rows] if name == "PGD" else None
        if isinstance(view, EOT):
            broken = view.attacked(attack, x[rows], y[rows], draws=size.draws, index=rows, start=begin)[1].success
        else:
            found = attack.run(defense if name == "Square" else view, x[rows], y[rows], index=rows, start=begin)
            broken = ~standing(defense, found.x_adv, y[rows], size)
        left[rows[broken]] = False
        steps[name] = int(left.sum())
    return left, steps


def cut(bare_clean: Tensor, bare_left: Tensor, clean: Tensor, left: Tensor) -> Figures:
    """By how many percent a defense lowers the attack's success, the share of what was right that it turns: all (N,)
    bool, of the same images, which are drawn anew 10,000 times for the interval."""
    columns = torch.stack([bare_clean, bare_left, clean, left]).double().numpy()
    n = len(clean)
    weights = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=10_000)
    counts = np.concatenate([columns.sum(1)[None], weights @ columns.T])
    with np.errstate(divide="ignore", invalid="ignore"):
        turned = 1 - counts[:, [1, 3]] / counts[:, [0, 2]]  # of the bare net; of the defended one
        percent = 100 * (1 - turned[:, 1] / turned[:, 0])
    if not np.isfinite(percent).all():  # few images, of which a draw may hold none that the attack turns
        return {"percent": None, "interval_95": None}
    return {"percent": round(float(percent[0]), 1),
            "interval_95": [round(float(v), 1) for v in np.percentile(percent[1:], [2.5, 97.5])]}


def three_times(set_name: str, net: str, levels: tuple[int, ...], size: Size, chosen: tuple[str, ...] = ()
                ) -> Iterator[Figures]:
    """Each defense without an attack, under the attack on the bare net, and under those that know it. The bare net gets
    all of these attacks, too: what a defense has to beat."""
    x, y, _ = data.load(set_name, "test", n=size.images)
    model = models.load_pretrained(net).to(memory_format=torch.channels_last)
    bare_clean = standing(model, x, y, size)
    figures: Figures = {"net": net, "images": len(x), "steps": size.steps, "samples": size.samples,
                        "draws": size.draws, "of": {}}
    for level in levels:
        threat = ThreatModel("linf", level / 255)
        pgd = PGD(threat, steps=size.steps, loss="margin")
        edge, deep = (replace(pgd, stop=stop).run(model, x, y).x_adv for stop in ("success", "never"))
        pgd_left = bare_clean & standing(model, deep, y, size)
        bare_left, after = adaptive(Nothing(model), x, y, deep, threat, size)
        record: Figures = {"none": {"clean": share(bare_clean), "attacked": share(pgd_left),
                                    "adaptive": share(bare_left) | {"left after": after}}}
        figures["of"][f"{level}/255"] = record
        for name, defense in defenses(model).items():
            if chosen and name not in chosen:
                continue
            clean = standing(defense, x, y, size)
            left = {"stops at success": clean & standing(defense, edge, y, size),
                    "unaware": clean & standing(defense, deep, y, size)}
            left["adaptive"], after = adaptive(defense, x, y, deep, threat, size)
            record[name] = {"clean": share(clean)} | {
                kind: share(one) | {"cut": cut(bare_clean, bare_left if kind == "adaptive" else pgd_left, clean, one)}
                for kind, one in left.items()}
            record[name]["adaptive"]["left after"] = after
            print(f"  {set_name} {level}/255 {name}: " + ", ".join(
                f"{kind} {found['right']}" for kind, found in record[name].items()), after, flush=True)
            yield figures


def gtsrb(size: Size, folder: Path) -> Iterator[Figures]:
    """Photographs of road signs, a plainly trained net."""
    yield from three_times("gtsrb", "gtsrb-standard", (4, 8), size)


def claim(size: Size, folder: Path) -> Iterator[Figures]:
    """By how much JPEG lowers an attack's success: drawn signs at three budgets (photographs: the section before)."""
    yield from three_times("signs", "signs-standard", (2, 4, 8), size, ("JPEG",))


def loops(size: Size, folder: Path) -> Iterator[Figures]:
    """A 3 × 3 mean, for all images at once and by PIL image by image: processor time as a ratio, and what differs."""
    x, _, _ = data.load("signs", "test", n=100)
    whole = MeanSmoothing(nn.Identity(), 3)

    def by_pil() -> Tensor:
        smooth = []
        for image in x:
            picture = Image.fromarray((image * 255).round().byte().permute(1, 2, 0).numpy())
            smooth.append(torch.from_numpy(np.array(picture.filter(ImageFilter.BoxBlur(1)))).permute(2, 0, 1) / 255)
        return torch.stack(smooth)

    inside = (by_pil() - whole(x))[..., 1:-1, 1:-1]  # their edges differ
    times = [(seconds(by_pil), seconds(lambda: whole(x))) for _ in range(size.rounds)]
    yield {"images": len(x), "ratio": statistics.median(slow / fast for slow, fast in times),
           "ratios": [round(slow / fast, 2) for slow, fast in times], "largest difference": float(inside.abs().max())}


SECTIONS = {"gtsrb": gtsrb, "claim": claim, "loops": loops}

if __name__ == "__main__":
    run_sections(SECTIONS, Size(), Size(20, 3, 3, 2, 3, 20, 1), THREAT)
