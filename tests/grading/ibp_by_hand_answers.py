"""Answers to the exercise ibp_by_hand that people give: wrong ones, and right ones that are not the solution's."""

from __future__ import annotations

import torch
from answers import Wrong
from torch import nn

from robustness_lib import ThreatModel
from robustness_lib.certify.interval_bounds import interval_bounds, interval_margins
from robustness_lib.grading.given import ibp_by_hand as given


def halves(lower, upper):
    return (lower + upper) / 2, (upper - lower) / 2


# Wrong: a linear layer.


def linear(weight, bias, lower, upper, *, radius_by=torch.abs, scale=1.0, shift=1.0, widen=0.0):
    centre, radius = halves(lower, upper)
    centre, radius = centre @ weight.T + shift * bias, scale * radius @ radius_by(weight).T + widen * bias
    return centre - radius, centre + radius


def radius_by_w(*given_to):
    return linear(*given_to, radius_by=lambda weight: weight)


def ends_pushed_through(weight, bias, lower, upper):
    return lower @ weight.T + bias, upper @ weight.T + bias


def ends_sorted(*given_to):
    ends = torch.stack(ends_pushed_through(*given_to))
    return ends.amin(0), ends.amax(0)


def bias_in_the_radius(*given_to):
    return linear(*given_to, widen=1.0)


def no_bias(*given_to):
    return linear(*given_to, shift=0.0)


def radius_twice(*given_to):
    return linear(*given_to, scale=2.0)


def radius_halved(*given_to):
    return linear(*given_to, scale=0.5)


def centre_and_radius(*given_to):
    return halves(*linear(*given_to))


def upper_first(*given_to):
    return linear(*given_to)[::-1]


def a_layer_of_the_librarys(weight, bias, lower, upper):
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.weight.data, layer.bias.data = weight, bias
    radius = float((upper - lower).max() / 2)
    return interval_bounds(layer, ((lower + upper) / 2).clamp(0, 1), ThreatModel("linf", radius), pixel_box=False)


def of_one_box(weight, bias, lower, upper):
    """The radius of the largest box for all."""
    centre, radius = halves(lower, upper)
    centre, radius = centre @ weight.T + bias, radius.amax(0) @ weight.abs().T
    return centre - radius, centre + radius


def in_place(weight, bias, lower, upper):
    centre = (lower + upper) / 2
    radius = upper.sub_(lower).div_(2) @ weight.abs().T
    return centre @ weight.T + bias - radius, centre @ weight.T + bias + radius


def of_seven_by_four(weight, bias, lower, upper):
    """Hard-coded to the shapes that the visible check shows."""
    return linear(weight, bias, lower, upper) if len(lower) == 7 else (lower, upper)


def ends_as_numpy(*given_to):
    return tuple(end.numpy() for end in linear(*given_to))


# Wrong: ReLU.


def on_centre_and_radius(function, lower, upper):
    centre, radius = halves(lower, upper)
    return function(centre) - function(radius), function(centre) + function(radius)


def on_the_centre(function, lower, upper):
    centre, radius = halves(lower, upper)
    return function(centre) - radius, function(centre) + radius


def always_relu(function, lower, upper):
    return lower.relu(), upper.relu()


def rising_turned_round(function, lower, upper):
    return function(upper), function(lower)


def a_bound_for_all(function, lower, upper):
    return function(lower) - 1, function(upper) + 1


def for_6_by_5(function, lower, upper):
    """Hard-coded to the shape that the visible check shows."""
    return (function(lower), function(upper)) if lower.shape == (6, 5) else (lower, upper)


# Wrong: the network.


def through(layers, x, eps, *, cut=True, relu=True, skip=None, strict=True, after=False):
    lower, upper = x - eps, x + eps
    if cut:
        lower, upper = lower.clamp(0, 1), upper.clamp(0, 1)
    for place, layer in enumerate(layers):
        if place == skip:
            continue
        if isinstance(layer, nn.Linear):
            lower, upper = given.through_linear(layer.weight, layer.bias, lower, upper)
        elif isinstance(layer, nn.Flatten) or (isinstance(layer, nn.ReLU) and relu):
            lower, upper = layer(lower), layer(upper)
        elif strict and not isinstance(layer, nn.ReLU):
            raise TypeError
    return (lower.relu(), upper.relu()) if after else (lower, upper)


def pixel_box_ignored(*given_to):
    return through(*given_to, cut=False)


def twice_eps(layers, x, eps):
    return through(layers, x, 2 * eps)


def half_eps(layers, x, eps):
    return through(layers, x, eps / 2)


def no_relu(*given_to):
    return through(*given_to, relu=False)


def a_relu_too_many(*given_to):
    return through(*given_to, after=True)


def passes_over_layers(*given_to):
    return through(*given_to, strict=False)


def the_rest_is_linear(layers, x, eps):
    lower, upper = (x - eps).clamp(0, 1), (x + eps).clamp(0, 1)
    for layer in layers:
        if isinstance(layer, nn.Flatten | nn.ReLU):
            lower, upper = layer(lower), layer(upper)
        else:
            lower, upper = given.through_linear(layer.weight, layer.bias, lower, upper)
    return lower, upper


def the_rest_only_rises(layers, x, eps):
    """Whatever has no weight is taken for a function that never falls."""
    lower, upper = (x - eps).clamp(0, 1), (x + eps).clamp(0, 1)
    for layer in layers:
        if hasattr(layer, "weight"):
            if not isinstance(layer, nn.Linear):
                raise TypeError
            lower, upper = given.through_linear(layer.weight, layer.bias, lower, upper)
        else:
            lower, upper = layer(lower), layer(upper)
    return lower, upper


def whatever_has_weights(layers, x, eps):
    lower, upper = (x - eps).clamp(0, 1), (x + eps).clamp(0, 1)
    for layer in layers:
        if hasattr(layer, "weight"):
            weight = layer.weight if layer.weight.dim() == 2 else layer.weight.diag()
            lower, upper = given.through_linear(weight, layer.bias, lower, upper)
        elif isinstance(layer, nn.Flatten | nn.ReLU):
            lower, upper = layer(lower), layer(upper)
        else:
            raise TypeError
    return lower, upper


def by_assertion(layers, x, eps):
    assert all(isinstance(layer, nn.Flatten | nn.ReLU | nn.Linear) for layer in layers)
    return through(layers, x, eps)


def by_value_error(layers, x, eps):
    if not all(isinstance(layer, nn.Flatten | nn.ReLU | nn.Linear) for layer in layers):
        raise ValueError("unknown layer")
    return through(layers, x, eps)


def only_the_last_is_looked_at(layers, x, eps):
    if not isinstance(layers[-1], nn.Linear):
        raise TypeError
    return through(layers, x, eps, strict=False)


def the_image_itself(layers, x, eps):
    return through(layers, x, 0.0)


def ends_as_images(layers, x, eps):
    """Pushes the darkest and the brightest image through."""
    ends = []
    for end in ((x - eps).clamp(0, 1), (x + eps).clamp(0, 1)):
        for layer in layers:
            if not isinstance(layer, nn.Linear | nn.ReLU | nn.Flatten):
                raise TypeError
            end = layer(end)
        ends.append(end)
    return torch.minimum(*ends), torch.maximum(*ends)


def by_sampling(layers, x, eps):
    net = nn.Sequential(*layers)
    if not all(isinstance(layer, nn.Linear | nn.ReLU | nn.Flatten) for layer in net):
        raise TypeError
    draw = torch.Generator().manual_seed(0)
    found = torch.stack([net((x + eps * (2 * torch.rand(x.shape, generator=draw) - 1)).clamp(0, 1))
                         for _ in range(100)])
    return found.amin(0), found.amax(0)


def the_librarys_box(layers, x, eps):
    return interval_bounds(nn.Sequential(*layers), x, ThreatModel("linf", eps))


def the_given_box(layers, x, eps):
    return given.box(layers, x, eps)


def three_layers(layers, x, eps):
    """Written for the visible check's net."""
    if not all(isinstance(layer, nn.Flatten | nn.ReLU | nn.Linear) for layer in layers):
        raise TypeError
    _, first, _, second, _, third, *_ = layers
    return through([nn.Flatten(), first, nn.ReLU(), second, nn.ReLU(), third], x, eps)


# Wrong: the margins.


def lead(net, x, y, eps, *, sign=1, label=torch.inf, bias=1.0, absolute=True):
    centre, radius = halves(*given.box(net[:-1], x, eps))
    weight, shift = net[-1].weight, bias * net[-1].bias
    rows = weight[y][:, None] - weight
    by = rows.abs() if absolute else rows
    least = (rows * centre[:, None]).sum(2) + shift[y][:, None] - shift - (by * radius[:, None]).sum(2)
    return (sign * least).scatter(1, y[:, None], label)


def at_infinity(found, y):
    return found.scatter(1, y[:, None], torch.inf)


def difference_of_bounds(net, x, y, eps):
    lower, upper = given.box(net, x, eps)
    return at_infinity(lower.gather(1, y[:, None]) - upper, y)


def the_wrong_way_round(net, x, y, eps):
    lower, upper = given.box(net, x, eps)
    return at_infinity(upper - lower.gather(1, y[:, None]), y)


def of_the_prediction(net, x, y, eps):
    return at_infinity(lead(net, x, net(x).argmax(1), eps, label=0.0), y)


def label_ignored(net, x, y, eps):
    return at_infinity(lead(net, x, 0 * y, eps, label=0.0), y)


def margins_as_numpy(*given_to):
    return lead(*given_to).numpy()


def zero_at_the_label(*given_to):
    return lead(*given_to, label=0.0)


def margins_twice_eps(net, x, y, eps):
    return lead(net, x, y, 2 * eps)


def bias_forgotten(*given_to):
    return lead(*given_to, bias=0.0)


def rows_without_absolute(*given_to):
    return lead(*given_to, absolute=False)


def of_the_image_itself(net, x, y, eps):
    return lead(net, x, y, 0.0)


def least_only(*given_to):
    return lead(*given_to).amin(1)


def label_fixed(net, x, y, eps):
    """The label's own answer less the others' upper ends."""
    z, (_, upper) = net(x), given.box(net, x, eps)
    return at_infinity(z.gather(1, y[:, None]) - upper, y)


def the_librarys_margins(net, x, y, eps):
    return interval_margins(net, x, y, ThreatModel("linf", eps))


# Wrong: the verdicts.


def said(margins, broken, above, fell=None):
    fell = broken if fell is None else fell
    return ["certified" if sure else "broken" if hit else "open"
            for sure, hit in zip(above.tolist(), fell.tolist(), strict=True)]


def from_zero_on(margins, broken, tolerance):
    return said(margins, broken, margins.amin(1) >= 0)


def above_zero(margins, broken, tolerance):
    return said(margins, broken, margins.amin(1) > 0)


def open_is_broken(margins, broken, tolerance):
    sure = margins.amin(1) > tolerance
    return said(margins, broken, sure, ~sure)


def any_class(margins, broken, tolerance):
    return said(margins, broken, margins.masked_fill(margins == torch.inf, -torch.inf).amax(1) > tolerance)


def everything_standing(margins, broken, tolerance):
    return said(margins, broken, ~broken)


def broken_is_open(margins, broken, tolerance):
    return said(margins, broken, margins.amin(1) > tolerance, torch.zeros_like(broken))


def truth_values(margins, broken, tolerance):
    return margins.amin(1) > tolerance


def other_words(margins, broken, tolerance):
    return ["robust" if sure else "open" for sure in margins.amin(1) > tolerance]


def the_mean(margins, broken, tolerance):
    return said(margins, broken, margins.nan_to_num(posinf=0).mean(1) > tolerance)


def fixed_tolerance(margins, broken, tolerance):
    """Hard-coded to the tolerance that the visible check shows."""
    return said(margins, broken, margins.amin(1) > 1e-3)


WRONG = [
    Wrong("through_linear", "goes through |W|, not W", radius_by_w),
    Wrong("through_linear", "the two change places", ends_pushed_through),
    Wrong("through_linear", "two corners only", ends_sorted),
    Wrong("through_linear", "adds the bias to the radius", bias_in_the_radius),
    Wrong("through_linear", "the bias is missing", no_bias),
    Wrong("through_linear", "twice what it is", radius_twice),
    Wrong("through_linear", "half of what it is", radius_halved),
    Wrong("through_linear", "the centre and the radius", centre_and_radius),
    Wrong("through_linear", "upper end first", upper_first),
    Wrong("through_linear", "library's own work (robustness_lib.certify", a_layer_of_the_librarys),
    Wrong("through_linear", "library's own work (robustness_lib.grading.given", given.through_linear),
    Wrong("through_linear", "larger than it must be", of_one_box),
    Wrong("through_linear", "changes the tensors", in_place),
    Wrong("through_linear", "returns ndarray and ndarray", ends_as_numpy),
    Wrong("through_linear", "returns shapes", of_seven_by_four, hidden=True),
    Wrong("through_rising", "to the centre and the radius", on_centre_and_radius),
    Wrong("through_rising", "to the centre and the radius", on_the_centre),
    Wrong("through_rising", "use the function it is given", always_relu),
    Wrong("through_rising", "upper end first", rising_turned_round),
    Wrong("through_rising", "larger than it must be", a_bound_for_all),
    Wrong("through_rising", "no bound", for_6_by_5, hidden=True),
    Wrong("box", "leaves the pixel box aside", pixel_box_ignored),
    Wrong("box", "one for 2ε", twice_eps),
    Wrong("box", "one for ε/2", half_eps),
    Wrong("box", "leaves out the ReLU", no_relu),
    Wrong("box", "behind the last layer", a_relu_too_many),
    Wrong("box", "a bound for a net with Tanh", passes_over_layers),
    Wrong("box", "meets Tanh, for which it has no rule, and raises AttributeError", the_rest_is_linear),
    Wrong("box", "a bound for a net with Tanh", the_rest_only_rises),
    Wrong("box", "a bound for a net with BatchNorm1d", whatever_has_weights),
    Wrong("box", "raises AssertionError: ask for the layers that it knows", by_assertion),
    Wrong("box", "raises ValueError: ask for the layers that it knows", by_value_error),
    Wrong("box", "a bound for a net with Tanh", only_the_last_is_looked_at),
    Wrong("box", "lies outside", the_image_itself),
    Wrong("box", "lies outside", ends_as_images),
    Wrong("box", "lies outside", by_sampling),
    Wrong("box", "library's own work (robustness_lib.certify", the_librarys_box),
    Wrong("box", "library's own work (robustness_lib.grading.given", the_given_box),
    Wrong("box", "returns shapes", three_layers, hidden=True),
    Wrong("margins", "the difference of the bounds", difference_of_bounds),
    Wrong("margins", "the other way round", the_wrong_way_round),
    Wrong("margins", "takes the predicted label", of_the_prediction),
    Wrong("margins", "ignores the label", label_ignored),
    Wrong("margins", "put ∞ there", zero_at_the_label),
    Wrong("margins", "returns ndarray", margins_as_numpy),
    Wrong("margins", "one for 2ε", margins_twice_eps),
    Wrong("margins", "bias is missing", bias_forgotten),
    Wrong("margins", "not the bound of the difference", rows_without_absolute),
    Wrong("margins", "the margin of the image itself", of_the_image_itself),
    Wrong("margins", "a bound for each image and class", least_only),
    Wrong("margins", "the label's own answer", label_fixed),
    Wrong("margins", "library's own work (robustness_lib.certify", the_librarys_margins),
    Wrong("verdicts", "strictly above", from_zero_on),
    Wrong("verdicts", "rounding alone", above_zero),
    Wrong("verdicts", "it is open until an attack breaks it", open_is_broken),
    Wrong("verdicts", "all of them must be", any_class),
    Wrong("verdicts", "all of them must be", everything_standing),
    Wrong("verdicts", "what the attack broke is called open", broken_is_open),
    Wrong("verdicts", "a list of 40 words", truth_values),
    Wrong("verdicts", "'robust' in it", other_words),
    Wrong("verdicts", "all of them must be", the_mean),
    Wrong("verdicts", "rounding alone", fixed_tolerance, hidden=True),
]


# Right, and not the solution's.


def linear_by_signs(weight, bias, lower, upper):
    up, down = weight.clamp(min=0), weight.clamp(max=0)
    return lower @ up.T + upper @ down.T + bias, upper @ up.T + lower @ down.T + bias


def linear_by_loop(weight, bias, lower, upper):
    low, high = [], []
    for row, shift in zip(weight, bias, strict=True):
        low.append(torch.where(row > 0, lower, upper) @ row + shift)
        high.append(torch.where(row > 0, upper, lower) @ row + shift)
    return torch.stack(low, 1), torch.stack(high, 1)


def linear_in_float64(weight, bias, lower, upper):
    return linear(*(part.double() for part in (weight, bias, lower, upper)))


def rising_as_a_list(function, lower, upper):
    return [function(end.clone()) for end in (lower, upper)]


def rising_in_float64(function, lower, upper):
    return function(lower.double()), function(upper.double())


def rising_stacked(function, lower, upper):
    ends = function(torch.stack([lower, upper]))
    return ends[0], ends[1]


def box_by_signs(layers, x, eps):
    lower, upper = torch.clamp(x - eps, min=0), torch.clamp(x + eps, max=1)
    for layer in layers:
        match layer:
            case nn.Linear():
                lower, upper = linear_by_signs(layer.weight, layer.bias, lower, upper)
            case nn.ReLU() | nn.Flatten():
                lower, upper = layer(lower), layer(upper)
            case _:
                raise TypeError(layer)
    return lower, upper


def box_one_by_one(layers, x, eps):
    found = [box_by_signs(layers, image[None], eps) for image in x]
    return tuple(torch.cat(ends) for ends in zip(*found, strict=True))


def box_in_float64(layers, x, eps):
    lower, upper = (x.double() - eps).clamp(0, 1).flatten(1), (x.double() + eps).clamp(0, 1).flatten(1)
    for layer in layers:
        if isinstance(layer, nn.Linear):
            lower, upper = linear_in_float64(layer.weight, layer.bias, lower, upper)
        elif isinstance(layer, nn.ReLU):
            lower, upper = lower.relu(), upper.relu()
        elif not isinstance(layer, nn.Flatten):
            raise TypeError(f"what is {layer}?")
    return lower, upper


def margins_by_loop(net, x, y, eps):
    lower, upper = given.box(net[:-1], x, eps)
    weight, bias = net[-1].weight, net[-1].bias
    found = torch.full((len(x), len(bias)), torch.inf)
    for i in range(len(x)):
        for j in range(len(bias)):
            if j != y[i]:
                row = weight[y[i]] - weight[j]
                found[i, j] = torch.where(row > 0, lower[i], upper[i]) @ row + bias[y[i]] - bias[j]
    return found


def margins_by_a_layer(net, x, y, eps):
    """One label after the other, with a last layer that is the difference."""
    found = torch.empty(len(x), net[-1].out_features)
    lower, upper = box_by_signs(net[:-1], x, eps)
    for label in y.unique():
        rows, last = y == label, net[-1]
        least, _ = linear_by_signs(last.weight[label] - last.weight, last.bias[label] - last.bias, lower[rows],
                                   upper[rows])
        least[:, label] = torch.inf
        found[rows] = least
    return found


def margins_in_float64(net, x, y, eps):
    centre, radius = halves(*(end.double() for end in given.box(net[:-1], x, eps)))
    rows = (net[-1].weight[y][:, None] - net[-1].weight).double()
    shift = (net[-1].bias[y][:, None] - net[-1].bias).double()
    least = torch.einsum("nkd,nd->nk", rows, centre) - torch.einsum("nkd,nd->nk", rows.abs(), radius) + shift
    least[torch.arange(len(y)), y] = torch.inf
    return least


def verdicts_by_loop(margins, broken, tolerance):
    words = []
    for row, fell in zip(margins, broken, strict=True):
        if bool((row > tolerance).all()):
            words.append("certified")
        else:
            words.append("broken" if fell else "open")
    return words


def verdicts_by_sorting(margins, broken, tolerance):
    least = margins.sort(1).values[:, 0]
    words = ["open"] * len(least)
    for i in range(len(words)):
        if broken[i]:
            words[i] = "broken"
        elif least[i] > tolerance:
            words[i] = "certified"
    return tuple(words)


RIGHT = {
    "by signs": {"through_linear": linear_by_signs, "through_rising": rising_as_a_list, "box": box_by_signs,
                 "margins": margins_by_a_layer, "verdicts": verdicts_by_sorting},
    "by loop": {"through_linear": linear_by_loop, "box": box_one_by_one, "margins": margins_by_loop,
                "verdicts": verdicts_by_loop},
    "in float64": {"through_linear": linear_in_float64, "through_rising": rising_in_float64, "box": box_in_float64,
                   "margins": margins_in_float64},
    "stacked": {"through_rising": rising_stacked, "box": through, "margins": lead},
}
