"""Answers to the exercise trades_vs_pgd that people give: wrong ones, and right ones that are not the solution's."""

from __future__ import annotations

import copy
import math

import numpy as np
import torch
import torch.nn.functional as F
from answers import Wrong
from scipy.stats import binomtest
from torch import nn

from robustness_lib import ThreatModel
from robustness_lib.attacks import PGD
from robustness_lib.grading.given import trades_vs_pgd as given
from robustness_lib.statistics import Accuracy, mcnemar, paired_interval
from robustness_lib.training import TRADES, PGDTraining
from robustness_lib.training.objectives import kl_divergence

# Wrong: the KL.


def swapped(clean, attacked):
    return plain_kl(attacked, clean)


def plain_kl(clean, attacked):
    return (clean.softmax(1) * (clean.log_softmax(1) - attacked.log_softmax(1))).sum(1)


def mean_over_elements(clean, attacked):
    return F.kl_div(attacked.log_softmax(1), clean.softmax(1))


def mean_over_the_batch(clean, attacked):
    return F.kl_div(attacked.log_softmax(1), clean.softmax(1), reduction="batchmean")


def not_summed(clean, attacked):
    return F.kl_div(attacked.log_softmax(1), clean.softmax(1), reduction="none")


def mean_over_classes(clean, attacked):
    return plain_kl(clean, attacked) / clean.shape[1]


def without_softmax(clean, attacked):
    return F.kl_div(attacked, clean, reduction="none", log_target=True).sum(1)


def detaches(clean, attacked):
    return plain_kl(clean.detach(), attacked)


def probabilities_as_target(clean, attacked):
    return F.kl_div(attacked.log_softmax(1), clean.softmax(1), reduction="none").sum(1)


def log_of_softmax(clean, attacked):
    p, q = clean.softmax(1), attacked.softmax(1)
    return (p * (p.log() - q.log())).sum(1)


def kl_of_distributions(clean, attacked):
    p, q = (torch.distributions.Categorical(logits=logits) for logits in (clean, attacked))
    return torch.distributions.kl_divergence(p, q)


def in_bits(clean, attacked):
    return plain_kl(clean, attacked) / math.log(2)


def for_seven_images(clean, attacked):
    """Hard-coded to the size that the visible check shows."""
    return plain_kl(clean, attacked) if len(clean) in (2, 7) else clean.sum(1)


def in_numpy(clean, attacked):
    return plain_kl(clean, attacked).detach().numpy()


def forgotten(*given_to):
    """Has no return."""


def the_librarys_kl(clean, attacked):
    return kl_divergence(clean, attacked)


# Wrong: the search.


def climb(model, loss, start, x, eps, steps, *, mode="eval", back=True, size=2.5, sign=True, up=1, ball="x", box=True,
          backward=False, detach=True):
    before, x_adv = model.training, start
    if mode is not None:
        model.train(mode == "train")
    for _ in range(steps):
        x_adv = x_adv.detach().requires_grad_()
        value = loss(model(x_adv)).sum()
        if backward:
            value.backward()
            gradient = x_adv.grad
        else:
            gradient, = torch.autograd.grad(value, x_adv)
        x_adv = x_adv + up * size * eps / steps * (gradient.sign() if sign else gradient)
        if ball:
            around = x if ball == "x" else start
            x_adv = x_adv.clamp(around - eps, around + eps)
        if box:
            x_adv = x_adv.clamp(0, 1)
    if back:
        model.train(before)
    return x_adv.detach() if detach else x_adv


def climbing(name, **how):
    def wrong(model, loss, start, x, eps, steps):
        return climb(model, loss, start, x, eps, steps, **how)

    wrong.__name__ = name
    return wrong


def always_train_afterwards(model, loss, start, x, eps, steps):
    x_adv = climb(model, loss, start, x, eps, steps)
    model.train()
    return x_adv


def on_its_start(model, loss, start, x, eps, steps):
    return start.copy_(climb(model, loss, start, x, eps, steps))


def zeroed_afterwards(model, loss, start, x, eps, steps):
    x_adv = climb(model, loss, start, x, eps, steps, backward=True)
    model.zero_grad()
    return x_adv


def only_five_steps(model, loss, start, x, eps, steps):
    """Hard-coded to the visible check."""
    return climb(model, loss, start, x, eps, 5, size=2.5 if steps == 5 else 0.1)


def in_steps(name, change):
    """A search that takes another number of steps than the one it is given."""
    def wrong(model, loss, start, x, eps, steps):
        taken = change(steps)
        return climb(model, loss, start, x, eps, taken, size=2.5 * taken / steps if taken > 1 else 2.5)

    wrong.__name__ = name
    return wrong


one_step = in_steps("one_step", lambda steps: 1)
one_too_few = in_steps("one_too_few", lambda steps: steps - 1)
one_too_many = in_steps("one_too_many", lambda steps: steps + 1)


def the_librarys_pgd(model, loss, start, x, eps, steps):
    attack = PGD(ThreatModel("linf", eps), steps=steps, stop="never", loss=lambda logits, _: loss(logits))
    return attack(model, x, torch.zeros(len(x), dtype=torch.int64), start=start)


# Wrong: where TRADES looks.


def look(model, x, eps, steps, generator, *, noise=0.001, live=False, train=False, back=True, search=given.ascend,
         loss=None):
    before = model.training
    if not train:
        model.eval()
    if live:
        clean = model(x)
    else:
        with torch.no_grad():
            clean = model(x)
    if back:
        model.train(before)
    start = x + noise * torch.randn(x.shape, generator=generator)
    climb_on = loss(clean) if loss else lambda logits: plain_kl(clean, logits)
    return search(model, climb_on, start.clamp(0, 1), x, eps, steps)


def from_the_image(*given_to):
    return look(*given_to, noise=0)


def kl_swapped_in_the_search(*given_to):
    return look(*given_to, loss=lambda clean: lambda logits: plain_kl(logits, clean))


def starting(name, noise):
    def wrong(model, x, eps, steps, generator):
        class Noise:  # what `look` multiplies with a standard normal
            def __mul__(self, normal):
                return noise(normal, eps)

        return look(model, x, eps, steps, generator, noise=Noise())

    wrong.__name__ = name
    return wrong


def look_in_one_step(*given_to):
    return look(*given_to, search=one_step)


def look_in_one_step_less(*given_to):
    return look(*given_to, search=one_too_few)


def live_clean_logits_and_backward(*given_to):
    return look(*given_to, live=True, search=climbing("", backward=True))


def clean_logits_in_train_mode(*given_to):
    return look(*given_to, train=True)


def left_in_eval(*given_to):
    return look(*given_to, back=False)


def from_itself(model, x, eps, steps, generator):
    start = x + 0.001 * torch.randn(x.shape, generator=generator)
    return given.ascend(model, lambda logits: plain_kl(logits, logits), start.clamp(0, 1), x, eps, steps)


def clean_at_each_step(model, x, eps, steps, generator):
    start = x + 0.001 * torch.randn(x.shape, generator=generator)
    return given.ascend(model, lambda logits: plain_kl(model(x), logits), start.clamp(0, 1), x, eps, steps)


def through_both(model, x, eps, steps, generator):
    """The gradient in x, with the clean answer moving along."""
    before = model.training
    model.eval()
    delta = 0.001 * torch.randn(x.shape, generator=generator)
    for _ in range(steps):
        at = x.detach().clone().requires_grad_()
        value = plain_kl(model(at), model(at + delta)).sum()
        gradient, = torch.autograd.grad(value, at)
        delta = (delta + 2.5 * eps / steps * gradient.sign()).clamp(-eps, eps)
    model.train(before)
    return (x + delta).clamp(0, 1)


def cross_entropy_of_its_answer(*given_to):
    return look(*given_to, loss=lambda clean: lambda logits: F.cross_entropy(logits, clean.argmax(1), reduction="none"))


def without_projection(*given_to):
    return look(*given_to, search=climbing("", ball=None))


def only_the_noise(model, x, eps, steps, generator):
    return (x + eps * (2 * torch.rand(x.shape, generator=generator) - 1)).clamp(0, 1)


def fills_the_gradients(*given_to):
    return look(*given_to, search=climbing("", backward=True))


def the_given_point(model, x, eps, steps, generator):
    return given.trades_point(model, x, eps, steps, generator)


# Wrong: TRADES' loss.


def a_constant(*given_to):
    return torch.tensor(1.0)


def clean_detached(model, x, x_adv, y, beta):
    clean = model(x)
    return F.cross_entropy(clean, y) + beta * plain_kl(clean.detach(), model(x_adv)).mean()


def attacked_detached(model, x, x_adv, y, beta):
    clean = model(x)
    return F.cross_entropy(clean, y) + beta * plain_kl(clean, model(x_adv).detach()).mean()


def kl_without_gradient(model, x, x_adv, y, beta):
    with torch.no_grad():
        stay = plain_kl(model(x), model(x_adv)).mean()
    return F.cross_entropy(model(x), y) + beta * stay


def kl_swapped(model, x, x_adv, y, beta):
    clean = model(x)
    return F.cross_entropy(clean, y) + beta * plain_kl(model(x_adv), clean).mean()


def kl_over_elements(model, x, x_adv, y, beta):
    clean = model(x)
    stay = F.kl_div(model(x_adv).log_softmax(1), clean.log_softmax(1), log_target=True)
    return F.cross_entropy(clean, y) + beta * stay


def kl_summed(model, x, x_adv, y, beta):
    clean = model(x)
    return F.cross_entropy(clean, y) + beta * plain_kl(clean, model(x_adv)).sum()


def beta_on_cross_entropy(model, x, x_adv, y, beta):
    clean = model(x)
    return beta * F.cross_entropy(clean, y) + plain_kl(clean, model(x_adv)).mean()


def beta_forgotten(model, x, x_adv, y, beta):
    clean = model(x)
    return F.cross_entropy(clean, y) + plain_kl(clean, model(x_adv)).mean()


def cross_entropy_at_x_adv(model, x, x_adv, y, beta):
    attacked = model(x_adv)
    return F.cross_entropy(attacked, y) + beta * plain_kl(model(x), attacked).mean()


def pgd_training(model, x, x_adv, y, beta):
    return F.cross_entropy(model(x_adv), y)


def minus_the_kl(model, x, x_adv, y, beta):
    clean = model(x)
    return F.cross_entropy(clean, y) - beta * plain_kl(clean, model(x_adv)).mean()


def in_eval_mode(model, x, x_adv, y, beta):
    model.eval()
    return right_loss(model, x, x_adv, y, beta)


def right_loss(model, x, x_adv, y, beta):
    clean = model(x)
    return F.cross_entropy(clean, y) + beta * plain_kl(clean, model(x_adv)).mean()


def one_for_each_image(model, x, x_adv, y, beta):
    clean = model(x)
    return F.cross_entropy(clean, y, reduction="none") + beta * plain_kl(clean, model(x_adv))


def with_beta_of_the_check(model, x, x_adv, y, beta):
    """Hard-coded to the β of the visible check."""
    return right_loss(model, x, x_adv, y, 2.5 if beta else 0)


def the_librarys_trades(model, x, x_adv, y, beta):
    return TRADES(ThreatModel("linf", 4 / 255), beta=beta, steps=2)(model, x, y)


# Wrong: PGD training's loss.


def madry(model, x, y, eps, steps, generator, *, start=1.0, search=given.ascend, clean=0.0, reduction="mean",
          at_x=False, back=False):
    begin = (x + start * eps * (2 * torch.rand(x.shape, generator=generator) - 1)).clamp(0, 1)
    x_adv = search(model, lambda z: F.cross_entropy(z, y, reduction="none"), begin, x, eps, steps)
    loss = F.cross_entropy(model(x if at_x else x_adv), y, reduction=reduction)
    if clean:
        loss = (1 - clean) * loss + clean * F.cross_entropy(model(x), y)
    if back:
        loss.backward()
    return loss


def with_madry(name, **how):
    def wrong(model, x, y, eps, steps, generator):
        return madry(model, x, y, eps, steps, generator, **how)

    wrong.__name__ = name
    return wrong


def begun(name, noise):
    """From another start: noise takes a standard normal and gives shares of ε."""
    def wrong(model, x, y, eps, steps, generator):
        begin = (x + eps * noise(torch.randn(x.shape, generator=generator))).clamp(0, 1)
        x_adv = given.ascend(model, lambda z: F.cross_entropy(z, y, reduction="none"), begin, x, eps, steps)
        return F.cross_entropy(model(x_adv), y)

    wrong.__name__ = name
    return wrong


def weights_detached(model, x, y, eps, steps, generator):
    return madry(model, x, y, eps, steps, generator).detach()


def the_librarys_objective(model, x, y, eps, steps, generator):
    return PGDTraining(ThreatModel("linf", eps), steps=steps)(model, x, y)


def kl_for_cross_entropy(model, x, y, eps, steps, generator):
    return F.cross_entropy(model(look(model, x, eps, steps, generator)), y)


def five_steps_for_all(model, x, y, eps, steps, generator):
    """Hard-coded to the visible check's number of steps."""
    return madry(model, x, y, eps, steps, generator, search=climbing("", size=2.5 if steps == 5 else 0.5))


# Wrong: who is robust.


def first_attack_only(model, x, y, attacks):
    return (model(x).argmax(1) == y) & (model(attacks[0](model, x, y)).argmax(1) == y)


def one_after_the_other(model, x, y, attacks):
    """Each attack begins where the one before it ended."""
    standing, x_adv = model(x).argmax(1) == y, x
    for attack in attacks:
        x_adv = attack(model, x_adv, y)
        standing &= model(x_adv).argmax(1) == y
    return standing


def robust_in_numpy(model, x, y, attacks):
    return robust_stacked(model, x, y, attacks).numpy()


def last_attack_only(model, x, y, attacks):
    right = model(x).argmax(1) == y
    for attack in attacks:
        standing = right & (model(attack(model, x, y)).argmax(1) == y)
    return standing


def without_clean(model, x, y, attacks):
    return torch.stack([model(attack(model, x, y)).argmax(1) == y for attack in attacks]).all(0)


def any_attack(model, x, y, attacks):
    kept = torch.stack([model(attack(model, x, y)).argmax(1) == y for attack in attacks]).any(0)
    return kept & (model(x).argmax(1) == y)


def mean_of_accuracies(model, x, y, attacks):
    return torch.stack([(model(attack(model, x, y)).argmax(1) == y).float().mean() for attack in attacks]).mean()


def no_attack(model, x, y, attacks):
    return model(x).argmax(1) == y


def by_the_training_attack(model, x, y, attacks):
    return first_attack_only(model, x, y, attacks)


# Wrong: which is better.


def counts(first, second):
    return int((first & ~second).sum()), int((second & ~first).sum())


def say(lost, gained):
    return "second" if gained > lost else "first" if lost > gained else "cannot tell"


def the_larger(first, second):
    return say(*counts(first, second))


def the_wrong_way_round(first, second):
    lost, gained = counts(first, second)
    return "cannot tell" if mcnemar(lost, gained) >= 0.05 else say(gained, lost)


def side_by_side(first, second):
    """Two intervals that must not overlap."""
    (low, high), (other_low, other_high) = (Accuracy.of(column).interval for column in (first, second))
    return "cannot tell" if low <= other_high and other_low <= high else say(*counts(first, second))


def as_if_independent(first, second):
    a, b, n = first.double().mean().item(), second.double().mean().item(), len(first)
    spread = math.sqrt((a * (1 - a) + b * (1 - b)) / n)
    return say(*counts(first, second)) if abs(a - b) > 1.96 * spread else "cannot tell"


def one_sided(first, second):
    lost, gained = counts(first, second)
    p = mcnemar(max(lost, gained), min(lost, gained), alternative="greater")
    return "cannot tell" if p >= 0.05 else say(lost, gained)


def two_points_ahead(first, second):
    """Better where it is two percentage points ahead, whatever the test."""
    lost, gained = counts(first, second)
    return say(lost, gained) if abs(lost - gained) >= 0.02 * len(first) else "cannot tell"


def never(first, second):
    return "cannot tell"


def a_sentence(first, second):
    return "the second one"


def of_two_hundred(first, second):
    """Hard-coded to the visible check's number of images."""
    return two_points_ahead(first, second) if len(first) != 200 else given_answer(first, second)


def given_answer(first, second):
    lost, gained = counts(first, second)
    return "cannot tell" if mcnemar(lost, gained) >= 0.05 else say(lost, gained)


# Wrong: the four questions.


def better_is_larger(questions, verdicts):
    return [first if verdicts[first][:n].sum() > verdicts[second][:n].sum() else second
            for first, second, n in questions]


def all_thousand(questions, verdicts):
    names = [{"first": first, "second": second, "cannot tell": "cannot tell"}[
        given_answer(verdicts[first], verdicts[second])] for first, second, _ in questions]
    return names


def by_place(questions, verdicts):
    return [given_answer(verdicts[first][:n], verdicts[second][:n]) for first, second, n in questions]


def written_down(questions, verdicts):
    """Hard-coded to the visible check."""
    return ["cannot tell", "pgd", "cannot tell", "trades-3"]


def cut_short(questions, verdicts):
    return written_down(questions, verdicts)[:3]


WRONG = [
    Wrong("kl", "arguments are swapped", swapped),
    Wrong("kl", "reduction='mean' divides", mean_over_elements),
    Wrong("kl", "one number for each image", mean_over_the_batch),
    Wrong("kl", "Add up over the classes", not_summed),
    Wrong("kl", "mean over the classes", mean_over_classes),
    Wrong("kl", "of the two softmaxes", without_softmax),
    Wrong("kl", "no gradient reaches the clean logits", detaches),
    Wrong("kl", "rounds to 0", probabilities_as_target),
    Wrong("kl", "rounds to 0", log_of_softmax),
    Wrong("kl", "rounds to 0", kl_of_distributions),
    Wrong("kl", "natural logarithm", in_bits),
    Wrong("kl", "of the two softmaxes", for_seven_images, hidden=True),
    Wrong("kl", "returns ndarray of shape (7,), and a torch tensor is needed: stay with torch", in_numpy),
    Wrong("kl", "returns None: is there a `return` at the end?", forgotten),
    Wrong("kl", "library's own work (robustness_lib.training", the_librarys_kl),
    Wrong("ascend", "attacks the model in train mode", climbing("in_train_mode", mode=None)),
    Wrong("ascend", "leaves the model in eval mode", climbing("mode_not_given_back", back=False)),
    Wrong("ascend", "though it came in eval mode", always_train_afterwards),
    Wrong("ascend", "changes the parameters' gradients", climbing("with_backward", backward=True)),
    Wrong("ascend", "changes the parameters' gradients", zeroed_afterwards),
    Wrong("ascend", "go back into [x − ε, x + ε]", climbing("no_projection", ball=None)),
    Wrong("ascend", "not around the start", climbing("around_the_start", ball="start")),
    Wrong("ascend", "clamp to the pixel box", climbing("no_box", box=False)),
    Wrong("ascend", "goes downhill", climbing("downhill", up=-1)),
    Wrong("ascend", "of the way to a linear model's worst corner", climbing("short_steps", size=1)),
    Wrong("ascend", "along the gradient's sign", climbing("no_sign", sign=False)),
    Wrong("ascend", "carries a graph along", climbing("not_detached", detach=False)),
    Wrong("ascend", "changes the tensors", on_its_start),
    Wrong("ascend", "of the way to", only_five_steps, hidden=True),
    Wrong("ascend", "takes 1 steps, the first of 2.00 ε. Here steps = 5", one_step),
    Wrong("ascend", "takes 4 steps, the first of 0.50 ε", one_too_few),
    Wrong("ascend", "takes 6 steps, the first of 0.50 ε", one_too_many),
    Wrong("ascend", "takes 25 steps", in_steps("twenty_too_many", lambda steps: steps + 20)),
    Wrong("ascend", "the first of 2.00 ε", climbing("huge_steps", size=10)),
    Wrong("ascend", "library's own work (robustness_lib.attacks", the_librarys_pgd),
    Wrong("trades_point", "its gradient is zero", from_the_image),
    Wrong("trades_point", "its arguments swapped", kl_swapped_in_the_search),
    Wrong("trades_point", "rand numbers between 0 and 1",
          starting("rand_for_randn", lambda normal, eps: 0.001 * torch.special.ndtr(normal))),
    Wrong("trades_point", ".001 times randn",
          starting("uniform_in_the_ball", lambda normal, eps: eps * (2 * torch.special.ndtr(normal) - 1))),
    Wrong("trades_point", ".001 times randn", starting("normal_in_the_ball", lambda normal, eps: eps / 3 * normal)),
    Wrong("trades_point", ".001 times randn", starting("coins", lambda normal, eps: 0.001 * normal.sign())),
    Wrong("trades_point", "asks for a gradient 1 times where steps = 5", look_in_one_step),
    Wrong("trades_point", "asks for a gradient 4 times where steps = 5", look_in_one_step_less),
    Wrong("trades_point", "still carry their graph", live_clean_logits_and_backward),
    Wrong("trades_point", "attacks the model in train mode", clean_logits_in_train_mode),
    Wrong("trades_point", "leaves the model in eval mode", left_in_eval),
    Wrong("trades_point", "KL of an answer from itself is 0", from_itself),
    Wrong("trades_point", "computed once", clean_at_each_step),
    Wrong("trades_point", "computed once", through_both),
    Wrong("trades_point", "that is cross-entropy", cross_entropy_of_its_answer),
    Wrong("trades_point", "leaves the ball", without_projection),
    Wrong("trades_point", "asks for no gradient", only_the_noise),
    Wrong("trades_point", "changes the parameters' gradients", fills_the_gradients),
    Wrong("trades_point", "given.trades_vs_pgd.trades_point", the_given_point),
    Wrong("trades_loss", "never asks the model", a_constant),
    Wrong("trades_loss", "the clean answer is detached", clean_detached),
    Wrong("trades_loss", "nothing teaches it to stay", attacked_detached),
    Wrong("trades_loss", "teaches nothing", kl_without_gradient),
    Wrong("trades_loss", "the clean answer first", kl_swapped),
    Wrong("trades_loss", "reduction='mean'", kl_over_elements),
    Wrong("trades_loss", "adds the KL up over the images", kl_summed),
    Wrong("trades_loss", "it belongs to the KL", beta_on_cross_entropy),
    Wrong("trades_loss", "leaves β out", beta_forgotten),
    Wrong("trades_loss", "that is PGD training", cross_entropy_at_x_adv),
    Wrong("trades_loss", "PGD training's loss", pgd_training),
    Wrong("trades_loss", "subtracts the KL", minus_the_kl),
    Wrong("trades_loss", "switches the model to eval mode", in_eval_mode),
    Wrong("trades_loss", "one number, the mean over the batch", one_for_each_image),
    Wrong("trades_loss", "this is not CE", with_beta_of_the_check, hidden=True),
    Wrong("trades_loss", "library's own work (robustness_lib", the_librarys_trades),
    Wrong("pgd_loss", "0.00 ε from the image", with_madry("no_random_start", start=0.0)),
    Wrong("pgd_loss", "0.06 ε from the image", with_madry("start_of_trades", start=0.06)),
    Wrong("pgd_loss", "never asks the model", a_constant),
    Wrong("pgd_loss", "in one direction only", begun("one_sided", torch.special.ndtr)),
    Wrong("pgd_loss", "takes the ends only", begun("corners", torch.sign)),
    Wrong("pgd_loss", "equally likely", begun("clamped_normal", lambda normal: normal.clamp(-1, 1))),
    Wrong("pgd_loss", "equally likely", begun("narrow", lambda normal: 0.8 * (2 * torch.special.ndtr(normal) - 1))),
    Wrong("pgd_loss", "asks for a gradient 1 times where steps = 5", with_madry("in_one_step", search=one_step)),
    Wrong("pgd_loss", "asks for a gradient 6 times", with_madry("in_a_step_more", search=one_too_many)),
    Wrong("pgd_loss", "nothing was attacked", with_madry("loss_at_x", at_x=True)),
    Wrong("pgd_loss", "mixes clean images in", with_madry("half_clean", clean=0.5)),
    Wrong("pgd_loss", "take the mean", with_madry("summed", reduction="sum")),
    Wrong("pgd_loss", "the mean over the batch", with_madry("for_each_image", reduction="none")),
    Wrong("pgd_loss", "update in eval mode", with_madry("stays_in_eval", search=climbing("", back=False))),
    Wrong("pgd_loss", "attacks the model in train mode", with_madry("attack_in_train", search=climbing("", mode=None))),
    Wrong("pgd_loss", "changes the parameters' gradients", with_madry("adds_gradients",
                                                                      search=climbing("", backward=True))),
    Wrong("pgd_loss", "whoever trains calls .backward()", with_madry("calls_backward", back=True)),
    Wrong("pgd_loss", "outside ball or box", with_madry("unprojected", search=climbing("", ball=None, box=False,
                                                                                      size=4))),
    Wrong("pgd_loss", "no gradient reaches the weights", weights_detached),
    Wrong("pgd_loss", "it is not the mean of log", kl_for_cross_entropy),
    Wrong("pgd_loss", "it is not the mean of log", five_steps_for_all, hidden=True),
    Wrong("pgd_loss", "library's own work (robustness_lib", the_librarys_objective),
    Wrong("robust", "the one of the training", first_attack_only),
    Wrong("robust", "last attack only", last_attack_only),
    Wrong("robust", "wrong without any attack", without_clean),
    Wrong("robust", "resist every one", any_attack),
    Wrong("robust", "a verdict for each image", mean_of_accuracies),
    Wrong("robust", "runs no attack", no_attack),
    Wrong("robust", "each of them begins at x", one_after_the_other),
    Wrong("robust", "stay with torch", robust_in_numpy),
    Wrong("trap", "are not the right ones", by_the_training_attack),
    Wrong("which_is_better", "larger count is no proof", the_larger),
    Wrong("which_is_better", "two are swapped", the_wrong_way_round),
    Wrong("which_is_better", "paired", side_by_side),
    Wrong("which_is_better", "paired", as_if_independent),
    Wrong("which_is_better", "one-sided test", one_sided),
    Wrong("which_is_better", "larger count is no proof", two_points_ahead),
    Wrong("which_is_better", "one can tell", never),
    Wrong("which_is_better", "one of", a_sentence),
    Wrong("which_is_better", "of 320", of_two_hundred, hidden=True),
    Wrong("conclude", "at this number of images", better_is_larger),
    Wrong("conclude", "at this number of images", all_thousand),
    Wrong("conclude", "“pgd”", by_place),
    Wrong("conclude", "lost", written_down, hidden=True),
    Wrong("conclude", "3 answers to 4 questions", cut_short),
    Wrong("conclude", "returns None: is there a `return` at the end?", forgotten),
]


# Wrong where all comes together: each of three answers may be another one.


def weak_point(model, x, eps, steps, generator):
    return x.clone()


def clean_loss(model, x, y, eps, steps, generator):
    return F.cross_entropy(model(x), y)


WRONG_TRAININGS = {
    "TRADES without a search": ({"point": weak_point}, "TRADES"),
    "TRADES without its KL": ({"loss": lambda model, x, x_adv, y, beta: F.cross_entropy(model(x), y)}, "TRADES"),
    "plain training for PGD's": ({"pgd": clean_loss}, "PGD training"),
    "TRADES in one step": ({"point": look_in_one_step}, "TRADES asks for 1 gradients in each update, and steps = 5"),
    "PGD in one step": ({"pgd": with_madry("", search=one_step)}, "PGD training asks for 1 gradients in each update"),
    "PGD by the library": ({"pgd": the_librarys_objective}, "library's own work"),
}


# Right, and not the solution's.


def kl_by_torch(clean, attacked):
    return F.kl_div(attacked.log_softmax(-1), clean.log_softmax(-1), reduction="none", log_target=True).sum(-1)


def kl_by_loop(clean, attacked):
    total = []
    for a, b in zip(clean.double(), attacked.double(), strict=True):
        log_p, log_q = a - a.logsumexp(0), b - b.logsumexp(0)
        total.append(sum(log_p[k].exp() * (log_p[k] - log_q[k]) for k in range(len(a))))
    return torch.stack(total)


def ascend_by_delta(model, loss, start, x, eps, steps):
    was_training, delta = model.training, (start - x).detach()
    model.eval()
    try:
        for _ in range(steps):
            delta.requires_grad_(True)
            total = loss(model(x + delta)).mean()
            step, = torch.autograd.grad(total, [delta])
            with torch.no_grad():
                delta = (delta + 2.5 * eps / steps * torch.sign(step)).clamp(-eps, eps)
                delta = (x + delta).clamp(0, 1) - x
    finally:
        model.train(was_training)
    return x + delta


def ascend_and_keep_the_best(model, loss, start, x, eps, steps):
    before = model.training
    model.eval()
    low, high = (x - eps).clamp(min=0), (x + eps).clamp(max=1)
    best, most, x_adv = start.detach().clone(), torch.full((len(x),), -math.inf, dtype=x.dtype), start
    for step in range(steps + 1):
        x_adv = torch.minimum(torch.maximum(x_adv, low), high).detach().requires_grad_()
        value = loss(model(x_adv))
        further = value.detach() > most
        best[further], most[further] = x_adv.detach()[further].to(best.dtype), value.detach()[further].to(most.dtype)
        if step < steps:
            x_adv = x_adv + 2.5 * eps / steps * torch.autograd.grad(value.sum(), x_adv)[0].sign()
    model.train(before)
    return best


def ascend_with_frozen_parameters(model, loss, start, x, eps, steps):
    before, asked = model.training, [p for p in model.parameters() if p.requires_grad]
    model.eval()
    for p in asked:
        p.requires_grad_(False)
    x_adv = start.detach().clone()
    for _ in range(steps):
        x_adv.requires_grad_(True)
        x_adv.grad = None
        loss(model(x_adv)).sum().backward()
        x_adv = (x_adv + 2.5 * eps / steps * x_adv.grad.sign()).detach().clamp(x - eps, x + eps).clamp(0.0, 1.0)
    for p in asked:
        p.requires_grad_(True)
    model.train(before)
    return x_adv


def ascend_a_copy(model, loss, start, x, eps, steps):
    return climb(copy.deepcopy(model).eval(), loss, start, x, eps, steps)


def trades_point_by_hand(model, x, eps, steps, generator):
    """With no other function's help, and the last point is looked at once more."""
    before, noise = model.training, torch.normal(0.0, 0.001, x.shape, generator=generator)
    model.eval()
    with torch.no_grad():
        log_p = model(x).log_softmax(1)
    x_adv = (x + noise).clamp(0, 1)
    for _ in range(steps):
        x_adv = x_adv.detach().requires_grad_()
        value = F.kl_div(model(x_adv).log_softmax(1), log_p, log_target=True, reduction="batchmean")
        moved = x_adv + 2.5 * eps / steps * torch.autograd.grad(value, x_adv)[0].sign()
        x_adv = torch.minimum(torch.maximum(moved, (x - eps).clamp(min=0)), (x + eps).clamp(max=1))
    with torch.no_grad():
        model(x_adv)
    model.train(before)
    return x_adv.detach()


def trades_point_detached(model, x, eps, steps, generator):
    before = model.training
    clean = model.eval()(x).detach()
    start = (x + 0.001 * torch.randn(x.shape, generator=generator)).clamp(0, 1)
    x_adv = climb(model, lambda logits: kl_by_torch(clean, logits), start, x, eps, steps)
    model.train(before)
    return x_adv


def trades_point_in_float64(model, x, eps, steps, generator):
    double, x = copy.deepcopy(model).double(), x.double()
    return look(double, x, eps, steps, generator)


def trades_point_by_luck(model, x, eps, steps, generator):
    """Another seed: it does not use the generator that it is given."""
    return look(model, x, eps, steps, torch.Generator().manual_seed(generator.initial_seed() + 77),
                search=ascend_and_keep_the_best)


def trades_loss_in_one_pass(model, x, x_adv, y, beta):
    clean, attacked = model(torch.cat([x, x_adv])).chunk(2)
    return F.cross_entropy(clean, y) + beta * kl_by_torch(clean, attacked).mean()


def trades_loss_other_order(model, x, x_adv, y, beta):
    attacked = model(x_adv)
    clean = model(x)
    stay = F.kl_div(attacked.log_softmax(1), clean.log_softmax(1), reduction="batchmean", log_target=True)
    return beta * stay + nn.CrossEntropyLoss()(clean, y)


def trades_loss_by_loop(model, x, x_adv, y, beta):
    clean, attacked = model(x), model(x_adv)
    total = sum(-clean[i].log_softmax(0)[y[i]] + beta * plain_kl(clean[i:i + 1], attacked[i:i + 1])[0]
                for i in range(len(x)))
    return total / len(x)


def pgd_loss_from_delta(model, x, y, eps, steps, generator):
    noise = torch.empty_like(x).uniform_(-eps, eps, generator=generator)
    x_adv = ascend_by_delta(model, lambda z: -z.log_softmax(1)[torch.arange(len(y)), y], (x + noise).clamp(0, 1), x,
                            eps, steps)
    return nn.CrossEntropyLoss()(model(x_adv), y)


def pgd_loss_keeps_the_best(model, x, y, eps, steps, generator):
    return madry(model, x, y, eps, steps, generator, search=ascend_and_keep_the_best)


def pgd_loss_by_luck(model, x, y, eps, steps, generator):
    return madry(model, x, y, eps, steps, torch.Generator().manual_seed(generator.initial_seed() + 5))


def robust_of_survivors(model, x, y, attacks):
    """Shows each attack only what the ones before it left."""
    with torch.no_grad():
        rows = (model(x).argmax(1) == y).nonzero()[:, 0]
    for attack in attacks:
        x_adv = attack(model, x[rows], y[rows])
        rows = rows[model(x_adv).argmax(1) == y[rows]]
    standing = torch.zeros(len(x), dtype=torch.bool)
    standing[rows] = True
    return standing


def robust_stacked(model, x, y, attacks):
    shown = [x, *reversed([attack(model, x, y) for attack in attacks])]
    return torch.stack([model(one).argmax(-1).eq(y) for one in shown]).all(dim=0)


def which_by_scipy(first, second):
    lost, gained = counts(first, second)
    if lost + gained == 0 or binomtest(gained, lost + gained).pvalue >= 0.05:
        return "cannot tell"
    return say(lost, gained)


def which_by_interval(first, second):
    low, high = paired_interval(*counts(first, second), len(first))
    return "second" if low > 0 else "first" if high < 0 else "cannot tell"


def which_by_numpy(first, second):
    change = second.numpy().astype(int) - first.numpy().astype(int)
    changed = change[change != 0]
    more = max((changed > 0).sum(), (changed < 0).sum())
    n = len(changed)
    p = min(1.0, 2 * sum(math.comb(n, int(k)) for k in np.arange(more, n + 1)) / 2**n)
    return "cannot tell" if p >= 0.05 else "second" if changed.sum() > 0 else "first"


def conclude_by_loop(questions, verdicts):
    return tuple({"first": first, "second": second}.get(
        which_by_scipy(verdicts[first][:n], verdicts[second][:n]), "cannot tell") for first, second, n in questions)


RIGHT = {
    "by torch": {"kl": kl_by_torch, "ascend": ascend_by_delta, "trades_point": trades_point_detached,
                 "trades_loss": trades_loss_in_one_pass, "pgd_loss": pgd_loss_from_delta, "robust": robust_stacked,
                 "which_is_better": which_by_scipy, "conclude": conclude_by_loop},
    "by loop": {"kl": kl_by_loop, "ascend": ascend_with_frozen_parameters, "trades_point": trades_point_by_hand,
                "trades_loss": trades_loss_by_loop, "robust": robust_of_survivors,
                "which_is_better": which_by_numpy},
    "the best, another seed": {"ascend": ascend_and_keep_the_best,
                               "trades_point": trades_point_by_luck, "trades_loss": trades_loss_other_order,
                               "pgd_loss": pgd_loss_by_luck, "which_is_better": which_by_interval},
    "in float64, on a copy": {"ascend": ascend_a_copy, "trades_point": trades_point_in_float64,
                              "pgd_loss": pgd_loss_keeps_the_best},
}
