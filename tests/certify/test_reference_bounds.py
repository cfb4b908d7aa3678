"""Bounds of a trained net whose exact robust accuracy is known: neither too loose nor, what would be far worse, too
tight.

WK17a (Wong and Kolter's MNIST net) at L∞ ε = .1: its authors' own bound, the dual of parallel slopes without the pixel
box, proves 94.18 % of the 10,000 test images; a mixed-integer solver found 95.62 % robust, which no bound may exceed.
"""

import pytest
import torch
from test_reference_models import load

from robustness_lib import ThreatModel, data
from robustness_lib.attacks import PGD
from robustness_lib.certify import crown_margins, trace

THREAT = ThreatModel("linf", 0.1)


def proved(network, x, y, **settings):
    """Which images, in batches whose rows fit into the memory."""
    return torch.cat([crown_margins(network, *part, THREAT, **settings).amin(1) > 0
                      for part in zip(x.split(500), y.split(500), strict=True)])


def with_alpha(network, x, y, best):
    """The best of both slopes, and where that does not do, slopes that move. These never lose, so that nobody needs to
    ask again what is proved."""
    found = best.clone()
    found[~best] = proved(network, x[~best], y[~best], alpha_steps=20)
    return found


@pytest.fixture(scope="module")
def thousand(reference_models, real_data):
    model, _, _ = load(reference_models, "wk17a")
    x, y, _ = data.load("mnist", n=1000)
    return model, trace(model, x), x, y


@pytest.mark.reference
def test_a_thousand_images_of_wk17a(thousand):
    model, network, x, y = thousand
    broken = PGD(THREAT, steps=40).run(model, x, y, batch_size=500).success
    assert 945 <= int((~broken).sum()) <= 950
    found = {slopes: proved(network, x, y, slopes=slopes) for slopes in ("parallel", "adaptive", "best")}
    for slopes, expected in (("parallel", 925), ("adaptive", 928), ("best", 930)):
        assert abs(int(found[slopes].sum()) - expected) <= 2, slopes
    # Not the or of both alone: the boxes inside are better, too.
    assert not ((found["parallel"] | found["adaptive"]) & ~found["best"]).any()
    found["alpha"] = with_alpha(network, x, y, found["best"])
    assert int(found["alpha"].sum()) >= 933
    for slopes, images in found.items():
        assert not (images & broken).any(), slopes


@pytest.mark.slow
def test_the_whole_test_set_of_wk17a(reference_models, real_data):
    model, _, _ = load(reference_models, "wk17a")
    x, y, _ = data.load("mnist")
    network, broken = trace(model, x), PGD(THREAT, steps=40).run(model, x, y, batch_size=500).success
    found = {"their bound": proved(network, x, y, slopes="parallel", pixel_box=False),
             "adaptive": proved(network, x, y, slopes="adaptive"), "best": proved(network, x, y)}
    found["alpha"] = with_alpha(network, x, y, found["best"])
    counts = {name: int(images.sum()) for name, images in found.items()}
    print({**counts, "broken": int(broken.sum()), "unknown": int((~broken & ~found["alpha"]).sum())})
    for name, images in found.items():
        assert not (images & broken).any(), name
    assert abs(counts["their bound"] - 9418) <= 10
    assert counts["adaptive"] >= 9465
    assert counts["best"] >= 9470
    assert 9515 <= counts["alpha"] <= 9562
    assert int((~broken & ~found["alpha"]).sum()) <= 80
