"""Make the weights that the package ships, by the recipes in robustness_lib/training/recipes, and measure them.

    python benchmarks/train.py signs-pgd            train, write weights and card, measure on the test set
    python benchmarks/train.py signs-pgd --measure  measure the shipped file again

A recipe chooses on validation images or not at all; the test images choose nothing. A run that was killed continues.
Nets trained under noise are measured by what randomized smoothing certifies; each image's radius is kept with the run,
in certified.json. Of nets trained for bounds, it is said what is proved, too; of nets of Lipschitz layers, which are
shipped with plain weights, what their constant certifies. Where weights are shipped in half precision, what is measured
is the net with these.
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
from robustness_lib.certify import RandomizedSmoothing, certify_lipschitz, interval_margins, trace
from robustness_lib.evaluation import evaluate
from robustness_lib.querying.confirm_predictions import predict_logits
from robustness_lib.statistics import Accuracy

ROOT = Path(__file__).parents[1]
RECIPES = ROOT / "robustness_lib/training/recipes"
IN_LEVELS = ("2/255", "4/255", "8/255")
TEST_EPS = {"signs": IN_LEVELS, "gtsrb": IN_LEVELS, "cifar10": IN_LEVELS, "mnist": ("0.1", "0.2", "0.3"),
            "moons": ("0.02", "0.05", "0.1")}
HALF_PRECISION = {"gtsrb-standard"}  # its figures hold in it; nets trained under noise or for bounds all are shipped so
INPUTS = {"mnist": "(N, 1, 28, 28) images", "moons": "(N, 2) points"}
ATTACK = "clean on the whole test set; attacked on its first 1000 images: worst case per image over APGD-CE and APGD-T"
PROOF = ("clean and proved by intervals: on the whole test set; proved and attacked: on its first 1000 images, by "
         "evaluate(..., prove=True): worst case per image over APGD-CE and APGD-T, where nothing was proved")
CERTIFIED, N0, N, ALPHA = 200, 100, 10_000, 0.001
CERTIFICATE = (f"clean: the bare net without noise, on the whole test set; certified: right, and unchanged within the "
               f"radius, on its first {CERTIFIED} images: RandomizedSmoothing.certify with n0 = {N0}, n = {N:,}, "
               f"α = {ALPHA}")
LIPSCHITZ_RADII = ("36/255", "72/255", "108/255")
LIPSCHITZ_CERTIFICATE = ("clean and certified: on the whole test set; certified: right, and unchanged within the L2 "
                         "radius, by certify_lipschitz")


def figures(accuracy: Accuracy) -> dict[str, Any]:
    return {"accuracy": accuracy.value, "correct": accuracy.correct, "n": accuracy.n,
            "interval_95": [round(v, 4) for v in accuracy.interval]}


def measure(name: str, model: nn.Module, recipe: training.Recipe, state: Path) -> dict[str, Any]:
    """Of the net as shipped."""
    x, y, classes = data.load(recipe.data, split="test")
    clean = Accuracy.of(predict_logits(model, x, size=500).argmax(1) == y)
    print(name, "clean", clean, flush=True)
    sigma = noise(recipe)
    if of_lipschitz_layers(recipe):
        found = certified_by_constant(name, model, x, y)
    elif sigma is not None:
        found = certified(name, model, sigma, x[:CERTIFIED], y[:CERTIFIED], state)
    else:
        eps = [eps for eps in TEST_EPS[recipe.data] if not for_bounds(recipe)
               or ThreatModel.parse(f"linf:{eps}").eps <= recipe.objective.threat.eps]
        found = attacked(name, model, x[:1000], y[:1000], classes, eps, state, prove=for_bounds(recipe))
        if for_bounds(recipe):
            found |= proved_by_intervals(name, model, x, y, eps)
    return {"clean": figures(clean)} | {key: figures(accuracy) for key, accuracy in found.items()}


def attacked(name: str, model: nn.Module, x: Tensor, y: Tensor, classes: list[str], levels: list[str], state: Path,
             prove: bool) -> dict[str, Accuracy]:
    result = {}
    for eps in levels:
        threat = ThreatModel.parse(f"linf:{eps}")
        attacks = dict(list(AutoAttack(threat).attacks(len(classes)).items())[:2])
        report = evaluate(model, x, y, threat, attacks, classes=classes, prove=prove,
                          state=state / f"measure-{eps.replace('/', '-')}")
        result[f"linf {eps}"] = report.robust_accuracy
        if report.certified_accuracy is not None:
            result[f"proved linf {eps}"] = report.certified_accuracy
        print(name, eps, report.robust_accuracy, report.certified_accuracy or "", flush=True)
    return result


def proved_by_intervals(name: str, model: nn.Module, x: Tensor, y: Tensor, levels: list[str]) -> dict[str, Accuracy]:
    """Of margins that no rounding can turn: those of such nets are far larger."""
    network, result = trace(model, x), {}
    for eps in levels:
        margins = interval_margins(network, x, y, ThreatModel.parse(f"linf:{eps}"))
        result[f"proved by intervals linf {eps}"] = Accuracy.of(margins.amin(1) > 1e-3)
        print(name, eps, "by intervals", result[f"proved by intervals linf {eps}"], flush=True)
    return result


def certified(name: str, model: nn.Module, sigma: float, x: Tensor, y: Tensor, state: Path) -> dict[str, Accuracy]:
    """At radius 0 (right, and not abstained), σ, 2σ and 3σ."""
    found = RandomizedSmoothing(model, sigma).certify(x, n0=N0, n=N, alpha=ALPHA, state=state / "certify")
    right = found.prediction == y
    rows = [{"index": i, "label": int(label), "prediction": int(prediction), "radius": float(radius)}
            for i, (label, prediction, radius) in enumerate(zip(y, found.prediction, found.radius, strict=True))]
    state.mkdir(parents=True, exist_ok=True)
    (state / "certified.json").write_text(json.dumps({"name": name, "sigma": sigma, "n0": N0, "n": N, "alpha": ALPHA,
                                                      "images": rows}, indent=1) + "\n", encoding="utf-8")
    result = {}
    for radius in (0.0, sigma, 2 * sigma, 3 * sigma):
        result[f"certified l2 {radius:g}"] = Accuracy.of(right & found.at(radius))
        print(name, radius, result[f"certified l2 {radius:g}"], flush=True)
    return result


def certified_by_constant(name: str, model: nn.Module, x: Tensor, y: Tensor) -> dict[str, Accuracy]:
    certificates = certify_lipschitz(model, x)
    print(name, certificates.bound, flush=True)
    found = {f"certified l2 {radius}": certificates.accuracy(y, ThreatModel.parse(f"l2:{radius}").eps)
             for radius in LIPSCHITZ_RADII}
    print(name, *(f"{key} {accuracy}" for key, accuracy in found.items()), flush=True)
    return found


def noise(recipe: training.Recipe) -> float | None:
    """The σ that it trains under, if it does."""
    return getattr(recipe.objective, "sigma", None)


def for_bounds(recipe: training.Recipe) -> bool:
    return isinstance(recipe.objective, training.IBP)


def of_lipschitz_layers(recipe: training.Recipe) -> bool:
    return isinstance(recipe.objective, training.LipschitzMargin)


def precision(name: str, recipe: training.Recipe) -> torch.dtype:
    """Of the weights as shipped."""
    half = noise(recipe) is not None or for_bounds(recipe) or of_lipschitz_layers(recipe) or name in HALF_PRECISION
    return torch.float16 if half else torch.float32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=training.list_recipes())
    parser.add_argument("--measure", action="store_true", help="only measure the shipped file")
    parser.add_argument("--state", type=Path, default=ROOT / "_build/training", help="where unfinished runs are kept")
    arguments = parser.parse_args()
    name, folder = arguments.name, arguments.state / arguments.name
    recipe = training.read_recipe(name)
    about, dtype = describe(name, recipe), precision(name, recipe)
    if arguments.measure:
        model = models.load_pretrained(name)
        about["trained"] = models.card(name).get("trained", {})
    else:
        model, history = recipe.run(folder)
        about["trained"] = {"date": time.strftime("%Y-%m-%d"), "minutes": round(history.seconds / 60, 1),
                            "epoch kept": history.kept, "of": len(history)}
        for epoch in history:
            print(epoch)
        model = models.with_plain_weights(model)
        models.save_pretrained(name, model, about | {"accuracy": {}}, dtype=dtype)
    model.to(dtype).float()  # in the shipped weights' precision; models always compute in float32
    about["accuracy"] = measure(name, model, recipe, folder)
    models.save_pretrained(name, model, about, dtype=dtype)
    print(json.dumps(about["accuracy"], indent=1))


def describe(name: str, recipe: training.Recipe) -> dict[str, Any]:
    """A card's words. What the recipe says is in it as it stands in the file."""
    table = tomllib.loads((RECIPES / f"{name}.toml").read_text(encoding="utf-8"))
    sigma = noise(recipe)
    architecture = recipe.architecture
    if of_lipschitz_layers(recipe):
        architecture = architecture | {"arguments": architecture["arguments"] | {"constrained": False}}
    return {"name": name, "architecture": architecture,
            "input": f"{INPUTS.get(recipe.data, '(N, 3, 32, 32) images')} in [0, 1]",
            "data": f"robustness_lib.data.load({recipe.data!r})",
            "recipe": {"command": f"python benchmarks/train.py {name}", "training": table["objective"]["kind"],
                       **{key: value for key, value in table.items() if key != "model"}},
            "seed": recipe.seed,
            **({"sigma": sigma, "certificate": CERTIFICATE} if sigma is not None else
               {"certificate": LIPSCHITZ_CERTIFICATE} if of_lipschitz_layers(recipe) else
               {"proof": PROOF} if for_bounds(recipe) else {"attack": ATTACK})}


if __name__ == "__main__":
    main()
