"""Transfer: what breaks a surrogate is shown to the victim, once."""

import copy

import pytest
import torch
from torch import nn

from robustness_lib import ThreatModel
from robustness_lib.attacks import FGSM, PGD
from robustness_lib.attacks.transfer import Transfer
from robustness_lib.data import load
from robustness_lib.models import load_pretrained

LINF, L2 = ThreatModel("linf", 0.06), ThreatModel("l2", 0.2)


def mlp(seed, noise=0.0, classes=4):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Linear(12, 24), nn.Tanh(), nn.Dropout(0.5), nn.Linear(24, classes)).double()
        for p in net.parameters():
            p.data.mul_(4)
        torch.manual_seed(99)
        for p in net.parameters():
            p.data.add_(noise * torch.randn_like(p))
    return net.eval()


def problem(n=40):
    model = mlp(0)
    x = torch.rand((n, 12), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return model, x, model(x).argmax(1)


@pytest.mark.parametrize("threat", [LINF, L2], ids=["linf", "l2"])
@pytest.mark.parametrize("targeted", [False, True])
def test_on_a_copy_it_breaks_what_the_attack_breaks(threat, targeted):
    model, x, y = problem()
    target = model(x).topk(2, dim=1).indices[:, 1] if targeted else None
    attack = PGD(threat, steps=15, seed=3)
    expected = PGD(threat, steps=15, seed=3, stop="never").run(model, x, y, target)
    result = Transfer(threat, copy.deepcopy(model), attack, stop="never").run(model, x, y, target)
    assert torch.equal(result.x_adv, expected.x_adv)
    assert torch.equal(result.success, expected.success)
    assert 3 < result.success.sum() < 37
    assert torch.equal(result.distance, threat.distance(result.x_adv, x))
    assert torch.equal(Transfer(threat, copy.deepcopy(model), attack).run(model, x, y, target).success,
                       expected.success)


def test_the_default_attack_is_forty_steps_of_pgd():
    model, x, y = problem()
    result = Transfer(LINF, mlp(5))(model, x, y)
    assert torch.equal(result, Transfer(LINF, mlp(5), PGD(LINF, steps=40))(model, x, y))
    assert not torch.equal(result, Transfer(LINF, mlp(5), PGD(LINF, steps=3))(model, x, y))


def test_the_victim_answers_once_and_gives_no_gradient():
    model, x, y = problem()
    y[:5] = (y[:5] + 1) % 4
    asked = []

    @torch.no_grad()
    def victim(z):
        asked.append(len(z))
        return model(z)

    result = Transfer(LINF, mlp(0, noise=0.3)).run(victim, x, y)
    assert asked == [40, 35]
    assert result.calls == 2
    assert torch.equal(result.queries, torch.where(torch.arange(40) < 5, 1, 2))
    assert (result.gradients == 0).all()
    assert torch.equal(result.x_adv[:5], x[:5])
    assert 0 < result.success[5:].sum() < 35
    assert (Transfer(LINF, mlp(0), stop="never").run(victim, x, y).queries == 1).all()


def test_the_surrogates_attack_goes_on_past_its_first_success():
    """The point of highest loss carries over better than the first point beyond the boundary."""
    model, x, y = problem()
    surrogate, seen = mlp(0, noise=0.3), []
    Transfer(LINF, lambda z: seen.append(len(z)) or surrogate(z), PGD(LINF, steps=9, stop="success")).run(model, x, y)
    assert seen == [40] * 10


def test_the_loss_ranks_on_the_victim_and_the_attacks_own_on_the_surrogate():
    model, x, y = problem()
    steps = []
    attack = Transfer(LINF, mlp(5), FGSM(LINF, loss="ce"), loss="margin", stop="never")
    result = attack.run(model, x, y, on_step=steps.append)
    assert torch.equal(result.x_adv, FGSM(LINF, loss="ce", stop="never")(mlp(5), x, y))
    logits = model(result.x_adv)
    own = logits.gather(1, y[:, None])[:, 0]
    torch.testing.assert_close(steps[0].loss, logits.scatter(1, y[:, None], -torch.inf).amax(1) - own)
    assert len(steps) == 1


def test_the_surrogate_is_as_it_was():
    model, x, y = problem()
    surrogate = mlp(5).train()
    surrogate[0].weight.requires_grad_(False)
    surrogate(x).sum().backward()
    before = copy.deepcopy(surrogate.state_dict())
    gradients = [None if p.grad is None else p.grad.clone() for p in surrogate.parameters()]
    Transfer(LINF, surrogate)(model, x, y)
    assert all(torch.equal(before[name], value) for name, value in surrogate.state_dict().items())
    assert all(module.training for module in surrogate.modules())
    assert [p.requires_grad for p in surrogate.parameters()] == [False, True, True, True]
    assert all((g is None and p.grad is None) or torch.equal(g, p.grad)
               for g, p in zip(gradients, surrogate.parameters(), strict=True))


def test_it_does_not_depend_on_the_batch():
    model, x, y = problem()
    y[::4] = (y[::4] + 1) % 4
    attack = Transfer(LINF, mlp(0, noise=0.3), PGD(LINF, steps=5))
    whole = attack.run(model, x, y)
    pieces = attack.run(model, x, y, batch_size=7)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(3))
    shuffled = attack.run(model, x[order], y[order], index=order)
    for other, rows in ((pieces, slice(None)), (shuffled, order)):
        torch.testing.assert_close(other.x_adv, whole.x_adv[rows], atol=1e-9, rtol=0)
        assert torch.equal(other.success, whole.success[rows])


def test_the_surrogates_attack_begins_where_it_is_told_to():
    model, x, y = problem()
    y[:5] = (y[:5] + 1) % 4  # these are not attacked: the starts of the others must stay theirs
    start = (x + 0.02).clamp(0, 1)
    attack = FGSM(LINF, stop="never")
    result = Transfer(LINF, mlp(5), attack)(model, x, y, start=start)
    assert torch.equal(result[5:], attack(mlp(5), x, y, start=start)[5:])
    assert not torch.equal(result[5:], attack(mlp(5), x, y)[5:])


def test_a_model_attacked_through_itself_is_as_it_was():
    model, x, y = problem()
    model.train()
    Transfer(LINF, model)(model, x, y)
    assert all(module.training for module in model.modules())
    assert all(p.requires_grad for p in model.parameters())


def test_from_a_standard_net_to_a_robust_one():
    """Convolutions, whose weights lie in another memory order while they are attacked: both nets at once."""
    victim, surrogate = load_pretrained("signs-pgd"), load_pretrained("signs-standard")
    x, y = (t[:40] for t in load("signs", split="test")[:2])
    threat = ThreatModel("linf", 8 / 255)
    white_box = PGD(threat, steps=10).run(victim, x, y)
    result = Transfer(threat, surrogate, PGD(threat, steps=10)).run(victim, x, y)
    with torch.no_grad():
        assert torch.equal(victim(result.x_adv).argmax(1) != y, result.success)
        clean = (victim(x).argmax(1) != y).sum()
    assert clean <= result.success.sum() <= white_box.success.sum()
    assert Transfer(threat, victim, PGD(threat, steps=10)).run(victim, x, y).success.sum() > clean
    assert (result.distance <= threat.eps + 1e-6).all()
    assert all(p.is_contiguous() for net in (victim, surrogate) for p in net.parameters())


@pytest.mark.parametrize(("surrogate", "attack", "error", "words"), [
    (mlp(5), PGD(ThreatModel("linf", 0.05)), ValueError, "threat model"),
    (mlp(5), PGD(ThreatModel("l2", 0.06)), ValueError, "threat model"),
    (mlp(5), "pgd", TypeError, "attack must be"),
    ("signs-pgd", None, TypeError, "surrogate must be a model"),
])
def test_wrong_settings_are_refused_in_words(surrogate, attack, error, words):
    with pytest.raises(error, match=words):
        Transfer(LINF, surrogate, attack)


def test_what_the_surrogates_attack_warns_of_is_handed_on():
    model, x, y = problem()
    surrogate = mlp(5).double()
    (warning,) = Transfer(LINF, lambda z: 1e7 * surrogate(z)).run(model, x, y).warnings
    assert warning.kind == "zero gradient"
    assert warning.message.startswith("on the surrogate: for ")
    assert warning.images > 0
    assert warning.about == "the surrogate"


def test_warnings_of_the_surrogate_name_the_images_as_they_were_given():
    """Some are wrong from the start and never get to it; and all batches are spoken of together."""
    model, x, y = problem()
    y = y.clone()
    y[0] = (y[0] + 1) % 3
    surrogate = mlp(5).double()
    (whole,) = Transfer(LINF, lambda z: 1e7 * surrogate(z)).run(model, x, y).warnings
    (parts,) = Transfer(LINF, lambda z: 1e7 * surrogate(z)).run(model, x, y, batch_size=5).warnings
    assert whole == parts
    assert f"for {whole.images} of {len(x)} images" in whole.message
    assert 0 not in whole.rows


def test_errors_of_the_surrogate_say_whose_they_are():
    model, x, y = problem()
    for surrogate, words in ((mlp(5, classes=2), r"labels must lie in 0 \.\.\. 1"),
                             (lambda z: mlp(5)(z.detach()), "autograd")):
        with pytest.raises(ValueError, match=words) as caught:
            Transfer(LINF, surrogate)(model, x, y)
        assert "surrogate" in caught.value.__notes__[0]
