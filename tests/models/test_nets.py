import pytest
import torch
from torch import nn

from robustness_lib.models import architectures, mlp, small_cnn, strided_cnn, tiny_cnn
from robustness_lib.models.architectures import architecture, build


def parameters(model):
    return sum(p.numel() for p in model.parameters())


def test_small_cnn_is_the_net_that_it_says_it_is():
    model = small_cnn()
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 10)
    assert sum(isinstance(m, nn.Conv2d) for m in model) == 3
    assert sum(isinstance(m, nn.Linear) for m in model) == 2
    assert parameters(model) == pytest.approx(412_000, rel=0.01)


def test_small_cnn_takes_other_shapes_and_layers():
    model = small_cnn((4, 8), in_shape=(1, 28, 20), classes=3, hidden=16, batch_norm=True, dropout=0.2)
    assert model(torch.rand(5, 1, 28, 20)).shape == (5, 3)
    assert {nn.BatchNorm2d, nn.Dropout} <= {type(m) for m in model}


def test_tiny_cnn_is_tiny_and_plain():
    model = tiny_cnn()
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 10)
    assert parameters(model) < 21_000
    assert {type(m) for m in model} == {nn.Conv2d, nn.ReLU, nn.Flatten, nn.Linear}
    assert tiny_cnn(in_shape=(1, 24, 40), classes=4)(torch.rand(2, 1, 24, 40)).shape == (2, 4)


def test_mlp_has_no_activation_at_the_end():
    assert [type(m) for m in mlp([2, 5, 5, 3])] == [nn.Linear, nn.ReLU, nn.Linear, nn.ReLU, nn.Linear]


@pytest.mark.parametrize(("build", "words"), [
    (lambda: small_cnn(in_shape=(3, 7, 32)), "8 pixels"),
    (lambda: tiny_cnn(in_shape=(1, 28, 28)), "multiples of 8"),
    (lambda: mlp([2]), "input and an output"),
])
def test_impossible_shapes_are_refused_in_words(build, words):
    with pytest.raises(ValueError, match=words):
        build()


def test_strided_cnn_is_the_net_of_wong_and_kolter():
    model = strided_cnn()
    shapes = [tuple(p.shape) for p in model.parameters()]
    assert shapes == [(16, 1, 4, 4), (16,), (32, 16, 4, 4), (32,), (100, 1568), (100,), (10, 100), (10,)]
    assert not any(isinstance(layer, nn.MaxPool2d) for layer in model)
    assert model(torch.rand(2, 1, 28, 28)).shape == (2, 10)


def test_strided_cnn_with_batch_norm_has_it_before_each_relu():
    kinds = [type(layer).__name__ for layer in strided_cnn((4, 8), hidden=5, batch_norm=True)]
    assert kinds == ["Conv2d", "BatchNorm2d", "ReLU"] * 2 + ["Flatten", "Linear", "BatchNorm1d", "ReLU", "Linear"]
    assert strided_cnn((4, 8), hidden=5, batch_norm=True)(torch.rand(2, 1, 28, 28)).shape == (2, 10)


def test_strided_cnn_takes_other_shapes_and_refuses_odd_ones():
    assert strided_cnn((4, 8, 8), in_shape=(3, 32, 24), classes=7, hidden=5)(torch.rand(2, 3, 32, 24)).shape == (2, 7)
    with pytest.raises(ValueError, match=r"multiples of 8; found \(1, 28, 28\)"):
        strided_cnn((4, 8, 8))


def test_every_builder_is_found_by_its_name_and_a_new_one_by_the_decorator(monkeypatch):
    assert {"small_cnn", "strided_cnn", "tiny_cnn", "mlp"} <= set(architectures.ARCHITECTURES)
    monkeypatch.setattr(architectures, "ARCHITECTURES", dict(architectures.ARCHITECTURES))

    @architecture
    def one_layer(width=2):
        return nn.Linear(width, 3)

    assert build({"builder": "one_layer", "arguments": {"width": 5}})(torch.rand(1, 5)).shape == (1, 3)
    assert architecture(one_layer) is one_layer  # once more is no second one
    with pytest.raises(ValueError, match="two architectures are called 'one_layer'"):
        architecture(_twin())
    with pytest.raises(ValueError, match=r"unknown architecture 'two_layers'; known: .*one_layer"):
        build({"builder": "two_layers", "arguments": {}})


def _twin():
    def one_layer():
        return nn.Identity()

    return one_layer
