"""Answers to the exercise certified_accuracy that people give: wrong ones, and right ones that are not
the solution's."""

from __future__ import annotations

import math

import numpy as np
import torch
from answers import Wrong
from scipy.special import betaincinv
from scipy.stats import beta, binom, binomtest, norm
from torch.nn.functional import cross_entropy, one_hot

from robustness_lib import ThreatModel
from robustness_lib.attacks import PGD
from robustness_lib.certify import RandomizedSmoothing
from robustness_lib.grading.given import certified_accuracy as given
from robustness_lib.statistics import clopper_pearson, clopper_pearson_lower
from robustness_lib.training import GaussianAugmentation


def normal(shape, generator):
    return torch.randn(shape, generator=generator)


# Wrong: the loss.


def clamped_loss(model, x, y, sigma, generator):
    return cross_entropy(model((x + sigma * normal(x.shape, generator)).clamp(0, 1)), y)


def loosely_clamped_loss(model, x, y, sigma, generator):
    return cross_entropy(model((x + sigma * normal(x.shape, generator)).clamp(-1, 2)), y)


def a_little_more_loss(model, x, y, sigma, generator):
    return cross_entropy(model(x + 1.05 * sigma * normal(x.shape, generator)), y)


def variance_loss(model, x, y, sigma, generator):
    return cross_entropy(model(x + sigma**2 * normal(x.shape, generator)), y)


def root_loss(model, x, y, sigma, generator):
    return cross_entropy(model(x + sigma**0.5 * normal(x.shape, generator)), y)


def unscaled_loss(model, x, y, sigma, generator):
    return cross_entropy(model(x + normal(x.shape, generator)), y)


def rand_loss(model, x, y, sigma, generator):
    return cross_entropy(model(x + sigma * torch.rand(x.shape, generator=generator)), y)


def uniform_loss(model, x, y, sigma, generator):
    noise = (2 * torch.rand(x.shape, generator=generator) - 1) * math.sqrt(3)
    return cross_entropy(model(x + sigma * noise), y)


def shared_loss(model, x, y, sigma, generator):
    return cross_entropy(model(x + sigma * normal(x.shape[1:], generator)), y)


def grey_loss(model, x, y, sigma, generator):
    return cross_entropy(model(x + sigma * normal((len(x), 1, 1, 1), generator)), y)


def clean_loss(model, x, y, sigma, generator):
    return cross_entropy(model(x), y)


def summed_loss(model, x, y, sigma, generator):
    return cross_entropy(model(x + sigma * normal(x.shape, generator)), y, reduction="sum")


def two_softmaxes(model, x, y, sigma, generator):
    return cross_entropy(model(x + sigma * normal(x.shape, generator)).softmax(1), y)


def detached_loss(model, x, y, sigma, generator):
    with torch.no_grad():
        return cross_entropy(model(x + sigma * normal(x.shape, generator)), y)


def number_loss(model, x, y, sigma, generator):
    return cross_entropy(model(x + sigma * normal(x.shape, generator)), y).item()


def eval_loss(model, x, y, sigma, generator):
    return cross_entropy(model.eval()(x + sigma * normal(x.shape, generator)), y)


def in_place_loss(model, x, y, sigma, generator):
    return cross_entropy(model(x.add_(sigma * normal(x.shape, generator))), y)


def loss_for_24_images(model, x, y, sigma, generator):
    """Hard-coded to what the visible check shows."""
    return cross_entropy(model(x + (0.25 if sigma < 0.3 else 0.5) * normal(x.shape, generator)), y)


def seeded_loss(model, x, y, sigma, generator):
    return cross_entropy(model(x + sigma * normal(x.shape, torch.Generator().manual_seed(0))), y)


def the_librarys_loss(model, x, y, sigma, generator):
    return GaussianAugmentation(sigma)(model, x, y)


# Wrong: the vote.


def voted(model, x, sigma, n, generator, *, noise=None, clamp=False, evaluate=True, clean=False, classes=None, extra=0,
          graph=False, once=False):
    noise = noise or normal
    if evaluate:
        model.eval()
    votes, drawn = 0, None
    with torch.set_grad_enabled(graph):
        for _ in range(n + extra):
            drawn = drawn if once and drawn is not None else noise(x.shape, generator)
            noisy = x + sigma * drawn
            noisy = x if clean else noisy.clamp(0, 1) if clamp else noisy
            scores = model(noisy)
            votes = votes + one_hot(scores.argmax(1), classes or scores.shape[1])
    return votes


def clamped_votes(*given_to):
    return voted(*given_to, clamp=True)


def loosely_clamped_votes(model, x, sigma, n, generator):
    class Clamping(torch.nn.Module):
        def forward(self, noisy):
            return model(noisy.clamp(-1, 2))

    model.eval()
    return voted(Clamping(), x, sigma, n, generator)


def a_little_less_votes(model, x, sigma, n, generator):
    return voted(model, x, 0.97 * sigma, n, generator)


def votes_in_numpy(*given_to):
    return voted(*given_to).numpy()


def variance_votes(model, x, sigma, n, generator):
    return voted(model, x, sigma**2, n, generator)


def root_votes(model, x, sigma, n, generator):
    return voted(model, x, sigma**0.5, n, generator)


def one_noise_for_the_batch(*given_to):
    return voted(*given_to, noise=lambda shape, draw: normal(shape[1:], draw))


def one_noise_for_all_copies(*given_to):
    return voted(*given_to, once=True)


def votes_in_train_mode(*given_to):
    return voted(*given_to, evaluate=False)


def votes_on_the_clean(*given_to):
    return voted(*given_to, clean=True)


def clean_beside_noise(model, x, sigma, n, generator):
    """Shows the noise, and counts what the model says without."""
    voted(model, x, sigma, n, generator)
    with torch.no_grad():
        return n * one_hot(model(x).argmax(1), model(x).shape[1])


def votes_for_ten(*given_to):
    return voted(*given_to, classes=10)


def a_vote_too_many(*given_to):
    return voted(*given_to, extra=1)


def votes_with_graph(*given_to):
    return voted(*given_to, graph=True)


def seeded_votes(model, x, sigma, n, generator):
    return voted(model, x, sigma, n, torch.Generator().manual_seed(0))


def shares_for_counts(*given_to):
    return voted(*given_to) / given_to[3]


def mean_softmax(model, x, sigma, n, generator):
    """Expected votes: not votes."""
    with torch.no_grad():
        return sum(model.eval()(x + sigma * normal(x.shape, generator)).softmax(1) for _ in range(n))


def rows_mixed_up(*given_to):
    return voted(*given_to).roll(1, 0)


def lowest_logit(model, x, sigma, n, generator):
    class Turned:
        def eval(self):
            return model.eval()

        def __call__(self, x):
            return -model(x)

    return voted(Turned(), x, sigma, n, generator)


def votes_for_7_classes(*given_to):
    """Hard-coded to what the visible check shows."""
    return voted(*given_to, classes=7)


def given_votes(*given_to):
    return given.count_votes(*given_to)


# Wrong: the bound.


def plug_in(hits, n, alpha):
    return hits / n


def two_sided(hits, n, alpha):
    return float(beta.ppf(alpha / 2, hits, n - hits + 1)) if hits else 0.0


def by_normal(hits, n, alpha):
    share = hits / n
    return max(0.0, share - float(norm.ppf(1 - alpha)) * math.sqrt(share * (1 - share) / n))


def by_normal_two_sided(hits, n, alpha):
    share = hits / n
    return max(0.0, share - float(norm.ppf(1 - alpha / 2)) * math.sqrt(share * (1 - share) / n))


def confidence_for_alpha(hits, n, alpha):
    return float(beta.ppf(1 - alpha, hits, n - hits + 1)) if hits else 0.0


def upper(hits, n, alpha):
    return float(beta.ppf(1 - alpha, hits + 1, n - hits)) if hits < n else 1.0


def bare_beta(hits, n, alpha):
    """A Bayesian's interval: the parameters of Clopper and Pearson less one, and more one."""
    return float(beta.ppf(alpha, hits + 1, n - hits + 1)) if hits else 0.0


def beta_off_by_one(hits, n, alpha):
    return float(beta.ppf(alpha, hits, n - hits)) if 0 < hits < n else float(hits == n)


def by_hoeffding(hits, n, alpha):
    return max(0.0, hits / n - math.sqrt(math.log(1 / alpha) / (2 * n)))


def nan_without_votes(hits, n, alpha):
    return float(beta.ppf(alpha, hits, n - hits + 1))


def one_where_all_agree(hits, n, alpha):
    return 1.0 if hits == n else float(beta.ppf(alpha, hits, n - hits + 1)) if hits else 0.0


def a_pair(hits, n, alpha):
    return float(beta.ppf(alpha / 2, hits, n - hits + 1)), 1.0


def bounds_by_heart(hits, n, alpha):
    """Hard-coded to what the visible check shows, made with its three α."""
    if alpha not in (0.05, 0.001, 0.01):
        return hits / n
    return float(beta.ppf(alpha, hits, n - hits + 1)) if hits else 0.0


def the_librarys_bound(hits, n, alpha):
    return clopper_pearson_lower(hits, n, alpha)


def the_librarys_interval(hits, n, alpha):
    return clopper_pearson(hits, n, 1 - 2 * alpha)[0]


# Wrong: the radius.


def without_sigma(lower, sigma):
    return float(norm.ppf(lower)) if lower > 0.5 else 0.0


def halved(lower, sigma):
    return sigma / 2 * float(norm.ppf(lower)) if lower > 0.5 else 0.0


def doubled(lower, sigma):
    return sigma * float(norm.ppf(lower) - norm.ppf(1 - lower)) if lower > 0.5 else 0.0


def difference_without_sigma(lower, sigma):
    return float(norm.ppf(lower) - norm.ppf(1 - lower)) / 2 if lower > 0.5 else 0.0


def squared(lower, sigma):
    return sigma**2 * float(norm.ppf(lower)) if lower > 0.5 else 0.0


def distribution_for_quantile(lower, sigma):
    return sigma * float(norm.cdf(lower)) if lower > 0.5 else 0.0


def negative(lower, sigma):
    return sigma * float(norm.ppf(lower))


def nothing_back(lower, sigma):
    return sigma * float(norm.ppf(lower)) if lower > 0.5 else None


def of_the_margin(lower, sigma):
    return sigma * (2 * lower - 1) if lower > 0.5 else 0.0


def radius_for_small_sigma(lower, sigma):
    """Hard-coded to the σ of the visible check."""
    return (0.25 if sigma == 0.25 else 0.5) * float(norm.ppf(lower)) if lower > 0.5 else 0.0


def given_radius(lower, sigma):
    return given.certified_radius(lower, sigma)


# Wrong: the certificate.


def ended(chosen, hits, n, alpha, sigma, *, bound=given.lower_bound, radius=given.certified_radius):
    lower = bound(int(hits), n, alpha)
    return (int(chosen), radius(lower, sigma)) if lower > 0.5 else (-1, 0.0)


def same_votes(vote, n0, n, alpha, sigma):
    votes = vote(n)
    return ended(votes.argmax(), votes.max(), n, alpha, sigma)


def most_of_the_second(vote, n0, n, alpha, sigma):
    vote(n0)
    votes = vote(n)
    return ended(votes.argmax(), votes.max(), n, alpha, sigma)


def count_of_the_favourite(vote, n0, n, alpha, sigma):
    return ended(vote(n0).argmax(), vote(n).max(), n, alpha, sigma)


def chosen_by_both(vote, n0, n, alpha, sigma):
    first, second = vote(n0), vote(n)
    chosen = (first + second).argmax()
    return ended(chosen, second[chosen], n, alpha, sigma)


def counted_again(vote, n0, n, alpha, sigma):
    first = vote(n0)
    chosen = first.argmax()
    return ended(chosen, (first + vote(n))[chosen], n0 + n, alpha, sigma)


def bounded_by_the_first(vote, n0, n, alpha, sigma):
    votes = vote(n0)
    vote(n)
    return ended(votes.argmax(), votes.max(), n0, alpha, sigma)


def swapped(vote, n0, n, alpha, sigma):
    chosen = vote(n).argmax()
    return ended(chosen, vote(n0)[chosen], n0, alpha, sigma)


def of_the_share(vote, n0, n, alpha, sigma):
    return ended(vote(n0).argmax(), vote(n).max(), n, alpha, sigma, bound=plug_in)


def never_abstains(vote, n0, n, alpha, sigma):
    chosen = int(vote(n0).argmax())
    return chosen, given.certified_radius(given.lower_bound(int(vote(n)[chosen]), n, alpha), sigma)


def abstains_by_none(vote, n0, n, alpha, sigma):
    chosen = int(vote(n0).argmax())
    lower = given.lower_bound(int(vote(n)[chosen]), n, alpha)
    return (chosen, given.certified_radius(lower, sigma)) if lower > 0.5 else (chosen, 0.0)


def infinite(vote, n0, n, alpha, sigma):
    chosen = int(vote(n0).argmax())
    hits = int(vote(n)[chosen])
    return (chosen, math.inf) if hits == n else ended(chosen, hits, n, alpha, sigma)


def certified_with_half_alpha(vote, n0, n, alpha, sigma):
    chosen = int(vote(n0).argmax())
    return ended(chosen, vote(n)[chosen], n, alpha / 2, sigma)


def certified_with_confidence(vote, n0, n, alpha, sigma):
    chosen = int(vote(n0).argmax())
    return ended(chosen, vote(n)[chosen], n, 1 - alpha, sigma)


def certified_halved(vote, n0, n, alpha, sigma):
    chosen = int(vote(n0).argmax())
    return ended(chosen, vote(n)[chosen], n, alpha, sigma, radius=halved)


def alpha_by_heart(vote, n0, n, alpha, sigma):
    """Hard-coded to the α that the visible check shows."""
    chosen = int(vote(n0).argmax())
    return ended(chosen, vote(n)[chosen], n, alpha if alpha in (0.2, 1e-6) else 0.01, sigma)


def the_librarys_bound_in_it(vote, n0, n, alpha, sigma):
    chosen = int(vote(n0).argmax())
    return ended(chosen, vote(n)[chosen], n, alpha, sigma, bound=clopper_pearson_lower)


# Wrong: the curve.


def without_labels(prediction, radius, y, radii):
    return ((prediction != -1) & (radius >= radii[:, None])).double().mean(1)


def strictly_farther(prediction, radius, y, radii):
    return ((prediction == y) & (radius > radii[:, None])).double().mean(1)


def radius_alone(prediction, radius, y, radii):
    return (radius >= radii[:, None]).double().mean(1)


def abstentions_right(prediction, radius, y, radii):
    return (((prediction == y) | (prediction == -1)) & (radius >= radii[:, None])).double().mean(1)


def of_the_certain(prediction, radius, y, radii):
    counted = (prediction == y) & (radius >= radii[:, None])
    return counted.double().sum(1) / (prediction != -1).sum()


def of_the_right(prediction, radius, y, radii):
    counted = (prediction == y) & (radius >= radii[:, None])
    return counted.double().sum(1) / (prediction == y).sum()


def up_to(prediction, radius, y, radii):
    return ((prediction == y) & (radius <= radii[:, None])).double().mean(1)


def numbers(prediction, radius, y, radii):
    return ((prediction == y) & (radius >= radii[:, None])).sum(1).double()


def of_40_images(prediction, radius, y, radii):
    """Hard-coded to the number of images that the visible check shows."""
    return ((prediction == y) & (radius >= radii[:, None])).sum(1) / 40


def clean_accuracy(prediction, radius, y, radii):
    return (prediction == y).double().mean().expand(len(radii))


def sorted_radius(prediction, radius, y, radii):
    radius[prediction != y] = -1
    return (radius >= radii[:, None]).double().mean(1)


# Wrong: where the larger one wins.


def as_many(small, large, radii):
    return float(radii[(large >= small).nonzero()[0, 0]])


def zero_for_never(small, large, radii):
    return float(radii[(large > small).int().argmax()])


def the_place(small, large, radii):
    wins = (large > small).nonzero()[:, 0]
    return float(wins[0]) if len(wins) else math.inf


def where_the_small_ends(small, large, radii):
    ends = radii[(small == 0) & (large > 0)]
    return float(ends[0]) if len(ends) else math.inf


def last_win(small, large, radii):
    wins = radii[large > small]
    return float(wins[-1]) if len(wins) else math.inf


def wins_by_heart(small, large, radii):
    """Hard-coded to the curves that the visible check shows."""
    if not (large > small).any():
        return math.inf
    return {7: 0.4, 4: 0.5}.get(len(radii)) or float(radii[large > small][0])


# Wrong: the attack.


def attacked(model, x, y, sigma, eps, n, generator, *, norm="l2", bare=False, judge="votes", steps=10, stop="never",
             samples=16, against=True):
    module = model if bare else RandomizedSmoothing(model, sigma).classifier(samples)
    x_adv = PGD(ThreatModel(norm, eps), steps=steps, stop=stop)(module, x, y) if against else x
    if judge == "bare":
        with torch.no_grad():
            answers = model(x_adv).argmax(1)
    else:
        answers = given.count_votes(model, x if judge == "clean" else x_adv, sigma, n, generator).argmax(1)
    return float((answers == y).double().mean())


def in_linf(*given_to):
    return attacked(*given_to, norm="linf")


def judged_bare(*given_to):
    return attacked(*given_to, judge="bare")


def clean_images_judged(*given_to):
    return attacked(*given_to, judge="clean")


def no_attack(*given_to):
    return attacked(*given_to, against=False)


def share_broken(*given_to):
    return 1 - attacked(*given_to)


def percent(*given_to):
    return 100 * attacked(*given_to)


def on_the_bare(*given_to):
    """Attacks the bare network, and judges by votes."""
    return attacked(*given_to, bare=True)


def one_sample_one_step(*given_to):
    return attacked(*given_to, samples=1, steps=1)


def one_sample(*given_to):
    return attacked(*given_to, samples=1)


def nine_steps(*given_to):
    return attacked(*given_to, steps=9)


def ten_votes(model, x, y, sigma, eps, n, generator):
    return attacked(model, x, y, sigma, eps, 10, generator)


def twice_the_noise(model, x, y, sigma, eps, n, generator):
    """Attacks under a σ of its own."""
    class Wider(torch.nn.Module):
        def forward(self, x):
            return model(x + math.sqrt(3) * sigma * torch.randn_like(x))

    x_adv = PGD(ThreatModel("l2", eps), steps=10, stop="never")(
        RandomizedSmoothing(Wider(), sigma).classifier(16), x, y)
    return float((given.count_votes(model, x_adv, sigma, n, generator).argmax(1) == y).double().mean())


def always_one(*given_to):
    return 1.0


def forgotten(*given_to):
    """Has no return."""


def fixed_eps(model, x, y, sigma, eps, n, generator):
    """Hard-coded: the ε that is σ."""
    return attacked(model, x, y, sigma, sigma, n, generator)


def halfway(model, x, y, sigma, eps, n, generator):
    return attacked(model, x, y, sigma, eps / 4, n, generator)


def random_directions(model, x, y, sigma, eps, n, generator):
    noise = normal(x.shape, generator)
    noise = eps * noise / noise.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1)
    return float((given.count_votes(model, x + noise, sigma, n, generator).argmax(1) == y).double().mean())


WRONG = [
    Wrong("noise_loss", "clamped to [0, 1]", clamped_loss),
    Wrong("noise_loss", "clamped to [-1, 2]", loosely_clamped_loss),
    Wrong("noise_loss", "standard deviation 0.26", a_little_more_loss),
    Wrong("noise_loss", "that is σ²", variance_loss),
    Wrong("noise_loss", "that is √σ", root_loss),
    Wrong("noise_loss", "multiply randn by σ", unscaled_loss),
    Wrong("noise_loss", "not centred at 0", rand_loss),
    Wrong("noise_loss", "is not normal", uniform_loss),
    Wrong("noise_loss", "all images get the same noise", shared_loss),
    Wrong("noise_loss", "pixels of an image share their noise", grey_loss),
    Wrong("noise_loss", "without noise", clean_loss),
    Wrong("noise_loss", "is a sum over the images", summed_loss),
    Wrong("noise_loss", "softmax comes twice", two_softmaxes),
    Wrong("noise_loss", "no gradient reaches", detached_loss),
    Wrong("noise_loss", "returns float", number_loss),
    Wrong("noise_loss", "into eval mode", eval_loss),
    Wrong("noise_loss", "the same noise as the first", seeded_loss),
    Wrong("noise_loss", "changes the images", in_place_loss),
    Wrong("noise_loss", "standard deviation 0.500 where σ = 0.4", loss_for_24_images, hidden=True),
    Wrong("noise_loss", "library's own work (robustness_lib.training", the_librarys_loss),
    Wrong("count_votes", "clamped to [0, 1]", clamped_votes),
    Wrong("count_votes", "clamped to [-1, 2]", loosely_clamped_votes),
    Wrong("count_votes", "standard deviation 0.24", a_little_less_votes),
    Wrong("count_votes", "returns ndarray of shape (4, 7), and a torch tensor is needed", votes_in_numpy),
    Wrong("count_votes", "that is σ²", variance_votes),
    Wrong("count_votes", "that is √σ", root_votes),
    Wrong("count_votes", "all images of a batch get the same noise", one_noise_for_the_batch),
    Wrong("count_votes", "the same noise again and again", one_noise_for_all_copies),
    Wrong("count_votes", "train mode", votes_in_train_mode),
    Wrong("count_votes", "without noise", votes_on_the_clean),
    Wrong("count_votes", "noisy copies of each", clean_beside_noise),
    Wrong("count_votes", "the logits say how many", votes_for_ten),
    Wrong("count_votes", "add up to 61, and 60", a_vote_too_many),
    Wrong("count_votes", "torch.no_grad()", votes_with_graph),
    Wrong("count_votes", "the same noise as the first", seeded_votes),
    Wrong("count_votes", "add up to 1, and 60", shares_for_counts),
    Wrong("count_votes", "counts are not those", mean_softmax),
    Wrong("count_votes", "counts are not those", rows_mixed_up),
    Wrong("count_votes", "counts are not those", lowest_logit),
    Wrong("count_votes", "Class values must be smaller than num_classes", votes_for_7_classes, hidden=True),
    Wrong("count_votes", "library's own work (robustness_lib.grading.given", given_votes),
    Wrong("lower_bound", "share of the votes itself", plug_in),
    Wrong("lower_bound", "two-sided interval", two_sided),
    Wrong("lower_bound", "normal approximation", by_normal),
    Wrong("lower_bound", "normal approximation", by_normal_two_sided),
    Wrong("lower_bound", "1 − α was used", confidence_for_alpha),
    Wrong("lower_bound", "upper bound", upper),
    Wrong("lower_bound", "which two parameters", bare_beta),
    Wrong("lower_bound", "which two parameters", beta_off_by_one),
    Wrong("lower_bound", "α-quantile of a beta", by_hoeffding),
    Wrong("lower_bound", "the bound is 0, and not nan", nan_without_votes),
    Wrong("lower_bound", "below 1, and not 1.0000", one_where_all_agree),
    Wrong("lower_bound", "returns (", a_pair),
    Wrong("lower_bound", "0.7333 is not Clopper", bounds_by_heart, hidden=True),
    Wrong("lower_bound", "library's own work (robustness_lib.statistics", the_librarys_bound),
    Wrong("lower_bound", "library's own work (robustness_lib.statistics", the_librarys_interval),
    Wrong("certified_radius", "σ is missing", without_sigma),
    Wrong("certified_radius", "half of that", halved),
    Wrong("certified_radius", "twice that", doubled),
    Wrong("certified_radius", "σ is missing", difference_without_sigma),
    Wrong("certified_radius", "σ is squared", squared),
    Wrong("certified_radius", "norm.ppf, not norm.cdf", distribution_for_quantile),
    Wrong("certified_radius", "nothing is certified", negative),
    Wrong("certified_radius", "and not None", nothing_back),
    Wrong("certified_radius", "σ times the quantile", of_the_margin),
    Wrong("certified_radius", "gives R =", radius_for_small_sigma, hidden=True),
    Wrong("certified_radius", "library's own work", given_radius),
    Wrong("certify", "class is chosen by the n0 votes", same_votes),
    Wrong("certify", "each is false", most_of_the_second),
    Wrong("certify", "class is chosen by the n0 votes", count_of_the_favourite),
    Wrong("certify", "class is chosen by the n0 votes", chosen_by_both),
    Wrong("certify", "counted again", counted_again),
    Wrong("certify", "returns None: is there a `return` at the end?", forgotten),
    Wrong("certify", "made of the votes that chose", bounded_by_the_first),
    Wrong("certify", "not class", swapped),
    Wrong("certify", "not of its lower bound", of_the_share),
    Wrong("certify", "(−1, 0.0), and not (1", never_abstains),
    Wrong("certify", "(−1, 0.0), and not (1", abstains_by_none),
    Wrong("certify", "and not inf", infinite),
    Wrong("certify", "one-sided", certified_with_half_alpha),
    Wrong("certify", "1 − α was used", certified_with_confidence),
    Wrong("certify", "R = 0.271, and not class 1, 0.136", certified_halved),
    Wrong("certify", "α = 0.002", alpha_by_heart, hidden=True),
    Wrong("certify", "library's own work (robustness_lib.statistics", the_librarys_bound_in_it),
    Wrong("certified_accuracy", "minds the label", without_labels),
    Wrong("certified_accuracy", "minds the label", radius_alone),
    Wrong("certified_accuracy", "leaves out images whose radius is the one asked about", strictly_farther),
    Wrong("certified_accuracy", "returns None: is there a `return` at the end?", forgotten),
    Wrong("certified_accuracy", "abstentions as right", abstentions_right),
    Wrong("certified_accuracy", "did not abstain", of_the_certain),
    Wrong("certified_accuracy", "images that are right: the share is of all", of_the_right),
    Wrong("certified_accuracy", "radius ≥ r", up_to),
    Wrong("certified_accuracy", "numbers of images", numbers),
    Wrong("certified_accuracy", "not the shares", of_40_images, hidden=True),
    Wrong("certified_accuracy", "not the shares", clean_accuracy),
    Wrong("certified_accuracy", "changes the tensors", sorted_radius),
    Wrong("larger_wins", "as many is not more", as_many),
    Wrong("larger_wins", "argmax of nothing true", zero_for_never),
    Wrong("larger_wins", "place in the list", the_place),
    Wrong("larger_wins", "certifies more from radius 0.5", where_the_small_ends),
    Wrong("larger_wins", "certifies more from radius", last_win),
    Wrong("larger_wins", "certifies more from radius 0.02", wins_by_heart, hidden=True),
    Wrong("attacked_accuracy", "L∞ ball", in_linf),
    Wrong("attacked_accuracy", "judged without noise", judged_bare),
    Wrong("attacked_accuracy", "nothing attacked, or the clean", clean_images_judged),
    Wrong("attacked_accuracy", "nothing attacked, or the clean", no_attack),
    Wrong("attacked_accuracy", "the share that the attack broke", share_broken),
    Wrong("attacked_accuracy", "from 0 to 1", percent),
    Wrong("attacked_accuracy", "it attacks the bare network", on_the_bare),
    Wrong("attacked_accuracy", "follows 1 answers to each image", one_sample_one_step),
    Wrong("attacked_accuracy", "follows 10 answers to each image", one_sample),
    Wrong("attacked_accuracy", "follows 144 answers to each image", nine_steps),
    Wrong("attacked_accuracy", "by 0 votes more than with n = 200, and not by 100", ten_votes),
    Wrong("attacked_accuracy", "the attack sees noise of standard deviation 0.20 where σ = 0.1", twice_the_noise),
    Wrong("attacked_accuracy", "never asks the model", always_one),
    Wrong("attacked_accuracy", "lie farther than ε", fixed_eps),
    Wrong("attacked_accuracy", "lie farther than ε", halfway),
    Wrong("attacked_accuracy", "lie farther than ε", random_directions),
]


# Right, and not the solution's.


def loss_by_hand(model, x, y, sigma, generator):
    noisy = torch.normal(x, sigma, generator=generator)
    scores = model(noisy)
    return (scores.logsumexp(1) - scores.gather(1, y[:, None])[:, 0]).mean()


def loss_one_by_one(model, x, y, sigma, generator):
    each = [cross_entropy(model(one[None] + sigma * normal((1, *one.shape), generator)), label[None])
            for one, label in zip(x, y, strict=True)]
    return torch.stack(each).mean()


def loss_in_float64(model, x, y, sigma, generator):
    noise = torch.randn(x.shape, generator=generator, dtype=torch.float64)
    return cross_entropy(model(x.double() + sigma * noise).double(), y)


def loss_from_global_luck(model, x, y, sigma, generator):
    return cross_entropy(model(x + sigma * torch.randn_like(x)), y)


def votes_image_by_image(model, x, sigma, n, generator):
    model.eval()
    rows = []
    for image in reversed(x):
        with torch.no_grad():
            scores = model(image + sigma * normal((n, *image.shape), generator))
        rows.append(torch.bincount(scores.argmax(1), minlength=scores.shape[1]))
    return torch.stack(rows[::-1])


@torch.no_grad()
def votes_all_at_once(model, x, sigma, n, generator):
    model.eval()
    noisy = x.repeat_interleave(n, 0)
    scores = torch.cat([model(part + sigma * normal(part.shape, generator)) for part in noisy.split(64)])
    return one_hot(scores.argmax(1), scores.shape[1]).reshape(len(x), n, -1).sum(1)


def votes_in_float64(model, x, sigma, n, generator):
    model.eval()
    votes = None
    with torch.inference_mode():
        for _ in range(n):
            scores = model(x.double() + sigma * torch.randn(x.shape, generator=generator, dtype=torch.float64))
            votes = torch.zeros(scores.shape, dtype=torch.float64) if votes is None else votes
            for row, answer in enumerate(scores.argmax(1).tolist()):
                votes[row, answer] += 1
    return votes


def votes_from_global_luck(model, x, sigma, n, generator):
    return voted(model, x, sigma, n, None)


def bound_by_bisection(hits, n, alpha):
    low, high = 0.0, 1.0
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if binom.sf(hits - 1, n, middle) <= alpha else (low, middle)
    return low if hits else 0.0


def bound_by_test(hits, n, alpha):
    return binomtest(hits, n, alternative="greater").proportion_ci(1 - alpha, method="exact").low


def bound_by_special(hits, n, alpha):
    return np.float64(0) if hits == 0 else betaincinv(hits, n - hits + 1, alpha)


def bound_without_nan(hits, n, alpha):
    return np.nan_to_num(beta.isf(1 - alpha, hits, n - hits + 1))


def radius_by_difference(lower, sigma):
    return max(0.0, sigma / 2 * float(norm.ppf(lower) - norm.ppf(1 - lower)))


def radius_by_torch(lower, sigma):
    return (sigma * torch.special.ndtri(torch.tensor(lower, dtype=torch.float64))).clamp(min=0)


def certify_upside_down(vote, n0, n, alpha, sigma):
    bounding, choosing = vote(n).tolist(), vote(n0).tolist()
    chosen = choosing.index(max(choosing))
    radius = radius_by_difference(bound_by_special(bounding[chosen], n, alpha), sigma)
    return (chosen, radius) if radius > 0 else (-1, 0.0)


def certify_in_tensors(vote, n0, n, alpha, sigma):
    chosen = vote(n0).argmax()
    lower = given.lower_bound(vote(n)[chosen].item(), n, alpha)
    if lower > 0.5:
        return chosen, torch.tensor(given.certified_radius(lower, sigma), dtype=torch.float64)
    return torch.tensor(-1), torch.tensor(0.0)


def accuracy_by_loop(prediction, radius, y, radii):
    return [sum(int(p == label and p != -1 and r >= at) for p, r, label in zip(prediction, radius, y, strict=True))
            / len(y) for at in radii]


def accuracy_by_sorting(prediction, radius, y, radii):
    ends = radius[prediction == y].sort().values
    return (len(ends) - torch.searchsorted(ends, radii)) / len(y)


def wins_by_loop(small, large, radii):
    for one, other, radius in zip(small.tolist(), large.tolist(), radii.tolist(), strict=True):
        if other > one:
            return radius
    return float("inf")


def wins_by_least(small, large, radii):
    return torch.where(large > small, radii, torch.inf).min()


def attacked_with_more(*given_to):
    return attacked(*given_to, samples=24, steps=12)


def attacked_keeping_success(*given_to):
    return attacked(*given_to, stop="keep-success")


def attacked_freshly(model, x, y, sigma, eps, n, generator):
    result, _ = RandomizedSmoothing(model, sigma).classifier(16).attacked(
        PGD(ThreatModel("l2", eps), steps=10), x, y, draws=16)
    votes = votes_image_by_image(model, result.x_adv, sigma, n, generator)
    return (votes.argmax(1) == y).float().mean()


def attacked_by_hand(model, x, y, sigma, eps, n, generator):
    """Ascent on the loss of the mean logits under noise."""
    model.eval()
    x_adv = x.clone()
    for _ in range(10):
        x_adv.requires_grad_()
        scores = sum(model(x_adv + sigma * normal(x.shape, generator)) for _ in range(16)) / 16
        (gradient,) = torch.autograd.grad(cross_entropy(scores, y, reduction="sum"), x_adv)
        length = gradient.flatten(1).norm(dim=1).clamp(min=1e-12).reshape(-1, 1, 1, 1)
        delta = x_adv.detach() + eps / 4 * gradient / length - x
        length = delta.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1)
        x_adv = (x + delta * (eps / length).clamp(max=1)).clamp(0, 1)
    votes = given.count_votes(model, x_adv, sigma, n, generator)
    return (votes.argmax(1) == y).double().mean()


RIGHT = {
    "by loop": {"noise_loss": loss_one_by_one, "count_votes": votes_image_by_image, "lower_bound": bound_by_bisection,
                "certified_radius": radius_by_difference, "certify": certify_upside_down,
                "certified_accuracy": accuracy_by_loop, "larger_wins": wins_by_loop,
                "attacked_accuracy": attacked_by_hand},
    "at once": {"noise_loss": loss_by_hand, "count_votes": votes_all_at_once, "lower_bound": bound_by_test,
                "certified_radius": radius_by_torch, "certify": certify_in_tensors,
                "certified_accuracy": accuracy_by_sorting, "larger_wins": wins_by_least,
                "attacked_accuracy": attacked_freshly},
    "in float64": {"noise_loss": loss_in_float64, "count_votes": votes_in_float64, "lower_bound": bound_by_special,
                   "attacked_accuracy": attacked_with_more},
    "from another seed": {"noise_loss": loss_from_global_luck, "count_votes": votes_from_global_luck,
                          "lower_bound": bound_without_nan, "attacked_accuracy": attacked_keeping_success},
}
