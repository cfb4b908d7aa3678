"""Lipschitz bounds of whole networks and the radii that follow: beside matrices, pairs of points, and attacks."""

import math

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import orthogonal, spectral_norm

from robustness_lib import ThreatModel, data
from robustness_lib.attacks import FAB, PGD
from robustness_lib.certify import (
    UnknownOperation,
    certify_lipschitz,
    interval_margins,
    lipschitz_bound,
    lipschitz_radius,
    trace,
)
from robustness_lib.models import GroupSort, Normalize, lipschitz_cnn, load_pretrained, orthogonal_linear
from robustness_lib.models import with_plain_weights as plain
from robustness_lib.notebook import linear_model
from robustness_lib.training import LipschitzMargin, Standard


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def norm(layer):
    return float(torch.linalg.matrix_norm(layer.weight.detach().double(), 2))


# The bound.


def test_the_bound_is_the_product_of_the_layers():
    first, second = nn.Linear(6, 5), nn.Linear(5, 3)
    bound = lipschitz_bound(nn.Sequential(first, nn.ReLU(), second), (6,))
    assert bound.constant == pytest.approx(norm(first) * norm(second), rel=1e-7)
    assert bound.constant > norm(first) * norm(second)
    assert [layer.operation for layer in bound.layers] == ["linear", "relu", "linear"]
    assert str(bound).startswith("no change gets more than")


def test_what_is_done_to_pixels_first_counts():
    """Each pixel of the channel of the least std moves 1 / std as fast."""
    net = nn.Sequential(Normalize([0.5, 0.4, 0.3], [0.25, 0.1, 0.5]), nn.Flatten())
    assert lipschitz_bound(net, (3, 4, 4)).constant == pytest.approx(1 / float(torch.tensor(0.1)), rel=1e-6)


def test_batch_norm_counts_as_it_is_in_eval_mode():
    norm_layer = nn.BatchNorm1d(3).train()
    norm_layer.running_var.copy_(torch.tensor([1.0, 0.01, 4.0]))
    norm_layer.weight.data[:] = torch.tensor([1.0, -0.3, 5.0])
    assert lipschitz_bound(norm_layer, (3,)).constant == pytest.approx(0.3 / math.sqrt(0.01001), rel=1e-5)
    assert norm_layer.training


class Residual(nn.Module):
    def __init__(self, inner, width):
        super().__init__()
        self.inner, self.last = inner, orthogonal_linear(width, 2)

    def forward(self, x):
        return self.last(x + self.inner(x))


def test_branches_that_are_added_add():
    inner = nn.Linear(4, 4, bias=False)
    inner.weight.data.copy_(torch.eye(4) / 2)
    assert lipschitz_bound(Residual(inner, 4), (4,)).constant == pytest.approx(1.5, rel=1e-5)


class Beside(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        return torch.cat([self.first(x), self.second(x)], 1)


def test_branches_beside_each_other_count_as_in_pythagoras():
    model = Beside()
    assert lipschitz_bound(model, (4,)).constant == pytest.approx(math.hypot(norm(model.first), norm(model.second)))


def test_a_layer_without_a_constant_is_named():
    with pytest.raises(UnknownOperation, match=r"layer '1' \(Softmax\)"):
        lipschitz_bound(nn.Sequential(nn.Linear(4, 3), nn.Softmax(1)), (4,))

    class Square(nn.Module):
        def forward(self, x):
            return x**2

    with pytest.raises(UnknownOperation, match=r"layer '1' \(Square\): pow gets ever steeper"):
        lipschitz_bound(nn.Sequential(nn.Linear(4, 3), Square()), (4,))


def test_no_pair_of_images_is_pulled_apart_faster():
    model = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.LeakyReLU(0.2),
                          nn.MaxPool2d(3, stride=1), nn.Conv2d(8, 4, 3, groups=2, dilation=2), nn.SiLU(),
                          nn.AvgPool2d(2), nn.Flatten(), nn.Linear(4, 3)).eval()
    x = torch.rand(30, 3, 16, 16)
    bound = lipschitz_bound(model, x)
    for step in (1e-3, 0.1):
        other = x + step * torch.randn_like(x)
        assert ((model(other) - model(x)).norm(dim=1) <= bound.constant * (other - x).flatten(1).norm(dim=1)).all()
    assert lipschitz_bound(trace(model, x), x) == bound


# Parametrizations: the bound takes no layer's word for its norm.


@pytest.mark.parametrize("orthogonal_map", ["householder", "cayley", "matrix_exp"])
def test_orthogonal_layers_are_as_long_as_they_say(orthogonal_map):
    layer = orthogonal(nn.Linear(5, 3), orthogonal_map=orthogonal_map)
    assert lipschitz_bound(layer, (5,)).constant == pytest.approx(1, abs=1e-6)


def test_spectral_norm_is_from_below_and_is_not_taken_at_its_word():
    """Two singular values close to each other, and the vectors of one step: the layer calls its norm 1."""
    layer = nn.Linear(30, 30, bias=False)
    layer.weight.data.copy_(torch.diag(torch.linspace(0.1, 3, 30)))
    layer = spectral_norm(layer, n_power_iterations=1).eval()
    layer.parametrizations.weight[0]._u.copy_(nn.functional.normalize(torch.ones(30), dim=0))
    layer.parametrizations.weight[0]._v.copy_(nn.functional.normalize(torch.ones(30), dim=0))
    true = norm(layer)
    assert true > 1.5
    assert true <= lipschitz_bound(layer, (30,)).constant <= true * (1 + 1e-6)


class ThreeStepsFromAnywhere(nn.Module):
    """The wrong version: a "Lipschitz" layer by three power steps from a fresh random vector at each pass."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)

    def weight(self):
        matrix = self.linear.weight
        v = torch.randn(matrix.shape[1])
        for _ in range(3):
            u = nn.functional.normalize(matrix @ v, dim=0)
            v = nn.functional.normalize(matrix.T @ u, dim=0)
        return matrix / (u @ matrix @ v).item()

    def forward(self, x):
        return nn.functional.linear(x, self.weight(), self.linear.bias)


def test_three_power_steps_from_anywhere_are_no_bound_and_are_refused():
    layer = ThreeStepsFromAnywhere(20, 20)
    x = torch.rand(4, 20)
    assert not torch.equal(layer(x), layer(x))  # not the same twice
    assert min(float(torch.linalg.matrix_norm(layer.weight().detach(), 2)) for _ in range(10)) > 1  # not a bound
    (gradient,) = torch.autograd.grad(layer.weight().square().sum(), layer.linear.weight)
    with_norm = layer.linear.weight.detach().clone().requires_grad_()
    (whole,) = torch.autograd.grad((with_norm / torch.linalg.matrix_norm(with_norm, 2)).square().sum(), with_norm)
    # Of a weight divided by its norm, the length of the weight is of no account: but for .item(), which hides that.
    along, hidden = ((found * weight.detach()).sum() for found, weight in (
        (whole, with_norm), (gradient, layer.linear.weight)))
    assert abs(float(along)) < 1e-4 < float(hidden)
    with pytest.raises(ValueError, match=r"cannot be traced|draws at random"):
        lipschitz_bound(nn.Sequential(layer), x)
    with pytest.raises(ValueError, match=r"cannot be traced|draws at random"):
        certify_lipschitz(nn.Sequential(layer), x)


# Radii.


def test_the_formula():
    radii = lipschitz_radius(torch.tensor([2.0, -1.0, 0.0]), 4.0)
    assert radii.tolist() == pytest.approx([2 / (math.sqrt(2) * 4), 0, 0])
    assert float(lipschitz_radius(1.0, 0.0)) == math.inf
    for constant in (-1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="finite number, 0 or more"):
            lipschitz_radius(1.0, constant)


def linear_net():
    """Whose nearest other class is known: at margin / ‖difference of rows‖, and √2 is reached."""
    layer = nn.Linear(6, 3)
    layer.weight.data.copy_(torch.linalg.qr(torch.randn(6, 3))[0].T)
    return nn.Sequential(Normalize([0.5] * 6, [0.25] * 6), layer)


def test_of_orthogonal_rows_the_radius_is_the_distance_to_the_boundary():
    model, x = linear_net(), torch.rand(20, 6)
    prediction, radius = certificates = certify_lipschitz(model, x)
    with torch.no_grad():
        top = model.double()(x.double()).topk(2).values
    distance = (top[:, 0] - top[:, 1]) * 0.25 / math.sqrt(2)
    sure = certificates.certified
    assert sure.sum() > 15
    assert torch.equal(prediction[sure], model(x.double()).argmax(1)[sure])
    assert (radius <= distance).all()
    assert radius[sure] == pytest.approx(distance[sure].numpy(), rel=1e-3, abs=1e-5)
    assert certificates.at(0.05).tolist() == (radius >= 0.05).tolist()
    assert certificates.accuracy(prediction.clamp(min=0), 0.05).correct == int((radius >= 0.05).sum())


def test_a_linear_classifier_in_a_line_of_code_may_have_values_without_axes():
    w = torch.tensor([2.0, -1.0], dtype=torch.float64)
    model, x = linear_model(w, -0.2), torch.rand(50, 2, dtype=torch.float64)
    truth = (x @ w - 0.2).abs() / w.norm()
    radius = certify_lipschitz(model, x).radius
    assert (radius <= truth).all()
    torch.testing.assert_close(radius, truth / math.sqrt(2), rtol=1e-6, atol=1e-6)  # one logit stands still


def test_the_margin_is_that_of_the_models_answer_over_the_best_other():
    model, x = linear_net(), torch.rand(20, 6)
    top = model(x).topk(2).values
    assert certify_lipschitz(model, x).margin == pytest.approx((top[:, 0] - top[:, 1]).detach().numpy(), abs=1e-5)


def test_what_rounding_could_turn_is_not_certified():
    """Two logits near 10,000 that differ by less than a float32 tells: it may answer either way."""
    layer = nn.Linear(2, 2)
    layer.weight.data.copy_(torch.eye(2))
    layer.bias.data[:] = 10_000
    x = torch.tensor([[0.5, 0.5 + 1e-4], [0.0, 1.0]])
    certificates = certify_lipschitz(layer, x)
    assert certificates.prediction.tolist() == [-1, 1]
    assert 0 < certificates.radius[1] < 1 / math.sqrt(2) - 0.005
    assert certify_lipschitz(layer.double(), x.double()).prediction.tolist() == [1, 1]


def test_batches_and_modes_change_nothing():
    model = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), GroupSort(), nn.Linear(4, 3)).train()
    x, before = torch.rand(7, 6), {key: value.clone() for key, value in model.state_dict().items()}
    whole, parts = certify_lipschitz(model, x), certify_lipschitz(model, x, batch_size=2)
    assert torch.allclose(whole.radius, parts.radius)
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert whole.up_to is None
    assert whole.images == parts.images


@pytest.fixture(scope="module")
def shipped():
    return load_pretrained("signs-lipschitz"), *data.load("signs", "test", n=24)[:2]


def test_no_attack_finds_anything_within_the_radius_of_the_shipped_net(shipped):
    model, x, _ = shipped
    certificates = certify_lipschitz(model, x)
    rows = certificates.certified.nonzero()[:, 0]
    assert len(rows) > 15
    found = FAB(norm="l2", steps=20, target_classes=3).run(model, x[rows], certificates.prediction[rows])
    assert (found.distance >= certificates.radius[rows]).all()
    for row in rows[:4].tolist():
        threat = ThreatModel("l2", float(certificates.radius[row]))
        attacked = PGD(threat, steps=20).run(model, x[row:row + 1], certificates.prediction[row:row + 1])
        assert not attacked.success.any()
    assert (found.distance[found.success] < 12 * certificates.radius[rows][found.success]).double().mean() > 0.5


def test_the_shipped_net_is_as_long_as_its_scale(shipped):
    """In half precision on disk, so that the constant is a little off; and it is computed from what was loaded."""
    bound = lipschitz_bound(shipped[0], shipped[1])
    assert 0.8 * 4 < bound.constant < 4.02
    assert not any(hasattr(layer, "parametrizations") for layer in shipped[0].modules())


def test_intervals_pass_it_too(shipped):
    """And grow by a factor of a million: rows of length 1 have entries that add up to far more than 1."""
    model, x, y = shipped
    network = trace(model, x).to(torch.float64)
    with torch.no_grad():
        logits = model(x[:4])
    right, top = logits.argmax(1) == y[:4], logits.topk(2).values
    assert right.any()
    for eps, kept in ((1e-10, True), (1e-5, False)):
        margins = interval_margins(network, x[:4], y[:4], ThreatModel("linf", eps)).amin(1)
        near = (margins - (top[:, 0] - top[:, 1]))[right].abs() < 5e-3
        assert near.all() if kept else not near.any()


# Training for it.


def test_the_objective_adds_what_a_change_can_close():
    model, x, y = plain(lipschitz_cnn((4,), scale=3.0)).eval(), torch.rand(6, 3, 32, 32), torch.arange(6)
    logits = model(x).detach()
    raised = logits + math.sqrt(2) * 3 * 0.2 * (1 - nn.functional.one_hot(y, 10))
    loss = LipschitzMargin(ThreatModel("l2", 0.2), constant=3.0)
    with torch.no_grad():
        assert float(loss(model, x, y)) == pytest.approx(float(nn.functional.cross_entropy(raised, y)), rel=1e-6)
        assert float(loss.with_share(0.0)(model, x, y)) == pytest.approx(float(Standard()(model, x, y)), rel=1e-6)


@pytest.mark.parametrize(("make", "words"), [
    (lambda: LipschitzMargin(ThreatModel("linf", 0.1)), "certifies L2 balls"),
    (lambda: LipschitzMargin(ThreatModel("l2", 0.1), constant=0.0), "positive and finite; found 0.0"),
])
def test_impossible_settings_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()
