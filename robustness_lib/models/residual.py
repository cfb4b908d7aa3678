"""Residual nets with pre-activation: WideResNet and PreAct-ResNet-18, as most robust classifiers of CIFAR-10 are."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from robustness_lib.models.architectures import architecture
from robustness_lib.models.same_padding import SameConvolution

__all__ = ["PreActivationResNet", "preact_resnet18", "wide_resnet"]

_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"relu": nn.ReLU, "silu": nn.SiLU}
_PADDINGS = ("symmetric", "same")
_STARTS = ("activation", "input")


class _Block(nn.Module):
    """x + conv2(act(norm2(conv1(act(norm1(x)))))): what is added is never activated itself, so that x passes as it is.

    Where the block halves the image or changes the number of channels, a 1×1 convolution brings x to that shape. It
    starts from act(norm1(x)), or from x (`shortcut_from`).
    """

    def __init__(self, width_in: int, width_out: int, stride: int, *, activation: Callable[[], nn.Module],
                 padding: str, shortcut_from: str) -> None:
        super().__init__()
        same = padding == "same" and stride > 1
        kind = SameConvolution if same else nn.Conv2d
        self.activation, self.from_input = activation(), shortcut_from == "input"
        self.norm1 = nn.BatchNorm2d(width_in)
        self.conv1 = kind(width_in, width_out, 3, stride=stride, padding=0 if same else 1, bias=False)
        self.norm2 = nn.BatchNorm2d(width_out)
        self.conv2 = nn.Conv2d(width_out, width_out, 3, padding=1, bias=False)
        keeps_its_shape = stride == 1 and width_in == width_out
        self.shortcut = None if keeps_its_shape else nn.Conv2d(width_in, width_out, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        active = self.activation(self.norm1(x))
        change = self.conv2(self.activation(self.norm2(self.conv1(active))))
        if self.shortcut is not None:
            x = self.shortcut(x if self.from_input else active)
        return x + change  # type: ignore[no-any-return]


class PreActivationResNet(nn.Module):
    """A 3×3 convolution, groups of residual blocks of which each but the first halves the image, batch norm and
    activation, the mean over the image, and a linear layer: images (N, in_channels, H, W) in [0, 1] to logits
    (N, classes), for any H and W. He et al. 2016 (arXiv 1603.05027).

    stem: channels of the first convolution. widths: channels of each group. blocks: in each group. activation: "relu"
    or "silu". padding: of the convolutions that halve, "symmetric" or "same" (TensorFlow's, below and to the right).
    shortcut_from: where a block's 1×1 convolution starts, its "activation" or its "input". final_norm: whether batch
    norm and activation stand before the mean. Raises ValueError for what is none of these, and for sizes below 1;
    TypeError for sizes that are no whole numbers.

    computes: those of the arguments that change what is computed and that no name in the state dict tells.
    """

    def __init__(self, stem: int, widths: Sequence[int], blocks: int, *, in_channels: int, classes: int,
                 activation: str = "relu", padding: str = "symmetric", shortcut_from: str = "activation",
                 final_norm: bool = True) -> None:
        super().__init__()
        _check_one_of("activation", activation, tuple(_ACTIVATIONS))
        _check_one_of("padding", padding, _PADDINGS)
        _check_one_of("shortcut_from", shortcut_from, _STARTS)
        for name, size in (("in_channels", in_channels), ("classes", classes)):
            _check_positive(name, size)
        self.computes = {"activation": activation, "padding": padding, "shortcut_from": shortcut_from}
        make = _ACTIVATIONS[activation]
        self.stem = nn.Conv2d(in_channels, stem, 3, padding=1, bias=False)
        self.groups = nn.Sequential()
        width_in = stem
        for group, width in enumerate(widths):
            self.groups.append(nn.Sequential(*(
                _Block(width if block else width_in, width, 2 if group and not block else 1, activation=make,
                       padding=padding, shortcut_from=shortcut_from) for block in range(blocks))))
            width_in = width
        self.norm: nn.Module = nn.BatchNorm2d(width_in) if final_norm else nn.Identity()
        self.activation: nn.Module = make() if final_norm else nn.Identity()
        self.linear = nn.Linear(width_in, classes)
        self._draw_weights()

    def _draw_weights(self) -> None:
        """So that the layers keep the size of what passes, also backward (He et al. 2015, arXiv 1502.01852)."""
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.activation(self.norm(self.groups(self.stem(x))))
        return self.linear(x.mean((2, 3)))  # type: ignore[no-any-return]


@architecture
def wide_resnet(depth: int = 28, width: int = 10, *, in_channels: int = 3, classes: int = 10,
                activation: str = "relu", padding: str = "symmetric") -> PreActivationResNet:
    """WideResNet (Zagoruyko and Komodakis 2016, arXiv 1605.07146): three groups of (depth − 4) / 6 residual blocks with
    16, 32 and 64 times `width` channels; images (N, in_channels, H, W) in [0, 1] to logits (N, classes). Without
    dropout.

    Parameters for CIFAR-10: 36.48 million with depth 28 and width 10, 46.16 million with depth 34 and width 10.

    activation: "relu", or "silu" (Swish). padding: "symmetric", or "same" where convolutions halve the image: the nets
    of Gowal et al. 2020 (arXiv 2010.03593) and those who built on their code have both. Weights in the naming of the
    TRADES repository and in that of Gowal et al. load as they are (see `find_model`). Raises ValueError for a depth
    that is not 6n + 4, and for sizes below 1.
    """
    _check_positive("depth", depth)
    if depth < 10 or depth % 6 != 4:
        below = max(10, depth - (depth - 4) % 6)
        raise ValueError(f"the depth of a WideResNet is 6n + 4: a convolution, three groups of n blocks, and a linear "
                         f"layer; found {depth}. The nearest are {below} and {below + 6}")
    _check_positive("width", width)
    return PreActivationResNet(16, [16 * width, 32 * width, 64 * width], (depth - 4) // 6, in_channels=in_channels,
                               classes=classes, activation=activation, padding=padding)


@architecture
def preact_resnet18(*, in_channels: int = 3, classes: int = 10, width: int = 64, shortcut_from: str = "activation",
                    final_norm: bool = True) -> PreActivationResNet:
    """PreAct-ResNet-18 (He et al. 2016, arXiv 1603.05027) for small images: four groups of two residual blocks with
    1, 2, 4 and 8 times `width` channels; images (N, in_channels, H, W) in [0, 1] to logits (N, classes).

    11.17 million parameters for CIFAR-10. The first convolution keeps the image's size, unlike that of the ResNet-18
    for ImageNet.

    shortcut_from, final_norm: published weights differ. On RobustBench those of Rice et al. 2020 (arXiv 2002.11569) go
    with the defaults, and those of Wong et al. 2020 (arXiv 2001.03994) with "input" and False. Weights in that naming
    load as they are (see `find_model`). Raises ValueError for another word, and for sizes below 1.
    """
    _check_positive("width", width)
    return PreActivationResNet(width, [width, 2 * width, 4 * width, 8 * width], 2, in_channels=in_channels,
                               classes=classes, shortcut_from=shortcut_from, final_norm=final_norm)


def _check_one_of(name: str, value: object, known: Sequence[str]) -> None:
    if value not in known:
        raise ValueError(f"{name} must be {' or '.join(map(repr, known))}; found {value!r}")


def _check_positive(name: str, size: object) -> None:
    if isinstance(size, bool) or not isinstance(size, int):
        raise TypeError(f"{name} must be a whole number; found {size!r}")
    if size < 1:
        raise ValueError(f"{name} must be at least 1; found {size}")
