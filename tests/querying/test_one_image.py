"""A batch of one image, which the library makes where the user never did: models that fail on it, or drop its axis."""

import copy

import pytest
import torch
import torch.nn.functional as F
from quick_auto_attack import Quick
from torch import nn

from robustness_lib import ThreatModel
from robustness_lib.attacks import FAB, FGSM, PGD, AutoPGD, CarliniWagnerL2, SquareAttack, Transfer
from robustness_lib.diagnosis.inspect_model import inspect_model
from robustness_lib.diagnosis.observations import observe
from robustness_lib.evaluation import evaluate
from robustness_lib.evaluation._data_parts import data_parts
from robustness_lib.querying import QueriedModel, answers_by_batch, cut, predict_logits
from robustness_lib.training import FastFGSM, PGDTraining, Standard, fit

THREAT = ThreatModel("linf", 0.1)


class Pooled(nn.Module):
    """how: the way in which the pooled features, or the logits, lose their axes."""

    def __init__(self, how="flatten"):
        super().__init__()
        torch.manual_seed(0)
        self.how, self.conv, self.pool, self.out = how, nn.Conv2d(1, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Linear(8, 4)

    def forward(self, x):
        z = self.pool(self.conv(x).relu())
        z = 20 * self.out(z.squeeze() if self.how == "features" else z.flatten(1))
        return z.squeeze() if self.how == "logits" else z


class ByBatch(nn.Module):
    """Batch norm over features alone, which refuses a batch of one in training mode. Notes the batches it sees."""

    def __init__(self, tracked=True):
        super().__init__()
        torch.manual_seed(0)
        self.features, self.norm = nn.Linear(36, 8), nn.BatchNorm1d(8, track_running_stats=tracked)
        self.out, self.seen = nn.Linear(8, 4), set()

    def forward(self, x):
        self.seen.add(len(x))
        return 3 * self.out(self.norm(self.features(x.flatten(1))).relu())


def images(n=13):
    torch.manual_seed(1)
    x = torch.rand(13, 1, 6, 6)
    return x[:n], Pooled().eval()(x).argmax(1)[:n]


ATTACKS = {"pgd": PGD(THREAT, steps=6, restarts=2), "fgsm": FGSM(THREAT), "auto-pgd": AutoPGD(THREAT, steps=6),
           "square": SquareAttack(THREAT, queries=30), "fab": FAB("linf", steps=4),
           "cw": CarliniWagnerL2(steps=5, search_steps=2), "transfer": Transfer(THREAT, Pooled("features"))}


@pytest.mark.parametrize("n", [1, 2, 13])
@pytest.mark.parametrize("how", ["features", "logits"])
@pytest.mark.parametrize("name", ATTACKS)
def test_a_dropped_axis_changes_no_verdict(name, how, n):
    """batch_size=4: a last part of one, and survivors that leave one alone."""
    x, y = images(n)
    for size in (1, 4, None):
        found, expected = (ATTACKS[name].run(Pooled(it), x, y, batch_size=size) for it in (how, "flatten"))
        assert torch.equal(found.success, expected.success)
        assert torch.equal(found.queries, expected.queries)


@pytest.mark.parametrize("n", [1, 13])
@pytest.mark.parametrize("how", ["features", "logits"])
def test_a_dropped_axis_changes_no_evaluation(how, n):
    x, y = images(n)

    def someone_elses(model, x, y):
        x = x.clone().requires_grad_()
        return (x + 0.1 * torch.autograd.grad(F.cross_entropy(model(x), y), x)[0].sign()).clamp(0, 1).detach()

    for suite in ([PGD(THREAT, steps=3)], {"theirs": someone_elses}):
        found, expected = (evaluate(Pooled(it), x, y, THREAT, suite, batch_size=4) for it in (how, "flatten"))
        assert found.sentence == expected.sentence
        assert not found.failures
    found, expected = (Quick(THREAT).run(Pooled(it), x, y, batch_size=4) for it in (how, "flatten"))
    assert found.broken_by == expected.broken_by
    found, expected = (observe(Pooled(it), x[:6], y[:6], THREAT, batch_size=4) for it in (how, "flatten"))
    assert {name: column.tolist() for name, column in found.items()} == {
        name: column.tolist() for name, column in expected.items()}


def test_the_inspection_is_not_misled_and_says_it():
    x, y = images()
    for n in (1, 2, 13):
        found = inspect_model(Pooled("logits"), x[:n], y[:n])
        assert (found.output, found.outputs) == ("logits", 4)
        assert [r.serious for r in found.remarks if r.kind == "one image"] == [False]
        assert "one image" not in [r.kind for r in inspect_model(Pooled(), x[:n], y[:n]).remarks]


def test_one_is_asked_about_twice_over_once_that_is_known_and_calls_are_counted():
    model, sizes = Pooled("features"), []
    model.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    x, _ = images()
    queried = QueriedModel(model)
    first, second = queried.logits(x[:1]), queried.logits(x[1:2])
    assert sizes == [1, 2, 2]
    assert queried.calls == 3
    torch.testing.assert_close(torch.cat((first, second)), Pooled()(x[:2]).detach())
    _, _, gradient = queried.gradient(x[:1], lambda z: z[:, 0])
    torch.testing.assert_close(gradient, QueriedModel(Pooled()).gradient(x[:1], lambda z: z[:, 0])[2])
    assert not QueriedModel(Pooled()).one_as_two


def test_a_model_that_is_wrong_with_one_and_two_says_its_own_words():
    def fails(x):
        raise KeyError("its own words")

    with pytest.raises(KeyError, match="its own words"):
        predict_logits(fails, images(1)[0], size=1)
    with pytest.raises(ValueError, match=r"must return logits of shape \(1, K\)"):
        predict_logits(lambda x: x.flatten(1).sum(1), images(1)[0], size=1, labels=torch.zeros(1, dtype=torch.int64))


# Models that answer by their batch.

@pytest.mark.parametrize("tracked", [True, False])
@pytest.mark.parametrize("name", [name for name in ATTACKS if name != "transfer"])
def test_a_batch_that_decides_its_answers_stays_whole(name, tracked):
    """mode="keep" in training mode, or batch norm without running statistics."""
    import dataclasses

    x, _ = images()
    model = ByBatch(tracked).train(tracked)
    y = copy.deepcopy(model)(x).argmax(1)
    model.seen.clear()
    attack = dataclasses.replace(ATTACKS[name], mode="keep" if tracked else "eval")
    result = attack.run(model, x, y, batch_size=6)
    assert model.seen == {6, 4, 3}  # and not 6 + 6 + 1
    assert result.success.any() or name == "cw"


@pytest.mark.parametrize("suite", ["quick", "theirs", "ensemble"])
def test_an_evaluation_keeps_such_batches_whole(suite):
    x, _ = images(12)
    model = ByBatch().train()
    y = copy.deepcopy(model)(x).argmax(1)
    y[3] = (y[3] + 1) % 4  # wrong already, and still a neighbour
    model.seen.clear()
    if suite == "ensemble":
        assert not Quick(THREAT, mode="keep").run(model, x, y, batch_size=6).clean[3]
    else:
        attacks = suite if suite == "quick" else {"theirs": lambda model, x, y: x}
        found = evaluate(model, x, y, THREAT, attacks, mode="keep", batch_size=6)
        assert (found.n, found.failures) == (12, ())
    assert model.seen == {6}


def test_an_image_does_not_stand_in_for_its_neighbours():
    x, y = images(1)
    for model, mode in ((ByBatch().train(), "keep"), (ByBatch(tracked=False).eval(), "eval")):
        for call in (lambda m=model, o=mode: PGD(THREAT, steps=2, mode=o).run(m, x, y),
                     lambda m=model, o=mode: evaluate(m, x, y, THREAT, "quick", mode=o)):
            with pytest.raises(ValueError, match=r"two images but not one .*Expected more than 1 value.*two or more"):
                call()
    assert PGD(THREAT, steps=2).run(ByBatch().train(), x, y).calls  # in eval mode it is no such model


def test_memory_that_runs_out_divides_no_such_batch():
    x, _ = images()
    sizes = []

    class Large(ByBatch):
        def forward(self, x):
            sizes.append(len(x))
            if len(x) > 6 and len(sizes) > 4:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().forward(x)

    model = Large().train()
    with pytest.raises(ValueError, match="out of memory"):
        evaluate(model, x, torch.zeros(13, dtype=torch.int64), THREAT, "quick", mode="keep", batch_size=13)
    assert min(sizes) >= 13


def test_which_models_answer_by_their_batch():
    plain = nn.Sequential(nn.Linear(2, 2), nn.Dropout())
    assert not answers_by_batch(plain.train(), "eval")
    assert answers_by_batch(plain, "keep")
    assert not answers_by_batch(plain.eval(), "keep")
    assert not answers_by_batch(lambda x: x, "keep")
    assert answers_by_batch(nn.Sequential(nn.BatchNorm2d(2, track_running_stats=False)).eval(), "eval")
    assert not answers_by_batch(nn.Sequential(nn.InstanceNorm2d(2), nn.GroupNorm(1, 2)).eval(), "eval")


# Where batches are cut.

def test_no_last_one_is_left_alone_and_no_batch_is_larger_than_asked():
    def lengths(n, size):
        return [part.stop - part.start for part in cut(n, size)]

    assert lengths(13, 4) == [4, 4, 3, 2]
    assert lengths(13, 6) == [6, 4, 3]
    assert lengths(7, 3) == [3, 2, 2]
    assert lengths(12, 4) == [4, 4, 4]
    assert lengths(14, 4) == [4, 4, 4, 2]
    assert lengths(5, 4) == [3, 2]
    assert lengths(5, 2) == [2, 3]  # but then
    assert lengths(1, 4) == [1]
    assert lengths(3, 1) == [1, 1, 1]  # as asked
    assert lengths(0, 4) == []
    for n in range(30):
        for size in range(1, 9):
            parts = cut(n, size)
            assert [i for part in parts for i in range(part.start, part.stop)] == list(range(n))
            assert all(1 < part.stop - part.start <= max(3, size) for part in parts) or min(n, size) == 1
            assert size == 2 or all(part.stop - part.start <= size for part in parts)


@pytest.mark.parametrize("given", [13, 4, 5, 1])
def test_parts_of_an_evaluation_end_with_no_single_image(given):
    x, y = images()
    batches = zip(torch.split(x, given), torch.split(y, given), strict=True)
    parts = list(data_parts(batches, None, 4, None, []))
    assert [len(part) for part in parts] == [4, 4, 3, 2]
    assert [part.first for part in parts] == [0, 4, 8, 11]
    assert [part.number for part in parts] == [0, 1, 2, 3]
    assert torch.equal(torch.cat([part.x for part in parts]), x)
    assert torch.cat([part.index for part in parts]).tolist() == list(range(13))
    assert [len(part) for part in data_parts(x, y, 1, None, [])] == [1] * 13


@pytest.mark.parametrize("objective", [Standard(), PGDTraining(THREAT, steps=2), FastFGSM(THREAT)])
def test_training_and_its_validation(objective):
    x, y = images()
    for n in (1, 13):  # 251 images would end with one alone too
        history = fit(Pooled("features"), (x[:12], y[:12]), objective, epochs=1, batch_size=6,
                      validation=(x[:n], y[:n]), threat=THREAT, validation_steps=2, progress=False)
        assert history.epochs[0].robust.n == n
