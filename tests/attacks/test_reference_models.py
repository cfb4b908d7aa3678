"""Other people's trained nets with known results: an attack that is too weak shows here first.

WK17a (Wong and Kolter's MNIST net): a mixed-integer solver found the exact robust accuracy at L∞ ε = .1, 95.62 % of
the 10,000 test images. No attack may go below; a good PGD ends close above.
"""

import json

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from robustness_lib import ThreatModel, data
from robustness_lib.attacks import FAB, FGSM, PGD, AutoAttack, AutoPGD, SquareAttack

pytestmark = pytest.mark.reference


def wk17a():
    return nn.Sequential(nn.Conv2d(1, 16, 4, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 4, 2, 1), nn.ReLU(), nn.Flatten(),
                         nn.Linear(1568, 100), nn.ReLU(), nn.Linear(100, 10))


def trades():
    def block(a, b):
        return [nn.Conv2d(a, b, 3), nn.ReLU()]

    return nn.Sequential(*block(1, 32), *block(32, 32), nn.MaxPool2d(2), *block(32, 64), *block(64, 64),
                         nn.MaxPool2d(2), nn.Flatten(), nn.Linear(1024, 200), nn.ReLU(), nn.Dropout(0.5),
                         nn.Linear(200, 200), nn.ReLU(), nn.Linear(200, 10))


NETS = {"wk17a": (wk17a, "mnist-wk17a.pt", 0.1, 20), "trades": (trades, "mnist-trades-smallcnn.pt", 0.3, 10)}


def load(folder, name):
    build, file, eps, steps = NETS[name]
    state = torch.load(folder / file, weights_only=True)
    state = state.get("state_dict", state)
    net = build()
    # The authors named their layers; the order is the same.
    names = list(net.state_dict())
    assert len(names) == len(state)
    net.load_state_dict(dict(zip(names, state.values(), strict=True)))
    return net.eval(), eps, steps


@pytest.fixture(params=NETS)
def net(request, reference_models):
    return load(reference_models, request.param)


def ten_line_pgd(model, x, y, eps, steps, start):
    """Independent of the library: every iterate is judged, nothing stops, nothing leaves."""
    z, broken = start.clone(), model(x).argmax(1) != y
    for _ in range(steps):
        z = z.detach().requires_grad_()
        logits = model(z)
        broken |= logits.argmax(1) != y
        (gradient,) = torch.autograd.grad(F.cross_entropy(logits, y, reduction="sum"), z)
        z = (z + 2.5 * eps / steps * gradient.sign()).clamp(x - eps, x + eps).clamp(0, 1)
    return broken | (model(z).argmax(1) != y)


def test_ours_breaks_the_same_images_as_ten_lines_from_the_same_start(net, real_data):
    model, eps, steps = net
    x, y, _ = data.load("mnist", n=1000)
    threat = ThreatModel("linf", eps)
    start = threat.random_point(x, seed=5, index=torch.arange(1000))
    expected = torch.cat([ten_line_pgd(model, *part, eps, steps, s)
                          for *part, s in zip(x.split(250), y.split(250), start.split(250), strict=True)])
    result = PGD(threat, steps=steps).run(model, x, y, start=start, batch_size=250)
    assert torch.equal(result.success, expected)
    assert 10 < expected.sum() < 200


def test_wk17a_on_the_whole_test_set(reference_models, real_data):
    model, eps, _ = load(reference_models, "wk17a")
    x, y, _ = data.load("mnist")
    assert len(x) == 10_000
    with torch.no_grad():
        assert int((model(x).argmax(1) != y).sum()) == 189  # clean error 1.89 %
    broken = PGD(ThreatModel("linf", eps), steps=40).run(model, x, y, batch_size=500).success
    assert 9562 <= int((~broken).sum()) <= 9595


def test_no_adversarial_image_where_the_solver_proved_there_is_none(reference_models, real_data):
    """Test image 8 has exact smallest L∞ distance 0.0940014207; images 0 and 1 have none within 0.1."""
    model, _, _ = load(reference_models, "wk17a")
    x, y, _ = data.load("mnist", n=9)
    nearer = PGD(ThreatModel("linf", 0.0940), steps=200, restarts=5).run(model, x[8:], y[8:])
    assert not nearer.success.any()
    farther = PGD(ThreatModel("linf", 0.0960), steps=200, restarts=20).run(model, x[8:], y[8:])
    assert farther.success.all()
    assert not PGD(ThreatModel("linf", 0.1), restarts=5).run(model, x[:2], y[:2]).success.any()


def test_one_step_breaks_less_than_many(net, real_data):
    model, eps, steps = net
    x, y, _ = data.load("mnist", n=1000 if eps == 0.1 else 300)
    one = FGSM(ThreatModel("linf", eps)).run(model, x, y).success
    many = PGD(ThreatModel("linf", eps), steps=steps).run(model, x, y).success
    assert one.sum() < many.sum()
    assert (one & ~many).sum() <= 1


@pytest.mark.parametrize(("name", "n", "standing"), [
    ("wk17a", 300, 40), ("trades", 150, 15),
    pytest.param("wk17a", 300, 300, marks=pytest.mark.slow), pytest.param("trades", 150, 150, marks=pytest.mark.slow),
])
def test_auto_attack_gives_the_verdicts_of_the_reference_implementation(
        reference_models, real_data, name, n, standing):
    """All but two, per image. To break more is no fault; to leave more standing is one.

    So every image counts that the reference broke. One that it left standing can only make up for such a fault, and
    costs the most, all four attacks to their end: of these there are so many at most.
    """
    model, eps, _ = load(reference_models, name)
    x, y, _ = data.load("mnist", n=n)
    recorded = json.loads((reference_models / f"ref_aa_{name}_{n}.json").read_text())
    clean, robust = (torch.tensor(recorded[key][:n], dtype=torch.bool) for key in ("clean", "robust"))
    assert recorded["eps"] == eps
    assert torch.equal(model(x).argmax(1) == y, clean)
    rows = (~robust | (robust.cumsum(0) <= standing)).nonzero()[:, 0]
    result = AutoAttack(ThreatModel("linf", eps)).run(model, x[rows], y[rows], index=rows)
    assert torch.equal(result.clean, clean[rows])
    assert (result.robust & ~robust[rows]).sum() <= 2
    assert result.robust.sum() <= robust[rows].sum()
    assert [w.kind for w in result.warnings] in ([], ["Square found more"])


@pytest.mark.slow
@pytest.mark.parametrize("attack", [
    AutoPGD(ThreatModel("linf", 0.1)), AutoPGD(ThreatModel("linf", 0.1), loss="targeted-dlr"),
    FAB("linf", stop_within=0.1), SquareAttack(ThreatModel("linf", 0.1)),
], ids=["apgd-ce", "apgd-t", "fab-t", "square"])
def test_no_attack_goes_below_the_exact_accuracy_on_the_whole_test_set(reference_models, real_data, attack):
    model, eps, _ = load(reference_models, "wk17a")
    x, y, _ = data.load("mnist")
    result = attack.run(model, x, y)
    broken = result.success & (result.distance <= eps * (1 + 1e-5) + 1e-6)
    assert int((~broken).sum()) >= 9562
    assert int((~broken).sum()) <= 9620


@pytest.mark.slow
def test_auto_attack_does_not_go_below_the_exact_accuracy_on_the_whole_test_set(reference_models, real_data):
    model, eps, _ = load(reference_models, "wk17a")
    x, y, _ = data.load("mnist")
    assert 9562 <= int(AutoAttack(ThreatModel("linf", eps)).run(model, x, y).robust.sum()) <= 9570
