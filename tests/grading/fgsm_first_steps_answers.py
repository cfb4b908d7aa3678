"""Answers to the exercise fgsm_first_steps that people give: wrong ones, and right ones that are not the solution's."""

from __future__ import annotations

import copy
import math

import torch
import torch.nn.functional as F
from answers import Wrong

from robustness_lib import ThreatModel
from robustness_lib.attacks import FGSM
from robustness_lib.grading.given import fgsm_first_steps as given
from robustness_lib.statistics import Accuracy

# Wrong: the gradient.


def gradient_of(model, x, loss_of, evaluate=True):
    """What every gradient here has in common: loss_of(scores) is the loss."""
    if evaluate:
        model.eval()
    pixels = x.clone().requires_grad_()
    return torch.autograd.grad(loss_of(model(pixels)), pixels)[0]


def minus_sign(model, x, y):
    return -given.input_gradient(model, x, y)


def minus_loss(model, x, y):
    return gradient_of(model, x, lambda scores: -F.cross_entropy(scores, y))


def train_mode(model, x, y):
    return gradient_of(model, x, lambda scores: F.cross_entropy(scores, y), evaluate=False)


def by_backward(model, x, y):
    model.eval()
    pixels = x.clone().requires_grad_()
    F.cross_entropy(model(pixels), y).backward()
    return pixels.grad


def backward_and_zero_grad(model, x, y):
    model.eval()
    pixels = x.clone().requires_grad_()
    model.zero_grad()
    F.cross_entropy(model(pixels), y).backward()
    model.zero_grad()
    return pixels.grad


def in_place(model, x, y):
    model.eval()
    x.requires_grad_()
    return torch.autograd.grad(F.cross_entropy(model(x), y), x)[0]


def detached(model, x, y):
    model.eval()
    pixels = x.clone().requires_grad_()
    return torch.autograd.grad(F.cross_entropy(model(pixels.detach()), y), pixels)[0]


def by_data(model, x, y):
    model.eval()
    pixels = x.clone().requires_grad_()
    F.cross_entropy(model(pixels.data), y).backward()
    return pixels.grad


def under_no_grad(model, x, y):
    model.eval()
    pixels = x.clone().requires_grad_()
    with torch.no_grad():
        loss = F.cross_entropy(model(pixels), y)
    return torch.autograd.grad(loss, pixels)[0]


def grad_of_a_copy(model, x, y):
    model.eval()
    pixels = x.clone().requires_grad_()
    followed = pixels.clone()
    loss = F.cross_entropy(model(followed), y)
    loss.backward()
    return followed.grad


def of_another_copy(model, x, y):
    model.eval()
    pixels, others = x.clone().requires_grad_(), x.clone().requires_grad_()
    return torch.autograd.grad(F.cross_entropy(model(others), y), pixels)[0]


def loss_for_each(model, x, y):
    return gradient_of(model, x, lambda scores: F.cross_entropy(scores, y, reduction="none"))


def own_answer(model, x, y):
    return gradient_of(model, x, lambda scores: F.cross_entropy(scores, scores.argmax(1)))


def softmax_twice(model, x, y):
    return gradient_of(model, x, lambda scores: F.cross_entropy(scores.softmax(1), y))


def label_score(model, x, y):
    return gradient_of(model, x, lambda scores: scores.gather(1, y[:, None]).sum())


def signed_already(model, x, y):
    return given_gradient(model, x, y).sign()


def given_gradient(model, x, y):
    return gradient_of(model, x, lambda scores: F.cross_entropy(scores, y))


def a_tuple(model, x, y):
    model.eval()
    pixels = x.clone().requires_grad_()
    return torch.autograd.grad(F.cross_entropy(model(pixels), y), pixels)


def mean_over_images(model, x, y):
    return given_gradient(model, x, y).mean(0)


def for_12_images(model, x, y):
    """Hard-coded to what the visible check shows."""
    return given_gradient(model, x, y) if len(x) == 12 else torch.zeros_like(x)


def left_to_the_given(model, x, y):
    return given.input_gradient(model, x, y)


def frozen_for_good(model, x, y):
    """backward(), with the weights kept out of it, and never let in again."""
    model.eval().requires_grad_(False)
    pixels = x.clone().requires_grad_()
    F.cross_entropy(model(pixels), y, reduction="sum").backward()
    return pixels.grad


def of_those_read_rightly(model, x, y):
    def loss(scores):
        return (F.cross_entropy(scores, y, reduction="none") * (scores.argmax(1) == y)).sum()

    return gradient_of(model, x, loss)


# Wrong: by hand.


def typed_in(w, eps):
    return 0.3, 0.224  # enough digits for a hand, not for every w


def typed_in_fully(w, eps):
    return 0.3, 0.1 * math.sqrt(5)


def sum_of_weights(w, eps):
    return eps * w.sum(), eps * w.norm()


def largest_weight(w, eps):
    return eps * w.abs().max(), eps * w.norm()


def no_root(w, eps):
    return eps * w.abs().sum(), eps * (w @ w)


def swapped(w, eps):
    return eps * w.norm(), eps * w.abs().sum()


def negative(w, eps):
    return -eps * w.abs().sum(), -eps * w.norm()


def corner_in_the_circle(w, eps):
    return eps * w.abs().sum(), eps * w.norm() * math.sqrt(len(w))


def one_number(w, eps):
    return eps * w.abs().sum()


# Wrong: the step.


def stepped(model, x, y, change):
    return (x + change(given.input_gradient(model, x, y))).clamp(0, 1)


def downhill(model, x, y, eps):
    return stepped(model, x, y, lambda g: -eps * g.sign())


def no_clamp(model, x, y, eps):
    return x + eps * given.input_gradient(model, x, y).sign()


def clamped_before(model, x, y, eps):
    return x.clamp(0, 1) + eps * given.input_gradient(model, x, y).sign()


def without_sign(model, x, y, eps):
    return stepped(model, x, y, lambda g: eps * g)


def divided_by_its_length(model, x, y, eps):
    return stepped(model, x, y, lambda g: eps * g / g.abs().amax((1, 2, 3), keepdim=True))


def divided_by_255(model, x, y, eps):
    return stepped(model, x, y, lambda g: eps / 255 * g.sign())


def times_255(model, x, y, eps):
    return stepped(model, x, y, lambda g: eps * 255 * g.sign())


def eps_over_std(model, x, y, eps):
    """ε in units of normalized pixels."""
    return stepped(model, x, y, lambda g: eps / 0.25 * g.sign())


def normalized(model, x, y, eps):
    inputs = (x - 0.5) / 0.25
    return inputs + eps * given.input_gradient(model, inputs, y).sign()


def step_for_its_answer(model, x, y, eps):
    with torch.no_grad():
        answer = model.eval()(x).argmax(1)
    return stepped(model, x, answer, lambda g: eps * g.sign())


def misread_left_alone(model, x, y, eps):
    """They are wrong already: why attack them?"""
    with torch.no_grad():
        misread = model.eval()(x).argmax(1) != y
    return torch.where(misread[:, None, None, None], x, stepped(model, x, y, lambda g: eps * g.sign()))


def misread_of_zero_gradient(model, x, y, eps):
    return (x + eps * of_those_read_rightly(model, x, y).sign()).clamp(0, 1)


def in_steps(model, x, y, eps, steps):
    for _ in range(steps):
        x = stepped(model, x, y, lambda g: eps / steps * g.sign())
    return x


def two_half_steps(*given_to):
    return in_steps(*given_to, steps=2)


def ten_small_steps(*given_to):
    return in_steps(*given_to, steps=10)


def weights_frozen_for_good(model, x, y, eps):
    return (x + eps * frozen_for_good(model, x, y).sign()).clamp(0, 1)


def rounded_off(model, x, y, eps):
    return stepped(model, x, y, lambda g: eps * g.sign()).round(decimals=3)


def a_pixel_forgotten(model, x, y, eps):
    moved = stepped(model, x, y, lambda g: eps * g.sign())
    moved[0, 0, 4, 4] = stepped(model, x, y, lambda g: -eps * g.sign())[0, 0, 4, 4]
    return moved


def step_in_place(model, x, y, eps):
    x += eps * given.input_gradient(model, x, y).sign()
    return x.clamp_(0, 1)


def only_the_change(model, x, y, eps):
    return (eps * given.input_gradient(model, x, y).sign()).clamp(0, 1)


def random_signs(model, x, y, eps):
    return (x + eps * torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).sign()).clamp(0, 1)


def one_sign_for_an_image(model, x, y, eps):
    return stepped(model, x, y, lambda g: eps * g.sum((1, 2, 3), keepdim=True).sign().expand_as(g))


def in_train_mode(model, x, y, eps):
    model.train()
    pixels = x.clone().requires_grad_()
    gradient = torch.autograd.grad(F.cross_entropy(model(pixels), y), pixels)[0]
    return (x + eps * gradient.sign()).clamp(0, 1)


def for_16_images(model, x, y, eps):
    if len(x) not in (16, 60):
        return x.clone()
    return stepped(model, x, y, lambda g: eps * g.sign())


def the_librarys(model, x, y, eps):
    return FGSM(ThreatModel("linf", eps), stop="never")(model, x, y)


def the_librarys_step(model, x, y, eps):
    gradient = given.input_gradient(model, x, y)
    return (x + ThreatModel("linf", eps).steepest_step(gradient, eps)).clamp(0, 1)


def the_givens(model, x, y, eps):
    return given.fgsm(model, x, y, eps)


# Wrong: the accuracy.


def read(model, x, y, axis=1):
    with torch.no_grad():
        return model.eval()(x).argmax(axis) == y


def after_alone(model, x, y, eps):
    return Accuracy.of(read(model, given.fgsm(model, x, y, eps), y))


def among_the_right(model, x, y, eps):
    before = read(model, x, y)
    return Accuracy.of(read(model, given.fgsm(model, x, y, eps), y)[before])


def no_attack(model, x, y, eps):
    return Accuracy.of(read(model, x, y))


def broken(model, x, y, eps):
    return Accuracy.of(read(model, x, y) & ~read(model, given.fgsm(model, x, y, eps), y))


def mistakes(model, x, y, eps):
    return Accuracy.of(~(read(model, x, y) & read(model, given.fgsm(model, x, y, eps), y)))


def wrong_axis(model, x, y, eps):
    return Accuracy.of(read(model, x, y, 0) & read(model, given.fgsm(model, x, y, eps), y, 0))


def a_float(model, x, y, eps):
    return (read(model, x, y) & read(model, given.fgsm(model, x, y, eps), y)).float().mean().item()


def unchanged_answers(model, x, y, eps):
    with torch.no_grad():
        answer = model.eval()(x).argmax(1)
    return Accuracy.of(read(model, given.fgsm(model, x, y, eps), answer))


def on_successes_only(model, x, y, eps):
    before, after = read(model, x, y), read(model, given.fgsm(model, x, y, eps), y)
    return Accuracy.of(after[before & ~after] if (before & ~after).any() else after)


def eps_in_levels(model, x, y, eps):
    return Accuracy.of(read(model, x, y) & read(model, given.fgsm(model, x, y, eps / 255), y))


def librarys_count(model, x, y, eps):
    return Accuracy.of(~FGSM(ThreatModel("linf", eps)).run(model, x, y).success)


# Wrong: the linear model.


def by_l2(x, y, w, b):
    return ((2 * y - 1) * (x @ w + b)).clamp(min=0) / w.norm()


def by_largest(x, y, w, b):
    return ((2 * y - 1) * (x @ w + b)).clamp(min=0) / w.abs().max()


def by_sum(x, y, w, b):
    return ((2 * y - 1) * (x @ w + b)).clamp(min=0) / w.sum()


def no_bias(x, y, w, b):
    return (x @ w).abs() / w.abs().sum()


def only_margin(x, y, w, b):
    return ((2 * y - 1) * (x @ w + b)).clamp(min=0)


def class_1_only(x, y, w, b):
    return (x @ w + b).clamp(min=0) / w.abs().sum()


def without_labels(x, y, w, b):
    return (x @ w + b).abs() / w.abs().sum()


def negative_eps(x, y, w, b):
    return (2 * y - 1) * (x @ w + b) / w.abs().sum()


def one_for_all(x, y, w, b):
    return (((2 * y - 1) * (x @ w + b)).clamp(min=0) / w.abs().sum()).min()


def known_weights(x, y, w, b):
    """Hard-coded to the number of pixels in the visible check."""
    return ((2 * y - 1) * (x @ w + b)).clamp(min=0) / w[:6].abs().sum()


WRONG = [
    Wrong("input_gradient", "library's own work", minus_sign),
    Wrong("input_gradient", "instead of up", minus_loss),
    Wrong("input_gradient", "train mode", train_mode),
    Wrong("input_gradient", "backward() writes into every one", by_backward),
    Wrong("input_gradient", "wipes the gradients", backward_and_zero_grad),
    Wrong("input_gradient", "changes the tensor", in_place),
    Wrong("input_gradient", "appears to not have been used in the graph", detached),
    Wrong("input_gradient", "returns None", by_data),
    Wrong("input_gradient", "returns None", grad_of_a_copy),
    Wrong("input_gradient", "give the model the one with requires_grad_()", of_another_copy),
    Wrong("input_gradient", "grad can be implicitly created only for scalar outputs", loss_for_each),
    Wrong("input_gradient", "what the model answers", own_answer),
    Wrong("input_gradient", "softmax was taken twice", softmax_twice),
    Wrong("input_gradient", "the label's score", label_score),
    Wrong("input_gradient", "sign already", signed_already),
    Wrong("input_gradient", "returns tuple", a_tuple),
    Wrong("input_gradient", "returns shape", mean_over_images),
    Wrong("input_gradient", "zero everywhere", for_12_images, hidden=True),
    Wrong("input_gradient", "library's own work", left_to_the_given),
    Wrong("input_gradient", "leaves the model's parameters frozen", frozen_for_good),
    Wrong("input_gradient", "zero on images that the model misreads", of_those_read_rightly),
    Wrong("input_gradient", "does not require grad", under_no_grad),
    Wrong("margin_drops", "Write down δ", typed_in_fully, hidden=True),
    Wrong("margin_drops", "L2: 0.224", typed_in),
    Wrong("margin_drops", "|w| is added up", sum_of_weights),
    Wrong("margin_drops", "largest weight", largest_weight),
    Wrong("margin_drops", "a root is missing", no_root),
    Wrong("margin_drops", "swapped", swapped),
    Wrong("margin_drops", "positive number", negative),
    Wrong("margin_drops", "not every pixel can move", corner_in_the_circle),
    Wrong("margin_drops", "no pair", one_number),
    Wrong("fgsm", "down instead of up", downhill),
    Wrong("fgsm", "clamp the result", no_clamp),
    Wrong("fgsm", "clamp the result", clamped_before),
    Wrong("fgsm", "different lengths", without_sign),
    Wrong("fgsm", "different lengths", divided_by_its_length),
    Wrong("fgsm", "leave 255 out", divided_by_255),
    Wrong("fgsm", "should be ε", eps_over_std),
    Wrong("fgsm", "leave 255 out", times_255),
    Wrong("fgsm", "pixels leave [0, 1]", normalized),
    Wrong("fgsm", "not of what the model answers", step_for_its_answer),
    Wrong("fgsm", "misreads stay as they were: step them, too", misread_left_alone),
    Wrong("fgsm", "misreads stay as they were: step them, too", misread_of_zero_gradient),
    Wrong("fgsm", "one step of ε, along the gradient at the image itself", two_half_steps),
    Wrong("fgsm", "one step of ε, along the gradient at the image itself", ten_small_steps),
    Wrong("fgsm", "leaves the model's parameters frozen", weights_frozen_for_good),
    Wrong("fgsm", "1 of ", a_pixel_forgotten),
    Wrong("fgsm", "round nothing", rounded_off),
    Wrong("fgsm", "changes the images", step_in_place),
    Wrong("fgsm", "the change alone", only_the_change),
    Wrong("fgsm", "pixels do not go uphill", random_signs),
    Wrong("fgsm", "the sign of its own gradient", one_sign_for_an_image),
    Wrong("fgsm", "train mode", in_train_mode),
    Wrong("fgsm", "moves no pixel", for_16_images, hidden=True),
    Wrong("fgsm", "library's own work (robustness_lib.attacks", the_librarys),
    Wrong("fgsm", "library's own work", the_librarys_step),
    Wrong("fgsm", "library's own work", the_givens),
    Wrong("still_right", "by accident", after_alone),
    Wrong("still_right", "an image that is misread without an attack counts", among_the_right),
    Wrong("still_right", "without an attack: ask", no_attack),
    Wrong("still_right", "that the attack broke", broken),
    Wrong("still_right", "counts mistakes", mistakes),
    Wrong("still_right", "argmax(1)", wrong_axis),
    Wrong("still_right", "returns float", a_float),
    Wrong("still_right", "did not change its answer", unchanged_answers),
    Wrong("still_right", "an image that is misread without an attack counts", on_successes_only),
    Wrong("still_right", "Of 200 images, right before and still are: 1", eps_in_levels),
    Wrong("still_right", "library's own work", librarys_count),
    Wrong("smallest_eps", "smallest change in L2", by_l2),
    Wrong("smallest_eps", "the largest |w|", by_largest),
    Wrong("smallest_eps", "cancel", by_sum),
    Wrong("smallest_eps", "leaves out b", no_bias),
    Wrong("smallest_eps", "this is the margin", only_margin),
    Wrong("smallest_eps", "turn its sign", class_1_only),
    Wrong("smallest_eps", "its smallest ε is 0", without_labels),
    Wrong("smallest_eps", "its smallest ε is 0", negative_eps),
    Wrong("smallest_eps", "one ε for each image", one_for_all),
    Wrong("smallest_eps", "not the smallest ε", known_weights, hidden=True),
]


# Right, and not the solution's.


def gradient_by_loop(model, x, y):
    """Image by image, last one first; the mode is put back."""
    before, model = model.training, model.eval()
    found = []
    for image, label in reversed(list(zip(x, y, strict=True))):
        pixels = image[None].detach().clone().requires_grad_(True)
        found.insert(0, torch.autograd.grad(F.cross_entropy(model(pixels), label[None]), pixels)[0])
    model.train(before)
    return torch.cat(found)


def gradient_by_mean(model, x, y):
    return gradient_of(model, x, lambda scores: F.cross_entropy(scores, y))


def gradient_by_log_softmax(model, x, y):
    return gradient_of(model, x, lambda scores: -scores.log_softmax(1)[torch.arange(len(y)), y].sum())


def gradient_in_float64(model, x, y):
    model.eval()
    own = copy.deepcopy(model).double()
    pixels = x.double().requires_grad_()
    return torch.autograd.grad(F.cross_entropy(own(pixels), y, reduction="sum"), pixels)[0]


def gradient_by_backward_inputs(model, x, y):
    model.eval()
    pixels = x.clone().requires_grad_()
    F.cross_entropy(model(pixels), y).backward(inputs=[pixels])
    return pixels.grad


def drops_by_steps(w, eps):
    corner, direction = -eps * w.sign(), -eps * w / w.norm()
    return [-(w @ corner), -(w @ direction)]


def drops_in_python(w, eps):
    values = w.tolist()
    return eps * sum(abs(v) for v in values), eps * math.sqrt(sum(v * v for v in values))


def fgsm_by_cases(model, x, y, eps):
    """Pixels without a gradient go down."""
    g = given.input_gradient(model, x, y)
    return torch.where(g > 0, (x + eps).clamp(max=1), (x - eps).clamp(min=0))


def fgsm_by_loop(model, x, y, eps):
    moved = x.clone()
    for i in range(len(x)):
        moved[i] += eps * given.input_gradient(model, x[i:i + 1], y[i:i + 1])[0].sign()
    return torch.minimum(torch.maximum(moved, torch.zeros(())), torch.ones(()))


def fgsm_in_float64(model, x, y, eps):
    return (x.double() + eps * gradient_in_float64(model, x, y).sign()).clamp(0, 1)


def fgsm_of_its_own(model, x, y, eps):
    model.eval()
    delta = torch.zeros_like(x, requires_grad=True)
    loss = F.cross_entropy(model(x + delta), y)
    return torch.clamp(x + eps * torch.autograd.grad(loss, delta)[0].sign(), 0, 1)


@torch.no_grad()
def right_by_loop(model, x, y, eps):
    correct = 0
    for i in range(len(x)):
        one, label = x[i:i + 1], y[i:i + 1]
        if model(one).argmax() == label and model(given.fgsm(model, one, label, eps)).argmax() == label:
            correct += 1
    return Accuracy(correct, len(x))


def right_of_the_survivors(model, x, y, eps):
    """Attacks only what was right, and counts among all."""
    before = read(model, x, y)
    moved = given.fgsm(model, x[before], y[before], eps)
    return Accuracy(int(read(model, moved, y[before]).sum()), len(x))


def right_in_halves(model, x, y, eps):
    found = [torch.tensor([], dtype=torch.bool)]
    for images, labels in zip(x.split(7), y.split(7), strict=True):
        x_adv = fgsm_of_its_own(model, images, labels, eps)
        found.append(read(model, images, labels) & read(model, x_adv, labels))
    return Accuracy.of(torch.cat(found))


def eps_by_loop(x, y, w, b):
    found = []
    for image, label in zip(x, y, strict=True):
        score = float(image @ w + b)
        margin = score if label == 1 else -score
        found.append(max(0.0, margin) / sum(abs(v) for v in w.tolist()))
    return found


def eps_by_where(x, y, w, b):
    score = x @ w + b
    right = (score > 0) == (y == 1)
    return torch.where(right, score.abs() / w.norm(p=1), 0.0)


def eps_in_float32(x, y, w, b):
    return torch.relu(torch.where(y.bool(), 1.0, -1.0) * (x.float() @ w.float() + b.float())) / w.float().abs().sum()


RIGHT = {
    "by loop": {"input_gradient": gradient_by_loop, "margin_drops": drops_in_python, "fgsm": fgsm_by_loop,
                "still_right": right_by_loop, "smallest_eps": eps_by_loop},
    "in other words": {"input_gradient": gradient_by_mean, "margin_drops": drops_by_steps, "fgsm": fgsm_by_cases,
                       "still_right": right_of_the_survivors, "smallest_eps": eps_by_where},
    "in float64 and float32": {"input_gradient": gradient_in_float64, "fgsm": fgsm_in_float64,
                               "smallest_eps": eps_in_float32},
    "of its own": {"input_gradient": gradient_by_backward_inputs, "fgsm": fgsm_of_its_own,
                   "still_right": right_in_halves},
    "by log-softmax": {"input_gradient": gradient_by_log_softmax},
}
