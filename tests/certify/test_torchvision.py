"""The networks that people take from torchvision are traced and bounded; and a layer that few of them have."""

import pytest
import torch
import torchvision
from torch import nn

from robustness_lib import ThreatModel
from robustness_lib.certify import UnknownOperation, crown_bounds, interval_bounds, trace

QUICK = ("resnet18", "mobilenet_v3_small", "efficientnet_b0", "shufflenet_v2_x0_5")
OTHERS = ("mobilenet_v2", "squeezenet1_1", "densenet121", "googlenet", "mnasnet0_5", "regnet_y_400mf", "vgg11_bn",
          "efficientnet_v2_s", "mobilenet_v3_large", "resnext50_32x4d", "wide_resnet50_2", "alexnet", "inception_v3")
SIZES = {"alexnet": 64, "inception_v3": 75}  # of images, where 32 is too small
DOUBLE = ("densenet121", "wide_resnet50_2")  # untrained, their intervals outgrow float32 on the way
OPTIONS = {name: {"init_weights": False} for name in ("googlenet", "inception_v3")}  # which draw them slowly


def network(name):
    torch.manual_seed(0)
    model = getattr(torchvision.models, name)(num_classes=10, **OPTIONS.get(name, {})).eval()
    x = torch.rand(2, 3, *[SIZES.get(name, 32)] * 2)
    return (model.double(), x.double()) if name in DOUBLE else (model, x)


@pytest.mark.parametrize("name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)])
def test_networks_of_torchvision_have_bounds(name):
    model, x = network(name)
    traced, threat = trace(model, x), ThreatModel("linf", 1e-4)
    bounds = interval_bounds(traced, x, threat)
    assert bounds.lower.isfinite().all()
    assert bounds.upper.isfinite().all()
    start = torch.Generator().manual_seed(0)
    for _ in range(4):
        corner = (x + threat.eps * torch.randn(x.shape, generator=start).sign().to(x)).clamp(0, 1)
        with torch.no_grad():
            logits = model(corner)
        assert (logits >= bounds.lower).all()
        assert (logits <= bounds.upper).all()
    with torch.no_grad():
        logits, still = model(x), interval_bounds(traced, x, ThreatModel("linf", 0.0))
    for bound in still:
        torch.testing.assert_close(bound, logits, rtol=1e-3, atol=1e-3 * float(logits.abs().max()))


def test_a_transformer_is_refused_and_its_layer_named():
    model = torchvision.models.VisionTransformer(
        image_size=32, patch_size=16, num_layers=1, num_heads=2, hidden_dim=8, mlp_dim=8).eval()
    with pytest.raises(UnknownOperation, match=r"layer 'encoder\.layers\.\w+\.ln_1' \(LayerNorm\).* layer_norm\."):
        trace(model, torch.rand(1, 3, 32, 32))


def instance_norm():
    torch.manual_seed(1)
    norm = nn.InstanceNorm2d(3, affine=True, track_running_stats=True)
    for parameter in (*norm.parameters(), norm.running_mean, norm.running_var):
        nn.init.uniform_(parameter, 0.2, 2.0)
    return norm


class Antialiased(nn.Module):
    def __init__(self, mode):
        super().__init__()
        self.mode = mode

    def forward(self, x):
        return nn.functional.interpolate(x, size=(4, 3), mode=self.mode, antialias=True)


LAYERS = {
    "bicubic": nn.Upsample(scale_factor=2, mode="bicubic"),
    "bicubic, to a size": nn.Upsample(size=(4, 11), mode="bicubic"),
    "bicubic, corners aligned": nn.Upsample(size=(13, 7), mode="bicubic", align_corners=True),
    "bicubic, antialiased": Antialiased("bicubic"),
    "bilinear, antialiased": Antialiased("bilinear"),
    "nearest-exact": nn.Upsample(scale_factor=1.5, mode="nearest-exact"),
    "channel shuffle": nn.ChannelShuffle(3),
    "instance norm": instance_norm(),
}


def matrix(function, shape):
    """Of an affine function of images (1, ...), and its constant."""
    one = torch.eye(shape.numel(), dtype=torch.float64).reshape(-1, *shape)
    constant = function(torch.zeros_like(one[:1])).flatten()
    return (function(one).flatten(1) - constant).t(), constant


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("name", LAYERS)
def test_an_affine_layer_is_bounded_exactly(name, norm):
    """Against the matrix that it is, and the norm of its rows."""
    layer, x = nn.Sequential(LAYERS[name], nn.Flatten()).double().eval(), torch.rand(2, 3, 8, 6).double()
    weights, constant = matrix(layer, x.shape[1:])
    threat = ThreatModel(norm, 0.1)
    centre = x.flatten(1) @ weights.t() + constant
    reach = 0.1 * (weights.abs().sum(1) if norm == "linf" else weights.square().sum(1).sqrt())
    for method in (interval_bounds, crown_bounds):
        found = method(layer, x, threat, pixel_box=False)
        torch.testing.assert_close(found.lower, centre - reach)
        torch.testing.assert_close(found.upper, centre + reach)


def used_and_kept(x):
    return nn.functional.instance_norm(x, torch.zeros(3), torch.ones(3), use_input_stats=True).flatten(1)


@pytest.mark.parametrize("model", [nn.Sequential(nn.InstanceNorm2d(3), nn.Flatten()), used_and_kept])
def test_instance_norm_of_the_images_themselves_is_refused(model):
    with pytest.raises(UnknownOperation, match="instance_norm without running statistics"):
        trace(model, torch.rand(1, 3, 4, 4))
