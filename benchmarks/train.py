"""Make the weights that the package ships, by the recipes in robustness_lib/training/recipes, and measure them.

    python benchmarks/train.py signs-pgd            train, write weights and card, measure on the test set
    python benchmarks/train.py signs-pgd --measure  measure the shipped file again

A recipe chooses on validation images or not at all; the test images choose nothing. A run that was killed continues.
"""

from __future__ import annotations

import argparse
import json
import time
import tomllib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robustness_lib import ThreatModel, data, models, training
from robustness_lib.attacks import AutoAttack
from robustness_lib.evaluation import evaluate
from robustness_lib.statistics import Accuracy

ROOT = Path(__file__).parents[1]
RECIPES = ROOT / "robustness_lib/training/recipes"
IN_LEVELS = ("2/255", "4/255", "8/255")
TEST_EPS = {"signs": IN_LEVELS, "gtsrb": IN_LEVELS, "cifar10": IN_LEVELS, "mnist": ("0.1", "0.2", "0.3"),
            "moons": ("0.02", "0.05", "0.1")}
INPUTS = {"mnist": "(N, 1, 28, 28) images", "moons": "(N, 2) points"}
ATTACK = "clean on the whole test set; attacked on its first 1000 images: worst case per image over APGD-CE and APGD-T"


def figures(accuracy: Accuracy) -> dict[str, Any]:
    return {"accuracy": accuracy.value, "correct": accuracy.correct, "n": accuracy.n,
            "interval_95": [round(v, 4) for v in accuracy.interval]}


def measure(name: str, set_name: str, state: Path) -> dict[str, Any]:
    """Of the file as shipped."""
    model = models.load_pretrained(name)
    x, y, classes = data.load(set_name, split="test")
    clean = Accuracy(int((logits(model, x).argmax(1) == y).sum()), len(y))
    result = {"clean": figures(clean)}
    print(name, "clean", clean, flush=True)
    for eps in TEST_EPS[set_name]:
        threat = ThreatModel.parse(f"linf:{eps}")
        attacks = dict(list(AutoAttack(threat).attacks(len(classes)).items())[:2])
        report = evaluate(model, x[:1000], y[:1000], threat, attacks, classes=classes,
                          state=state / f"measure-{eps.replace('/', '-')}")
        result[f"linf {eps}"] = figures(report.robust_accuracy)
        print(name, eps, report.robust_accuracy, flush=True)
    return result


def logits(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.cat([model(part) for part in torch.split(x, 500)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=training.list_recipes())
    parser.add_argument("--measure", action="store_true", help="only measure the shipped file")
    parser.add_argument("--state", type=Path, default=ROOT / "_build/training", help="where unfinished runs are kept")
    arguments = parser.parse_args()
    name, folder = arguments.name, arguments.state / arguments.name
    recipe = training.read_recipe(name)
    about = describe(name, recipe)
    if arguments.measure:
        model = models.load_pretrained(name)
        about["trained"] = models.card(name).get("trained", {})
    else:
        model, history = recipe.run(folder)
        about["trained"] = {"date": time.strftime("%Y-%m-%d"), "minutes": round(history.seconds / 60, 1),
                            "epoch kept": history.kept, "of": len(history)}
        for epoch in history:
            print(epoch)
        models.save_pretrained(name, model, about | {"accuracy": {}})
    about["accuracy"] = measure(name, recipe.data, folder)
    models.save_pretrained(name, models.load_pretrained(name), about)
    print(json.dumps(about["accuracy"], indent=1))


def describe(name: str, recipe: training.Recipe) -> dict[str, Any]:
    """A card's words. What the recipe says is in it as it stands in the file."""
    table = tomllib.loads((RECIPES / f"{name}.toml").read_text(encoding="utf-8"))
    return {"name": name, "architecture": recipe.architecture,
            "input": f"{INPUTS.get(recipe.data, '(N, 3, 32, 32) images')} in [0, 1]",
            "data": f"robustness_lib.data.load({recipe.data!r})",
            "recipe": {"command": f"python benchmarks/train.py {name}", "training": table["objective"]["kind"],
                       **{key: value for key, value in table.items() if key != "model"}},
            "seed": recipe.seed, "attack": ATTACK}


if __name__ == "__main__":
    main()
