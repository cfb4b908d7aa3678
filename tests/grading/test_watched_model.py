"""A watched model answers as the model does, and remembers how it was asked."""

import copy

import torch

from robustness_lib.grading.linear_models import linear_classifier
from robustness_lib.grading.watched_model import WatchedModel, gradients_noted, modes_noted


def test_it_remembers_all():
    watched = WatchedModel(linear_classifier(torch.ones(2))).train()
    first, second = torch.rand(3, 2), torch.rand(1, 2).requires_grad_()
    answers = watched(first)
    watched.eval()
    with torch.no_grad():
        watched(second)
    assert all(torch.equal(a, b) for a, b in zip(watched.shown, (first, second), strict=True))
    assert torch.equal(watched.answers[0], answers)
    assert torch.equal(watched.answers[0], watched.model(first))
    assert (watched.modes, watched.followed, watched.recorded) == ([True, False], [False, True], [True, False])
    watched(first.clone().requires_grad_())
    assert [torch.equal(x, first) for x in watched.path] == [True]  # not the second, which no gradient followed
    watched.forget()
    assert [*watched.shown, *watched.answers, *watched.modes, *watched.followed, *watched.recorded] == []
    assert watched.start is None


def test_copies_write_into_the_same_log():
    watched = WatchedModel(linear_classifier(torch.ones(2)))
    copied = copy.deepcopy(watched).double()
    copied(torch.rand(3, 2).double())
    assert len(watched.shown) == 1
    assert next(watched.parameters()).dtype == torch.float32
    watched.forget()
    assert copied.shown == []


def test_one_part_in_train_mode_is_noted():
    watched = WatchedModel(torch.nn.Sequential(torch.nn.Dropout(0.5), torch.nn.Flatten())).eval()
    watched.model[0].train()
    watched(torch.rand(2, 3))
    assert watched.modes == [True]


def test_it_knows_whether_gradients_of_parameters_were_touched():
    watched = WatchedModel(linear_classifier(torch.ones(2)))
    watched.remember()
    torch.autograd.grad(watched(torch.rand(3, 2).requires_grad_()).sum(), next(watched.parameters()))
    assert not watched.disturbed
    watched(torch.rand(3, 2)).sum().backward()
    assert watched.disturbed


def test_modes_of_copies_are_noted_too():
    model = linear_classifier(torch.ones(2)).train()
    with modes_noted(model) as modes:
        model(torch.rand(1, 2))
        copy.deepcopy(model).eval()(torch.rand(1, 2))
    model(torch.rand(1, 2))
    assert modes == [True, False]


def test_gradients_that_are_wanted_are_noted():
    model = linear_classifier(torch.ones(2))
    with gradients_noted(model) as followed:
        copy.deepcopy(model)(torch.rand(1, 2).requires_grad_())
        model(input=torch.rand(1, 2))
        with torch.no_grad():
            model(torch.rand(1, 2).requires_grad_())
    assert followed == [True, False, False]
