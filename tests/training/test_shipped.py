"""The weights that are shipped: made by the recipe of their name, and as good as they are said to be."""

import itertools
import math
import tomllib
from pathlib import Path

import pytest

from robustness_lib import models
from robustness_lib.training import IBP, LipschitzMargin, list_recipes, read_recipe
from robustness_lib.training import recipe as recipes

SHIPPED = models.list_pretrained()
UNDER_NOISE = [name for name in SHIPPED if hasattr(read_recipe(name).objective, "sigma")]
ROBUST_SIGNS = ("signs-pgd", "signs-trades-1", "signs-trades-3", "signs-trades-6", "signs-fgsm-rs")
# Least clean accuracy, and least accuracy under attack at this ε or certified at this radius.
FLOORS = {
    "signs-standard": (0.95, None, None),
    "mnist-pgd": (0.98, "linf 0.3", 0.85),
    "mnist-trades": (0.98, "linf 0.3", 0.85),
    "gtsrb-standard": (0.93, None, None),
    "gtsrb-pgd": (0.93, "linf 4/255", 0.60),
    "signs-gaussian-0.25": (0.97, "certified l2 0.25", 0.80),
    "signs-smoothadv-0.25": (0.95, "certified l2 0.5", 0.60),
    "signs-gaussian-0.12": (0.99, "certified l2 0.24", 0.85),
    "signs-gaussian-0.5": (None, "certified l2 0.5", 0.50),
    "signs-gaussian-1": (None, "certified l2 1", 0.20),
    "cifar10-gaussian-0.25": (None, "certified l2 0.25", 0.50),
    "cifar10-gaussian-0.5": (None, "certified l2 0.5", 0.30),
    "mnist-ibp": (0.965, "proved by intervals linf 0.3", 0.88),
    "signs-ibp": (0.85, "proved by intervals linf 2/255", 0.70),
    "signs-lipschitz": (0.85, "certified l2 72/255", 0.60),
    "signs-tiny-ibp": (0.80, "proved by intervals linf 2/255", 0.60),
}
LIPSCHITZ = [name for name in SHIPPED if isinstance(read_recipe(name).objective, LipschitzMargin)]
FOR_BOUNDS = [name for name in SHIPPED if isinstance(read_recipe(name).objective, IBP)]


def card(name):
    """Skips the test where the card was written before recipes were files, and its net not measured again since."""
    about = models.card(name)
    if "objective" not in about["recipe"]:
        pytest.skip(f"the card is older than the recipe: python benchmarks/train.py {name} --measure renews it")
    return about


def accuracy(name):
    """Of a card; skips the test where the model is not shipped."""
    if name not in SHIPPED:
        pytest.skip(f"{name} is not shipped yet: python benchmarks/train.py {name} makes it")
    return models.card(name)["accuracy"]


@pytest.mark.parametrize("name", FLOORS)
def test_floors(name):
    figures, (clean, eps, robust) = accuracy(name), FLOORS[name]
    if clean is not None:
        assert figures["clean"]["accuracy"] >= clean
    if eps is not None:
        assert figures[eps]["accuracy"] >= robust


@pytest.mark.parametrize("name", UNDER_NOISE)
def test_at_a_radius_of_sigma_more_is_certified_than_of_a_constant_answer(name):
    about = card(name)
    figures = about["accuracy"][f"certified l2 {about['sigma']:g}"]
    assert figures["interval_95"][0] > 0.15  # ten classes: of a constant, a tenth at any radius


@pytest.mark.parametrize("name", FOR_BOUNDS)
def test_proved_is_at_most_not_broken_is_at_most_clean(name):
    figures = card(name)["accuracy"]
    for eps in (key.removeprefix("proved ") for key in figures if key.startswith("proved linf")):
        of_all, proved, stands = (figures[f"{kind}{eps}"] for kind in ("proved by intervals ", "proved ", ""))
        assert proved["correct"] <= stands["correct"]
        assert proved["n"] == stands["n"]
        assert of_all["accuracy"] - proved["accuracy"] < 0.04  # of other images too
        assert stands["accuracy"] - figures["clean"]["accuracy"] < 0.02
        assert stands["accuracy"] - proved["accuracy"] < 0.1  # for it, bounds are nearly exact


def test_adversarial_training_under_noise_buys_radius_at_equal_cost():
    """Of the same 200 images. How equal the cost is, tests/training/test_recipe.py says."""
    adversarial, gaussian = (card(f"signs-{kind}-0.25")["accuracy"] for kind in ("smoothadv", "gaussian"))
    for radius in ("0.5", "0.75"):
        assert adversarial[f"certified l2 {radius}"]["correct"] > gaussian[f"certified l2 {radius}"]["correct"]
    assert not clearly_more(gaussian["certified l2 0.25"], adversarial["certified l2 0.25"])


def test_standard_training_is_reported_as_it_is():
    assert {"linf 2/255", "linf 4/255", "linf 8/255"} <= accuracy("signs-standard").keys()


def test_the_best_robust_signs():
    assert max(accuracy(name)["linf 4/255"]["accuracy"] for name in ROBUST_SIGNS if name in SHIPPED) >= 0.65


def standard_error(figures):
    return math.sqrt(figures["accuracy"] * (1 - figures["accuracy"]) / figures["n"])


def clearly_more(a, b):
    """By more than one standard error of the difference (the cards hold no verdicts by which to pair the images)."""
    return a["accuracy"] - b["accuracy"] > math.hypot(standard_error(a), standard_error(b))


@pytest.mark.parametrize(("better", "worse"), itertools.permutations(ROBUST_SIGNS, 2))
def test_none_is_beaten_in_both_clean_and_robust_accuracy(better, worse):
    a, b = card(better)["accuracy"], card(worse)["accuracy"]  # attacked alike, or skipped
    assert not (clearly_more(a["clean"], b["clean"]) and clearly_more(a["linf 4/255"], b["linf 4/255"]))


def test_what_clearly_more_means():
    one = {"accuracy": 0.90, "n": 900}  # its standard error is 0.01; that of a difference of two such, 0.0141
    assert clearly_more(one, {"accuracy": 0.885, "n": 900})
    assert not clearly_more(one, {"accuracy": 0.887, "n": 900})
    assert not clearly_more(one, {"accuracy": 0.95, "n": 900})


@pytest.mark.parametrize("name", SHIPPED)
def test_the_card_holds_the_recipe_of_its_name(name):
    assert name in list_recipes()
    about, recipe = card(name), read_recipe(name)
    text = (Path(recipes.__file__).parent / "recipes" / f"{name}.toml").read_text(encoding="utf-8")
    table = tomllib.loads(text)
    plain = {"constrained": False} if name in LIPSCHITZ else {}  # what held the constant is left behind
    assert about["architecture"] == recipe.architecture | {"arguments": recipe.architecture["arguments"] | plain}
    assert about["seed"] == recipe.seed
    assert about["recipe"] == {"command": f"python benchmarks/train.py {name}", "training": table["objective"]["kind"],
                               **{key: value for key, value in table.items() if key != "model"}}


@pytest.mark.parametrize("name", [name for name in SHIPPED if "attack" in models.card(name)])
def test_the_card_says_what_it_was_attacked_with(name):
    about = card(name)
    assert about["attack"].endswith("its first 1000 images: worst case per image over APGD-CE and APGD-T")
    assert {figures["n"] for eps, figures in about["accuracy"].items() if eps != "clean"} == {1000}


@pytest.mark.parametrize("name", UNDER_NOISE)
def test_the_card_says_how_it_was_card(name):
    about = card(name)
    assert about["certificate"].endswith("on its first 200 images: RandomizedSmoothing.certify with n0 = 100, "
                                         "n = 10,000, α = 0.001")
    assert {figures["n"] for key, figures in about["accuracy"].items() if key != "clean"} == {200}


@pytest.mark.parametrize("name", LIPSCHITZ)
def test_less_is_certified_at_larger_radii_and_all_on_the_whole_test_set(name):
    figures = card(name)["accuracy"]
    correct = [figures[key]["correct"] for key in ("clean", *(f"certified l2 {k}/255" for k in (36, 72, 108)))]
    assert correct == sorted(correct, reverse=True)
    assert {figure["n"] for figure in figures.values()} == {2000}
    assert card(name)["file"]["bytes"] <= 1_000_000


@pytest.mark.parametrize("name", [name for name in SHIPPED if models.card(name).get("trained")])
def test_the_card_says_how_long_it_was_trained(name):
    about, recipe = models.card(name)["trained"], read_recipe(name)
    assert about["of"] <= recipe.settings["epochs"]
    if recipe.settings["keep"] == "last":
        assert about["epoch kept"] == about["of"] == recipe.settings["epochs"]
    assert about["minutes"] > 0
