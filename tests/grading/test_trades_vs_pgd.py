"""Only for trades_vs_pgd: trainings, the formulas that its checks compare with, and what is seen in the exercise."""

from dataclasses import replace

import pytest
import torch
from answers import SOLUTIONS, marked
from scipy.optimize import check_grad
from trades_vs_pgd_answers import RIGHT, WRONG_TRAININGS

from robustness_lib.evaluation import Report
from robustness_lib.grading import trades_vs_pgd as checks
from robustness_lib.grading.given import trades_vs_pgd as given
from robustness_lib.grading.trades_vs_pgd import comparison, losses, small_nets
from robustness_lib.statistics import mcnemar, paired_interval

SHORT = replace(checks.TradesVsPgdTask(), updates=60, batch=32)
TINY = replace(checks.TradesVsPgdTask(), updates=5, images=50)


@pytest.mark.parametrize("name", WRONG_TRAININGS)
def test_a_wrong_training_loses_marks_and_reads_which(name):
    answers, words = WRONG_TRAININGS[name]
    right = {"point": RIGHT["by torch"]["trades_point"], "loss": RIGHT["by torch"]["trades_loss"],
             "pgd": RIGHT["by torch"]["pgd_loss"]}
    task = TINY if "library" in words or "gradients in each update" in words else SHORT
    points, of, said = marked(checks.trained, *{**right, **answers}.values(), task=task)
    assert points < of
    assert any(words in line for line in said.splitlines() if line.startswith("✗")), said


def whole(name):
    """The three losses of one of the right answers, what is missing from another."""
    return [RIGHT[name].get(step, RIGHT["by torch"][step]) for step in ("trades_point", "trades_loss", "pgd_loss")]


@pytest.mark.parametrize("name", ["by torch", "the best, another seed"])
def test_right_losses_train_as_well_as_the_given_ones(name):
    points, of, said = marked(checks.trained, *whole(name), task=SHORT)
    assert points == of, said


@pytest.mark.slow
@pytest.mark.parametrize("name", list(RIGHT))
def test_reruns_of_right_trainings_and_of_the_trap(name):
    for variant in range(12):
        task = checks.TradesVsPgdTask(variant)
        for points, of, said in (marked(checks.trained, *whole(name), task=task),
                                 marked(checks.trap, RIGHT[name].get("robust", given_robust), task=task)):
            assert points == of, said


def given_robust(model, x, y, attacks):
    standing = model(x).argmax(1) == y
    for attack in attacks:
        standing = standing & (model(attack(model, x, y)).argmax(1) == y)
    return standing


def test_survivors_alone_may_be_attacked():
    points, of, said = marked(checks.trap, RIGHT["by loop"]["robust"], task=TINY)
    assert points == of, said


class TestTheReference:
    def test_gradient_of_trades_is_that_of_finite_differences(self):
        net, x, x_adv, y = small_nets.one_hidden_layer(checks.TradesVsPgdTask(), 6)
        start = torch.nn.utils.parameters_to_vector(net.parameters()).detach().clone()

        def loss(weights):
            torch.nn.utils.vector_to_parameters(torch.as_tensor(weights), net.parameters())
            return losses.trades_formulas(net, x, x_adv, y)["right"](3.0)

        def slope(weights):
            return small_nets.weights_gradient(net, loss(weights)).numpy()

        assert check_grad(lambda weights: loss(weights).item(), slope, start.numpy()) < 1e-4

    def test_the_given_losses_are_the_formulas(self):
        net, x, x_adv, y = small_nets.one_hidden_layer(checks.TradesVsPgdTask(), 6)
        right = losses.trades_formulas(net, x, x_adv, y)["right"](3.0)
        assert torch.allclose(given.trades_loss(net, x, x_adv, y, 3.0), right, atol=1e-12)

    def test_mistakes_differ_from_the_formula_and_from_each_other(self):
        net, x, x_adv, y = small_nets.one_hidden_layer(checks.TradesVsPgdTask(), 6)
        formulas = losses.trades_formulas(net, x, x_adv, y)
        seen = [torch.cat([value.detach().reshape(1), small_nets.weights_gradient(net, value)])
                for value in (formula(2.5) for formula in formulas.values())]
        assert all((a - b).norm() > 1e-3 for i, a in enumerate(seen) for b in seen[:i])

    def test_the_binomial_tail_is_mcnemars(self):
        for lost in range(15):
            for gained in range(15):
                told = comparison._by_tail(lost, gained, 0.025) != "cannot tell"
                assert told == (mcnemar(lost, gained) < 0.05)

    def test_interval_and_exact_test_agree_on_what_is_asked(self):
        asked = [(column[:n], other[:n]) for task in (0, 1) for first, second, n in checks.task(task).questions
                 for column, other in [(given.sign_verdicts()[first], given.sign_verdicts()[second])]]
        for first, second in asked:
            lost, gained = int((first & ~second).sum()), int((second & ~first).sum())
            low, high = paired_interval(lost, gained, len(first))
            assert (low > 0 or high < 0) == (mcnemar(lost, gained) < 0.05)

    def test_columns_have_the_counts_that_they_should(self):
        for lost, gained in ((0, 0), (15, 3), (0, 66)):
            first, second = comparison._columns(lost, gained, 200, torch.Generator())
            assert int((first & ~second).sum()) == lost
            assert int((second & ~first).sum()) == gained


def test_verdicts_are_those_of_the_reports():
    results = SOLUTIONS.parent / "benchmarks" / "results"
    for kind in ("clean", "robust"):
        for name, column in given.sign_verdicts(kind).items():
            report = Report.load(results / f"report-4-signs-{name}.json")
            assert torch.equal(column, torch.from_numpy(getattr(report, kind)))


def test_clean_accuracies_of_the_shipped_nets_hardly_differ():
    assert all(column.double().mean() > 0.9985 for column in given.sign_verdicts("clean").values())


def test_the_own_attack_flatters_trades_and_auto_pgd_does_not():
    """What the exercise says is seen."""
    found = checks.judged(given.robust, SHORT)
    (_, own, both), (_, pgd_own, pgd_both) = found["TRADES"], found["PGD training"]
    assert own.sum() > pgd_own.sum() + 20
    lost, gained = int((both & ~pgd_both).sum()), int((pgd_both & ~both).sum())
    assert mcnemar(lost, gained) > 0.05
