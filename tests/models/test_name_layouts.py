"""Residual nets' weights in the naming of others: each declared table on a state dict made in that naming, against the
logits that this naming's own arithmetic gives."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from published_layouts import PUBLISHED, Published, State
from torch import Tensor, nn

from robustness_lib.models import Normalize, build, find_model
from robustness_lib.models._name_layouts import LAYOUTS
from robustness_lib.models._state_dict_files import load_into, read_state_dict

X = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(5))
CONSTANTS = {"trades": ("mu", "sigma"), "trades, narrow": ("mu", "sigma"), "deepmind": ("mean", "std"),
             "preact": ("mu", "sigma"), "preact from its input": ("mu", "sigma")}
CALLED = {"trades": "the WideResNet of the TRADES repository", "trades, narrow": "the WideResNet of the TRADES",
          "deepmind": "DeepMind's WideResNet", "preact": "RobustBench's PreActResNet",
          "preact from its input": "RobustBench's PreActResNet"}


def network(published: Published, **other: object) -> nn.Module:
    return build({"builder": published.builder, "arguments": published.arguments | other}).eval()


def load(content: object, model: nn.Module, folder: Path) -> str:
    """What is said."""
    path, said = folder / "w.pt", []
    torch.save(content, path)
    load_into(model, read_state_dict(path, said.append), path, said.append)
    return " ".join(said)


def before(prefix: str, state: State) -> State:
    return {prefix + name: value for name, value in state.items()}


def nestings(state: State) -> dict[str, object]:
    return {"plain": state, "nested": {"state_dict": state, "epoch": 3}, "named": {"model_state_dict": state},
            "parallel": before("module.", state), "nested parallel": {"state_dict": before("module.", state)},
            "a model inside": {"model_state_dict": before("module.model.", state)}, "0.": before("0.", state)}


def check_logits(model: nn.Module, published: Published, x: Tensor = X) -> None:
    with torch.no_grad():
        expected = published.forward(x)
        torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-4)
    assert expected.std(0).max() > 0.02  # they depend on the image: no activation is dead


@pytest.mark.parametrize("nesting", nestings({}))
@pytest.mark.parametrize("name", PUBLISHED)
def test_every_layout_in_every_nesting_gives_its_own_logits(name: str, nesting: str, tmp_path: Path) -> None:
    published = PUBLISHED[name]
    model = network(published)
    said = load(nestings(published.state)[nesting], model, tmp_path)
    assert f"w.pt names its tensors as {CALLED[name]}" in said
    check_logits(model, published)


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_the_names_do_not_tell_is_said(name: str, tmp_path: Path) -> None:
    said = load(PUBLISHED[name].state, network(PUBLISHED[name]), tmp_path)
    untold = {"deepmind": "activation=", "preact": "shortcut_from=", "preact from its input": "shortcut_from="}
    assert ("The names do not tell" in said) == (name in untold)
    assert untold.get(name, "") in said


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_layout_loads_into_what_wraps_the_network(name: str, tmp_path: Path) -> None:
    published = PUBLISHED[name]
    mean, std = [0.4, 0.5, 0.6], [0.2, 0.3, 0.25]
    model = nn.Sequential(Normalize(mean, std), network(published))
    load({"state_dict": before("module.", published.state)}, model, tmp_path)
    check_logits(model[1], published)
    check_logits(model, published.__class__("", {}, {}, lambda x: published.forward(Normalize(mean, std)(x))))


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("name", PUBLISHED)
def test_constants_of_a_normalization_in_the_file_are_said_and_change_nothing(name: str, prefix: str,
                                                                              tmp_path: Path) -> None:
    published, (mean, std) = PUBLISHED[name], CONSTANTS[name]
    constants = {mean: torch.tensor([0.25, 0.5, 0.75]).view(1, 3, 1, 1), std: torch.full((1, 3, 1, 1), 0.2)}
    model = network(published)
    said = load(before(prefix, published.state | constants), model, tmp_path)
    assert f"{mean} 0.25,0.5,0.75" in said
    assert "--mean, --std" in said
    check_logits(model, published)


def test_the_group_that_the_trades_code_makes_and_does_not_use_is_left_out_and_said(tmp_path: Path) -> None:
    published = PUBLISHED["trades"]
    unused = {f"sub_{name}": value + 1 for name, value in published.state.items() if name.startswith("block1.")}
    model = network(published)
    said = load(before("module.", published.state | unused), model, tmp_path)
    assert f"also holds {len(unused)} tensors that are not the model's (module.sub_block1.layer.0.bn1.weight" in said
    check_logits(model, published)


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("name", PUBLISHED)
def test_each_unknown_and_each_missing_name_is_refused_by_its_name_in_the_file(name: str, prefix: str,
                                                                               tmp_path: Path) -> None:
    published = PUBLISHED[name]
    names = [one for one in published.state if not one.endswith("num_batches_tracked")]
    for gone in (names[0], names[len(names) // 2], names[-1]):
        state = {one: value for one, value in published.state.items() if one != gone}
        with pytest.raises(ValueError, match=re.escape(f"{gone} is missing")) as caught:
            load(before(prefix, state), network(published), tmp_path)
        assert CALLED[name] in str(caught.value)
        state = published.state | {f"more.{gone}": published.state[gone]}
        with pytest.raises(ValueError, match=re.escape(f"more.{gone} is not the model's")):
            load(before(prefix, state), network(published), tmp_path)


@pytest.mark.parametrize("name", PUBLISHED)
def test_another_number_of_classes_is_named_as_the_file_names_it(name: str, tmp_path: Path) -> None:
    published = PUBLISHED[name]
    last = next(one for one in reversed(published.state) if one.endswith("weight"))
    with pytest.raises(ValueError, match=rf"{last} is \(7, \d+\), not \(9, \d+\)"):
        load(published.state, network(published, classes=9), tmp_path)


@pytest.mark.parametrize(("name", "other", "words"), [
    ("trades", {"padding": "same"}, "the TRADES repository has padding='symmetric', not 'same': build the network with "
                                    "padding='symmetric'"),
    ("trades", {"activation": "silu"}, "has activation='relu', not 'silu'"),
    ("deepmind", {"padding": "symmetric"}, "DeepMind's WideResNet has padding='same', not 'symmetric'"),
    ("preact", {"final_norm": False}, r"bn\.weight is not the model's"),
    ("preact from its input", {"final_norm": True}, r"bn\.weight is missing"),
])
def test_a_network_that_would_compute_otherwise_is_refused(name: str, other: dict[str, object], words: str,
                                                           tmp_path: Path) -> None:
    model = network(PUBLISHED[name], **other)
    first = next(model.parameters()).clone()
    with pytest.raises(ValueError, match=words):
        load(PUBLISHED[name].state, model, tmp_path)
    assert torch.equal(next(model.parameters()), first)


def test_deepminds_preact_resnet_has_other_shortcuts_and_is_refused(tmp_path: Path) -> None:
    state = {"conv_2d.weight": torch.zeros(64, 3, 3, 3), "layer_0.0.conv_2d_1.weight": torch.zeros(64, 64, 3, 3),
             "batchnorm.weight": torch.zeros(512), "logits.bias": torch.zeros(10)}
    with pytest.raises(ValueError, match="do not fit the model"):
        load(state, build({"builder": "preact_resnet18", "arguments": {}}), tmp_path)


def test_no_two_tensors_of_a_network_have_one_name_in_a_layout() -> None:
    for published in PUBLISHED.values():
        ours = network(published).state_dict().keys()
        for layout in LAYOUTS:
            assert len({layout.name(name) for name in ours}) == len(ours)


@pytest.mark.parametrize("name", PUBLISHED)
def test_ones_own_names_are_still_read_and_nothing_is_said(name: str, tmp_path: Path) -> None:
    trained, model = network(PUBLISHED[name]), network(PUBLISHED[name])
    assert load({"state_dict": before("module.", trained.state_dict())}, model, tmp_path) == ""
    with torch.no_grad():
        assert torch.equal(model(X), trained(X))


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_recipe_and_a_file_are_enough_for_a_model(name: str, tmp_path: Path) -> None:
    """As `robustness evaluate --model recipe:net.toml --weights w.pt --mean ... --std ...` has it."""
    published, mean, std = PUBLISHED[name], [0.4914, 0.4822, 0.4465], [0.2471, 0.2435, 0.2616]
    lines = [f"{key} = {str(value).lower() if isinstance(value, bool) else repr(value)}"
             for key, value in published.arguments.items()]
    (tmp_path / "net.toml").write_text("\n".join(["[model]", f'builder = "{published.builder}"', *lines]))
    torch.save({"state_dict": before("module.", published.state)}, tmp_path / "w.pt")
    model = find_model(f"recipe:{tmp_path / 'net.toml'}", tmp_path / "w.pt", mean=mean, std=std)
    check_logits(model, published.__class__("", {}, {}, lambda x: published.forward(Normalize(mean, std)(x))))
