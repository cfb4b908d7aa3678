"""Train the weights that the package ships: standard training and PGD training (Madry et al. 2018), plainly.

    python benchmarks/train.py signs-pgd            train, measure on the test set, write weights and card
    python benchmarks/train.py signs-pgd --measure  measure the shipped file again

One recipe a name. The last epoch's weights are kept: nothing is chosen on the test set, and nothing on validation
either. State is written after every epoch; a run that was killed continues.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustness_lib import ThreatModel, data, models
from robustness_lib.attacks import PGD
from robustness_lib.intervals import Accuracy


@dataclass(frozen=True)
class Recipe:
    data: str
    architecture: dict[str, object]
    train_eps: float  # 0 is standard training
    test_eps: tuple[float, ...]
    epochs: int
    steps: int = 5
    ramp: int = 3  # epochs over which ε grows to its full size; from scratch at full ε, learning starts late
    batch_size: int = 128
    peak_lr: float = 2e-3
    weight_decay: float = 5e-4
    shift: int = 2  # random translation in pixels; no flips: a flipped "keep left" is "keep right"
    seed: int = 0


SMALL = {"builder": "small_cnn", "arguments": {"channels": [12, 24, 48], "hidden": 512}}
TINY = {"builder": "tiny_cnn", "arguments": {}}
MNIST = {"builder": "small_cnn", "arguments": {"channels": [16, 32], "in_shape": [1, 28, 28], "hidden": 100}}
PLANE = {"builder": "mlp", "arguments": {"widths": [2, 64, 64, 2]}}
INPUTS = {"signs": "(N, 3, 32, 32) images", "mnist": "(N, 1, 28, 28) images", "moons": "(N, 2) points"}
BUILDERS = {"small_cnn": models.small_cnn, "tiny_cnn": models.tiny_cnn, "mlp": models.mlp}
SIGN_EPS = (2 / 255, 4 / 255, 8 / 255)
RECIPES = {
    "signs-standard": Recipe("signs", SMALL, 0, SIGN_EPS, epochs=30, weight_decay=1e-2),
    "signs-pgd": Recipe("signs", SMALL, 4 / 255, SIGN_EPS, epochs=25),
    "signs-tiny-standard": Recipe("signs", TINY, 0, SIGN_EPS, epochs=30),
    "signs-tiny-pgd": Recipe("signs", TINY, 4 / 255, SIGN_EPS, epochs=20),
    "mnist-standard": Recipe("mnist", MNIST, 0, (0.05, 0.1, 0.3), epochs=8),
    "moons-standard": Recipe("moons", PLANE, 0, (0.02, 0.05, 0.1), epochs=200, shift=0, weight_decay=1e-2),
}


def shifted(x: Tensor, by: int, generator: torch.Generator) -> Tensor:
    """Each image moved by up to `by` pixels either way, the edge repeated."""
    n, _, height, width = x.shape
    padded = F.pad(x, (by,) * 4, mode="replicate")
    top, left = torch.randint(2 * by + 1, (2, n), generator=generator)
    rows = top[:, None] + torch.arange(height)
    columns = left[:, None] + torch.arange(width)
    picked = padded.permute(0, 2, 3, 1)[torch.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]]
    return picked.permute(0, 3, 1, 2)  # channels last in memory: twice as many gradients a second on a CPU


def train(name: str, recipe: Recipe, folder: Path) -> nn.Module:
    x, y, _ = data.load(recipe.data, split="train")
    x_val, y_val, _ = data.load(recipe.data, split="validation")
    x_val, y_val = x_val[:1000], y_val[:1000]
    torch.manual_seed(recipe.seed)
    model = BUILDERS[recipe.architecture["builder"]](**recipe.architecture["arguments"])
    model.to(memory_format=torch.channels_last)
    batches = len(x) // recipe.batch_size
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.peak_lr, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.peak_lr, total_steps=recipe.epochs * batches)
    state_file, first = folder / f"{name}.state.pt", 0
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        first = state["epoch"]
    for epoch in range(first, recipe.epochs):
        began, seen = time.time(), 0.0
        generator = torch.Generator().manual_seed(1000 * recipe.seed + epoch)
        order = torch.randperm(len(x), generator=generator)[: batches * recipe.batch_size]
        for batch in order.split(recipe.batch_size):
            xb, yb = x[batch], y[batch]
            if recipe.shift:
                xb = shifted(xb, recipe.shift, generator)
            if recipe.train_eps:
                # The attack starts anew every epoch: its numbers follow the example, its seed the epoch.
                eps = recipe.train_eps * min(1, (epoch + 1) / (recipe.ramp + 1))
                attack = PGD(ThreatModel("linf", eps), steps=recipe.steps, stop="never", seed=epoch)
                xb = attack(model, xb, yb, index=batch)
            loss = F.cross_entropy(model(xb), yb)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            seen += loss.item()
        line = f"{name} epoch {epoch + 1}/{recipe.epochs} loss {seen / batches:.3f} {time.time() - began:.0f} s"
        if (epoch + 1) % max(5, recipe.epochs // 6) == 0:
            eps = recipe.train_eps or recipe.test_eps[1]
            line += f" val {robust(model, x_val, y_val, 0)} at {eps:.3f} {robust(model, x_val[:500], y_val[:500], eps)}"
        print(line, flush=True)
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(),
                 "schedule": schedule.state_dict(), "epoch": epoch + 1}
        torch.save(state, state_file.with_suffix(".tmp"))
        os.replace(state_file.with_suffix(".tmp"), state_file)
    return model.eval()


def robust(model: nn.Module, x: Tensor, y: Tensor, eps: float, restarts: int = 1) -> Accuracy:
    """Worst case per image over PGD-40 on cross-entropy and on the margin."""
    standing = torch.ones(len(x), dtype=torch.bool)
    for loss in ("ce", "margin"):
        rows = standing.nonzero()[:, 0]
        attack = PGD(ThreatModel("linf", eps), steps=40 if eps else 1, restarts=restarts, loss=loss)
        standing[rows] = ~attack.run(model, x[rows], y[rows], index=rows, batch_size=250).success
    return Accuracy(int(standing.sum()), len(x))


def figures(accuracy: Accuracy) -> dict[str, object]:
    return {"accuracy": accuracy.value, "correct": accuracy.correct, "n": accuracy.n,
            "interval_95": [round(v, 4) for v in accuracy.interval]}


def measure(name: str, recipe: Recipe, model: nn.Module, n: int = 1000) -> dict[str, object]:
    x, y, _ = data.load(recipe.data, split="test")
    result: dict[str, object] = {"clean": figures(robust(model, x, y, 0))}
    print(name, "clean", robust(model, x, y, 0), flush=True)
    for eps in recipe.test_eps:
        accuracy = robust(model, x[:n], y[:n], eps, restarts=2)
        label = f"linf {eps * 255:g}/255" if recipe.data == "signs" else f"linf {eps:g}"
        result[label] = figures(accuracy)
        print(name, label, accuracy, flush=True)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=sorted(RECIPES))
    parser.add_argument("--measure", action="store_true", help="only measure the shipped file")
    parser.add_argument("--state", type=Path, default=Path("_build/training"), help="where unfinished runs are kept")
    arguments = parser.parse_args()
    recipe = RECIPES[arguments.name]
    arguments.state.mkdir(parents=True, exist_ok=True)
    about = {
        "name": arguments.name,
        "architecture": recipe.architecture,
        "input": f"{INPUTS[recipe.data]} in [0, 1]",
        "data": f"robustness_lib.data.load({recipe.data!r})",
        "recipe": {
            "command": f"python benchmarks/train.py {arguments.name}",
            "training": f"PGD-{recipe.steps}, linf {recipe.train_eps * 255:g}/255" if recipe.train_eps else "standard",
            "epochs": recipe.epochs, "batch_size": recipe.batch_size, "optimizer": "AdamW, one-cycle",
            "peak_lr": recipe.peak_lr, "weight_decay": recipe.weight_decay, "shift_pixels": recipe.shift,
            "eps_ramp_epochs": recipe.ramp if recipe.train_eps else 0,
        },
        "seed": recipe.seed,
    }
    if arguments.measure:
        model = models.load_pretrained(arguments.name)
    else:
        model = train(arguments.name, recipe, arguments.state)
        models.save_pretrained(arguments.name, model, about)
        model = models.load_pretrained(arguments.name)  # what is measured is the file as shipped
    about["attack"] = "clean on the whole test set; attacked on its first 1000 images: worst case per image over " \
                      "PGD-40 with 2 restarts on cross-entropy and on the margin"
    about["accuracy"] = measure(arguments.name, recipe, model)
    models.save_pretrained(arguments.name, model, about)
    print(json.dumps(about["accuracy"], indent=1))


if __name__ == "__main__":
    main()
