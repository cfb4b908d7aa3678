"""Three photographs under PGD, targeted and untargeted, read by a network that was trained on ImageNet.

    python benchmarks/photograph.py           about a minute of one core
    python benchmarks/photograph.py --quick   small, into _build/

Writes benchmarks/results/photograph.json, and the picture that opens the book, book/assets/photograph.png (with --quick
beside the results). The weights come with the extra `book`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import torch
from sections import ROOT, Figures, run_sections
from torch import Tensor, nn
from torchvision.models import EfficientNet_B0_Weights

from robustness_lib import ThreatModel, data, models, plotting
from robustness_lib.attacks import PGD

NAMES = ("cat", "coffee", "rocket")
CLASSES: list[str] = EfficientNet_B0_Weights.IMAGENET1K_V1.meta["categories"]
TARGET = CLASSES.index("banana")
LEVELS = (0.5, 1, 2, 4, 8)
SHOWN = 2  # grey levels of the picture


@dataclass(frozen=True)
class Size:
    steps: int = 20
    noises: int = 20
    names: tuple[str, ...] = NAMES
    levels: tuple[float, ...] = LEVELS


QUICK = Size(steps=2, noises=2, names=("cat",), levels=(1, SHOWN))


def toward_banana(logits: Tensor, y: Tensor) -> Tensor:
    """A loss to climb: the log of the target's odds, log(p / (1 − p)), whatever the label.

    Its steps are those of log p. But log p is 0 in float32 once the network is sure: from there on no image would be
    better than the one before, and a larger ε would change nothing.
    """
    others = logits.index_fill(1, torch.tensor([TARGET]), -torch.inf)
    return logits[:, TARGET] - others.logsumexp(1)


def attack(level: float, steps: int, loss: str | Callable[[Tensor, Tensor], Tensor] = toward_banana) -> PGD:
    """With all its steps: one that stops at success would stop with "banana" hardly ahead."""
    return PGD(ThreatModel("linf", level / 255), steps=steps, loss=loss, stop="never")


def said(model: nn.Module, x: Tensor, own: int) -> Figures:
    """The likeliest class with its probability, and those of the target and of the class without attack."""
    with torch.no_grad():
        p = model(x)[0].softmax(0)
    return {"says": CLASSES[int(p.argmax())], "probability": round(float(p.max()), 4),
            "banana": round(float(p[TARGET]), 4), "its own": round(float(p[own]), 4)}


def saved(model: nn.Module, x_adv: Tensor, x: Tensor, own: int) -> Figures:
    """What is said of the 8-bit file, and how many grey levels it is from x at most. Below half a level that is 0; at
    exactly half, values lie on the border, and those that are rounded away from x move by a whole level: more than ε.
    """
    file = (x_adv * 255).round() / 255
    return said(model, file, own) | {"levels moved": round(255 * float((file - x).abs().max()))}


def under_noise(model: nn.Module, x: Tensor, level: float, noises: int) -> Figures:
    """Random signs of the same size: how often the answer stays."""
    numbers, stays = torch.Generator().manual_seed(0), 0
    with torch.no_grad():
        own = model(x).argmax(1)
        for _ in range(noises):
            signs = 2.0 * torch.randint(0, 2, x.shape, generator=numbers) - 1
            stays += int(model((x + level / 255 * signs).clamp(0, 1)).argmax(1) == own)
    return {"answer stays": stays, "n": noises}


def photographs(size: Size, folder: Path) -> Iterator[Figures]:
    """Each starts from the result at the ε before, so that a larger ε is never weaker; and saved as an 8-bit file."""
    model = models.load_efficientnet_lite0()
    found: Figures = {}
    for name in size.names:
        began = time.process_time()
        x = data.photograph(name)
        with torch.no_grad():
            own = model(x).argmax(1)
        found[name] = {"clean": said(model, x, int(own)), "at": {}}
        x_adv = x_other = x
        for level in size.levels:
            x_adv = attack(level, size.steps).run(model, x, own, start=x_adv).x_adv
            x_other = attack(level, size.steps, "ce").run(model, x, own, start=x_other).x_adv
            found[name]["at"][f"{level:g}"] = {
                "attacked": said(model, x_adv, int(own)),
                "saved in 8 bits": saved(model, x_adv, x, int(own)),
                "untargeted": said(model, x_other, int(own)),
                "noise": under_noise(model, x, level, size.noises)}
        found[name]["seconds"] = round(time.process_time() - began, 1)
        yield {"net": "EfficientNet-Lite0, ImageNet",
               "attack": f"PGD toward “banana”, L∞: {size.steps} steps at each ε, from the result at the ε before",
               "photographs": found}


def picture(size: Size, folder: Path) -> Iterator[Figures]:
    """The cat, the change, and the cat that is read as a banana."""
    mpl.use("agg")
    plotting.use_style()
    model, x = models.load_efficientnet_lite0(), data.photograph("cat")
    with torch.no_grad():
        own = model(x).argmax(1)
    x_adv = attack(SHOWN, size.steps).run(model, x, own).x_adv
    before, after = said(model, x, int(own)), said(model, x_adv, int(own))
    figure = plotting.triple(x[0], x_adv[0], SHOWN / 255, (in_words(before), in_words(after)))
    file = (ROOT / "book/assets" if folder == ROOT / "benchmarks/results" else folder) / "photograph.png"
    figure.savefig(file, dpi=120, facecolor="white", metadata={"Software": None})
    yield {"levels": SHOWN, "clean": before, "attacked": after, "file": file.name}


def in_words(answer: Figures) -> str:
    sure = answer["probability"]
    return f"“{answer['says']}”\n" + ("over 99 %" if sure > 0.99 else f"{100 * sure:.0f} %")


if __name__ == "__main__":
    run_sections({"photographs": photographs, "picture": picture}, Size(), QUICK, ThreatModel("linf", SHOWN / 255))
