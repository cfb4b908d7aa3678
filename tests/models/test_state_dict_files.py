"""Weights in the layouts that people's files have, and what is said where they do not fit."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from robustness_lib.models._state_dict_files import load_into, read_state_dict


def net(seed: int = 0, classes: int = 3, width: int = 4) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, width, 1), nn.BatchNorm2d(width), nn.Flatten(), nn.Linear(width * 4, classes))


class Wrapped(nn.Module):
    """As people wrap a network: under another name, perhaps with the normalization."""

    def __init__(self, name: str, inner: nn.Module, normalize: bool = False) -> None:
        super().__init__()
        if normalize:
            self.normalize = nn.Module()
            self.normalize.register_buffer("mean", torch.zeros(1, 3, 1, 1))
        setattr(self, name, inner)


def before(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in state.items()}


def load(content: object, model: nn.Module, folder: Path) -> list[str]:
    """What is said."""
    path, said = folder / "w.pt", []
    torch.save(content, path)
    load_into(model, read_state_dict(path, said.append), path, said.append)
    return said


STATE = net().state_dict()
OTHER = net(1).state_dict()
OPTIMIZER = {"state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.zeros(4)}}, "param_groups": [{"lr": 0.1}]}
PROFILED = {f"{name}total_{what}": torch.zeros(1, dtype=torch.float64)
            for name in ("", "0.", "1.", "2.", "3.") for what in ("ops", "params")}
MADRY = {**before("module.model.", STATE), **before("module.attacker.model.", STATE),
         "module.normalizer.new_mean": torch.tensor([0.4914, 0.4822, 0.4465]).view(3, 1, 1),
         "module.normalizer.new_std": torch.tensor([0.2, 0.2, 0.2]).view(3, 1, 1),
         "module.attacker.normalize.new_mean": torch.tensor([0.4914, 0.4822, 0.4465]).view(3, 1, 1)}

LAYOUTS = {
    "both wrappers": before("module._orig_mod.", STATE), "the other way": before("_orig_mod.module.", STATE),
    "mixed": before("module.model.backbone.", STATE), "twice": before("module.module.", STATE),
    "of two names": before("model.net.", STATE), "inside": {n.replace(".", ".module.", 1): v for n, v in STATE.items()},
    "compiled inside": {n.replace(".", "._orig_mod.", 1): v for n, v in STATE.items()},
    "some compiled": {n.replace("0.", "0._orig_mod.", 1): v for n, v in STATE.items()},
    "network inside": {f"module.{n.replace('.', '.net.', 1)}": v for n, v in STATE.items()},
    "fsdp": {f"_fsdp_wrapped_module.{n.replace('.', '._checkpoint_wrapped_module.', 1)}": v for n, v in STATE.items()},
    "averaged": {"n_averaged": torch.tensor(7), **before("module.", STATE)},
    "averaged twice": {"n_averaged": torch.tensor(7), **before("module.module.", STATE)},
    "thop": {**PROFILED, **STATE},
    "thop, wrapped": {"total_ops": torch.zeros(1), **before("module.", PROFILED | STATE)},
    "flat": {"epoch": 3, "best_acc": torch.tensor(0.9), **STATE},
    "flat, wrapped": {"epoch": 3, **before("module.", STATE)},
    "flat with an optimizer": {"optimizer": OPTIMIZER, **STATE},
    "lightning": {"state_dict": before("model.", STATE), "epoch": 3, "hyper_parameters": {"lr": 0.1},
                  "optimizer_states": [OPTIMIZER], "pytorch-lightning_version": "2.0"},
    "lightning, any name": {"state_dict": before("classifier.", STATE), "hyper_parameters": {}},
    "lightning, with a loss": {"state_dict": {**before("model.", STATE), "criterion.weight": torch.ones(3)}},
    "madry": {"model": MADRY, "optimizer": OPTIMIZER, "epoch": 99, "nat_prec1": torch.tensor(87.0)},
    "torchvision": {"model": STATE, "optimizer": OPTIMIZER, "epoch": 3, "args": argparse.Namespace(lr=0.1)},
    "numpy numbers": {"state_dict": STATE, "best_acc": np.float64(0.9), "epoch": np.int64(3)},
    "timm": {"state_dict": STATE, "state_dict_ema": STATE, "arch": "net", "args": argparse.Namespace(lr=0.1)},
    "only an average": {"model_ema": before("module.", STATE), "epoch": 3}, "deepspeed": {"module": STATE, "dp": 1},
    "a name of one's own": {"my_best_network": STATE},
    "deep": {"checkpoint": {"best": {"params": before("module.", STATE)}}},
    "parts": {"0": {n[2:]: v for n, v in STATE.items() if n[0] == "0"},
              "1": {n[2:]: v for n, v in STATE.items() if n[0] == "1"},
              "3": {n[2:]: v for n, v in STATE.items() if n[0] == "3"}},
    "in a list with constants": {**before("1.", STATE), "0.mean": torch.zeros(3)},
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("wrapped", ["", "model", "net", "module", "inner"])
def test_every_layout_loads_into_the_network_and_into_what_wraps_it(layout: str, wrapped: str, tmp_path: Path) -> None:
    model = inner = net(2)
    if wrapped:
        model = Wrapped(wrapped, inner, normalize=True)
    load(LAYOUTS[layout], model, tmp_path)
    assert all(torch.equal(value, STATE[name]) for name, value in inner.state_dict().items())


def test_a_network_that_is_averaged_compiled_or_profiled_itself(tmp_path: Path) -> None:
    for make in (torch.optim.swa_utils.AveragedModel, torch.compile, nn.DataParallel):
        inner = net(2)
        model = make(inner)
        load(STATE, model, tmp_path)
        loaded = {name.rpartition("module.")[2].removeprefix("_orig_mod."): v for name, v in model.state_dict().items()}
        assert all(torch.equal(loaded[name], value) for name, value in STATE.items())
    model = net(2)
    model.register_buffer("total_ops", torch.zeros(1))
    load(STATE, model, tmp_path)
    assert torch.equal(model[3].weight, STATE["3.weight"])


def test_a_lazy_layer_takes_what_the_file_has(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Flatten(), nn.LazyLinear(3))
    load(before("module.", STATE), model, tmp_path)
    assert torch.equal(model[3].weight, STATE["3.weight"])


def test_constants_of_a_normalization_that_are_left_over_are_said(tmp_path: Path) -> None:
    said = " ".join(load(LAYOUTS["madry"], net(2), tmp_path))
    assert "normalizer.new_mean 0.4914,0.4822,0.4465" in said
    assert "--mean" in said
    assert "criterion.weight" in " ".join(load(LAYOUTS["lightning, with a loss"], net(2), tmp_path))


@pytest.mark.parametrize("content", [
    {"state_dict_ema": OTHER, "state_dict": STATE}, {"model_ema": before("module.", OTHER), "model": STATE},
    {"ema": OTHER, "net": STATE},
    {**before("ema_model.", OTHER), **before("online_model.", STATE), "initted": torch.ones(1)},
    {"state_dict": {**before("model.", STATE), **before("teacher.", OTHER)}},
    {"model": STATE, "swa_model": {"n_averaged": torch.tensor(2), **before("module.", OTHER)}},
    {**STATE, **before("ema.", OTHER)},
])
def test_of_two_that_fit_the_one_that_was_trained_is_taken_and_said(content: dict[str, object],
                                                                    tmp_path: Path) -> None:
    model = net(2)
    said = load(content, model, tmp_path)
    assert torch.equal(model[0].weight, STATE["0.weight"])
    assert "holds weights under" in said[0]
    assert "are used" in said[0]


@pytest.mark.parametrize("content", [{"first": STATE, "second": OTHER}, {**before("a.", STATE), **before("b.", OTHER)},
                                     {"state_dict": {**before("student.", STATE), **before("expert.", OTHER)}}])
def test_where_nobody_can_tell_which_is_meant_it_is_asked(content: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"several sets of weights that fit the model, under .*(first|a|student).*"):
        load(content, net(2), tmp_path)


def test_a_refusal_shows_both_sides_and_what_was_taken_off(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="do not fit") as caught:
        load({"state_dict": before("module.model.", net(classes=7).state_dict())}, net(), tmp_path)
    for words in ("3.weight is (7, 16), not (3, 16)", "3.bias is (7,), not (3,)", "0.weight, 0.bias, 1.weight, ...",
                  '"state_dict.module.model." before all names'):
        assert words in str(caught.value)
    with pytest.raises(ValueError, match=r"7 tensors \(conv1.weight, conv1.bias, bn1.weight, ...\).*"
                                         r"the model 9 \(0.weight, 0.bias, 1.weight, ...\)"):
        load({"module.conv1.weight": torch.zeros(4, 3, 1, 1), "module.conv1.bias": torch.zeros(4),
              "module.bn1.weight": torch.zeros(4), "module.bn1.bias": torch.zeros(4),
              "module.fc.weight": torch.zeros(3, 16), "module.fc.bias": torch.zeros(3),
              "module.more": torch.zeros(2)}, net(), tmp_path)


@pytest.mark.parametrize(("content", "words"), [
    ({**STATE, "4.weight": torch.zeros(2)}, "4.weight is not the model's"),
    (before("model.", {**STATE, "4.weight": torch.zeros(2)}), "4.weight is not the model's"),
    ({**STATE, "3.weight": torch.zeros(3, 16, dtype=torch.int8)}, "3.weight is int8, not float32"),
    ({n: v.to("meta") for n, v in STATE.items()}, "0.weight has no values"),
    ({n: v for n, v in before("module.", STATE).items() if "running_mean" not in n}, "1.running_mean is missing"),
    ({"features": {**before("0.", STATE)}, "more": before("9.", OTHER)}, None),
])
def test_what_is_not_the_models_or_is_missing_is_named(content: dict[str, object], words: str | None,
                                                       tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=words):
        load(content, net(2), tmp_path)


def test_the_last_layer_of_a_larger_network_is_no_network(tmp_path: Path) -> None:
    large = nn.Sequential(*[nn.Linear(4, 4) for _ in range(4)])
    with pytest.raises(ValueError, match="nobody can tell"):
        load(large.state_dict(), nn.Linear(4, 4), tmp_path)
    with pytest.raises(ValueError, match="is not the model's"):
        load(nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 4)).state_dict(), nn.Linear(4, 4), tmp_path)
    with pytest.raises(ValueError, match="is not the model's"):
        load({**before("trunk.", before("0.", STATE) | before("1.", STATE)), "fc.weight": torch.zeros(4, 4),
              "fc.bias": torch.zeros(4)}, nn.Linear(4, 4), tmp_path)


# A network with the constants of its normalization beside it.


class WithConstants(nn.Module):
    """As RobustBench has it: mean and std beside the network."""

    def __init__(self, inner: nn.Module, name: str = "model") -> None:
        super().__init__()
        self.register_buffer("mean", torch.full((1, 3, 1, 1), 0.4))
        self.register_buffer("std", torch.full((1, 3, 1, 1), 0.2))
        setattr(self, name, inner)


CONSTANTS = {"mean": torch.full((1, 3, 1, 1), 0.5), "std": torch.full((1, 3, 1, 1), 0.3)}
WITH_CONSTANTS = {**CONSTANTS, **before("model.", STATE)}


@pytest.mark.parametrize("content", [
    WITH_CONSTANTS, {"state_dict": WITH_CONSTANTS, "epoch": 3}, {"model": WITH_CONSTANTS},
    {"net": before("module.", WITH_CONSTANTS)}, before("module.", WITH_CONSTANTS), before("_orig_mod.", WITH_CONSTANTS),
    {"state_dict": before("model.", WITH_CONSTANTS), "hyper_parameters": {}}, {"model_ema": WITH_CONSTANTS},
    before("classifier.", WITH_CONSTANTS), {"a": {"b": before("module.", WITH_CONSTANTS)}},
])
@pytest.mark.parametrize("name", ["model", "net", "inner"])
def test_a_network_and_its_constants_are_one_set_of_weights(content: dict[str, object], name: str,
                                                            tmp_path: Path) -> None:
    model = WithConstants(inner := net(2), name)
    assert load(content, model, tmp_path) == []
    assert torch.equal(inner[0].weight, STATE["0.weight"])
    assert torch.equal(model.mean, CONSTANTS["mean"])


def test_of_two_networks_with_constants_it_is_still_asked(tmp_path: Path) -> None:
    other = {**CONSTANTS, **before("model.", OTHER)}
    with pytest.raises(ValueError, match="under first, second, and nobody can tell"):
        load({"first": WITH_CONSTANTS, "second": other}, WithConstants(net(2)), tmp_path)
    model = WithConstants(inner := net(2))
    said = load({"state_dict": WITH_CONSTANTS, "ema": other}, model, tmp_path)
    assert said == ["w.pt holds weights under state_dict, ema; those under state_dict are used."]
    assert torch.equal(inner[0].weight, STATE["0.weight"])


def test_a_list_of_a_normalization_and_a_network_loads_without_a_word(tmp_path: Path) -> None:
    first = nn.Module()
    first.register_buffer("mean", torch.zeros(3))
    model = nn.Sequential(first, net(2))
    assert load({"state_dict": {"0.mean": torch.ones(3), **before("1.", STATE)}}, model, tmp_path) == []
    assert torch.equal(model[0].mean, torch.ones(3))


@pytest.mark.parametrize("content", [
    WITH_CONSTANTS, {**CONSTANTS, **before("net.", STATE)}, {**CONSTANTS, **before("module.", STATE)},
    {**before("normalize.", CONSTANTS), **before("model.", STATE)},
    {**before("preprocess.", CONSTANTS), **before("model.", STATE)}, {"state_dict": WITH_CONSTANTS},
    {"state_dict": STATE, "normalization": CONSTANTS}, {**CONSTANTS, **before("backbone.", STATE)},
    {**CONSTANTS, "model": STATE}, {**CONSTANTS, **before("module.model.", STATE)},
])
def test_constants_are_said_wherever_they_stand_in_the_file(content: dict[str, object], tmp_path: Path) -> None:
    said = load(content, net(2), tmp_path)
    assert len(said) == 1
    assert "also holds the constants of a normalization" in said[0]
    assert "0.5,0.5,0.5" in said[0]


@pytest.mark.parametrize("prefix", ["model.", "net.", "module.", "backbone.", "classifier."])
def test_other_tensors_beside_the_network_are_said(prefix: str, tmp_path: Path) -> None:
    said = load({"temperature": torch.tensor([2.0]), **before(prefix, STATE)}, net(2), tmp_path)
    assert said == ["w.pt also holds 1 tensor that is not the model's (temperature), left out."]
    said = load({"head": {"a": torch.ones(2), "b": torch.ones(2)}, **before(prefix, STATE)}, net(2), tmp_path)
    assert said == ["w.pt also holds 2 tensors that are not the model's (head.a, head.b), left out."]


# Values that nobody can use.


@pytest.mark.parametrize("sparse", [Tensor.to_sparse, Tensor.to_sparse_csr])
@pytest.mark.filterwarnings("ignore")
def test_sparse_weights_are_refused_in_one_line(sparse: Callable[[Tensor], Tensor], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"3.weight is a sparse_\w+ tensor, which .to_dense\(\)") as caught:
        load({**STATE, "3.weight": sparse(STATE["3.weight"])}, net(2), tmp_path)
    assert "\n" not in str(caught.value)


def test_nan_in_the_weights_is_said(tmp_path: Path) -> None:
    said = load({**STATE, "3.bias": torch.full((3,), torch.nan)}, net(2), tmp_path)
    assert said == ["w.pt holds NaN in 3.bias: whatever the model answers with such weights means nothing."]
