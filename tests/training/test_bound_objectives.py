"""Training for bounds: the loss written out by hand, its gradient, and networks that learn to be proved."""

import copy

import pytest
import torch
import torch.nn.functional as F
from shared_problems import same, snapshot
from torch import nn
from torch.utils.checkpoint import checkpoint

from robustness_lib import ThreatModel
from robustness_lib.attacks import PGD
from robustness_lib.certify import UnknownOperation, crown_margins, interval_margins, trace
from robustness_lib.certify.traced_network import LiveNetwork
from robustness_lib.training import IBP, CrownIBP, OneCycle, Standard, fit, read_recipe

LINF, L2, WIDE = ThreatModel("linf", 0.05), ThreatModel("l2", 0.3), ThreatModel("linf", 0.08)
EACH = {"ibp": IBP(LINF), "ibp-l2": IBP(L2), "ibp-alone": IBP(LINF, clean_share=0.0),
        "crown-ibp": CrownIBP(LINF, crown_share=1.0), "mixed": CrownIBP(LINF, 0.2, 0.4),
        "mixed-l2": CrownIBP(L2, 0.2, 0.4, label_smoothing=0.1)}
each = pytest.mark.parametrize("objective", EACH.values(), ids=EACH)


def net(dtype=torch.float64):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(64, 8), nn.ReLU(),
                              nn.Dropout(0.2), nn.Linear(8, 3)).to(dtype)
        return model.train(), torch.rand(6, 1, 4, 4, dtype=dtype), torch.tensor([0, 1, 2, 0, 1, 2])


def by_hand(objective, model, x, y, clean):
    """From the bounds as anybody gets them of a model in eval mode."""
    margins = interval_margins(model, x, y, objective.threat)
    share = getattr(objective, "crown_share", 0.0)
    if share:
        crown = crown_margins(model, x, y, objective.threat, slopes="adaptive", intermediate="interval")
        margins = share * crown.nan_to_num(posinf=0) + (1 - share) * margins.nan_to_num(posinf=0)
    worst = -margins.scatter(1, y[:, None], 0)
    smoothing = objective.label_smoothing
    return objective.clean_share * F.cross_entropy(clean, y, label_smoothing=smoothing) + \
        (1 - objective.clean_share) * F.cross_entropy(worst, y, label_smoothing=smoothing)


@each
def test_the_loss_is_that_of_clean_and_worst_logits(objective):
    model, x, y = net()
    torch.manual_seed(0)  # the dropout
    loss = objective(model, x, y)
    torch.manual_seed(0)
    expected = by_hand(objective, model, x, y, model(x))
    assert loss.shape == ()
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-9, atol=0)


@each
def test_its_gradient_is_that_of_finite_differences(objective):
    model, x, y = net()
    model[5].p = 0.0
    for name, parameter in model.named_parameters():
        (gradient,) = torch.autograd.grad(objective(model, x, y), parameter)
        way = torch.randn(parameter.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        ends = []
        for step in (1e-6, -2e-6):
            with torch.no_grad():
                parameter += step * way
            ends.append(objective(model, x, y).item())
        with torch.no_grad():
            parameter += 1e-6 * way
        assert (gradient * way).sum() == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-4, abs=1e-7), name


@each
def test_no_attack_finds_a_higher_loss(objective):
    model, x, y = net()
    alone = copy.copy(objective)
    object.__setattr__(alone, "clean_share", 0.0)
    worst = alone(model, x, y)
    x_adv = PGD(objective.threat, steps=20, stop="never").run(model, x, y).x_adv
    with torch.no_grad():
        assert F.cross_entropy(model.eval()(x_adv), y, label_smoothing=objective.label_smoothing) <= worst + 1e-9


@each
def test_with_no_share_of_eps_it_is_the_clean_loss(objective):
    model, x, y = net()
    torch.manual_seed(0)
    loss = objective.with_share(0.0)(model, x, y)
    torch.manual_seed(0)
    torch.testing.assert_close(loss, Standard(label_smoothing=objective.label_smoothing)(model, x, y))


def test_what_grows_with_eps():
    objective = CrownIBP(LINF, clean_share=0.5, crown_share=0.2)
    half = objective.with_share(0.5)
    assert half.threat.eps == 0.025
    model, x, y = net()
    model.eval()
    loss, clean = half(model, x, y), F.cross_entropy(model(x), y)
    expected = by_hand(CrownIBP(half.threat, clean_share=0.75, crown_share=0.6), model, x, y, model(x))
    torch.testing.assert_close(loss, expected)
    assert loss > clean
    assert objective.with_share(0.5).with_share(0.5).threat.eps == 0.0125


def test_it_goes_by_the_weights_as_they_are_now():
    """The network is traced once, and its weights move."""
    model, x, y = net()
    model.eval()
    objective = IBP(LINF, clean_share=0.0)
    descent = torch.optim.SGD(model.parameters(), 0.5)
    for _ in range(3):
        loss = objective(model, x, y)
        torch.testing.assert_close(loss, by_hand(objective, model, x, y, model(x)).detach(), rtol=1e-9, atol=0)
        descent.zero_grad()
        loss.backward()
        descent.step()
    other, _, _ = net()
    torch.testing.assert_close(objective(other.eval(), x, y), by_hand(objective, other, x, y, other(x)).detach())


def test_parametrized_and_shared_weights_learn_too():
    torch.manual_seed(0)
    shared = nn.Linear(4, 4)
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(3, 4)), nn.ReLU(), shared, nn.ReLU(), shared,
                          nn.ReLU(), nn.Linear(4, 2)).double()
    x, y = torch.rand(5, 3, dtype=torch.float64), torch.tensor([0, 1, 0, 1, 0])
    IBP(LINF, clean_share=0.0)(model, x, y).backward()
    assert all(p.grad is not None and bool((p.grad != 0).any()) for p in model.parameters())
    live = LiveNetwork(model, x)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    torch.testing.assert_close(live(model)(x), model(x))


@each
def test_the_model_stays_as_it_was(objective):
    model, x, y = net()
    model[3].eval()
    before, images = snapshot(model), x.clone()
    objective(model, x, y)
    assert same(before, snapshot(model))
    assert torch.equal(x, images)


def normed():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3)).double()
    nn.init.uniform_(model[1].weight, 0.5, 2)
    return model, torch.rand(8, 4, dtype=torch.float64), torch.arange(8) % 3


def test_batch_norm_goes_by_the_statistics_of_the_batch():
    model, x, y = normed()
    for _ in range(3):
        twin = copy.deepcopy(model)
        loss = IBP(LINF, clean_share=0.25)(model, x, y)
        loss.backward()
        clean = twin(x)  # running statistics move by the clean pass, once
        assert torch.equal(model[1].running_mean, twin[1].running_mean)
        assert torch.equal(model[1].num_batches_tracked, twin[1].num_batches_tracked)
        hidden = twin[0](x)
        twin[1].running_mean, twin[1].running_var = hidden.mean(0).detach(), hidden.var(0, correction=0).detach()
        expected = by_hand(IBP(LINF, clean_share=0.25), twin.eval(), x, y, clean)
        torch.testing.assert_close(loss.detach(), expected.detach())
    assert not any(layer._forward_pre_hooks for layer in model)


def test_it_is_differentiated_through_the_statistics():
    """A scale before batch norm changes nothing in the batch's own statistics, but for the small number that is added
    to the variance."""
    model, x, y = normed()
    loss = IBP(LINF, clean_share=0.0)(model, x, y)
    weight, bias = torch.autograd.grad(loss, [model[0].weight, model[0].bias])
    along = (weight * model[0].weight).sum() + (bias * model[0].bias).sum()
    assert abs(along) < 1e-3 * weight.norm() * model[0].weight.norm()
    assert abs(bias).max() < 1e-9


def test_batch_norm_that_is_held_keeps_its_running_statistics():
    model, x, y = normed()
    model(x)
    model[1].eval()
    loss = IBP(LINF)(model, x, y)
    torch.testing.assert_close(loss.detach(), by_hand(IBP(LINF), model, x, y, model(x)).detach())


def test_batch_norm_that_is_called_twice_goes_by_its_running_statistics():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.norm, self.last = nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 3)

        def forward(self, x):
            return self.last(self.norm(self.norm(self.first(x)).relu()))

    torch.manual_seed(0)
    model, (_, x, y) = Twice().double(), normed()
    twin = copy.deepcopy(model)
    loss = IBP(LINF)(model, x, y)
    loss.backward()
    clean = twin(x)
    torch.testing.assert_close(loss.detach(), by_hand(IBP(LINF), twin.eval(), x, y, clean).detach())


class Net(nn.Module):
    """Whose batch norm is called in ways of its own."""

    def __init__(self, how):
        super().__init__()
        self.first, self.norm, self.last, self.how = nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 3), how
        if how == "second name":
            self.other = self.norm

    def forward(self, x):
        if self.how == "checkpoint" and self.training:
            return self.last(checkpoint(lambda h: self.norm(self.first(h)).relu(), x, use_reentrant=True))
        norm = self.other if self.how == "second name" else self.norm
        return self.last((norm(input=self.first(x)) if self.how == "by keyword" else norm(self.first(x))).relu())


def seeded(how):
    torch.manual_seed(0)
    return Net(how).double()


@pytest.mark.parametrize("how", ["second name", "by keyword"])
def test_batch_norm_is_seen_however_it_is_called(how):
    _, x, y = normed()
    expected = IBP(LINF)(seeded("plain"), x, y)
    torch.testing.assert_close(IBP(LINF)(seeded(how), x, y), expected)


@pytest.mark.filterwarnings("ignore")
def test_statistics_that_cannot_be_seen_are_refused():
    _, x, y = normed()
    with pytest.raises(ValueError, match="'norm' takes of the batch, and these cannot be seen: it is compiled"):
        IBP(LINF)(seeded("checkpoint"), x.requires_grad_(), y)
    compiled = torch.compile(seeded("plain"), backend="eager")
    compiled(x)
    with pytest.raises(ValueError, match="these cannot be seen"):
        IBP(LINF)(compiled, x, y)
    with torch.no_grad():  # nobody asks for a gradient
        assert IBP(LINF)(seeded("plain"), x, y).isfinite()


def test_batch_norm_over_processes_is_batch_norm_in_one():
    model, x, y = normed()
    expected = IBP(LINF)(copy.deepcopy(model), x, y)
    torch.testing.assert_close(IBP(LINF)(nn.SyncBatchNorm.convert_sync_batchnorm(model), x, y), expected)


@pytest.mark.parametrize("change", [
    lambda model: model.__setitem__(2, nn.Tanh()), lambda model: setattr(model[1], "eps", 1.0),
    lambda model: setattr(model[0], "bias", None), lambda model: model.__setitem__(3, nn.Linear(6, 5).double()),
    lambda model: model.float(),
], ids=["layer", "setting", "bias", "width", "type"])
def test_a_layer_that_changed_is_noticed(change):
    model, x, y = normed()
    IBP(LINF)(model, x, y)
    change(model)
    x = x.to(next(model.parameters()).dtype)
    torch.testing.assert_close(IBP(LINF)(model, x, y), IBP(LINF)(copy.deepcopy(model), x, y))


def clouds(n=400):
    """Three clouds of points, far enough apart to be told at ε = .05."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(n) % 3
    centre = torch.tensor([[0.2, 0.2], [0.8, 0.3], [0.4, 0.8]])
    return (centre[y] + 0.07 * torch.randn(n, 2, generator=generator)).clamp(0, 1), y


@pytest.mark.parametrize("objective", [IBP(WIDE), CrownIBP(WIDE)], ids=["ibp", "crown-ibp"])
def test_a_net_learns_to_be_proved(objective):
    """Plain training leaves half of the same net unproved by the same bound."""
    (x, y), threat = clouds(), objective.threat
    shares = []
    for asked in (Standard(), objective):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(2, 64), nn.ReLU(), *[layer for _ in range(2) for layer in (
            nn.Linear(64, 64), nn.ReLU())], nn.Linear(64, 3))
        ramp = 0 if asked == Standard() else 15
        fit(model, (x, y), asked, epochs=40, batch_size=50, schedule=OneCycle(1e-2), ramp=ramp, weight_decay=0.0,
            progress=False)
        shares.append(float((interval_margins(model, x, y, threat).amin(1) > 0).float().mean()))
        assert float((model(x).argmax(1) == y).float().mean()) > 0.95
    assert shares[0] < 0.6
    assert shares[1] > 0.85


@pytest.mark.parametrize(("make", "words"), [
    (lambda: IBP(LINF, clean_share=1.5), "clean_share must lie in"),
    (lambda: CrownIBP(LINF, crown_share=-0.1), "crown_share must lie in"),
    (lambda: IBP(0.1), "threat must be a ThreatModel"),
    (lambda: IBP(LINF, clean_share="half"), "clean_share must be a number"),
    (lambda: IBP(LINF, clean_share=True), "clean_share must be a number"),
])
def test_settings_that_cannot_be(make, words):
    with pytest.raises((ValueError, TypeError), match=words):
        make()


def test_models_without_bounds_are_refused_with_the_layer():
    model = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 2))
    with pytest.raises(UnknownOperation, match=r"layer '1' \(LayerNorm\)"):
        IBP(LINF)(model, torch.rand(3, 4), torch.tensor([0, 1, 0]))


def test_recipes_name_them(tmp_path):
    recipe = tmp_path / "net.toml"
    for kind, made in (("ibp", IBP(LINF, clean_share=0.25)), ("crown-ibp", CrownIBP(LINF, clean_share=0.25))):
        recipe.write_text(f'[model]\nbuilder = "tiny_cnn"\n[data]\nname = "signs"\n[objective]\nkind = "{kind}"\n'
                          f'threat = "linf:0.05"\nclean_share = 0.25\n[fit]\nepochs = 2\n', encoding="utf-8")
        assert read_recipe(recipe).objective == made
    recipe.write_text(recipe.read_text(encoding="utf-8").replace("clean_share", "_grown"), encoding="utf-8")
    with pytest.raises(ValueError, match="_grown"):
        read_recipe(recipe)


def test_bounds_of_the_trained_net_are_those_of_a_fresh_trace():
    model, x, _ = net()
    live = LiveNetwork(model, x)
    for one, other in zip(live(model).steps, trace(model, x).steps, strict=True):
        assert one.operation.call.name == other.operation.call.name
