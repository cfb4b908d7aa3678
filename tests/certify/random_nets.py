"""Small nets with every kind of layer that bounds pass, drawn at random, in float64."""

import torch
from torch import nn
from torch.nn import functional

from robustness_lib.models import as_classifier

ACTIVATIONS = {
    "relu": nn.ReLU, "leaky": lambda: nn.LeakyReLU(0.1), "elu": nn.ELU, "elu of 2": lambda: nn.ELU(2.0),
    "gelu": nn.GELU, "silu": nn.SiLU, "sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "softplus": nn.Softplus,
    "softplus of 3": lambda: nn.Softplus(3.0), "prelu": nn.PReLU, "relu6": nn.ReLU6, "selu": nn.SELU,
    "celu": lambda: nn.CELU(1.5), "hardswish": nn.Hardswish, "log sigmoid": nn.LogSigmoid,
    "hardsigmoid": nn.Hardsigmoid, "hardtanh": nn.Hardtanh,
}


class Residual(nn.Module):
    def __init__(self, *layers):
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x):
        return x + self.layers(x)


class Beside(nn.Module):
    """Branches, concatenated."""

    def __init__(self, *branches):
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x):
        return torch.cat([branch(x) for branch in self.branches], 1)


class Gate(nn.Module):
    """Channels multiplied by what they are on average, squeezed."""

    def __init__(self, channels):
        super().__init__()
        self.mix = nn.Conv2d(channels, channels, 1)

    def forward(self, x):
        return x * torch.sigmoid(self.mix(functional.adaptive_avg_pool2d(x, 1)))


def random_net(activation: str, seed: int) -> nn.Module:
    """Images (N, 2, 6, 6) to four logits; another shape of net for each seed of a few."""
    torch.manual_seed(seed)
    act = ACTIVATIONS[activation]
    body = [
        lambda: [nn.Conv2d(2, 3, 3, padding=1), act(), nn.BatchNorm2d(3),
                 Residual(nn.Conv2d(3, 3, 3, padding=1), act()), nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(),
                 nn.Linear(27, 6), act(), nn.Linear(6, 4)],
        lambda: [nn.Conv2d(2, 4, 3, stride=2, padding=1), act(), Gate(4),
                 Beside(nn.Conv2d(4, 2, 2, dilation=2, padding=1), nn.Sequential(nn.Conv2d(4, 2, 3, padding=1), act())),
                 nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 4)],
        lambda: [nn.Conv2d(2, 4, 1, groups=2), nn.AvgPool2d(2, ceil_mode=True), act(), nn.Flatten(2),
                 nn.Conv1d(4, 3, 3, padding=1), nn.MaxPool1d(2, 1), act(), nn.Flatten(), nn.Linear(24, 5), act(),
                 nn.Linear(5, 4)],
        lambda: [nn.Flatten(), nn.Linear(72, 8), act(), Residual(nn.Linear(8, 8), act()), nn.Linear(8, 8), act(),
                 nn.Linear(8, 4)],
    ][seed % 4]()
    net = nn.Sequential(*body).double()
    for parameter in net.parameters():
        parameter.data.mul_(1.5)
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.uniform_(-1, 1)
            part.running_var.uniform_(0.3, 2)
        if isinstance(part, nn.PReLU):
            part.weight.data.fill_(0.2)
    return as_classifier(net.eval(), mean=[0.5, 0.4], std=[0.3, 0.25])
